use crate::samples::{
    CLUSTER, EPOCH_MS, SESSION, WRITER, commits, identity, listed, sample_audit_commit, sample_commit,
};
use bytes::Bytes;
use proptest::prelude::*;
use teeline_archive::ledger::{
    Absence, AbsenceEvidence, AbsenceReason, Applied, Commit, CommitError, Entry, LedgerError, LedgerState,
    TopicKey, TopicSnapshot,
};
use teeline_archive::segment::{Origin, SegmentInfo};
use teeline_archive::{Lsn, OffsetRange, WriterId};
use uuid::Uuid;

fn commit(writer: u64, seq: u64, entries: Vec<Entry>) -> Commit {
    Commit {
        writer: WriterId(writer),
        seq,
        nonce: u128::from(writer * 1000 + seq),
        entries,
        ..sample_commit()
    }
}

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn segment(writer: u64, counter: u32, first: i64, last: i64) -> Entry {
    Entry::Segment(listed(WriterId(writer), counter, first, last, Origin::Tee))
}

#[test]
fn a_commit_is_read_back_and_any_flipped_bit_is_noticed() {
    let bytes = sample_commit().encode().unwrap();
    assert_eq!(Commit::decode(&bytes).unwrap(), sample_commit());
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Commit::decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(
            matches!(Commit::decode(&bytes[..len]), Err(CommitError::Torn { .. })),
            "{len}"
        );
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(
        Commit::decode(&longer),
        Err(CommitError::Corrupt { .. })
    ));
}

#[test]
fn an_entry_that_must_be_understood_is_not_skipped() {
    let unknown = Entry::Unknown {
        kind: 999,
        payload: Bytes::from_static(b"!"),
    };
    let mut bytes = commit(1, 1, vec![unknown]).encode().unwrap().to_vec();
    assert!(Commit::decode(&bytes).is_ok());
    // The entry is the last thing in the commit: kind, flags, length, one byte.
    let flags = bytes.len() - 1 - 4 - 2;
    bytes[flags] = 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]).to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    assert_eq!(Commit::decode(&bytes), Err(CommitError::Entry { kind: 999 }));
}

/// What a reader makes of a commit with one entry of a kind that it has never heard of: the entry's own kind is changed.
fn read_by_one_that_does_not_know_it(entry: Entry) -> Result<Commit, CommitError> {
    let of = |entries| commit(1, 1, entries).encode().unwrap().to_vec();
    let kind_at = of(Vec::new()).len();
    let mut bytes = of(vec![entry]);
    bytes[kind_at..kind_at + 2].copy_from_slice(&999u16.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]).to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    Commit::decode(&bytes)
}

#[test]
fn a_reader_that_does_not_know_what_takes_something_away_refuses_the_commit() {
    let entries = sample_audit_commit().entries;
    let mut refused = Vec::new();
    for entry in entries {
        let kind = entry.kind();
        match read_by_one_that_does_not_know_it(entry) {
            Ok(read) => assert!(matches!(read.entries[..], [Entry::Unknown { kind: 999, .. }])),
            Err(error) => {
                assert_eq!(error, CommitError::Entry { kind: 999 });
                refused.push(kind);
            }
        }
    }
    assert_eq!(refused, [7, 10], "superseded and replaced");
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = sample_commit().encode().unwrap().to_vec();
    bytes[8] = 7;
    assert!(matches!(Commit::decode(&bytes), Err(CommitError::Corrupt { .. })));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..]).to_le_bytes();
    bytes[16..20].copy_from_slice(&crc);
    assert_eq!(Commit::decode(&bytes), Err(CommitError::Version { version: 7 }));
}

#[test]
fn the_sample_commit_folds_into_what_it_says() {
    let mut state = LedgerState::new();
    assert_eq!(state.apply(&sample_commit()), Ok(Applied::New));
    let incarnation = identity(Origin::Tee).incarnation;
    let partition = state.partition("orders", incarnation, 2).unwrap();
    assert_eq!(partition.segments().len(), 1);
    assert_eq!(partition.evidence().len(), 1);
    assert_eq!(partition.held().ranges(), [range(100, 105), range(110, 113)]);
    assert_eq!(partition.holes(), [range(108, 109)], "106 and 107 are explained");
    assert_eq!(state.source_brokers(), ["broker-1:9092", "broker-2:9092"]);
    assert_eq!(state.source_lost_at_ms(), Some(EPOCH_MS + 52));
    assert_eq!(
        (state.backup_id(), state.cluster_id()),
        (Some("daily"), Some(CLUSTER))
    );
    assert_eq!(state.unknown_entries(), 1);
    let (_, topic) = state.latest_incarnation("orders").unwrap();
    assert_eq!(topic.partition_count(), 4);
    assert_eq!(topic.snapshot().unwrap().replication_factor, 3);
    let key = TopicKey {
        name: "orders".into(),
        incarnation,
    };
    assert_eq!(state.committed_lsn(WRITER, SESSION, &key, 2), Some(Lsn(99)));
    assert_eq!(state.next_counter(WRITER, SESSION), 8);
    assert_eq!((state.next_seq(WRITER), state.next_seq(WriterId(5))), (2, 1));
}

