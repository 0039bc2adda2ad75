//! What the sessions and the writer's thread share: the queue, the room in it, and the buffer's published state.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use teeline_archive::buffer::BufferIdentity;
use teeline_archive::buffer::Frame;
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};

use super::waiters::Waiters;
use super::{AppendError, Appended, BufferError, BufferState, SyncMode, WriterSettings};

/// What a small frame (anything but an intent's records) is counted as, in bytes: an upper bound in practice.
const FRAME_OVERHEAD_BYTES: usize = 256;
/// Record bytes of one intent; the rest of the frame limit is left for its prefix.
const RECORDS_BYTES_MAX: usize = teeline_archive::buffer::FRAME_PAYLOAD_BYTES_MAX - 4096;

/// So much is not gathered any further: one write of it costs no more per byte than a larger one.
const GATHERED_BYTES_MAX: usize = 1 << 20;
/// How long what nobody waits for may be gathered at most: a process that is killed loses what is not written. Where every
/// write is synced, an outcome of its own sync would make the next intent wait for that sync, too.
const PATIENCE: Duration = Duration::from_millis(5);

/// One frame on its way to the disk.
pub(super) struct Item {
    pub(super) lsn: Lsn,
    pub(super) frame: Frame,
    /// Returned when the frame is durable or lost; the last frame of an append carries it for all of them.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Broken,
    Closing,
}

struct Queue {
    session: SessionId,
    next_lsn: u64,
    items: Vec<Item>,
    /// What `items` are counted as, in bytes.
    bytes: usize,
    /// When the first of `items` came.
    since: Option<Instant>,
    /// Somebody waits for one of `items` to be durable.
    urgent: bool,
    /// Somebody waits for room.
    hurried: bool,
    phase: Phase,
}

impl Queue {
    /// When `items` have to be taken; `None` while there are none.
    fn due(&self, gathering: Gathering) -> Option<Instant> {
        match self.is_due_at_once(gathering) {
            true => self.since,
            false => self.since.map(|since| since + gathering.patience),
        }
    }

    fn is_due_at_once(&self, gathering: Gathering) -> bool {
        self.urgent || self.bytes >= gathering.bytes_max
    }

    fn take_items(&mut self) -> Vec<Item> {
        (self.bytes, self.since, self.urgent, self.hurried) = (0, None, false, false);
        std::mem::take(&mut self.items)
    }
}

/// How much is gathered for one write, and for how long, while nobody waits for it.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    bytes_max: usize,
    patience: Duration,
}

/// What the thread takes from the queue in one go.
pub(super) struct Taken {
    pub(super) items: Vec<Item>,
    /// Somebody waits for room, which only a sync gives back.
    pub(super) hurried: bool,
    pub(super) closing: bool,
}

pub(super) struct Shared {
    pub(super) identity: BufferIdentity,
    pub(super) settings: WriterSettings,
    pub(super) waiters: Waiters,
    queue: Mutex<Queue>,
    gathering: Gathering,
    wake: Condvar,
    room: Arc<Semaphore>,
    room_bytes: u32,
    used_bytes: AtomicU64,
    /// The limit in force.
    max_bytes: AtomicU64,
    full: AtomicBool,
    lost_intents: AtomicU64,
    archived: Mutex<Option<BufferPosition>>,
    broken: Mutex<Option<String>>,
    /// Set once by the thread when it ends: the result of the close.
    ended: watch::Sender<Option<Result<(), Arc<BufferError>>>>,
}

