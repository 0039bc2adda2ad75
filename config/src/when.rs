//! Moments in time as people write them: RFC 3339 with any offset, epoch milliseconds, or relative to now.

use std::fmt;

use crate::units::{UnitError, parse_duration_ms};

/// A moment: fixed, or relative to the moment it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Milliseconds since the epoch.
    At(i64),
    /// Milliseconds before (negative) or after now.
    FromNow(i64),
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// None of the three forms.
    #[error("not a moment in time: {0}")]
    Form(String),
    /// A date without a UTC offset means another moment at every place.
    #[error("the time has no UTC offset, so it is not one moment")]
    NoOffset,
    /// Beyond what epoch milliseconds or the calendar hold.
    #[error("the time is out of range")]
    Range,
}

impl When {
    /// Reads one of the three forms, or `now`.
    pub fn parse(text: &str) -> Result<Self, WhenError> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::At).map_err(|_| WhenError::Range);
        }
        let from_now = text.strip_prefix("now").unwrap_or(text);
        if from_now.is_empty() && !text.is_empty() {
            return Ok(Self::FromNow(0));
        }
        if let Some(duration) = from_now.strip_prefix('-') {
            return Ok(Self::FromNow(
                relative(text, duration)?.checked_neg().ok_or(WhenError::Range)?,
            ));
        }
        if let Some(duration) = from_now.strip_prefix('+') {
            return relative(text, duration).map(Self::FromNow);
        }
        match text.parse::<jiff::Timestamp>() {
            Ok(at) => Ok(Self::At(at.as_millisecond())),
            Err(_) if text.parse::<jiff::civil::Date>().is_ok() => Err(WhenError::NoOffset),
            Err(_) => Err(WhenError::Form(text.to_owned())),
        }
    }

    /// The moment in epoch milliseconds; relative ones are counted from `now_ms`.
    pub fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(at_ms) => at_ms,
            Self::FromNow(delta_ms) => now_ms.saturating_add(delta_ms),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at_ms) => write!(f, "{at_ms}"),
            Self::FromNow(delta_ms) => write!(f, "now{delta_ms:+} ms"),
        }
    }
}

fn relative(text: &str, duration: &str) -> Result<i64, WhenError> {
    match parse_duration_ms(duration) {
        Ok(ms) => i64::try_from(ms).map_err(|_| WhenError::Range),
        Err(UnitError::TooLarge) => Err(WhenError::Range),
        Err(_) => Err(WhenError::Form(text.to_owned())),
    }
}

/// What to write instead of a wrong moment.
pub const WHEN_HINT: &str = "write RFC 3339 with an offset (2026-11-21T08:00:00Z, 2026-11-21T09:00:00+01:00), epoch milliseconds, or relative to now (-24h)";

/// Reads a moment and resolves it at once: RFC 3339 (any offset), epoch milliseconds, or relative as `-24h`.
pub fn parse_when(text: &str, now_ms: i64) -> Result<i64, WhenError> {
    Ok(When::parse(text)?.resolve(now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    #[test]
    fn the_same_moment_in_three_forms() {
        assert_eq!(parse_when("2027-01-15T08:00:00Z", 0), Ok(NOW_MS));
        assert_eq!(parse_when("2027-01-15T09:30:00+01:30", 0), Ok(NOW_MS));
        assert_eq!(parse_when("1800000000000", 0), Ok(NOW_MS));
        assert_eq!(parse_when("2027-01-15T08:00:00.123-00:00", 0), Ok(NOW_MS + 123));
    }

    #[test]
    fn relative_moments_count_from_now() {
        assert_eq!(parse_when("-24h", NOW_MS), Ok(NOW_MS - 86_400_000));
        assert_eq!(parse_when("now-1d12h", NOW_MS), Ok(NOW_MS - 129_600_000));
        assert_eq!(parse_when("now", NOW_MS), Ok(NOW_MS));
        assert_eq!(parse_when("+5m", NOW_MS), Ok(NOW_MS + 300_000));
    }

    #[test]
    fn what_is_not_one_moment_is_refused() {
        assert_eq!(parse_when("2027-01-15T08:00:00", 0), Err(WhenError::NoOffset));
        assert_eq!(parse_when("2027-01-15", 0), Err(WhenError::NoOffset));
        assert_eq!(parse_when("99999999999999999999", 0), Err(WhenError::Range));
        for text in ["", "yesterday", "-24", "24h", "-", "2027-13-01T00:00:00Z"] {
            assert!(matches!(parse_when(text, 0), Err(WhenError::Form(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", now_ms: i64) {
            let _ = parse_when(&text, now_ms);
        }
    }
}