#[test]
fn a_chain_without_a_link_or_with_two_is_refused() {
    let mut state = LedgerState::new();
    state.apply(&commit(1, 1, vec![segment(1, 0, 0, 9)])).unwrap();
    assert_eq!(state.apply(&commit(1, 1, vec![])), Ok(Applied::Again));
    let fork = Commit {
        nonce: 5,
        ..commit(1, 1, vec![])
    };
    assert!(matches!(
        state.apply(&fork),
        Err(LedgerError::Fork { seq: 1, .. })
    ));
    let gap = state.apply(&commit(1, 3, vec![]));
    assert!(matches!(
        gap,
        Err(LedgerError::Gap {
            expected: 2,
            found: 3,
            ..
        })
    ));
    assert!(matches!(
        state.apply(&commit(2, 2, vec![])),
        Err(LedgerError::Gap { expected: 1, .. })
    ));
    assert!(matches!(
        state.apply(&commit(2, 0, vec![])),
        Err(LedgerError::Gap { .. })
    ));
    state.apply(&commit(1, 2, vec![])).unwrap();
}

#[test]
fn a_refused_commit_changes_nothing() {
    let mut state = LedgerState::new();
    state.apply(&commit(1, 1, vec![segment(1, 0, 0, 9)])).unwrap();
    let before = state.clone();
    let other = listed(WriterId(1), 0, 0, 5, Origin::Tee);
    let twice = state.apply(&commit(1, 2, vec![segment(1, 1, 10, 19), Entry::Segment(other)]));
    assert!(
        matches!(twice, Err(LedgerError::SegmentTwice { .. })),
        "{twice:?}"
    );
    let misnamed = SegmentInfo {
        start_offset: 3,
        ..listed(WriterId(1), 9, 30, 39, Origin::Tee)
    };
    assert!(matches!(
        state.apply(&commit(1, 2, vec![Entry::Segment(misnamed)])),
        Err(LedgerError::Segment(_))
    ));
    let cluster = Commit {
        cluster_id: "other".into(),
        ..commit(1, 2, vec![])
    };
    assert!(matches!(
        state.apply(&cluster),
        Err(LedgerError::OtherCluster { .. })
    ));
    let backup = Commit {
        backup_id: "other".into(),
        ..commit(1, 2, vec![])
    };
    assert!(matches!(
        state.apply(&backup),
        Err(LedgerError::OtherBackup { .. })
    ));
    let inside = [
        listed(WriterId(1), 4, 50, 59, Origin::Tee),
        listed(WriterId(1), 4, 50, 58, Origin::Tee),
    ];
    let inside = inside.into_iter().map(Entry::Segment).collect();
    assert!(matches!(
        state.apply(&commit(1, 2, inside)),
        Err(LedgerError::SegmentTwice { .. })
    ));
    assert_eq!(state, before);
}

#[test]
fn a_commit_made_before_the_cluster_answered_binds_to_nothing() {
    let mut state = LedgerState::new();
    state
        .apply(&Commit {
            cluster_id: String::new(),
            ..commit(1, 1, vec![])
        })
        .unwrap();
    assert_eq!(state.cluster_id(), None);
    state.apply(&commit(1, 2, vec![])).unwrap();
    state
        .apply(&Commit {
            cluster_id: String::new(),
            ..commit(1, 3, vec![])
        })
        .unwrap();
    assert_eq!(state.cluster_id(), Some(CLUSTER));
}