impl Shared {
    pub(super) fn new(identity: BufferIdentity, settings: WriterSettings, session: SessionId) -> Self {
        let room_bytes = u32::try_from(settings.pending_bytes_max)
            .unwrap_or(u32::MAX)
            .max(1);
        Shared {
            identity,
            waiters: Waiters::new(session),
            queue: Mutex::new(Queue {
                session,
                next_lsn: 1,
                items: Vec::new(),
                bytes: 0,
                since: None,
                urgent: false,
                hurried: false,
                phase: Phase::Open,
            }),
            gathering: Gathering {
                bytes_max: GATHERED_BYTES_MAX.min(room_bytes as usize / 4),
                patience: match settings.mode {
                    SyncMode::OnAppend => PATIENCE,
                    SyncMode::Every(interval) => interval.min(PATIENCE),
                },
            },
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            used_bytes: AtomicU64::new(0),
            max_bytes: AtomicU64::new(settings.max_bytes),
            full: AtomicBool::new(false),
            lost_intents: AtomicU64::new(0),
            archived: Mutex::new(None),
            broken: Mutex::new(None),
            ended: watch::Sender::new(None),
            settings,
        }
    }

    /// How many bytes may wait in all.
    pub(super) fn room_bytes(&self) -> u64 {
        self.room_bytes.into()
    }

    pub(super) fn last_assigned(&self) -> BufferPosition {
        let queue = lock(&self.queue);
        BufferPosition {
            session: queue.session,
            lsn: Lsn(queue.next_lsn - 1),
        }
    }

