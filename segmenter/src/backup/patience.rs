//! When to go on after a failure, and when to give up. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// Something was fetched or explained.
    Forward,
    /// Nothing came, for reasons that pass.
    Nowhere,
    /// Nothing came, for reasons that waiting does not cure.
    Refused,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another round after this pause.
    After(Duration),
    /// Give up.
    GiveUp,
}

/// Patience with one source.
#[derive(Debug)]
pub struct Patience {
    endless: bool,
    last_forward: Instant,
    pause: Duration,
}

impl Patience {
    /// A run that has an end gives up some time; one that is `endless` does not.
    pub fn new(endless: bool, now: Instant) -> Self {
        Patience {
            endless,
            last_forward: now,
            pause: PAUSE_FIRST,
        }
    }

    /// Takes in how a round went.
    pub fn after(&mut self, went: Went, now: Instant) -> Next {
        let limit = match went {
            Went::Forward => {
                self.last_forward = now;
                self.pause = PAUSE_FIRST;
                return Next::After(Duration::ZERO);
            }
            Went::Nowhere => OUTAGE_MAX,
            Went::Refused => REFUSED_MAX,
        };
        if !self.endless && now.duration_since(self.last_forward) >= limit {
            return Next::GiveUp;
        }
        let pause = self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Next::After(pause)
    }
}

/// Brokers restart, leaders move, credentials rotate: all of it takes less.
pub(super) const OUTAGE_MAX: Duration = Duration::from_secs(180);
/// Rights that were just given reach all brokers within moments.
const REFUSED_MAX: Duration = Duration::from_secs(10);
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_waited_for_longer_than_a_refusal_and_not_for_ever() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::new(false, start);
        assert_eq!(patience.after(Went::Nowhere, at(1)), Next::After(PAUSE_FIRST));
        assert_eq!(patience.after(Went::Nowhere, at(2)), Next::After(PAUSE_FIRST * 2));
        assert_eq!(patience.after(Went::Refused, at(12)), Next::GiveUp);
        assert!(matches!(patience.after(Went::Nowhere, at(100)), Next::After(_)));
        assert_eq!(patience.after(Went::Nowhere, at(181)), Next::GiveUp);
        assert_eq!(
            patience.after(Went::Forward, at(182)),
            Next::After(Duration::ZERO)
        );
        assert_eq!(patience.after(Went::Nowhere, at(183)), Next::After(PAUSE_FIRST));
    }

    #[test]
    fn an_endless_backup_never_gives_up() {
        let start = Instant::now();
        let mut patience = Patience::new(true, start);
        for hour in 0..100 {
            let went = patience.after(Went::Refused, start + Duration::from_secs(hour * 3600));
            assert!(matches!(went, Next::After(pause) if pause <= PAUSE_MAX));
        }
    }
}
