//! Pauses between attempts: exponential, with jitter, up to a limit.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A run of attempts at one thing. Each pause lies between half of a doubling limit and that limit ("equal
/// jitter"): many clients that failed together do not come back together, yet none comes back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    attempts_max: Option<u32>,
    attempts: u32,
    random: StdRng,
}

impl Backoff {
    /// Goes on for ever; the first pause is about `initial`, none is longer than `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self::seeded(initial, max, rand::rng().random())
    }

    /// As [`Backoff::new`], with jitter that a test can repeat.
    pub fn seeded(initial: Duration, max: Duration, seed: u64) -> Self {
        let initial = initial.max(Duration::from_millis(1));
        let random = StdRng::seed_from_u64(seed);
        Self {
            initial,
            max: max.max(initial),
            attempts_max: None,
            attempts: 0,
            random,
        }
    }

    /// Gives up after so many pauses.
    pub fn with_attempts_max(mut self, attempts_max: u32) -> Self {
        self.attempts_max = Some(attempts_max);
        self
    }

    /// How long to wait before the next attempt; `None` when it is time to give up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let doublings = self.attempts.min(31);
        self.attempts = self.attempts.saturating_add(1);
        let limit = self.initial.saturating_mul(1_u32 << doublings).min(self.max);
        Some(limit.mul_f64(self.random.random_range(0.5..=1.0)))
    }

    /// Waits; `false` when it is time to give up.
    pub async fn wait(&mut self) -> bool {
        match self.next_delay() {
            Some(delay) => {
                tokio::time::sleep(delay).await;
                true
            }
            None => false,
        }
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Pauses so far since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_pause_is_within_half_of_the_doubling_limit(seed: u64, initial_ms in 0_u64..1000, max_ms in 0_u64..100_000) {
            let (initial, max) = (Duration::from_millis(initial_ms.max(1)), Duration::from_millis(max_ms));
            let max = max.max(initial);
            let mut backoff = Backoff::seeded(initial, max, seed);
            for round in 0..70_u32 {
                let limit = initial.saturating_mul(1 << round.min(31)).min(max);
                let pause = backoff.next_delay().unwrap();
                prop_assert!(pause <= limit + Duration::from_nanos(1) && pause + Duration::from_nanos(1) >= limit / 2);
            }
        }
    }

    #[test]
    fn it_gives_up_after_the_limit_and_begins_anew_after_a_reset() {
        let mut backoff =
            Backoff::seeded(Duration::from_millis(1), Duration::from_secs(1), 7).with_attempts_max(2);
        assert!(backoff.next_delay().is_some() && backoff.next_delay().is_some());
        assert_eq!((backoff.next_delay(), backoff.attempts()), (None, 2));
        backoff.reset();
        assert!(backoff.next_delay().is_some());
    }
}
