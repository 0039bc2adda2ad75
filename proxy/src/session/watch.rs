//! Looks after a connection now and then, so that requests need no timers of their own: who is idle, who began something
//! and does not go on, who holds what others wait for.
//!
//! | what | closed after |
//! |---|---|
//! | nothing moves in either direction | `listen.idle_timeout` |
//! | a request was begun, and the client is silent or sends next to nothing ([`RATE_BYTES_MIN`]), whatever is missing of it: of its length, its header, its body | [`SILENCE_MAX`] |
//! | a request that has to be read whole takes too long to arrive | [`WHOLE_MAX`] and a second for each [`WHOLE_RATE_BYTES`] of it; [`IN_THE_WAY_MAX`] while others wait for room before the same broker |
//! | a request or an answer of this connection has the overdraft ([`crate::budget`]), and others wait | [`IN_THE_WAY_MAX`] of their time |
//!
//! Only the time in which the proxy waits for the client counts against it, never that in which it does not read.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::budget::ConnectionBudget;
use crate::metrics::Closed;
use crate::observe::add;

/// What the two directions leave for the watch to see. Both run in the watch's own task: the atomics only satisfy the
/// compiler.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Reads from either side.
    moved: AtomicU64,
    from_client: AtomicU64,
    /// Times that the request loop waited with nothing begun.
    rests: AtomicU64,
    /// What it waits for now.
    awaits: AtomicU8,
    /// The length of the frame that is being read whole, or of Produce that passes; 0 without one.
    whole: AtomicUsize,
    /// It is held in memory meanwhile.
    whole_holds: AtomicBool,
    /// Such frames so far, so that a look now and one later can tell one from two.
    wholes: AtomicU64,
}

const NOTHING: u8 = 0;
const A_REQUEST: u8 = 1;
const THE_REST: u8 = 2;

impl Pulse {
    /// The request loop begins to wait for the client: for the rest of something, or for a new request.
    pub(super) fn awaits_client(&self, begun: bool) {
        self.awaits
            .store(if begun { THE_REST } else { A_REQUEST }, Ordering::Relaxed);
        if !begun {
            add(&self.rests, 1);
        }
    }

    /// The client has sent something.
    pub(super) fn client_sent(&self, bytes: usize) {
        self.awaits.store(NOTHING, Ordering::Relaxed);
        add(&self.from_client, bytes as u64);
        add(&self.moved, 1);
    }

    /// The broker has sent something.
    pub(super) fn broker_sent(&self) {
        add(&self.moved, 1);
    }

    /// More is awaited of a frame that is read whole, and held, or of Produce that passes.
    pub(super) fn whole_awaited(&self, length: usize, holds: bool) {
        self.whole.store(length, Ordering::Relaxed);
        self.whole_holds.store(holds, Ordering::Relaxed);
    }

    /// Nothing is awaited of the client any more.
    pub(super) fn client_ended(&self) {
        self.awaits.store(NOTHING, Ordering::Relaxed);
    }

    /// The frame is complete; nothing if none was awaited.
    pub(super) fn whole_ended(&self) {
        if self.whole.load(Ordering::Relaxed) > 0 {
            self.whole.store(0, Ordering::Relaxed);
            add(&self.wholes, 1);
        }
    }

    /// Counts up with every read.
    pub(super) fn movement(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing moves.
    Idle,
    /// The client does not go on with what it began.
    Silent,
    /// A frame arrives too slowly for what it holds.
    Slow,
    /// What was asked is not taken by the broker, and others wait.
    RequestInTheWay,
    /// What was answered is not complete or not taken, and others wait.
    AnswerInTheWay,
}

impl Finding {
    /// As it is counted.
    pub(crate) fn closed(self) -> Closed {
        match self {
            Finding::Idle => Closed::Idle,
            _ => Closed::Stuck,
        }
    }

    /// For people: who is to look, and what it was.
    pub(crate) fn text(self) -> (&'static str, &'static str) {
        match self {
            Finding::Idle => ("client", "nothing moved for listen.idle_timeout"),
            Finding::Silent => (
                "client",
                "a request was begun, and nothing more came of it (hint: listen.idle_timeout bounds this, too)",
            ),
            Finding::Slow => (
                "client",
                "a request was begun and not completed in time (hint: it holds memory that others need)",
            ),
            Finding::RequestInTheWay => (
                "broker",
                "it does not take a large request, and others wait for the memory (hint: process.in_flight_bytes)",
            ),
            Finding::AnswerInTheWay => (
                "client",
                "a large answer is not taken in time, and others wait for the memory (hint: process.in_flight_bytes)",
            ),
        }
    }
}

/// What one look sees.
#[derive(Debug, Clone, Copy, Default)]
struct Sight {
    moved: u64,
    from_client: u64,
    rests: u64,
    awaits_rest: bool,
    whole: Option<(u64, usize)>,
    request: Overdrawn,
    answer: Overdrawn,
    /// Others wait for room before the same broker, and the frame that is awaited holds some.
    contended: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Overdrawn {
    holds: bool,
    others_wait: bool,
}

impl Overdrawn {
    fn of(budget: &ConnectionBudget) -> Overdrawn {
        Overdrawn {
            holds: budget.has_overdraft(),
            others_wait: budget.is_contended(),
        }
    }

