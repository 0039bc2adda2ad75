//! Leader epochs of captured batches.

use super::*;
use crate::batch::Content;
use teeline_archive::buffer::{LeaderTerm, LeaderTerms, TermsTopic};

impl Feed {
    fn leader_of_epoch(&mut self, epoch: i32) {
        let requested_after = Lsn(self.next - 1);
        self.catalog_frame(requested_after, TOPIC, epoch);
        let term = LeaderTerm {
            partition: 0,
            leader_epoch: epoch,
            start_offset: 0,
        };
        self.frame(Frame::LeaderTerms(LeaderTerms {
            requested_after,
            at_ms: 0,
            cluster_id: CLUSTER.to_owned(),
            topics: vec![TermsTopic {
                name: "orders".to_owned(),
                id: TOPIC,
                terms: vec![term],
            }],
        }));
        self.leader_epoch = epoch;
    }
}

fn epochs(plans: &[SegmentPlan]) -> Vec<Vec<(i64, i32)>> {
    let of = |batch: &crate::batch::Batch| (batch.range.first, batch.leader_epoch());
    plans
        .iter()
        .map(|plan| plan.batches.iter().map(of).collect())
        .collect()
}

#[test]
fn a_batch_waits_for_the_answer_that_tells_its_epoch() {
    let mut feed = Feed::new(true);
    feed.leader_of_epoch(4);
    feed.written(by_id(), 0);
    feed.leader_of_epoch(4);
    feed.written(by_id(), 5);
    feed.now_ms = 60_000;
    assert_eq!(epochs(&feed.uploads()), [[(0, 4)]]);
    assert_eq!(
        feed.engine.gauges(0).open_segments,
        1,
        "the second is younger than the answer"
    );
    feed.leader_of_epoch(4);
    assert_eq!(epochs(&feed.uploads()), [[(5, 4)]]);
}

#[test]
fn a_segment_never_mixes_epochs_and_an_election_leaves_its_own_unknown() {
    let mut feed = Feed::new(true);
    for (epoch, base) in [(4, 0), (4, 5), (6, 10)] {
        feed.leader_of_epoch(epoch);
        feed.written(by_id(), base);
    }
    feed.leader_of_epoch(6);
    feed.now_ms = 60_000;
    // The second was sent before the election was seen and answered after it.
    assert_eq!(epochs(&feed.uploads()), [[(5, -1)], [(0, 4)], [(10, 6)]]);
}

#[test]
fn without_an_answer_the_wait_has_an_end_and_a_drain_does_not_wait_at_all() {
    for drains in [true, false] {
        let mut feed = Feed::new(true);
        feed.leader_of_epoch(4);
        feed.written(by_id(), 0);
        feed.now_ms = 60_000;
        if drains {
            feed.engine.drain(false, feed.now_ms);
        } else {
            assert!(feed.uploads().is_empty());
            feed.now_ms = 70_000;
        }
        assert_eq!(epochs(&feed.uploads()), [[(0, -1)]]);
    }
}

#[test]
fn an_epoch_reaches_the_bytes() {
    let sent = Bytes::from(labelled_batch(0, 5, "value"));
    let prepared = crate::prepare::captured(sent, 70, 4, None).unwrap();
    assert_eq!(prepared.meta.leader_epoch, 4);
    let mut feed = Feed::new(true);
    feed.leader_of_epoch(4);
    feed.written(by_id(), 0);
    feed.leader_of_epoch(4);
    feed.engine.drain(false, 0);
    let plan = feed.uploads().pop().unwrap();
    assert!(matches!(
        plan.batches[0].content,
        Content::Captured { leader_epoch: 4, .. }
    ));
}

#[test]
fn an_answer_of_another_broker_than_the_leader_has_no_known_epoch() {
    for noted in [-1, 3] {
        let mut feed = Feed::new(true);
        feed.leader_of_epoch(4);
        feed.leader_epoch = noted;
        feed.written(by_id(), 0);
        feed.leader_of_epoch(4);
        feed.now_ms = 60_000;
        assert_eq!(epochs(&feed.uploads()), [[(0, -1)]]);
    }
}

#[test]
fn what_metadata_says_of_an_epoch_proves_nothing() {
    let mut feed = Feed::new(true);
    feed.leader_epoch = 4;
    feed.catalog_frame(Lsn(feed.next - 1), TOPIC, 4);
    feed.written(by_id(), 0);
    feed.catalog_frame(Lsn(feed.next - 1), TOPIC, 4);
    feed.now_ms = 120_000;
    assert_eq!(epochs(&feed.uploads()), [[(0, -1)]]);
}

#[test]
fn what_leaders_told_of_a_topic_goes_with_its_last_open_batch() {
    let mut feed = Feed::new(true);
    feed.leader_of_epoch(4);
    feed.written(by_id(), 0);
    feed.leader_of_epoch(4);
    feed.catalog(Uuid::from_u128(99));
    assert_eq!(feed.engine.leaders.len(), 1, "the batch asks for it");
    feed.now_ms = 60_000;
    assert_eq!(epochs(&feed.uploads()), [[(0, 4)]]);
    assert_eq!(feed.engine.leaders.len(), 0);
}
