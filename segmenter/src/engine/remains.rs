//! Why frames are still needed, for the log of a run that ends before everything is archived.

use std::fmt;

use teeline_archive::ids::BufferPosition;

use super::Engine;

/// What holds the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The lowest frame that is needed.
    first: Option<BufferPosition>,
    /// Intents without an outcome.
    unanswered: usize,
    /// Acknowledged batches of topics that are not known.
    unattributed: usize,
    /// Intents whose fate the log is to tell.
    in_doubt: usize,
    /// Batches in no segment yet.
    open: usize,
}

impl Engine {
    /// Why frames are still needed.
    pub fn remains(&self) -> Remains {
        Remains {
            first: self.watermark.lowest_held(),
            unanswered: self.resolver.pending_count(),
            unattributed: self.unattributed.len(),
            in_doubt: self.settlement.count(),
            open: self
                .partitions
                .values()
                .map(|partition| partition.open().batches)
                .sum(),
        }
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remains {
            first,
            unanswered,
            unattributed,
            in_doubt,
            open,
        } = self;
        if let Some(first) = first {
            write!(out, "from {first} on: ")?;
        }
        write!(
            out,
            "{unanswered} without an answer, {unattributed} of unknown topics, {in_doubt} in doubt, {open} in no segment"
        )
    }
}
