#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use teeline_archive::WriterId;
use teeline_archive::ledger::Entry;
use teeline_archive::state::{
    AclValue, FinishedState, GroupKey, GroupValue, Header, OffsetKey, PartKey, PartValue, QuotaKey,
    QuotaValue, STATE_VERSION, ScramUserKey, SourceKey, StateWriter, TopicItemKey, What,
};

use super::*;
use crate::fixture::{BACKUP, CLUSTER, Fixture};
use crate::ledger;

fn object(kind: StateKind, seq: u64, lines: Vec<(i64, What)>) -> FinishedState {
    let header = Header {
        version: STATE_VERSION,
        backup_id: BACKUP.to_owned(),
        cluster_id: CLUSTER.to_owned(),
        kind: String::new(),
        run: "a".to_owned(),
        seq,
        full: seq == 0,
        program: "test".to_owned(),
    };
    let mut writer = StateWriter::new(kind, header).unwrap();
    for (at_ms, what) in lines {
        writer.push(at_ms, what).unwrap();
    }
    writer.finish(WriterId::AUDITOR, seq).unwrap()
}

fn group(group: &str) -> What {
    let value = GroupValue {
        group_type: "classic".to_owned(),
        protocol: "consumer".to_owned(),
    };
    let key = GroupKey {
        group: group.to_owned(),
    };
    What::Set(ItemKey::Group(key), ItemValue::Group(value))
}

fn offset(group: &str, partition: i32, offset: i64) -> What {
    let key = OffsetKey {
        group: group.to_owned(),
        topic: "orders".to_owned(),
        partition,
    };
    let value = OffsetValue {
        offset,
        leader_epoch: -1,
        metadata: "m".to_owned(),
        topic_id: None,
    };
    What::Set(ItemKey::Offset(key), ItemValue::Offset(value))
}

async fn stored(objects: &[FinishedState]) -> Fixture {
    let mut fixture = Fixture::new();
    for stored in objects {
        let (object, bytes) = (stored.object.clone(), stored.bytes.clone());
        fixture.store.put(&object.key, bytes).await.unwrap();
        fixture.entry(Entry::State(object));
    }
    fixture.commit().await;
    fixture
}

async fn at(fixture: &Fixture, kinds: &[StateKind], at_ms: i64) -> ClusterState {
    let backup = ledger::load(&fixture.store, BACKUP).await.unwrap();
    state(&fixture.store, &backup, kinds, at_ms).await.unwrap()
}

fn offsets(state: &ClusterState) -> Vec<(&str, i32, i64)> {
    let groups = state.kinds[0].groups.as_ref().unwrap();
    let offsets = groups.iter().flat_map(|group| {
        let each = group.offsets.iter();
        each.map(|offset| (&*group.group, offset.partition, offset.value.offset))
    });
    offsets.collect()
}

fn history() -> Vec<FinishedState> {
    vec![
        object(
            StateKind::Groups,
            0,
            vec![
                (1000, group("b")),
                (1000, offset("b", 0, 1)),
                (2000, offset("b", 1, 5)),
            ],
        ),
        object(
            StateKind::Groups,
            1,
            vec![
                (3000, offset("b", 0, 2)),
                (3000, group("a")),
                (4000, offset("a", 0, 9)),
            ],
        ),
    ]
}

#[tokio::test]
async fn the_state_is_shown_as_it_was_at_the_moment() {
    let fixture = stored(&history()).await;
    let kinds = [StateKind::Groups];
    let early = at(&fixture, &kinds, 2500).await;
    assert_eq!(offsets(&early), [("b", 0, 1), ("b", 1, 5)]);
    assert!(early.is_whole());
    let late = at(&fixture, &kinds, 9000).await;
    assert_eq!(offsets(&late), [("a", 0, 9), ("b", 0, 2), ("b", 1, 5)]);
    assert_eq!(late.kinds[0].seen_ms, Some(4000));
    let text = render(&late);
    assert!(
        text.contains("b      classic  consumer  orders          1       5  m"),
        "{text}"
    );
}

#[tokio::test]
async fn it_is_said_how_committed_offsets_are_known() {
    let source = |way: &str, reason: &str| {
        let key = SourceKey {
            part: "committed offsets".to_owned(),
        };
        let value = SourceValue {
            way: way.to_owned(),
            reason: reason.to_owned(),
        };
        What::Set(ItemKey::Source(key), ItemValue::Source(value))
    };
    let mut objects = history();
    let lines = vec![
        (5000, source("poll", "TOPIC_AUTHORIZATION_FAILED (29)")),
        (6000, source("log", "")),
    ];
    objects.push(object(StateKind::Groups, 2, lines));
    let fixture = stored(&objects).await;
    let mut said = Vec::new();
    for at_ms in [4000, 5000, 6000] {
        let state = at(&fixture, &[StateKind::Groups], at_ms).await;
        assert!(state.is_whole(), "nothing is missing");
        let way = state.kinds[0]
            .offsets_from
            .as_ref()
            .map(|source| source.way.clone());
        said.push((way, render(&state)));
    }
    assert_eq!(said[0].0, None);
    assert_eq!(said[1].0.as_deref(), Some("poll"));
    let line = "known by poll, not by each commit (TOPIC_AUTHORIZATION_FAILED (29))";
    assert!(said[1].1.contains(line), "{}", said[1].1);
    assert!(
        said[2]
            .1
            .contains("every commit of an offset is known with its time")
    );
}

