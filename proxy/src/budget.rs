//! Bytes in flight: how much of what peers sent may be in memory at once, per connection and per process.
//!
//! There are two pools of the same size ([`ProcessBudget`]): one for requests that are read whole, one for answers that are
//! read whole and for large read buffers. Each keeps its own account, so that neither waits for the other.
//!
//! A frame that has to be read whole takes room for what has arrived of it and for the next read, never for what it
//! announces: many who announce much and send little hold little. Room is given back when the last holder of the frame
//! (a socket, or the write-ahead buffer's queue) drops it: the room travels inside the `Bytes`, so the account cannot go
//! wrong. While a connection waits for room it does not read: its peer feels it through TCP.
//!
//! **One party does not starve the others.** The requests to one broker are a party, and so are the answers to one client:
//! what a stopped broker or a client that does not read leaves lying is theirs alone. A party may hold [`SHARE`] times
//! what is left free, and no more. So one that is stuck ends at three quarters of a pool, two at three sevenths each; for
//! those that move there is always a rest. Waiting is first come, first served within a party.
//!
//! **No deadlock.** Frames that are complete give their room back without waiting for any: their peer takes them, or the
//! connection is closed in time. Frames that are not complete could hold all the room of a party and wait for each other;
//! therefore one frame of a pool may go on without room (the *overdraft*). So the memory of a pool is bounded by its room
//! and one frame of the largest size, and a frame that has begun can always come to its end. Who has the overdraft must be
//! quick: see [`ConnectionBudget::has_overdraft`], and whoever is silent in the middle of a frame is disconnected.
//!
//! **Read buffers** are small for everybody without asking. Large ones are lent ([`Lender`]) while there is room, and
//! nobody waits for one: without it data passes all the same, in smaller pieces.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdMutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The process-wide room for bytes in flight.
#[derive(Debug, Clone)]
pub struct ProcessBudget {
    requests: Arc<Pool>,
    answers: Arc<Pool>,
}

impl ProcessBudget {
    /// Room for `bytes_max` bytes of requests over all connections, and for as much of answers and read buffers.
    #[must_use]
    pub fn new(bytes_max: usize) -> ProcessBudget {
        ProcessBudget {
            requests: Arc::new(Pool::new(bytes_max)),
            answers: Arc::new(Pool::new(bytes_max)),
        }
    }

    /// Changes how much room there is. What is held beyond it stays until it is given back.
    pub fn resize(&self, bytes_max: usize) {
        for pool in [&self.requests, &self.answers] {
            pool.bytes_max
                .store(bytes_max.clamp(1, BYTES_MAX), Ordering::SeqCst);
            pool.wake();
        }
    }

    /// Bytes of requests in use now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.requests.used.load(Ordering::Relaxed)
    }

    /// Bytes of answers and of large read buffers in use now.
    #[must_use]
    pub fn answer_bytes_used(&self) -> usize {
        self.answers.used.load(Ordering::Relaxed)
    }

    /// What a connection to a broker may hold: at most `bytes_max` bytes of requests, and as much of answers.
    pub(crate) fn connection(&self, party: Arc<Party>, bytes_max: usize) -> Budgets {
        Budgets {
            requests: self.requests(party, bytes_max),
            answers: self.answers(bytes_max),
            lender: self.lender(),
        }
    }

    fn requests(&self, party: Arc<Party>, bytes_max: usize) -> ConnectionBudget {
        ConnectionBudget::new(Arc::clone(&self.requests), party, bytes_max)
    }

    /// The share of the answers to one client, which is a party of its own.
    fn answers(&self, bytes_max: usize) -> ConnectionBudget {
        ConnectionBudget::new(Arc::clone(&self.answers), Arc::default(), bytes_max)
    }

    /// Where read buffers are borrowed.
    pub(crate) fn lender(&self) -> Lender {
        Lender {
            pool: Arc::clone(&self.answers),
        }
    }
}

#[derive(Debug)]
struct Pool {
    bytes_max: AtomicUsize,
    used: AtomicUsize,
    /// How many wait for room: nobody is woken while nobody waits.
    waiting: AtomicUsize,
    changed: Notify,
    /// One permit: whoever has it needs no further room.
    overdraft: Arc<Semaphore>,
}

/// Those whose frames wait for the same peer.
#[derive(Debug, Default)]
pub(crate) struct Party {
    used: AtomicUsize,
    /// Somebody waits: nobody overtakes.
    waiting: AtomicUsize,
    /// Who waits first. One per party is woken by a change, however many wait.
    turn: Mutex<()>,
}

