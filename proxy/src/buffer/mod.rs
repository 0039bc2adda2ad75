//! The write-ahead buffer's writer: one thread that gathers what waits, writes it with one vectored write and syncs
//! once for all of it (group commit).
//!
//! * **Order.** Log sequence numbers are given out under the queue's lock, in the order of [`Writer::append`]; the
//!   thread writes in that order.
//! * **Gathering.** Intents that a producer's answer waits for are written at once, with all that came before them. What
//!   nobody waits for (outcomes, and without `durable` everything) is gathered for some milliseconds or up to a mebibyte:
//!   large writes cost the kernel half per byte of what small ones do, and a sync for outcomes alone would keep the next
//!   intents waiting for it.
//! * **No copies.** Record bytes stay in the `Bytes` of the request that brought them until the kernel has them.
//! * **Memory** is bounded by [`WriterSettings::pending_bytes_max`]: a frame's bytes are counted from its append until
//!   the sync that makes it durable, and `append` waits while the sum is in use.
//! * **Disk** is bounded by [`WriterSettings::max_bytes`]: beyond it intents are refused with [`AppendError::Full`].
//!   Outcomes and other small frames still pass, because they are what lets files be released.
//! * **A disk that turned out to be full** is a limit like that: see [`disk_limit`].
//! * **A failed write or sync is never retried on its file**: after a failed fsync the kernel may have dropped the
//!   pages, and the next fsync would report success for bytes that are gone. The thread begins a new file and writes
//!   everything since the last good sync again (readers drop the repetition by LSN). When that fails too, the buffer
//!   is *broken*: what was held is lost and its waiters are told, appends are refused, and once a second a new session
//!   is tried. A new session makes every open intent of the former one unresolved, so nothing is taken for captured.

mod disk_limit;
mod file;
mod open;
mod queue;
#[cfg(test)]
mod tests;
mod thread;
mod waiters;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use teeline_archive::buffer::BufferIdentity;
use teeline_archive::buffer::Frame;
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
pub use teeline_segmenter::buffer::BufferError;

use queue::Shared;

/// When the thread syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// After every gathered write, and at once for what somebody waits for; `capture.ack: durable`.
    OnAppend,
    /// At most this long after a write; `capture.ack: async`.
    Every(Duration),
}

/// How a buffer is kept.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// Its directory; made when missing.
    pub dir: PathBuf,
    /// Disk budget of all files together, in bytes.
    pub max_bytes: u64,
    /// A file is ended once it reaches this, in bytes; the frame that passes the mark is its last.
    pub file_bytes: u64,
    /// When to sync.
    pub mode: SyncMode,
    /// Bytes that may wait for their sync; this bounds the writer's memory.
    pub pending_bytes_max: usize,
}

/// What [`Writer::open`] found and made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The session that this writer writes.
    pub session: SessionId,
    /// Files left by earlier sessions.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Where appended frames stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The session they belong to.
    pub session: SessionId,
    /// The first frame's number.
    pub first: Lsn,
    /// The last frame's number.
    pub last: Lsn,
}

impl Appended {
    /// The last frame's position: durable when [`Writer::wait_synced`] says so.
    pub fn end(&self) -> BufferPosition {
        BufferPosition {
            session: self.session,
            lsn: self.last,
        }
    }
}

/// Why frames were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk budget is used up; the segmenter has to archive before intents are taken again.
    #[error("the write-ahead buffer is full")]
    Full,
    /// Writing or syncing fails; the buffer tries a new session every second.
    #[error("the write-ahead buffer cannot be written")]
    Broken,
    /// The writer is being closed.
    #[error("the write-ahead buffer is closed")]
    Closed,
    /// The outcomes' intents were lost together with their session.
    #[error("the intents were lost in a disk failure of the write-ahead buffer")]
    StaleSession,
    /// A frame exceeds the format's limit.
    #[error("a frame of {0} bytes exceeds the write-ahead buffer's limit")]
    TooLarge(usize),
}

