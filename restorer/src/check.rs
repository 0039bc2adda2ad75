//! Looking at segments before they are restored: how much of them is wanted, and whether it is undamaged.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use teeline_archive::segment::{BlockEntry, SegmentInfo};
use teeline_runtime::{Shutdown, Store};

use crate::cursor::wanted_blocks;
use crate::error::{Damage, RestorerError};
use crate::footers::{ReadError, open_segment};
use crate::plan::{PartitionPlan, Plan};
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
    let window = plan.window;
    for partition in plan.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        refine_partition(store, window, partition).await?;
    }
    Ok(())
}

async fn refine_partition(
    store: &Store,
    window: Window,
    partition: &mut PartitionPlan,
) -> Result<(), RestorerError> {
    let segments: Vec<_> = partition
        .segments
        .iter()
        .chain(&partition.unconfirmed)
        .map(Arc::clone)
        .collect();
    let measured = stream::iter(segments.into_iter().map(|info| measure(store, window, info)));
    let mut measured = measured.buffered(SEGMENTS_AT_ONCE);
    let (mut records, mut bytes) = (0u64, 0u64);
    let mut empty = Vec::new();
    while let Some(measure) = measured.next().await {
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

async fn measure(store: &Store, window: Window, info: Arc<SegmentInfo>) -> Result<Measure, RestorerError> {
    if window.position(info.timestamp_min, info.timestamp_max) == Position::Inside {
        let (records, bytes) = (info.record_count, info.object_bytes);
        return Ok(Measure { info, records, bytes });
    }
    let segment = open_segment(store, &info)
        .await
        .map_err(|error| error.into_error(&info.key))?;
    let wanted = wanted_blocks(&segment.footer.blocks, window);
    let records = wanted
        .iter()
        .map(|(block, _)| u64::from(block.record_count))
        .sum();
    let bytes = wanted
        .iter()
        .map(|(block, _)| u64::from(block.compressed_len))
        .sum();
    Ok(Measure { info, records, bytes })
}

/// Checks every byte that a restore is going to need: footers and wanted blocks. All damage is told, not only the
/// first.
pub async fn check(
    store: &Store,
    plan: &Plan,
    live: &Arc<Live>,
    shutdown: &Shutdown,
) -> Result<(), RestorerError> {
    let window = plan.window;
    let segments = plan.segments().map(Arc::clone);
    let checks = segments.map(|info| check_segment(store, window, info, live));
    let footers = plan
        .partitions()
        .flat_map(|(_, partition)| &partition.marker_segments)
        .map(Arc::clone);
    let mut damage = Vec::new();
    let all = async {
        let mut checks = stream::iter(checks).buffer_unordered(SEGMENTS_AT_ONCE);
        while let Some(found) = checks.next().await {
            damage.extend(found?);
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
        Ok(())
    } else {
        Err(RestorerError::Damaged { damage })
    }
}

async fn check_segment(
    store: &Store,
    window: Window,
    info: Arc<SegmentInfo>,
    live: &Arc<Live>,
) -> Result<Option<Damage>, RestorerError> {
    match check_blocks(store, window, &info, live).await {
        Ok(()) => Ok(None),
        Err(error) => error.into_damage(&info.key).map(Some),
    }
}

async fn check_blocks(
    store: &Store,
    window: Window,
    info: &Arc<SegmentInfo>,
    live: &Arc<Live>,
) -> Result<(), ReadError> {
    let segment = open_segment(store, info).await?;
    let wanted: Vec<_> = wanted_blocks(&segment.footer.blocks, window)
        .into_iter()
        .map(|(block, _)| block)
        .collect();
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
                return Err(ReadError::Damaged(format!(
                    "the block at byte {at} does not match its checksum"
                )));
            }
            Err(error) => return Err(ReadError::Damaged(error.to_string())),
        }
    }
    Ok(())
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
