//! Rate limit for log lines of one kind: a flood of bad connections must not become a flood of lines.
//! What is not written is counted, and the count goes into the next line that is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets [`LINES_PER_PERIOD`] lines of one kind through per [`PERIOD`].
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    period_began: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl Quiet {
    /// Whether a line may be written now; if so, how many were suppressed since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        // The state is plain counters: a poisoned lock guards nothing half-changed.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .period_began
            .is_none_or(|began| now.duration_since(began) >= PERIOD)
        {
            state.period_began = Some(now);
            state.written = 0;
        }
        if state.written < LINES_PER_PERIOD {
            state.written = state.written.saturating_add(1);
            Some(std::mem::take(&mut state.suppressed))
        } else {
            state.suppressed = state.suppressed.saturating_add(1);
            None
        }
    }
}

/// Enough to see several distinct peers misbehave.
const LINES_PER_PERIOD: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let quiet = Quiet::default();
        let start = Instant::now();
        let written = (0..1000).filter(|_| quiet.admit_at(start).is_some()).count();
        assert_eq!(written, LINES_PER_PERIOD as usize);
        assert_eq!(
            quiet.admit_at(start + PERIOD),
            Some(1000 - u64::from(LINES_PER_PERIOD))
        );
        assert_eq!(quiet.admit_at(start + PERIOD), Some(0));
    }
}
