#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use teeline_wire::client::PartitionMetadata;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;
use uuid::Uuid;

use super::*;

const KNOWN: Known = Known {
    has_offsets: true,
    as_of_ms: Some(5_000),
};
const NOTHING: Known = Known {
    has_offsets: false,
    as_of_ms: Some(5_000),
};

fn topic(error: ErrorCode, id: u128) -> TopicMetadata {
    let partition = PartitionMetadata {
        partition: 0,
        error: ErrorCode::NONE,
        leader_id: 1,
        leader_epoch: 0,
        replicas: vec![1],
        in_sync_replicas: vec![1],
    };
    TopicMetadata {
        name: Arc::from(GROUP_TOPIC),
        id: Uuid::from_u128(id),
        error,
        is_internal: true,
        partitions: match error.is_ok() {
            true => vec![partition],
            false => Vec::new(),
        },
    }
}

fn there() -> TopicMetadata {
    topic(ErrorCode::NONE, 7)
}

fn unknown() -> TopicMetadata {
    topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0)
}

fn following() -> Follower {
    Follower {
        topic: Some(there().key()),
        journals: BTreeMap::from([(0, GroupJournal::new(100, true))]),
        has_followed: true,
        ..Follower::default()
    }
}

#[test]
fn one_broker_that_does_not_know_the_topic_makes_nothing_new() {
    let (mut follower, mut owed, now) = (following(), Owed::default(), Instant::now());
    assert!(follower.judge(&unknown(), now, KNOWN, &mut owed).is_err());
    assert!(owed.gap, "what was written meanwhile is not read");
    let late = now + Duration::from_secs(59);
    assert!(follower.judge(&unknown(), late, KNOWN, &mut owed).is_err());
    let begin = follower.judge(&there(), late, KNOWN, &mut owed).unwrap().unwrap();
    assert_eq!(begin.replay_after, None, "from now on");
    // Nor if the coordinators have offsets of which the book does not know any more.
    let mut follower = following();
    assert!(follower.judge(&unknown(), now, NOTHING, &mut owed).is_err());
    // Nor at the first look, if the coordinators then say that there are offsets.
    let mut follower = Follower::default();
    assert!(
        follower
            .judge(&unknown(), now, NOTHING, &mut owed)
            .unwrap()
            .is_none()
    );
    let begin = follower.judge(&there(), now, KNOWN, &mut owed).unwrap().unwrap();
    assert_eq!(begin.replay_after, None);
}

#[test]
fn what_is_in_a_topic_that_did_not_exist_is_new() {
    let (mut follower, mut owed, now) = (Follower::default(), Owed::default(), Instant::now());
    assert!(
        follower
            .judge(&unknown(), now, NOTHING, &mut owed)
            .unwrap()
            .is_none()
    );
    let begin = follower
        .judge(&there(), now, NOTHING, &mut owed)
        .unwrap()
        .unwrap();
    assert_eq!(begin.replay_after, Some(5_000));
    // One that was followed has to be away for long.
    let mut follower = following();
    assert!(follower.judge(&unknown(), now, KNOWN, &mut owed).is_err());
    let late = now + ABSENT_MIN;
    assert!(
        follower
            .judge(&unknown(), late, KNOWN, &mut owed)
            .unwrap()
            .is_none()
    );
    let begin = follower.judge(&there(), late, KNOWN, &mut owed).unwrap().unwrap();
    assert_eq!(begin.replay_after, Some(5_000));
}

#[test]
fn another_topic_of_the_name_is_a_gap() {
    let (mut follower, mut owed) = (following(), Owed::default());
    let other = topic(ErrorCode::NONE, 8);
    let begin = follower.judge(&other, Instant::now(), KNOWN, &mut owed);
    assert_eq!(begin.unwrap().unwrap().replay_after, None);
    assert!(owed.gap);
}

/// Commits of one group, each at its time.
fn commits(times: &[i64]) -> FetchedPartition {
    let mut key = vec![0, 1, 0, 1, b'g', 0, 1, b't'];
    key.extend_from_slice(&3_i32.to_be_bytes());
    let mut builder = BatchBuilder::new(Compression::None);
    for time in times {
        let mut value = 3_i16.to_be_bytes().to_vec();
        value.extend_from_slice(&time.to_be_bytes());
        value.extend_from_slice(&[0, 0, 0, 9, 0, 0]);
        value.extend_from_slice(&time.to_be_bytes());
        builder.push(*time, Some(&key), Some(&value), &[]).unwrap();
    }
    let batch = builder.build().unwrap().unwrap();
    let records = [&batch.header().to_bytes()[..], &batch.payload()[..]].concat();
    FetchedPartition {
        records: Bytes::from(records),
        high_watermark: times.len() as i64,
        last_stable_offset: times.len() as i64,
        log_start_offset: 0,
        aborted: Vec::new(),
        leader_epoch: -1,
        by_id: true,
        follower: None,
    }
}

fn taken(follower: &mut Follower, owed: &mut Owed, times: &[i64]) -> (Vec<i64>, bool) {
    let (mut ends, mut gathered) = (Ends::new(), Gathered::default());
    follower
        .take(0, &commits(times), &mut ends, &mut gathered, owed)
        .unwrap();
    let told = gathered.take(|_| None).into_iter().map(|(time, _)| time);
    (told.collect(), ends.is_partial)
}

#[test]
fn a_log_read_from_its_start_tells_nothing_that_is_known_better() {
    let times = [1_000, 5_000, 7_000];
    let mut follower = following();
    follower.journals = BTreeMap::from([(0, GroupJournal::new(0, true))]);
    follower.replayed = BTreeMap::from([(0, 5_000)]);
    let mut owed = Owed::default();
    assert_eq!(taken(&mut follower, &mut owed, &times), (vec![7_000], true));
    assert!(owed.is_ask_owed(), "whatever becomes of this look");

    // Where it is read on, clocks may differ as they like.
    follower.journals = BTreeMap::from([(0, GroupJournal::new(0, true))]);
    follower.replayed.clear();
    let mut owed = Owed::default();
    assert_eq!(taken(&mut follower, &mut owed, &times), (times.to_vec(), false));
    assert!(!owed.is_ask_owed());
}
