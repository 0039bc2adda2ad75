//! Bytes in flight: how much of what clients sent may be in memory at once, per connection and per process.
//!
//! A frame that has to be read whole takes its room before its body is read, and gives it back when its last holder
//! (the socket to the broker, or the write-ahead buffer's queue) drops it: the permit travels inside the `Bytes`, so the
//! account cannot go wrong. While a connection waits for room it does not read: the client feels it through TCP.
//! Waiting cannot deadlock: room is given back by the broker reading and by the disk writing, and neither waits for room.

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
}

impl ProcessBudget {
    /// Room for `bytes_max` bytes over all connections.
    #[must_use]
    pub fn new(bytes_max: usize) -> ProcessBudget {
        let bytes_max = bytes_max.clamp(1, BYTES_MAX);
        ProcessBudget {
            room: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
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

/// Room that was taken; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    _connection: Option<OwnedSemaphorePermit>,
    _process: Option<OwnedSemaphorePermit>,
}

impl ConnectionBudget {
    /// Takes room without waiting, or says that there is none.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        let connection = Arc::clone(&self.room)
            .try_acquire_many_owned(permits(bytes, self.bytes_max))
            .ok()?;
        let wanted = permits(bytes, self.process.bytes_max);
        let process = Arc::clone(&self.process.room)
            .try_acquire_many_owned(wanted)
            .ok()?;
        Some(Room {
            _connection: Some(connection),
            _process: Some(process),
        })
    }

    /// Takes room, waiting for it; also says how long that took. A frame larger than the whole room takes all of it.
    pub(crate) async fn take(&self, bytes: usize) -> (Room, Duration) {
        let started = Instant::now();
        // A semaphore that is never closed always answers; the Option only spares an `expect`.
        let wanted = permits(bytes, self.bytes_max);
        let connection = Arc::clone(&self.room).acquire_many_owned(wanted).await.ok();
        let wanted = permits(bytes, self.process.bytes_max);
        let process = Arc::clone(&self.process.room)
            .acquire_many_owned(wanted)
            .await
            .ok();
        (
            Room {
                _connection: connection,
                _process: process,
            },
            started.elapsed(),
        )
    }
}

impl Room {
    /// Ties the room to the bytes: it is given back when the last slice of them is dropped.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
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

fn permits(bytes: usize, bytes_max: usize) -> u32 {
    u32::try_from(bytes.min(bytes_max)).unwrap_or(u32::MAX)
}

/// A permit count is a u32, and the semaphore's own limit lies higher on every platform we build for.
const BYTES_MAX: usize = u32::MAX as usize;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_returns_with_the_last_slice() {
        let process = ProcessBudget::new(100);
        let budget = process.connection(60);
        let held = budget.try_take(50).unwrap().hold(Bytes::from(vec![0; 50]));
        assert_eq!(process.bytes_used(), 50);
        assert!(budget.try_take(20).is_none());
        let slice = held.slice(10..20);
        drop(held);
        assert_eq!(process.bytes_used(), 50);
        drop(slice);
        assert_eq!(process.bytes_used(), 0);
        assert!(budget.try_take(20).is_some());
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_room_waits_for_all_of_it_and_then_passes() {
        let process = ProcessBudget::new(100);
        let small = process.connection(10).try_take(10).unwrap();
        let budget = process.connection(1000);
        let waiting = tokio::spawn(async move { budget.take(5000).await.0 });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(small);
        let room = waiting.await.unwrap();
        assert_eq!(process.bytes_used(), 100);
        drop(room);
        assert_eq!(process.bytes_used(), 0);
    }
}
