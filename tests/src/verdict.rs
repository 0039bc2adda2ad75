//! Comparing what was restored with what the producers were told, record by record.
//!
//! A producer that dies with its cluster leaves three kinds of records: acknowledged ones, which must be there in
//! order with their timestamps; aborted ones, which must not; and ones it was told nothing about, which may be.

use std::collections::{HashMap, HashSet};

use crate::read_back::{ReadBack, ReadRecord};
use crate::record::{Fate, Sent};

/// The counts of a comparison, summed over topics.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Records that must be there.
    pub acknowledged: u64,
    /// Records that are there.
    pub restored: u64,
    /// Acknowledged, and not there.
    pub missing: u64,
    /// There with another timestamp.
    pub altered: u64,
    /// There before one that was written before them.
    pub out_of_order: u64,
    /// Of an aborted transaction, and there.
    pub aborted_restored: u64,
    /// Doubled, or never sent, or outside of the window.
    pub unexpected: u64,
    /// Never acknowledged, yet there: which is allowed.
    pub unacknowledged_restored: u64,
}

impl Verdict {
    /// Whether it is all as promised.
    pub fn is_identical(&self) -> bool {
        self.restored > 0
            && [
                self.missing,
                self.altered,
                self.out_of_order,
                self.aborted_restored,
                self.unexpected,
            ] == [0; 5]
    }

    /// Adds the comparison of one topic, limited to timestamps in `window` if there is one.
    pub fn compare(
        &mut self,
        read: &ReadBack,
        topic: &str,
        partitions: i32,
        sent: &[Sent],
        window: Option<(i64, i64)>,
    ) {
        let inside = |timestamp: i64| window.is_none_or(|(from, to)| (from..to).contains(&timestamp));
        let digests_of = |fate: Fate| {
            sent.iter()
                .filter(move |each| each.fate == fate)
                .map(|each| each.digest)
        };
        let (aborted, unknown): (HashSet<u64>, HashSet<u64>) = (
            digests_of(Fate::Aborted).collect(),
            digests_of(Fate::Unknown).collect(),
        );
        for partition in 0..partitions {
            let mut expected: Vec<&Sent> = sent
                .iter()
                .filter(|each| each.fate == Fate::Acknowledged && each.ack.partition == partition)
                .filter(|each| inside(each.ack.timestamp))
                .collect();
            expected.sort_by_key(|each| each.ack.offset);
            let found = read.partition(topic, partition);
            self.restored += found.len() as u64;
            self.unexpected += found.iter().filter(|record| !inside(record.timestamp)).count() as u64;
            self.compare_partition(&expected, found, &aborted, &unknown);
        }
    }

    fn compare_partition(
        &mut self,
        expected: &[&Sent],
        found: &[ReadRecord],
        aborted: &HashSet<u64>,
        unknown: &HashSet<u64>,
    ) {
        self.acknowledged += expected.len() as u64;
        let places: HashMap<u64, usize> = expected
            .iter()
            .enumerate()
            .map(|(place, each)| (each.digest, place))
            .collect();
        let mut seen = HashSet::new();
        let mut last_place = None;
        for record in found {
            match places.get(&record.digest) {
                Some(place) if seen.insert(*place) => {
                    self.altered += u64::from(expected[*place].ack.timestamp != record.timestamp);
                    self.out_of_order += u64::from(last_place.is_some_and(|last| last > *place));
                    last_place = Some(*place);
                }
                Some(_) => self.unexpected += 1,
                None if aborted.contains(&record.digest) => self.aborted_restored += 1,
                None if unknown.contains(&record.digest) => self.unacknowledged_restored += 1,
                None => self.unexpected += 1,
            }
        }
        self.missing += (expected.len() - seen.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use crate::record::Ack;

    use super::*;

    fn sent(fate: Fate, offset: i64, digest: u64) -> Sent {
        Sent {
            fate,
            ack: Ack {
                partition: 0,
                offset,
                timestamp: offset * 10,
            },
            sequence: 0,
            digest,
        }
    }

    fn read(records: &[(i64, u64)]) -> ReadBack {
        let mut read = ReadBack::default();
        let records = records
            .iter()
            .zip(0..)
            .map(|((timestamp, digest), offset)| ReadRecord {
                offset,
                timestamp: *timestamp,
                log_append_time: false,
                digest: *digest,
                content: None,
            });
        read.0.insert(("t".to_owned(), 0), records.collect());
        read
    }

    fn verdict(records: &[(i64, u64)], window: Option<(i64, i64)>) -> Verdict {
        let sent = [
            sent(Fate::Acknowledged, 1, 100),
            sent(Fate::Acknowledged, 2, 200),
            sent(Fate::Aborted, 3, 300),
            sent(Fate::Unknown, -1, 400),
        ];
        let mut verdict = Verdict::default();
        verdict.compare(&read(records), "t", 1, &sent, window);
        verdict
    }

    #[test]
    fn every_way_to_be_wrong_is_noticed() {
        assert!(verdict(&[(10, 100), (20, 200)], None).is_identical());
        let with_unknown = verdict(&[(10, 100), (20, 200), (30, 400)], None);
        assert!(with_unknown.is_identical() && with_unknown.unacknowledged_restored == 1);
        assert_eq!(verdict(&[(10, 100)], None).missing, 1);
        assert_eq!(verdict(&[(20, 200), (10, 100)], None).out_of_order, 1);
        assert_eq!(verdict(&[(11, 100), (20, 200)], None).altered, 1);
        assert_eq!(
            verdict(&[(10, 100), (20, 200), (30, 300)], None).aborted_restored,
            1
        );
        assert_eq!(verdict(&[(10, 100), (20, 200), (20, 200)], None).unexpected, 1);
        assert!(!verdict(&[], None).is_identical());
        assert!(verdict(&[(20, 200)], Some((20, 21))).is_identical());
        assert_eq!(verdict(&[(10, 100), (20, 200)], Some((20, 21))).unexpected, 2);
    }
}
