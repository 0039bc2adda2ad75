//! Who waits for which position. Only those whose position has become durable are woken.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use tokio::sync::oneshot;

use super::SyncLost;

type Waiting = BTreeMap<BufferPosition, Vec<oneshot::Sender<Result<(), SyncLost>>>>;

/// The published synced position and those who wait for it to advance.
pub(super) struct Waiters {
    inner: Mutex<Inner>,
}

struct Inner {
    synced: BufferPosition,
    /// Final synced positions of sessions that a disk failure ended; few, one per failure.
    ended: BTreeMap<SessionId, Lsn>,
    /// Set while the buffer is broken: what is above `synced` in this session is lost.
    broken: bool,
    waiting: Waiting,
}

impl Inner {
    fn verdict(&self, at: BufferPosition) -> Option<Result<(), SyncLost>> {
        if at.session == self.synced.session {
            return match (at.lsn <= self.synced.lsn, self.broken) {
                (true, _) => Some(Ok(())),
                (false, true) => Some(Err(SyncLost)),
                (false, false) => None,
            };
        }
        match self.ended.get(&at.session) {
            Some(last) if at.lsn <= *last => Some(Ok(())),
            Some(_) => Some(Err(SyncLost)),
            None => None,
        }
    }

    fn wake(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for (at, senders) in waiting {
            match self.verdict(at) {
                // A receiver that is gone stopped waiting; that is its right.
                Some(verdict) => senders.into_iter().for_each(|sender| {
                    let _ = sender.send(verdict);
                }),
                None => drop(self.waiting.insert(at, senders)),
            }
        }
    }
}

impl Waiters {
    pub(super) fn new(session: SessionId) -> Self {
        let synced = BufferPosition { session, lsn: Lsn(0) };
        Waiters {
            inner: Mutex::new(Inner {
                synced,
                ended: BTreeMap::new(),
                broken: false,
                waiting: Waiting::new(),
            }),
        }
    }

    pub(super) fn synced(&self) -> BufferPosition {
        self.lock().synced
    }

    pub(super) async fn wait(&self, at: BufferPosition) -> Result<(), SyncLost> {
        let receiver = {
            let mut inner = self.lock();
            if let Some(verdict) = inner.verdict(at) {
                return verdict;
            }
            let (sender, receiver) = oneshot::channel();
            inner.waiting.entry(at).or_default().push(sender);
            receiver
        };
        // The sender is dropped only with the whole writer, and then nobody will sync any more.
        receiver.await.unwrap_or(Err(SyncLost))
    }

    /// The thread synced up to here.
    pub(super) fn advance(&self, lsn: Lsn) {
        let mut inner = self.lock();
        inner.synced.lsn = lsn;
        let ready = inner.synced;
        // The common path: only what became ready is touched.
        let next = BufferPosition {
            session: ready.session,
            lsn: Lsn(lsn.0.saturating_add(1)),
        };
        let later = inner.waiting.split_off(&next);
        let woken = std::mem::replace(&mut inner.waiting, later);
        drop(inner);
        for sender in woken.into_values().flatten() {
            let _ = sender.send(Ok(()));
        }
    }

    /// What is above the synced position is lost.
    pub(super) fn break_session(&self) {
        let mut inner = self.lock();
        inner.broken = true;
        inner.wake();
    }

    /// The buffer works again, under a new session.
    pub(super) fn begin_session(&self, session: SessionId) {
        let mut inner = self.lock();
        let former = inner.synced;
        inner.ended.insert(former.session, former.lsn);
        inner.synced = BufferPosition { session, lsn: Lsn(0) };
        inner.broken = false;
        inner.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below can panic halfway through a change, so a poisoned lock still guards sound data.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn at(session: u64, lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(session),
            lsn: Lsn(lsn),
        }
    }

    #[tokio::test]
    async fn only_what_is_durable_is_woken() {
        let waiters = Arc::new(Waiters::new(SessionId(1)));
        let (one, two) = (waiters.clone(), waiters.clone());
        let first = tokio::spawn(async move { one.wait(at(1, 3)).await });
        let second = tokio::spawn(async move { two.wait(at(1, 9)).await });
        while waiters.lock().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        waiters.advance(Lsn(5));
        first.await.unwrap().unwrap();
        assert!(!second.is_finished());
        waiters.break_session();
        assert_eq!(second.await.unwrap(), Err(SyncLost));
        assert_eq!(waiters.wait(at(1, 5)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_lost_session_stays_lost_and_its_durable_part_stays_durable() {
        let waiters = Waiters::new(SessionId(1));
        waiters.advance(Lsn(5));
        waiters.break_session();
        waiters.begin_session(SessionId(2));
        assert_eq!(waiters.wait(at(1, 5)).await, Ok(()));
        assert_eq!(waiters.wait(at(1, 6)).await, Err(SyncLost));
        let pending = tokio::time::timeout(Duration::from_millis(1), waiters.wait(at(2, 1))).await;
        assert!(pending.is_err(), "the new session has synced nothing yet");
    }
}
