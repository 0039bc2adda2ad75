use super::*;
use proptest::prelude::*;

fn segment() -> SegmentName {
    SegmentName {
        backup_id: "daily".into(),
        topic: "orders.v1".into(),
        partition: 3,
        unconfirmed: false,
        incarnation: Uuid::from_u128(0xfeed),
        first_offset: 1234,
        writer: WriterId(0xabc),
        session: SessionId(7),
        counter: 42,
        codec: Codec::Zstd,
    }
}

#[test]
fn keys_are_spelled_as_documented() {
    let key = segment_key(&segment()).expect("usable");
    assert_eq!(
        key,
        "daily/topics/orders.v1/partition=3/segment-0000000000000000000000000000feed-\
         00000000000000001234-0000000000000abc.7-00000042.zst"
    );
    assert_eq!(manifest_key("daily").expect("usable"), "daily/manifest.json");
    let commit = commit_key("daily", WriterId(0xabc), 9).expect("usable");
    assert_eq!(
        commit,
        "daily/ledger/0000000000000abc/00000000000000000009.commit"
    );
    assert_eq!(lease_key("daily").expect("usable"), "daily/auditor.lease");
    let state = state_key("daily", StateKind::TopicConfigs, 1234, WriterId::AUDITOR, 0xbeef).expect("usable");
    assert_eq!(
        state,
        "daily/state/topic-configs/00000000000000001234-ffffffffffffffff-000000000000beef.jsonl.zst"
    );
    assert!(
        parse_key(&state.replace("topic-configs", "kind-2")).is_err(),
        "one spelling only"
    );
    assert_eq!(buffer_files::data_file(1), "00000000000000000001.wal");
}

#[test]
fn what_is_not_built_here_is_not_known() {
    let key = segment_key(&segment()).expect("usable");
    for strange in [
        "",
        "daily",
        "daily/",
        "daily/manifest.json/",
        "../manifest.json",
        "daily/ledger/0000000000000abc/9.commit",
        "daily/ledger/0000000000000ABC/00000000000000000009.commit",
        &key.replace("partition=3", "partition=+3"),
        &key.replace("partition=3", "partition=-3"),
        &key.replace(".zst", ".zip"),
        &key.replace("orders.v1", ".."),
        &format!("{key}.tmp"),
    ] {
        assert!(parse_key(strange).is_err(), "{strange}");
    }
    for name in [
        "1.wal",
        "00000000000000000001.WAL",
        "+0000000000000000001.wal",
        "00000000000000000001",
    ] {
        assert_eq!(buffer_files::parse_data_file(name), None, "{name}");
    }
}

#[test]
fn ids_that_would_leave_their_place_are_refused() {
    for id in ["", ".", "..", "...", "a/b", "a b", "ä", &"x".repeat(129)] {
        assert!(check_backup_id(id).is_err(), "{id}");
    }
    assert!(check_backup_id("nightly-2026.11_a").is_ok());
    for topic in ["", ".", "..", "a/b", "a b", &"x".repeat(250)] {
        assert!(check_topic(topic).is_err(), "{topic}");
    }
}

proptest! {
    #[test]
    fn every_key_that_is_built_is_parsed_back(
        backup_id in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}",
        topic in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,30}",
        numbers in (0..=i32::MAX, 0..=i64::MAX, any::<u64>(), any::<u64>(), any::<u32>(), any::<u128>()),
        unconfirmed: bool,
        codec in prop::sample::select(Codec::ALL.to_vec()),
    ) {
        let (partition, first_offset, writer, session, counter, random) = numbers;
        let name = SegmentName {
            backup_id: backup_id.clone(), topic, partition, unconfirmed,
            incarnation: Uuid::from_u128(random), first_offset, writer: WriterId(writer),
            session: SessionId(session), counter, codec,
        };
        let key = segment_key(&name).expect("usable");
        prop_assert_eq!(parse_segment_key(&key), Ok(name.clone()));
        prop_assert_eq!(parse_key(&segment_index_key(&key)), Ok(ObjectName::SegmentIndex(name)));
        let commit = commit_key(&backup_id, WriterId(writer), session).expect("usable");
        let parts = CommitName { backup_id: backup_id.clone(), writer: WriterId(writer), seq: session };
        prop_assert_eq!(parse_commit_key(&commit), Ok(parts));
        let probe = probe_key(&backup_id, random).expect("usable");
        let parts = ObjectName::Probe { backup_id: backup_id.clone(), nonce: random };
        prop_assert_eq!(parse_key(&probe), Ok(parts));
        let state = StateName {
            backup_id: backup_id.clone(), kind: StateKind::from_code(random as u8), first_at_ms: first_offset,
            writer: WriterId(writer), nonce: session,
        };
        let key = state_key(&backup_id, state.kind, first_offset, state.writer, session).expect("usable");
        prop_assert_eq!(parse_key(&key), Ok(ObjectName::State(state)));
        let lease = lease_key(&backup_id).expect("usable");
        prop_assert_eq!(parse_key(&lease), Ok(ObjectName::Lease { backup_id: backup_id.clone() }));
        let manifest = manifest_key(&backup_id).expect("usable");
        prop_assert_eq!(parse_manifest_key(&manifest), Ok(backup_id));
        prop_assert_eq!(buffer_files::parse_data_file(&buffer_files::data_file(writer)), Some(writer));
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC{0,80}") {
        let _ = parse_key(&text);
        let _ = buffer_files::parse_data_file(&text);
    }
}
