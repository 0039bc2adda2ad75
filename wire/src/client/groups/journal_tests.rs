#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::BufMut;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::batch::BatchHeader;
use crate::client::groups::record::LoggedGroup;
use crate::codec::Compression;
use crate::records::BatchBuilder;

const COMMIT: i16 = 1;
const ABORT: i16 = 0;

type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A log of one partition, written as a coordinator does.
#[derive(Default)]
struct Log {
    bytes: Vec<u8>,
    end: i64,
}

impl Log {
    fn append(&mut self, time: i64, records: Pairs, producer: Option<i64>, control: bool) {
        let mut builder = BatchBuilder::new(Compression::None);
        for (key, value) in &records {
            builder.push(time, Some(key), value.as_deref(), &[]).unwrap();
        }
        let batch = builder.build().unwrap().unwrap();
        let mut header: BatchHeader = *batch.header();
        header.base_offset = self.end;
        if let Some(producer) = producer {
            (header.producer_id, header.producer_epoch) = (producer, 0);
            header.attributes |= 0x10;
        }
        header.attributes |= i16::from(control) << 5;
        header.crc = crc32c::crc32c_append(header.content_crc(), &batch.payload());
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(&batch.payload());
        self.end += records.len() as i64;
    }

    fn commit(&mut self, time: i64, group: &str, offset: i64) {
        self.append(time, vec![committed(group, offset)], None, false);
    }

    fn commit_in(&mut self, time: i64, producer: i64, group: &str, offset: i64) {
        self.append(time, vec![committed(group, offset)], Some(producer), false);
    }

    fn remove(&mut self, time: i64, group: &str) {
        self.append(time, vec![(offset_key(1, group), None)], None, false);
    }

    fn marker(&mut self, time: i64, producer: i64, kind: i16) {
        let key = [0_i16.to_be_bytes(), kind.to_be_bytes()].concat();
        self.append(time, vec![(key, Some(vec![0; 6]))], Some(producer), true);
    }

    fn read(&self, journal: &mut GroupJournal) -> (Vec<GroupChange>, Followed) {
        let mut changes = Vec::new();
        let followed = journal
            .take(&Bytes::from(self.bytes.clone()), &mut changes)
            .unwrap();
        assert_eq!(journal.position(), self.end);
        (changes, followed)
    }

