#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use teeline_archive::WriterId;
use teeline_archive::ledger::{Commit, StateObject};
use teeline_archive::names::{ObjectName, parse_key};
use teeline_archive::state::{
    GroupKey, GroupValue, ItemKey, ItemValue, Items, OffsetKey, OffsetValue, StateFold, TopicItemKey,
    TopicItemValue, What, objects_at,
};
use uuid::Uuid;

use super::*;

const MINUTE: i64 = 60_000;

struct Scene {
    store: Store,
    recorder: Recorder,
    ledger: LedgerState,
    objects: Vec<StateObject>,
}

impl Scene {
    fn new() -> Self {
        Self::with(Store::in_memory(), LedgerState::new(), Settings::default())
    }

    fn with(store: Store, ledger: LedgerState, settings: Settings) -> Self {
        let recorder = Recorder::new(store.clone(), "daily", "c", &ledger, settings);
        Self {
            store,
            recorder,
            ledger,
            objects: Vec::new(),
        }
    }

    fn see(&mut self, at_ms: i64, seen: Observation) {
        self.recorder.last_ms = at_ms;
        self.recorder.note(at_ms, vec![(StateKind::Groups, Ok(seen))]);
    }

    async fn flush(&mut self, now_ms: i64, force: bool) -> usize {
        let entries = self.recorder.flush(now_ms, force).await.unwrap();
        let seq = self
            .ledger
            .chain(WriterId::AUDITOR)
            .map_or(0, |chain| chain.last_seq)
            + 1;
        for entry in &entries {
            let Entry::State(object) = entry else {
                panic!("another entry: {entry:?}")
            };
            assert!(
                matches!(parse_key(&object.key), Ok(ObjectName::State(_))),
                "{object:?}"
            );
            self.objects.push(object.clone());
        }
        let commit = Commit {
            backup_id: "daily".to_owned(),
            cluster_id: "c".to_owned(),
            writer: WriterId::AUDITOR,
            seq,
            nonce: u128::from(seq),
            created_at_ms: now_ms,
            program: "test".to_owned(),
            entries: entries.clone(),
        };
        self.ledger.apply(&commit).unwrap();
        entries.len()
    }

    async fn at(&self, at_ms: i64) -> StateFold {
        let mut fold = StateFold::until(at_ms);
        for object in objects_at(&self.ledger, StateKind::Groups, at_ms) {
            let bytes = self.store.get(&object.key).await.unwrap();
            fold.add(object, &bytes).unwrap();
        }
        fold
    }

    async fn offsets_at(&self, at_ms: i64) -> Vec<(String, i64)> {
        offsets(self.at(at_ms).await.items())
    }
}

fn offsets(items: &Items) -> Vec<(String, i64)> {
    let offset = |(key, value): (&ItemKey, &ItemValue)| match (key, value) {
        (ItemKey::Offset(key), ItemValue::Offset(value)) => Some((key.group.clone(), value.offset)),
        _ => None,
    };
    items.iter().filter_map(offset).collect()
}

fn key(group: &str) -> ItemKey {
    ItemKey::Offset(OffsetKey {
        group: group.to_owned(),
        topic: "orders".to_owned(),
        partition: 0,
    })
}

fn seen(groups: &[(&str, i64)]) -> Observation {
    let mut items = Items::new();
    for (group, offset) in groups {
        let value = OffsetValue {
            offset: *offset,
            leader_epoch: -1,
            metadata: String::new(),
            topic_id: None,
        };
        items.insert(key(group), ItemValue::Offset(value));
        let group = GroupKey {
            group: (*group).to_owned(),
        };
        let value = GroupValue {
            group_type: "classic".to_owned(),
            protocol: "consumer".to_owned(),
        };
        items.insert(ItemKey::Group(group), ItemValue::Group(value));
    }
    Observation {
        items,
        ..Observation::default()
    }
}

fn own(group: &str, offset: i64) -> (String, i64) {
    (group.to_owned(), offset)
}

