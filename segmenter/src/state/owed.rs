//! What has to be made good, however the look ends that found it.

/// Kept until it is made good: a look may fail at any of its questions, or be dropped.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// How often something was found that coordinators alone can tell.
    found: u64,
    /// How many of these their answers cover.
    settled: u64,
    /// A part of the log is lost, and the state does not say so yet.
    pub(super) gap: bool,
}

impl Owed {
    /// Coordinators have to be asked, from now on.
    pub(super) fn ask(&mut self) {
        self.found += 1;
    }

    pub(super) fn is_ask_owed(&self) -> bool {
        self.settled < self.found
    }

    /// What a question that begins now makes good, once it is answered.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn settle(&mut self, found: u64) {
        self.settled = self.settled.max(found);
    }
}
