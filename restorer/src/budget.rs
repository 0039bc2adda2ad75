//! Memory in bytes, shared by all partitions at work.
//!
//! A partition that holds nothing waits for its share. One that holds something already is let through even when the
//! budget is spent: it needs the second piece to make progress with the first, and if all waited, all would wait for
//! ever. How far that overdraws is bounded by the partitions at work times the segments that overlap in one place.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    total_kib: u32,
}

/// Bytes set aside until dropped.
#[derive(Debug)]
pub struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let total_kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            room: Arc::new(Semaphore::new(total_kib as usize)),
            total_kib,
        }
    }

    /// Sets bytes aside, waiting for room. What is larger than the whole budget takes all of it.
    pub async fn wait(&self, bytes: u64) -> Share {
        let permit = Arc::clone(&self.room).acquire_many_owned(self.kib(bytes)).await;
        // The semaphore is never closed; without a permit the bytes would merely not be counted.
        Share { _permit: permit.ok() }
    }

    /// Sets bytes aside if there is room.
    pub fn try_now(&self, bytes: u64) -> Option<Share> {
        let permit = Arc::clone(&self.room)
            .try_acquire_many_owned(self.kib(bytes))
            .ok()?;
        Some(Share {
            _permit: Some(permit),
        })
    }

    /// Sets bytes aside as far as there is room, and never waits.
    pub fn overdraw(&self, bytes: u64) -> Share {
        self.try_now(bytes).unwrap_or(Share { _permit: None })
    }

    fn kib(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.total_kib)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_dropped_can_be_had_again_and_more_than_all_takes_all() {
        let budget = Budget::new(10 * 1024);
        let all = budget.wait(1 << 40).await;
        assert!(budget.try_now(1).is_none());
        drop(budget.overdraw(1));
        drop(all);
        let half = budget.try_now(5 * 1024).unwrap();
        assert!(budget.try_now(6 * 1024).is_none());
        drop(half);
        assert!(budget.try_now(10 * 1024).is_some());
    }
}
