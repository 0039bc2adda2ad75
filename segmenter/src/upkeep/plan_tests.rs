#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use teeline_archive::OffsetRange;
use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::ledger::{Commit, Entry, Removed, Replaced, Superseded};
use teeline_archive::segment::{Codec, SegmentIdentity};

use super::*;

const RULES: Rules = Rules {
    small_bytes: 1_000,
    run_min: 3,
    segment_max_bytes: 10_000,
    min_age_ms: 100,
    keep_replaced_ms: 1_000,
};
const NOW_MS: i64 = 10_000;

fn info(counter: u32, first: i64, change: impl FnOnce(&mut SegmentInfo)) -> SegmentInfo {
    let mut info = SegmentInfo {
        key: String::new(),
        identity: SegmentIdentity {
            backup_id: "b".to_owned(),
            cluster_id: "c".to_owned(),
            topic: "orders".to_owned(),
            incarnation: Uuid::from_u128(7),
            partition: 0,
            writer: WriterId(5),
            session: SessionId(1),
            counter,
            origin: Origin::Tee,
            created_at_ms: 1_000,
        },
        codec: Codec::Zstd,
        start_offset: first,
        end_offset: first + 9,
        gaps: Vec::new(),
        timestamp_min: 0,
        timestamp_max: 0,
        record_count: 10,
        batch_count: 1,
        control_count: 0,
        transactional_count: 0,
        undecided_first_offset: -1,
        undecided: Vec::new(),
        object_bytes: 400,
        uncompressed_bytes: 2_000,
        footer_crc32c: 0,
        leader_epoch_first: 2,
        leader_epoch_last: 2,
        lsn_range: None,
        quarantined: false,
    };
    change(&mut info);
    info.key = info.identity.key(info.start_offset, info.codec).unwrap();
    info
}

fn ledger(entries: Vec<Entry>) -> LedgerState {
    let mut state = LedgerState::new();
    let commit = Commit {
        backup_id: "b".to_owned(),
        cluster_id: "c".to_owned(),
        writer: WriterId(5),
        seq: 1,
        nonce: 1,
        created_at_ms: 1,
        program: String::new(),
        entries,
    };
    state.apply(&commit).unwrap();
    state
}

fn starts(runs: &[Run]) -> Vec<Vec<i64>> {
    let starts = |run: &Run| run.segments.iter().map(|segment| segment.start_offset).collect();
    runs.iter().map(starts).collect()
}

fn planned(segments: Vec<SegmentInfo>) -> Vec<Vec<i64>> {
    let state = ledger(segments.into_iter().map(Entry::Segment).collect());
    starts(&runs(&state, &RULES, NOW_MS, 100))
}

#[test]
fn small_segments_of_one_epoch_and_origin_are_joined_and_few_are_not() {
    let mut segments: Vec<_> = (0..4).map(|n| info(n, i64::from(n) * 10, |_| {})).collect();
    assert_eq!(planned(segments[..2].to_vec()), Vec::<Vec<i64>>::new());
    assert_eq!(planned(segments.clone()), [vec![0, 10, 20, 30]]);
    // Fetched ones lie between them, and are a run of their own.
    segments.extend((0..3).map(|n| {
        info(10 + n, i64::from(n) * 10 + 5, |info| {
            info.identity.origin = Origin::Fetch;
            info.end_offset = info.start_offset;
        })
    }));
    assert_eq!(planned(segments), [vec![0, 10, 20, 30], vec![5, 15, 25]]);
}

#[test]
fn what_is_large_young_of_another_epoch_or_in_question_stays_alone() {
    let odd: [fn(&mut SegmentInfo); 6] = [
        |info| info.object_bytes = 1_000,
        |info| info.identity.created_at_ms = NOW_MS - 99,
        |info| info.leader_epoch_last = 3,
        |info| (info.leader_epoch_first, info.leader_epoch_last) = (3, 3),
        |info| (info.leader_epoch_first, info.leader_epoch_last) = (-1, -1),
        |info| info.identity.origin = Origin::Unconfirmed,
    ];
    for change in odd {
        let mut segments = vec![info(0, 0, |_| {}), info(1, 10, |_| {}), info(2, 20, change)];
        assert!(planned(segments.clone()).is_empty());
        segments.push(info(3, 30, |_| {}));
        assert_eq!(planned(segments), [vec![0, 10, 30]]);
    }
    let segments: Vec<_> = (0..3).map(|n| info(n, i64::from(n) * 10, |_| {})).collect();
    let lost = Superseded {
        topic: "orders".to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 0,
        segment: segments[1].key.clone(),
        first_offset: 12,
        last_offset: 12,
        leader_epoch: 2,
        end_offset: 12,
        at_ms: 0,
        same: false,
    };
    let mut entries: Vec<Entry> = segments.into_iter().map(Entry::Segment).collect();
    entries.push(Entry::Superseded(lost));
    assert!(runs(&ledger(entries), &RULES, NOW_MS, 100).is_empty());
}

#[test]
fn runs_end_where_they_are_full_and_where_offsets_are_held_twice() {
    let segments: Vec<_> = (0..8).map(|n| info(n, i64::from(n) * 10, |_| {})).collect();
    assert_eq!(planned(segments), [vec![0, 10, 20, 30, 40], vec![50, 60, 70]]);
    let mut twice: Vec<_> = (0..3).map(|n| info(n, i64::from(n) * 10, |_| {})).collect();
    twice.extend((0..3).map(|n| info(10 + n, i64::from(n) * 10 + 25, |_| {})));
    assert_eq!(planned(twice), [vec![0, 10, 20], vec![25, 35, 45]]);
    let gaps: Vec<_> = (0..3)
        .map(|n| {
            info(n, i64::from(n) * 10, |info| {
                let gap = OffsetRange {
                    first: info.start_offset + 1,
                    last: info.start_offset + 1,
                };
                info.gaps = vec![gap; GAPS_MAX / 2];
            })
        })
        .collect();
    assert!(planned(gaps).is_empty());
}

#[test]
fn replaced_objects_go_after_their_time_and_once() {
    let segments: Vec<_> = (0..3).map(|n| info(n, i64::from(n) * 10, |_| {})).collect();
    let by = info(9, 0, |info| info.end_offset = 29);
    let keys: Vec<String> = segments.iter().map(|segment| segment.key.clone()).collect();
    let replaced = Replaced {
        topic: "orders".to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 0,
        by: by.key.clone(),
        keys: keys.clone(),
        at_ms: 5_000,
    };
    let removed = Removed {
        topic: "orders".to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 0,
        keys: vec![keys[0].clone()],
        at_ms: 6_000,
    };
    let mut entries: Vec<Entry> = segments.into_iter().chain([by]).map(Entry::Segment).collect();
    entries.push(Entry::Replaced(replaced));
    let state = ledger(entries.clone());
    assert!(runs(&state, &RULES, NOW_MS, 100).is_empty());
    assert!(removals(&state, &RULES, 5_999, 100).is_empty());
    let due = removals(&state, &RULES, 6_000, 100);
    assert_eq!(due[0].keys.len(), 3);
    assert_eq!(removals(&state, &RULES, 6_000, 2)[0].keys.len(), 2);
    entries.push(Entry::Removed(removed));
    let due = removals(&ledger(entries), &RULES, 6_000, 100);
    let left: Vec<&String> = due[0].keys.iter().map(|(key, _)| key).collect();
    assert_eq!(left, [&keys[1], &keys[2]]);
}
