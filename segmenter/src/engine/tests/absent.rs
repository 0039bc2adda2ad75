//! What the ledger says is absent, and what a log that was cut back has there again.

use super::holes::{OTHER, commit_of, ledger_of, segment};
use super::*;
use teeline_archive::OffsetRange;
use teeline_archive::ledger::{AbsenceEvidence, AbsenceReason, Superseded};

const ID: PartitionId = PartitionId {
    incarnation: TOPIC,
    partition: 0,
};

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn absence(first_offset: i64, last_offset: i64, reason: AbsenceReason, at_ms: i64) -> Entry {
    Entry::Absent(Absence {
        topic: "orders".to_owned(),
        incarnation: TOPIC,
        partition: 0,
        first_offset,
        last_offset,
        reason,
        at_ms,
        evidence: AbsenceEvidence::NONE,
    })
}

/// A run that begins with this ledger, or that learns of it when it has begun.
fn feed_with(ledger: &LedgerState, is_news: bool) -> Feed {
    let mut feed = Feed::new(true);
    if is_news {
        let listed = ledger_of(OTHER, -600_000, vec![Entry::Segment(segment(OTHER, 0, 79))]);
        feed.engine = Engine::new(feed.engine.settings.clone(), &listed, None);
        feed.engine.reload(ledger);
    } else {
        feed.engine = Engine::new(feed.engine.settings.clone(), ledger, None);
    }
    feed.engine.on_session_start(SessionId(1), 0);
    feed.catalog(TOPIC);
    feed
}

/// An acknowledged batch of 20 records whose outcome was lost; the log has grown over its offsets since.
fn doubt(feed: &mut Feed) -> BufferPosition {
    let intent = feed.intent(by_id(), Bytes::from(labelled_batch(0, 20, "in doubt")));
    feed.engine.on_session_start(SessionId(2), 0);
    feed.now_ms = 40_000;
    let found = Answer::Found {
        incarnation: TOPIC,
        log_start: 0,
        end: 100,
        stable_end: 100,
    };
    feed.survey(feed.now_ms, &found);
    feed.engine.poll(feed.now_ms);
    intent
}

#[test]
fn a_batch_in_doubt_where_the_log_was_cut_back_is_fetched_before_it_is_let_go() {
    for reason in [AbsenceReason::Truncated, AbsenceReason::Compacted] {
        for is_news in [false, true] {
            let mut ledger = ledger_of(OTHER, -600_000, vec![Entry::Segment(segment(OTHER, 0, 79))]);
            let entries = vec![absence(80, 99, reason, -1)];
            ledger.apply(&commit_of(WriterId::AUDITOR, 0, entries)).unwrap();
            let mut feed = feed_with(&ledger, is_news);
            let intent = doubt(&mut feed);
            // Said again it is no news.
            feed.engine.reload(&ledger);
            feed.engine.poll(feed.now_ms);
            feed.engine.settle(feed.now_ms);
            assert!(feed.engine.archived().is_none_or(|archived| archived < intent));
            feed.engine.poll(feed.now_ms + 40_000);
            let plan = feed.engine.take_fetch(feed.now_ms + 40_000).unwrap();
            assert_eq!(plan.ranges.last().unwrap().last, 99);
            assert!(plan.ranges.iter().any(|asked| asked.contains(80)));
        }
    }
}

#[test]
fn only_what_lasts_is_believed() {
    for (reason, is_believed) in [
        (AbsenceReason::Compacted, true),
        (AbsenceReason::Deleted, true),
        (AbsenceReason::SourceLost, false),
        (AbsenceReason::Truncated, false),
        (AbsenceReason::NotAuditable, false),
        (AbsenceReason::NotWanted, false),
        (AbsenceReason::Unknown(9), false),
    ] {
        let ledger = ledger_of(
            OTHER,
            0,
            vec![
                Entry::Segment(segment(OTHER, 0, 79)),
                absence(80, 99, reason, 1),
                Entry::SourceLost { at_ms: 0 },
            ],
        );
        for is_news in [false, true] {
            let feed = feed_with(&ledger, is_news);
            let partition = &feed.engine.partitions[&ID];
            assert_eq!(
                partition.not_absent(range(80, 99)).is_empty(),
                is_believed,
                "{reason:?}"
            );
        }
        let mut settings = Feed::new(false).engine.settings;
        settings.has_source = false;
        let lost = Engine::new(settings, &ledger, None);
        let is_believed = is_believed || reason == AbsenceReason::SourceLost;
        assert_eq!(
            lost.partitions[&ID].not_absent(range(80, 99)).is_empty(),
            is_believed
        );
    }
}

#[test]
fn an_absence_counts_behind_a_cut_only_if_it_was_found_since() {
    let cut = segment(OTHER, 0, 79);
    let superseded = Entry::Superseded(Superseded {
        topic: "orders".to_owned(),
        incarnation: TOPIC,
        partition: 0,
        segment: cut.key.clone(),
        first_offset: 70,
        last_offset: 79,
        leader_epoch: 4,
        end_offset: 70,
        at_ms: 5,
        same: false,
    });
    for news in [superseded, absence(70, 79, AbsenceReason::Truncated, 5)] {
        let mut ledger = ledger_of(
            OTHER,
            0,
            vec![
                Entry::Segment(cut.clone()),
                absence(60, 74, AbsenceReason::Compacted, 4),
                absence(80, 84, AbsenceReason::Compacted, 5),
            ],
        );
        let mut feed = feed_with(&ledger, false);
        assert!(feed.engine.partitions[&ID].not_absent(range(80, 84)).is_empty());
        let audit = vec![news, absence(90, 94, AbsenceReason::Compacted, 6)];
        ledger.apply(&commit_of(WriterId::AUDITOR, 0, audit)).unwrap();
        feed.engine.reload(&ledger);
        let begun = feed_with(&ledger, false);
        for engine in [&mut feed.engine, &mut { begun }.engine] {
            engine.reload(&ledger);
            let partition = &engine.partitions[&ID];
            assert!(partition.not_absent(range(60, 69)).is_empty());
            assert!(
                !partition.not_absent(range(70, 70)).is_empty()
                    && !partition.not_absent(range(80, 80)).is_empty()
            );
            assert!(partition.not_absent(range(90, 94)).is_empty());
        }
    }
}
