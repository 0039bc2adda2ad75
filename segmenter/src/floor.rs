//! Below which offset of its partition an intent cannot lie.
//!
//! What was acknowledged before an intent was sent lies below it. So does what the ledger had when the run began, unless
//! that may be newer than the intent: an earlier run may have gone on after it.

use teeline_archive::ids::BufferPosition;

/// The floor of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floor {
    /// One past what the ledger had.
    loaded_end: Option<i64>,
    /// The last outcome of this buffer that is in there.
    loaded_to: Option<BufferPosition>,
    /// When the last segment was made that names no outcomes of this buffer.
    loaded_at_ms: Option<i64>,
    /// One past the highest offset of which this run has read the outcome.
    read_end: Option<i64>,
}

impl Floor {
    /// The ledger has everything below `end`: captured up to `to` of this buffer, or, where that does not say it, stored
    /// at `at_ms`.
    pub fn on_loaded(&mut self, end: Option<i64>, to: Option<BufferPosition>, at_ms: i64) {
        self.loaded_end = end;
        match to {
            Some(_) => self.loaded_to = self.loaded_to.max(to),
            None => self.loaded_at_ms = self.loaded_at_ms.max(Some(at_ms)),
        }
    }

    /// The outcome of a batch that ends at `last` was read.
    pub fn on_read(&mut self, last: i64) {
        self.read_end = self.read_end.max(Some(last.saturating_add(1)));
    }

    /// The floor of an intent.
    pub fn of(&self, intent: BufferPosition, sent_at_ms: i64) -> Option<i64> {
        let is_newer = self.loaded_to.is_none_or(|to| intent > to)
            && self.loaded_at_ms.is_none_or(|at_ms| sent_at_ms > at_ms);
        let loaded = self.loaded_end.filter(|_| is_newer);
        self.read_end.max(loaded)
    }
}
