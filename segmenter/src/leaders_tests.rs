#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use teeline_archive::buffer::TermsTopic;

const ID: PartitionId = PartitionId {
    incarnation: Uuid::from_u128(7),
    partition: 1,
};

fn at(lsn: u64) -> BufferPosition {
    BufferPosition {
        session: SessionId(1),
        lsn: Lsn(lsn),
    }
}

fn told(
    leaders: &mut Leaders,
    position: u64,
    requested_after: u64,
    epoch: i32,
    start_offset: i64,
) -> Vec<PartitionId> {
    let term = |partition, leader_epoch| LeaderTerm {
        partition,
        leader_epoch,
        start_offset,
    };
    let topic = TermsTopic {
        name: "orders".to_owned(),
        id: ID.incarnation,
        terms: vec![term(0, 99), term(ID.partition, epoch)],
    };
    let terms = LeaderTerms {
        requested_after: Lsn(requested_after),
        at_ms: 0,
        cluster_id: "cluster".to_owned(),
        topics: vec![topic],
    };
    leaders.on_terms(at(position), &terms)
}

/// An answer at `position` to a question from after `requested_after`.
fn answer(leaders: &mut Leaders, position: u64, requested_after: u64, epoch: i32) -> Vec<PartitionId> {
    told(leaders, position, requested_after, epoch, -1)
}

#[test]
fn an_epoch_is_known_when_answers_from_before_and_after_name_it() {
    let mut leaders = Leaders::default();
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Unknown);
    answer(&mut leaders, 1, 0, 5);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
    answer(&mut leaders, 5, 2, 5);
    assert_eq!(
        leaders.epoch_of(ID, at(2), at(3)),
        LeaderEpoch::Wait,
        "asked before the outcome"
    );
    answer(&mut leaders, 7, 6, 5);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
    assert_eq!(leaders.epoch_of(ID, at(8), at(9)), LeaderEpoch::Wait);
}

#[test]
fn a_batch_across_an_election_has_no_known_epoch() {
    let mut leaders = Leaders::default();
    answer(&mut leaders, 1, 0, 5);
    answer(&mut leaders, 4, 3, 5);
    answer(&mut leaders, 9, 8, 6);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(5));
    assert_eq!(leaders.epoch_of(ID, at(5), at(6)), LeaderEpoch::Unknown);
    assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Wait);
    answer(&mut leaders, 13, 12, 6);
    assert_eq!(leaders.epoch_of(ID, at(10), at(11)), LeaderEpoch::Known(6));
}

#[test]
fn a_batch_from_before_the_first_answer_has_no_known_epoch() {
    let mut leaders = Leaders::default();
    answer(&mut leaders, 4, 3, 5);
    answer(&mut leaders, 9, 8, 5);
    assert_eq!(leaders.epoch_of(ID, at(1), at(2)), LeaderEpoch::Unknown);
}

#[test]
fn an_answer_of_a_leader_that_is_behind_proves_nothing() {
    let mut leaders = Leaders::default();
    answer(&mut leaders, 1, 0, 6);
    answer(&mut leaders, 5, 4, 5);
    answer(&mut leaders, 6, 5, -1);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
    answer(&mut leaders, 7, 6, 6);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Known(6));
}

#[test]
fn an_answer_may_be_about_a_batch_of_an_earlier_epoch() {
    let mut start = EpochStart::Unknown(HashMap::new());
    // Five of this producer may have been repeated, whatever others do meanwhile.
    for offset in 100..105 {
        assert!(!start.on_answered(Some(9), offset));
        assert!(!start.on_answered(Some(9), offset), "the same once more");
        assert!(!start.on_answered(Some(10 + offset), offset));
    }
    assert!(start.on_answered(Some(9), 105), "the sixth is new");
    assert!(start.on_answered(Some(77), 106), "and so is what follows");
    assert!(!start.on_answered(Some(78), 104), "but not what lies before");
}

