//! Records that are no part of the log, taken out of the archive on demand: superseded, disputed, unconfirmed ones.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use teeline_wire::batch::BatchHeader;

use crate::merge::Dropped;
use crate::plan::Only;

/// Which batches were given out already: several segments may hold the same one.
#[derive(Debug, Default)]
pub struct Given {
    seen: HashSet<(i64, u32)>,
}

impl Given {
    /// Whether this batch comes for the first time.
    pub fn is_new(&mut self, header: &BatchHeader) -> bool {
        // The checksum covers the records, the producer and the times, not what a leader wrote over it.
        self.seen.insert((header.base_offset, header.crc))
    }
}

/// Whether what merging passes over is what was asked for.
pub fn wants(only: Option<Only>, why: Dropped) -> bool {
    matches!(
        (only, why),
        (Some(Only::Superseded), Dropped::Superseded) | (Some(Only::Disputed), Dropped::Disputed)
    )
}

/// A transaction that was not over where the archive ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OpenTransaction {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// First offset of its records.
    pub first_offset: i64,
    /// Last offset of its records.
    pub last_offset: i64,
    /// Records of it that were left out.
    pub records: u64,
}

/// The transactions that were not over where the archive ends, by producer.
#[derive(Debug, Clone, Default)]
pub struct OpenTransactions {
    by_producer: BTreeMap<(i64, i16), OpenTransaction>,
}

/// At most so many are told of one partition; the records of all are counted.
const OPEN_TOLD_MAX: usize = 1000;

impl OpenTransactions {
    /// Notes a batch that was left out.
    pub fn note(&mut self, header: &BatchHeader) {
        let key = (header.producer_id, header.producer_epoch);
        if self.by_producer.len() >= OPEN_TOLD_MAX && !self.by_producer.contains_key(&key) {
            return;
        }
        let open = self.by_producer.entry(key).or_insert(OpenTransaction {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            records: 0,
        });
        open.first_offset = open.first_offset.min(header.base_offset);
        open.last_offset = open.last_offset.max(header.last_offset());
        open.records = open.records.saturating_add(u64::from(header.records()));
    }

    /// All of them.
    pub fn list(&self) -> Vec<OpenTransaction> {
        self.by_producer.values().copied().collect()
    }
}
