#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use teeline_archive::ids::WriterId;
use teeline_archive::ledger::{Absence, AbsenceEvidence, Entry};
use teeline_archive::segment::Origin;
use uuid::Uuid;

use super::*;
use crate::audit::judge::tests::{Book, ID, TOPIC, range, segment};
use crate::audit::upstream::Bounds;

/// As after a verdict on [`book`]: below the log's start everything is explained, and what is compacted.
fn report(topic: &str, high_watermark: i64) -> PartitionReport {
    PartitionReport {
        topic: topic.into(),
        start: 0,
        bounds: Bounds {
            log_start: 5,
            high_watermark,
            leader_epoch: 0,
        },
        demanded_to: 90,
        wanted: 0,
        lag: 25,
        held: 0,
        explained: [range(0, 69)].into_iter().collect(),
        awaiting: 0,
    }
}

fn round(partitions: BTreeMap<PartitionId, PartitionReport>) -> Round {
    Round {
        partitions,
        ..Round::default()
    }
}

fn compacted(first_offset: i64, last_offset: i64) -> Entry {
    Entry::Absent(Absence {
        topic: TOPIC.to_owned(),
        incarnation: ID.incarnation,
        partition: ID.partition,
        first_offset,
        last_offset,
        reason: AbsenceReason::Compacted,
        at_ms: 1,
        evidence: AbsenceEvidence::NONE,
    })
}

/// Held: 10 to 69. Deleted: 0 to 4. Compacted: 5 to 9. Below 90, not held: 70 to 89. Younger: 90 to 99.
fn book() -> Book {
    let mut book = Book::default();
    let entries = vec![
        Entry::Segment(segment(WriterId(5), 0, Origin::Tee, range(10, 69), 0)),
        compacted(5, 12),
    ];
    book.commit(WriterId(5), entries);
    book
}

#[test]
fn what_is_not_held_is_counted_once_by_its_reason() {
    let covered = cover(&report(TOPIC, 100), book().partition());
    assert_eq!((covered.from, covered.to), (Some(10), Some(69)));
    assert_eq!(
        (covered.high_watermark, covered.lag, covered.wanted),
        (100, 25, 100)
    );
    let expected = [("compacted", 5), ("deleted", 5), (NOT_YET, 10), (UNEXPLAINED, 20)];
    assert_eq!(covered.missing, BTreeMap::from(expected));
    assert_eq!(covered.percent(), 70.0);
}

#[test]
fn what_the_verdict_does_not_explain_is_open_whatever_the_ledger_says() {
    let mut book = book();
    let cut = |reason| Absence {
        topic: TOPIC.to_owned(),
        incarnation: ID.incarnation,
        partition: ID.partition,
        first_offset: 70,
        last_offset: 99,
        reason,
        at_ms: 2,
        evidence: AbsenceEvidence::NONE,
    };
    let reasons = [
        AbsenceReason::NotWanted,
        AbsenceReason::Compacted,
        AbsenceReason::SourceLost,
    ];
    let entries = reasons.map(|reason| Entry::Absent(cut(reason)));
    book.commit(WriterId(5), entries.to_vec());
    let covered = cover(&report(TOPIC, 100), book.partition());
    assert_eq!(covered.missing.get(UNEXPLAINED), Some(&20));
    assert_eq!(covered.percent(), 70.0);
    let doubted = PartitionReport {
        awaiting: 10,
        ..report(TOPIC, 100)
    };
    assert_eq!(cover(&doubted, book.partition()).percent(), 60.0);
}

#[test]
fn a_hundred_percent_means_all() {
    let mut covered = Covered {
        wanted: 1_000_000,
        ..Covered::default()
    };
    assert_eq!(covered.percent(), 100.0);
    covered.missing.insert(UNEXPLAINED, 1);
    assert_eq!(covered.percent(), 99.99);
    assert_eq!(
        cover(&report(TOPIC, 0), None).percent(),
        100.0,
        "an empty log is held"
    );
}

#[test]
fn beyond_the_limit_there_are_series_by_topic_and_then_totals() {
    let mut partitions = BTreeMap::new();
    for (number, topic) in [(0, TOPIC), (1, TOPIC), (2, "payments")] {
        let id = PartitionId {
            incarnation: if topic == TOPIC {
                ID.incarnation
            } else {
                Uuid::from_u128(9)
            },
            partition: number,
        };
        partitions.insert(id, report(topic, 100));
    }
    let book = book();
    let labels = |max: usize| {
        let mut coverage = Coverage::new("a test", max);
        coverage.show(&book.state, &round(partitions.clone()));
        let lags = coverage.series();
        let lags = lags.iter().filter(|series| series.metric.name == LAG.name);
        lags.map(|series| {
            let labels: Vec<&str> = series.labels.iter().skip(1).map(|(_, value)| &**value).collect();
            (labels.join(" "), series.value)
        })
        .collect::<Vec<_>>()
    };
    let line = |labels: &str, value: f64| (labels.to_owned(), value);
    let mut each = labels(3);
    each.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        each,
        [
            line("orders 0", 25.0),
            line("orders 1", 25.0),
            line("payments 2", 25.0)
        ]
    );
    assert_eq!(labels(2), [line("orders", 50.0), line("payments", 25.0)]);
    assert_eq!(labels(1), [line("", 75.0)]);
}

#[test]
fn a_partition_is_looked_at_again_when_its_ledger_or_its_log_moved() {
    let mut coverage = Coverage::new("another test", 10);
    let mut partitions = BTreeMap::from([(ID, report(TOPIC, 100))]);
    let mut book = book();
    coverage.show(&book.state, &round(partitions.clone()));
    let more = segment(WriterId(5), 1, Origin::Tee, range(70, 89), 0);
    book.commit(WriterId(5), vec![Entry::Segment(more)]);
    coverage.show(&book.state, &round(partitions.clone()));
    assert_eq!(coverage.known[&ID].1.to, Some(89));
    partitions.insert(ID, report(TOPIC, 200));
    coverage.show(&book.state, &round(partitions.clone()));
    assert_eq!(coverage.known[&ID].1.wanted, 200);
    coverage.show(&book.state, &round(BTreeMap::new()));
    assert_eq!(
        coverage.known[&ID].1.wanted, 200,
        "a partition without a leader keeps its holes"
    );
    let gone = Round {
        missing: vec![(TOPIC.into(), Silence::Gone)],
        ..Round::default()
    };
    coverage.show(&book.state, &gone);
    assert!(
        coverage.known.is_empty() && coverage.series().len() <= 2,
        "only totals of nothing, or nothing"
    );
}
