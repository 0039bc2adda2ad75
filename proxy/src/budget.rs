//! Bytes in flight: how much of what clients sent may be in memory at once, per connection and per process.
//!
//! A frame that has to be read whole takes room for what has arrived of it and for the next read, never for what it
//! announces: many who announce much and send little hold little. Room is given back when the last holder of the frame
//! (the socket to the broker, or the write-ahead buffer's queue) drops it: the permits travel inside the `Bytes`, so the
//! account cannot go wrong. While a connection waits for room it does not read: the client feels it through TCP.
//!
//! **No deadlock.** Frames that are complete give their room back without waiting for any. Frames that are not could
//! hold it all and wait for each other; therefore one frame at a time may go on without room (the *overdraft*). So memory
//! is bounded by the process's room and one request of the largest size. Who has the overdraft must be quick
//! ([`Room::has_overdraft`]), and whoever is silent in the middle of a frame is disconnected.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The process-wide room for bytes in flight.
#[derive(Debug, Clone)]
pub struct ProcessBudget {
    room: Arc<Semaphore>,
    bytes_max: usize,
    /// One permit: whoever has it needs no further room.
    overdraft: Arc<Semaphore>,
}

impl ProcessBudget {
    /// Room for `bytes_max` bytes over all connections.
    #[must_use]
    pub fn new(bytes_max: usize) -> ProcessBudget {
        let bytes_max = bytes_max.clamp(1, BYTES_MAX);
        let overdraft = Arc::new(Semaphore::new(1));
        ProcessBudget {
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            overdraft,
        }
    }

    /// Bytes in use now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.bytes_max.saturating_sub(self.room.available_permits())
    }

    /// The share of one connection: at most `bytes_max` bytes of the process's room.
    pub(crate) fn connection(&self, bytes_max: usize) -> ConnectionBudget {
        let bytes_max = bytes_max.clamp(1, BYTES_MAX);
        ConnectionBudget {
            process: self.clone(),
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }
}

/// The room of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionBudget {
    process: ProcessBudget,
    room: Arc<Semaphore>,
    bytes_max: usize,
}

/// Room that was taken for one frame; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Room {
    bytes: usize,
    connection: Option<OwnedSemaphorePermit>,
    process: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl ConnectionBudget {
    /// Makes the room as large as `bytes` without waiting; false when that cannot be.
    pub(crate) fn try_grow(&self, room: &mut Room, bytes: usize) -> bool {
        if room.suffices(bytes) {
            return true;
        }
        let wanted = room.missing(&room.connection, bytes, self.bytes_max);
        let Ok(connection) = Arc::clone(&self.room).try_acquire_many_owned(wanted) else {
            return false;
        };
        let wanted = room.missing(&room.process, bytes, self.process.bytes_max);
        let Ok(process) = Arc::clone(&self.process.room).try_acquire_many_owned(wanted) else {
            return false;
        };
        add(&mut room.connection, connection);
        add(&mut room.process, process);
        room.bytes = bytes;
        true
    }

    /// Makes the room as large as `bytes`, waiting for it; says how long that took. A frame larger than all the room
    /// there is takes all of it.
    pub(crate) async fn grow(&self, room: &mut Room, bytes: usize) -> Duration {
        let started = Instant::now();
        if room.suffices(bytes) {
            return Duration::ZERO;
        }
        // The semaphores are never closed, so acquiring cannot fail.
        let wanted = room.missing(&room.connection, bytes, self.bytes_max);
        if let Ok(connection) = Arc::clone(&self.room).acquire_many_owned(wanted).await {
            add(&mut room.connection, connection);
        }
        let wanted = room.missing(&room.process, bytes, self.process.bytes_max);
        tokio::select! {
            biased;
            Ok(process) = Arc::clone(&self.process.room).acquire_many_owned(wanted) => add(&mut room.process, process),
            Ok(overdraft) = Arc::clone(&self.process.overdraft).acquire_owned() => room.overdraft = Some(overdraft),
        }
        room.bytes = bytes;
        started.elapsed()
    }
}

impl Room {
    /// Whether others wait for this very frame to come to its end.
    pub(crate) fn has_overdraft(&self) -> bool {
        self.overdraft.is_some()
    }

    /// Ties the room to the bytes: it is given back when the last slice of them is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }

    fn suffices(&self, bytes: usize) -> bool {
        self.bytes >= bytes || self.has_overdraft()
    }

    /// Permits still to be taken so that there are as many as `bytes`, or `limit` of them.
    fn missing(&self, held: &Option<OwnedSemaphorePermit>, bytes: usize, limit: usize) -> u32 {
        let held = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(bytes.min(limit).saturating_sub(held)).unwrap_or(u32::MAX)
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

/// A permit count is a u32, and the semaphore's own limit lies higher on every platform we build for.
const BYTES_MAX: usize = u32::MAX as usize;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn room(budget: &ConnectionBudget, bytes: usize) -> Option<Room> {
        let mut room = Room::default();
        budget.try_grow(&mut room, bytes).then_some(room)
    }

    #[tokio::test]
    async fn room_returns_with_the_last_slice() {
        let process = ProcessBudget::new(100);
        let budget = process.connection(60);
        let held = room(&budget, 50).unwrap().hold(Bytes::from(vec![0; 50]));
        assert_eq!(process.bytes_used(), 50);
        assert!(room(&budget, 20).is_none());
        let slice = held.slice(10..20);
        drop(held);
        assert_eq!(process.bytes_used(), 50);
        drop(slice);
        assert_eq!(process.bytes_used(), 0);
        assert!(room(&budget, 20).is_some());
    }

    #[tokio::test]
    async fn room_grows_with_what_arrives_and_a_frame_larger_than_all_of_it_passes() {
        let process = ProcessBudget::new(100);
        let budget = process.connection(1000);
        let mut large = Room::default();
        for bytes in [10, 40, 80, 5000] {
            assert!(budget.try_grow(&mut large, bytes));
            assert_eq!(process.bytes_used(), bytes.min(100));
        }
        drop(large);
        assert_eq!(process.bytes_used(), 0);
    }

    #[tokio::test]
    async fn unfinished_frames_that_hold_all_the_room_do_not_wait_for_each_other() {
        let process = ProcessBudget::new(100);
        let (one, two) = (process.connection(100), process.connection(100));
        let (mut first, mut second) = (room(&one, 50).unwrap(), room(&two, 50).unwrap());
        one.grow(&mut first, 90).await;
        assert!(first.has_overdraft());
        let waiting = tokio::spawn(async move {
            two.grow(&mut second, 90).await;
            second
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "only one frame may go beyond");
        drop(first);
        let second = waiting.await.unwrap();
        assert!(!second.has_overdraft());
        assert_eq!(process.bytes_used(), 90);
    }
}
