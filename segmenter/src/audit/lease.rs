//! Who audits: an object that its holder rewrites now and then.
//!
//! The lease saves work, nothing more: two auditors at once would fetch the same, and the ledger's chain lets only one of
//! them commit. So it may be simple. No clock of another host is believed: a lease counts as abandoned when *we* have
//! seen it unchanged for its whole time. Whoever takes it writes its own name and looks again after a moment: of several
//! who did so at once, the last writer finds its own name, and the others find that they lost.

use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};
use teeline_archive::names;
use teeline_runtime::{Store, StoreError};
use tokio::time::Instant;

use crate::error::SegmenterError;

/// The lease's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sign {
    /// `held` or `released`.
    state: State,
    /// Random: tells one life of a process from another.
    holder: String,
    /// Changes with every sign of life.
    counter: u64,
    /// For people.
    host: String,
    /// For people.
    pid: u32,
    /// For people.
    program: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Held,
    Released,
}

/// Whether we may audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// We hold the lease.
    Mine,
    /// Somebody else does.
    Theirs,
}

/// Our side of the lease of one backup.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    key: String,
    ttl: Duration,
    own: Sign,
    is_mine: bool,
    watch: Watch,
}

/// What we have seen of somebody else's lease. Pure.
#[derive(Debug, Default)]
struct Watch {
    seen: Option<(Sign, Instant)>,
}

impl Watch {
    /// Takes in what is there; true when it may be taken.
    fn observe(&mut self, found: Option<Sign>, ttl: Duration, now: Instant) -> bool {
        let Some(found) = found else {
            self.seen = None;
            return true;
        };
        if found.state == State::Released {
            self.seen = None;
            return true;
        }
        match &self.seen {
            Some((sign, since)) if *sign == found => now.duration_since(*since) >= ttl,
            _ => {
                self.seen = Some((found, now));
                false
            }
        }
    }
}

impl Lease {
    /// The lease of a backup, as somebody who does not hold it.
    ///
    /// # Errors
    /// When the backup's id cannot be part of a key.
    pub fn new(store: Store, backup_id: &str, program: &str, ttl: Duration) -> Result<Self, SegmenterError> {
        let key = names::lease_key(backup_id).map_err(|error| SegmenterError::Usage(error.to_string()))?;
        let own = Sign {
            state: State::Held,
            holder: format!("{:032x}", rand::random::<u128>()),
            counter: 0,
            host: host_name(),
            pid: std::process::id(),
            program: program.to_owned(),
        };
        Ok(Lease {
            store,
            key,
            ttl,
            own,
            is_mine: false,
            watch: Watch::default(),
        })
    }

    /// How often [`Lease::tend`] is to be called.
    pub fn pace(&self) -> Duration {
        self.ttl / 3
    }

    /// Gives a sign of life if the lease is ours; else looks whether it may be taken, and takes it.
    ///
    /// # Errors
    /// When the store does not answer. Whose the lease is does not change by that.
    pub async fn tend(&mut self, now: Instant) -> Result<Standing, StoreError> {
        let found = self.read().await?;
        if self.is_mine {
            if found
                .as_ref()
                .is_some_and(|found| found.holder != self.own.holder)
            {
                self.is_mine = false;
                self.watch = Watch::default();
                return Ok(Standing::Theirs);
            }
            self.write(State::Held).await?;
            return Ok(Standing::Mine);
        }
        if self.watch.observe(found, self.ttl, now) {
            return self.take().await;
        }
        Ok(Standing::Theirs)
    }

