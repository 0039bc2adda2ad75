//! The read side of a socket: one growing and shrinking buffer from which whole frames are cut without copying.
//!
//! What is cut shares the buffer's allocation until its last holder drops it, so a read is the only copy between the
//! socket and the write-ahead buffer. An idle connection holds no buffer: an empty one is given back while waiting.
//!
//! A small buffer is everybody's. A larger one is borrowed from the process ([`Lender`]), and given back when the connection
//! comes to rest with nothing left in it; while none can be had, what arrives is read in smaller pieces.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::budget::{Lender, Loan};

/// Bytes that were read and not yet consumed.
#[derive(Debug)]
pub(crate) struct Intake {
    buffer: BytesMut,
    /// How much the next read asks for; adapts to what arrives.
    read_bytes: usize,
    /// The most that it ever asks for.
    read_bytes_max: usize,
    /// How much has arrived since the connection last waited.
    burst_bytes: usize,
    /// The most that has arrived at once since it last rested with nothing left.
    burst_bytes_max: usize,
    /// The size of the buffer that bytes are cut off.
    allocated: usize,
    /// How much of it was cut off for somebody who keeps it.
    kept_bytes: usize,
    lender: Lender,
    loan: Option<Loan>,
    /// What was cut off earlier is still held.
    still_held: bool,
}

impl Intake {
    /// An empty intake that asks for so much at once; allocates when the first bytes are there.
    pub(crate) fn new(lender: Lender, read_bytes_max: usize) -> Intake {
        Intake {
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            read_bytes_max,
            burst_bytes: 0,
            burst_bytes_max: 0,
            allocated: 0,
            kept_bytes: 0,
            lender,
            loan: None,
            still_held: false,
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

    /// Cuts the first `count` bytes off for somebody who keeps them. A few bytes must not keep a whole buffer, nor may what is
    /// kept be less than an eighth of the buffers that it keeps.
    pub(crate) fn take_to_keep(&mut self, count: usize) -> Bytes {
        let taken = self.take(count);
        self.kept_bytes = self.kept_bytes.saturating_add(taken.len());
        let is_small = taken.len() < KEPT_WHOLE_BYTES_MIN && taken.len() < self.allocated / 4;
        if is_small || self.kept_bytes < self.allocated / KEPT_PART_MIN {
            return Bytes::copy_from_slice(&taken);
        }
        taken.freeze()
    }

    /// Makes room so that `count` bytes from here on lie in one piece. The caller has taken the budget for them.
    pub(crate) fn expect(&mut self, count: usize) {
        self.buffer.reserve(count.saturating_sub(self.buffer.len()));
        self.allocated = self.allocated.max(self.buffer.capacity());
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
            self.burst_bytes_max = self.burst_bytes_max.max(self.burst_bytes);
            self.burst_bytes = 0;
            if self.buffer.is_empty() {
                self.rest();
            }
            Poll::Pending
        })
        .await?;
        self.adapt(read, spare);
        Ok(read)
    }

    /// Whether room for a large buffer has been borrowed, now or before, and for as much of what is cut off it.
    pub(crate) fn borrow(&mut self) -> bool {
        if self.loan.is_none() {
            self.loan = self.lender.lend(2 * self.read_bytes_max);
        }
        self.loan.is_some()
    }

    /// Says before waiting whether what was cut off is still held: then the loan is, too.
    pub(crate) fn still_held(&mut self, still: bool) {
        self.still_held = still;
    }

    /// How much more than what is here the next read may bring.
    pub(crate) fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    fn make_room(&mut self) -> usize {
        let spare = self.buffer.capacity().saturating_sub(self.buffer.len());
        if spare < self.read_bytes / 4 {
            let wanted = if self.read_bytes <= READ_BYTES_FREE || self.borrow() {
                self.read_bytes
            } else {
                READ_BYTES_FREE
            };
            if spare < wanted / 4 {
                if self.buffer.is_empty() && self.loan.is_none() {
                    // What it was once is what `reserve` would make it again.
                    self.buffer = BytesMut::new();
                }
                self.buffer.reserve(wanted);
                self.allocated = self.buffer.capacity();
                self.kept_bytes = 0;
            }
        }
        self.buffer.capacity().saturating_sub(self.buffer.len())
    }