#[tokio::test]
async fn the_state_at_each_moment_is_what_was_seen_then() {
    let mut scene = Scene::new();
    scene.see(1000, seen(&[("a", 1), ("b", 1)]));
    assert_eq!(
        scene.flush(1000, false).await,
        1,
        "the first object does not wait"
    );
    scene.see(11_000, seen(&[("a", 2), ("b", 1)]));
    scene.see(21_000, seen(&[("a", 3)]));
    assert_eq!(scene.flush(21_000, false).await, 0, "the next one does");
    scene.see(31_000, seen(&[("a", 3), ("c", 9)]));
    assert_eq!(scene.flush(61_000, false).await, 1);
    assert!(scene.objects[0].full && !scene.objects[1].full);
    assert_eq!(scene.offsets_at(999).await, []);
    assert_eq!(scene.offsets_at(1000).await, [own("a", 1), own("b", 1)]);
    assert_eq!(scene.offsets_at(20_999).await, [own("a", 2), own("b", 1)]);
    assert_eq!(scene.offsets_at(21_000).await, [own("a", 3)]);
    assert_eq!(scene.offsets_at(99_000).await, [own("a", 3), own("c", 9)]);
    assert_eq!(scene.at(99_000).await.seen_ms(), Some(31_000));
}

#[tokio::test]
async fn what_does_not_change_is_not_stored_again_but_shown_to_be_watched() {
    let mut scene = Scene::new();
    scene.see(0, seen(&[("a", 1)]));
    scene.flush(0, false).await;
    let mut stored = 0;
    for minute in 1..=120 {
        scene.see(minute * MINUTE, seen(&[("a", 1)]));
        stored += scene.flush(minute * MINUTE, false).await;
    }
    assert_eq!(stored, 2, "one object an hour says that somebody looked");
    assert_eq!(scene.at(i64::MAX).await.seen_ms(), Some(120 * MINUTE));
}

#[tokio::test]
async fn what_could_not_be_seen_is_not_gone() {
    let mut scene = Scene::new();
    scene.see(1, seen(&[("a", 1), ("b", 1), ("c", 1)]));
    let mut partly = seen(&[("c", 2)]);
    partly.unseen.groups.insert("a".to_owned());
    partly.deny("group a", "GROUP_AUTHORIZATION_FAILED (30)".to_owned());
    scene.see(2, partly);
    scene.flush(3, true).await;
    assert_eq!(scene.offsets_at(2).await, [own("a", 1), own("c", 2)]);
    let denied = |items: &Items| items.keys().filter(|key| key.word() == "not_auditable").count();
    assert_eq!(denied(scene.at(2).await.items()), 1);
    assert_eq!(scene.recorder.book(StateKind::Groups).not_auditable(), 1);
    // Seen again: what was said of it is taken back.
    scene.see(4, seen(&[("a", 5), ("c", 2)]));
    scene.flush(5, true).await;
    assert_eq!(scene.offsets_at(4).await, [own("a", 5), own("c", 2)]);
    assert_eq!(denied(scene.at(4).await.items()), 0);
}

#[tokio::test]
async fn the_whole_state_is_said_again_after_a_day_and_after_many_changes() {
    let settings = Settings {
        full_bytes: 5_000,
        ..Settings::default()
    };
    let mut scene = Scene::with(Store::in_memory(), LedgerState::new(), settings);
    for minute in 0..200 {
        scene.see(minute * MINUTE, seen(&[("a", minute), ("b", 0)]));
        scene.flush(minute * MINUTE, false).await;
    }
    let full = scene.objects.iter().filter(|object| object.full).count();
    assert!((2..10).contains(&full), "{full} full objects");
    for minute in [0, 1, 77, 150, 199] {
        assert_eq!(
            scene.offsets_at(minute * MINUTE).await,
            [own("a", minute), own("b", 0)]
        );
    }
    let read = objects_at(&scene.ledger, StateKind::Groups, i64::MAX).len();
    assert!(read < 190, "{read} objects are read");

    let mut scene = Scene::new();
    for hour in 0..60 {
        scene.see(hour * 60 * MINUTE, seen(&[("a", 1)]));
        scene.flush(hour * 60 * MINUTE, false).await;
    }
    assert_eq!(scene.objects.iter().filter(|object| object.full).count(), 3);
}

