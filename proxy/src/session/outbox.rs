//! What waits to be written to a socket: whole slices of what was read, in order, written with few system calls.
//!
//! A chunk may carry a gate: a position of the write-ahead buffer that has to be synced before the chunk, and
//! everything behind it, may leave. Responses use gates, requests never do.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use teeline_archive::ids::BufferPosition;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::intake::KEPT_WHOLE_BYTES_MIN;

/// A condition on the write-ahead buffer that holds a response back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    /// The last intent (or transaction end) that the response acknowledges.
    pub(crate) position: BufferPosition,
    /// When the response arrived from the broker: the hold is bounded from here.
    pub(crate) since: Instant,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    gate: Option<Gate>,
}

/// A queue of chunks on their way to one socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// What the chunks take, their places in the queue included: many small ones are not for nothing.
    bytes: usize,
    /// Something was handed to the writer, which may still have it: TLS gathers records.
    written: bool,
}

impl Outbox {
    /// Adds bytes behind everything that is queued.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.push_gated(bytes, None);
    }

    /// Adds bytes that may leave once their gate is open.
    pub(crate) fn push_gated(&mut self, bytes: Bytes, gate: Option<Gate>) {
        if !bytes.is_empty() {
            let bytes = match gate {
                // It may stay for long, and must not keep the buffer that it was read into.
                Some(_) if bytes.len() < KEPT_WHOLE_BYTES_MIN => Bytes::copy_from_slice(&bytes),
                _ => bytes,
            };
            self.bytes = self.bytes.saturating_add(bytes.len()).saturating_add(CHUNK_BYTES);
            self.chunks.push_back(Chunk { bytes, gate });
        }
    }

    /// Bytes that the queue takes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// True when nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The gate at the head, when the head is held back.
    pub(crate) fn gate(&self) -> Option<Gate> {
        self.chunks.front().and_then(|chunk| chunk.gate)
    }

    /// Opens the gate at the head, and each gate behind it that `open` says has the same answer.
    pub(crate) fn open_gates(&mut self, mut open: impl FnMut(&Gate) -> bool) {
        for chunk in &mut self.chunks {
            match chunk.gate {
                Some(gate) if open(&gate) => chunk.gate = None,
                Some(_) => break,
                None => {}
            }
        }
    }

    /// Forgets everything that is queued: its receiver is gone.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Writes what is not held back. Cancelling keeps what was not written.
    pub(crate) async fn flush<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> io::Result<()> {
        while self.chunks.front().is_some_and(|chunk| chunk.gate.is_none()) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            let open = self.chunks.iter().take_while(|chunk| chunk.gate.is_none());
            for (slot, chunk) in slices.iter_mut().zip(open) {
                *slot = IoSlice::new(&chunk.bytes);
                used += 1;
            }
            let written = writer
                .write_vectored(slices.get(..used).unwrap_or_default())
                .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written = true;
            self.advance(written);
        }
        if self.written {
            writer.flush().await?;
            self.written = false;
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.bytes.len() {
                chunk.bytes.advance(written);
                return;
            }
            written = written.saturating_sub(chunk.bytes.len());
            self.bytes = self.bytes.saturating_sub(CHUNK_BYTES);
            self.chunks.pop_front();
        }
        if self.chunks.capacity() > CHUNKS_KEPT {
            // It was long once; most connections are idle afterwards.
            self.chunks = VecDeque::new();
        }
    }
}

/// The place of a chunk in the queue.
const CHUNK_BYTES: usize = size_of::<Chunk>();
/// Places that an empty queue keeps.
const CHUNKS_KEPT: usize = 64;
/// Slices handed to one write: enough for a wake-up full of small frames, small enough to sit on the stack.
const SLICES_MAX: usize = 32;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use teeline_archive::ids::{Lsn, SessionId};

    fn gate(lsn: u64) -> Option<Gate> {
        let position = BufferPosition {
            session: SessionId(1),
            lsn: Lsn(lsn),
        };
        Some(Gate {
            position,
            since: Instant::now(),
        })
    }

    #[tokio::test]
    async fn everything_is_written_in_order_and_nothing_past_a_closed_gate() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"one "));
        outbox.push_gated(Bytes::from_static(b"two "), gate(7));
        outbox.push(Bytes::from_static(b"three"));
        let mut sink = Vec::new();
        outbox.flush(&mut sink).await.unwrap();
        assert_eq!(sink, b"one ");
        assert_eq!(outbox.gate().unwrap().position.lsn, Lsn(7));
        outbox.open_gates(|gate| gate.position.lsn <= Lsn(7));
        outbox.flush(&mut sink).await.unwrap();
        assert_eq!(sink, b"one two three");
        assert!(outbox.is_empty());
        assert_eq!(outbox.len(), 0);
    }

    #[tokio::test]
    async fn short_writes_lose_nothing() {
        let (mut near, mut far) = tokio::io::duplex(3);
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for number in 0..100_u8 {
            let chunk = vec![number; usize::from(number % 7) + 1];
            expected.extend_from_slice(&chunk);
            outbox.push(Bytes::from(chunk));
        }
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut far, &mut got)
                .await
                .unwrap();
            got
        });
        outbox.flush(&mut near).await.unwrap();
        drop(near);
        assert_eq!(reader.await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_a_writer_keeps_back_is_flushed_even_after_a_cut() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut keeping = tokio::io::BufWriter::new(near);
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"eight---"));
        // Everything is written into the writer's buffer, and its flush is cut where the pipe is full.
        let cut = tokio::time::timeout(std::time::Duration::ZERO, outbox.flush(&mut keeping));
        assert!(cut.await.is_err() && outbox.is_empty());
        let mut got = [0; 8];
        let (flushed, read) = tokio::join!(
            outbox.flush(&mut keeping),
            tokio::io::AsyncReadExt::read_exact(&mut far, &mut got)
        );
        flushed.unwrap();
        read.unwrap();
        assert_eq!(&got, b"eight---");
    }

    #[tokio::test]
    async fn many_small_chunks_count_for_what_they_take_and_leave_nothing_behind() {
        let mut outbox = Outbox::default();
        for _ in 0..10_000 {
            outbox.push(Bytes::from_static(b"12345678"));
        }
        assert!(outbox.len() > 10_000 * 48, "{}", outbox.len());
        outbox.flush(&mut Vec::new()).await.unwrap();
        assert_eq!((outbox.len(), outbox.chunks.capacity()), (0, 0));
    }

    #[test]
    fn a_gate_behind_a_closed_one_stays_closed() {
        let mut outbox = Outbox::default();
        outbox.push_gated(Bytes::from_static(b"a"), gate(5));
        outbox.push_gated(Bytes::from_static(b"b"), gate(3));
        outbox.open_gates(|gate| gate.position.lsn <= Lsn(4));
        assert!(outbox.gate().is_some());
        outbox.open_gates(|gate| gate.position.lsn <= Lsn(5));
        assert!(outbox.gate().is_none());
    }
}
