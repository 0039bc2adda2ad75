//! Damage done on purpose to a copy of an archive, to see that it is noticed.

use std::fs;
use std::path::{Path, PathBuf};

use teeline_archive::ledger::{Commit, Entry};
use teeline_archive::segment::{
    BLOCK_BYTES_DEFAULT, BatchKind, BatchMeta, Footer, Marker, Producer, SegmentBuilder, SegmentIdentity,
    SegmentInfo, SegmentNotes,
};

use crate::archived::{Archived, ArchivedSegment, files};
use crate::source_log::RawBatch;

/// A copy of one backup, to be damaged.
#[derive(Debug)]
pub struct ArchiveCopy {
    /// Where it is.
    pub archive: PathBuf,
    backup_id: String,
}

impl ArchiveCopy {
    /// Copies a backup into an empty directory.
    pub fn of(archive: &Path, backup_id: &str, into: &Path) -> Self {
        copy(&archive.join(backup_id), &into.join(backup_id));
        Self {
            archive: into.to_owned(),
            backup_id: backup_id.to_owned(),
        }
    }

    /// What it holds now.
    pub fn read(&self) -> Archived {
        Archived::read(&self.archive, &self.backup_id)
    }

    /// Where an object is.
    pub fn path(&self, key: &str) -> PathBuf {
        self.archive.join(key)
    }

    /// Flips one bit of an object.
    pub fn flip(path: &Path, at: usize) {
        let mut bytes = fs::read(path).expect("read an object");
        bytes[at] ^= 0x10;
        fs::write(path, bytes).expect("write an object");
    }

    /// Its ledger commits.
    pub fn commits(&self) -> Vec<PathBuf> {
        files(&self.archive.join(&self.backup_id).join("ledger"), "commit")
    }

    /// Changes what the commits say, and makes it look as if they had always said so.
    pub fn edit_entries(&self, mut edit: impl FnMut(&mut Entry)) {
        for path in self.commits() {
            let bytes = fs::read(&path).expect("read a commit");
            let mut commit = Commit::decode(&bytes).expect("a commit that is whole");
            commit.entries.iter_mut().for_each(&mut edit);
            fs::write(path, commit.encode().expect("encode a commit")).expect("write a commit");
        }
    }

    /// Changes the batches of a segment, of which at least the first must stay, and makes segment and ledger look as
    /// if they had always been so.
    pub fn edit_segment(&self, segment: &ArchivedSegment, edit: impl FnOnce(&mut Vec<RawBatch>)) {
        let mut batches = segment.batches.clone();
        edit(&mut batches);
        let info = write_segment(&self.archive, &segment.footer, &batches);
        assert_eq!(info.key, segment.info.key, "the first batch stays where it was");
        self.edit_entries(|entry| match entry {
            Entry::Segment(listed) if listed.key == info.key => *listed = info.clone(),
            _ => {}
        });
    }
}

/// Builds a segment from batches as the footer of another says, and stores it.
fn write_segment(archive: &Path, like: &Footer, batches: &[RawBatch]) -> SegmentInfo {
    build_segment(archive, &like.identity, like.notes.clone(), batches, |offset| {
        let marker = like.markers.iter().find(|marker| marker.offset == offset);
        marker.is_some_and(|marker| marker.commit)
    })
}

/// Builds a segment and stores it. Timestamps are taken from the headers of the batches.
pub fn build_segment(
    archive: &Path,
    identity: &SegmentIdentity,
    notes: SegmentNotes,
    batches: &[RawBatch],
    commits: impl Fn(i64) -> bool,
) -> SegmentInfo {
    let codec = teeline_archive::segment::Codec::Zstd;
    let mut builder =
        SegmentBuilder::new(identity.clone(), codec, 3, BLOCK_BYTES_DEFAULT).expect("begin a segment");
    builder.set_notes(notes);
    for batch in batches {
        let meta = meta(batch, commits(batch.base_offset));
        builder.push(&batch.bytes, meta).expect("add a batch");
    }
    let mut object = builder.drain_output().to_vec();
    let finished = builder.finish().expect("finish a segment");
    object.extend_from_slice(&finished.tail);
    let path = archive.join(&finished.info.key);
    fs::create_dir_all(path.parent().expect("a key has directories")).expect("create a directory");
    fs::write(path, object).expect("write a segment");
    finished.info
}

fn meta(batch: &RawBatch, commit: bool) -> BatchMeta {
    let number = |at: usize| i64::from_be_bytes(batch.bytes[at..at + 8].try_into().expect("8 bytes"));
    let (producer_epoch, base_sequence) = (&batch.bytes[51..53], &batch.bytes[53..57]);
    BatchMeta {
        base_offset: batch.base_offset,
        last_offset: batch.last_offset,
        record_count: batch.records,
        timestamp_min: number(27),
        timestamp_max: number(35),
        leader_epoch: batch.leader_epoch,
        producer: (batch.producer_id >= 0).then(|| Producer {
            id: batch.producer_id,
            epoch: i16::from_be_bytes(producer_epoch.try_into().expect("2 bytes")),
            base_sequence: i32::from_be_bytes(base_sequence.try_into().expect("4 bytes")),
        }),
        kind: match (batch.control, batch.transactional) {
            (true, _) => BatchKind::Control(Marker { commit }),
            (false, true) => BatchKind::TransactionalData,
            (false, false) => BatchKind::Data,
        },
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a directory of the copy");
    for entry in fs::read_dir(from).expect("list a directory of the archive") {
        let entry = entry.expect("list a directory of the archive");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).expect("copy an object");
        }
    }
}
