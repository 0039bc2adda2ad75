//! Logs that keep no records: the next offset of each partition, and some batches that stand for all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use teeline_wire::batch::{BatchHeader, BatchView};
use teeline_wire::codec::Compression;
use teeline_wire::produce::TopicRef;
use teeline_wire::records::BatchBuilder;

use crate::producer::{RECORD_BYTES, event};

/// Batches that are served in turn, under every offset.
#[derive(Debug, Clone)]
pub struct Prepared {
    batches: Arc<[Bytes]>,
    /// Of each batch.
    records: i64,
    end: i64,
}

/// The logs of all partitions.
#[derive(Debug)]
pub struct Log {
    next: Mutex<HashMap<(TopicRef, i32), i64>>,
    prepared: Option<Prepared>,
}

impl Prepared {
    /// Serves `batches` in turn, as often as they fit into `end` offsets, in every partition.
    ///
    /// # Panics
    /// Without a batch, and when they do not all hold the same number of records.
    pub fn new(batches: &[BatchView], end: i64) -> Prepared {
        let count = |batch: &BatchView| i64::from(batch.header().records()).max(1);
        let records = batches.first().map(count).expect("a batch to be served");
        assert!(batches.iter().all(|batch| count(batch) == records));
        Prepared {
            batches: batches.iter().map(|batch| batch.bytes().clone()).collect(),
            records,
            end: end / records * records,
        }
    }

    /// JSON records of 1 KiB in batches of about `batch_bytes` before compression: what a producer sends. They repeat
    /// only after more bytes than a block of a segment holds, so that what compresses them gains nothing by that.
    pub fn events(compression: Compression, batch_bytes: usize, end: i64) -> Prepared {
        let records = (batch_bytes as u64 / (RECORD_BYTES + RECORD_OVERHEAD_BYTES)).max(1);
        let count = (DISTINCT_BYTES / (records * RECORD_BYTES)).max(1);
        let batch = |at: u64| {
            let mut builder = BatchBuilder::new(compression);
            for number in at * records..(at + 1) * records {
                builder
                    .push(1_700_000_000_000, None, Some(event(number).as_bytes()), &[])
                    .expect("a record fits");
            }
            builder.build().expect("a batch").expect("with records")
        };
        let batches: Vec<BatchView> = (0..count).map(batch).collect();
        Prepared::new(&batches, end)
    }

    /// Whole batches from the one with `offset` on, at most `max_bytes` of them and at least one.
    fn from(&self, offset: i64, max_bytes: usize) -> Bytes {
        let mut number = offset / self.records;
        let mut records = BytesMut::with_capacity(max_bytes.min(READ_BYTES_MAX));
        while number * self.records < self.end {
            let at = usize::try_from(number).unwrap_or(0) % self.batches.len();
            let batch = &self.batches[at];
            if !records.is_empty() && records.len() + batch.len() > max_bytes.min(READ_BYTES_MAX) {
                break;
            }
            // The base offset stands before what the checksum covers.
            records.extend_from_slice(&(number * self.records).to_be_bytes());
            records.extend_from_slice(batch.get(BASE_OFFSET_BYTES..).unwrap_or_default());
            number += 1;
        }
        records.freeze()
    }
}

impl Log {
    /// Empty logs, or logs that are full of prepared batches.
    pub fn new(prepared: Option<Prepared>) -> Log {
        Log {
            next: Mutex::default(),
            prepared,
        }
    }

    /// Gives the records their offsets and forgets them: the offset of the first.
    pub fn append(&self, topic: &TopicRef, partition: i32, records: &Bytes) -> i64 {
        let count = BatchHeader::parse(records).map_or(0, |header| i64::from(header.records()));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next.entry((topic.clone(), partition)).or_default();
        let base_offset = *next;
        *next += count;
        base_offset
    }

    /// Where the next record would go.
    pub fn end(&self, topic: &TopicRef, partition: i32) -> i64 {
        match &self.prepared {
            Some(prepared) => prepared.end,
            None => {
                let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                next.get(&(topic.clone(), partition)).copied().unwrap_or(0)
            }
        }
    }

    /// What is at an offset; empty at the end.
    pub fn read(&self, offset: i64, max_bytes: usize) -> Bytes {
        match &self.prepared {
            Some(prepared) if offset < prepared.end => prepared.from(offset, max_bytes),
            _ => Bytes::new(),
        }
    }
}

const BASE_OFFSET_BYTES: usize = 8;
/// What a record takes besides its value, at most, as long as it has neither key nor headers.
const RECORD_OVERHEAD_BYTES: u64 = 16;
/// Different records in all prepared batches: many blocks of a segment.
const DISTINCT_BYTES: u64 = 16 << 20;
/// No answer is longer, whatever is asked for.
const READ_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_wire::batch::batches;

    fn offsets(records: &Bytes) -> Vec<i64> {
        batches(records)
            .map(|batch| {
                let batch = batch.expect("a batch");
                batch.verify_crc().expect("an unharmed batch");
                batch.header().base_offset
            })
            .collect()
    }

    #[test]
    fn prepared_batches_are_dense_and_end_where_the_log_ends() {
        let one = BatchBuilder::single(0, None, Some(b"value")).expect("a batch");
        let other = BatchBuilder::single(0, None, Some(b"other")).expect("a batch");
        let log = Log::new(Some(Prepared::new(&[one.clone(), other.clone()], 10)));
        let topic = TopicRef::Name("t".into());
        assert_eq!(log.end(&topic, 0), 10);
        let three = log.read(4, 3 * one.bytes().len());
        assert_eq!(offsets(&three), [4, 5, 6]);
        let values: Vec<Bytes> = batches(&three)
            .map(|batch| batch.expect("a batch").payload())
            .collect();
        assert_eq!(values, [one.payload(), other.payload(), one.payload()]);
        assert_eq!(log.read(8, usize::MAX).len(), 2 * one.bytes().len());
        assert!(log.read(10, 1).is_empty());
    }

    #[test]
    fn events_come_in_batches_of_the_wanted_size() {
        let prepared = Prepared::events(Compression::None, 65_536, 1_000);
        let first = prepared.from(0, 1);
        assert!((60_000..=65_536).contains(&first.len()), "{}", first.len());
        assert_eq!(prepared.end % prepared.records, 0);
        assert_eq!(offsets(&prepared.from(prepared.records, 1)), [prepared.records]);
    }

    #[test]
    fn offsets_go_on_where_the_last_batch_ended() {
        let batch = BatchBuilder::single(0, None, Some(b"value")).expect("a batch");
        let (log, topic) = (Log::new(None), TopicRef::Name("t".into()));
        assert_eq!(log.append(&topic, 0, batch.bytes()), 0);
        assert_eq!(log.append(&topic, 0, batch.bytes()), 1);
        assert_eq!(log.append(&topic, 1, batch.bytes()), 0);
        assert_eq!(log.end(&topic, 0), 2);
    }
}
