//! What may be demanded: offsets below a high watermark that is old enough.
//!
//! Proxies hold what they captured for a while before the ledger lists it. Asking how old a *hole* is would need the age
//! of every offset; asking how old a *watermark* is needs one number now and then: whatever lies below a watermark that
//! was read two minutes ago was written at least two minutes ago.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::partition::PartitionId;

/// The high watermarks of all partitions, with the moments when they were read.
#[derive(Debug)]
pub struct Watermarks {
    grace: Duration,
    seen: HashMap<PartitionId, VecDeque<(Instant, i64)>>,
}

impl Watermarks {
    /// Watermarks count when they are as old as this.
    pub fn new(grace: Duration) -> Self {
        Watermarks {
            grace,
            seen: HashMap::new(),
        }
    }

    /// Takes in what a survey read, asked for at `now`. Returns the end of what may be demanded.
    pub fn see(&mut self, id: PartitionId, high_watermark: i64, now: Instant) -> i64 {
        if self.grace.is_zero() {
            return high_watermark;
        }
        let samples = self.seen.entry(id).or_default();
        // A log that was cut back has written none of what lay behind.
        for (_, seen) in samples.iter_mut() {
            *seen = (*seen).min(high_watermark);
        }
        let spacing = self.grace / SAMPLES;
        let is_news = samples
            .back()
            .is_none_or(|&(at, seen)| seen != high_watermark && now.duration_since(at) >= spacing);
        if is_news {
            samples.push_back((now, high_watermark));
        }
        let is_old = |&(at, _): &(Instant, i64)| now.duration_since(at) >= self.grace;
        while samples.get(1).is_some_and(is_old) {
            samples.pop_front();
        }
        samples
            .front()
            .filter(|sample| is_old(sample))
            .map_or(0, |&(_, seen)| seen)
    }

    /// Forgets partitions that are not there any more.
    pub fn retain(&mut self, keep: impl Fn(&PartitionId) -> bool) {
        self.seen.retain(|id, _| keep(id));
    }
}

/// At most so many watermarks of a partition are remembered; the grace is that much longer at worst.
const SAMPLES: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const GRACE: Duration = Duration::from_secs(120);

    fn id() -> PartitionId {
        PartitionId {
            incarnation: Uuid::from_u128(1),
            partition: 0,
        }
    }

    #[test]
    fn a_watermark_is_demanded_when_it_has_the_age() {
        let mut marks = Watermarks::new(GRACE);
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(marks.see(id(), 100, at(0)), 0);
        assert_eq!(marks.see(id(), 200, at(60)), 0);
        assert_eq!(marks.see(id(), 300, at(119)), 0);
        assert_eq!(marks.see(id(), 300, at(120)), 100);
        assert_eq!(marks.see(id(), 300, at(180)), 200);
        assert_eq!(marks.see(id(), 300, at(240)), 300);
        assert_eq!(marks.see(id(), 300, at(9_000)), 300);
    }

    #[test]
    fn a_log_that_was_cut_back_is_not_demanded_beyond_its_end() {
        let mut marks = Watermarks::new(GRACE);
        let start = Instant::now();
        marks.see(id(), 100, start);
        marks.see(id(), 60, start + Duration::from_secs(60));
        assert_eq!(marks.see(id(), 200, start + Duration::from_secs(120)), 60);
    }

    #[test]
    fn without_a_grace_everything_is_demanded_at_once() {
        let mut marks = Watermarks::new(Duration::ZERO);
        assert_eq!(marks.see(id(), 100, Instant::now()), 100);
    }

    #[test]
    fn few_watermarks_are_remembered_of_a_busy_partition() {
        let mut marks = Watermarks::new(GRACE);
        let start = Instant::now();
        for second in 0..1_000u64 {
            let demanded = marks.see(id(), second as i64, start + Duration::from_secs(second));
            let oldest = second.saturating_sub(120 + 10) as i64;
            assert!(
                second < 130 || (oldest..=oldest + 10).contains(&demanded),
                "{second}: {demanded}"
            );
        }
        assert!(marks.seen.get(&id()).is_some_and(|samples| samples.len() <= 14));
    }
}
