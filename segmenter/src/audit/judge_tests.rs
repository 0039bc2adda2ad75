#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::ledger::{Commit, Entry, LedgerState, PartitionAudit};
use teeline_archive::segment::{Codec, Origin, SegmentIdentity};
use uuid::Uuid;

use super::*;
use crate::partition::PartitionId;

pub(crate) const TOPIC: &str = "orders";
pub(crate) const ID: PartitionId = PartitionId {
    incarnation: Uuid::from_u128(7),
    partition: 0,
};
const TEE: WriterId = WriterId(5);

pub(crate) fn partition() -> LogPartition {
    LogPartition {
        topic: Arc::from(TOPIC),
        id: ID,
    }
}

pub(crate) fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

/// A segment of one leader epoch.
pub(crate) fn segment(
    writer: WriterId,
    counter: u32,
    origin: Origin,
    span: OffsetRange,
    epoch: i32,
) -> SegmentInfo {
    let identity = SegmentIdentity {
        backup_id: "backup".to_owned(),
        cluster_id: "cluster".to_owned(),
        topic: TOPIC.to_owned(),
        incarnation: ID.incarnation,
        partition: ID.partition,
        writer,
        session: SessionId(1),
        counter,
        origin,
        created_at_ms: 0,
    };
    SegmentInfo {
        key: identity.key(span.first, Codec::Zstd).unwrap(),
        identity,
        codec: Codec::Zstd,
        start_offset: span.first,
        end_offset: span.last,
        gaps: Vec::new(),
        timestamp_min: 0,
        timestamp_max: 0,
        record_count: span.span(),
        batch_count: 1,
        control_count: 0,
        transactional_count: 0,
        undecided_first_offset: -1,
        undecided: Vec::new(),
        object_bytes: 100,
        uncompressed_bytes: 100,
        footer_crc32c: 0,
        leader_epoch_first: epoch,
        leader_epoch_last: epoch,
        lsn_range: None,
        quarantined: false,
    }
}

/// A ledger, commit by commit.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) state: LedgerState,
}

impl Book {
    pub(crate) fn commit(&mut self, writer: WriterId, entries: Vec<Entry>) {
        let commit = Commit {
            backup_id: "backup".to_owned(),
            cluster_id: "cluster".to_owned(),
            writer,
            seq: self.state.next_seq(writer),
            nonce: 1,
            created_at_ms: 1,
            program: "test".to_owned(),
            entries,
        };
        self.state.apply(&commit).unwrap();
    }

    pub(crate) fn partition(&self) -> Option<&PartitionState> {
        self.state.partition(TOPIC, ID.incarnation, ID.partition)
    }

    fn tee(segments: &[(i64, i64, i32)]) -> Book {
        let mut book = Book::default();
        let entries = segments
            .iter()
            .enumerate()
            .map(|(n, &(first, last, epoch))| {
                Entry::Segment(segment(TEE, n as u32, Origin::Tee, range(first, last), epoch))
            })
            .collect();
        book.commit(TEE, entries);
        book
    }

    fn audited(mut self, high_watermark: i64, leader_epoch: i32) -> Book {
        self.commit(
            WriterId::AUDITOR,
            vec![Entry::Audit(PartitionAudit {
                topic: TOPIC.to_owned(),
                incarnation: ID.incarnation,
                partition: ID.partition,
                at_ms: 1,
                start_offset: 0,
                log_start_offset: 0,
                high_watermark,
                leader_epoch,
                epochs: Vec::new(),
            })],
        );
        self
    }
}

fn bounds(log_start: i64, high_watermark: i64, leader_epoch: i32) -> Bounds {
    Bounds {
        log_start,
        high_watermark,
        leader_epoch,
    }
}

fn verdict_of(book: &Book, bounds: Bounds, ends: &[(i32, i32, i64)]) -> Option<Verdict> {
    let partition = partition();
    let ends = ends
        .iter()
        .map(|&(asked, leader_epoch, end_offset)| {
            (
                asked,
                EpochAnswer {
                    leader_epoch,
                    end_offset,
                },
            )
        })
        .collect();
    judge(&Case {
        partition: &partition,
        state: book.partition(),
        bounds,
        ends: &ends,
        start: 0,
        demanded_to: bounds.high_watermark,
        cleanup_policy: "delete",
        now_ms: 9,
    })
}

fn lost(verdict: &Verdict) -> Vec<OffsetRange> {
    verdict.superseded.iter().map(Superseded::range).collect()
}

#[test]
fn what_nobody_holds_is_wanted_and_what_is_deleted_is_explained() {
    let book = Book::tee(&[(20, 29, 0), (40, 49, 0)]);
    let verdict = verdict_of(&book, bounds(10, 60, 0), &[]).unwrap();
    assert_eq!(verdict.wanted, [range(10, 19), range(30, 39), range(50, 59)]);
    let gone: Vec<_> = verdict
        .absences
        .iter()
        .map(|absence| (absence.range(), absence.reason, absence.evidence.log_start_offset))
        .collect();
    assert_eq!(gone, [(range(0, 9), AbsenceReason::Deleted, 10)]);
    assert!(verdict.superseded.is_empty() && verdict.doubts.is_empty());
}

