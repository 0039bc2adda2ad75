//! When open segments close.

use crate::open_segment::OpenSize;

/// The limits of open segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseLimits {
    /// Bytes of batches, before compression.
    pub bytes_max: u64,
    /// Age, from the first batch.
    pub age_max_ms: i64,
    /// Segments with fewer bytes are small: they may close before their time, with others, or be held back beyond it.
    pub small_bytes: u64,
    /// Batches of all open segments together, above which what can close does; at twice as many nothing waits. The bound of
    /// the memory that their positions take.
    pub positions_max: usize,
    /// Bytes of fetched batches in all open segments together.
    pub memory_bytes_max: u64,
}

/// How much of an open segment closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It is large or old enough. Batches whose leader epoch the next Metadata answer may tell stay open a little longer:
    /// they cost nothing but their positions.
    WhatIsKnown,
    /// There is no time, or no room, to wait for anything.
    Everything,
}

/// Says which of the open segments close now. `everything` closes all (stop, drain).
pub fn due<K: Copy>(
    open: impl Iterator<Item = (K, OpenSize)>,
    limits: &CloseLimits,
    now_ms: i64,
    everything: bool,
) -> Vec<(K, Close)> {
    let mut open: Vec<(K, OpenSize)> = open.filter(|(_, size)| size.batches > 0).collect();
    if everything {
        return open
            .into_iter()
            .map(|(key, _)| (key, Close::Everything))
            .collect();
    }
    let mut due = Vec::new();
    // What is due by its age and stays to wait for its epoch takes room like all others.
    let mut positions: usize = open.iter().map(|(_, size)| size.batches).sum();
    let close = match positions > limits.positions_max.saturating_mul(2) {
        true => Close::Everything,
        false => Close::WhatIsKnown,
    };
    open.sort_unstable_by_key(|(_, size)| size.batches);
    while positions > limits.positions_max
        && let Some((key, size)) = open.pop()
    {
        positions = positions.saturating_sub(size.batches);
        due.push((key, close));
    }
    let age = |size: &OpenSize| now_ms.saturating_sub(size.since_ms.unwrap_or(now_ms));
    // When one segment is old enough, small ones past half its age go with it: one commit for many segments. Larger ones do
    // not: where small ones are held back one of them is old at any time, and all others would always be cut in half.
    let some_aged = open.iter().any(|(_, size)| age(size) >= limits.age_max_ms);
    let age_max_ms = |size: &OpenSize| match some_aged && size.bytes < limits.small_bytes {
        true => limits.age_max_ms / 2,
        false => limits.age_max_ms,
    };
    let full = |size: &OpenSize| size.bytes >= limits.bytes_max || age(size) >= age_max_ms(size);
    let mut by_limits = open.extract_if(.., |(_, size)| full(size)).collect::<Vec<_>>();
    let mut memory: u64 = open.iter().map(|(_, size)| size.memory_bytes).sum();
    open.sort_unstable_by_key(|(_, size)| size.memory_bytes);
    while memory > limits.memory_bytes_max
        && let Some((key, size)) = open.pop()
    {
        memory = memory.saturating_sub(size.memory_bytes);
        by_limits.push((key, size));
    }
    // What was fetched has its epoch, so memory is given back in any case.
    due.extend(by_limits.into_iter().map(|(key, _)| (key, Close::WhatIsKnown)));
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CloseLimits = CloseLimits {
        bytes_max: 1_000,
        age_max_ms: 60,
        small_bytes: 100,
        positions_max: 100,
        memory_bytes_max: 500,
    };

    fn size(bytes: u64, batches: usize, since_ms: i64) -> OpenSize {
        OpenSize {
            bytes,
            batches,
            memory_bytes: 0,
            since_ms: Some(since_ms),
        }
    }

    fn closes(open: &[(u32, OpenSize)], now_ms: i64) -> Vec<u32> {
        let mut keys: Vec<u32> = due(open.iter().copied(), &LIMITS, now_ms, false)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_segment_closes_by_size_and_by_age() {
        let open = [(1, size(10, 1, 50)), (2, size(1_000, 1, 50)), (3, size(10, 1, 0))];
        assert_eq!(closes(&open, 55), [2]);
        assert_eq!(closes(&open, 60), [2, 3]);
    }

    #[test]
    fn those_past_half_the_age_close_together() {
        let open = [(1, size(10, 1, 0)), (2, size(10, 1, 29)), (3, size(10, 1, 31))];
        assert_eq!(closes(&open, 59), [0u32; 0]);
        assert_eq!(closes(&open, 60), [1, 2]);
    }

    #[test]
    fn a_large_one_lives_to_its_age_however_many_small_ones_are_held_back_beyond_theirs() {
        let open = [(1, size(10, 1, 0)), (2, size(100, 1, 300))];
        assert_eq!(closes(&open, 359), [1]);
        assert_eq!(closes(&open, 360), [1, 2]);
    }

    #[test]
    fn too_many_positions_close_the_largest_early() {
        let open = [(1, size(10, 40, 0)), (2, size(10, 50, 0)), (3, size(10, 30, 0))];
        assert_eq!(closes(&open, 1), [2]);
        let open = [(1, size(10, 40, 0)), (2, size(10, 150, 0)), (3, size(10, 30, 0))];
        let due = due(open.into_iter(), &LIMITS, 1, false);
        assert_eq!(due, [(2, Close::Everything)], "there is no room to wait");
    }

    #[test]
    fn too_much_in_memory_closes_what_holds_most_of_it() {
        let with = |memory_bytes| OpenSize {
            memory_bytes,
            ..size(10, 1, 0)
        };
        assert_eq!(closes(&[(1, with(300)), (2, with(250)), (3, with(20))], 1), [1]);
    }

    #[test]
    fn a_stop_closes_everything_that_is_open_and_nothing_that_is_empty() {
        let open = [(1, size(10, 1, 0)), (2, size(0, 0, 0))];
        assert_eq!(due(open.into_iter(), &LIMITS, 0, true), [(1, Close::Everything)]);
    }
}
