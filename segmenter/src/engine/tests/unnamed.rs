//! Batches for ids that no catalog names: the source is asked what they are called.

use super::*;

/// Not known by name when its batches are captured.
const LATER: Uuid = Uuid::from_u128(8);
/// As long as the tests let anything wait.
const GRACE_MS: i64 = 30_000;
/// So long the source must say that there is no such topic.
const GONE_MS: i64 = 30_000;

fn batch_of(feed: &mut Feed, label: &str) -> BufferPosition {
    feed.intent(TopicRef::by_id(LATER), Bytes::from(labelled_batch(0, 5, label)))
}

/// An acknowledged batch, and one that was never answered, as when the proxy dies at once.
fn two_batches() -> Feed {
    let mut feed = Feed::new(true);
    feed.catalog(TOPIC);
    let answered = batch_of(&mut feed, "answered");
    feed.outcome(answered, 0, -1);
    batch_of(&mut feed, "in doubt");
    feed.engine.on_session_start(SessionId(2), 0);
    feed.engine.on_survey(0, Ok(SurveyReport::default()), 0);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (2, 1));
    feed
}

/// Asks, and answers with the name of the topic, or that there is none.
fn ask(feed: &mut Feed, now_ms: i64, name: Option<&str>) {
    feed.now_ms = now_ms;
    let questions = feed.engine.take_survey(now_ms).unwrap();
    assert_eq!(questions.ids, BTreeSet::from([LATER]));
    let topic = name.map(|name| CatalogTopic {
        name: name.to_owned(),
        id: LATER,
        error_code: 0,
        partitions: vec![(0, 3)],
        replication_factor: 1,
    });
    let report = SurveyReport {
        topics: [(LATER, topic)].into_iter().collect(),
        ..SurveyReport::default()
    };
    feed.engine.on_survey(now_ms, Ok(report), now_ms);
}

#[test]
fn the_source_is_asked_when_the_proxy_has_not_said_it_for_long() {
    let mut feed = two_batches();
    feed.engine.just_ended.clear();
    assert!(feed.engine.take_survey(GRACE_MS - 1).is_none());
    let questions = feed.engine.take_survey(GRACE_MS).unwrap();
    assert_eq!(questions.ids, BTreeSet::from([LATER]));
    assert!(questions.partitions.is_empty());
}

#[test]
fn what_the_source_calls_by_a_name_that_is_captured_is_archived() {
    let mut feed = two_batches();
    ask(&mut feed, GRACE_MS, Some("orders-2"));
    feed.engine.drain(false, GRACE_MS);
    let plans = feed.uploads();
    assert_eq!(plans.len(), 1, "the acknowledged one");
    assert_eq!((&*plans[0].topic, plans[0].id.incarnation), ("orders-2", LATER));
    // The other is settled like every batch in doubt.
    let questions = feed.engine.take_survey(GRACE_MS + 1_000).unwrap();
    let asked: Vec<_> = questions
        .partitions
        .iter()
        .map(|question| &*question.topic)
        .collect();
    assert_eq!((asked, questions.ids.len()), (vec!["orders-2"], 0));
    let commit = feed.engine.take_commit(GRACE_MS + 2_000).unwrap();
    let snapshots = commit.entries.iter().filter_map(|entry| match entry {
        Entry::Topic(snapshot) => Some((&*snapshot.name, snapshot.incarnation, snapshot.partition_count)),
        _ => None,
    });
    assert!(snapshots.into_iter().any(|found| found == ("orders-2", LATER, 1)));
    let held = feed.engine.remaining();
    feed.engine.on_committed(commit, GRACE_MS + 2_000);
    assert_eq!(feed.engine.remaining(), held, "a snapshot releases no batch");
}

#[test]
fn what_the_source_calls_by_a_name_that_is_not_captured_is_let_go() {
    let mut feed = two_batches();
    ask(&mut feed, GRACE_MS, Some("hidden-2"));
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (0, 0));
    feed.engine.drain(true, GRACE_MS);
    assert!(feed.uploads().is_empty(), "nothing of it is archived");
    assert_eq!(feed.engine.archived(), feed.engine.last_read());
}

#[test]
fn a_topic_that_is_gone_before_its_name_was_known_is_let_go_once_the_source_has_said_so_for_a_while() {
    let mut feed = two_batches();
    ask(&mut feed, GRACE_MS, None);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (2, 2));
    // A broker that starts knows no topics.
    ask(&mut feed, GRACE_MS + GONE_MS - 1, None);
    assert_eq!(feed.engine.unsettled(), 2);
    ask(&mut feed, GRACE_MS + GONE_MS + 1_000, None);
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (0, 0));
    assert_eq!(feed.engine.archived(), feed.engine.last_read());
}

#[test]
fn a_topic_that_one_answer_did_not_know_and_a_later_one_does_is_archived() {
    let mut feed = two_batches();
    ask(&mut feed, GRACE_MS, None);
    ask(&mut feed, GRACE_MS + 1_000, Some("orders-2"));
    assert_eq!((feed.engine.remaining(), feed.engine.unsettled()), (2, 2));
    let now_ms = GRACE_MS + 2_000;
    let found = Answer::Found {
        incarnation: LATER,
        log_start: 0,
        end: 10,
        stable_end: 10,
    };
    feed.survey(now_ms, &found);
    feed.engine.poll(now_ms);
    assert_eq!(feed.engine.missing_offsets(), 10, "both are fetched");
}