/// The parties of a virtual cluster: its brokers, and whichever broker answers at the bootstrap address.
#[derive(Debug, Default)]
pub(crate) struct Parties {
    by_node: StdMutex<HashMap<Option<i32>, Weak<Party>>>,
}

impl Parties {
    /// The party of the requests to a broker.
    pub(crate) fn of(&self, node_id: Option<i32>) -> Arc<Party> {
        let mut by_node = self.lock();
        if let Some(party) = by_node.get(&node_id).and_then(Weak::upgrade) {
            return party;
        }
        // Those without a connection are forgotten: brokers come and go.
        by_node.retain(|_, party| party.strong_count() > 0);
        let party = Arc::<Party>::default();
        by_node.insert(node_id, Arc::downgrade(&party));
        party
    }

    /// Bytes of requests in use, all brokers together.
    pub(crate) fn bytes_used(&self) -> usize {
        let by_node = self.lock();
        let parties = by_node.values().filter_map(Weak::upgrade);
        parties.map(|party| party.used.load(Ordering::Relaxed)).sum()
    }

    fn lock(&self) -> StdMutexGuard<'_, HashMap<Option<i32>, Weak<Party>>> {
        // Every change is a single step, so a poisoned lock still guards a sound map.
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection may hold.
#[derive(Debug)]
pub(crate) struct Budgets {
    pub(crate) requests: ConnectionBudget,
    pub(crate) answers: ConnectionBudget,
    pub(crate) lender: Lender,
}

impl Pool {
    fn new(bytes_max: usize) -> Pool {
        Pool {
            bytes_max: AtomicUsize::new(bytes_max.clamp(1, BYTES_MAX)),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            overdraft: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes room if there is enough, and the party stays within its share. Decided before anything is taken: nobody ever
    /// sees room missing that is there. Two of a party at the same moment may go beyond its share by one frame.
    fn take(&self, party: &Party, bytes: usize) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let of_party = party.used.load(Ordering::SeqCst).saturating_add(bytes);
        let next = |used: usize| {
            let used = used.checked_add(bytes)?;
            let free = bytes_max.checked_sub(used)?;
            (of_party <= free.saturating_mul(SHARE)).then_some(used)
        };
        let taken = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .is_ok();
        if taken {
            party.used.fetch_add(bytes, Ordering::SeqCst);
        }
        taken
    }

    fn give_back(&self, party: &Party, bytes: usize) {
        party.used.fetch_sub(bytes, Ordering::SeqCst);
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        self.wake();
    }

    /// Whoever begins to wait counts itself first and looks at the room then: one of both sees the other.
    fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_waiters();
        }
    }
}

/// Counts somebody as waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(of: &'a AtomicUsize) -> Waiting<'a> {
        of.fetch_add(1, Ordering::SeqCst);
        Waiting(of)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The room of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionBudget {
    pool: Arc<Pool>,
    party: Arc<Party>,
    own: Arc<Semaphore>,
    bytes_max: usize,
    /// A frame of this connection has the overdraft.
    overdrawn: Arc<AtomicBool>,
}

/// Room that was taken for one frame; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: usize,
    own: Option<OwnedSemaphorePermit>,
    pooled: Option<Pooled>,
    overdraft: Option<Overdraft>,
}

#[derive(Debug)]
struct Pooled {
    pool: Arc<Pool>,
    party: Arc<Party>,
    bytes: usize,
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give_back(&self.party, self.bytes);
    }
}

#[derive(Debug)]
struct Overdraft {
    overdrawn: Arc<AtomicBool>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Overdraft {
    fn drop(&mut self) {
        self.overdrawn.store(false, Ordering::Relaxed);
    }
}

impl ConnectionBudget {
    fn new(pool: Arc<Pool>, party: Arc<Party>, bytes_max: usize) -> ConnectionBudget {
        let bytes_max = bytes_max.clamp(1, BYTES_MAX);
        ConnectionBudget {
            pool,
            party,
            own: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            overdrawn: Arc::default(),
        }
    }

    /// Makes the room as large as `bytes` without waiting; false when that cannot be.
    pub(crate) fn try_grow(&self, room: &mut Room, bytes: usize) -> bool {
        if room.suffices(bytes) {
            return true;
        }
        if self.party.waiting.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let Ok(own) = Arc::clone(&self.own).try_acquire_many_owned(self.missing_own(room, bytes)) else {
            return false;
        };
        let missing = self.missing(room, bytes);
        if !self.pool.take(&self.party, missing) {
            return false;
        }
        self.add(room, bytes, missing);
        add(&mut room.own, own);
        true
    }

