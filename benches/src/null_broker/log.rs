//! Logs that keep no records: the next offset of each partition, and one batch that stands for all others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use teeline_wire::batch::{BatchHeader, BatchView};
use teeline_wire::produce::TopicRef;

/// A batch that is served under every offset.
#[derive(Debug, Clone)]
pub struct Prepared {
    batch: Bytes,
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
    /// Serves `batch` as often as its records fit into `end` offsets, in every partition.
    pub fn new(batch: &BatchView, end: i64) -> Prepared {
        let records = i64::from(batch.header().records()).max(1);
        Prepared {
            batch: batch.bytes().clone(),
            records,
            end: end / records * records,
        }
    }

    /// Whole batches from the one with `offset` on, at most `max_bytes` of them and at least one.
    fn from(&self, offset: i64, max_bytes: usize) -> Bytes {
        let first = offset / self.records * self.records;
        let left = usize::try_from((self.end - first) / self.records).unwrap_or(0);
        let count = (max_bytes / self.batch.len()).max(1).min(left);
        let mut records = BytesMut::with_capacity(count * self.batch.len());
        let mut base_offset = first;
        for _ in 0..count {
            // The base offset stands before what the checksum covers.
            records.extend_from_slice(&base_offset.to_be_bytes());
            records.extend_from_slice(self.batch.get(BASE_OFFSET_BYTES..).unwrap_or_default());
            base_offset += self.records;
        }
        records.freeze()
    }
}

impl Log {
    /// Empty logs, or logs that are full of one batch.
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

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_wire::batch::batches;

    #[test]
    fn prepared_batches_are_dense_and_end_where_the_log_ends() {
        let batch = BatchView::clone(
            &teeline_wire::records::BatchBuilder::single(0, None, Some(b"value")).expect("a batch"),
        );
        let log = Log::new(Some(Prepared::new(&batch, 10)));
        let topic = TopicRef::Name("t".into());
        assert_eq!(log.end(&topic, 0), 10);
        let three = log.read(4, 3 * batch.bytes().len());
        let offsets: Vec<i64> = batches(&three)
            .map(|batch| batch.expect("a batch").header().base_offset)
            .collect();
        assert_eq!(offsets, [4, 5, 6]);
        assert_eq!(log.read(8, usize::MAX).len(), 2 * batch.bytes().len());
        assert!(log.read(10, 1).is_empty());
    }

    #[test]
    fn offsets_go_on_where_the_last_batch_ended() {
        let batch = teeline_wire::records::BatchBuilder::single(0, None, Some(b"value")).expect("a batch");
        let (log, topic) = (Log::new(None), TopicRef::Name("t".into()));
        assert_eq!(log.append(&topic, 0, batch.bytes()), 0);
        assert_eq!(log.append(&topic, 0, batch.bytes()), 1);
        assert_eq!(log.append(&topic, 1, batch.bytes()), 0);
        assert_eq!(log.end(&topic, 0), 2);
    }
}
