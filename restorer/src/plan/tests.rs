//! Plans from archives in a directory.

use proptest::prelude::*;
use teeline_archive::OffsetRange;
use teeline_archive::ledger::{Absence, AbsenceEvidence, AbsenceReason, Entry};
use teeline_archive::segment::{Origin, UndecidedTransaction};
use teeline_config::TopicPattern;

use super::*;
use crate::fixture::{BACKUP, FIRST_LIFE, Fixture, data, transactional};
use crate::ledger::load_whole;
use crate::window::Position;

const SECOND_LIFE: Uuid = Uuid::from_u128(0x22);

async fn plan_of(fixture: &mut Fixture, request: &Request) -> Result<Plan, RestorerError> {
    fixture.commit().await;
    let backup = load_whole(&fixture.store, BACKUP).await?;
    plan(&backup.state, BACKUP, request)
}

fn including(patterns: &[&str]) -> TopicFilter {
    let include = patterns
        .iter()
        .map(|pattern| TopicPattern::parse(pattern).unwrap());
    TopicFilter::new(include.collect(), Vec::new())
}

fn mapping(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
        .collect()
}

async fn three_topics() -> Fixture {
    let mut fixture = Fixture::new();
    for name in ["orders", "orders-eu", "__consumer_offsets"] {
        fixture.topic(name, FIRST_LIFE, 3, 5);
        fixture.segment(name, Origin::Tee, &[data(0, &[10, 20])]).await;
    }
    fixture
}

#[tokio::test]
async fn topics_are_chosen_by_pattern_and_renamed() {
    let mut fixture = three_topics().await;
    let request = Request {
        topics: including(&["orders*"]),
        mapping: mapping(&[("orders", "clone")]),
        ..Request::default()
    };
    let plan = plan_of(&mut fixture, &request).await.unwrap();
    let names: Vec<_> = plan
        .topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.target.as_str()))
        .collect();
    assert_eq!(names, [("orders", "clone"), ("orders-eu", "orders-eu")]);
    let topic = &plan.topics[0];
    assert_eq!((topic.partition_count, topic.replication_factor), (3, Some(3)));
    assert_eq!(topic.settings.get("retention.ms"), Some(&Some("-1".to_owned())));
    assert_eq!(
        (plan.records_max(), plan.source_cluster_id.as_deref()),
        (4, Some("cluster-a"))
    );
}

#[tokio::test]
async fn internal_topics_are_restored_only_when_named() {
    let mut fixture = three_topics().await;
    let all = plan_of(&mut fixture, &Request::default()).await.unwrap();
    assert_eq!(all.topics.len(), 2);
    let request = Request {
        topics: including(&["__consumer_offsets"]),
        ..Request::default()
    };
    assert_eq!(plan_of(&mut fixture, &request).await.unwrap().topics.len(), 1);
}

