//! `verify`: reads every byte of a backup and holds it against itself: objects against the ledger, blocks against their
//! checksums, batches against theirs, counts and markers against footer and ledger.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use teeline_archive::segment::{BlockEntry, MarkerEntry, Origin, SegmentInfo, decode_block};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_config::TopicFilter;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Shutdown, Store};
use teeline_wire::batch::{BatchView, batches, control_marker};

use crate::budget::Budget;
use crate::check::{neighbours, stored};
use crate::cursor::Source;
use crate::error::{Damage, RestorerError};
use crate::figures;
use crate::footers::{OpenSegment, ReadError, open_segment};
use crate::ledger::{self, Backup};
use crate::plan::{Only, disputes, touches};
use crate::stream::{PartitionStream, Parts};
use crate::tally::Live;
use crate::window::Window;

/// What was read, and what was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// The backup.
    pub backup_id: String,
    /// Segments read.
    pub segments: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Batches read.
    pub batches: u64,
    /// Records counted.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Ranges that different records claim, where nothing tells which of them the source kept.
    pub disputed: Vec<DisputedRange>,
    /// What is wrong; empty when nothing is.
    pub damage: Vec<Damage>,
}

/// Offsets that different records claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DisputedRange {
    /// Topic.
    pub topic: String,
    /// Which of its lives.
    pub incarnation: String,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
}

/// What one segment holds, counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    blocks: u64,
    batches: u64,
    records: u64,
    control: u64,
    transactional: u64,
    markers: Vec<MarkerEntry>,
    /// Offsets that the batches cover.
    covered: OffsetSet,
    bytes: u64,
}

/// Segments read side by side.
const SEGMENTS_AT_ONCE: usize = 4;
/// Bytes of one request.
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes that verifying the selected topics reads.
pub fn bytes_to_read(backup: &Backup, topics: &TopicFilter) -> u64 {
    selected(backup, topics).map(|segment| segment.object_bytes).sum()
}

/// Verifies the topics selected. Damage is a finding; only a store that fails ends it early.
pub async fn verify(
    store: &Store,
    backup: &Backup,
    topics: &TopicFilter,
    live: &Arc<Live>,
    shutdown: &Shutdown,
) -> Result<Verification, RestorerError> {
    let mut verification = Verification {
        backup_id: backup.id.clone(),
        damage: backup.damage.clone(),
        ..Verification::default()
    };
    let segments: Vec<Arc<SegmentInfo>> = selected(backup, topics).cloned().map(Arc::new).collect();
    let all = async {
        let reads = segments.into_iter().map(|info| async move {
            let counted = read_segment(store, &info, live).await;
            (info, counted)
        });
        let mut reads = stream::iter(reads).buffer_unordered(SEGMENTS_AT_ONCE);
        while let Some((info, counted)) = reads.next().await {
            verification.segments += 1;
            match counted {
                Ok(counted) => verification.add(&info, counted),
                Err(error) => verification.damage.push(error.into_damage(&info.key)?),
            }
        }
        let latest = match verification.damage.is_empty() {
            true => None,
            false => Some(settle_joined(store, backup, topics, live, &mut verification).await?),
        };
        // Rivals are found by merging, which takes segments that can be read.
        if verification.damage.is_empty() {
            let backup = latest.as_ref().unwrap_or(backup);
            verification.disputed = disputed(store, backup, topics, live).await?;
        }
        Ok::<(), RestorerError>(())
    };
    shutdown
        .run_until(all)
        .await
        .ok_or(RestorerError::Interrupted)??;
    verification
        .damage
        .sort_by(|left, right| left.key.cmp(&right.key));
    Ok(verification)
}

