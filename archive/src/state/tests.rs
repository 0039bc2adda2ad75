#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::ids::WriterId;
use crate::ledger::{Commit, Entry, LedgerState, StateKind, StateObject};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn header(run: &str, seq: u64, full: bool) -> Header {
    Header {
        version: STATE_VERSION,
        backup_id: "daily".to_owned(),
        cluster_id: "c".to_owned(),
        kind: String::new(),
        run: run.to_owned(),
        seq,
        full,
        program: "test".to_owned(),
    }
}

fn offset_key(group: &str, partition: i32) -> ItemKey {
    ItemKey::Offset(OffsetKey {
        group: group.to_owned(),
        topic: "orders".to_owned(),
        partition,
    })
}

fn offset(offset: i64) -> ItemValue {
    ItemValue::Offset(OffsetValue {
        offset,
        leader_epoch: 3,
        metadata: String::new(),
        topic_id: None,
    })
}

fn object(run: &str, seq: u64, full: bool, lines: &[(i64, What)]) -> FinishedState {
    let mut writer = StateWriter::new(StateKind::Groups, header(run, seq, full)).unwrap();
    for (at_ms, what) in lines {
        writer.push(*at_ms, what.clone()).unwrap();
    }
    writer.finish(WriterId::AUDITOR, seq).unwrap()
}

fn ledger(objects: &[&FinishedState]) -> LedgerState {
    let mut state = LedgerState::new();
    state
        .apply(&Commit {
            backup_id: "daily".to_owned(),
            cluster_id: "c".to_owned(),
            writer: WriterId::AUDITOR,
            seq: 1,
            nonce: 1,
            created_at_ms: 1,
            program: "test".to_owned(),
            entries: objects
                .iter()
                .map(|each| Entry::State(each.object.clone()))
                .collect(),
        })
        .unwrap();
    state
}

/// The offset of partition 0 at a moment, and when that was last seen.
fn at(objects: &[&FinishedState], at_ms: i64) -> Result<(Option<i64>, Option<i64>), FoldError> {
    let ledger = ledger(objects);
    let mut fold = StateFold::until(at_ms);
    for object in objects_at(&ledger, StateKind::Groups, at_ms) {
        let stored = objects.iter().find(|each| each.object == *object).unwrap();
        fold.add(object, &stored.bytes)?;
    }
    let found = match fold.items().get(&offset_key("g", 0)) {
        Some(ItemValue::Offset(value)) => Some(value.offset),
        _ => None,
    };
    Ok((found, fold.seen_ms()))
}

fn set(at_ms: i64, to: i64) -> (i64, What) {
    (at_ms, What::Set(offset_key("g", 0), offset(to)))
}

fn gone(at_ms: i64) -> (i64, What) {
    (at_ms, What::Gone(offset_key("g", 0)))
}

#[test]
fn the_state_is_that_of_the_moment_asked_for() {
    let full = object("a", 0, true, &[set(100, 5), set(120, 6), (130, What::Seen)]);
    let changes = object("a", 1, false, &[set(150, 7), gone(160), (170, What::Seen)]);
    let again = object("b", 0, true, &[set(300, 1), (310, What::Seen)]);
    let all = [&full, &changes, &again];
    for (moment, expected) in [
        (99, (None, None)),
        (100, (Some(5), Some(100))),
        (125, (Some(6), Some(120))),
        (149, (Some(6), Some(130))),
        (150, (Some(7), Some(150))),
        (200, (None, Some(170))),
        (300, (Some(1), Some(300))),
        (999, (Some(1), Some(310))),
    ] {
        assert_eq!(at(&all, moment).unwrap(), expected, "at {moment}");
    }
}

#[test]
fn a_full_object_of_the_same_moment_stands_for_the_changes_before_it() {
    let first = object("a", 0, true, &[set(100, 5)]);
    let changes = object("a", 1, false, &[set(150, 7)]);
    let full = object("a", 2, true, &[set(150, 7)]);
    let later = object("a", 3, false, &[set(151, 8)]);
    let all = [&first, &changes, &full, &later];
    assert_eq!(at(&all, 150).unwrap().0, Some(7));
    assert_eq!(at(&all, 160).unwrap().0, Some(8));
}