#[tokio::test]
async fn a_store_that_is_away_loses_nothing_that_fits() {
    let mut scene = Scene::new();
    scene.see(1, seen(&[("a", 1)]));
    let store = scene.recorder.store.clone();
    let nowhere = tempfile::tempdir().unwrap();
    let storage = teeline_config::Storage::filesystem(nowhere.path());
    scene.recorder.store = Store::open(&storage).unwrap();
    // A file where a directory should be.
    std::fs::remove_dir_all(nowhere.path()).unwrap();
    std::fs::write(nowhere.path(), b"").unwrap();
    assert!(scene.recorder.flush(2, true).await.is_err());
    scene.see(3, seen(&[("a", 2)]));
    assert!(scene.recorder.flush(4, true).await.is_err());
    scene.recorder.store = store;
    assert_eq!(
        scene.flush(5, true).await,
        2,
        "what was finished before the store went, and what came after"
    );
    assert_eq!(scene.offsets_at(1).await, [own("a", 1)]);
    assert_eq!(scene.offsets_at(3).await, [own("a", 2)]);
    std::fs::remove_file(nowhere.path()).unwrap();
    std::fs::create_dir(nowhere.path()).unwrap();
}

#[tokio::test]
async fn changes_beyond_the_limit_are_given_up_for_the_state_they_lead_to() {
    let settings = Settings {
        pending_bytes_max: 2_000,
        ..Settings::default()
    };
    let mut scene = Scene::with(Store::in_memory(), LedgerState::new(), settings);
    scene.see(1, seen(&[("a", 0)]));
    scene.flush(1, true).await;
    for at in 2..100 {
        scene.see(at, seen(&[("a", at)]));
    }
    scene.flush(100, true).await;
    assert_eq!(scene.offsets_at(1).await, [own("a", 0)]);
    assert_eq!(scene.offsets_at(99).await, [own("a", 99)]);
}

#[tokio::test]
async fn entries_that_were_not_committed_are_not_leant_on() {
    let mut scene = Scene::new();
    scene.see(1, seen(&[("a", 1)]));
    scene.flush(1, true).await;
    scene.see(2, seen(&[("a", 2)]));
    assert_eq!(scene.recorder.flush(3, true).await.unwrap().len(), 1, "and lost");
    scene.recorder.start_over();
    scene.see(4, seen(&[("a", 3), ("b", 1)]));
    scene.flush(5, true).await;
    assert_eq!(scene.offsets_at(3).await, [own("a", 1)]);
    assert_eq!(scene.offsets_at(4).await, [own("a", 3), own("b", 1)]);
}

#[tokio::test]
async fn the_next_recorder_goes_on_behind_the_last_even_if_its_clock_is_late() {
    let mut scene = Scene::new();
    scene.see(90_000, seen(&[("a", 1)]));
    scene.flush(90_000, true).await;
    let mut next = Scene::with(scene.store, scene.ledger, Settings::default());
    // Ten seconds late.
    let at_ms = 80_000.max(next.recorder.last_ms + 1);
    next.see(at_ms, seen(&[("a", 7)]));
    next.flush(80_000, true).await;
    assert_eq!(next.offsets_at(90_000).await, [own("a", 1)]);
    assert_eq!(next.offsets_at(90_001).await, [own("a", 7)]);
}

#[test]
fn offsets_are_attributed_only_where_a_name_kept_its_id() {
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let ids = |id: Uuid| TopicIds::from([("orders".to_owned(), id)]);
    for (before, after, expected) in [
        (ids(first), ids(first), Some(first.to_string())),
        (ids(first), ids(second), None),
        (ids(first), TopicIds::new(), None),
        (TopicIds::new(), ids(first), None),
    ] {
        let mut found = seen(&[("a", 1)]);
        found.attribute(&before, &after);
        let Some(ItemValue::Offset(value)) = found.items.get(&key("a")) else {
            panic!("no offset")
        };
        assert_eq!(value.topic_id, expected);
    }
}

#[test]
fn a_kind_that_is_empty_is_known_to_be_empty() {
    let mut recorder = Scene::new().recorder;
    let key = ItemKey::Topic(TopicItemKey {
        topic: "orders".to_owned(),
    });
    let value = ItemValue::Topic(TopicItemValue {
        topic_id: None,
        replicas: vec![vec![1]],
        internal: false,
        configs: Some(BTreeMap::new()),
    });
    let topics = Observation {
        items: Items::from([(key, value)]),
        ..Observation::default()
    };
    let report = recorder.note(
        7,
        vec![
            (StateKind::TopicConfigs, Ok(topics)),
            (StateKind::Acls, Ok(Observation::default())),
        ],
    );
    assert_eq!((report.at_ms, report.changes), (7, 1));
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let entries = tokio.block_on(recorder.flush(8, false)).unwrap();
    assert_eq!(entries.len(), 2, "an object of no items says that there are none");
}

