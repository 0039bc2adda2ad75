//! Waiting for a condition instead of sleeping.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is asked again. Short beside everything waited for, long beside the cost of asking.
const POLL: Duration = Duration::from_millis(20);

/// Polls until `condition` answers `Ok`, and panics after `limit` with what it last answered.
pub fn wait_for<T, E: Display>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        let reason = match condition() {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(
            started.elapsed() < limit,
            "gave up waiting for {what} after {:.1} s: {reason}",
            started.elapsed().as_secs_f64()
        );
        thread::park_timeout(POLL);
    }
}

/// [`wait_for`] a plain yes.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || if condition() { Ok(()) } else { Err("not yet") });
}

/// Shorthand for a number of seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
