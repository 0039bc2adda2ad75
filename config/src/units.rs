//! Sizes and durations with units.