fn commit(group: &str, offset: i64) -> What {
    let value = OffsetValue {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
        topic_id: None,
    };
    What::Set(key(group), ItemValue::Offset(value))
}

impl Scene {
    fn apply(&mut self, at_ms: i64, changes: Vec<(i64, What)>) -> u64 {
        let (identity, settings) = (self.recorder.identity.clone(), self.recorder.settings);
        let applied = self
            .recorder
            .groups_book()
            .apply(at_ms, changes, &identity, &settings);
        applied.unwrap()
    }
}

#[tokio::test]
async fn what_the_log_told_between_two_looks_is_there_with_its_own_time() {
    let mut scene = Scene::new();
    scene.see(1_000, seen(&[("a", 1), ("b", 1)]));
    scene.flush(1_000, true).await;
    let changes = vec![
        (2_000, commit("a", 2)),
        (3_000, What::Gone(key("b"))),
        (4_000, commit("a", 2)),
        (5_000, commit("a", 3)),
    ];
    assert_eq!(scene.apply(11_000, changes), 3, "the same again is no change");
    scene.recorder.groups_book().seen_at(11_000);
    assert_eq!(scene.flush(61_000, false).await, 1);
    for (at, expected) in [
        (1_999, vec![own("a", 1), own("b", 1)]),
        (2_000, vec![own("a", 2), own("b", 1)]),
        (3_000, vec![own("a", 2)]),
        (5_000, vec![own("a", 3)]),
    ] {
        assert_eq!(scene.offsets_at(at).await, expected, "at {at}");
    }
    assert_eq!(scene.at(i64::MAX).await.seen_ms(), Some(11_000));
}

#[tokio::test]
async fn times_of_other_clocks_lie_between_what_was_said_and_now() {
    let mut scene = Scene::new();
    scene.see(10_000, seen(&[("a", 1)]));
    scene.flush(10_000, true).await;
    scene.apply(20_000, vec![(-1, commit("a", 2)), (90_000, commit("b", 1))]);
    scene.recorder.groups_book().seen_at(20_000);
    scene.flush(20_000, true).await;
    // The next object goes on behind it.
    scene.apply(30_000, vec![(15_000, commit("a", 3))]);
    scene.flush(30_000, true).await;
    assert_eq!(scene.offsets_at(9_999).await, []);
    assert_eq!(scene.offsets_at(10_000).await, [own("a", 2)]);
    assert_eq!(scene.offsets_at(20_000).await, [own("a", 3), own("b", 1)]);
    let times: Vec<_> = scene
        .objects
        .iter()
        .map(|object| (object.first_at_ms, object.last_at_ms))
        .collect();
    assert_eq!(times, [(10_000, 10_000), (10_000, 20_000), (20_000, 20_000)]);
}

#[tokio::test]
async fn many_changes_are_stored_before_their_time() {
    let settings = Settings {
        flush_bytes: 4_000,
        ..Settings::default()
    };
    let mut scene = Scene::with(Store::in_memory(), LedgerState::new(), settings);
    scene.see(0, seen(&[("a", 0)]));
    scene.flush(0, true).await;
    scene.apply(10, vec![(1, commit("a", 1))]);
    assert_eq!(scene.flush(10, false).await, 0);
    let changes = (2..100).map(|at| (at, commit("a", at))).collect();
    scene.apply(100, changes);
    assert_eq!(scene.flush(100, false).await, 1);
    assert_eq!(scene.offsets_at(50).await, [own("a", 50)]);
}

#[tokio::test]
async fn what_the_log_told_meanwhile_counts_more_than_what_coordinators_answered() {
    let mut scene = Scene::new();
    scene.see(1_000, seen(&[("a", 1), ("b", 1), ("c", 1)]));
    // Asked at 2 s; meanwhile `a` went on and `b` was removed; of `c` the log knows nothing.
    scene.apply(
        3_000,
        vec![(2_000, commit("a", 9)), (2_000, What::Gone(key("b")))],
    );
    let mut asked = seen(&[("a", 5), ("b", 1), ("c", 4)]);
    let touched = [key("a"), key("b")].into_iter().collect();
    let corrected = scene.recorder.take_words_of_log(&mut asked, &touched);
    assert_eq!(corrected, 1, "only `c` differs without a reason");
    assert_eq!(offsets(&asked.items), [own("a", 9), own("c", 4)]);
}