    /// Makes the room as large as `bytes`, waiting for it; says how long that took. A frame larger than all the room
    /// there is takes all of it. Cancelling loses the place in the queue, and nothing else.
    pub(crate) async fn grow(&self, room: &mut Room, bytes: usize) -> Duration {
        let started = Instant::now();
        if room.suffices(bytes) {
            return Duration::ZERO;
        }
        // The semaphores are never closed, so acquiring cannot fail.
        let wanted = self.missing_own(room, bytes);
        if let Ok(own) = Arc::clone(&self.own).acquire_many_owned(wanted).await {
            add(&mut room.own, own);
        }
        let _of_party = Waiting::count(&self.party.waiting);
        let _turn = self.party.turn.lock().await;
        let _of_all = Waiting::count(&self.pool.waiting);
        loop {
            let mut changed = std::pin::pin!(self.pool.changed.notified());
            changed.as_mut().enable();
            let missing = self.missing(room, bytes);
            if self.pool.take(&self.party, missing) {
                self.add(room, bytes, missing);
                return started.elapsed();
            }
            tokio::select! {
                biased;
                Ok(permit) = Arc::clone(&self.pool.overdraft).acquire_owned() => {
                    self.overdrawn.store(true, Ordering::Relaxed);
                    let overdrawn = Arc::clone(&self.overdrawn);
                    room.overdraft = Some(Overdraft { overdrawn, _permit: permit });
                    room.bytes = bytes;
                    return started.elapsed();
                }
                () = changed => {}
            }
        }
    }

    /// Whether a frame of this connection, complete or not, has the overdraft.
    pub(crate) fn has_overdraft(&self) -> bool {
        self.overdrawn.load(Ordering::Relaxed)
    }

    /// Whether anybody waits for room in the pool.
    pub(crate) fn is_contended(&self) -> bool {
        self.pool.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody waits whose peer is the same.
    pub(crate) fn is_contended_here(&self) -> bool {
        self.party.waiting.load(Ordering::Relaxed) > 0
    }

    fn missing_own(&self, room: &Room, bytes: usize) -> u32 {
        let held = room.own.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(bytes.min(self.bytes_max).saturating_sub(held)).unwrap_or(u32::MAX)
    }

    /// A frame that is larger than a party's share of an empty pool can have that share at most.
    fn missing(&self, room: &Room, bytes: usize) -> usize {
        let held = room.pooled.as_ref().map_or(0, |pooled| pooled.bytes);
        let bytes_max = self.pool.bytes_max.load(Ordering::Relaxed);
        let most = bytes_max.saturating_mul(SHARE) / (SHARE + 1);
        bytes.min(most).saturating_sub(held)
    }

    fn add(&self, room: &mut Room, bytes: usize, taken: usize) {
        room.bytes = bytes;
        match &mut room.pooled {
            Some(pooled) => pooled.bytes = pooled.bytes.saturating_add(taken),
            None => {
                room.pooled = Some(Pooled {
                    pool: Arc::clone(&self.pool),
                    party: Arc::clone(&self.party),
                    bytes: taken,
                });
            }
        }
    }
}

impl Room {
    /// Whether none was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Ties the room to the bytes: it is given back when the last slice of them is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        if self.is_empty() {
            return bytes;
        }
        Bytes::from_owner(Held { bytes, _room: self })
    }

    fn suffices(&self, bytes: usize) -> bool {
        self.bytes >= bytes || self.overdraft.is_some()
    }
}

fn add(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lends room for read buffers, without making anybody wait.
#[derive(Debug, Clone)]
pub(crate) struct Lender {
    pool: Arc<Pool>,
}

/// Room that was lent; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Loan {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Lender {
    /// Room for `bytes` bytes, if that much is free after what waits; half of the pool is never lent.
    pub(crate) fn lend(&self, bytes: usize) -> Option<Loan> {
        let pool = &self.pool;
        let lendable = pool.bytes_max.load(Ordering::Relaxed) / 2;
        let next = |used: usize| used.checked_add(bytes).filter(|used| *used <= lendable);
        pool.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .ok()?;
        Some(Loan {
            pool: Arc::clone(pool),
            bytes,
        })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Ordering::SeqCst);
        self.pool.wake();
    }
}

/// How often the free room a party may hold: see the module.
const SHARE: usize = 3;
/// A permit count is a u32, and the semaphore's own limit lies higher on every platform we build for.
const BYTES_MAX: usize = u32::MAX as usize;

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
