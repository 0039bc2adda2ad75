//! How much to ask for. Pure.
//!
//! Markers and small holes often lie close together: reading through what is held between them costs less than a request
//! each. How many bytes an offset takes is learnt from the responses.

use teeline_archive::OffsetRange;

/// Estimates how many bytes lie ahead.
#[derive(Debug, Clone, Copy)]
pub struct Appetite {
    /// About what an offset of this partition takes.
    bytes_per_offset: f64,
    bytes_max: i32,
}

impl Appetite {
    /// Nothing is known about the partition yet.
    pub fn new(bytes_max: i32) -> Self {
        Appetite {
            bytes_per_offset: BYTES_PER_OFFSET_AT_FIRST,
            bytes_max,
        }
    }

    /// A response of so many bytes covered so many offsets.
    pub fn learn(&mut self, bytes: usize, offsets: u64) {
        if bytes == 0 || offsets == 0 {
            return;
        }
        let seen = bytes as f64 / offsets as f64;
        self.bytes_per_offset = (self.bytes_per_offset + seen) / 2.0;
    }

    /// What to ask for: all of the ranges ahead that are so close to each other that they are better read in one go.
    pub fn ask(&self, ahead: impl Iterator<Item = OffsetRange>) -> i32 {
        let mut ahead = ahead.take(RANGES_MAX);
        let Some(mut run) = ahead.next() else { return 1 };
        for range in ahead {
            let between = range.first.saturating_sub(run.last) as f64 * self.bytes_per_offset;
            if between > REQUEST_COST_BYTES || self.estimate(run) >= f64::from(self.bytes_max) {
                break;
            }
            run.last = range.last;
        }
        // The conversion saturates.
        (self.estimate(run) as i32).clamp(1, self.bytes_max.max(1))
    }

    fn estimate(&self, run: OffsetRange) -> f64 {
        // Batches come whole, so a little too much is better than a second request.
        run.span() as f64 * self.bytes_per_offset * 1.25
    }
}

const BYTES_PER_OFFSET_AT_FIRST: f64 = 1024.0;
/// Reading so many bytes takes about as long as a request more.
const REQUEST_COST_BYTES: f64 = 128.0 * 1024.0;
/// Looking further ahead does not change the answer by much.
const RANGES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(appetite: &Appetite, ranges: &[(i64, i64)]) -> i32 {
        appetite.ask(ranges.iter().map(|&(first, last)| OffsetRange { first, last }))
    }

    #[test]
    fn a_marker_alone_takes_little_and_a_long_range_all_that_is_allowed() {
        let appetite = Appetite::new(4 << 20);
        assert!(ask(&appetite, &[(7, 7)]) < 4096);
        assert_eq!(ask(&appetite, &[(0, 1_000_000)]), 4 << 20);
        assert_eq!(ask(&appetite, &[(0, i64::MAX)]), 4 << 20);
        assert_eq!(ask(&appetite, &[]), 1);
    }

    #[test]
    fn markers_close_to_each_other_are_asked_for_together() {
        let mut appetite = Appetite::new(4 << 20);
        let close: Vec<_> = (0..100).map(|n| (n * 10, n * 10)).collect();
        let far: Vec<_> = (0..100).map(|n| (n * 100_000, n * 100_000)).collect();
        assert!(ask(&appetite, &close) > 900 * 1024);
        assert!(ask(&appetite, &far) < 4096);
        for _ in 0..20 {
            appetite.learn(1_000_000, 10);
        }
        assert!(
            ask(&appetite, &close) < 1 << 18,
            "large records are not read through"
        );
    }
}
