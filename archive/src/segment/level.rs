//! How hard zstd tries at a block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The level of zstd.
#[derive(Clone, Debug)]
pub enum Level {
    /// This one, 1 to 19.
    Fixed(i32),
    /// Level 3, or level 1 while it does about as well on the same content. What segments of the same content share.
    Chosen(Arc<LevelTrial>),
}

/// Which of two levels some content is worth, found by trying both on a block now and then.
///
/// Level 1 takes half of level 3's time. Which of them leaves less depends on the content: of JSON events it is level 1
/// (a fifth instead of a quarter, measured), of Avro and text level 3 by 5 to 14 %.
#[derive(Debug, Default)]
pub struct LevelTrial {
    /// Blocks until both are tried again.
    blocks_left: AtomicU32,
    is_lower: AtomicBool,
}

impl LevelTrial {
    /// Whether the lower level did at the last trial.
    pub fn is_lower(&self) -> bool {
        self.is_lower.load(Ordering::Relaxed)
    }

    /// Notes what both levels left of one block.
    pub(crate) fn note(&self, higher: usize, lower: usize) {
        let is_lower = lower <= higher.saturating_add(higher / TOLERANCE_PART);
        self.is_lower.store(is_lower, Ordering::Relaxed);
    }

    /// Whether it is time to try both.
    fn is_due(&self) -> bool {
        // Builders of several segments may meet here; that one of them counts wrong costs a trial.
        let count = |left: u32| Some(left.checked_sub(1).unwrap_or(BLOCKS_OF_A_TRIAL - 1));
        let before = self
            .blocks_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        before == Ok(0)
    }
}

impl Level {
    /// How a block of so many bytes is compressed.
    pub(crate) fn of(&self, effort: Effort, bytes: usize) -> Attempt {
        match self {
            Level::Fixed(configured) => Attempt::At(effort.level(*configured)),
            Level::Chosen(trial) if effort == Effort::Full => {
                if bytes >= TRIAL_BYTES_MIN && trial.is_due() {
                    Attempt::Both(Arc::clone(trial))
                } else if trial.is_lower() {
                    Attempt::At(LEVEL_LOWER)
                } else {
                    Attempt::At(LEVEL_HIGHER)
                }
            }
            Level::Chosen(_) => Attempt::At(effort.level(LEVEL_HIGHER)),
        }
    }
}

impl From<i32> for Level {
    fn from(level: i32) -> Level {
        Level::Fixed(level)
    }
}

/// What is done with one block.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is compressed at this level.
    At(i32),
    /// It is compressed at both, the outcome is noted, and the smaller one taken.
    Both(Arc<LevelTrial>),
}

/// How much work a block is worth, given how the producers of its batches have compressed them.
///
/// Measured on JSON events: of what lz4 has left, zstd's level 3 takes 31 % away at 77 MB a second of CPU, level 1 takes
/// 25 % at 373; of what zstd has left, no level takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Records as they are: the configured level.
    Full,
    /// Matches are gone, entropy is not (snappy, lz4).
    Light,
    /// Nothing is left to be gained (gzip, zstd): the block is a frame that holds its content as it is.
    Least,
}

impl Effort {
    /// What a batch is worth by its attributes.
    pub(crate) fn of(attributes: i16) -> Effort {
        match attributes & PRODUCER_CODEC_BITS {
            1 | 4 => Effort::Least,
            2 | 3 => Effort::Light,
            // What will be known one day is taken for compressible: that costs time, never bytes.
            _ => Effort::Full,
        }
    }

    /// The level for it where one was asked for. Who asks for more than the default level wants the last byte.
    fn level(self, configured: i32) -> i32 {
        match self {
            Effort::Full => configured,
            Effort::Light if configured > LEVEL_HIGHER => configured,
            Effort::Light => configured.min(1),
            Effort::Least => LEVEL_LEAST,
        }
    }
}

/// Of a batch's attributes: how its producer has compressed it.
const PRODUCER_CODEC_BITS: i16 = 0b111;
/// zstd's own default.
pub(crate) const LEVEL_HIGHER: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;
/// The lowest that compresses literals, too.
pub(crate) const LEVEL_LOWER: i32 = 1;
/// The least that zstd can be asked to try: what has no matches is stored as it is, after one look at some of it.
const LEVEL_LEAST: i32 = -50;
/// The lower level does when it leaves at most one part in so many more: what is in the store is paid for every month.
const TOLERANCE_PART: usize = 64;
/// A trial of blocks that are worth level 1 costs two of them more, of others half of one.
const BLOCKS_OF_A_TRIAL: u32 = 64;
/// Shorter blocks tell little of longer ones.
const TRIAL_BYTES_MIN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_already_is_tried_less() {
        assert_eq!([0, 1, 2, 3, 4].map(Effort::of), {
            use Effort::{Full, Least, Light};
            [Full, Least, Light, Light, Least]
        });
        assert_eq!([3, 1].map(|level| Effort::Light.level(level)), [1, 1]);
        assert_eq!(Effort::Light.level(9), 9);
    }

    #[test]
    fn the_lower_level_is_taken_while_it_leaves_no_more_to_speak_of() {
        let trial = Arc::new(LevelTrial::default());
        let level = Level::Chosen(Arc::clone(&trial));
        let at = |effort, bytes| match level.of(effort, bytes) {
            Attempt::At(level) => Some(level),
            Attempt::Both(_) => None,
        };
        let long = TRIAL_BYTES_MIN;
        assert_eq!(
            at(Effort::Full, long - 1),
            Some(LEVEL_HIGHER),
            "too short to tell"
        );
        assert_eq!(at(Effort::Light, long), Some(LEVEL_LOWER));
        assert_eq!(at(Effort::Least, long), Some(LEVEL_LEAST));
        for (higher, lower, expected) in [
            (6400, 6500, LEVEL_LOWER),
            (6400, 6501, LEVEL_HIGHER),
            (6400, 5000, LEVEL_LOWER),
        ] {
            assert_eq!(at(Effort::Full, long), None, "both are tried");
            trial.note(higher, lower);
            for _ in 1..BLOCKS_OF_A_TRIAL {
                assert_eq!(at(Effort::Full, long), Some(expected), "{lower} beside {higher}");
            }
        }
    }
}
