//! How hard zstd tries at a block.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The level of zstd.
#[derive(Clone, Debug)]
pub enum Level {
    /// This one, 1 to 19.
    Fixed(i32),
    /// Level 3, or level 1 while it does about as well on the same kind of content. Segments of one topic share it.
    Chosen(Arc<LevelTrial>),
}

/// Which of two levels a topic's content is worth, found by trying both on a block now and then.
///
/// Level 1 takes about two thirds of level 3's time, and which of them leaves less depends on the content (docs/adr/0011).
#[derive(Debug)]
pub struct LevelTrial(Mutex<Trials>);

#[derive(Debug)]
struct Trials {
    /// Blocks until both are tried again.
    blocks_left: u32,
    random: u32,
    /// Bytes that each level left, older trials counting half of younger ones.
    higher_bytes: usize,
    lower_bytes: usize,
}

impl Default for LevelTrial {
    fn default() -> Self {
        LevelTrial(Mutex::new(Trials {
            // A topic of one block is not worth a trial.
            blocks_left: 1,
            random: 0x9E37_79B9,
            higher_bytes: 0,
            lower_bytes: 0,
        }))
    }
}

impl LevelTrial {
    /// Whether the lower level does, by the last trials.
    pub fn is_lower(&self) -> bool {
        self.lock().is_lower()
    }

    /// Notes what both levels left of one block.
    pub(crate) fn note(&self, higher_bytes: usize, lower_bytes: usize) {
        let mut trials = self.lock();
        trials.higher_bytes = (trials.higher_bytes / 2).saturating_add(higher_bytes);
        trials.lower_bytes = (trials.lower_bytes / 2).saturating_add(lower_bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Trials> {
        // Every field is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trials {
    fn is_lower(&self) -> bool {
        let bearable = self
            .higher_bytes
            .saturating_add(self.higher_bytes / TOLERANCE_PART);
        self.higher_bytes > 0 && self.lower_bytes <= bearable
    }

    /// Counts a block, and tells whether both levels are to be tried on it. At even distances a topic whose partitions
    /// come in turn would be judged by one of them for ever.
    fn is_due(&mut self) -> bool {
        if let Some(left) = self.blocks_left.checked_sub(1) {
            self.blocks_left = left;
            return false;
        }
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.blocks_left = TRIAL_BLOCKS / 2 + (self.random >> 16) % TRIAL_BLOCKS;
        true
    }
}

impl Level {
    /// How a block of so many bytes is compressed.
    pub(crate) fn of(&self, effort: Effort, bytes: usize) -> Attempt {
        match self {
            Level::Fixed(configured) => Attempt::At(effort.level(*configured)),
            Level::Chosen(trial) if effort == Effort::Full && bytes >= TRIAL_BYTES_MIN => {
                let mut trials = trial.lock();
                if trials.is_due() {
                    Attempt::Both(Arc::clone(trial))
                } else if trials.is_lower() {
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

    /// The level for it. Who asks for more than the default level wants the last byte.
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
/// Blocks from trial to trial, at the mean: one costs a block at the level that is not used.
const TRIAL_BLOCKS: u32 = 64;
/// Shorter blocks get other parameters from zstd, at either level: they tell nothing of longer ones, and keep the higher
/// level.
const TRIAL_BYTES_MIN: usize = 256 * 1024 + 1;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
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

    fn at(level: &Level, effort: Effort, bytes: usize) -> Option<i32> {
        match level.of(effort, bytes) {
            Attempt::At(level) => Some(level),
            Attempt::Both(_) => None,
        }
    }

    const LONG: usize = TRIAL_BYTES_MIN;

    #[test]
    fn the_lower_level_is_taken_while_it_leaves_no_more_to_speak_of() {
        for (higher, lower, expected) in [
            (6400, 6500, LEVEL_LOWER),
            (6400, 6501, LEVEL_HIGHER),
            (6400, 5000, LEVEL_LOWER),
        ] {
            let trial = Arc::new(LevelTrial::default());
            let level = Level::Chosen(Arc::clone(&trial));
            assert_eq!(
                at(&level, Effort::Full, LONG),
                Some(LEVEL_HIGHER),
                "the first block"
            );
            for _ in 0..3 {
                assert_eq!(at(&level, Effort::Full, LONG), None, "both are tried");
                trial.note(higher, lower);
                for _ in 0..TRIAL_BLOCKS / 2 {
                    assert_eq!(
                        at(&level, Effort::Full, LONG),
                        Some(expected),
                        "{lower} by {higher}"
                    );
                    assert_eq!(
                        at(&level, Effort::Full, LONG - 1),
                        Some(LEVEL_HIGHER),
                        "too short"
                    );
                    assert_eq!(at(&level, Effort::Light, LONG), Some(LEVEL_LOWER));
                    assert_eq!(at(&level, Effort::Least, LONG), Some(LEVEL_LEAST));
                }
                trial.lock().blocks_left = 0;
            }
        }
    }

    #[test]
    fn partitions_that_come_in_turn_are_all_tried() {
        for partitions in [2, 16, 64, 128] {
            let level = Level::Chosen(Arc::default());
            let mut tried = vec![0; partitions];
            for block in 0..400 * TRIAL_BLOCKS as usize {
                if at(&level, Effort::Full, LONG).is_none() {
                    tried[block % partitions] += 1;
                }
            }
            let total: u32 = tried.iter().sum();
            assert!((350..450).contains(&total), "{total} trials");
            let most = tried.iter().max().unwrap();
            assert!(*most * 2 <= total + 20, "{tried:?}");
            assert!(
                partitions > 16 || tried.iter().all(|count| *count > 0),
                "{tried:?}"
            );
        }
    }
}
