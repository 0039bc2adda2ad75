//! Batches to one partition: exactly once and in order, several under way at a time.
//!
//! Each batch carries the restore's own producer id and the next sequence. A broker remembers the last five batches
//! of a producer and answers a repeated one with its original offset; therefore at most five are under way, and
//! after any fault all of them are sent again in order, however much of them had arrived.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use teeline_wire::batch::{BatchError, BatchView, Producer, ReplayBatch, split_for_replay};
use tokio::time::Instant;

/// What a broker answers to a batch that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Offset of its first record, -1 if the broker no longer knows.
    pub base_offset: i64,
    /// Append time, -1 in `CreateTime` topics.
    pub log_append_time_ms: i64,
}

/// What to do about a batch that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The connection broke, the leader moved, the broker is busy: send again.
    Retriable,
    /// The broker refuses what the topic's new settings allow: they may not have reached it yet.
    Settling,
    /// Sending again cannot help.
    Fatal,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// What to do.
    pub kind: FaultKind,
    /// Why, for people.
    pub reason: String,
}

/// An answer that is still to come.
pub type Answer = BoxFuture<'static, Result<Acknowledgement, Fault>>;

/// The way to a partition's leader.
pub trait Route: Send {
    /// Puts a batch on its way, after those put there before. The answer is awaited apart from it.
    fn send(&mut self, batch: ReplayBatch) -> BoxFuture<'_, Answer>;

    /// Prepares for sending again after a fault: waits as long as is due, finds the leader, connects.
    fn recover(&mut self, fault: &Fault, attempt: u32) -> BoxFuture<'_, ()>;
}

/// Why a delivery ended.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The target refused a batch for good.
    #[error("the target refused a batch of {records} records: {reason}")]
    Refused {
        /// Records in the batch.
        records: u32,
        /// The target's reason.
        reason: String,
    },
    /// The target did not take a batch in time.
    #[error("the target did not take a batch within {} s: {reason}", timeout.as_secs())]
    Timeout {
        /// How long was tried.
        timeout: Duration,
        /// The last fault.
        reason: String,
    },
    /// The target gave the records timestamps of its own.
    #[error("the target stamps records with its own time although message.timestamp.type=CreateTime was set")]
    Restamped,
    /// The batch cannot be produced.
    #[error("prepare a batch for producing")]
    Batch(#[from] BatchError),
}

/// What was delivered so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Records acknowledged.
    pub records: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether offsets show that somebody else wrote to the partition meanwhile.
    pub interleaved: bool,
}

/// The stream of batches to one partition.
pub struct Delivery<R: Route> {
    route: R,
    producer_id: i64,
    producer_epoch: i16,
    next_sequence: i32,
    under_way: VecDeque<UnderWay>,
    expected_offset: Option<i64>,
    delivered: Delivered,
    limits: Limits,
    settle_until: Instant,
}

/// How patient and how greedy a delivery is.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// After how long without an acknowledgement a batch is given up.
    pub timeout: Duration,
    /// Beyond so many bytes only one batch is under way: memory is limited in bytes.
    pub bytes_under_way_max: usize,
}

struct UnderWay {
    batch: ReplayBatch,
    records: u32,
    since: Instant,
    attempts: u32,
    answer: Answer,
}

/// What a broker remembers of a producer, and so how many batches can be repeated safely.
const BATCHES_UNDER_WAY_MAX: usize = 5;
/// How long settings may take to reach every broker of the target.
const SETTLE_TIME: Duration = Duration::from_secs(15);

impl<R: Route> Delivery<R> {
    /// Begins a stream under a producer id of its own, with sequence 0.
    pub fn new(route: R, producer_id: i64, producer_epoch: i16, limits: Limits) -> Self {
        Self {
            route,
            producer_id,
            producer_epoch,
            next_sequence: 0,
            under_way: VecDeque::with_capacity(BATCHES_UNDER_WAY_MAX),
            expected_offset: None,
            delivered: Delivered::default(),
            limits,
            settle_until: Instant::now() + SETTLE_TIME,
        }
    }

    /// What was acknowledged so far.
    pub fn delivered(&self) -> Delivered {
        self.delivered
    }

