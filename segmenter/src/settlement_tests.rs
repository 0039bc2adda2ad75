#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::resolver::PendingIntent;
use crate::testing::{batch_with, location};
use std::sync::Arc;
use teeline_archive::ids::{Lsn, SessionId};

const TOPIC: Uuid = Uuid::from_u128(7);
const GRACE_MS: i64 = 1_000;

fn at(lsn: u64) -> BufferPosition {
    BufferPosition {
        session: SessionId(1),
        lsn: Lsn(lsn),
    }
}

fn name() -> TopicKey {
    TopicKey::Name(Arc::from("orders"))
}

fn pending(lsn: u64, sequence: i32) -> PendingIntent {
    let (header, _) = batch_with(0, 5, |header| {
        (header.producer_id, header.producer_epoch, header.base_sequence) = (9, 0, sequence);
    });
    PendingIntent {
        position: at(lsn),
        location: location(at(lsn)),
        connection_id: 1,
        topic: name(),
        partition: 0,
        sent_at_ms: 0,
        header: Some(header),
        floor: Some((TOPIC, 100)),
    }
}

fn unresolved(lsn: u64, doubt: Doubt, base_offset: Option<i64>) -> Unresolved {
    let intent = pending(lsn, i32::try_from(lsn).unwrap() * 10);
    Unresolved {
        intent,
        doubt,
        since_ms: 0,
        base_offset,
        accepted_before: true,
    }
}

fn written(lsn: u64, sequence: i32) -> Written {
    Written {
        intent: pending(lsn, sequence),
        outcome: at(lsn + 1),
        base_offset: 300,
        log_append_time_ms: -1,
        leader_epoch: -1,
    }
}

fn found(log_start: i64, end: i64) -> Answer {
    Answer::Found {
        incarnation: TOPIC,
        log_start,
        end,
        stable_end: end,
    }
}

fn id() -> PartitionId {
    PartitionId {
        incarnation: TOPIC,
        partition: 0,
    }
}

fn answer(settlement: &mut Settlement, answer: &Answer, asked_ms: i64) -> Vec<Verdict> {
    let graces = Graces {
        asking_ms: GRACE_MS,
        growing_ms: 2 * GRACE_MS,
    };
    settlement.on_answer(&name(), 0, answer, asked_ms, graces)
}

#[test]
fn the_end_is_asked_for_only_after_the_connection_has_been_dead_for_a_while() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::ConnectionLost, None)));
    assert!(settlement.questions(GRACE_MS - 1, GRACE_MS).is_empty());
    assert_eq!(settlement.questions(GRACE_MS, GRACE_MS).len(), 1);
    assert!(
        answer(&mut settlement, &found(0, 200), GRACE_MS - 1).is_empty(),
        "asked too early"
    );
    assert_eq!(settlement.count(), 1);
}

#[test]
fn an_intent_is_let_go_once_everything_up_to_the_end_is_durable() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::ConnectionLost, None)));
    let verdicts = answer(&mut settlement, &found(0, 200), GRACE_MS);
    let obliged = OffsetRange {
        first: 100,
        last: 199,
    };
    assert!(matches!(&verdicts[..], [Verdict::Oblige(of, range)] if *of == id() && *range == obliged));
    assert!(settlement.settle(|_, _| false, |_, _, _| false).is_empty());
    let verdicts = settlement.settle(|of, range| of == id() && range == obliged, |_, _, _| false);
    assert!(matches!(&verdicts[..], [Verdict::LetGo(position)] if *position == at(1)));
    assert_eq!(settlement.count(), 0);
}

#[test]
fn without_anything_held_before_it_the_log_is_wanted_from_its_start() {
    let mut settlement = Settlement::default();
    let mut first = unresolved(1, Doubt::NoAnswer, None);
    first.intent.floor = None;
    settlement.add(Unsettled::new(first));
    let verdicts = answer(&mut settlement, &found(40, 200), GRACE_MS);
    assert!(matches!(&verdicts[..], [Verdict::Oblige(_, range)] if range.first == 40));
}

#[test]
fn a_log_that_has_not_grown_means_not_written() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::SessionLost, None)));
    assert!(
        answer(&mut settlement, &found(0, 100), GRACE_MS).is_empty(),
        "the replicas may lag"
    );
    assert!(
        answer(&mut settlement, &found(0, 103), GRACE_MS).is_empty(),
        "it has five records"
    );
    let verdicts = answer(&mut settlement, &found(0, 100), 2 * GRACE_MS);
    assert!(matches!(&verdicts[..], [Verdict::LetGo(_)]));
}