    pub(super) async fn append(
        &self,
        session: Option<SessionId>,
        frames: Vec<Frame>,
    ) -> Result<Appended, AppendError> {
        let (mut bytes, mut intents, mut awaited) = (0usize, false, false);
        for frame in &frames {
            awaited |= matches!(frame, Frame::Intent(_) | Frame::EndTxn(_));
            bytes = bytes.saturating_add(FRAME_OVERHEAD_BYTES);
            if let Frame::Intent(intent) = frame {
                if intent.records.len() > RECORDS_BYTES_MAX {
                    return Err(AppendError::TooLarge(intent.records.len()));
                }
                bytes = bytes.saturating_add(intent.records.len());
                intents = true;
            }
        }
        if intents && self.full.load(Ordering::Relaxed) {
            return Err(AppendError::Full);
        }
        // A request larger than the whole room waits for all of it rather than for ever.
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes);
        let room = self.take_room(wanted).await?;
        let mut queue = lock(&self.queue);
        match queue.phase {
            Phase::Open => {}
            Phase::Broken => return Err(AppendError::Broken),
            Phase::Closing => return Err(AppendError::Closed),
        }
        if session.is_some_and(|session| session != queue.session) {
            return Err(AppendError::StaleSession);
        }
        let first = Lsn(queue.next_lsn);
        let count = frames.len();
        let (was_empty, was_due) = (queue.items.is_empty(), queue.is_due_at_once(self.gathering));
        let mut room = Some(room);
        for (n, frame) in frames.into_iter().enumerate() {
            let lsn = Lsn(queue.next_lsn);
            queue.next_lsn += 1;
            let room = if n + 1 == count { room.take() } else { None };
            queue.items.push(Item {
                lsn,
                frame,
                _room: room,
            });
        }
        queue.bytes = queue.bytes.saturating_add(bytes);
        queue.urgent |= awaited && self.settings.mode == SyncMode::OnAppend;
        if was_empty {
            queue.since = Some(Instant::now());
        }
        let wakes = was_empty || !was_due && queue.is_due_at_once(self.gathering);
        let last = Lsn(queue.next_lsn - 1);
        let session = queue.session;
        drop(queue);
        // Who comes while something waits already finds the thread knowing when to take it.
        if wakes {
            self.wake.notify_one();
        }
        Ok(Appended { session, first, last })
    }

    async fn take_room(&self, wanted: u32) -> Result<OwnedSemaphorePermit, AppendError> {
        match self.room.clone().try_acquire_many_owned(wanted) {
            Ok(room) => return Ok(room),
            Err(TryAcquireError::Closed) => return Err(AppendError::Closed),
            // What holds the room must not be gathered any longer.
            Err(TryAcquireError::NoPermits) => self.hurry(),
        }
        let room = self.room.clone().acquire_many_owned(wanted).await;
        room.map_err(|_| AppendError::Closed)
    }

    fn hurry(&self) {
        let mut queue = lock(&self.queue);
        let wakes = !queue.hurried;
        queue.hurried = true;
        drop(queue);
        if wakes {
            self.wake.notify_one();
        }
    }

    /// Takes everything queued once it is due, or at `deadline`.
    pub(super) fn take(&self, deadline: Instant) -> Taken {
        let mut queue = lock(&self.queue);
        loop {
            let closing = queue.phase == Phase::Closing;
            let until = queue
                .due(self.gathering)
                .map_or(deadline, |due| due.min(deadline));
            let left = until.saturating_duration_since(Instant::now());
            if closing || queue.hurried || left.is_zero() {
                return Taken {
                    hurried: queue.hurried,
                    items: queue.take_items(),
                    closing,
                };
            }
            queue = self
                .wake
                .wait_timeout(queue, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The number of the closing frame; nothing can be appended behind it any more.
    pub(super) fn closing_item(&self, frame: Frame) -> Item {
        let mut queue = lock(&self.queue);
        let lsn = Lsn(queue.next_lsn);
        queue.next_lsn += 1;
        Item {
            lsn,
            frame,
            _room: None,
        }
    }

    /// The disk failed for good: what waits is lost, and appends are refused until [`Shared::begin_session`].
    pub(super) fn break_session(&self, why: String) {
        *lock(&self.broken) = Some(why);
        let mut queue = lock(&self.queue);
        if queue.phase == Phase::Open {
            queue.phase = Phase::Broken;
        }
        let lost = queue.take_items();
        drop(queue);
        self.count_lost(&lost);
        drop(lost);
        self.waiters.break_session();
    }

    /// What was taken and will never be durable.
    pub(super) fn count_lost<'a>(&self, items: impl IntoIterator<Item = &'a Item>) {
        let intents = items
            .into_iter()
            .filter(|item| matches!(item.frame, Frame::Intent(_)));
        self.lost_intents
            .fetch_add(intents.count() as u64, Ordering::Relaxed);
    }

    /// The disk works again, under a new session.
    pub(super) fn begin_session(&self, session: SessionId) {
        self.waiters.begin_session(session);
        let mut queue = lock(&self.queue);
        queue.session = session;
        queue.next_lsn = 1;
        if queue.phase == Phase::Broken {
            queue.phase = Phase::Open;
        }
        drop(queue);
        *lock(&self.broken) = None;
    }

    /// Says whether the buffer is full.
    pub(super) fn publish_usage(
        &self,
        used_bytes: u64,
        max_bytes: u64,
        archived: Option<BufferPosition>,
    ) -> bool {
        let full = used_bytes >= max_bytes;
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
        self.full.store(full, Ordering::Relaxed);
        *lock(&self.archived) = archived;
        full
    }

    pub(super) fn state(&self) -> BufferState {
        BufferState {
            used_bytes: self.used_bytes.load(Ordering::Relaxed),
            max_bytes: self.max_bytes.load(Ordering::Relaxed),
            configured_bytes: self.settings.max_bytes,
            pending_bytes: (self.room_bytes as usize).saturating_sub(self.room.available_permits()),
            synced: self.waiters.synced(),
            archived: *lock(&self.archived),
            broken: lock(&self.broken).clone(),
            full: self.full.load(Ordering::Relaxed),
            lost_intents: self.lost_intents.load(Ordering::Relaxed),
        }
    }

    pub(super) fn end(&self, result: Result<(), BufferError>) {
        // Whoever still waits will not be synced any more; whoever wants in finds the door closed.
        self.waiters.break_session();
        self.room.close();
        self.ended.send_replace(Some(result.map_err(Arc::new)));
    }

    pub(super) async fn close(&self) -> Result<(), BufferError> {
        lock(&self.queue).phase = Phase::Closing;
        self.wake.notify_one();
        let mut ended = self.ended.subscribe();
        let result = ended.wait_for(Option::is_some).await;
        match result.as_deref() {
            Ok(Some(Err(error))) => Err(BufferError::Io {
                action: "close the write-ahead buffer in",
                path: self.settings.dir.clone(),
                source: std::io::Error::other(error.clone()),
            }),
            _ => Ok(()),
        }
    }
}

/// How long a broken buffer waits before it tries a new session.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
