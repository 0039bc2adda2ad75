//! What is missing, and who fetches it.

use super::*;
use teeline_archive::ledger::{Commit, Superseded};
use teeline_archive::segment::{Codec, Origin, SegmentIdentity};

#[test]
fn a_hole_is_fetched_after_its_grace_and_the_fetch_backs_off() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    feed.written(by_id(), 0);
    feed.written(by_id(), 50);
    feed.engine.poll(0);
    assert!(feed.engine.take_fetch(29_999).is_none());
    let plan = feed.engine.take_fetch(30_000).unwrap();
    assert_eq!(plan.ranges, [teeline_archive::OffsetRange { first: 5, last: 49 }]);
    assert!(
        feed.engine.take_fetch(30_000).is_none(),
        "one fetch per partition"
    );
    let error = crate::fetching::FetchError::Source {
        topic: Arc::from("orders"),
        partition: 0,
        offset: 5,
        source: crate::source::SourceError::OutOfRange { log_start: 0, end: 0 },
    };
    let failed = crate::fetching::Fetched {
        error: Some(error),
        ..Default::default()
    };
    feed.engine.on_fetched(plan.id, &plan.ranges, failed, 30_000);
    feed.engine.poll(30_000);
    assert!(
        feed.engine.take_fetch(30_500).is_none(),
        "the source gets a pause"
    );
    assert!(feed.engine.take_fetch(31_000).is_some());
    assert_eq!(feed.engine.source_failures(), 1);
}

#[test]
fn a_session_that_was_not_closed_makes_the_ends_of_quiet_partitions_suspect() {
    for is_closed in [true, false] {
        let mut feed = Feed::new(true);
        feed.catalog(TOPIC);
        feed.written(by_id(), 0);
        if is_closed {
            feed.frame(Frame::SessionClosed { at_ms: 0 });
        }
        feed.engine.on_session_start(SessionId(2), 0);
        assert_eq!(feed.engine.suspects(), usize::from(!is_closed));
        let found = Answer::Found {
            incarnation: TOPIC,
            log_start: 0,
            end: 9,
            stable_end: 9,
        };
        assert_eq!(feed.survey(1_000, &found), usize::from(!is_closed));
        feed.engine.poll(1_000);
        assert_eq!(feed.engine.suspects(), 0);
        assert_eq!(feed.engine.missing_offsets(), if is_closed { 0 } else { 4 });
    }
}

#[test]
fn a_suspect_partition_that_is_gone_is_not_waited_for() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    feed.written(by_id(), 0);
    feed.engine.on_session_start(SessionId(2), 0);
    for now_ms in [1_000, 2_000 + 30_000] {
        feed.survey(now_ms, &Answer::Gone);
        assert_eq!(feed.engine.suspects(), 0);
    }
    assert!(feed.engine.take_survey(90_000).is_none());
}

#[test]
fn partitions_are_fetched_in_turn() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    for partition in 0..6 {
        let id = PartitionId {
            incarnation: TOPIC,
            partition,
        };
        let range = teeline_archive::OffsetRange { first: 0, last: 9 };
        feed.engine
            .partition(id, &Arc::from("orders"))
            .demand_urgently(range);
        feed.engine.dirty.insert(id);
    }
    feed.engine.poll(0);
    feed.engine.drain(false, 0);
    let mut now_ms = 0;
    let mut asked = Vec::new();
    for _ in 0..6 {
        let plan = feed.engine.take_fetch(now_ms).unwrap();
        asked.push(plan.id.partition);
        let failed = crate::fetching::Fetched {
            error: Some(crate::fetching::FetchError::Source {
                topic: plan.topic,
                partition: plan.id.partition,
                offset: 0,
                source: crate::source::SourceError::OutOfRange { log_start: 0, end: 0 },
            }),
            ..Default::default()
        };
        feed.engine.on_fetched(plan.id, &plan.ranges, failed, now_ms);
        now_ms += 60_000;
        feed.engine.poll(now_ms);
    }
    assert_eq!(asked, [0, 1, 2, 3, 4, 5]);
}