#[tokio::test]
async fn what_is_named_and_missing_or_ambiguous_is_wrong_usage() {
    let mut fixture = three_topics().await;
    let wrong = [
        (
            Request {
                topics: including(&["order"]),
                ..Request::default()
            },
            "--topic order",
        ),
        (
            Request {
                mapping: mapping(&[("x", "y")]),
                ..Request::default()
            },
            "--map x",
        ),
        (
            Request {
                incarnations: mapping(&[("x", "1")]),
                ..Request::default()
            },
            "--incarnation x",
        ),
        (
            Request {
                incarnations: mapping(&[("orders", "99")]),
                ..Request::default()
            },
            "no incarnation 99",
        ),
        (
            Request {
                mapping: mapping(&[("orders", "orders-eu")]),
                ..Request::default()
            },
            "two topics",
        ),
        (
            Request {
                mapping: mapping(&[("orders", "a b")]),
                ..Request::default()
            },
            "a b",
        ),
        (
            Request {
                window: Window {
                    from_ms: Some(2),
                    to_ms: Some(2),
                },
                ..Request::default()
            },
            "window is empty",
        ),
    ];
    for (request, text) in wrong {
        let error = plan_of(&mut fixture, &request).await.unwrap_err();
        assert_eq!(error.exit_code(), teeline_runtime::ExitCode::Usage, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn of_a_topic_made_again_the_newest_life_is_restored_unless_another_is_named() {
    let mut fixture = Fixture::new();
    fixture.topic("orders", FIRST_LIFE, 1, 5);
    fixture
        .segment("orders", Origin::Tee, &[data(0, &[10, 20, 30])])
        .await;
    fixture.topic("orders", SECOND_LIFE, 2, 500);
    let plan = plan_of(&mut fixture, &Request::default()).await.unwrap();
    assert_eq!(plan.topics[0].incarnation, SECOND_LIFE);
    assert_eq!(plan.topics[0].lives.len(), 2);
    assert_eq!(plan.records_max(), 0);
    let first = FIRST_LIFE.to_string();
    let request = Request {
        incarnations: mapping(&[("orders", first.as_str())]),
        ..Request::default()
    };
    let plan = plan_of(&mut fixture, &request).await.unwrap();
    assert_eq!((plan.topics[0].incarnation, plan.records_max()), (FIRST_LIFE, 3));
}

#[tokio::test]
async fn holes_quarantined_and_undecided_records_are_in_the_plan() {
    let mut fixture = Fixture::new();
    fixture.segment("orders", Origin::Tee, &[data(0, &[1, 1])]).await;
    fixture
        .segment("orders", Origin::Tee, &[data(5, &[1]), data(8, &[1])])
        .await;
    let absence = |first_offset, last_offset, reason| {
        let (topic, at_ms) = ("orders".to_owned(), 1);
        let incarnation = FIRST_LIFE;
        Entry::Absent(Absence {
            topic,
            incarnation,
            partition: 0,
            first_offset,
            last_offset,
            reason,
            at_ms,
            evidence: AbsenceEvidence::NONE,
        })
    };
    fixture.entry(absence(2, 2, AbsenceReason::Compacted));
    fixture.entry(absence(3, 3, AbsenceReason::SourceLost));
    let quarantined = [data(9, &[1, 1])];
    fixture
        .segment_of("orders", FIRST_LIFE, 0, Origin::Unconfirmed, true, &quarantined)
        .await;
    let plan = plan_of(&mut fixture, &Request::default()).await.unwrap();
    let partition = &plan.topics[0].partitions[0];
    let holes = [
        OffsetRange { first: 3, last: 4 },
        OffsetRange { first: 6, last: 7 },
    ];
    assert_eq!(partition.holes, holes);
    assert_eq!(
        (partition.records_quarantined, partition.unconfirmed.len()),
        (2, 0)
    );
    assert_eq!(partition.records_max, 4);
}

#[tokio::test]
async fn a_transaction_left_open_at_the_end_is_told_before() {
    let mut fixture = Fixture::new();
    let open = transactional(0, 2, (7, 0, 0));
    let info = fixture
        .segment("orders", Origin::Tee, std::slice::from_ref(&open))
        .await;
    assert!(info.undecided.is_empty());
    // The writer's notes tell; here they are given by hand.
    let mut noted = info.clone();
    noted.undecided.push(UndecidedTransaction {
        producer_id: 7,
        producer_epoch: 0,
        first_offset: 0,
        last_offset: 1,
    });
    let segments = [Arc::new(noted)];
    fixture.commit().await;
    let backup = load_whole(&fixture.store, BACKUP).await.unwrap();
    let partition = backup.state.partition("orders", FIRST_LIFE, 0).unwrap();
    assert_eq!(
        partition::undecided(partition, &segments, &Lost::default()).len(),
        1
    );
    fixture.evidence("orders", &open, true);
    fixture.commit().await;
    let backup = load_whole(&fixture.store, BACKUP).await.unwrap();
    let partition = backup.state.partition("orders", FIRST_LIFE, 0).unwrap();
    assert!(partition::undecided(partition, &segments, &Lost::default()).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A segment is left out exactly if its true bounds leave nothing of it in the window.
    #[test]
    fn no_segment_with_a_record_of_the_window_is_left_out(
        segments in proptest::collection::vec(proptest::collection::vec(0i64..100, 1..4), 1..8),
        from in proptest::option::of(0i64..100),
        to in proptest::option::of(0i64..100),
    ) {
        let window = Window { from_ms: from, to_ms: to };
        prop_assume!(!window.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plan = runtime.block_on(async {
            let mut fixture = Fixture::new();
            let mut next = 0;
            for timestamps in &segments {
                fixture.segment("orders", Origin::Tee, &[data(next, timestamps)]).await;
                next += i64::try_from(timestamps.len()).unwrap();
            }
            plan_of(&mut fixture, &Request { window, ..Request::default() }).await.unwrap()
        });
        let chosen: Vec<i64> = plan.segments().map(|segment| segment.start_offset).collect();
        let mut first = 0;
        for timestamps in &segments {
            let wanted = timestamps.iter().any(|at| window.contains(*at));
            let (min, max) = (timestamps.iter().min().unwrap(), timestamps.iter().max().unwrap());
            prop_assert!(!wanted || chosen.contains(&first));
            prop_assert_eq!(chosen.contains(&first), window.position(*min, *max) != Position::Outside);
            first += i64::try_from(timestamps.len()).unwrap();
        }
    }
}