#[tokio::test]
async fn what_was_not_recorded_is_not_shown_as_empty() {
    let fixture = stored(&history()).await;
    let none = at(&fixture, &StateKind::ALL, 500).await;
    assert!(!none.is_whole());
    let text = render(&none);
    assert!(
        text.contains("groups: nothing was recorded by then; the record begins at 1970-01-01T00:00:01"),
        "{text}"
    );
    assert!(text.contains("acls: nothing was ever recorded"), "{text}");
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_named_and_the_state_before_it_shown() {
    let objects = history();
    let kinds = [StateKind::Groups];
    let fixture = stored(&objects).await;
    fixture.damage(&objects[1].object.key, 20);
    let found = at(&fixture, &kinds, 9000).await;
    assert_eq!(found.damage.len(), 1);
    assert_eq!(found.damage[0].key, objects[1].object.key);
    assert_eq!(offsets(&found), [("b", 0, 1), ("b", 1, 5)]);
    assert!(!found.is_whole());
    fixture.store.delete(&objects[1].object.key).await.unwrap();
    let found = at(&fixture, &kinds, 9000).await;
    assert!(
        found.damage[0].reason.starts_with("the object is missing"),
        "{found:?}"
    );
}

#[tokio::test]
async fn every_kind_is_shown_and_what_is_not_auditable_is_said() {
    let text = |value: &str| value.to_owned();
    let denied = What::Set(
        ItemKey::NotAuditable(PartKey { part: text("") }),
        ItemValue::NotAuditable(PartValue {
            reason: text("CLUSTER_AUTHORIZATION_FAILED (31)"),
        }),
    );
    let topic = What::Set(
        ItemKey::Topic(TopicItemKey {
            topic: text("orders"),
        }),
        ItemValue::Topic(TopicItemValue {
            topic_id: None,
            replicas: vec![vec![1, 2], vec![2, 1]],
            internal: false,
            configs: Some(BTreeMap::from([(text("cleanup.policy"), Some(text("compact")))])),
        }),
    );
    let acl = What::Set(
        ItemKey::Acl(AclKey {
            resource_type: text("TOPIC"),
            resource: text("orders"),
            pattern: text("LITERAL"),
            principal: text("User:a"),
            host: text("*"),
            operation: text("READ"),
            permission: text("ALLOW"),
        }),
        ItemValue::Acl(AclValue {}),
    );
    let quota = What::Set(
        ItemKey::Quota(QuotaKey {
            entity: BTreeMap::from([(text("user"), None)]),
        }),
        ItemValue::Quota(QuotaValue {
            values: BTreeMap::from([(text("producer_byte_rate"), 1048576.0)]),
        }),
    );
    let user = What::Set(
        ItemKey::ScramUser(ScramUserKey { user: text("a") }),
        ItemValue::ScramUser(ScramUserValue {
            mechanisms: BTreeMap::from([(text("SCRAM-SHA-512"), 4096)]),
        }),
    );
    let fixture = stored(&[
        object(StateKind::Groups, 0, vec![(1, denied)]),
        object(StateKind::TopicConfigs, 0, vec![(1, topic)]),
        object(StateKind::Acls, 0, vec![(1, acl)]),
        object(StateKind::Quotas, 0, vec![(1, quota)]),
        object(StateKind::ScramUsers, 0, vec![(1, user)]),
    ])
    .await;
    let found = at(&fixture, &StateKind::ALL, 10).await;
    assert!(!found.is_whole(), "a part is not auditable");
    let shown = render(&found);
    for line in [
        "not auditable: all of it: CLUSTER_AUTHORIZATION_FAILED (31)",
        "orders           2         2  cleanup.policy=compact",
        "User:a     *     ALLOW       READ       TOPIC orders  LITERAL",
        "user <default>  producer_byte_rate=1048576",
        "a     SCRAM-SHA-512 (4096 iterations)",
    ] {
        assert!(shown.contains(line), "{line:?} is not in\n{shown}");
    }
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["kinds"][1]["topics"][0]["partitions"], 2);
    assert_eq!(
        json["kinds"][4]["scram_users"][0]["mechanisms"]["SCRAM-SHA-512"],
        4096
    );
}
