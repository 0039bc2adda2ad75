//! How much at once, how fast, how many records; and what was done so far.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a run may take. Clones share the throttle and the budget.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Partitions read at once.
    pub jobs_at_once: usize,
    /// About what one response may hold; a larger batch comes nevertheless.
    pub fetch_bytes: i32,
    /// A segment is finished at this age, so that a slow source does not keep it from the ledger.
    pub segment_age_max: Duration,
    /// How fast.
    pub throttle: Option<Arc<Throttle>>,
    /// How many records.
    pub budget: Option<Arc<RecordBudget>>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Two cores are busy with four: some wait for the network while others compress.
            jobs_at_once: 4,
            fetch_bytes: 1024 * 1024,
            segment_age_max: Duration::from_secs(60),
            throttle: None,
            budget: None,
        }
    }
}

/// Keeps the sum of all jobs at a rate. What was taken is paid for afterwards: a response's size is known only then.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When everything taken so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// So many bytes a second; 0 is taken for 1.
    pub fn new(bytes_per_second: u64) -> Self {
        Throttle {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: Mutex::new(None),
        }
    }

    /// Notes what was taken.
    pub fn take(&self, bytes: usize) {
        let nanos = (bytes as u128).saturating_mul(1_000_000_000) / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST);
        let now = Instant::now();
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing was taken is not saved up, but for what evens out small pauses.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *paid_at = Some(paid_at.unwrap_or(now).max(earliest) + cost);
    }

    /// Waits until what was taken is paid for.
    pub async fn paid(&self) {
        let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(paid_at) = paid_at {
            tokio::time::sleep_until(paid_at).await;
        }
    }
}

const BURST: Duration = Duration::from_millis(500);
/// One response at the lowest rate; anything longer would be a stop.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many records may still be fetched, by all jobs together.
#[derive(Debug)]
pub struct RecordBudget {
    left: AtomicI64,
}

impl RecordBudget {
    /// So many.
    pub fn new(records: u64) -> Self {
        RecordBudget {
            left: AtomicI64::new(i64::try_from(records).unwrap_or(i64::MAX)),
        }
    }

    /// Asks for a whole batch: granted as long as anything is left, as a batch cannot be cut.
    pub fn grants(&self, records: u32) -> bool {
        let take = |left: i64| (left > 0).then_some(left.saturating_sub(i64::from(records)));
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// True when there is nothing left.
    pub fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) <= 0
    }
}

/// What was done so far, by all jobs together.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    records: AtomicU64,
    offsets: AtomicU64,
    segments: AtomicU64,
    requests: AtomicU64,
}

impl Progress {
    /// Bytes of batches taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Records taken.
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Wanted offsets dealt with.
    pub fn offsets(&self) -> u64 {
        self.offsets.load(Ordering::Relaxed)
    }

    /// Segments stored.
    pub fn segments(&self) -> u64 {
        self.segments.load(Ordering::Relaxed)
    }

    /// Requests to the source.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn on_response(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn on_batch(&self, bytes: usize, records: u32) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.records.fetch_add(u64::from(records), Ordering::Relaxed);
    }

    pub(super) fn on_offsets(&self, offsets: u64) {
        self.offsets.fetch_add(offsets, Ordering::Relaxed);
    }

    pub(super) fn on_segment(&self) {
        self.segments.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_throttle_keeps_the_rate() {
        let throttle = Throttle::new(100_000_000);
        let began = Instant::now();
        for _ in 0..10 {
            throttle.paid().await;
            throttle.take(10_000_000);
        }
        throttle.paid().await;
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(490),
            "{took:?}: half a second is granted at once"
        );
    }

    #[test]
    fn a_budget_grants_the_batch_that_reaches_it_and_none_after() {
        let budget = RecordBudget::new(10);
        assert!(budget.grants(6) && budget.grants(6));
        assert!(budget.is_spent() && !budget.grants(1));
        assert!(!RecordBudget::new(0).grants(1));
    }
}
