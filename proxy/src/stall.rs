//! Whether the disk of the write-ahead buffer is behind what the policy allows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use teeline_archive::ids::BufferPosition;

use crate::buffer::Writer;

/// Remembers that the disk is behind: from the first response that was held, or request that waited for room, too long, until
/// its position is durable. Responses that are let out meanwhile without being held do not prolong it.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    stalled: AtomicBool,
    position: Mutex<BufferPosition>,
}

impl Stall {
    /// A response, or a request, has waited too long for this position.
    pub(crate) fn began(&self, position: BufferPosition) {
        let mut last = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        *last = position.max(*last);
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether the disk is still behind.
    pub(crate) fn holds(&self, writer: &Writer) -> bool {
        if !self.stalled.load(Ordering::Relaxed) {
            return false;
        }
        let synced = writer.state().synced;
        let last = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = synced < *last;
        self.stalled.store(behind, Ordering::Relaxed);
        behind
    }
}