#[test]
fn a_batch_that_nobody_can_repeat_is_new() {
    let mut start = EpochStart::Unknown(HashMap::new());
    assert!(start.on_answered(None, 100));
    assert!(start.on_answered(Some(9), 101));
    assert!(!start.on_answered(Some(9), 99));
    assert!(start.on_answered(None, 50));
    assert!(start.on_answered(Some(9), 99));
}

#[test]
fn where_the_leader_says_that_its_epoch_begins_the_first_batches_of_a_producer_are_known_too() {
    let mut start = EpochStart::Unknown(HashMap::new());
    assert!(!start.on_answered(Some(9), 104), "nothing is known yet");
    start.on_told(100);
    assert!(start.on_answered(Some(9), 100));
    assert!(!start.on_answered(Some(9), 99), "repeated: of an earlier leader");
    start.on_told(120);
    assert!(
        start.on_answered(Some(9), 105),
        "what was deleted since changes nothing"
    );
    start.on_told(-1);
    assert!(start.on_answered(Some(9), 105));
}

#[test]
fn the_first_epoch_needs_no_answer_from_before() {
    let mut leaders = Leaders::default();
    told(&mut leaders, 5, 4, 0, 0);
    assert_eq!(leaders.epoch_of(ID, at(1), at(2)), LeaderEpoch::Known(0));
}

#[test]
fn a_leader_that_was_replaced_and_came_back_is_not_taken_for_the_old_one() {
    let mut leaders = Leaders::default();
    answer(&mut leaders, 1, 0, 5);
    // Metadata still names epoch 5, and so does the outcome; asked under it the leader refuses, and under 7 it answers.
    answer(&mut leaders, 6, 5, 7);
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Unknown);
}

/// Producers that are counted for an epoch.
fn counted(leaders: &Leaders, epoch: i32) -> usize {
    let term = leaders.by_partition[&ID].iter().find(|term| term.epoch == epoch);
    match &term.unwrap().start {
        EpochStart::Unknown(producers) => producers.len(),
        EpochStart::Before(_) => 0,
    }
}

#[test]
fn producers_of_an_epoch_that_is_over_are_forgotten_once_no_open_batch_is_of_it() {
    let mut leaders = Leaders::default();
    assert!(answer(&mut leaders, 1, 0, 5).is_empty());
    leaders.start_of(ID, 5).unwrap().on_answered(Some(9), 100);
    leaders.forget(ID, &BTreeSet::new());
    assert_eq!(counted(&leaders, 5), 1, "it is not over");
    assert_eq!(answer(&mut leaders, 5, 4, 6), [ID]);
    leaders.start_of(ID, 6).unwrap().on_answered(Some(9), 200);
    leaders.forget(ID, &BTreeSet::from([5, 6]));
    assert_eq!((counted(&leaders, 5), leaders.is_outdated(ID)), (1, true));
    leaders.forget(ID, &BTreeSet::from([6]));
    assert_eq!((counted(&leaders, 5), leaders.is_outdated(ID)), (0, false));
    assert_eq!(counted(&leaders, 6), 1, "the newest is still needed");
    assert_eq!(leaders.epoch_of(ID, at(6), at(7)), LeaderEpoch::Wait);
}

#[test]
fn a_topic_that_is_gone_is_forgotten_once_none_of_its_batches_is_open() {
    let mut leaders = Leaders::default();
    answer(&mut leaders, 1, 0, 5);
    assert!(leaders.on_gone(&BTreeSet::from([Uuid::from_u128(8)])).is_empty());
    let mut gone = leaders.on_gone(&BTreeSet::from([ID.incarnation]));
    gone.sort();
    assert_eq!(gone, [PartitionId { partition: 0, ..ID }, ID]);
    leaders.forget(ID, &BTreeSet::from([5]));
    assert_eq!(leaders.epoch_of(ID, at(2), at(3)), LeaderEpoch::Wait);
    for id in gone {
        leaders.forget(id, &BTreeSet::new());
    }
    assert!(leaders.by_partition.is_empty() && leaders.outdated.is_empty() && leaders.gone.is_empty());
}
