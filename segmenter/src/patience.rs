//! How long small segments may wait.
//!
//! Every segment is a request to the store and an object in it. With few partitions each may have its own every
//! `segment_max_interval`. With thousands of them, most of which get a record now and then, that would be thousands of
//! tiny objects a minute. So small segments share an allowance per minute, the oldest first; those without wait, as their
//! batches are safe in the buffer. They wait no longer than an age of their own, and only while the buffer has room: a
//! batch that waits keeps every later file of the buffer from being deleted.
//!
//! They close in gusts, many at a time, since a commit lists as many as are ready and is a request too; one at a time
//! they would cost a commit each, and every other writer and reader a request for each commit.

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
    /// Small ones close at most so often, whatever else.
    pub gust_ms: i64,
}

/// What is left of the allowance, and how much was read when.
#[derive(Debug)]
pub struct Patience {
    limits: PatienceLimits,
    allowance: Allowance,
    gust_at_ms: Option<i64>,
    read_bytes: u64,
    /// What had been read at which time, a sample a second.
    samples: VecDeque<(i64, u64)>,
}

impl Patience {
    /// With the allowance of a minute.
    pub fn new(limits: PatienceLimits) -> Self {
        Patience {
            limits,
            allowance: Allowance::new(limits.per_minute),
            gust_at_ms: None,
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
        let (small, mut closing): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|(_, close, size)| *close == Close::WhatIsKnown && self.is_small(size));
        let is_calm = self
            .gust_at_ms
            .is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < self.limits.gust_ms);
        if !is_calm && !small.is_empty() {
            self.gust_at_ms = Some(now_ms);
            closing.extend(self.gust(small, now_ms));
        }
        closing.into_iter().map(|(key, close, _)| (key, close)).collect()
    }

    /// Which of the small ones close now.
    fn gust<K>(&mut self, small: Vec<(K, Close, OpenSize)>, now_ms: i64) -> Vec<(K, Close, OpenSize)> {
        let (mut waiting, mut closing): (Vec<_>, Vec<_>) = small
            .into_iter()
            .partition(|(_, _, size)| self.may_wait(size, now_ms));
        waiting.sort_by_key(|(_, _, size)| size.since_ms.unwrap_or(now_ms));
        let allowed = usize::try_from(self.allowance.left(now_ms)).unwrap_or(usize::MAX);
        waiting.truncate(allowed);
        self.allowance
            .take(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
        closing.extend(waiting);
        closing
    }

    fn is_small(&self, size: &OpenSize) -> bool {
        size.bytes < self.limits.small_bytes && size.memory_bytes == 0
    }

    fn may_wait(&self, size: &OpenSize, now_ms: i64) -> bool {
        let since_ms = size.since_ms.unwrap_or(now_ms);
        now_ms.saturating_sub(since_ms) < self.limits.age_max_ms
            && self.read_since(since_ms) < self.limits.waiting_bytes_max
    }

    /// What was read since, and a little more.
    fn read_since(&self, since_ms: i64) -> u64 {
        let behind = self.samples.partition_point(|(at_ms, _)| *at_ms <= since_ms);
        let before = behind.checked_sub(1).and_then(|at| self.samples.get(at));
        let read = before.or(self.samples.front()).map_or(0, |(_, read)| *read);
        self.read_bytes.saturating_sub(read)
    }
}

/// So many a minute; what is not taken lasts for a minute.
#[derive(Debug)]
pub struct Allowance {
    per_minute: u32,
    /// In parts of one, see [`MINUTE_MS`].
    left: i64,
    refilled_ms: Option<i64>,
}

impl Allowance {
    /// With what a minute allows.
    pub fn new(per_minute: u32) -> Self {
        Allowance {
            per_minute,
            left: i64::from(per_minute).saturating_mul(MINUTE_MS),
            refilled_ms: None,
        }
    }

    /// How many are allowed now.
    pub fn left(&mut self, now_ms: i64) -> u32 {
        let last_ms = self.refilled_ms.replace(now_ms).unwrap_or(now_ms);
        let passed_ms = now_ms.saturating_sub(last_ms).clamp(0, MINUTE_MS);
        let per_minute = i64::from(self.per_minute);
        let most = per_minute.saturating_mul(MINUTE_MS);
        let more = per_minute.saturating_mul(passed_ms);
        self.left = self.left.saturating_add(more).min(most);
        u32::try_from(self.left / MINUTE_MS).unwrap_or(0)
    }

    /// Takes some of what is left.
    pub fn take(&mut self, count: u32) {
        let cost = i64::from(count).saturating_mul(MINUTE_MS);
        self.left = self.left.saturating_sub(cost).max(0);
    }
}

/// What one costs of an allowance, which grows by the allowance per minute every millisecond.
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
        gust_ms: 0,
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
    fn small_ones_close_in_gusts_and_others_at_once() {
        let mut patience = Patience::new(PatienceLimits {
            per_minute: 120,
            gust_ms: 10_000,
            ..LIMITS
        });
        let large = OpenSize {
            bytes: 1_000,
            ..small(0)
        };
        let (mut gusts, mut closed, mut waiting) = (0, 0, Vec::new());
        for now_ms in (0..60_000).step_by(250) {
            waiting.push(small(now_ms));
            let closing = patience.hold_back(due(&waiting), now_ms).len();
            waiting.drain(..closing);
            gusts += usize::from(closing > 0);
            closed += closing;
            let at_once = patience.hold_back(due(&[large]), now_ms);
            assert_eq!(keys(at_once), [0], "what is large is none of these");
        }
        assert_eq!(
            (gusts, closed),
            (6, 201),
            "four a second, but for the last ten seconds"
        );
        assert!(patience.hold_back(due(&[small(0)]), 59_999).is_empty());
        assert_eq!(keys(patience.hold_back(due(&[small(0)]), 700_000)), [0]);
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
