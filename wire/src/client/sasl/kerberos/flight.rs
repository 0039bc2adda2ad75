//! One job at a time for one ticket, however many connections want it.
//!
//! A KDC that says nothing would otherwise keep a thread for each connection of each client, until the process has none
//! left for its files and names. So connections wait together for one job; few jobs run at once; a job ends when nobody
//! waits for it any longer; and a failure is the answer for a moment to those who come after it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use teeline_config::Kerberos;
use tokio::sync::{Semaphore, watch};

use super::super::SaslError;
use super::KerberosError;
use super::tickets::{self, Found};

/// A ticket for the broker at `host`, before `until`: one that is kept, or a new one.
pub(in crate::client::sasl) async fn ticket(
    kerberos: &Kerberos,
    host: &str,
    until: Instant,
) -> Result<Found, SaslError> {
    let (mut end, _waiter) = join(kerberos, host, until);
    let waiting = tokio::time::timeout_at(until.into(), end.wait_for(Option::is_some));
    match waiting.await {
        Ok(Ok(end)) => match end.as_ref() {
            Some(end) => Ok(end.result.clone()?),
            None => Err(SaslError::Stopping),
        },
        Ok(Err(_dropped)) => Err(SaslError::Stopping),
        Err(_elapsed) => Err(KerberosError::Late.into()),
    }
}

type Wanted = (Kerberos, String);

/// Jobs under way, and failures that are remembered.
static FLIGHTS: LazyLock<Mutex<HashMap<Wanted, Flight>>> = LazyLock::new(Mutex::default);

/// For all KDCs of the process.
static JOBS: Semaphore = Semaphore::const_new(JOBS_MAX);

struct Flight {
    end: watch::Receiver<Option<End>>,
    patience: Arc<Patience>,
}

#[derive(Debug)]
struct End {
    result: Result<Found, KerberosError>,
    /// Until when it is the answer to others, too.
    remembered: Instant,
}

fn join(kerberos: &Kerberos, host: &str, until: Instant) -> (watch::Receiver<Option<End>>, Option<Waiter>) {
    let wanted = (kerberos.clone(), host.to_owned());
    let mut flights = FLIGHTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(joined) = flights.get(&wanted).and_then(|flight| flight.join(until)) {
        return joined;
    }
    if flights.len() >= FLIGHTS_MANY {
        flights.retain(|_, flight| flight.is_of_use());
    }
    let (ended, end) = watch::channel(None);
    let (patience, waiter) = Patience::new(until);
    tokio::spawn(fly(wanted.clone(), Arc::clone(&patience), ended));
    let flight = Flight {
        end: end.clone(),
        patience,
    };
    flights.insert(wanted, flight);
    (end, Some(waiter))
}

impl Flight {
    fn join(&self, until: Instant) -> Option<(watch::Receiver<Option<End>>, Option<Waiter>)> {
        if !self.is_of_use() {
            return None;
        }
        let has_ended = self.end.borrow().is_some();
        match has_ended {
            true => Some((self.end.clone(), None)),
            false => Some((self.end.clone(), Some(self.patience.join(until)?))),
        }
    }

    /// Under way, unless its runtime has been stopped; or a failure that is still remembered.
    fn is_of_use(&self) -> bool {
        match &*self.end.borrow() {
            Some(end) => Instant::now() < end.remembered,
            None => self.end.has_changed().is_ok(),
        }
    }
}

async fn fly(wanted: Wanted, patience: Arc<Patience>, ended: watch::Sender<Option<End>>) {
    let Ok(permit) = JOBS.acquire().await else {
        return;
    };
    let (asked, waiting) = (wanted.clone(), Arc::clone(&patience));
    let job = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let (kerberos, host) = asked;
        tickets::ticket(&kerberos, &host, &waiting)
    });
    let Ok(result) = job.await else {
        return;
    };
    let now = Instant::now();
    let is_kept = result.is_err() && !patience.was_given_up();
    let mut flights = FLIGHTS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_ours = |flight: &Flight| Arc::ptr_eq(&flight.patience, &patience);
    if !is_kept && flights.get(&wanted).is_some_and(is_ours) {
        flights.remove(&wanted);
    }
    let remembered = if is_kept { now + REMEMBERED } else { now };
    ended.send_replace(Some(End { result, remembered }));
}

/// How long a job may take: as long as somebody waits for it.
#[derive(Debug)]
pub(super) struct Patience(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    waiters: usize,
    /// Of the most patient.
    until: Instant,
    /// The job has been told to end: nobody may join it any more.
    is_over: bool,
}

impl Patience {
    pub(super) fn new(until: Instant) -> (Arc<Self>, Waiter) {
        let patience = Arc::new(Self(Mutex::new(Waiting {
            waiters: 1,
            until,
            is_over: false,
        })));
        (Arc::clone(&patience), Waiter(patience))
    }

    fn join(self: &Arc<Self>, until: Instant) -> Option<Waiter> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_over {
            return None;
        }
        waiting.waiters = waiting.waiters.saturating_add(1);
        waiting.until = waiting.until.max(until);
        Some(Waiter(Arc::clone(self)))
    }

    /// None once the job has to end.
    pub(super) fn left(&self) -> Option<Duration> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = waiting.until.saturating_duration_since(Instant::now());
        waiting.is_over |= waiting.waiters == 0 || left.is_zero();
        (!waiting.is_over).then_some(left)
    }

    /// Whether all have gone before their time: a failure then says nothing about KDCs.
    fn was_given_up(&self) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.waiters == 0 && Instant::now() < waiting.until
    }
}

/// Somebody who waits.
pub(super) struct Waiter(Arc<Patience>);

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.waiters = waiting.waiters.saturating_sub(1);
    }
}

/// Of the process's threads that may block, which others need too.
const JOBS_MAX: usize = 4;
const REMEMBERED: Duration = Duration::from_secs(1);
/// From here on old failures are looked for and forgotten.
const FLIGHTS_MANY: usize = 64;

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
