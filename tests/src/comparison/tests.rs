//! A comparison that cannot fail proves nothing: every kind of damage, done to a small archive, is found.

use std::fs;

use teeline_archive::ledger::{Absence, Commit, Entry, Superseded};
use teeline_archive::segment::{SegmentIdentity, SegmentNotes};
use teeline_archive::{SessionId, WriterId};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::tampering::{ArchiveCopy, build_segment};

const ID: &str = "00000000000000000000000000000007";

/// A batch of three records at an offset, told apart by `content`.
fn batch(base_offset: i64, content: u8) -> RawBatch {
    let payload = [content; 40];
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&base_offset.to_be_bytes());
    bytes.extend_from_slice(&(49 + payload.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&5i32.to_be_bytes()); // leader epoch
    bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0]); // magic, crc, attributes
    bytes.extend_from_slice(&2i32.to_be_bytes()); // last offset delta
    bytes.extend_from_slice(&[0; 16]); // timestamps
    bytes.extend_from_slice(&[0xff; 14]); // nobody in particular
    bytes.extend_from_slice(&3u32.to_be_bytes());
    bytes.extend_from_slice(&payload);
    RawBatch::parse_run(&bytes).pop().unwrap()
}

fn log() -> SourceLog {
    let batches: Vec<RawBatch> = (0..6).map(|n| batch(i64::from(n) * 3, n)).collect();
    let partition = SourcePartition {
        topic_id: ID.to_owned(),
        log_start: 0,
        high_watermark: 18,
        leader_epoch: 5,
        batches,
    };
    SourceLog([(("t".to_owned(), 0), partition)].into())
}

/// An archive of the log in two segments, captured the first, fetched the second.
fn archive(segments: &[(Origin, Vec<RawBatch>)], more: &[Entry]) -> (TempDir, ArchiveCopy) {
    let work = tempfile::tempdir().unwrap();
    let mut entries: Vec<Entry> = Vec::new();
    for (counter, (origin, batches)) in (0..).zip(segments) {
        let identity = SegmentIdentity {
            backup_id: "b".to_owned(),
            cluster_id: "c".to_owned(),
            topic: "t".to_owned(),
            incarnation: Uuid::from_u128(7),
            partition: 0,
            writer: WriterId(1),
            session: SessionId(1),
            counter,
            origin: *origin,
            created_at_ms: 1,
        };
        let info = build_segment(work.path(), &identity, SegmentNotes::default(), batches, |_| true);
        entries.push(Entry::Segment(info));
    }
    entries.extend_from_slice(more);
    let commit = Commit {
        backup_id: "b".to_owned(),
        cluster_id: "c".to_owned(),
        writer: WriterId(1),
        seq: 1,
        nonce: 1,
        created_at_ms: 1,
        program: "a test".to_owned(),
        entries,
    };
    let path = work.path().join(commit.key().unwrap());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, commit.encode().unwrap()).unwrap();
    let copy = ArchiveCopy::of(work.path(), "b", &work.path().join("copy"));
    (work, copy)
}

/// Captured the first half, fetched the second.
fn whole() -> (TempDir, ArchiveCopy) {
    let batches = log_batches();
    archive(
        &[
            (Origin::Tee, batches[..3].to_vec()),
            (Origin::Fetch, batches[3..].to_vec()),
        ],
        &[],
    )
}

fn log_batches() -> Vec<RawBatch> {
    log().0.into_values().next().unwrap().batches
}

fn wrong(copy: &ArchiveCopy) -> Vec<Wrong> {
    let compared = compare(&log(), &copy.read());
    assert!(compared.damage.is_empty(), "{:?}", compared.damage);
    compared
        .findings
        .into_iter()
        .map(|finding| finding.wrong)
        .collect()
}

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn superseded(segment: &str, first: i64, last: i64) -> Entry {
    Entry::Superseded(Superseded {
        topic: "t".to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 0,
        segment: segment.to_owned(),
        first_offset: first,
        last_offset: last,
        leader_epoch: 4,
        end_offset: first,
        at_ms: 1,
        same: false,
    })
}

#[test]
fn an_archive_of_the_whole_log_is_equal() {
    let (_work, copy) = whole();
    let compared = compare(&log(), &copy.read());
    compared.assert_equal();
    assert_eq!(
        (compared.batches, compared.offsets, compared.offsets_twice),
        (6, 18, 0)
    );
    assert_eq!(compared.records_fetched, 9);
}

#[test]
fn a_batch_dropped_from_a_captured_segment_is_missing_and_unexplained() {
    let (_work, copy) = whole();
    copy.edit_segment(&copy.read().segments[0], |batches| {
        batches.remove(1);
    });
    let hole = range(3, 5);
    assert_eq!(wrong(&copy), [Wrong::Missing(hole), Wrong::Unexplained(hole)]);
}

