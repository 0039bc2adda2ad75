//! Ranges of the log taken from the source.
//!
//! A small range stays in memory and joins the partition's next segment: that is how transaction markers travel. A range
//! that turns out to be large streams into segments of its own. What different leaders answered is kept apart: the later
//! one may have cut off what the earlier one sent.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use teeline_archive::OffsetRange;
use teeline_archive::ledger::AbsenceReason;
use teeline_archive::segment::{Origin, SegmentInfo, SegmentNotes, UndecidedTransaction};
use teeline_wire::batch::{BatchError, BatchHeader};

use crate::batch::FetchedBatch;
use crate::fetcher::walk::{Piece, Walk};
use crate::partition::PartitionId;
use crate::prepare;
use crate::source::{FetchedRun, Source, SourceError, SourcePartition};
use crate::transactions::{OpenTransaction, Transactions};
use crate::writer::{SegmentSink, SegmentWriter, WriteError};

/// Ranges of one partition to be fetched.
#[derive(Debug, Clone)]
pub struct FetchPlan {
    /// The partition.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// The cluster that is meant.
    pub cluster_id: Arc<str>,
    /// The ranges, in order.
    pub ranges: Vec<OffsetRange>,
}

/// What a plan brought.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Batches of small ranges.
    pub batches: Vec<FetchedBatch>,
    /// Segments that large ranges went into; they are stored, and not listed yet.
    pub segments: Vec<SegmentInfo>,
    /// What was learnt about transactions in those segments.
    pub transactions: Transactions,
    /// Offsets that the source has nothing at.
    pub absent: Vec<(OffsetRange, AbsenceReason)>,
    /// Why it ended early, if it did. What it brought until then counts.
    pub error: Option<FetchError>,
}

/// Why a fetch ended early.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source gave no answer, or not this one.
    #[error("fetch {topic}-{partition} from offset {offset}")]
    Source {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// From where.
        offset: i64,
        /// The answer.
        #[source]
        source: SourceError,
    },
    /// What came is not a run of batches.
    #[error("read what {topic}-{partition} has at offset {offset}")]
    Batch {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: i32,
        /// From where.
        offset: i64,
        /// What is wrong.
        #[source]
        source: BatchError,
    },
    /// The archive did not take it.
    #[error("store what was fetched")]
    Write(#[from] WriteError),
    /// The source does not reach that far (yet).
    #[error("the log ends at {end}, before offset {offset}")]
    BeyondEnd {
        /// Where it ends.
        end: i64,
        /// What is wanted.
        offset: i64,
    },
    /// The source keeps answering with nothing, though its log goes on.
    #[error("the log goes on to {end}, and nothing comes from offset {offset}")]
    Nothing {
        /// Where it ends.
        end: i64,
        /// What is wanted.
        offset: i64,
    },
}

/// Fetches the ranges of a plan, one after the other.
pub async fn fetch(plan: FetchPlan, source: Arc<dyn Source>, sink: Arc<SegmentSink>) -> Fetched {
    let mut fetched = Fetched::default();
    let mut leader_epoch = None;
    for range in &plan.ranges {
        match fetch_range(&plan, *range, &*source, &sink, &mut leader_epoch, &mut fetched).await {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => {
                fetched.error = Some(error);
                break;
            }
        }
        // What is left is asked for again; until then this much has room in the open segment.
        if fetched
            .batches
            .iter()
            .map(|batch| batch.bytes.len())
            .sum::<usize>()
            > PLAN_BYTES
        {
            break;
        }
    }
    fetched
}

