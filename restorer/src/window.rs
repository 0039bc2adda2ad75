//! The time window of a restore: start inclusive, end exclusive.
//!
//! Decisions rest on true minimum and maximum timestamps, never on first and last ones: records arrive late, and a
//! segment whose first record is from noon may hold one from the morning.

use std::fmt;

use serde::Serialize;

/// Which timestamps are wanted. Without a bound, everything on that side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Window {
    /// The earliest timestamp wanted, epoch milliseconds.
    pub from_ms: Option<i64>,
    /// The first timestamp no longer wanted, epoch milliseconds.
    pub to_ms: Option<i64>,
}

/// How a set of records with known minimum and maximum timestamps lies to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Every record is wanted.
    Inside,
    /// No record is wanted.
    Outside,
    /// Each record has to be looked at.
    Edge,
}

impl Window {
    /// Everything.
    pub const ALL: Self = Self {
        from_ms: None,
        to_ms: None,
    };

    /// Whether nothing is left out.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Whether no timestamp can be inside.
    pub fn is_empty(self) -> bool {
        matches!((self.from_ms, self.to_ms), (Some(from), Some(to)) if from >= to)
    }

    /// Whether a record with this timestamp is wanted.
    pub fn contains(self, timestamp_ms: i64) -> bool {
        self.from_ms.is_none_or(|from| timestamp_ms >= from) && self.to_ms.is_none_or(|to| timestamp_ms < to)
    }

    /// How records between these true bounds, both inclusive, lie to the window.
    pub fn position(self, timestamp_min: i64, timestamp_max: i64) -> Position {
        if self.is_all() {
            return Position::Inside;
        }
        if timestamp_min > timestamp_max {
            // Bounds of nothing (no data record), or bounds that cannot be trusted: look.
            return Position::Edge;
        }
        if self.contains(timestamp_min) && self.contains(timestamp_max) {
            return Position::Inside;
        }
        let before = self.from_ms.is_some_and(|from| timestamp_max < from);
        let after = self.to_ms.is_some_and(|to| timestamp_min >= to);
        if before || after {
            Position::Outside
        } else {
            Position::Edge
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from_ms, self.to_ms) {
            (None, None) => f.write_str("all times"),
            (Some(from), None) => write!(f, "from {}", show_ms(from)),
            (None, Some(to)) => write!(f, "before {}", show_ms(to)),
            (Some(from), Some(to)) => write!(f, "from {} to before {}", show_ms(from), show_ms(to)),
        }
    }
}

/// A moment for people: RFC 3339 in UTC, or the bare number where the calendar ends.
pub fn show_ms(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => at_ms.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_is_inclusive_and_the_end_exclusive() {
        let window = Window {
            from_ms: Some(10),
            to_ms: Some(20),
        };
        assert!(!window.contains(9));
        assert!(window.contains(10));
        assert!(window.contains(19));
        assert!(!window.contains(20));
        assert_eq!(window.position(10, 19), Position::Inside);
        assert_eq!(window.position(20, 30), Position::Outside);
        assert_eq!(window.position(0, 9), Position::Outside);
        assert_eq!(window.position(0, 10), Position::Edge);
        assert_eq!(window.position(0, 30), Position::Edge);
    }

    #[test]
    fn a_window_that_ends_before_it_starts_is_empty() {
        assert!(
            Window {
                from_ms: Some(5),
                to_ms: Some(5)
            }
            .is_empty()
        );
        assert!(
            !Window {
                from_ms: Some(5),
                to_ms: Some(6)
            }
            .is_empty()
        );
        assert!(!Window::ALL.is_empty());
    }

    proptest! {
        #[test]
        fn a_position_never_contradicts_its_records(
            from in proptest::option::of(-50i64..50),
            to in proptest::option::of(-50i64..50),
            timestamps in proptest::collection::vec(-60i64..60, 1..8),
        ) {
            let window = Window { from_ms: from, to_ms: to };
            let (min, max) = (*timestamps.iter().min().unwrap(), *timestamps.iter().max().unwrap());
            let wanted = timestamps.iter().filter(|&&at| window.contains(at)).count();
            match window.position(min, max) {
                Position::Inside => prop_assert_eq!(wanted, timestamps.len()),
                Position::Outside => prop_assert_eq!(wanted, 0),
                Position::Edge => {}
            }
        }
    }
}