/// Segments that were joined while others were read are deleted after a while, and a larger one has their batches: that one
/// is read instead, if the ledger says so now.
async fn settle_joined(
    store: &Store,
    backup: &Backup,
    topics: &TopicFilter,
    live: &Arc<Live>,
    verification: &mut Verification,
) -> Result<Backup, RestorerError> {
    let now = ledger::load(store, &backup.id).await?;
    let damaged: HashSet<String> = verification
        .damage
        .iter()
        .map(|found| found.key.clone())
        .collect();
    let known: HashSet<&str> = selected(backup, topics)
        .map(|segment| segment.key.as_str())
        .collect();
    let gone: Vec<&SegmentInfo> = selected(backup, topics)
        .filter(|segment| damaged.contains(&segment.key))
        .collect();
    let mut joined: BTreeMap<String, SegmentInfo> = BTreeMap::new();
    let mut replaced = HashSet::new();
    for (_, topic) in now.state.topics() {
        for (_, state) in topic.partitions() {
            for gone in gone.iter().filter(|segment| state.is_replaced(&segment.key)) {
                replaced.insert(gone.key.clone());
                let instead = state.segments().iter().filter(|segment| {
                    segment.range().overlaps(&gone.range()) && !known.contains(segment.key.as_str())
                });
                joined.extend(instead.map(|segment| (segment.key.clone(), segment.clone())));
            }
        }
    }
    verification.damage.retain(|found| !replaced.contains(&found.key));
    for (key, info) in joined {
        let info = Arc::new(info);
        verification.segments += 1;
        match read_segment(store, &info, live).await {
            Ok(counted) => verification.add(&info, counted),
            Err(error) => verification.damage.push(error.into_damage(&key)?),
        }
    }
    Ok(now)
}

fn selected<'a>(backup: &'a Backup, topics: &'a TopicFilter) -> impl Iterator<Item = &'a SegmentInfo> {
    backup
        .state
        .segments()
        .filter(|segment| topics.matches(&segment.identity.topic))
}

/// What different records claim. Only segments that overlap are read once more.
async fn disputed(
    store: &Store,
    backup: &Backup,
    topics: &TopicFilter,
    live: &Arc<Live>,
) -> Result<Vec<DisputedRange>, RestorerError> {
    let source = Source {
        store: store.clone(),
        budget: Budget::new(MERGE_BYTES_MAX),
        live: Arc::clone(live),
    };
    let mut found = Vec::new();
    for (key, topic) in backup.state.topics() {
        if !topics.matches(&key.name) {
            continue;
        }
        for (number, state) in topic.partitions() {
            let Some(plan) = disputes(number, state) else {
                continue;
            };
            let parts = Parts::new(plan, Window::default(), Some(Only::Disputed));
            let mut stream = PartitionStream::new(source.clone(), parts);
            while stream.next().await?.is_some() {}
            found.extend(stream.apart().ranges().iter().map(|range| DisputedRange {
                topic: key.name.clone(),
                incarnation: key.incarnation.to_string(),
                partition: number,
                first_offset: range.first,
                last_offset: range.last,
            }));
        }
    }
    Ok(found)
}

/// Memory for blocks while segments are merged.
const MERGE_BYTES_MAX: usize = 48 * 1024 * 1024;

impl Verification {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.disputed.is_empty()
    }

    fn add(&mut self, info: &SegmentInfo, counted: Counted) {
        self.blocks += counted.blocks;
        self.batches += counted.batches;
        self.records += counted.records;
        self.bytes += counted.bytes;
        for (what, found, said) in [
            ("batches", counted.batches, info.batch_count),
            ("records", counted.records, info.record_count),
            ("transaction markers", counted.control, info.control_count),
            (
                "transactional batches",
                counted.transactional,
                info.transactional_count,
            ),
        ] {
            if found != said {
                let reason = format!("it holds {found} {what}, footer and ledger say {said}");
                self.damage.push(Damage {
                    key: info.key.clone(),
                    reason,
                });
            }
        }
    }
}

async fn read_segment(
    store: &Store,
    info: &Arc<SegmentInfo>,
    live: &Arc<Live>,
) -> Result<Counted, ReadError> {
    let segment = open_segment(store, info).await?;
    let mut counted = Counted {
        bytes: info.object_bytes,
        ..Counted::default()
    };
    for run in neighbours(&segment.footer.blocks, REQUEST_BYTES_MAX) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let start = first.range().start;
        let bytes = store.get_range(&info.key, start..last.range().end).await?;
        live.archive_read(bytes.len() as u64);
        for block in run {
            let content = stored(block, start, &bytes).unwrap_or_default();
            let (codec, entry) = (info.codec, block.clone());
            let reading = tokio::task::spawn_blocking(move || {
                let content = decode_block(codec, &content, &entry).map_err(ReadError::from)?;
                count_block(&content, &entry)
            });
            let block = reading
                .await
                .map_err(|error| ReadError::Damaged(error.to_string()))??;
            counted.add(block);
        }
    }
    compare_markers(&segment, &counted)?;
    compare_offsets(info, &counted)?;
    Ok(counted)
}