#[test]
fn a_missing_object_is_noticed() {
    let full = object("a", 0, true, &[set(100, 5)]);
    let later = object("a", 2, false, &[set(150, 7)]);
    let refused = at(&[&full, &later], 200).unwrap_err();
    assert!(matches!(
        refused,
        FoldError::Missing {
            expected: 1,
            found: 2
        }
    ));
    assert_eq!(
        at(&[&full, &later], 120).unwrap().0,
        Some(5),
        "before it all is well"
    );
}

#[test]
fn every_kind_of_item_comes_back_as_it_was() {
    let text = |value: &str| value.to_owned();
    let items: Vec<(ItemKey, ItemValue)> = vec![
        (
            ItemKey::NotAuditable(PartKey { part: text("") }),
            ItemValue::NotAuditable(PartValue { reason: text("no") }),
        ),
        (
            ItemKey::Group(GroupKey {
                group: text("g \"\n"),
            }),
            ItemValue::Group(GroupValue {
                group_type: text("classic"),
                protocol: text("consumer"),
            }),
        ),
        (
            offset_key("g", 3),
            ItemValue::Offset(OffsetValue {
                offset: i64::MAX,
                leader_epoch: -1,
                metadata: text("\u{1f980}\0"),
                topic_id: Some(text("id")),
            }),
        ),
        (
            ItemKey::Topic(TopicItemKey { topic: text("t") }),
            ItemValue::Topic(TopicItemValue {
                topic_id: Some(text("id")),
                replicas: vec![vec![1, 2], vec![]],
                internal: true,
                configs: Some(BTreeMap::from([
                    (text("a"), Some(text("b"))),
                    (text("secret"), None),
                ])),
            }),
        ),
        (
            ItemKey::Acl(AclKey {
                resource_type: text("TOPIC"),
                resource: text("t"),
                pattern: text("PREFIXED"),
                principal: text("User:a"),
                host: text("*"),
                operation: text("READ"),
                permission: text("ALLOW"),
            }),
            ItemValue::Acl(AclValue {}),
        ),
        (
            ItemKey::Quota(QuotaKey {
                entity: BTreeMap::from([(text("user"), None), (text("client-id"), Some(text("x")))]),
            }),
            ItemValue::Quota(QuotaValue {
                values: BTreeMap::from([(text("producer_byte_rate"), 1_048_576.5)]),
            }),
        ),
        (
            ItemKey::ScramUser(ScramUserKey { user: text("a") }),
            ItemValue::ScramUser(ScramUserValue {
                mechanisms: BTreeMap::from([(text("SCRAM-SHA-512"), 4096)]),
            }),
        ),
        (
            ItemKey::Source(SourceKey {
                part: text("committed offsets"),
            }),
            ItemValue::Source(SourceValue {
                way: text("poll"),
                reason: text("TOPIC_AUTHORIZATION_FAILED (29)"),
            }),
        ),
    ];
    let mut lines: Vec<(i64, What)> = items
        .iter()
        .map(|(key, value)| (1, What::Set(key.clone(), value.clone())))
        .collect();
    lines.extend(items.iter().map(|(key, _)| (2, What::Gone(key.clone()))));
    lines.push((3, What::Seen));
    let stored = object("a", 0, true, &lines);
    let reader = StateReader::open(&stored.object, &stored.bytes).unwrap();
    assert_eq!(reader.header().kind, "groups");
    let read: Vec<(i64, What)> = reader
        .map(|line| line.unwrap())
        .map(|line| (line.at_ms, line.what))
        .collect();
    assert_eq!(read, lines);
    assert_eq!((stored.object.first_at_ms, stored.object.last_at_ms), (1, 3));
}

#[test]
fn lines_of_a_newer_version_are_passed_over_and_counted() {
    for text in [
        r#"{"at":1,"share_offset":{"group":"g"}}"#,
        r#"{"at":1,"gone":{"share_offset":{"group":"g"}}}"#,
    ] {
        let line = Line::decode(text.as_bytes()).unwrap();
        assert_eq!(line.what, What::Unknown, "{text}");
    }
    let more = r#"{"at":1,"offset":{"group":"g","topic":"orders","partition":0,"offset":5,"leader_epoch":3,"new":1}}"#;
    let line = Line::decode(more.as_bytes()).unwrap();
    assert_eq!(line.what, What::Set(offset_key("g", 0), offset(5)));
}

#[test]
fn a_header_of_a_newer_version_is_told_from_damage() {
    let header = br#"{"version":2,"what":"ever"}"#;
    assert_eq!(Header::decode(header), Ok(Err(2)));
    assert!(Header::decode(b"{}").is_err());
}

