//! Following one partition of `__consumer_offsets`: which commits hold, and from when on.
//!
//! What is committed in a transaction holds from the transaction's marker on, if that commits it; the coordinator's own
//! rules decide between it and other commits: of two for the same partition the later *record* wins, however late its
//! marker comes, and a removal takes with it what is still undecided.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::record::{GroupRecord, GroupRecordError, LoggedKey, LoggedOffset};
use crate::batch::{BatchError, BatchView, ControlKind, control_marker, fetched_batches};
use crate::records::Records;

/// What a batch may unfold to. Coordinators write records of a few hundred bytes, and groups of up to some megabytes.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What undecided transactions may hold of one partition; what is beyond that is given up.
const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// About what an entry takes beside its texts.
const ENTRY_BYTES: usize = 160;

/// Something that the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// When, by the coordinator's clock: the record's own time, or that of the marker that made it hold. Epoch
    /// milliseconds; -1 if it was not told.
    pub timestamp: i64,
    /// What; never [`GroupRecord::Other`].
    pub record: GroupRecord,
}

/// What following led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Followed {
    /// A transaction was committed of which not all is known: only asking the coordinator tells what it committed.
    pub is_partial: bool,
}

/// A log that cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A batch is not one.
    #[error("read the batch at offset {offset}")]
    Batch {
        /// Where.
        offset: i64,
        /// Why.
        #[source]
        source: BatchError,
    },
    /// A record cannot be understood.
    #[error("read the record at offset {offset}")]
    Record {
        /// Where.
        offset: i64,
        /// Why.
        #[source]
        source: GroupRecordError,
    },
}

/// One partition of the log, read from some offset on.
#[derive(Debug)]
pub struct GroupJournal {
    position: i64,
    /// Transactions under way, by producer.
    pending: HashMap<i64, BTreeMap<LoggedKey, Pending>>,
    pending_bytes: usize,
    /// Producers whose transaction under way is too large to be kept.
    given_up: HashSet<i64>,
    /// Transactions that were under way before this offset may not all be over: of them not everything is known.
    unstable_from: Option<i64>,
}

/// An offset whose transaction is not over.
#[derive(Debug)]
struct Pending {
    record_offset: i64,
    value: LoggedOffset,
}

impl GroupJournal {
    /// Begins at an offset. `is_stable` says that no transaction was under way there.
    pub fn new(position: i64, is_stable: bool) -> Self {
        Self {
            position,
            pending: HashMap::new(),
            pending_bytes: 0,
            given_up: HashSet::new(),
            unstable_from: (!is_stable).then_some(position),
        }
    }

    /// The next offset to be read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Everything was read up to a high watermark that was told with this last stable offset.
    pub fn reached(&mut self, last_stable_offset: i64) {
        self.unstable_from = self.unstable_from.filter(|from| last_stable_offset < *from);
    }

    /// Takes what was fetched from the position on, up to the end of its last whole batch. After an error the position
    /// is that of the batch that could not be read, and nothing of it was taken.
    pub fn take(
        &mut self,
        fetched: &Bytes,
        changes: &mut Vec<GroupChange>,
    ) -> Result<Followed, JournalError> {
        let mut followed = Followed::default();
        for batch in fetched_batches(fetched) {
            let at = self.position;
            let damaged = |source| JournalError::Batch { offset: at, source };
            let batch = batch.map_err(damaged)?;
            let header = batch.header();
            if header.last_offset() < self.position {
                continue;
            }
            batch.verify_crc().map_err(damaged)?;
            if header.is_control() {
                let marker = control_marker(&batch).map_err(damaged)?;
                if let Some(marker) = marker.filter(|marker| marker.offset >= at) {
                    let known = self.end(marker.producer_id, marker.kind, marker.timestamp, changes);
                    followed.is_partial |= marker.is_commit() && !known;
                }
            } else {
                self.take_batch(&batch, changes)?;
            }
            self.position = header.next_offset();
        }
        Ok(followed)
    }

    fn take_batch(&mut self, batch: &BatchView, changes: &mut Vec<GroupChange>) -> Result<(), JournalError> {
        let damaged = |source| JournalError::Batch {
            offset: self.position,
            source,
        };
        let records = Records::decode(batch, BATCH_BYTES_MAX).map_err(damaged)?;
        // All of it is read before any of it counts.
        let mut read = Vec::new();
        for record in &records {
            let record = record.map_err(damaged)?;
            if record.offset < self.position {
                continue;
            }
            let said =
                GroupRecord::decode(record.key, record.value).map_err(|source| JournalError::Record {
                    offset: record.offset,
                    source,
                })?;
            read.push((record.offset, record.timestamp, said));
        }
        let header = batch.header();
        for (offset, timestamp, record) in read {
            match record {
                GroupRecord::Other => {}
                GroupRecord::Offset(key, Some(value)) if header.is_transactional() => {
                    self.hold(header.producer_id, key, offset, value);
                }
                record => {
                    if let GroupRecord::Offset(key, _) = &record {
                        self.overtake(key, offset);
                    }
                    changes.push(GroupChange { timestamp, record });
                }
            }
        }
        Ok(())
    }

    /// Keeps an offset until its transaction is over.
    fn hold(&mut self, producer_id: i64, key: LoggedKey, record_offset: i64, value: LoggedOffset) {
        let pending = Pending { record_offset, value };
        self.pending_bytes += pending.bytes(&key);
        let of_producer = self.pending.entry(producer_id).or_default();
        if let Some((key, before)) = of_producer.remove_entry(&key) {
            self.pending_bytes -= before.bytes(&key);
        }
        of_producer.insert(key, pending);
        if self.pending_bytes > PENDING_BYTES_MAX {
            self.pending.remove(&producer_id);
            self.pending_bytes = self.pending.values().map(bytes_of).sum();
            self.given_up.insert(producer_id);
        }
    }

    /// What was committed before a record that holds will never hold itself.
    fn overtake(&mut self, key: &LoggedKey, record_offset: i64) {
        let mut freed = 0;
        for of_producer in self.pending.values_mut() {
            let is_older = |pending: &Pending| pending.record_offset < record_offset;
            if of_producer.get(key).is_some_and(is_older)
                && let Some(overtaken) = of_producer.remove(key)
            {
                freed += overtaken.bytes(key);
            }
        }
        self.pending_bytes -= freed;
    }

    /// A transaction is over. False if not all was known of it.
    fn end(
        &mut self,
        producer_id: i64,
        kind: ControlKind,
        timestamp: i64,
        changes: &mut Vec<GroupChange>,
    ) -> bool {
        if let ControlKind::Other(_) = kind {
            return true;
        }
        let is_known = !self.given_up.remove(&producer_id) && self.unstable_from.is_none();
        // A transaction without commits here, or whose commits were all overtaken, has nothing to add.
        let ended = self.pending.remove(&producer_id).unwrap_or_default();
        self.pending_bytes -= bytes_of(&ended);
        if kind == ControlKind::Commit {
            for (key, pending) in ended {
                self.overtake(&key, pending.record_offset);
                let record = GroupRecord::Offset(key, Some(pending.value));
                changes.push(GroupChange { timestamp, record });
            }
        }
        is_known
    }
}

impl Pending {
    fn bytes(&self, key: &LoggedKey) -> usize {
        ENTRY_BYTES + key.group.len() + key.topic.len() + self.value.metadata.len()
    }
}

fn bytes_of(of_producer: &BTreeMap<LoggedKey, Pending>) -> usize {
    of_producer.iter().map(|(key, pending)| pending.bytes(key)).sum()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