#[test]
fn a_batch_dropped_from_a_fetched_segment_is_missing_although_the_ledger_vouches_for_it() {
    let (_work, copy) = whole();
    copy.edit_segment(&copy.read().segments[1], |batches| {
        batches.remove(1);
    });
    assert_eq!(wrong(&copy), [Wrong::Missing(range(12, 14))]);
}

#[test]
fn another_content_and_swapped_ranges_are_altered() {
    let (_work, copy) = whole();
    copy.edit_segment(&copy.read().segments[0], |batches| batches[2] = batch(6, 99));
    assert!(
        matches!(&wrong(&copy)[..], [Wrong::Altered(at, _), Wrong::Missing(_)] if *at == range(6, 8)),
        "{:?}",
        wrong(&copy)
    );
    let (_work, copy) = whole();
    copy.edit_segment(&copy.read().segments[0], |batches| {
        (batches[0], batches[1]) = (batch(0, 1), batch(3, 0));
    });
    let found = wrong(&copy);
    assert_eq!(
        found
            .iter()
            .filter(|each| matches!(each, Wrong::Altered(..)))
            .count(),
        2
    );
    assert!(found.contains(&Wrong::Missing(range(0, 5))), "{found:?}");
}

#[test]
fn another_leader_epoch_is_found_and_an_unknown_one_is_not() {
    for (epoch, expected) in [(-1i32, vec![]), (4, vec![Wrong::Epoch(range(3, 5), 4, 5)])] {
        let (_work, copy) = whole();
        copy.edit_segment(&copy.read().segments[0], |batches| {
            batches[1].bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
            batches[1].leader_epoch = epoch;
        });
        assert_eq!(wrong(&copy), expected);
    }
}

#[test]
fn what_the_log_does_not_have_must_be_listed_as_superseded() {
    let stale = vec![batch(15, 77), batch(18, 78)];
    let segments = [(Origin::Tee, log_batches()), (Origin::Tee, stale)];
    let (_work, copy) = archive(&segments, &[]);
    let found = wrong(&copy);
    assert!(
        matches!(&found[0], Wrong::Altered(at, _) if *at == range(15, 17)),
        "{found:?}"
    );
    assert!(
        matches!(&found[1], Wrong::Foreign(at, _) if *at == range(18, 20)),
        "{found:?}"
    );
    assert!(found.contains(&Wrong::BeyondTheEnd(range(18, 20))), "{found:?}");

    let key = copy.read().segments[1].info.key.clone();
    let (_work, copy) = archive(&segments, &[superseded(&key, 15, 20)]);
    let compared = compare(&log(), &copy.read());
    compared.assert_equal();
    assert_eq!(compared.superseded[&("t".to_owned(), 0)].len(), 2);

    let (_work, copy) = archive(&segments, &[superseded(&key, 15, 18)]);
    let found = wrong(&copy);
    assert!(
        found.iter().any(|each| matches!(each, Wrong::HalfSuperseded(..))),
        "{found:?}"
    );
}

#[test]
fn a_record_that_the_log_has_is_not_absent() {
    let absent = Entry::Absent(Absence {
        topic: "t".to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 0,
        first_offset: 9,
        last_offset: 17,
        reason: AbsenceReason::Compacted,
        at_ms: 1,
        evidence: Default::default(),
    });
    let (_work, copy) = archive(&[(Origin::Tee, log_batches()[..3].to_vec())], &[absent]);
    assert_eq!(
        wrong(&copy),
        [
            Wrong::Missing(range(9, 17)),
            Wrong::WronglyAbsent(range(9, 11), "compacted")
        ]
    );
}

#[test]
fn damaged_objects_are_named() {
    let named = |copy: &ArchiveCopy, part: &str| {
        let compared = compare(&log(), &copy.read());
        assert!(
            compared.damage.iter().any(|text| text.contains(part)) && !compared.findings.is_empty(),
            "{compared:?}"
        );
    };
    let (_work, copy) = whole();
    let key = copy.read().segments[1].info.key.clone();
    fs::remove_file(copy.path(&key)).unwrap();
    named(&copy, &key);

    let (_work, copy) = whole();
    ArchiveCopy::flip(&copy.path(&key), 30);
    named(&copy, &key);

    let (_work, copy) = whole();
    copy.edit_entries(|entry| {
        if let Entry::Segment(info) = entry {
            info.record_count += 1;
        }
    });
    named(&copy, &key);

    let (_work, copy) = whole();
    let commit = &copy.commits()[0];
    ArchiveCopy::flip(commit, 60);
    named(&copy, "commit");
}

#[test]
fn a_partition_that_the_ledger_does_not_know_is_found() {
    let (_work, copy) = archive(&[], &[]);
    assert_eq!(wrong(&copy), [Wrong::Unknown]);
}
