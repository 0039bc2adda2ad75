//! Looking at segments before they are restored: how much of them is wanted, and whether it is undamaged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use teeline_archive::segment::{BlockEntry, SegmentInfo};
use teeline_runtime::{Shutdown, Store};

use crate::cursor::BlockChoice;
use crate::error::{Damage, RestorerError};
use crate::footers::{ReadError, open_segment};
use crate::plan::{Only, PartitionPlan, Plan};
use crate::tally::Live;
use crate::window::{Position, Window};

/// Segments looked at side by side.
const SEGMENTS_AT_ONCE: usize = 6;
/// Bytes of one request; with the number of segments at once this bounds memory.
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes the figures of a windowed plan exact as far as blocks go: by the footers of segments at the window's edges.
pub async fn refine(store: &Store, plan: &mut Plan) -> Result<(), RestorerError> {
    if plan.window.is_all() {
        return Ok(());
    }
    let scope = Scope::of(plan);
    for partition in plan.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        refine_partition(store, scope, partition).await?;
    }
    Ok(())
}

async fn refine_partition(
    store: &Store,
    scope: Scope,
    partition: &mut PartitionPlan,
) -> Result<(), RestorerError> {
    let segments = selected(scope, partition).map(|(info, choice)| measure(store, choice, info));
    let measured: Vec<_> = stream::iter(segments).buffered(SEGMENTS_AT_ONCE).collect().await;
    let (mut records, mut bytes) = (0u64, 0u64);
    let mut empty = Vec::new();
    for measure in measured {
        let Measure {
            info,
            records: of_segment,
            bytes: stored,
        } = measure?;
        records = records.saturating_add(of_segment);
        bytes = bytes.saturating_add(stored);
        if stored == 0 {
            empty.push(info.key.clone());
        }
    }
    // Late records: the segment's bounds enclose the window, none of its blocks does.
    partition.segments.retain(|info| !empty.contains(&info.key));
    partition.unconfirmed.retain(|info| !empty.contains(&info.key));
    partition.records_max = records;
    partition.archive_bytes = bytes;
    Ok(())
}

struct Measure {
    info: Arc<SegmentInfo>,
    records: u64,
    bytes: u64,
}

async fn measure(
    store: &Store,
    choice: BlockChoice<'_>,
    info: &Arc<SegmentInfo>,
) -> Result<Measure, RestorerError> {
    let info = Arc::clone(info);
    let position = choice.window.position(info.timestamp_min, info.timestamp_max);
    if position == Position::Inside && choice.skipped.is_none() {
        let (records, bytes) = (info.record_count, info.object_bytes);
        return Ok(Measure { info, records, bytes });
    }
    let segment = open_segment(store, &info)
        .await
        .map_err(|error| error.into_error(&info.key))?;
    let blocks = choice.wanted(&segment.footer.blocks);
    let inside = blocks
        .iter()
        .filter(|(_, position)| *position != Position::Outside);
    let records = inside.map(|(block, _)| u64::from(block.record_count)).sum();
    let bytes = blocks
        .iter()
        .map(|(block, _)| u64::from(block.compressed_len))
        .sum();
    Ok(Measure { info, records, bytes })
}

/// What of the plan decides about all of its segments.
#[derive(Debug, Clone, Copy)]
struct Scope {
    window: Window,
    only: Option<Only>,
}

impl Scope {
    fn of(plan: &Plan) -> Self {
        Self {
            window: plan.window,
            only: plan.only,
        }
    }
}

/// The segments of a partition that are read, and which of their blocks.
fn selected(
    scope: Scope,
    partition: &PartitionPlan,
) -> impl Iterator<Item = (&Arc<SegmentInfo>, BlockChoice<'_>)> {
    let all = partition.segments.iter().chain(&partition.unconfirmed);
    all.map(move |info| (info, partition.blocks_of(info, scope.window, scope.only)))
}

/// The largest block that is wanted, decompressed: no batch in it is larger. Reads footers only.
pub async fn largest_block(store: &Store, plan: &Plan) -> Result<u64, RestorerError> {
    let scope = Scope::of(plan);
    let segments = plan
        .partitions()
        .flat_map(|(_, partition)| selected(scope, partition));
    let sizes = segments.map(|(info, choice)| async move {
        let segment = open_segment(store, info)
            .await
            .map_err(|error| error.into_error(&info.key))?;
        Ok(largest(&choice.wanted(&segment.footer.blocks)))
    });
    stream::iter(sizes)
        .buffer_unordered(SEGMENTS_AT_ONCE)
        .try_fold(0, |one, other| async move { Ok(one.max(other)) })
        .await
}

fn largest(blocks: &[(BlockEntry, Position)]) -> u64 {
    blocks
        .iter()
        .map(|(block, _)| u64::from(block.uncompressed_len))
        .max()
        .unwrap_or(0)
}

