//! How often `manifest.json` is written anew. It is the whole ledger as text: the longer it is, the rarer it is written,
//! so that a view for people never costs more than what it shows.

/// When the manifest was written, and whether it lags behind what its writer has committed.
#[derive(Debug, Default)]
pub(crate) struct ManifestPace {
    is_stale: bool,
    tried_ms: i64,
    bytes: u64,
}

impl ManifestPace {
    /// There is something that it does not show.
    pub(crate) fn outdate(&mut self) {
        self.is_stale = true;
    }

    /// True when there is something that it does not show.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// True when it is to be written: no sooner than this after the last time, and a second for each
    /// [`BYTES_PER_SECOND`] that it had then.
    pub(crate) fn is_due(&self, now_ms: i64, interval_ms: u64) -> bool {
        let worth_ms = self.bytes.saturating_mul(1_000) / BYTES_PER_SECOND;
        let pause_ms = i64::try_from(interval_ms.max(worth_ms)).unwrap_or(i64::MAX);
        self.is_stale && now_ms.saturating_sub(self.tried_ms) >= pause_ms
    }

    /// It is about to be written, well or not.
    pub(crate) fn begin(&mut self, now_ms: i64) {
        self.tried_ms = now_ms;
    }

    /// It shows everything, in so many bytes.
    pub(crate) fn written(&mut self, bytes: u64) {
        self.is_stale = false;
        self.bytes = bytes;
    }
}

/// What rewriting may cost on average.
const BYTES_PER_SECOND: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_manifest_is_written_more_rarely_and_one_that_failed_is_tried_again() {
        let mut pace = ManifestPace::default();
        assert!(!pace.is_due(100_000, 10_000), "nothing is new");
        pace.outdate();
        assert!(pace.is_due(100_000, 10_000));
        pace.begin(100_000);
        assert!(!pace.is_due(109_999, 10_000), "a failure waits, too");
        assert!(pace.is_due(110_000, 10_000));
        pace.begin(110_000);
        pace.written(64 * 1024 * 90);
        pace.outdate();
        assert!(!pace.is_due(199_999, 10_000));
        assert!(pace.is_due(200_000, 10_000));
    }
}
