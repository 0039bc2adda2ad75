//! The task behind a connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use super::*;
use tokio::io::AsyncWriteExt;

/// Pieces handed to the kernel in one vectored write; far below the usual limit of 1024.
const PIECES_PER_WRITE: usize = 64;

/// Writes what is queued and reads what comes until one of the two ends, then closes the connection.
pub(super) async fn run<S>(
    shared: Arc<Shared>,
    stream: S,
    queue: mpsc::Receiver<Vec<Bytes>>,
    limits: FrameLimits,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    // Also when this task panics or is aborted, nobody may be left waiting.
    let _closing = CloseOnDrop(Arc::clone(&shared));
    let (reader, writer) = tokio::io::split(stream);
    let reason = tokio::select! {
        reason = read(&shared, reader, limits) => reason,
        reason = write(&shared, writer, queue) => reason,
    };
    shared.close(reason);
}

async fn read<S: AsyncRead>(shared: &Shared, mut reader: ReadHalf<S>, limits: FrameLimits) -> ClientError {
    loop {
        match frame::read_frame(&mut reader, limits).await {
            Ok(Some(frame)) => {
                if let Err(reason) = shared.answer(frame) {
                    return reason;
                }
            }
            Ok(None) => return shared.failed(shared.why_closed()),
            Err(FrameError::Io(error)) => return shared.broken(error),
            Err(error) => {
                return ClientError::Frame {
                    address: shared.address.to_string(),
                    source: Arc::new(error),
                };
            }
        }
    }
}

async fn write<S: AsyncWrite>(
    shared: &Shared,
    mut writer: WriteHalf<S>,
    mut queue: mpsc::Receiver<Vec<Bytes>>,
) -> ClientError {
    let mut pieces = VecDeque::new();
    while let Some(request) = queue.recv().await {
        pieces.extend(request);
        // Requests that are there already go out in the same write.
        while pieces.len() < PIECES_PER_WRITE
            && let Ok(request) = queue.try_recv()
        {
            pieces.extend(request);
        }
        if let Err(error) = write_pieces(&mut writer, &mut pieces).await {
            return shared.broken(error);
        }
    }
    shared.failed("it was closed")
}

async fn write_pieces<W: AsyncWrite + Unpin>(writer: &mut W, pieces: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .take(PIECES_PER_WRITE)
            .map(|piece| IoSlice::new(piece))
            .collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            if front.len() > written {
                bytes::Buf::advance(front, written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    writer.flush().await
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let reason = self.0.failed("it was closed");
        self.0.close(reason);
    }
}