#[test]
fn holes_are_found_across_writers_and_unconfirmed_segments_hold_nothing() {
    let incarnation = identity(Origin::Tee).incarnation;
    let mut state = LedgerState::new();
    let gappy = SegmentInfo {
        gaps: vec![range(3, 4)],
        ..listed(WriterId(1), 0, 0, 9, Origin::Tee)
    };
    let unconfirmed = Entry::Segment(listed(WriterId(1), 1, 10, 14, Origin::Unconfirmed));
    state
        .apply(&commit(1, 1, vec![Entry::Segment(gappy), unconfirmed]))
        .unwrap();
    state
        .apply(&commit(2, 1, vec![segment(2, 0, 20, 29), segment(2, 1, 4, 4)]))
        .unwrap();
    let partition = state.partition("orders", incarnation, 2).unwrap();
    assert_eq!(partition.holes(), [range(3, 3), range(10, 19)]);
    assert_eq!(partition.unconfirmed().len(), 1);
    let absence = Absence {
        topic: "orders".into(),
        incarnation,
        partition: 2,
        first_offset: 10,
        last_offset: 19,
        reason: AbsenceReason::Deleted,
        at_ms: 0,
        evidence: AbsenceEvidence::NONE,
    };
    state
        .apply(&commit(2, 2, vec![Entry::Absent(absence), segment(2, 2, 3, 3)]))
        .unwrap();
    let partition = state.partition("orders", incarnation, 2).unwrap();
    assert_eq!(partition.holes(), []);
    assert_eq!(partition.held().ranges(), [range(0, 9), range(20, 29)]);
    let starts: Vec<i64> = partition
        .segments()
        .iter()
        .map(|segment| segment.start_offset)
        .collect();
    assert_eq!(starts, [0, 3, 4, 20]);
}

#[test]
fn lives_of_a_topic_are_told_apart_and_kept_in_order() {
    let snapshot = |incarnation: u128, at_ms| {
        Entry::Topic(TopicSnapshot {
            name: "orders".into(),
            incarnation: Uuid::from_u128(incarnation),
            at_ms,
            partition_count: 1,
            replication_factor: 1,
            configs: vec![],
        })
    };
    let mut state = LedgerState::new();
    state
        .apply(&commit(
            1,
            1,
            vec![snapshot(9, 10), snapshot(2, 500), snapshot(9, 700)],
        ))
        .unwrap();
    let lives: Vec<u128> = state
        .incarnations("orders")
        .iter()
        .map(|(key, _)| key.incarnation.as_u128())
        .collect();
    assert_eq!(lives, [9, 2]);
    assert_eq!(
        state
            .latest_incarnation("orders")
            .unwrap()
            .0
            .incarnation
            .as_u128(),
        2
    );
    assert_eq!(
        state
            .topic("orders", Uuid::from_u128(9))
            .unwrap()
            .snapshot()
            .unwrap()
            .at_ms,
        700
    );
}

proptest! {
    #[test]
    fn any_commit_is_read_back(commit in commits()) {
        prop_assert_eq!(Commit::decode(&commit.encode().unwrap()), Ok(commit));
    }

    #[test]
    fn random_damage_of_a_commit_is_noticed(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let whole = sample_commit().encode().unwrap();
        let mut bad = whole.to_vec();
        for (index, byte) in hits {
            let at = index.index(bad.len());
            bad[at] = byte;
        }
        prop_assert_eq!(Commit::decode(&bad).is_ok(), bad == whole);
    }

    #[test]
    fn no_bytes_behind_a_right_checksum_make_decoding_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut object = b"TLCOMMIT\x01\0\0\0".to_vec();
        object.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&object), &body);
        object.extend_from_slice(&crc.to_le_bytes());
        object.extend_from_slice(&body);
        let _ = Commit::decode(&object);
        let _ = Commit::decode(&body);
    }

    #[test]
    fn the_order_of_chains_does_not_matter(
        plan in prop::collection::vec((0u64..3, 0i64..100, 0i64..20), 1..20),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut chains = vec![Vec::new(); 3];
        for (counter, (writer, first, more)) in plan.into_iter().enumerate() {
            let seq = chains[writer as usize].len() as u64 + 1;
            let entry = segment(writer, counter as u32, first, first + more);
            chains[writer as usize].push(commit(writer, seq, vec![entry]));
        }
        let mut one = LedgerState::new();
        chains.iter().flatten().for_each(|commit| { one.apply(commit).unwrap(); });
        let mut other = LedgerState::new();
        let mut queues: Vec<_> = chains.iter().map(|chain| chain.iter()).collect();
        for turn in turns {
            if let Some(commit) = queues[turn.index(3)].next() {
                other.apply(commit).unwrap();
            }
        }
        queues.into_iter().flatten().for_each(|commit| { other.apply(commit).unwrap(); });
        prop_assert_eq!(one, other);
    }
}
