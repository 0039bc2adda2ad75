//! One closed segment: from positions to an object in the store.
//!
//! The bytes are read again from the buffer in small groups. A store that is down is waited for, with growing pauses;
//! each attempt begins anew, as half an upload cannot be gone on with.

use std::sync::Arc;
use std::time::Duration;

use teeline_archive::OffsetRange;
use teeline_archive::buffer::Frame;
use teeline_archive::segment::{LsnRange, Origin, SegmentBuilder, SegmentError, SegmentInfo, SegmentNotes};
use teeline_runtime::{Backoff, ComponentHealth};

use crate::batch::{Batch, Content};
use crate::buffer::{BufferError, BufferFiles};
use crate::metrics;
use crate::partition::PartitionId;
use crate::prepare::{self, Prepared};
use crate::writer::{SegmentSink, SegmentWriter, WriteError};

/// A closed segment, to be built.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    /// Tells it from others of this run.
    pub number: u64,
    /// Its partition.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// The cluster that it was captured from.
    pub cluster_id: Arc<str>,
    /// Where its batches come from.
    pub origin: Origin,
    /// Its batches, in order of offset, without overlaps.
    pub batches: Arc<Vec<Batch>>,
    /// What the ledger is to say about it.
    pub notes: SegmentNotes,
}

/// What became of a plan.
#[derive(Debug, Clone, Default)]
pub struct Uploaded {
    /// The segments: mostly one.
    pub segments: Vec<SegmentInfo>,
    /// Batches that could not be read from the buffer again.
    pub lost: Vec<OffsetRange>,
}

/// Uploads a plan; ends when it is stored. An error is one that waiting does not cure.
pub async fn upload(
    plan: SegmentPlan,
    files: BufferFiles,
    sink: Arc<SegmentSink>,
    health: ComponentHealth,
) -> Result<Uploaded, WriteError> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match attempt(&plan, &files, &sink).await {
            Ok(uploaded) => {
                health.ready();
                return Ok(uploaded);
            }
            Err(error @ (WriteError::Store { .. } | WriteError::Buffer(_))) => {
                metrics::upload_failed();
                let reason = teeline_runtime::exit::error_chain(&error);
                tracing::warn!(topic = %plan.topic, partition = plan.id.partition, error = %reason,
                    "a segment could not be uploaded; trying again");
                health.not_ready(reason);
                backoff.wait().await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn attempt(
    plan: &SegmentPlan,
    files: &BufferFiles,
    sink: &SegmentSink,
) -> Result<Uploaded, WriteError> {
    let mut uploaded = Uploaded::default();
    let mut writer: Option<SegmentWriter> = None;
    let (mut begun, mut at) = (0, 0);
    while at < plan.batches.len() {
        let end = group_end(&plan.batches, at);
        let mut current = match writer.take() {
            Some(writer) => writer,
            None => {
                begun = at;
                sink.begin(&plan.cluster_id, &plan.topic, plan.id, plan.origin)?
            }
        };
        let (batches, files) = (Arc::clone(&plan.batches), files.clone());
        let pushed = current
            .push_with(move |builder| push_group(builder, &batches, at, end, &files))
            .await?;
        let pushed = pushed?;
        at = pushed.next;
        uploaded.lost.extend(pushed.lost);
        if pushed.full {
            uploaded
                .segments
                .extend(current.finish(notes_of(plan, begun, at)).await?);
        } else {
            writer = Some(current);
        }
    }
    if let Some(writer) = writer {
        uploaded
            .segments
            .extend(writer.finish(notes_of(plan, begun, at)).await?);
    }
    Ok(uploaded)
}

/// The notes of a segment that holds the batches from `begun` to `end`: of the gaps, its own.
fn notes_of(plan: &SegmentPlan, begun: usize, end: usize) -> SegmentNotes {
    let mut notes = plan.notes.clone();
    let own = plan.batches.get(begun..end).unwrap_or_default();
    let ends = own.first().zip(own.last());
    notes.gaps.retain(|gap| {
        ends.is_some_and(|(first, last)| first.range.last < gap.first && gap.last < last.range.first)
    });
    notes
}

#[derive(Debug)]
struct Pushed {
    next: usize,
    lost: Vec<OffsetRange>,
    full: bool,
}

/// Where a group that begins at `at` ends: a few mebibytes, at least one batch.
fn group_end(batches: &[Batch], at: usize) -> usize {
    let mut bytes = 0u64;
    let mut end = at;
    for batch in batches.iter().skip(at) {
        end = end.saturating_add(1);
        bytes = bytes.saturating_add(u64::from(batch.bytes));
        if bytes >= GROUP_BYTES {
            break;
        }
    }
    end
}

fn push_group(
    builder: &mut SegmentBuilder,
    batches: &[Batch],
    at: usize,
    end: usize,
    files: &BufferFiles,
) -> Result<Pushed, WriteError> {
    let mut pushed = Pushed {
        next: at,
        lost: Vec::new(),
        full: false,
    };
    for batch in batches.get(at..end).unwrap_or_default() {
        match prepare_batch(batch, files)? {
            Ok(prepared) => match builder.push(&prepared.bytes, prepared.meta) {
                Ok(()) => {}
                Err(SegmentError::Full { .. }) if !builder.is_empty() => {
                    pushed.full = true;
                    return Ok(pushed);
                }
                Err(error) => return Err(error.into()),
            },
            Err(reason) => {
                tracing::error!(
                    first = batch.range.first,
                    last = batch.range.last,
                    reason,
                    "a captured batch cannot be read from the buffer again; it will be fetched from the source"
                );
                pushed.lost.push(batch.range);
            }
        }
        pushed.next = pushed.next.saturating_add(1);
    }
    Ok(pushed)
}

/// The outer error passes (the disk does not answer), the inner one stays (the bytes are not what they were).
fn prepare_batch(batch: &Batch, files: &BufferFiles) -> Result<Result<Prepared, String>, BufferError> {
    let (location, leader_epoch, append_time_ms) = match &batch.content {
        Content::Fetched(bytes) => return Ok(prepare::fetched(bytes).map_err(|error| error.to_string())),
        Content::Captured {
            location,
            leader_epoch,
            append_time_ms,
            ..
        } => (location, *leader_epoch, *append_time_ms),
    };
    let intent = match files.read_at(location) {
        Ok(Frame::Intent(intent)) => intent,
        Ok(_) => return Ok(Err("the frame is not an intent any more".to_owned())),
        Err(error @ BufferError::Damaged { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    let prepared = prepare::captured(intent.records, batch.range.first, leader_epoch, append_time_ms);
    Ok(prepared.map_err(|error| error.to_string()))
}

/// The frames of the buffer that a run of batches stands for: outcomes of one session.
pub fn lsn_range(batches: &[Batch]) -> Option<LsnRange> {
    let mut range: Option<LsnRange> = None;
    for batch in batches {
        let Content::Captured { outcome, .. } = &batch.content else {
            continue;
        };
        range = Some(match range {
            None => LsnRange {
                session: outcome.session,
                first: outcome.lsn,
                last: outcome.lsn,
            },
            Some(old) => LsnRange {
                session: old.session,
                first: old.first.min(outcome.lsn),
                last: old.last.max(outcome.lsn),
            },
        });
    }
    range
}

const GROUP_BYTES: u64 = 4 * 1024 * 1024;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
