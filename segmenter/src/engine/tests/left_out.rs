//! Batches for ids that turn out to be of topics that are not captured.

use super::*;

const HIDDEN: Uuid = Uuid::from_u128(9);

/// What a catalog of the proxy says once it knows the id's name.
fn leave_out(feed: &mut Feed) {
    let topic = CatalogTopic {
        name: "hidden".to_owned(),
        id: HIDDEN,
        error_code: CatalogTopic::NOT_CAPTURED,
        partitions: Vec::new(),
        replication_factor: 0,
    };
    feed.frame(Frame::Catalog(Catalog {
        requested_after: Lsn(feed.next - 1),
        at_ms: 0,
        cluster_id: CLUSTER.to_owned(),
        topics: vec![topic],
    }));
}

fn one(feed: &mut Feed) -> BufferPosition {
    feed.intent(
        TopicRef::by_id(HIDDEN),
        Bytes::from(labelled_batch(0, 5, "hidden")),
    )
}

#[test]
fn what_was_captured_before_its_topic_was_known_to_be_left_out_keeps_nothing_in_the_buffer() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    let answered = one(&mut feed);
    feed.outcome(answered, 0, -1);
    let later = one(&mut feed);
    let lost = one(&mut feed);
    assert_eq!(feed.engine.remaining(), 3);
    leave_out(&mut feed);
    assert_eq!(feed.engine.remaining(), 2, "these may still be refused");
    feed.outcome(later, 5, -1);
    assert_eq!(feed.engine.remaining(), 1, "an answer may come after the catalog");
    feed.engine.on_end(0);
    assert_eq!(
        (feed.engine.remaining(), feed.engine.unsettled()),
        (0, 0),
        "{lost}"
    );
    feed.engine.drain(true, 0);
    assert!(feed.uploads().is_empty(), "nothing of it is archived");
    assert_eq!(feed.engine.archived(), feed.engine.last_read());
}

#[test]
fn an_intent_in_doubt_of_a_topic_that_is_left_out_is_let_go() {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    one(&mut feed);
    feed.engine.on_end(0);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (1, 1));
    leave_out(&mut feed);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (0, 0));
}

#[test]
fn an_id_that_some_catalog_has_named_is_not_left_out() {
    let mut feed = Feed::new(true);
    feed.catalog(HIDDEN);
    feed.written(TopicRef::by_id(HIDDEN), 0);
    leave_out(&mut feed);
    feed.written(TopicRef::by_id(HIDDEN), 5);
    assert_eq!(feed.engine.remaining(), 2, "it was captured by the former rules");
    let mut feed = Feed::new(true);
    leave_out(&mut feed);
    feed.catalog(HIDDEN);
    feed.written(TopicRef::by_id(HIDDEN), 0);
    assert_eq!(feed.engine.remaining(), 1, "it is captured since");
}