    /// Nothing is left, and nothing more is there.
    fn rest(&mut self) {
        if self.buffer.capacity() > 0 {
            self.buffer = BytesMut::new();
        }
        if !self.still_held {
            self.loan = None;
        }
        // What comes next is mostly as much: a larger buffer would be kept whole by what is cut off it, which behind a slow
        // disk is memory several times over. What trickles in asks for little, however much it is in the end.
        if self.burst_bytes_max > 0 {
            let burst = (self.burst_bytes_max + 1).next_multiple_of(READ_BYTES_MIN);
            self.read_bytes = burst.max(self.read_bytes / 2).min(self.read_bytes_max);
            self.burst_bytes_max = 0;
        }
    }

    fn adapt(&mut self, read: usize, spare: usize) {
        self.burst_bytes = self.burst_bytes.saturating_add(read);
        if read == spare {
            self.read_bytes = (self.read_bytes * 2).min(self.read_bytes_max);
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
/// What is smaller may be copied out of a much larger buffer, however much of it is kept.
pub(crate) const KEPT_WHOLE_BYTES_MIN: usize = 4 * 1024;
/// One part in so many of a buffer has to be kept before anything of it is kept in its place.
const KEPT_PART_MIN: usize = 8;
/// The largest read that borrows nothing.
pub(crate) const READ_BYTES_FREE: usize = 16 * 1024;
/// One read of requests from a busy client: several batches, which are kept as they are. Beyond this, fewer system calls no
/// longer pay for the colder cache.
pub(crate) const REQUESTS_READ_BYTES_MAX: usize = 256 * 1024;
/// One read of a large answer, which is only passed on. So little stays in the core's nearest caches, and is mostly there in
/// full: whoever reads more than there is has to wait for more, and sleeping costs more than reading (docs/adr/0010).
pub(crate) const ANSWERS_READ_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::budget::ProcessBudget;
    use tokio::io::AsyncWriteExt;

    fn lender() -> Lender {
        ProcessBudget::new(1 << 24).lender()
    }

    /// It reads, and nothing is there.
    fn waits(intake: &mut Intake, far: &mut tokio::io::DuplexStream) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(pin!(intake.read(far)).poll(&mut context).is_pending());
    }

    #[tokio::test]
    async fn what_was_sent_comes_out_in_order_whatever_the_cuts() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        tokio::spawn(async move { near.write_all(&copy).await.unwrap() });
        let (mut intake, mut got, mut cut) = (
            Intake::new(lender(), REQUESTS_READ_BYTES_MAX),
            Vec::new(),
            1_usize,
        );
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
        let mut intake = Intake::new(lender(), REQUESTS_READ_BYTES_MAX);
        near.write_all(&vec![1; 1024 * 1024]).await.unwrap();
        while intake.len() < 1024 * 1024 {
            intake.read(&mut far).await.unwrap();
        }
        assert!(intake.read_bytes > READ_BYTES_MIN);
        drop(intake.take(usize::MAX));
        waits(&mut intake, &mut far);
        assert_eq!(intake.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn a_request_that_comes_alone_does_not_keep_much_more_than_itself() {
        const REQUEST: usize = 70_000;
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut intake = Intake::new(lender(), REQUESTS_READ_BYTES_MAX);
        for _ in 0..20 {
            near.write_all(&vec![1; REQUEST]).await.unwrap();
            while intake.len() < REQUEST {
                intake.read(&mut far).await.unwrap();
            }
            intake.take_to_keep(REQUEST);
            waits(&mut intake, &mut far);
        }
        assert!(intake.allocated < REQUEST * 5 / 4, "{}", intake.allocated);
    }

    #[tokio::test]
    async fn what_trickles_in_is_read_into_little() {
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut intake = Intake::new(lender(), REQUESTS_READ_BYTES_MAX);
        for _ in 0..3 {
            for piece in 1..=200 {
                near.write_all(&[1; 1_400]).await.unwrap();
                while intake.len() < piece * 1_400 {
                    intake.read(&mut far).await.unwrap();
                }
                waits(&mut intake, &mut far);
            }
            intake.take(usize::MAX);
            waits(&mut intake, &mut far);
        }
        assert_eq!(intake.read_bytes, READ_BYTES_MIN);
    }

    #[tokio::test]
    async fn a_few_bytes_that_are_kept_do_not_keep_a_buffer() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let mut intake = Intake::new(lender(), REQUESTS_READ_BYTES_MAX);
        near.write_all(&[1; 4_000]).await.unwrap();
        while intake.len() < 4_000 {
            intake.read(&mut far).await.unwrap();
        }
        let within = intake.bytes().as_ptr_range();
        let (small, large) = (intake.take_to_keep(300), intake.take_to_keep(3_700));
        assert!(!within.contains(&small.as_ptr()), "copied");
        assert!(within.contains(&large.as_ptr()), "most of the buffer: not copied");
    }

    #[tokio::test]
    async fn frames_among_others_that_pass_keep_little_more_than_themselves() {
        const FRAME: usize = 5_000;
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut intake = Intake::new(lender(), REQUESTS_READ_BYTES_MAX);
        intake.read_bytes = REQUESTS_READ_BYTES_MAX;
        let kept = |intake: &mut Intake| {
            let within = intake.bytes().as_ptr_range();
            let frame = intake.take_to_keep(FRAME);
            within.contains(&frame.as_ptr())
        };
        for _ in 0..2 {
            near.write_all(&vec![1; REQUESTS_READ_BYTES_MAX]).await.unwrap();
            while intake.len() < REQUESTS_READ_BYTES_MAX {
                intake.read(&mut far).await.unwrap();
            }
            let in_place: Vec<bool> = (0..12).map(|_| kept(&mut intake)).collect();
            let copied = in_place.iter().position(|in_place| *in_place).unwrap();
            assert_eq!(copied, REQUESTS_READ_BYTES_MAX / KEPT_PART_MIN / FRAME);
            assert!(in_place.iter().skip(copied).all(|in_place| *in_place));
            intake.take(usize::MAX);
            waits(&mut intake, &mut far);
            intake.read_bytes = REQUESTS_READ_BYTES_MAX;
        }
    }

    #[tokio::test]
    async fn a_loan_never_stays_with_whoever_waits_with_nothing() {
        let process = ProcessBudget::new(4 * REQUESTS_READ_BYTES_MAX);
        let (_near, mut far) = tokio::io::duplex(1024);
        let mut intake = Intake::new(process.lender(), REQUESTS_READ_BYTES_MAX);
        assert!(intake.borrow());
        intake.still_held(true);
        waits(&mut intake, &mut far);
        assert!(process.answer_bytes_used() > 0);
        intake.still_held(false);
        waits(&mut intake, &mut far);
        assert_eq!(process.answer_bytes_used(), 0);
    }

    #[tokio::test]
    async fn without_a_loan_it_is_read_in_small_pieces_and_a_loan_ends_with_the_buffer() {
        let process = ProcessBudget::new(4 * REQUESTS_READ_BYTES_MAX);
        let (mut near, mut far) = tokio::io::duplex(4 * 1024 * 1024);
        let taken = process.lender().lend(2 * REQUESTS_READ_BYTES_MAX).unwrap();
        let mut intake = Intake::new(process.lender(), REQUESTS_READ_BYTES_MAX);
        let mut largest = async |intake: &mut Intake, bytes: usize| {
            near.write_all(&vec![1; bytes]).await.unwrap();
            let (mut got, mut largest) = (0, 0);
            while got < bytes {
                let read = intake.read(&mut far).await.unwrap();
                (got, largest) = (got + read, largest.max(read));
                drop(intake.take(usize::MAX));
            }
            waits(intake, &mut far);
            largest
        };
        assert!(largest(&mut intake, 1 << 20).await <= 2 * READ_BYTES_FREE);
        drop(taken);
        assert!(largest(&mut intake, 4 << 20).await > 64 * 1024);
        assert_eq!(process.answer_bytes_used(), 0, "given back while waiting");
    }
}