/// Breaks where another leader answers than the one of what is in memory (`leader_epoch`, of the last answer): what is
/// left is asked for again, and the rest of the plan with it.
async fn fetch_range(
    plan: &FetchPlan,
    range: OffsetRange,
    source: &dyn Source,
    sink: &SegmentSink,
    leader_epoch: &mut Option<i32>,
    fetched: &mut Fetched,
) -> Result<ControlFlow<()>, FetchError> {
    let partition = SourcePartition {
        topic: Arc::clone(&plan.topic),
        incarnation: Some(plan.id.incarnation),
        partition: plan.id.partition,
    };
    let mut walk = Walk::new([range]);
    let mut small: Vec<FetchedBatch> = Vec::new();
    let mut small_bytes = 0usize;
    let mut stream: Option<Stream> = None;
    let mut result = Ok(ControlFlow::Continue(()));
    while let Some(rest) = walk.current() {
        // A marker is alone at its offset: one byte asks for exactly the batch that is there.
        let bytes_max = if rest.span() <= MARKERS_AT_MOST {
            1
        } else {
            FETCH_BYTES
        };
        let answer = source.fetch(&partition, rest.first, bytes_max).await;
        if let Ok(run) = &answer {
            let is_other = leader_epoch.is_some_and(|epoch| epoch != run.leader_epoch);
            match &mut stream {
                Some(stream) if is_other => std::mem::take(stream).finish(fetched).await?,
                None if is_other && !(small.is_empty() && fetched.batches.is_empty()) => {
                    result = Ok(ControlFlow::Break(()));
                    break;
                }
                _ => {}
            }
            *leader_epoch = Some(run.leader_epoch);
        }
        let taken = match answer {
            Ok(run) => take(&mut walk, &run, plan, fetched),
            Err(SourceError::OutOfRange { log_start, end }) if rest.first >= log_start => {
                Err(FetchError::BeyondEnd {
                    end,
                    offset: rest.first,
                })
            }
            Err(SourceError::OutOfRange { log_start, .. }) => {
                // A segment would vouch for what it spans.
                if let Some(stream) = &mut stream {
                    std::mem::take(stream).finish(fetched).await?;
                }
                let absent = &mut fetched.absent;
                walk.skip_to(log_start, |gone| absent.push((gone, AbsenceReason::Deleted)));
                Ok(Vec::new())
            }
            Err(source) => Err(FetchError::Source {
                topic: Arc::clone(&plan.topic),
                partition: plan.id.partition,
                offset: rest.first,
                source,
            }),
        };
        let batches = match taken {
            Ok(batches) => batches,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        small_bytes = batches
            .iter()
            .fold(small_bytes, |sum, batch| sum.saturating_add(batch.bytes.len()));
        small.extend(batches);
        if stream.is_some() || small_bytes > SMALL_BYTES {
            let stream = stream.get_or_insert_with(Stream::default);
            stream
                .push(std::mem::take(&mut small), plan, sink, fetched)
                .await?;
        }
    }
    match stream {
        Some(stream) => stream.finish(fetched).await?,
        None => fetched.batches.append(&mut small),
    }
    result
}

/// The batches of a response that are wanted. What comes before a batch that cannot be read counts; it is met again.
fn take(
    walk: &mut Walk,
    run: &FetchedRun,
    plan: &FetchPlan,
    fetched: &mut Fetched,
) -> Result<Vec<FetchedBatch>, FetchError> {
    let from = walk.position().unwrap_or(i64::MAX);
    let taken = walk.take(&run.records, false);
    let mut batches = Vec::new();
    for piece in taken.pieces {
        match piece {
            Piece::Batch(view) => batches.push(FetchedBatch {
                header: *view.header(),
                // Copied out: a small batch must not keep the whole response in memory.
                bytes: Bytes::copy_from_slice(view.bytes()),
                ends: prepare::ended_producer(&view),
            }),
            Piece::Absent(range) => fetched.absent.push((range, AbsenceReason::Compacted)),
            Piece::Unreadable(..) => {}
        }
    }
    match taken.damage {
        _ if walk.position() != Some(from) => Ok(batches),
        Some(source) => Err(FetchError::Batch {
            topic: Arc::clone(&plan.topic),
            partition: plan.id.partition,
            offset: from,
            source,
        }),
        None => Err(FetchError::BeyondEnd {
            end: run.end,
            offset: from,
        }),
    }
}

/// Ranges of up to so many offsets are asked for one batch at a time.
const MARKERS_AT_MOST: u64 = 2;
/// One response. Two are in memory at most, and a broker sends at least one whole batch.
const FETCH_BYTES: i32 = 4 * 1024 * 1024;
/// Up to here a range stays in memory.
const SMALL_BYTES: usize = 512 * 1024;

/// Small ranges of one plan together.
const PLAN_BYTES: usize = 4 * 1024 * 1024;

/// A large range on its way into segments.
#[derive(Default)]
struct Stream {
    writer: Option<SegmentWriter>,
    /// Transactions of the segment being written.
    own: Transactions,
}

impl Stream {
    async fn push(
        &mut self,
        batches: Vec<FetchedBatch>,
        plan: &FetchPlan,
        sink: &SegmentSink,
        fetched: &mut Fetched,
    ) -> Result<(), FetchError> {
        if batches.is_empty() {
            return Ok(());
        }
        for batch in &batches {
            note_transaction(&mut self.own, &batch.header, batch.ends);
            note_transaction(&mut fetched.transactions, &batch.header, batch.ends);
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => sink.begin(&plan.cluster_id, &plan.topic, plan.id, Origin::Fetch)?,
        };
        let pushed = writer.push_with(move |builder| {
            batches.iter().try_for_each(|batch| {
                let prepared = prepare::fetched(&batch.bytes).map_err(PushError::Batch)?;
                builder
                    .push(&prepared.bytes, prepared.meta)
                    .map_err(PushError::Build)
            })
        });
        let offset = fetched.batches.last().map_or(0, |batch| batch.header.base_offset);
        pushed.await?.map_err(|error| match error {
            PushError::Build(source) => FetchError::Write(source.into()),
            PushError::Batch(source) => FetchError::Batch {
                topic: Arc::clone(&plan.topic),
                partition: plan.id.partition,
                offset,
                source,
            },
        })?;
        self.writer = Some(writer);
        if self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.uncompressed_bytes() >= sink.bytes_max())
        {
            std::mem::take(self).finish(fetched).await?;
        }
        Ok(())
    }

    async fn finish(self, fetched: &mut Fetched) -> Result<(), FetchError> {
        let Some(writer) = self.writer else { return Ok(()) };
        let undecided: Vec<UndecidedTransaction> = self.own.open().map(undecided).collect();
        let first = undecided.iter().map(|open| open.first_offset).min();
        let notes = SegmentNotes {
            undecided_first_offset: first.unwrap_or(-1),
            undecided,
            ..SegmentNotes::default()
        };
        fetched.segments.extend(writer.finish(notes).await?);
        Ok(())
    }
}

enum PushError {
    Batch(BatchError),
    Build(teeline_archive::segment::SegmentError),
}

/// An open transaction as a segment lists it.
pub fn undecided(open: &OpenTransaction) -> UndecidedTransaction {
    UndecidedTransaction {
        producer_id: open.producer_id,
        producer_epoch: open.producer_epoch,
        first_offset: open.first_offset,
        last_offset: open.last_offset,
    }
}

/// Takes a batch into the list of undecided transactions; `ends` is the producer whose transaction it ends.
pub fn note_transaction(transactions: &mut Transactions, header: &BatchHeader, ends: Option<i64>) {
    if let Some(producer_id) = ends {
        transactions.on_marker(producer_id, header.base_offset);
    } else if header.is_transactional() && !header.is_control() {
        transactions.on_batch(OpenTransaction {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            order: None,
        });
    }
}

#[cfg(test)]
#[path = "fetching_tests.rs"]
mod tests;