pub(super) const OTHER: WriterId = WriterId(2);

pub(super) fn commit_of(writer: WriterId, at_ms: i64, entries: Vec<Entry>) -> Commit {
    Commit {
        backup_id: "backup".to_owned(),
        cluster_id: CLUSTER.to_owned(),
        writer,
        seq: 1,
        nonce: 1,
        created_at_ms: at_ms,
        program: String::new(),
        entries,
    }
}

/// A ledger with one commit of this writer.
pub(super) fn ledger_of(writer: WriterId, at_ms: i64, entries: Vec<Entry>) -> LedgerState {
    let mut ledger = LedgerState::new();
    ledger.apply(&commit_of(writer, at_ms, entries)).unwrap();
    ledger
}

pub(super) fn segment(writer: WriterId, first: i64, last: i64) -> SegmentInfo {
    let identity = SegmentIdentity {
        backup_id: "backup".to_owned(),
        cluster_id: CLUSTER.to_owned(),
        topic: "orders".to_owned(),
        incarnation: TOPIC,
        partition: 0,
        writer,
        session: SessionId(1),
        counter: 1,
        origin: Origin::Tee,
        created_at_ms: 0,
    };
    SegmentInfo {
        key: identity.key(first, Codec::Zstd).unwrap(),
        identity,
        codec: Codec::Zstd,
        start_offset: first,
        end_offset: last,
        gaps: Vec::new(),
        timestamp_min: 0,
        timestamp_max: 0,
        record_count: 1,
        batch_count: 1,
        control_count: 0,
        transactional_count: 0,
        undecided_first_offset: -1,
        undecided: Vec::new(),
        object_bytes: 100,
        uncompressed_bytes: 60,
        footer_crc32c: 0,
        leader_epoch_first: 4,
        leader_epoch_last: 4,
        lsn_range: None,
        quarantined: false,
    }
}

/// Offsets 0 to 4 and 50 to 54 are held.
fn with_a_hole(has_auditor: bool) -> Feed {
    let mut feed = Feed::new(true);
    feed.engine.settings.has_auditor = has_auditor;
    feed.catalog(TOPIC);
    feed.written(by_id(), 0);
    feed.written(by_id(), 50);
    feed.engine.poll(0);
    feed
}

#[test]
fn with_other_writers_at_work_a_hole_is_left_to_the_auditor() {
    for (has_auditor, at_ms, leaves) in [(true, 0, true), (false, 0, false), (true, -600_000, false)] {
        let mut feed = with_a_hole(has_auditor);
        feed.engine.reload(&ledger_of(OTHER, at_ms, Vec::new()));
        feed.engine.poll(30_000);
        assert_eq!(feed.engine.take_fetch(30_000).is_none(), leaves);
        let (own, left) = (feed.engine.missing_offsets(), feed.engine.left_offsets());
        assert_eq!((own, left), if leaves { (0, 45) } else { (45, 0) });
    }
    let mut alone = with_a_hole(true);
    alone.engine.reload(&ledger_of(WriterId::AUDITOR, 0, Vec::new()));
    alone.engine.poll(30_000);
    assert!(
        alone.engine.take_fetch(30_000).is_some(),
        "the auditor captures nothing"
    );
}

#[test]
fn what_somebody_waits_for_is_fetched_whoever_else_is_there() {
    let mut feed = with_a_hole(true);
    feed.engine.reload(&ledger_of(OTHER, 0, Vec::new()));
    let id = *feed.engine.partitions.keys().next().unwrap();
    let range = |first, last| teeline_archive::OffsetRange { first, last };
    feed.engine
        .partition(id, &Arc::from("orders"))
        .demand_urgently(range(20, 29));
    feed.engine.dirty.insert(id);
    feed.engine.poll(1_000);
    assert_eq!(
        (feed.engine.missing_offsets(), feed.engine.left_offsets()),
        (10, 35)
    );
    let plan = feed.engine.take_fetch(1_000).unwrap();
    assert_eq!(plan.ranges, [range(20, 29)]);
}

