//! The Fetch engine: ranges of many partitions out of the source's logs, as raw batches, into segments.
//!
//! What is read is never decoded beyond what a segment's footer says about it. Per partition the next response is on
//! its way while the last one is compressed and uploaded; several partitions are read at once, spread over the brokers.
//! A job has one segment open at a time, whatever the number of its ranges: what lies between them is listed as gaps.
//!
//! | module | duty |
//! |---|---|
//! | [`log`] | the trait behind which the logs are, and the real one |
//! | [`walk`] | how far a job has come, and what a response means; pure |
//! | [`appetite`] | how much to ask for; pure |
//! | [`output`] | pieces of the log to segments |
//! | [`limits`] | how much at once, how fast, how many records; what was done so far |
//! | `job` | one job from its first to its last offset |
//!
//! Memory is bounded by the jobs at once, each with two responses, one block and two parts of an upload. Nothing is
//! listed here: the caller commits what it is told of, at any time, in any portion. Each finding is true by itself.

pub mod appetite;
mod job;
pub mod limits;
pub mod log;
pub mod output;
pub mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use teeline_archive::OffsetRange;
use teeline_archive::ledger::AbsenceReason;
use teeline_archive::segment::SegmentInfo;
use teeline_runtime::Shutdown;
use teeline_wire::batch::BatchError;
use tokio::sync::mpsc;

pub use limits::{Limits, Progress, RecordBudget, Throttle};
pub use log::{KafkaLog, LogReader, LogRun, Replica};

use crate::fetching::FetchError;
use crate::partition::PartitionId;
use crate::writer::SegmentSink;

/// Ranges of one partition to be fetched into segments.
#[derive(Debug, Clone)]
pub struct FetchJob {
    /// The partition.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// The cluster that is meant.
    pub cluster_id: Arc<str>,
    /// The broker that leads the partition, to spread the work; any number will do when it is not known.
    pub leader: i32,
    /// Whether the topic is compacted: then a part of the log in which nothing is left is no riddle.
    pub is_compacted: bool,
    /// The ranges: in order, and apart.
    pub ranges: Vec<OffsetRange>,
}

/// Something to be written to the ledger.
#[derive(Debug, Clone)]
pub enum Found {
    /// A segment that is stored.
    Segment(Box<SegmentInfo>),
    /// Offsets at which the log has nothing.
    Absent(Gone),
}

/// Offsets at which the log has nothing, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The partition.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// The offsets.
    pub range: OffsetRange,
    /// Below the log's start they are deleted, within the log compacted away.
    pub reason: AbsenceReason,
    /// Where the log began when it was read.
    pub log_start_offset: i64,
    /// Epoch of the leader that was read from, -1 when unknown.
    pub leader_epoch: i32,
}

/// What became of a job.
#[derive(Debug)]
pub struct JobReport {
    /// The partition.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// Wanted offsets dealt with: held, absent or unreadable now.
    pub offsets: u64,
    /// Segments stored.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Batches that the source itself cannot give whole; they were left out, and what follows was read.
    pub unreadable: Vec<(OffsetRange, BatchError)>,
    /// How it ended. What it found until then counts, whatever the end.
    pub ended: Ended,
}

/// How a job ended.
#[derive(Debug)]
pub enum Ended {
    /// Every offset is held, or told to be absent or unreadable.
    Done,
    /// The process is ending.
    Stopped,
    /// As many records as were asked for are there.
    Limited,
    /// This incarnation of the topic does not exist any more.
    Gone,
    /// The source or the archive failed. May pass.
    Failed(FetchError),
}

impl Ended {
    /// True when nothing is left to do.
    pub fn is_done(&self) -> bool {
        matches!(self, Ended::Done)
    }
}

/// What all jobs of a run share.
#[derive(Clone)]
pub struct Fetch {
    /// The logs.
    pub log: Arc<dyn LogReader>,
    /// Where segments go.
    pub sink: Arc<SegmentSink>,
    /// How much at once.
    pub limits: Limits,
    /// What was done so far, for whoever watches.
    pub progress: Arc<Progress>,
    /// Stops the jobs; what is half written is finished first, so that nothing is fetched twice.
    pub shutdown: Shutdown,
}

/// Runs all jobs. What is found is sent as soon as it is stored, per partition in the order of offsets; when nobody
/// listens any more the jobs stop. Reports come in no particular order.
pub async fn run(jobs: Vec<FetchJob>, fetch: &Fetch, found: mpsc::Sender<Found>) -> Vec<JobReport> {
    let running = spread(jobs).into_iter().map(|job| {
        let (fetch, found) = (fetch.clone(), found.clone());
        Box::pin(job::run(job, fetch, found))
    });
    futures_util::stream::iter(running)
        .buffer_unordered(fetch.limits.jobs_at_once.max(1))
        .collect()
        .await
}

/// Brokers in turn, and of each the longest job first, so that none is left running alone at the end.
fn spread(jobs: Vec<FetchJob>) -> Vec<FetchJob> {
    let mut by_leader: BTreeMap<i32, Vec<FetchJob>> = BTreeMap::new();
    for job in jobs.into_iter().filter(|job| !job.ranges.is_empty()) {
        by_leader.entry(job.leader).or_default().push(job);
    }
    let span = |job: &FetchJob| {
        job.ranges
            .iter()
            .fold(0u64, |sum, range| sum.saturating_add(range.span()))
    };
    let mut queues: Vec<_> = by_leader.into_values().collect();
    // Taken from the end.
    queues.iter_mut().for_each(|queue| queue.sort_by_key(span));
    let mut spread = Vec::new();
    while !queues.is_empty() {
        spread.extend(queues.iter_mut().filter_map(Vec::pop));
        queues.retain(|queue| !queue.is_empty());
    }
    spread
}

#[cfg(test)]
mod tests;