#[test]
fn without_an_answer_asked_for_a_log_that_has_not_grown_is_believed_at_once() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::NoAnswer, None)));
    assert_eq!(answer(&mut settlement, &found(0, 100), GRACE_MS).len(), 1);
}

#[test]
fn an_unreadable_batch_is_let_go_once_its_offsets_are_durable() {
    let mut settlement = Settlement::default();
    let range = OffsetRange { first: 5, last: 9 };
    settlement.oblige_unreadable(id(), at(1), location(at(1)), range);
    assert!(settlement.settle(|_, _| false, |_, _, _| true).is_empty());
    let verdicts = settlement.settle(|_, of| of == range, |_, _, _| true);
    assert!(matches!(&verdicts[..], [Verdict::LetGo(position)] if *position == at(1)));
}

#[test]
fn an_offset_that_the_broker_named_is_waited_for() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::OpenError(20), Some(300))));
    assert!(
        answer(&mut settlement, &found(0, 302), GRACE_MS).is_empty(),
        "the replicas lag"
    );
    let verdicts = answer(&mut settlement, &found(0, 305), 2 * GRACE_MS);
    assert!(
        matches!(&verdicts[..], [Verdict::Oblige(_, range)] if *range == OffsetRange { first: 300, last: 304 })
    );
    settlement.add(Unsettled::new(unresolved(2, Doubt::OpenError(20), Some(400))));
    let verdicts = answer(&mut settlement, &found(0, 302), PATIENCE_MS);
    assert!(matches!(&verdicts[..], [Verdict::LetGo(position)] if *position == at(2)));
}

#[test]
fn a_topic_counts_as_deleted_only_when_it_stays_unknown() {
    let mut settlement = Settlement::default();
    settlement.add(Unsettled::new(unresolved(1, Doubt::ConnectionLost, None)));
    let first_ms = 10 * GONE_PATIENCE_MS;
    assert!(answer(&mut settlement, &Answer::Gone, first_ms).is_empty());
    let second_ms = first_ms + GONE_PATIENCE_MS;
    assert!(answer(&mut settlement, &found(0, 100), GRACE_MS).is_empty());
    assert!(
        answer(&mut settlement, &Answer::Gone, second_ms).is_empty(),
        "it was there in between"
    );
    assert_eq!(
        answer(&mut settlement, &Answer::Gone, second_ms + GONE_PATIENCE_MS).len(),
        1
    );
}

#[test]
fn an_acknowledged_batch_that_the_new_topic_does_not_have_belongs_to_the_old_one() {
    let mut settlement = Settlement::default();
    let old = Uuid::from_u128(6);
    let acknowledged = |lsn| Unsettled {
        written: Some(written(lsn, 0)),
        fallback: Some(old),
        ..Unsettled::new(unresolved(lsn, Doubt::Uncertain, Some(300)))
    };
    settlement.add(acknowledged(1));
    let verdicts = answer(&mut settlement, &found(0, 10), PATIENCE_MS);
    assert!(matches!(&verdicts[..], [Verdict::PlaceIn(incarnation, _)] if *incarnation == old));
    // The new topic reaches that far, and has another batch there.
    settlement.add(acknowledged(3));
    assert!(matches!(
        &answer(&mut settlement, &found(0, 400), 0)[..],
        [Verdict::Oblige(..)]
    ));
    let verdicts = settlement.settle(|_, _| true, |_, _, _| true);
    assert!(matches!(&verdicts[..], [Verdict::PlaceIn(incarnation, _)] if *incarnation == old));
}

#[test]
fn an_acknowledged_batch_is_never_let_go_silently() {
    let mut settlement = Settlement::default();
    let unresolved = unresolved(1, Doubt::Uncertain, Some(300));
    settlement.add(Unsettled {
        written: Some(written(1, 0)),
        ..Unsettled::new(unresolved)
    });
    let verdicts = answer(&mut settlement, &found(0, 10), PATIENCE_MS);
    assert!(matches!(&verdicts[..], [Verdict::Lost(_)]));
}

#[test]
fn a_copy_that_is_confirmed_settles_the_one_in_doubt() {
    let mut settlement = Settlement::default();
    for lsn in 1..=3 {
        settlement.add(Unsettled::new(unresolved(lsn, Doubt::ConnectionLost, None)));
    }
    assert_eq!(
        settlement.on_confirmed(&written(9, 20), |topic| *topic == name()),
        [at(2)]
    );
    assert!(settlement.on_confirmed(&written(9, 20), |_| true).is_empty());
    assert!(
        settlement.on_confirmed(&written(9, 30), |_| false).is_empty(),
        "another topic"
    );
    assert_eq!(settlement.take_all().len(), 2);
    assert_eq!(settlement.count(), 0);
}