/// Checks every byte that a restore is going to need: footers and wanted blocks. All damage is told, not only the
/// first. Tells the largest block, as [`largest_block`] does.
pub async fn check(
    store: &Store,
    plan: &Plan,
    live: &Arc<Live>,
    shutdown: &Shutdown,
) -> Result<u64, RestorerError> {
    let scope = Scope::of(plan);
    let segments = plan
        .partitions()
        .flat_map(|(_, partition)| selected(scope, partition));
    let checks = segments.map(|(info, choice)| check_segment(store, choice, info, live));
    let mut largest_block = 0;
    let footers = plan
        .partitions()
        .flat_map(|(_, partition)| &partition.marker_segments)
        .map(Arc::clone);
    let mut damage = Vec::new();
    let all = async {
        let mut checks = stream::iter(checks).buffer_unordered(SEGMENTS_AT_ONCE);
        while let Some(found) = checks.next().await {
            match found? {
                Ok(block) => largest_block = block.max(largest_block),
                Err(found) => damage.push(found),
            }
        }
        let footers = footers.map(|info| async move {
            match open_segment(store, &info).await {
                Ok(_) => Ok(None),
                Err(error) => error.into_damage(&info.key).map(Some),
            }
        });
        let mut footers = stream::iter(footers).buffer_unordered(SEGMENTS_AT_ONCE);
        while let Some(found) = footers.next().await {
            damage.extend(found?);
        }
        Ok::<(), RestorerError>(())
    };
    match shutdown.run_until(all).await {
        None => return Err(RestorerError::Interrupted),
        Some(result) => result?,
    }
    damage.sort_by(|left, right| left.key.cmp(&right.key));
    // A segment may be wanted for its records and for its markers.
    damage.dedup();
    if damage.is_empty() {
        Ok(largest_block)
    } else {
        Err(RestorerError::Damaged { damage })
    }
}

async fn check_segment(
    store: &Store,
    choice: BlockChoice<'_>,
    info: &Arc<SegmentInfo>,
    live: &Arc<Live>,
) -> Result<Result<u64, Damage>, RestorerError> {
    match check_blocks(store, choice, info, live).await {
        Ok(largest) => Ok(Ok(largest)),
        Err(error) => error.into_damage(&info.key).map(Err),
    }
}

async fn check_blocks(
    store: &Store,
    choice: BlockChoice<'_>,
    info: &Arc<SegmentInfo>,
    live: &Arc<Live>,
) -> Result<u64, ReadError> {
    let segment = open_segment(store, info).await?;
    let wanted = choice.wanted(&segment.footer.blocks);
    let largest = largest(&wanted);
    let wanted: Vec<_> = wanted.into_iter().map(|(block, _)| block).collect();
    for run in neighbours(&wanted, REQUEST_BYTES_MAX) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let start = first.range().start;
        let bytes = store.get_range(&info.key, start..last.range().end).await?;
        live.archive_read(bytes.len() as u64);
        let run = run.to_vec();
        // Some milliseconds of work, so on a thread of its own.
        let damaged = tokio::task::spawn_blocking(move || first_damaged(&run, start, &bytes)).await;
        match damaged {
            Ok(None) => {}
            Ok(Some(at)) => {
                let reason = format!("the block at byte {at} does not match its checksum");
                return Err(ReadError::Damaged(reason));
            }
            Err(error) => return Err(ReadError::Damaged(error.to_string())),
        }
    }
    Ok(largest)
}

/// Blocks that lie beside each other, in groups of at most so many bytes (or of one block).
pub(crate) fn neighbours(blocks: &[BlockEntry], bytes_max: u64) -> Vec<&[BlockEntry]> {
    let mut groups = Vec::new();
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let start = first.range().start;
        let mut end = start;
        let mut count = 0usize;
        for block in rest {
            let range = block.range();
            let fits = count == 0 || range.end.saturating_sub(start) <= bytes_max;
            if range.start != end && count > 0 || !fits {
                break;
            }
            end = range.end;
            count += 1;
        }
        let (group, others) = rest.split_at_checked(count.max(1)).unwrap_or((rest, &[]));
        groups.push(group);
        rest = others;
    }
    groups
}

/// Where the first damaged block of a run begins.
fn first_damaged(run: &[BlockEntry], start: u64, bytes: &Bytes) -> Option<u64> {
    run.iter().find_map(|block| {
        (stored(block, start, bytes).map(|stored| crc32c::crc32c(&stored)) != Some(block.crc32c))
            .then_some(block.file_offset)
    })
}

/// A block's bytes within those that were read from `start` on.
pub(crate) fn stored(block: &BlockEntry, start: u64, bytes: &Bytes) -> Option<Bytes> {
    let from = usize::try_from(block.range().start.checked_sub(start)?).ok()?;
    let to = usize::try_from(block.range().end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
