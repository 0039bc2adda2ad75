//! Connections whose end the buffer has not taken yet: its disk was too slow, or broken.
//!
//! Without the frame that tells of the end, the connection's batches without an outcome would stay open for as long as
//! the buffer's session lasts. The poller tries again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use teeline_archive::buffer::{ConnectionLost, Frame};
use teeline_archive::ids::SessionId;

/// What is still to be written, oldest first.
#[derive(Debug, Default)]
pub(crate) struct LostConnections {
    waiting: Mutex<VecDeque<(SessionId, ConnectionLost)>>,
}

impl LostConnections {
    /// Keeps the news of a connection for later; false when too many wait already.
    pub(crate) fn keep(&self, session: SessionId, lost: ConnectionLost) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.len() < WAITING_MAX;
        if has_room {
            waiting.push_back((session, lost));
        }
        has_room
    }

    /// The oldest, as frames for this session of the buffer. What belongs to an earlier one is forgotten: the end of a
    /// session leaves nothing open.
    pub(crate) fn next(&self, session: SessionId) -> Vec<Frame> {
        let mut waiting = self.lock();
        waiting.retain(|(of, _)| *of == session);
        let oldest = waiting.iter().take(FRAMES_AT_ONCE);
        oldest
            .map(|(_, lost)| Frame::ConnectionLost(lost.clone()))
            .collect()
    }

    /// The buffer took so many of the oldest.
    pub(crate) fn written(&self, count: usize) {
        let mut waiting = self.lock();
        let count = count.min(waiting.len());
        waiting.drain(..count);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(SessionId, ConnectionLost)>> {
        // Every change is a single step, so a poisoned lock still guards a sound list.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More connections than a proxy serves at once; 2 MiB.
const WAITING_MAX: usize = 65_536;
const FRAMES_AT_ONCE: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(connection_id: u64) -> ConnectionLost {
        ConnectionLost {
            connection_id,
            at_ms: 1,
        }
    }

    #[test]
    fn what_is_kept_stays_until_written_or_its_session_is_over() {
        let connections = LostConnections::default();
        assert!(connections.keep(SessionId(1), lost(1)));
        assert!(connections.keep(SessionId(2), lost(2)));
        assert!(connections.keep(SessionId(2), lost(3)));
        let expected = [Frame::ConnectionLost(lost(2)), Frame::ConnectionLost(lost(3))];
        assert_eq!(connections.next(SessionId(2)), expected);
        assert_eq!(connections.next(SessionId(2)), expected, "not taken by looking");
        connections.written(1);
        assert_eq!(connections.next(SessionId(2)), expected.split_at(1).1);
        assert!(connections.next(SessionId(3)).is_empty());
    }

    #[test]
    fn the_number_kept_is_limited() {
        let connections = LostConnections::default();
        let kept = (0..).take_while(|id| connections.keep(SessionId(1), lost(*id)));
        assert_eq!(kept.count(), WAITING_MAX);
    }
}
