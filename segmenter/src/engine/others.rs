//! Other writers of the same backup, and the auditor: which holes are whose.
//!
//! A lone writer fills every hole between what it captured. Where several proxies capture the same partitions, most of
//! what one of them misses the others hold, or will have in the ledger within a minute; if each fetched it, the log would
//! be read and stored once per proxy. So a writer that sees others at work fetches only what somebody waits for here,
//! and what has the size of a transaction marker. The rest is the auditor's, who knows what all of them hold. Correctness
//! does not depend on it: whatever nobody fetched is a hole in the ledger, which the auditor finds and coverage shows.

use teeline_archive::WriterId;
use teeline_archive::ledger::LedgerState;

use super::Engine;

impl Engine {
    /// Notes when other writers that capture were last at work.
    pub(super) fn note_others(&mut self, ledger: &LedgerState) {
        let own = self.settings.writer;
        let others = ledger
            .chains()
            .filter(|(writer, _)| *writer != own && *writer != WriterId::AUDITOR);
        self.others_committed_ms = others.map(|(_, chain)| chain.last_at_ms).max();
    }

    /// Decides anew whether holes are left to the auditor.
    pub(super) fn look_at_others(&mut self, now_ms: i64) {
        let others_live = self
            .others_committed_ms
            .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < OTHERS_LIVE_MS);
        let leaves = self.settings.has_auditor && others_live;
        if leaves != self.leaves_holes {
            tracing::info!(
                leaves,
                "other writers of this backup came or went; holes that are theirs to fill are left to the auditor while \
                 they are here"
            );
        }
        self.leaves_holes = leaves;
    }

    /// Offsets missing that this writer has to fetch.
    pub fn missing_offsets(&self) -> u64 {
        self.partitions.values().fold(0, |sum, partition| {
            let own = match self.leaves_holes {
                true => partition.pressing_offsets(),
                false => partition.holes.offsets(),
            };
            sum.saturating_add(own)
        })
    }

    /// Offsets missing that are left to the auditor.
    pub fn left_offsets(&self) -> u64 {
        let all = self.partitions.values().fold(0u64, |sum, partition| {
            sum.saturating_add(partition.holes.offsets())
        });
        all.saturating_sub(self.missing_offsets())
    }
}

/// How long after its last commit a writer counts as being at work: ten segments long, and longer than the clocks of
/// two hosts are apart. A mistake costs a fetch too many, or one that the auditor makes.
const OTHERS_LIVE_MS: i64 = 10 * 60_000;
