#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use teeline_archive::ids::Lsn;

fn at(session: u64, lsn: u64) -> BufferPosition {
    BufferPosition {
        session: SessionId(session),
        lsn: Lsn(lsn),
    }
}

fn intent(connection_id: u64, acks: i16) -> Intent {
    Intent {
        connection_id,
        acks,
        sent_at_ms: 5,
        topic: TopicRef {
            name: Some("orders".to_owned()),
            id: None,
        },
        partition: 0,
        transactional_id: None,
        records: Bytes::from(crate::testing::batch(0, 3)),
    }
}

fn outcome(intent: u64, error_code: i16, base_offset: i64) -> Outcome {
    Outcome {
        intent: Lsn(intent),
        received_at_ms: 6,
        error_code,
        base_offset,
        log_append_time_ms: -1,
        log_start_offset: 0,
        leader_epoch: -1,
    }
}

fn take(resolver: &mut Resolver, position: BufferPosition, intent: &Intent) -> Option<Resolution> {
    resolver.on_intent(position, crate::testing::location(position), intent, |_| None, 10)
}

#[test]
fn an_answer_without_error_means_written() {
    let mut resolver = Resolver::default();
    assert!(take(&mut resolver, at(1, 1), &intent(7, -1)).is_none());
    let resolution = resolver.on_outcome(at(1, 2), &outcome(1, 0, 40), 10);
    let Some(Resolution::Written(written)) = resolution else {
        panic!("{resolution:?}")
    };
    assert_eq!((written.base_offset, written.outcome), (40, at(1, 2)));
    assert_eq!(resolver.pending_count(), 0);
    assert!(
        resolver.on_outcome(at(1, 3), &outcome(1, 0, 40), 10).is_none(),
        "answered twice"
    );
}

#[test]
fn an_error_before_the_append_means_refused_and_one_after_it_leaves_it_open() {
    let mut resolver = Resolver::default();
    for (lsn, code, base, open) in [
        (1, 19, -1, false),
        (2, 7, 40, true),
        (3, 20, 41, true),
        (4, 6, 42, true),
        (5, 6, -1, false),
        (6, -1, -1, true),
    ] {
        take(&mut resolver, at(1, lsn), &intent(7, -1));
        match resolver
            .on_outcome(at(1, 100 + lsn), &outcome(lsn, code, base), 10)
            .unwrap()
        {
            Resolution::Refused(position) => assert!(!open && position == at(1, lsn), "error {code}"),
            Resolution::Unresolved(unresolved) => {
                assert!(open, "error {code}");
                assert_eq!(unresolved.doubt, Doubt::OpenError(code));
                assert_eq!(unresolved.base_offset, (base >= 0).then_some(base));
            }
            Resolution::Written(_) => panic!("error {code} taken for written"),
        }
    }
}

#[test]
fn no_answer_asked_for_is_unresolved_at_once() {
    let mut resolver = Resolver::default();
    let resolution = take(&mut resolver, at(1, 1), &intent(7, 0));
    assert!(matches!(resolution, Some(Resolution::Unresolved(u)) if u.doubt == Doubt::NoAnswer));
}

#[test]
fn a_lost_connection_leaves_only_its_own_intents_unresolved() {
    let mut resolver = Resolver::default();
    take(&mut resolver, at(1, 1), &intent(7, -1));
    take(&mut resolver, at(1, 2), &intent(8, -1));
    take(&mut resolver, at(1, 3), &intent(7, -1));
    resolver.on_outcome(at(1, 4), &outcome(1, 0, 40), 10);
    let resolutions = resolver.on_connection_lost(
        SessionId(1),
        &ConnectionLost {
            connection_id: 7,
            at_ms: 9,
        },
        10,
    );
    assert!(matches!(&resolutions[..], [Resolution::Unresolved(u)]
        if u.intent.position == at(1, 3) && u.accepted_before && u.doubt == Doubt::ConnectionLost));
    assert_eq!(resolver.lowest_pending(), Some(at(1, 2)));
}

#[test]
fn a_new_session_leaves_the_intents_of_earlier_ones_unresolved() {
    let mut resolver = Resolver::default();
    take(&mut resolver, at(1, 1), &intent(7, -1));
    take(&mut resolver, at(2, 1), &intent(7, -1));
    let resolutions = resolver.on_sessions_over(Some(SessionId(2)), 10);
    assert!(matches!(&resolutions[..], [Resolution::Unresolved(u)]
        if u.intent.position == at(1, 1) && !u.accepted_before && u.doubt == Doubt::SessionLost));
    assert_eq!(resolver.on_sessions_over(None, 10).len(), 1);
    assert_eq!(resolver.pending_count(), 0);
}

proptest! {
    #[test]
    fn every_intent_ends_in_exactly_one_way(steps in prop::collection::vec((0u8..5, 0u64..4, 1u64..40), 1..120)) {
        let mut resolver = Resolver::default();
        let (mut lsn, mut open, mut ended) = (0u64, BTreeSet::new(), 0usize);
        let mut total = 0usize;
        for (kind, connection, target) in steps {
            lsn += 1;
            let resolutions: Vec<Resolution> = match kind {
                0 | 1 => {
                    total += 1;
                    open.insert(at(1, lsn));
                    take(&mut resolver, at(1, lsn), &intent(connection, if kind == 0 { -1 } else { 1 })).into_iter().collect()
                }
                2 => resolver.on_outcome(at(1, lsn), &outcome(target, 0, 9), 1).into_iter().collect(),
                3 => resolver.on_outcome(at(1, lsn), &outcome(target, 19, -1), 1).into_iter().collect(),
                _ => resolver.on_connection_lost(SessionId(1), &ConnectionLost { connection_id: connection, at_ms: 0 }, 1),
            };
            for resolution in resolutions {
                let position = match resolution {
                    Resolution::Written(written) => written.intent.position,
                    Resolution::Refused(position) => position,
                    Resolution::Unresolved(unresolved) => unresolved.intent.position,
                };
                prop_assert!(open.remove(&position), "ended twice");
                ended += 1;
            }
            prop_assert_eq!(resolver.lowest_pending(), open.first().copied());
        }
        prop_assert_eq!(ended + resolver.on_sessions_over(None, 1).len(), total);
    }
}

#[test]
fn the_oldest_connections_make_room_among_those_that_had_something_accepted() {
    let mut resolver = Resolver::default();
    let mut lsn = 1;
    for connection in 0..=ACCEPTED_MAX as u64 {
        take(&mut resolver, at(1, lsn), &intent(connection, -1));
        resolver.on_outcome(at(1, lsn + 1), &outcome(lsn, 0, 40), 10);
        lsn += 2;
    }
    let mut was_accepted = |connection| {
        lsn += 1;
        match take(&mut resolver, at(1, lsn), &intent(connection, 0)) {
            Some(Resolution::Unresolved(unresolved)) => unresolved.accepted_before,
            other => panic!("{other:?}"),
        }
    };
    assert!(!was_accepted(0));
    assert!(was_accepted(1) && was_accepted(ACCEPTED_MAX as u64));
}