    /// Sends a batch, waiting for room first.
    pub async fn push(&mut self, batch: &BatchView) -> Result<(), DeliveryError> {
        let bytes = batch.bytes().len();
        while !self.has_room(bytes) {
            self.settle_oldest().await?;
        }
        let producer = Producer {
            id: self.producer_id,
            epoch: self.producer_epoch,
            base_sequence: self.next_sequence,
        };
        let records = batch.header().records();
        let replay = split_for_replay(batch, producer)?;
        self.next_sequence = sequence_after(self.next_sequence, records);
        let answer = self.route.send(replay.clone()).await;
        self.under_way.push_back(UnderWay {
            batch: replay,
            records,
            since: Instant::now(),
            attempts: 0,
            answer,
        });
        Ok(())
    }

    /// Waits until everything is acknowledged.
    pub async fn flush(&mut self) -> Result<Delivered, DeliveryError> {
        while !self.under_way.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(self.delivered)
    }

    fn has_room(&self, bytes: usize) -> bool {
        if self.under_way.is_empty() {
            return true;
        }
        // A broker that knows nothing of a producer takes whatever sequence comes first: if the first batch failed and
        // the second did not, the first could never follow. So it goes alone.
        let known = self.delivered.batches > 0;
        let held: usize = self.under_way.iter().map(|entry| entry.batch.size_bytes()).sum();
        known
            && self.under_way.len() < BATCHES_UNDER_WAY_MAX
            && held.saturating_add(bytes) <= self.limits.bytes_under_way_max
    }

    /// Waits for the oldest answer, sending again as often as it takes within the time limit.
    async fn settle_oldest(&mut self) -> Result<(), DeliveryError> {
        loop {
            let Some(oldest) = self.under_way.front_mut() else {
                return Ok(());
            };
            let deadline = oldest.since + self.limits.timeout;
            let fault = match tokio::time::timeout_at(deadline, &mut oldest.answer).await {
                Ok(Ok(acknowledgement)) => return self.acknowledge(acknowledgement),
                Ok(Err(fault)) => fault,
                Err(_) => Fault {
                    kind: FaultKind::Retriable,
                    reason: "no answer".to_owned(),
                },
            };
            let records = oldest.records;
            let now = Instant::now();
            if fault.kind == FaultKind::Fatal
                || (fault.kind == FaultKind::Settling && now >= self.settle_until)
            {
                return Err(DeliveryError::Refused {
                    records,
                    reason: fault.reason,
                });
            }
            if now >= deadline {
                return Err(DeliveryError::Timeout {
                    timeout: self.limits.timeout,
                    reason: fault.reason,
                });
            }
            self.send_again(&fault).await;
        }
    }

    async fn send_again(&mut self, fault: &Fault) {
        let attempt = self.under_way.front().map_or(0, |oldest| oldest.attempts);
        tracing::debug!(reason = %fault, attempt, "send again what is under way");
        // Answers to the first sending no longer count: the broker's memory decides what is taken from the second.
        self.route.recover(fault, attempt).await;
        for entry in &mut self.under_way {
            entry.attempts = entry.attempts.saturating_add(1);
            entry.answer = self.route.send(entry.batch.clone()).await;
        }
    }

    fn acknowledge(&mut self, acknowledgement: Acknowledgement) -> Result<(), DeliveryError> {
        let Some(done) = self.under_way.pop_front() else {
            return Ok(());
        };
        // To a repeated batch a broker answers with a timestamp whatever the topic's type, so only a first answer tells.
        if acknowledgement.log_append_time_ms >= 0 && done.attempts == 0 {
            return Err(DeliveryError::Restamped);
        }
        if acknowledgement.base_offset >= 0 {
            let expected = self.expected_offset.replace(
                acknowledgement
                    .base_offset
                    .saturating_add(i64::from(done.records)),
            );
            self.delivered.interleaved |=
                expected.is_some_and(|offset| offset != acknowledgement.base_offset);
        } else {
            self.expected_offset = None;
        }
        self.delivered.records += u64::from(done.records);
        self.delivered.batches += 1;
        self.delivered.bytes += done.batch.size_bytes() as u64;
        Ok(())
    }
}

/// The sequence after so many records; sequences wrap from `i32::MAX` to 0.
fn sequence_after(sequence: i32, records: u32) -> i32 {
    let wrapped = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(wrapped).expect("masked to 31 bits")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