    /// For how long others were seen to wait while it was held.
    fn added(self, before: Duration, elapsed: Duration) -> Duration {
        match (self.holds, self.others_wait) {
            (false, _) => Duration::ZERO,
            (true, false) => before,
            (true, true) => before + elapsed,
        }
    }
}

impl Sight {
    fn of(shared: &Shared) -> Sight {
        let pulse = &shared.pulse;
        let whole = pulse.whole.load(Ordering::Relaxed);
        Sight {
            moved: pulse.movement(),
            from_client: pulse.from_client.load(Ordering::Relaxed),
            rests: pulse.rests.load(Ordering::Relaxed),
            awaits_rest: pulse.awaits.load(Ordering::Relaxed) == THE_REST,
            whole: (whole > 0).then(|| (pulse.wholes.load(Ordering::Relaxed), whole)),
            request: Overdrawn::of(&shared.budgets.requests),
            answer: Overdrawn::of(&shared.budgets.answers),
            contended: pulse.whole_holds.load(Ordering::Relaxed)
                && shared.budgets.requests.is_contended_here(),
        }
    }
}

/// What was seen so far.
#[derive(Debug)]
struct Watch {
    idle_max: Option<Duration>,
    silence_max: Duration,
    last: Sight,
    last_at: Instant,
    moved_at: Instant,
    silent_since: Option<Instant>,
    /// How long the client has been waited for since the frame began that is read whole.
    whole_took: Option<(u64, Duration)>,
    request_in_the_way: Duration,
    answer_in_the_way: Duration,
}

impl Watch {
    fn new(idle_max: Option<Duration>, now: Instant) -> Watch {
        let mut watch = Watch {
            idle_max: None,
            silence_max: SILENCE_MAX,
            last: Sight::default(),
            last_at: now,
            moved_at: now,
            silent_since: None,
            whole_took: None,
            request_in_the_way: Duration::ZERO,
            answer_in_the_way: Duration::ZERO,
        };
        watch.allow(idle_max);
        watch
    }

    /// The limits in force; a reload changes them.
    fn allow(&mut self, idle_max: Option<Duration>) {
        self.idle_max = idle_max;
        self.silence_max = idle_max.map_or(SILENCE_MAX, |idle| idle.min(SILENCE_MAX));
    }

    fn look(&mut self, now: Instant, sight: Sight) -> Option<Finding> {
        let (last, last_at) = (self.last, self.last_at);
        (self.last, self.last_at) = (sight, now);
        if sight.moved != last.moved {
            self.moved_at = now;
        }
        let over = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| now - since >= limit);

        let same = sight.awaits_rest && last.awaits_rest && sight.rests == last.rests;
        let sent = sight.from_client.wrapping_sub(last.from_client);
        let quiet = (sent as f64) < (now - last_at).as_secs_f64() * RATE_BYTES_MIN;
        self.silent_since = (same && quiet).then(|| self.silent_since.unwrap_or(last_at));
        if over(self.silent_since, self.silence_max) {
            return Some(Finding::Silent);
        }

        let waited = match sight.awaits_rest && last.awaits_rest {
            true => now - last_at,
            false => Duration::ZERO,
        };
        self.whole_took = sight.whole.map(|(number, _)| match self.whole_took {
            Some((seen, took)) if seen == number => (number, took + waited),
            _ => (number, Duration::ZERO),
        });
        if let (Some((_, length)), Some((_, took)), true) = (sight.whole, self.whole_took, sight.awaits_rest)
        {
            let limit = match sight.contended {
                true => IN_THE_WAY_MAX,
                false => WHOLE_MAX + Duration::from_secs(length as u64 / WHOLE_RATE_BYTES),
            };
            if took >= limit {
                return Some(Finding::Slow);
            }
        }

        let elapsed = now - last_at;
        self.request_in_the_way = sight.request.added(self.request_in_the_way, elapsed);
        if self.request_in_the_way >= IN_THE_WAY_MAX {
            let client = sight.whole.is_some() && sight.awaits_rest;
            return Some(if client {
                Finding::Slow
            } else {
                Finding::RequestInTheWay
            });
        }
        self.answer_in_the_way = sight.answer.added(self.answer_in_the_way, elapsed);
        if self.answer_in_the_way >= IN_THE_WAY_MAX {
            return Some(Finding::AnswerInTheWay);
        }
        let idle = self.idle_max.is_some_and(|idle| now - self.moved_at >= idle);
        idle.then_some(Finding::Idle)
    }
}

/// Looks until there is a reason to close the connection.
pub(super) async fn watch(shared: &Shared) -> Finding {
    let mut watch = Watch::new(None, Instant::now());
    loop {
        let idle_max = Some(shared.cluster.live.load().idle_timeout).filter(|timeout| !timeout.is_zero());
        watch.allow(idle_max);
        let period = idle_max.map_or(PERIOD, |idle| (idle / 4).clamp(PERIOD_MIN, PERIOD));
        tokio::time::sleep(period).await;
        if let Some(finding) = watch.look(Instant::now(), Sight::of(shared)) {
            return finding;
        }
    }
}

/// How long a client may be silent in the middle of a request: longer than a network loses packets for.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Bytes a second in the middle of a request that are as good as none.
const RATE_BYTES_MIN: f64 = 512.0;
/// How long a request may take to arrive that is held in memory meanwhile. Clients give up after 30 or 60 seconds.
const WHOLE_MAX: Duration = Duration::from_secs(60);
/// What of a large one has to arrive in each second more.
const WHOLE_RATE_BYTES: u64 = 256 * 1024;
/// How long may stay what others wait for.
const IN_THE_WAY_MAX: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_secs(10);
const PERIOD_MIN: Duration = Duration::from_millis(50);

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
