//! Small segments into one: the same batches, byte by byte, compressed anew.

use teeline_archive::segment::{Origin, SegmentError, SegmentInfo, SegmentNotes};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_runtime::Store;
use teeline_wire::batch::BatchView;

use super::plan::Run;
use crate::partition::PartitionId;
use crate::prepare;
use crate::stored::{StoredError, StoredSegment};
use crate::writer::{SegmentSink, SegmentWriter, WriteError};

/// Why segments could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// One of them cannot be read.
    #[error(transparent)]
    Read(#[from] StoredError),
    /// The joined one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What was written is not what was read. A bug, here or in the ledger; nothing is replaced.
    #[error("the joined segment has {found} {what}, its parts have {expected}")]
    Differs {
        /// What was counted.
        what: &'static str,
        /// How many the parts have.
        expected: u64,
        /// How many the joined segment has.
        found: u64,
    },
    /// Nothing was there to be joined.
    #[error("there is nothing to join")]
    Empty,
}

/// Writes the joined segment. Memory: one block read, one written, and the parts of an upload.
pub async fn join(
    store: &Store,
    sink: &SegmentSink,
    cluster_id: &str,
    run: &Run,
) -> Result<SegmentInfo, JoinError> {
    let first = run.segments.first().ok_or(JoinError::Empty)?;
    let id = PartitionId {
        incarnation: run.incarnation,
        partition: run.partition,
    };
    // Its age is that of what it holds: who asks for recent segments does not mean this one.
    let created_at_ms = |segment: &SegmentInfo| segment.identity.created_at_ms;
    let newest_ms = run.segments.iter().map(created_at_ms).max().unwrap_or(0);
    let origin = first.identity.origin;
    let mut writer = sink.begin_as_of(cluster_id, &run.topic, id, origin, newest_ms)?;
    if let Err(error) = copy(store, &run.segments, &mut writer).await {
        writer.abort().await;
        return Err(error);
    }
    let joined = writer
        .finish(notes(&run.segments))
        .await?
        .ok_or(JoinError::Empty)?;
    check(&run.segments, &joined)?;
    Ok(joined)
}

async fn copy(store: &Store, segments: &[SegmentInfo], writer: &mut SegmentWriter) -> Result<(), JoinError> {
    for segment in segments {
        let stored = StoredSegment::open(store, segment).await?;
        for block in stored.blocks() {
            let batches = stored.batches_of(store, block).await?;
            let pushed = writer.push_with(move |builder| -> Result<(), SegmentError> {
                batches.iter().try_for_each(|batch: &BatchView| {
                    let prepared = prepare::verified(batch);
                    builder.push(&prepared.bytes, prepared.meta)
                })
            });
            pushed.await?.map_err(WriteError::Build)?;
        }
    }
    Ok(())
}

/// What the parts did not vouch for the joined one does not vouch for either, nor for what lies between them.
fn notes(segments: &[SegmentInfo]) -> SegmentNotes {
    let mut gaps = OffsetSet::new();
    let vouches = segments
        .first()
        .is_some_and(|first| first.identity.origin == Origin::Fetch);
    if vouches {
        let between = segments.windows(2).filter_map(|pair| match pair {
            [one, next] => OffsetRange::new(
                one.end_offset.saturating_add(1),
                next.start_offset.saturating_sub(1),
            ),
            _ => None,
        });
        let own = segments.iter().flat_map(|segment| segment.gaps.iter().copied());
        between.chain(own).for_each(|gap| gaps.insert(gap));
    }
    let undecided = segments.iter().flat_map(|segment| &segment.undecided);
    SegmentNotes {
        undecided_first_offset: undecided
            .clone()
            .map(|open| open.first_offset)
            .min()
            .unwrap_or(-1),
        undecided: undecided.copied().collect(),
        lsn_range: None,
        quarantined: false,
        gaps: gaps.ranges().to_vec(),
    }
}

type Count = fn(&SegmentInfo) -> u64;

fn check(parts: &[SegmentInfo], joined: &SegmentInfo) -> Result<(), JoinError> {
    let sum = |of: Count| parts.iter().map(of).fold(0u64, u64::saturating_add);
    let counts: [(&'static str, Count); 5] = [
        ("records", |segment| segment.record_count),
        ("batches", |segment| segment.batch_count),
        ("markers", |segment| segment.control_count),
        ("bytes of batches", |segment| segment.uncompressed_bytes),
        ("offsets", |segment| held(segment)),
    ];
    for (what, of) in counts {
        let (expected, found) = (sum(of), of(joined));
        if expected != found {
            return Err(JoinError::Differs {
                what,
                expected,
                found,
            });
        }
    }
    Ok(())
}

fn held(segment: &SegmentInfo) -> u64 {
    let gaps = segment
        .gaps
        .iter()
        .fold(0u64, |sum, gap| sum.saturating_add(gap.span()));
    segment.range().span().saturating_sub(gaps)
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