#[test]
fn what_others_committed_is_no_hole_and_what_was_superseded_is_one() {
    let mut feed = with_a_hole(true);
    let other = segment(OTHER, 5, 49);
    let mut ledger = ledger_of(OTHER, -600_000, vec![Entry::Segment(other.clone())]);
    feed.engine.reload(&ledger);
    feed.engine.poll(0);
    assert_eq!(
        (feed.engine.missing_offsets(), feed.engine.left_offsets()),
        (0, 0)
    );
    let superseded = Superseded {
        topic: "orders".to_owned(),
        incarnation: TOPIC,
        partition: 0,
        segment: other.key,
        first_offset: 40,
        last_offset: 49,
        leader_epoch: 4,
        end_offset: 40,
        at_ms: 0,
        same: false,
    };
    let audit = commit_of(WriterId::AUDITOR, 0, vec![Entry::Superseded(superseded)]);
    ledger.apply(&audit).unwrap();
    feed.engine.reload(&ledger);
    feed.engine.poll(0);
    assert_eq!(feed.engine.missing_offsets(), 10);
}

#[test]
fn what_is_on_its_way_into_the_ledger_is_not_fetched_again_because_another_copy_was_superseded() {
    let mut feed = with_a_hole(true);
    let other = segment(OTHER, 0, 49);
    let mut ledger = ledger_of(OTHER, -600_000, vec![Entry::Segment(other.clone())]);
    feed.engine.reload(&ledger);
    feed.engine.drain(false, 0);
    // Offsets 0 to 4, and 50 to 54, captured here; under way when the ledger is read again.
    let plans = feed.uploads();
    assert!(!plans.is_empty());
    let superseded = Superseded {
        topic: "orders".to_owned(),
        incarnation: TOPIC,
        partition: 0,
        segment: other.key,
        first_offset: 0,
        last_offset: 49,
        leader_epoch: 4,
        end_offset: 0,
        at_ms: 0,
        same: false,
    };
    let audit = commit_of(WriterId::AUDITOR, 0, vec![Entry::Superseded(superseded)]);
    ledger.apply(&audit).unwrap();
    feed.engine.reload(&ledger);
    feed.engine.poll(0);
    let plan = feed.engine.take_fetch(0).unwrap();
    assert_eq!(plan.ranges, [OffsetRange { first: 5, last: 49 }]);
}

#[test]
fn what_was_fetched_is_called_so_whatever_it_leaves_out() {
    let mut feed = with_a_hole(true);
    feed.engine.poll(30_000);
    let plan = feed.engine.take_fetch(30_000).unwrap();
    let batch = |base: i64| {
        let mut bytes = labelled_batch(base, 5, "fetched");
        teeline_wire::batch::set_base_offset_and_epoch(&mut bytes, base, 4).unwrap();
        let bytes = Bytes::from(bytes);
        let header = teeline_wire::batch::BatchHeader::parse(&bytes).unwrap();
        crate::batch::FetchedBatch {
            header,
            ends: None,
            bytes,
        }
    };
    let range = |first, last| OffsetRange { first, last };
    let fetched = crate::fetching::Fetched {
        batches: vec![batch(5), batch(15), batch(30)],
        absent: vec![(range(10, 14), teeline_archive::ledger::AbsenceReason::Compacted)],
        ..Default::default()
    };
    feed.engine.on_fetched(plan.id, &plan.ranges, fetched, 30_000);
    feed.engine.drain(false, 30_000);
    let plans = feed.uploads();
    let fetched = plans.iter().find(|plan| plan.origin == Origin::Fetch).unwrap();
    assert_eq!(fetched.batches.len(), 3);
    assert_eq!(
        fetched.notes.gaps,
        [range(20, 29)],
        "what is absent it vouches for"
    );
    assert!(plans.iter().any(|plan| plan.origin == Origin::Tee));
}
