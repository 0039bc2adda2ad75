//! What a restore counts while it runs.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts of one partition, or the sum of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Records that the target acknowledged.
    pub records: u64,
    /// Batches that the target acknowledged.
    pub batches: u64,
    /// Bytes of those batches as they were sent.
    pub bytes: u64,
    /// Batches that were encoded anew: window edges, compacted and append-time ones.
    pub batches_rebuilt: u64,
    /// Records left out because they are outside the time window. Segments and blocks wholly outside are never
    /// read, and so not counted here.
    pub records_outside_window: u64,
    /// Records left out because their transaction was aborted.
    pub records_aborted: u64,
    /// Records left out because the archive cannot tell whether their transaction was committed.
    pub records_undecided: u64,
    /// Of these, records of transactions that were not over where the archive ends.
    pub records_open: u64,
    /// Records that another copy of the same offsets made superfluous.
    pub records_duplicate: u64,
    /// Records that the source acknowledged and lost to a later leader.
    pub records_superseded: u64,
    /// Records left out because other records claim their offsets, and nothing tells which the source kept.
    pub records_disputed: u64,
    /// Of the records restored, those whose write was never confirmed.
    pub records_unconfirmed: u64,
    /// Unconfirmed records left out because they are confirmed elsewhere.
    pub records_unconfirmed_duplicate: u64,
    /// Doubtful unconfirmed records left out.
    pub records_quarantined: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let Self {
            records,
            batches,
            bytes,
            batches_rebuilt,
            records_outside_window,
            records_aborted,
            records_undecided,
            records_open,
            records_duplicate,
            records_superseded,
            records_disputed,
            records_unconfirmed,
            records_unconfirmed_duplicate,
            records_quarantined,
        } = other;
        self.records += records;
        self.batches += batches;
        self.bytes += bytes;
        self.batches_rebuilt += batches_rebuilt;
        self.records_outside_window += records_outside_window;
        self.records_aborted += records_aborted;
        self.records_undecided += records_undecided;
        self.records_open += records_open;
        self.records_duplicate += records_duplicate;
        self.records_superseded += records_superseded;
        self.records_disputed += records_disputed;
        self.records_unconfirmed += records_unconfirmed;
        self.records_unconfirmed_duplicate += records_unconfirmed_duplicate;
        self.records_quarantined += records_quarantined;
    }
}

/// What the progress display reads while partitions are at work.
#[derive(Debug, Default)]
pub struct Live {
    records: AtomicU64,
    bytes: AtomicU64,
    archive_bytes: AtomicU64,
}

impl Live {
    /// Records and bytes that the target acknowledged.
    pub fn produced(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of the archive that are dealt with.
    pub fn archive_read(&self, bytes: u64) {
        self.archive_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records, bytes and bytes of the archive so far.
    pub fn read(&self) -> (u64, u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.records), load(&self.bytes), load(&self.archive_bytes))
    }
}