#[test]
fn what_is_cut_changed_or_of_another_kind_is_refused() {
    let stored = object("a", 0, true, &[set(100, 5)]);
    let mut other = stored.object.clone();
    other.kind = StateKind::Acls;
    let refused = StateReader::open(&other, &stored.bytes).unwrap_err();
    assert!(matches!(refused, StateError::Elsewhere { .. }), "{refused}");
    for at in 0..stored.bytes.len() {
        let cut = &stored.bytes[..at];
        assert!(matches!(
            StateReader::open(&stored.object, cut),
            Err(StateError::Length { .. })
        ));
        let mut changed = stored.bytes.to_vec();
        changed[at] ^= 1;
        assert!(matches!(
            StateReader::open(&stored.object, &changed),
            Err(StateError::Checksum { .. })
        ));
    }
}

/// The ledger's entry of whatever bytes.
fn claimed(bytes: &[u8]) -> StateObject {
    StateObject {
        kind: StateKind::Groups,
        key: String::new(),
        first_at_ms: 0,
        last_at_ms: 0,
        full: true,
        bytes: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
    }
}

#[test]
fn a_line_without_an_end_is_refused() {
    let header = serde_json::to_string(&Header {
        kind: "groups".to_owned(),
        ..header("a", 0, true)
    })
    .unwrap();
    let text = format!("{header}\n{{\"at\":1,\"seen\":true}}");
    let bytes = zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    let mut reader = StateReader::open(&claimed(&bytes), &bytes).unwrap();
    assert!(matches!(
        reader.next(),
        Some(Err(StateError::Line { number: 2, .. }))
    ));
    assert!(reader.next().is_none());
}

proptest! {
    #[test]
    fn no_content_makes_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let header = serde_json::to_string(&Header { kind: "groups".to_owned(), ..header("a", 0, true) }).unwrap();
        let content = [header.as_bytes(), b"\n", &text].concat();
        let bytes = zstd::bulk::compress(&content, 1).unwrap();
        for bytes in [bytes.as_slice(), text.as_slice()] {
            if let Ok(reader) = StateReader::open(&claimed(bytes), bytes) {
                let _ = reader.count();
            }
        }
    }

    #[test]
    fn no_line_makes_the_decoder_panic(text in r#"\{"at":[0-9]{1,20},"(gone|offset|seen|group)":[\PC]{0,40}\}"#) {
        let _ = Line::decode(text.as_bytes());
    }

    /// The fold agrees with replaying all changes up to the moment, wherever objects begin and end.
    #[test]
    fn the_fold_agrees_with_a_replay(
        changes in proptest::collection::vec((0..3i32, proptest::option::of(0..100i64), any::<bool>(), any::<bool>()), 1..40),
        moment in 0..45i64,
    ) {
        let mut state = Items::new();
        let mut expected = Items::new();
        let mut objects: Vec<FinishedState> = Vec::new();
        let mut pending: Vec<(i64, What)> = Vec::new();
        let mut full = true;
        for (index, (partition, to, ends, renews)) in changes.into_iter().enumerate() {
            let at_ms = index as i64 + 1;
            let key = offset_key("g", partition);
            match to {
                Some(to) => {
                    state.insert(key.clone(), offset(to));
                    pending.push((at_ms, What::Set(key, offset(to))));
                }
                None => {
                    state.remove(&key);
                    pending.push((at_ms, What::Gone(key)));
                }
            }
            if at_ms <= moment {
                expected = state.clone();
            }
            if ends {
                objects.push(object("a", objects.len() as u64, full, &std::mem::take(&mut pending)));
                full = false;
                if renews {
                    let mut lines: Vec<(i64, What)> = state
                        .iter()
                        .map(|(key, value)| (at_ms, What::Set(key.clone(), value.clone())))
                        .collect();
                    lines.push((at_ms, What::Seen));
                    objects.push(object("a", objects.len() as u64, true, &lines));
                }
            }
        }
        objects.push(object("a", objects.len() as u64, full, &[pending, vec![(100, What::Seen)]].concat()));
        let stored: Vec<&FinishedState> = objects.iter().collect();
        let ledger = ledger(&stored);
        let mut fold = StateFold::until(moment);
        for object in objects_at(&ledger, StateKind::Groups, moment) {
            let stored = objects.iter().find(|each| each.object == *object).unwrap();
            fold.add(object, &stored.bytes).unwrap();
        }
        prop_assert_eq!(fold.items(), &expected);
    }
}
