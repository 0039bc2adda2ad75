//! What an archive holds, read from its files by the readers of the archive's own crate: the fold of every ledger
//! commit, and the batches of every segment that it lists. Whatever cannot be read, or is not what the ledger says, is
//! noted as damage.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use teeline_archive::ledger::{Commit, LedgerState, PartitionState};
use teeline_archive::segment::{Footer, SegmentInfo, SegmentReader};
use teeline_archive::{OffsetRange, OffsetSet};

use crate::source_log::{RawBatch, SourceLog};
use crate::wait::wait_for;

/// An archive, as far as it can be read.
#[derive(Debug)]
pub struct Archived {
    /// What the commits say.
    pub ledger: LedgerState,
    /// Every segment that is listed and whole.
    pub segments: Vec<ArchivedSegment>,
    /// What is wrong with the objects themselves.
    pub damage: Vec<String>,
}

/// A segment with its batches.
#[derive(Debug)]
pub struct ArchivedSegment {
    /// As the ledger lists it.
    pub info: SegmentInfo,
    /// As it describes itself.
    pub footer: Footer,
    /// In order.
    pub batches: Vec<RawBatch>,
}

impl Archived {
    /// Only what the ledger says, without looking at any segment.
    pub fn ledger_only(archive: &Path, backup_id: &str) -> Self {
        let mut archived = Self {
            ledger: LedgerState::new(),
            segments: Vec::new(),
            damage: Vec::new(),
        };
        archived.fold(&archive.join(backup_id).join("ledger"));
        archived
    }

    /// Reads the backup `backup_id` below `archive`, a directory: that of a filesystem store, or of an S3 server that
    /// keeps objects as files.
    pub fn read(archive: &Path, backup_id: &str) -> Self {
        let mut archived = Self::ledger_only(archive, backup_id);
        let listed: Vec<SegmentInfo> = archived.ledger.segments().cloned().collect();
        for info in listed {
            match read_segment(archive, &info) {
                Ok((footer, batches)) => archived.segments.push(ArchivedSegment {
                    info,
                    footer,
                    batches,
                }),
                Err(reason) => archived.damage.push(format!("{}: {reason}", info.key)),
            }
        }
        archived
    }

    /// What of `source` the ledger neither holds nor explains: the first such place.
    pub fn first_hole(&self, source: &SourceLog) -> Option<String> {
        source.0.iter().find_map(|((topic, partition), log)| {
            let whole = OffsetRange::new(log.log_start, log.high_watermark - 1)?;
            let explained = match self.partition(topic, &log.topic_id, *partition) {
                Some(state) => state.explained(),
                None => OffsetSet::new(),
            };
            let hole = *explained.holes(whole).first()?;
            Some(format!("{topic}/{partition} lacks {hole} of {whole}"))
        })
    }

    /// Chains of different writers are independent, commits within one come in order; names sort that way.
    fn fold(&mut self, ledger: &Path) {
        for path in files(ledger, "commit") {
            let bytes = fs::read(&path).expect("read a ledger commit");
            let applied = Commit::decode(&bytes)
                .map_err(|error| error.to_string())
                .and_then(|commit| self.ledger.apply(&commit).map_err(|error| error.to_string()));
            if let Err(reason) = applied {
                self.damage.push(format!("{}: {reason}", path.display()));
            }
        }
    }

    /// What the ledger says of a partition of one life of a topic, by its id in hex digits.
    pub fn partition(&self, topic: &str, topic_id: &str, partition: i32) -> Option<&PartitionState> {
        let lives = self.ledger.incarnations(topic);
        let life = lives
            .iter()
            .find(|(key, _)| key.incarnation.simple().to_string() == topic_id)?;
        life.1.partition(partition)
    }

    /// The segments of a partition, unconfirmed ones included.
    pub fn segments_of(&self, topic: &str, topic_id: &str, partition: i32) -> Vec<&ArchivedSegment> {
        let wanted = |info: &SegmentInfo| {
            let identity = &info.identity;
            identity.topic == topic
                && identity.partition == partition
                && identity.incarnation.simple().to_string() == topic_id
        };
        self.segments
            .iter()
            .filter(|segment| wanted(&segment.info))
            .collect()
    }
}

/// Until the ledger accounts for all of `source`: every offset held, or explained.
pub fn await_whole(source: &SourceLog, archive: &Path, backup_id: &str, limit: Duration) {
    wait_for(
        "the archive to be whole",
        limit,
        || match Archived::ledger_only(archive, backup_id).first_hole(source) {
            None => Ok(()),
            Some(hole) => Err(hole),
        },
    );
}

fn read_segment(archive: &Path, info: &SegmentInfo) -> Result<(Footer, Vec<RawBatch>), String> {
    let object = read(&archive.join(&info.key))?;
    let index = if info.codec.has_sidecar() {
        Some(read(&archive.join(format!("{}.idx", info.key)))?)
    } else {
        None
    };
    let reader = SegmentReader::open(&object, index.as_deref()).map_err(|error| error.to_string())?;
    let footer = reader.footer();
    let encoded = match &index {
        Some(index) => index.clone(),
        None => object.slice(usize::try_from(footer.data_bytes).expect("it was read")..),
    };
    let mut batches = Vec::new();
    for block in &footer.blocks {
        let content = reader
            .block_of(&object, block)
            .map_err(|error| error.to_string())?;
        batches.extend(RawBatch::parse_run(&content));
    }
    check_books(footer, &encoded, info, &batches)?;
    Ok((footer.clone(), batches))
}

/// The ledger, the footer and the batches say the same.
fn check_books(
    footer: &Footer,
    encoded: &[u8],
    listed: &SegmentInfo,
    batches: &[RawBatch],
) -> Result<(), String> {
    let own = footer.info(encoded).map_err(|error| error.to_string())?;
    if own != *listed {
        return Err(format!(
            "the ledger lists it otherwise than its footer says: {listed:?}, {own:?}"
        ));
    }
    let markers = batches.iter().filter(|batch| batch.control).count() as u64;
    let records = batches
        .iter()
        .filter(|batch| !batch.control)
        .map(|batch| u64::from(batch.records));
    let counted = (batches.len() as u64, markers, records.sum::<u64>());
    let listed_counts = (listed.batch_count, listed.control_count, listed.record_count);
    if counted != listed_counts {
        return Err(format!(
            "batches, markers and records are {counted:?}, listed are {listed_counts:?}"
        ));
    }
    let ends = (
        batches.first().map(|batch| batch.base_offset),
        batches.last().map(|batch| batch.last_offset),
    );
    if ends != (Some(listed.start_offset), Some(listed.end_offset)) {
        return Err(format!(
            "its batches lie at {ends:?}, listed are {}..={}",
            listed.start_offset, listed.end_offset
        ));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Bytes, String> {
    fs::read(path)
        .map(Bytes::from)
        .map_err(|error| format!("read {}: {error}", path.display()))
}

/// Every file with an extension below a directory, in the order of names.
pub fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
