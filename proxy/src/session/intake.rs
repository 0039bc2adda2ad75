//! The read side of a socket: one growing and shrinking buffer from which whole frames are cut without copying.
//!
//! What is cut shares the buffer's allocation until its last holder drops it, so a read is the only copy between the
//! socket and the write-ahead buffer. An idle connection holds no buffer: an empty one is given back while waiting.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that were read and not yet consumed.
#[derive(Debug)]
pub(crate) struct Intake {
    buffer: BytesMut,
    /// How much the next read asks for; adapts to what arrives.
    read_bytes: usize,
}

impl Intake {
    /// An empty intake; allocates when the first bytes are there.
    pub(crate) fn new() -> Intake {
        Intake {
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// What was read and not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Number of bytes read and not consumed.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Cuts the first `count` bytes off; fewer if there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> BytesMut {
        self.buffer.split_to(count.min(self.buffer.len()))
    }

    /// Makes room so that `count` bytes from here on lie in one piece. The caller has taken the budget for them.
    pub(crate) fn expect(&mut self, count: usize) {
        self.buffer.reserve(count.saturating_sub(self.buffer.len()));
    }

    /// Reads once, waiting if nothing is there. 0 means that the peer has ended its side. Cancel-safe.
    pub(crate) async fn read<R: Source>(&mut self, reader: &mut R) -> io::Result<usize> {
        let (read, spare) = poll_fn(|context| {
            // Both directions are polled whenever one of them is woken: without this question, the other one would
            // allocate a buffer each time only to find that there is nothing to read.
            if let Poll::Ready(ready) = reader.poll_readable(context) {
                ready?;
                let spare = self.make_room();
                if let Poll::Ready(read) = pin!(reader.read_buf(&mut self.buffer)).poll(context) {
                    return Poll::Ready(read.map(|read| (read, spare)));
                }
            }
            if self.buffer.is_empty() && self.buffer.capacity() > 0 {
                self.buffer = BytesMut::new();
            }
            Poll::Pending
        })
        .await?;
        self.adapt(read, spare);
        Ok(read)
    }

    fn make_room(&mut self) -> usize {
        let spare = self.buffer.capacity().saturating_sub(self.buffer.len());
        if spare < self.read_bytes / 4 {
            self.buffer.reserve(self.read_bytes);
        }
        self.buffer.capacity().saturating_sub(self.buffer.len())
    }

    fn adapt(&mut self, read: usize, spare: usize) {
        if read == spare {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if read < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
    }
}

/// Where an intake reads from: a stream that can tell, without being read, whether it is worth trying.
pub(crate) trait Source: AsyncRead + Unpin {
    /// Ready when a read may find something; otherwise the task is woken when it does.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

#[cfg(test)]
impl Source for tokio::io::DuplexStream {
    fn poll_readable(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The first read of a quiet connection: one small request and its neighbours.
const READ_BYTES_MIN: usize = 4 * 1024;
/// One read of a busy connection. Beyond this, fewer system calls no longer pay for the colder cache.
pub(crate) const READ_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_was_sent_comes_out_in_order_whatever_the_cuts() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        tokio::spawn(async move { near.write_all(&copy).await.unwrap() });
        let (mut intake, mut got, mut cut) = (Intake::new(), Vec::new(), 1_usize);
        while intake.read(&mut far).await.unwrap() > 0 {
            cut = cut * 7 % 9973 + 1;
            got.extend_from_slice(&intake.take(cut));
        }
        got.extend_from_slice(intake.bytes());
        assert_eq!(got, sent);
    }

    #[tokio::test]
    async fn an_empty_buffer_is_given_back_while_waiting() {
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut intake = Intake::new();
        near.write_all(&vec![1; 1024 * 1024]).await.unwrap();
        while intake.len() < 1024 * 1024 {
            intake.read(&mut far).await.unwrap();
        }
        assert!(intake.read_bytes > READ_BYTES_MIN);
        drop(intake.take(usize::MAX));
        {
            let mut waiting = pin!(intake.read(&mut far));
            poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await;
        }
        assert_eq!(intake.buffer.capacity(), 0);
    }
}