#[test]
fn a_partition_that_nobody_captured_is_wanted_as_a_whole() {
    let verdict = verdict_of(&Book::default(), bounds(0, 100, 3), &[]).unwrap();
    assert_eq!(verdict.wanted, [range(0, 99)]);
}

#[test]
fn what_a_new_leader_does_not_have_is_superseded_and_its_offsets_are_wanted() {
    let book = Book::tee(&[(0, 49, 2), (50, 99, 2)]);
    assert_eq!(
        epochs_in_question(book.partition().unwrap(), 5),
        BTreeSet::from([2])
    );
    let verdict = verdict_of(&book, bounds(0, 120, 5), &[(2, 2, 60)]).unwrap();
    assert_eq!(lost(&verdict), [range(60, 99)]);
    assert_eq!(
        (
            verdict.superseded[0].leader_epoch,
            verdict.superseded[0].end_offset
        ),
        (2, 60)
    );
    assert_eq!(verdict.wanted, [range(60, 119)]);
    assert_eq!(verdict.held.ranges(), [range(0, 59)]);
}

#[test]
fn what_the_current_leader_wrote_is_certain_whatever_lies_beyond_the_high_watermark() {
    let book = Book::tee(&[(0, 99, 5)]);
    let verdict = verdict_of(&book, bounds(0, 80, 5), &[]).unwrap();
    assert!(verdict.superseded.is_empty() && verdict.wanted.is_empty());
    assert_eq!(verdict.held.ranges(), [range(0, 99)]);
}

#[test]
fn an_epoch_that_the_leader_does_not_know_leaves_no_certainty_below_its_end_either() {
    // The leader's log goes on from epoch 3 with its own; epochs 4 and 5 of others are not in it.
    let mut book = Book::tee(&[(0, 19, 3), (20, 50, 5)]);
    let verdict = verdict_of(&book, bounds(0, 60, 6), &[(3, 3, 40), (5, 3, 40)]).unwrap();
    assert_eq!(lost(&verdict), [range(40, 50)]);
    assert_eq!(
        verdict.wanted,
        [range(20, 59)],
        "what is in doubt is fetched again"
    );
    assert!(
        verdict.doubts.is_empty(),
        "there is nothing yet to compare it with"
    );
    let fetched = segment(WriterId::AUDITOR, 0, Origin::Fetch, range(20, 59), 6);
    book.commit(
        WriterId::AUDITOR,
        verdict
            .superseded
            .into_iter()
            .map(Entry::Superseded)
            .chain([Entry::Segment(fetched.clone())])
            .collect(),
    );
    let verdict = verdict_of(&book, bounds(0, 60, 6), &[(3, 3, 40), (5, 3, 40)]).unwrap();
    assert!(verdict.wanted.is_empty() && verdict.superseded.is_empty());
    assert_eq!(verdict.doubts.len(), 1);
    assert_eq!(verdict.doubts[0].ranges.ranges(), [range(20, 39)]);
    assert_eq!(verdict.doubts[0].sure[0].0.key, fetched.key);
}

#[test]
fn an_unknown_epoch_is_in_doubt_once_the_leader_has_changed() {
    let book = Book::tee(&[(0, 99, -1)]);
    let first = verdict_of(&book, bounds(0, 100, 0), &[]).unwrap();
    assert!(first.wanted.is_empty(), "there was one leader only");
    let later = verdict_of(&book, bounds(0, 100, 1), &[]).unwrap();
    assert_eq!(later.wanted, [range(0, 99)]);
    assert!(later.superseded.is_empty(), "nothing is superseded on suspicion");
    assert_eq!(later.held.ranges(), [range(0, 99)]);
}

#[test]
fn what_another_segment_has_too_is_in_doubt_no_more() {
    let mut book = Book::tee(&[(0, 99, -1)]);
    let copied = book.partition().unwrap().segments()[0].clone();
    let entries = vec![
        Entry::Segment(segment(WriterId::AUDITOR, 0, Origin::Fetch, range(0, 99), 1)),
        Entry::Superseded(Superseded {
            topic: TOPIC.to_owned(),
            incarnation: ID.incarnation,
            partition: ID.partition,
            segment: copied.key,
            first_offset: 0,
            last_offset: 99,
            leader_epoch: -1,
            end_offset: -1,
            at_ms: 1,
            same: true,
        }),
    ];
    book.commit(WriterId::AUDITOR, entries);
    let verdict = verdict_of(&book, bounds(0, 100, 1), &[]).unwrap();
    assert!(verdict.wanted.is_empty() && verdict.doubts.is_empty());
    let cut = verdict_of(&book, bounds(0, 90, 2), &[(1, 1, 80)]).unwrap();
    assert_eq!(
        cut.wanted,
        [range(80, 89)],
        "the copy's epoch decides, also for the original"
    );
}