    /// Takes the lease, whoever holds it. `Theirs` when somebody else did the same at the same time.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn take(&mut self) -> Result<Standing, StoreError> {
        self.write(State::Held).await?;
        let moment = SETTLE.mul_f64(rand::rng().random_range(0.75..1.25));
        tokio::time::sleep(moment).await;
        let found = self.read().await?;
        self.is_mine = found.is_some_and(|found| found.holder == self.own.holder);
        self.watch = Watch::default();
        Ok(match self.is_mine {
            true => Standing::Mine,
            false => Standing::Theirs,
        })
    }

    /// Gives the lease up, if it is ours, so that nobody has to wait for it.
    ///
    /// # Errors
    /// When the store does not answer; then the lease runs out.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.is_mine) {
            return Ok(());
        }
        let found = self.read().await?;
        if found.is_some_and(|found| found.holder != self.own.holder) {
            return Ok(());
        }
        self.write(State::Released).await
    }

    /// Takes it for lost: somebody else does our work. It comes back to us when nobody gives a sign of life.
    pub fn forfeit(&mut self) {
        self.is_mine = false;
        self.watch = Watch::default();
    }

    /// Whether we hold it, as far as we know.
    pub fn is_mine(&self) -> bool {
        self.is_mine
    }

    async fn read(&self) -> Result<Option<Sign>, StoreError> {
        match self.store.get(&self.key).await {
            // An object that is no lease is one of nobody: it is in the way until it has been seen for the whole time.
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).unwrap_or_else(|_| Sign::strange(&bytes)),
            )),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&mut self, state: State) -> Result<(), StoreError> {
        self.own.counter = self.own.counter.saturating_add(1);
        self.own.state = state;
        let mut text = serde_json::to_vec(&self.own).expect("names and numbers have a JSON form");
        text.push(b'\n');
        self.store.put(&self.key, text.into()).await
    }
}

impl Sign {
    fn strange(bytes: &[u8]) -> Self {
        Sign {
            state: State::Held,
            holder: format!("strange {:08x}", crc32c::crc32c(bytes)),
            counter: 0,
            host: String::new(),
            pid: 0,
            program: String::new(),
        }
    }
}

/// How long a taken lease is left alone before we look whose it is: longer than a slow put takes.
const SETTLE: Duration = Duration::from_millis(400);

fn host_name() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname");
    named.map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn lease(store: &Store) -> Lease {
        Lease::new(store.clone(), "daily", "test", TTL).unwrap()
    }

    #[tokio::test]
    async fn the_first_one_gets_it_and_the_next_one_when_it_is_released() {
        let store = Store::in_memory();
        let (mut one, mut other) = (lease(&store), lease(&store));
        assert_eq!(one.tend(Instant::now()).await.unwrap(), Standing::Mine);
        assert_eq!(other.tend(Instant::now()).await.unwrap(), Standing::Theirs);
        assert_eq!(one.tend(Instant::now()).await.unwrap(), Standing::Mine);
        one.release().await.unwrap();
        assert_eq!(other.tend(Instant::now()).await.unwrap(), Standing::Mine);
        assert_eq!(one.tend(Instant::now()).await.unwrap(), Standing::Theirs);
    }

    #[tokio::test]
    async fn a_holder_that_is_silent_for_the_whole_time_is_replaced_and_notices() {
        let store = Store::in_memory();
        let (mut one, mut other) = (lease(&store), lease(&store));
        assert_eq!(one.tend(Instant::now()).await.unwrap(), Standing::Mine);
        let start = Instant::now();
        assert_eq!(other.tend(start).await.unwrap(), Standing::Theirs);
        assert_eq!(other.tend(start + TTL / 2).await.unwrap(), Standing::Theirs);
        assert_eq!(one.tend(start + TTL / 2).await.unwrap(), Standing::Mine);
        assert_eq!(
            other.tend(start + TTL).await.unwrap(),
            Standing::Theirs,
            "it gave a sign meanwhile"
        );
        assert_eq!(other.tend(start + TTL * 2).await.unwrap(), Standing::Mine);
        assert_eq!(one.tend(start + TTL * 2).await.unwrap(), Standing::Theirs);
        one.release().await.unwrap();
        assert_eq!(
            other.tend(start + TTL * 2).await.unwrap(),
            Standing::Mine,
            "what is not ours is not released"
        );
    }

    #[tokio::test]
    async fn of_many_who_take_it_at_once_one_has_it() {
        let store = Store::in_memory();
        let mut leases: Vec<Lease> = (0..8).map(|_| lease(&store)).collect();
        let now = Instant::now();
        let taken = futures_util::future::join_all(leases.iter_mut().map(|lease| lease.tend(now))).await;
        let mine = taken
            .into_iter()
            .filter(|one| matches!(one, Ok(Standing::Mine)))
            .count();
        assert_eq!(mine, 1);
    }
}