/// The position will never become durable: it was lost when the disk failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the write-ahead buffer lost this position in a disk failure")]
pub struct SyncLost;

/// The buffer at one moment, for metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferState {
    /// Bytes of all buffer files.
    pub used_bytes: u64,
    /// The limit in force: the disk budget, or less for a while after the disk was found full.
    pub max_bytes: u64,
    /// The disk budget.
    pub configured_bytes: u64,
    /// Bytes appended and not yet synced.
    pub pending_bytes: usize,
    /// The last durable position.
    pub synced: BufferPosition,
    /// What the segmenter has archived, as far as the thread has noticed.
    pub archived: Option<BufferPosition>,
    /// The disk's error while the buffer is broken.
    pub broken: Option<String>,
    /// True while intents are refused.
    pub full: bool,
    /// Intents that were taken and then lost with a failing disk, ever.
    pub lost_intents: u64,
}

impl BufferState {
    /// Why no intents are taken now; `None` when they are.
    pub fn trouble(&self) -> Option<String> {
        if let Some(error) = &self.broken {
            return Some(format!("the write-ahead buffer cannot be written: {error}"));
        }
        let (used, max, configured) = (self.used_bytes, self.max_bytes, self.configured_bytes);
        let how_full = format!("the write-ahead buffer is full: {used} of {max} bytes");
        match (self.full, max < configured) {
            (false, _) => None,
            (true, false) => Some(format!("{how_full} (hint: is the archive reachable?)")),
            (true, true) => Some(format!(
                "{how_full}, a limit learnt from a full disk, below the configured {configured} \
                 (hint: what else fills the disk, and is the archive reachable?)"
            )),
        }
    }
}

/// The one writer of a buffer directory. Clones share it.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
}

impl Writer {
    /// Locks the directory, begins a new session and starts the thread. Blocking.
    ///
    /// `now_ms` gives epoch milliseconds, for file headers and the closing frame.
    ///
    /// # Errors
    /// When the directory cannot be made, locked (the error names the holder) or written.
    pub fn open(
        settings: WriterSettings,
        now_ms: impl Fn() -> i64 + Send + 'static,
    ) -> Result<(Writer, OpenReport), BufferError> {
        open::open(settings, Box::new(now_ms))
    }

    /// Who this buffer is.
    pub fn identity(&self) -> BufferIdentity {
        self.shared.identity
    }

    /// The last position given out; what is appended from now on comes after it.
    pub fn last_assigned(&self) -> BufferPosition {
        self.shared.last_assigned()
    }

    /// Queues frames, in this order and without others between them; waits while too many bytes are pending.
    ///
    /// Cancel-safe: a dropped call has appended nothing.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub async fn append(&self, frames: Vec<Frame>) -> Result<Appended, AppendError> {
        self.shared.append(None, frames).await
    }

    /// Queues the outcomes of intents that were appended in `session`.
    ///
    /// # Errors
    /// [`AppendError::StaleSession`] when that session was lost; the batches count as missed.
    pub async fn append_outcomes(
        &self,
        session: SessionId,
        frames: Vec<Frame>,
    ) -> Result<Appended, AppendError> {
        self.shared.append(Some(session), frames).await
    }

    /// Resolves when `at` is on disk. Without a limit of its own; cancel-safe.
    ///
    /// # Errors
    /// [`SyncLost`] when the position can no longer become durable.
    pub async fn wait_synced(&self, at: BufferPosition) -> Result<(), SyncLost> {
        self.shared.waiters.wait(at).await
    }

    /// How the buffer stands.
    pub fn state(&self) -> BufferState {
        self.shared.state()
    }

    /// Writes and syncs everything queued and a closing frame, ends the thread and gives up the lock.
    ///
    /// # Errors
    /// The disk's error when not everything is on disk.
    pub async fn close(&self) -> Result<(), BufferError> {
        self.shared.close().await
    }
}