#[test]
fn an_end_that_the_leader_cannot_tell_changes_nothing() {
    let book = Book::tee(&[(0, 99, 1)]);
    let verdict = verdict_of(&book, bounds(50, 200, 9), &[(1, -1, -1)]).unwrap();
    assert!(verdict.superseded.is_empty());
    assert_eq!(verdict.wanted, [range(100, 199)]);
}

#[test]
fn an_end_that_was_not_answered_puts_the_partition_off() {
    let book = Book::tee(&[(0, 99, 1)]);
    assert_eq!(verdict_of(&book, bounds(0, 200, 9), &[]), None);
}

#[test]
fn a_survey_older_than_the_ledger_puts_the_partition_off() {
    let book = Book::tee(&[(0, 99, 4)]);
    assert_eq!(verdict_of(&book, bounds(0, 100, 3), &[]), None);
}

#[test]
fn what_was_empty_may_be_written_after_a_truncation() {
    let mut book = Book::tee(&[(0, 9, 1)]);
    let mut absence = Absence {
        topic: TOPIC.to_owned(),
        incarnation: ID.incarnation,
        partition: ID.partition,
        first_offset: 10,
        last_offset: 19,
        reason: AbsenceReason::Compacted,
        at_ms: 1,
        evidence: AbsenceEvidence {
            log_start_offset: 0,
            leader_epoch: 1,
            cleanup_policy: "compact".to_owned(),
        },
    };
    book.commit(WriterId::AUDITOR, vec![Entry::Absent(absence.clone())]);
    let same_leader = verdict_of(&book, bounds(0, 20, 1), &[]).unwrap();
    assert!(same_leader.wanted.is_empty());
    let later = verdict_of(&book, bounds(0, 20, 2), &[(1, 1, 20)]).unwrap();
    assert!(later.wanted.is_empty(), "the log was not cut back");
    let cut = verdict_of(&book, bounds(0, 20, 2), &[(1, 1, 15)]).unwrap();
    assert_eq!(cut.wanted, [range(15, 19)]);
    // What an engine wrote names no epoch.
    absence.evidence = AbsenceEvidence::NONE;
    let mut book = Book::tee(&[(0, 9, 1)]);
    book.commit(TEE, vec![Entry::Absent(absence)]);
    let unknown = verdict_of(&book, bounds(0, 20, 2), &[(1, 1, 20)]).unwrap();
    assert_eq!(unknown.wanted, [range(10, 19)]);
}

#[test]
fn reasons_that_lie_with_us_do_not_keep_an_offset_from_being_fetched() {
    for reason in [
        AbsenceReason::NotWanted,
        AbsenceReason::NotAuditable,
        AbsenceReason::Truncated,
        // Of a log that answers and begins with 0.
        AbsenceReason::Deleted,
        AbsenceReason::SourceLost,
    ] {
        let mut book = Book::default();
        let absence = Absence {
            topic: TOPIC.to_owned(),
            incarnation: ID.incarnation,
            partition: ID.partition,
            first_offset: 0,
            last_offset: 99,
            reason,
            at_ms: 1,
            evidence: AbsenceEvidence::NONE,
        };
        book.commit(WriterId::AUDITOR, vec![Entry::Absent(absence)]);
        let verdict = verdict_of(&book, bounds(0, 100, 1), &[]).unwrap();
        assert_eq!(verdict.wanted, [range(0, 99)], "{reason:?}");
    }
}

#[test]
fn offsets_that_were_seen_and_lost_before_anybody_held_them_are_said_to_be_truncated() {
    let book = Book::tee(&[(0, 69, 1)]).audited(100, 1);
    assert_eq!(
        epochs_in_question(book.partition().unwrap(), 2),
        BTreeSet::from([1])
    );
    let verdict = verdict_of(&book, bounds(0, 60, 2), &[(1, 1, 60)]).unwrap();
    assert_eq!(lost(&verdict), [range(60, 69)]);
    let truncated: Vec<_> = verdict
        .absences
        .iter()
        .map(|absence| (absence.range(), absence.reason))
        .collect();
    assert_eq!(truncated, [(range(60, 99), AbsenceReason::Truncated)]);
}

#[test]
fn a_segment_that_starts_below_the_log_and_is_in_doubt_is_compared_as_far_as_the_log_reaches() {
    let mut book = Book::tee(&[(0, 99, -1)]);
    book.commit(
        WriterId::AUDITOR,
        vec![Entry::Segment(segment(
            WriterId::AUDITOR,
            0,
            Origin::Fetch,
            range(30, 99),
            4,
        ))],
    );
    let verdict = verdict_of(&book, bounds(30, 100, 4), &[]).unwrap();
    assert!(verdict.wanted.is_empty());
    assert_eq!(verdict.doubts[0].ranges.ranges(), [range(30, 99)]);
}
