//! How long small segments may wait.
//!
//! Every segment is a request to the store and an object in it. With few partitions each may have its own every
//! `segment_max_interval`. With thousands of them, most of which get a record now and then, that would be thousands of
//! tiny objects a minute. So small segments share an allowance per minute, the oldest first; those without wait, as their
//! batches are safe in the buffer. They wait no longer than an age of their own, and only while the buffer has room: a
//! batch that waits keeps every later file of the buffer from being deleted.

use std::collections::VecDeque;

use crate::close::Close;
use crate::open_segment::OpenSize;

/// How patient small segments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatienceLimits {
    /// Segments with fewer bytes of batches are small.
    pub small_bytes: u64,
    /// So many small ones close per minute in any case.
    pub per_minute: u32,
    /// At this age a small one closes, too.
    pub age_max_ms: i64,
    /// With so much behind it in the buffer a small one closes, too.
    pub waiting_bytes_max: u64,
}

/// What is left of the allowance, and how much was read when.
#[derive(Debug)]
pub struct Patience {
    limits: PatienceLimits,
    /// In parts of a segment, see [`MINUTE_MS`].
    allowance: i64,
    refilled_ms: Option<i64>,
    read_bytes: u64,
    /// What had been read at which time, a sample a second.
    samples: VecDeque<(i64, u64)>,
}

impl Patience {
    /// With the allowance of a minute.
    pub fn new(limits: PatienceLimits) -> Self {
        Patience {
            limits,
            allowance: i64::from(limits.per_minute).saturating_mul(MINUTE_MS),
            refilled_ms: None,
            read_bytes: 0,
            samples: VecDeque::new(),
        }
    }

    /// Notes what was read from the buffer.
    pub fn on_read(&mut self, bytes: u64, now_ms: i64) {
        let is_due = self
            .samples
            .back()
            .is_none_or(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= SAMPLE_MS);
        if is_due {
            self.samples.push_back((now_ms, self.read_bytes));
            if self.samples.len() > SAMPLES_MAX {
                self.samples.pop_front();
            }
        }
        self.read_bytes = self.read_bytes.saturating_add(bytes);
    }

    /// Leaves out of what is due the small segments that may wait.
    pub fn hold_back<K>(&mut self, due: Vec<(K, Close, OpenSize)>, now_ms: i64) -> Vec<(K, Close)> {
        self.refill(now_ms);
        let (mut small, now): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|(_, close, size)| *close == Close::WhatIsKnown && self.may_wait(size, now_ms));
        let mut closing: Vec<(K, Close)> = now.into_iter().map(|(key, close, _)| (key, close)).collect();
        small.sort_by_key(|(_, _, size)| size.since_ms.unwrap_or(now_ms));
        for (key, close, _) in small {
            if self.allowance < MINUTE_MS {
                break;
            }
            self.allowance = self.allowance.saturating_sub(MINUTE_MS);
            closing.push((key, close));
        }
        closing
    }

    fn may_wait(&self, size: &OpenSize, now_ms: i64) -> bool {
        let since_ms = size.since_ms.unwrap_or(now_ms);
        size.bytes < self.limits.small_bytes
            && size.memory_bytes == 0
            && now_ms.saturating_sub(since_ms) < self.limits.age_max_ms
            && self.read_since(since_ms) < self.limits.waiting_bytes_max
    }

    /// What was read since, and a little more.
    fn read_since(&self, since_ms: i64) -> u64 {
        let behind = self.samples.partition_point(|(at_ms, _)| *at_ms <= since_ms);
        let before = behind.checked_sub(1).and_then(|at| self.samples.get(at));
        let read = before.or(self.samples.front()).map_or(0, |(_, read)| *read);
        self.read_bytes.saturating_sub(read)
    }

    fn refill(&mut self, now_ms: i64) {
        let last_ms = self.refilled_ms.replace(now_ms).unwrap_or(now_ms);
        let passed_ms = now_ms.saturating_sub(last_ms).clamp(0, MINUTE_MS);
        let per_minute = i64::from(self.limits.per_minute);
        let most = per_minute.saturating_mul(MINUTE_MS);
        let more = per_minute.saturating_mul(passed_ms);
        self.allowance = self.allowance.saturating_add(more).min(most);
    }
}

/// What one segment costs of the allowance, which grows by the allowance per minute every millisecond.
const MINUTE_MS: i64 = 60_000;
const SAMPLE_MS: i64 = 1_000;
/// An hour; what is older counts as if it were that old.
const SAMPLES_MAX: usize = 3_600;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIMITS: PatienceLimits = PatienceLimits {
        small_bytes: 1_000,
        per_minute: 2,
        age_max_ms: 600_000,
        waiting_bytes_max: 10_000,
    };

    fn small(since_ms: i64) -> OpenSize {
        OpenSize {
            bytes: 10,
            batches: 1,
            memory_bytes: 0,
            since_ms: Some(since_ms),
        }
    }

    fn due(sizes: &[OpenSize]) -> Vec<(usize, Close, OpenSize)> {
        let due = |(key, size): (usize, &OpenSize)| (key, Close::WhatIsKnown, *size);
        sizes.iter().enumerate().map(due).collect()
    }

    fn keys(closing: Vec<(usize, Close)>) -> Vec<usize> {
        closing.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn small_ones_share_an_allowance_and_the_oldest_come_first() {
        let mut patience = Patience::new(LIMITS);
        let sizes = [small(30), small(10), small(20), small(40)];
        assert_eq!(keys(patience.hold_back(due(&sizes), 60_000)), [1, 2]);
        assert_eq!(keys(patience.hold_back(due(&sizes), 60_010)), [0usize; 0]);
        assert_eq!(keys(patience.hold_back(due(&sizes), 90_000)), [1]);
        assert_eq!(
            keys(patience.hold_back(due(&sizes), 900_000)).len(),
            4,
            "all are old now"
        );
    }

    #[test]
    fn looks_in_quick_succession_add_up_to_the_allowance_too() {
        let mut patience = Patience::new(LIMITS);
        let mut closed = 0;
        for now_ms in (0..600_000).step_by(50) {
            closed += patience
                .hold_back(due(&[small(now_ms), small(now_ms)]), now_ms)
                .len();
        }
        assert_eq!(closed, 21, "two at once, then two a minute");
    }

    #[test]
    fn what_is_large_forced_or_in_memory_does_not_wait() {
        let mut patience = Patience::new(PatienceLimits {
            per_minute: 0,
            ..LIMITS
        });
        let large = OpenSize {
            bytes: 1_000,
            ..small(0)
        };
        let fetched = OpenSize {
            memory_bytes: 1,
            ..small(0)
        };
        let mut all = due(&[small(0), large, fetched]);
        all.push((3, Close::Everything, small(0)));
        assert_eq!(keys(patience.hold_back(all, 1)), [1, 2, 3]);
    }

    #[test]
    fn nothing_waits_once_too_much_is_behind_it_in_the_buffer() {
        let mut patience = Patience::new(PatienceLimits {
            per_minute: 0,
            ..LIMITS
        });
        patience.on_read(50_000, 0);
        patience.on_read(1, 5_000);
        assert_eq!(keys(patience.hold_back(due(&[small(5_000)]), 6_000)), [0usize; 0]);
        patience.on_read(9_998, 6_000);
        assert_eq!(keys(patience.hold_back(due(&[small(5_000)]), 7_000)), [0usize; 0]);
        patience.on_read(1, 7_000);
        assert_eq!(
            keys(patience.hold_back(due(&[small(5_000), small(6_500)]), 8_000)),
            [0]
        );
    }
}