/// Coverage believes what a segment says about its offsets, so that must be what is inside.
fn compare_offsets(info: &SegmentInfo, counted: &Counted) -> Result<(), ReadError> {
    let mut claimed: OffsetSet = [info.range()].into_iter().collect();
    info.gaps.iter().for_each(|gap| claimed.remove(*gap));
    let wrong = match info.identity.origin {
        // Captured: what lies between the batches is a gap, all of it.
        Origin::Tee => counted.covered != claimed,
        // Read back: what lies between them was missing in the log, unless it is a gap.
        Origin::Fetch => info.gaps.iter().any(|gap| touches(&counted.covered, *gap)),
        // Provisional offsets claim nothing.
        Origin::Unconfirmed => false,
    };
    let ends = (counted.covered.first(), counted.covered.last());
    if wrong || ends != (Some(info.start_offset), Some(info.end_offset)) {
        let reason = "its batches do not cover the offsets that it claims to hold";
        return Err(ReadError::Damaged(reason.to_owned()));
    }
    Ok(())
}

fn compare_markers(segment: &OpenSegment, counted: &Counted) -> Result<(), ReadError> {
    if segment.footer.markers == counted.markers {
        return Ok(());
    }
    let (said, found) = (segment.footer.markers.len(), counted.markers.len());
    Err(ReadError::Damaged(format!(
        "its footer lists {said} transaction markers, which are not the {found} inside"
    )))
}

fn count_block(content: &bytes::Bytes, entry: &BlockEntry) -> Result<Counted, ReadError> {
    let at = |batch: Option<&BatchView>| match batch {
        Some(batch) => format!("batch at offset {}", batch.header().base_offset),
        None => format!("block at byte {}", entry.file_offset),
    };
    let damaged = |place: String, error: &teeline_wire::batch::BatchError| {
        ReadError::Damaged(format!("{place}: {}", error_chain(error)))
    };
    let mut counted = Counted {
        blocks: 1,
        ..Counted::default()
    };
    for batch in batches(content) {
        let batch = batch.map_err(|error| damaged(at(None), &error))?;
        batch
            .verify_crc()
            .map_err(|error| damaged(at(Some(&batch)), &error))?;
        let header = batch.header();
        counted.batches += 1;
        if let Some(range) = OffsetRange::new(header.base_offset, header.last_offset()) {
            counted.covered.insert(range);
        }
        // A control batch that compaction has emptied ends nothing any more; segments count it as data without records.
        if let Some(marker) = control_marker(&batch).ok().flatten() {
            counted.control += 1;
            counted.markers.push(MarkerEntry {
                offset: header.base_offset,
                producer_id: marker.producer_id,
                producer_epoch: marker.producer_epoch,
                commit: marker.is_commit(),
            });
            continue;
        }
        counted.records += u64::from(header.records());
        counted.transactional += u64::from(header.is_transactional() && !header.is_control());
    }
    if counted.records != u64::from(entry.record_count) {
        let (found, said) = (counted.records, entry.record_count);
        return Err(ReadError::Damaged(format!(
            "{} holds {found} records, its index says {said}",
            at(None)
        )));
    }
    Ok(counted)
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.batches += other.batches;
        self.records += other.records;
        self.control += other.control;
        self.transactional += other.transactional;
        self.markers.extend(other.markers);
        for range in other.covered.ranges() {
            self.covered.insert(*range);
        }
        self.bytes += other.bytes;
    }
}

/// The result as text.
pub fn render(verification: &Verification) -> String {
    let mut text = String::new();
    for found in &verification.damage {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "damaged: {}: {}", found.key, found.reason);
    }
    for range in &verification.disputed {
        let _ = writeln!(
            text,
            "disputed: {} partition {}: offsets {}..={}; restore --only disputed gives the rivals back",
            range.topic, range.partition, range.first_offset, range.last_offset
        );
    }
    let _ = writeln!(
        text,
        "read {} with {} in {} and {}, {}",
        figures::of(verification.segments, "segment"),
        figures::of(verification.records, "record"),
        figures::of(verification.batches, "batch").replace("batchs", "batches"),
        figures::of(verification.blocks, "block"),
        figures::bytes(verification.bytes),
    );
    let findings = (verification.damage.len() + verification.disputed.len()) as u64;
    let verdict = if findings == 0 {
        "no damage".to_owned()
    } else {
        figures::of(findings, "finding")
    };
    let _ = writeln!(text, "{verdict}");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