    fn told(&self) -> Vec<(i64, String, Option<i64>)> {
        told(self.read(&mut GroupJournal::new(0, true)).0)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn offset_key(kind: i16, group: &str) -> Vec<u8> {
    let mut key = kind.to_be_bytes().to_vec();
    put_text(&mut key, group);
    put_text(&mut key, "orders");
    key.put_i32(3);
    key
}

fn offset_value(version: i16, offset: i64, topic_id: Option<Uuid>) -> Vec<u8> {
    let mut value = version.to_be_bytes().to_vec();
    value.put_i64(offset);
    if version >= 3 {
        value.put_i32(9);
    }
    match version {
        4 => value.put_slice(&[2, b'm']),
        _ => put_text(&mut value, "m"),
    }
    value.put_i64(1_000);
    if version == 1 {
        value.put_i64(2_000);
    }
    if version == 4 {
        match topic_id {
            // A field of the future stands behind the one that is known.
            Some(id) => value.put_slice(&[&[2, 0, 16], &id.as_bytes()[..], &[7, 1, 99]].concat()),
            None => value.put_u8(0),
        }
    }
    value
}

fn committed(group: &str, offset: i64) -> (Vec<u8>, Option<Vec<u8>>) {
    (offset_key(1, group), Some(offset_value(4, offset, None)))
}

fn group_key(kind: i16, group: &str) -> Vec<u8> {
    let mut key = kind.to_be_bytes().to_vec();
    put_text(&mut key, group);
    key
}

fn told(changes: Vec<GroupChange>) -> Vec<(i64, String, Option<i64>)> {
    changes
        .into_iter()
        .map(|change| match change.record {
            GroupRecord::Offset(key, value) => (change.timestamp, key.group, value.map(|value| value.offset)),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn said(time: i64, group: &str, offset: i64) -> (i64, String, Option<i64>) {
    (time, group.to_owned(), Some(offset))
}

#[test]
fn offsets_of_every_version_are_read() {
    let id = Uuid::from_u128(5);
    for (kind, version, topic_id) in [
        (0, 0, None),
        (1, 1, None),
        (1, 2, None),
        (1, 3, None),
        (1, 4, None),
        (1, 4, Some(id)),
    ] {
        let value = offset_value(version, 44, topic_id);
        let read = GroupRecord::decode(Some(&offset_key(kind, "g")), Some(&value)).unwrap();
        let key = LoggedKey {
            group: "g".to_owned(),
            topic: "orders".to_owned(),
            partition: 3,
        };
        let expected = LoggedOffset {
            offset: 44,
            leader_epoch: if version >= 3 { 9 } else { -1 },
            metadata: "m".to_owned(),
            topic_id,
        };
        assert_eq!(
            read,
            GroupRecord::Offset(key, Some(expected)),
            "version {version}"
        );
    }
    let newer = offset_value(5, 44, None);
    let refused = GroupRecord::decode(Some(&offset_key(1, "g")), Some(&newer)).unwrap_err();
    assert!(matches!(refused, GroupRecordError::Version { version: 5, .. }));
    let cut = GroupRecord::decode(Some(&offset_key(1, "g")), Some(&newer[..5])).unwrap_err();
    assert!(matches!(
        cut,
        GroupRecordError::Version { .. } | GroupRecordError::Malformed(_)
    ));
}

#[test]
fn groups_of_every_kind_are_read_and_what_concerns_members_is_passed_over() {
    let mut classic = 3_i16.to_be_bytes().to_vec();
    put_text(&mut classic, "connect");
    let flexible = [&4_i16.to_be_bytes()[..], &[8], b"connect"].concat();
    for (kind, value, group_type, protocol) in [
        (2, classic, "classic", "connect"),
        (2, flexible, "classic", "connect"),
        (3, vec![0, 0], "consumer", "consumer"),
        (11, vec![0, 0], "share", "share"),
        (17, vec![0, 0], "streams", "streams"),
    ] {
        let key = group_key(kind, "g");
        let expected = LoggedGroup {
            group_type,
            protocol: protocol.to_owned(),
        };
        let read = GroupRecord::decode(Some(&key), Some(&value)).unwrap();
        assert_eq!(read, GroupRecord::Group("g".to_owned(), Some(expected)));
        let read = GroupRecord::decode(Some(&key), None).unwrap();
        assert_eq!(read, GroupRecord::Group("g".to_owned(), None));
    }
    for kind in [4, 8, 15, 18, 99] {
        let read = GroupRecord::decode(Some(&group_key(kind, "g")), Some(&[9, 9])).unwrap();
        assert_eq!(read, GroupRecord::Other);
    }
    assert_eq!(GroupRecord::decode(None, Some(&[0])).unwrap(), GroupRecord::Other);
}

#[test]
fn a_commit_holds_from_its_own_time_and_a_transaction_from_its_marker_on() {
    let mut log = Log::default();
    log.commit(10, "plain", 1);
    log.commit_in(11, 7, "streams", 2);
    log.commit_in(12, 8, "other", 3);
    log.remove(13, "plain");
    log.marker(20, 8, ABORT);
    log.marker(30, 7, COMMIT);
    let expected = [
        said(10, "plain", 1),
        (13, "plain".to_owned(), None),
        said(30, "streams", 2),
    ];
    assert_eq!(log.told(), expected, "what was aborted never counts");
}

#[test]
fn the_later_record_wins_however_late_the_marker_of_the_earlier_one_comes() {
    let mut log = Log::default();
    log.commit_in(10, 7, "g", 1);
    log.commit(11, "g", 2);
    log.marker(12, 7, COMMIT);
    assert_eq!(log.told(), [said(11, "g", 2)]);

    let mut log = Log::default();
    log.commit_in(10, 7, "g", 1);
    log.commit_in(11, 8, "g", 2);
    log.marker(12, 8, COMMIT);
    log.marker(13, 7, COMMIT);
    assert_eq!(log.told(), [said(12, "g", 2)]);

    let mut log = Log::default();
    log.commit_in(10, 7, "g", 1);
    log.remove(11, "g");
    log.marker(12, 7, COMMIT);
    assert_eq!(
        log.told(),
        [(11, "g".to_owned(), None)],
        "a removal takes what is undecided with it"
    );
}

#[test]
fn a_commit_of_which_not_all_is_known_is_said_to_be_so() {
    let mut log = Log::default();
    log.commit(1, "g", 1);
    log.marker(2, 7, COMMIT);
    let (_, followed) = log.read(&mut GroupJournal::new(0, true));
    assert!(!followed.is_partial, "nothing was under way before: it is empty");
    let mut journal = GroupJournal::new(0, false);
    let (_, followed) = log.read(&mut journal);
    assert!(followed.is_partial);
    // All that was under way at the beginning is over.
    journal.reached(2);
    log.commit_in(3, 7, "g", 2);
    log.marker(4, 7, COMMIT);
    let (changes, followed) = log.read(&mut journal);
    assert_eq!(
        (told(changes), followed.is_partial),
        (vec![said(4, "g", 2)], false)
    );
    // More than is kept.
    let mut log = Log::default();
    let group = "g".repeat(30_000);
    for number in 0..300 {
        log.commit_in(1, 7, &format!("{number}{group}"), 1);
    }
    log.marker(2, 7, COMMIT);
    let mut journal = GroupJournal::new(0, true);
    let (changes, followed) = log.read(&mut journal);
    assert!(followed.is_partial && changes.len() < 300);
    assert_eq!(journal.pending_bytes, 0);
}

#[test]
fn a_log_is_read_on_from_the_position_wherever_a_response_was_cut() {
    let mut log = Log::default();
    for number in 0..20 {
        log.commit(number, "g", number);
    }
    log.append(20, (20..25).map(|at| committed("g", at)).collect(), None, false);
    let whole = log.told();
    let mut journal = GroupJournal::new(0, true);
    let mut changes = Vec::new();
    for end in (0..=log.bytes.len()).step_by(37).chain([log.bytes.len()]) {
        let cut = Bytes::copy_from_slice(&log.bytes[..end]);
        journal.take(&cut, &mut changes).unwrap();
    }
    assert_eq!(told(changes), whole);
    // A batch comes whole even if the position lies inside it.
    let mut changes = Vec::new();
    let mut journal = GroupJournal::new(22, true);
    journal.take(&Bytes::from(log.bytes), &mut changes).unwrap();
    assert_eq!(
        told(changes),
        [said(20, "g", 22), said(20, "g", 23), said(20, "g", 24)]
    );
}

#[test]
fn what_cannot_be_read_stops_the_journal_where_it_is() {
    let mut log = Log::default();
    log.commit(1, "g", 1);
    let unreadable = (offset_key(1, "g"), Some(offset_value(5, 2, None)));
    log.append(2, vec![committed("h", 7), unreadable], None, false);
    let mut journal = GroupJournal::new(0, true);
    let mut changes = Vec::new();
    let error = journal.take(&Bytes::from(log.bytes.clone()), &mut changes);
    assert!(matches!(error, Err(JournalError::Record { offset: 2, .. })));
    assert_eq!((journal.position(), changes.len()), (1, 1));
    let last = log.bytes.len() - 1;
    log.bytes[last] ^= 1;
    let error = journal.take(&Bytes::from(log.bytes), &mut changes);
    assert!(matches!(error, Err(JournalError::Batch { offset: 1, .. })));
}

proptest! {
    #[test]
    fn noise_never_panics(
        key in proptest::collection::vec(any::<u8>(), 0..60),
        value in proptest::collection::vec(any::<u8>(), 0..60),
        kind in 0i16..20,
        version in 0i16..6,
    ) {
        let key = [&kind.to_be_bytes()[..], &key].concat();
        let value = [&version.to_be_bytes()[..], &value].concat();
        let _ = GroupRecord::decode(Some(&key), Some(&value));
    }

    /// The coordinator's own rules, told in the simplest way: a table of what holds, with the offset of its record.
    #[test]
    fn what_holds_in_the_end_is_what_the_coordinator_has(
        steps in proptest::collection::vec((0..5u8, 0..3i64, 0..3usize), 1..60)
    ) {
        const GROUPS: [&str; 3] = ["a", "b", "c"];
        let mut log = Log::default();
        let mut holds: HashMap<&str, (i64, i64)> = HashMap::new();
        let mut open: HashMap<i64, HashMap<&str, (i64, i64)>> = HashMap::new();
        for (number, (step, producer, group)) in steps.into_iter().enumerate() {
            let (time, group, at) = (number as i64, GROUPS[group], log.end);
            match step {
                0 => {
                    log.commit(time, group, time);
                    holds.insert(group, (at, time));
                }
                1 => {
                    log.commit_in(time, producer, group, time);
                    open.entry(producer).or_default().insert(group, (at, time));
                }
                2 => {
                    log.remove(time, group);
                    holds.remove(group);
                    open.values_mut().for_each(|open| { open.remove(group); });
                }
                3 => {
                    log.marker(time, producer, COMMIT);
                    for (group, (at, offset)) in open.remove(&producer).unwrap_or_default() {
                        if holds.get(group).is_none_or(|(held, _)| at > *held) {
                            holds.insert(group, (at, offset));
                        }
                    }
                }
                _ => {
                    log.marker(time, producer, ABORT);
                    open.remove(&producer);
                }
            }
        }
        let mut found: HashMap<String, i64> = HashMap::new();
        for (_, group, offset) in log.told() {
            match offset {
                Some(offset) => found.insert(group, offset),
                None => found.remove(&group),
            };
        }
        let holds: HashMap<String, i64> =
            holds.into_iter().map(|(group, (_, offset))| (group.to_owned(), offset)).collect();
        prop_assert_eq!(found, holds);
    }
}
