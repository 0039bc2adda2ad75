//! What one direction of a connection counts and times while it is awake, and hands over once per wake-up.
//!
//! **Added latency** is what the proxy itself adds: from the read that completed a message until the message was handed to
//! the other side's socket. It contains waiting for room in memory and for the write-ahead buffer. It does not contain what
//! others are to blame for: waiting until the other side's socket takes more, or until the broker has answered some of very
//! many requests; nor the hold of answers for the disk, which begins after it and has a histogram of its own. All messages that
//! were completed by one read share its time. One wake-up in [`SAMPLED_ONE_IN`] is timed, chosen at random: it costs two looks at
//! the clock, which the others are spared.

use std::task::Poll;
use std::time::{Duration, Instant};

use teeline_wire::apis;

use super::Shared;
use crate::metrics::{Backpressure, ClusterMetrics, Direction};
use crate::observe::Visit;

/// The meter of one direction of one connection.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    metrics: &'a ClusterMetrics,
    visit: &'a Visit,
    direction: Direction,
    /// What is counted belongs to this API.
    api_key: i16,
    messages: u64,
    bytes: u64,
    /// Messages that came to their end since the last read.
    completed: usize,
    random: u32,
    /// When the last read returned, if its wake-up is timed.
    woke: Option<Instant>,
    /// Of the time since, what does not count.
    excused: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(shared: &'a Shared, direction: Direction) -> Meter<'a> {
        // Any seed but 0 does; connections should not be timed in step.
        let seed = (shared.connection_id as u32).wrapping_mul(2_654_435_761)
            ^ u32::from(direction == Direction::Response);
        Meter {
            metrics: &shared.cluster.metrics,
            visit: &shared.arrived.visit,
            direction,
            api_key: 0,
            messages: 0,
            bytes: 0,
            completed: 0,
            random: seed | 0x8000_0000,
            woke: None,
            excused: Duration::ZERO,
        }
    }

    /// A read has returned.
    pub(crate) fn woke(&mut self) {
        // Xorshift: three instructions, and random enough not to follow a client's rhythm.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.woke = self.random.is_multiple_of(SAMPLED_ONE_IN).then(Instant::now);
        self.excused = Duration::ZERO;
        self.completed = 0;
    }

    /// A message begins.
    pub(crate) fn begins(&mut self, api_key: i16) {
        if api_key != self.api_key {
            self.hand_over();
            self.api_key = api_key;
        }
        self.messages = self.messages.saturating_add(1);
    }

    /// What the current message is.
    pub(crate) fn api_key(&self) -> i16 {
        self.api_key
    }

    /// So many bytes of it pass.
    pub(crate) fn passes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// All of it has passed.
    pub(crate) fn ends(&mut self) {
        self.completed = self.completed.saturating_add(1);
    }

    /// The other side made us wait.
    pub(crate) fn waited(&mut self, cause: Backpressure, since: Instant) {
        let waited = since.elapsed();
        self.metrics.pushed_back(cause).record(waited.as_secs_f64());
        self.excused = self.excused.saturating_add(waited);
    }

    /// Everything that was read is with the other side, as far as it may be.
    pub(crate) fn flushed(&mut self) {
        // What was read and is not complete may wait for room, without another read.
        if self.completed > 0
            && let Some(woke) = self.woke.take()
        {
            let added = woke.elapsed().saturating_sub(self.excused);
            self.metrics
                .added_latency(self.direction)
                .record_many(added.as_secs_f64(), self.completed.min(WEIGHT_MAX));
        }
        self.hand_over();
    }

    fn hand_over(&mut self) {
        let (messages, bytes) = (
            std::mem::take(&mut self.messages),
            std::mem::take(&mut self.bytes),
        );
        if messages == 0 && bytes == 0 {
            return;
        }
        let counters = self.metrics.api(self.api_key);
        match self.direction {
            Direction::Request => {
                counters.requests.increment(messages);
                counters.request_bytes.increment(bytes);
                self.visit.asked(messages, bytes);
            }
            Direction::Response => {
                counters.response_bytes.increment(bytes);
                self.visit.answered(bytes, !apis::greets(self.api_key));
            }
        }
    }
}

/// A connection may end in the middle of a wake-up.
impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Notes since when a write has been waiting, if it does.
pub(crate) fn note_wait<T>(polled: Poll<T>, since: &mut Option<Instant>) -> Poll<T> {
    if polled.is_pending() && since.is_none() {
        *since = Some(Instant::now());
    }
    polled
}

/// Enough samples within seconds of any traffic worth a look, and next to no cost.
const SAMPLED_ONE_IN: u32 = 8;
/// Each costs a few instructions, and a client may send thousands of tiny requests at once.
const WEIGHT_MAX: usize = 100;
