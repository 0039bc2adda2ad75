#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use teeline_wire::client::ListedGroup;

use super::*;

const OFFSET: i64 = 7;

fn listing(groups: &[&str], whole: bool) -> GroupListing {
    let listed = groups.iter().map(|group| {
        let listed = ListedGroup {
            group: (*group).to_owned(),
            protocol_type: "consumer".to_owned(),
            group_type: "classic".to_owned(),
            state: "Empty".to_owned(),
            coordinator: 1,
        };
        ((*group).to_owned(), listed)
    });
    GroupListing {
        groups: listed.collect(),
        failures: match whole {
            true => Vec::new(),
            false => vec![(2, failure(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS))],
        },
    }
}

fn failure(code: ErrorCode) -> ClientError {
    ClientError::Broker {
        subject: "ask".to_owned(),
        code,
        message: None,
    }
}

fn committed() -> GroupOffsets {
    GroupOffsets {
        offsets: vec![CommittedOffset {
            topic: "orders".to_owned(),
            partition: 0,
            offset: OFFSET,
            leader_epoch: -1,
            metadata: String::new(),
        }],
        failures: Vec::new(),
    }
}

fn noted(listing: &GroupListing, answer: Result<GroupOffsets, ClientError>) -> Observation {
    let mut seen = Observation::default();
    note_group(&mut seen, listing, "g".to_owned(), answer);
    seen
}

fn words(seen: &Observation) -> Vec<&'static str> {
    seen.items.keys().map(ItemKey::word).collect()
}

#[test]
fn a_group_that_is_listed_is_there_with_what_it_has_committed() {
    let seen = noted(&listing(&["g"], true), Ok(committed()));
    assert_eq!(words(&seen), ["group", "offset"]);
    assert!(seen.unseen.groups.is_empty() && seen.unseen.items.is_empty());
}

#[test]
fn a_group_is_gone_when_no_broker_lists_it_and_its_coordinator_knows_nothing_of_it() {
    let seen = noted(&listing(&[], true), Ok(GroupOffsets::default()));
    assert!(words(&seen).is_empty());
    assert!(seen.unseen.groups.is_empty() && seen.unseen.items.is_empty());
}

#[test]
fn a_group_is_not_gone_while_a_broker_that_may_list_it_does_not_answer() {
    let key = ItemKey::Group(GroupKey {
        group: "g".to_owned(),
    });
    let seen = noted(&listing(&[], false), Ok(GroupOffsets::default()));
    assert!(seen.unseen.items.contains(&key));
    let seen = noted(&listing(&[], true), Ok(committed()));
    assert!(seen.unseen.items.contains(&key), "it has offsets, so it is there");
}

#[test]
fn a_group_that_cannot_be_read_is_said_to_be_so_and_stays_as_it_was() {
    for (code, passes) in [
        (ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, true),
        (ErrorCode::GROUP_AUTHORIZATION_FAILED, false),
    ] {
        let seen = noted(&listing(&["g"], true), Err(failure(code)));
        assert_eq!(words(&seen), ["not_auditable", "group"]);
        assert!(seen.unseen.groups.contains("g"));
        assert_eq!(seen.unseen.for_now.contains("group g"), passes);
    }
}

#[test]
fn an_offset_that_the_broker_does_not_tell_stays_as_it_was() {
    let mut answer = committed();
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    answer.failures.push(("payments".to_owned(), 3, code));
    let seen = noted(&listing(&["g"], true), Ok(answer));
    let key = ItemKey::Offset(OffsetKey {
        group: "g".to_owned(),
        topic: "payments".to_owned(),
        partition: 3,
    });
    assert!(seen.unseen.items.contains(&key) && !seen.items.contains_key(&key));
}

#[test]
fn offsets_of_a_topic_that_may_not_be_described_any_more_stay_and_those_of_a_deleted_one_go() {
    let known = noted(&listing(&["g"], true), Ok(committed()));
    let topic = |error: ErrorCode| ClusterMetadata {
        cluster_id: None,
        controller_id: 1,
        brokers: Vec::new(),
        topics: vec![TopicMetadata {
            name: Arc::from("orders"),
            id: Uuid::nil(),
            error,
            is_internal: false,
            partitions: Vec::new(),
        }],
    };
    for (asked, stays, is_said) in [
        (Some(topic(ErrorCode::TOPIC_AUTHORIZATION_FAILED)), true, true),
        (Some(topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)), false, false),
        (Some(topic(ErrorCode(0))), false, false),
        (None, true, false),
    ] {
        let mut seen = noted(&listing(&["g"], true), Ok(GroupOffsets::default()));
        let gone = vanished(&seen, &known.items);
        assert_eq!(gone.keys().map(|topic| &**topic).collect::<Vec<_>>(), ["orders"]);
        note_vanished(&mut seen, gone, asked);
        assert_eq!(!seen.unseen.items.is_empty(), stays);
        assert_eq!(words(&seen).contains(&"not_auditable"), is_said);
    }
    assert!(vanished(&known, &known.items).is_empty());
}

#[test]
fn a_right_that_lacks_is_an_observation_and_a_broker_that_does_not_answer_is_none() {
    let denied = lasting(failure(ErrorCode::CLUSTER_AUTHORIZATION_FAILED)).unwrap();
    assert!(denied.unseen.all && words(&denied) == ["not_auditable"]);
    assert!(lasting(failure(ErrorCode::REQUEST_TIMED_OUT)).is_err());
}
