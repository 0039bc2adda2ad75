//! The writer's thread: gather, write, sync, publish; begin files, release files, and survive a failing disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use metrics::{counter, histogram};
use teeline_archive::buffer::{FILE_HEADER_BYTES, FileHeader, Frame, Positions};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_runtime::exit::error_chain;
use teeline_runtime::lock::LockFile;
use teeline_segmenter::buffer::{Directory, PositionsFile};
use tracing::{error, info, warn};

use super::disk_limit::{DiskLimit, is_storage_full};
use super::file::{ActiveFile, Gathered};
use super::open::NowMs;
use super::queue::{Item, RETRY_AFTER, Shared};
use super::{BufferError, SyncMode};

#[cfg(test)]
mod tests;

/// How often the thread looks what has been archived, and releases it.
const RELEASE_EVERY: Duration = Duration::from_millis(200);

/// One write ends with the frame that reaches this. Larger ones save nothing, and get folios so large that a virtual
/// machine's host may have to find memory for them first (docs/adr/0010).
const WRITE_BYTES_MAX: u64 = 1 << 20;
/// What is not synced is kept in memory, so more than this does not wait for its time.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;
/// And no more than this part of the room for what waits, which is given back by a sync: it must not be used up by what is
/// written and waits for its time. Small frames take four times their bytes of it.
const UNSYNCED_OF_ROOM: u64 = 8;

/// A file that is no longer written.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClosedFile {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) session: SessionId,
    /// [`Lsn::NONE`] where the header does not read.
    pub(super) first_lsn: Lsn,
}

pub(super) struct Thread {
    shared: Arc<Shared>,
    directory: Directory,
    _lock: LockFile,
    positions: PositionsFile,
    session: SessionId,
    /// `None` while the buffer is broken.
    active: Option<ActiveFile>,
    next_number: u64,
    closed: VecDeque<ClosedFile>,
    /// Frames since the last good sync, in order: written, or about to be.
    held: VecDeque<Item>,
    /// How many of `held` are written to the active file.
    written: usize,
    /// Their bytes.
    unsynced_bytes: u64,
    last_sync: Instant,
    released_at: Instant,
    scratch: BytesMut,
    /// What was archived when last looked at.
    archived: Option<BufferPosition>,
    disk: DiskLimit,
    now_ms: NowMs,
}

impl Thread {
    /// Begins the session's first file; it is durable when this returns.
    #[allow(clippy::too_many_arguments)] // the parts of a thread that is made in one place
    pub(super) fn start(
        shared: Arc<Shared>,
        directory: Directory,
        lock: LockFile,
        positions: PositionsFile,
        session: SessionId,
        next_number: u64,
        closed: Vec<ClosedFile>,
        now_ms: NowMs,
    ) -> Result<Self, BufferError> {
        let mut thread = Thread {
            shared,
            directory,
            _lock: lock,
            positions,
            session,
            active: None,
            next_number,
            closed: closed.into(),
            held: VecDeque::new(),
            written: 0,
            unsynced_bytes: 0,
            last_sync: Instant::now(),
            released_at: Instant::now(),
            scratch: BytesMut::new(),
            archived: None,
            disk: DiskLimit::default(),
            now_ms,
        };
        thread.begin_file(Lsn(1))?;
        thread.sync()?;
        thread.release();
        Ok(thread)
    }

    pub(super) fn run(mut self) {
        let result = loop {
            let taken = self.shared.take(self.deadline());
            self.held.extend(taken.items);
            if taken.closing {
                break self.finish();
            }
            if self.active.is_none() {
                self.try_new_session();
            } else if let Err(error) = self.write_and_sync_if_due(taken.hurried) {
                self.survive(error);
            }
            if self.released_at.elapsed() >= RELEASE_EVERY {
                self.release();
                if let Err(error) = self.roll_if_stuck() {
                    self.survive(error);
                }
            }
        };
        self.shared.end(result);
    }

    /// When the thread has to do something even if nothing is appended.
    fn deadline(&self) -> Instant {
        let release = self.released_at + RELEASE_EVERY;
        match (self.shared.settings.mode, self.held.is_empty()) {
            (SyncMode::Every(interval), false) => release.min(self.last_sync + interval),
            _ => release,
        }
    }

    /// Room comes back by a sync only: who waits for it hurries that, too.
    fn write_and_sync_if_due(&mut self, hurried: bool) -> Result<(), BufferError> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.write_held()?;
        match self.shared.settings.mode {
            SyncMode::Every(interval) if !hurried && self.last_sync.elapsed() < interval => Ok(()),
            _ => self.sync(),
        }
    }

    /// Writes what is held and not written yet, beginning new files where one would grow too large.
    fn write_held(&mut self) -> Result<(), BufferError> {
        while self.written < self.held.len() {
            let Some(active) = self.active.as_mut() else {
                return Ok(());
            };
            let room = self.shared.settings.file_bytes.saturating_sub(active.bytes);
            let most = room.min(WRITE_BYTES_MAX);
            let mut gathered = Gathered::new(std::mem::take(&mut self.scratch));
            let mut count = 0;
            for item in self.held.iter().skip(self.written) {
                if gathered.bytes >= most {
                    break;
                }
                gathered.push(item, self.session);
                count += 1;
            }
            let (bytes, result) = match gathered.is_empty() {
                true => (0, Ok(())),
                false => (gathered.bytes, active.write(&gathered)),
            };
            counter!("teeline_buffer_written_bytes_total").increment(bytes);
            self.scratch = gathered.into_scratch();
            result?;
            self.written += count;
            self.unsynced_bytes = self.unsynced_bytes.saturating_add(bytes);
            if bytes >= room && self.written < self.held.len() {
                self.roll()?;
            } else if self.unsynced_bytes >= self.unsynced_bytes_max() {
                self.sync()?;
            }
        }
        Ok(())
    }

    /// Where every write is synced, one sync for all that is held is best.
    fn unsynced_bytes_max(&self) -> u64 {
        match self.shared.settings.mode {
            SyncMode::OnAppend => u64::MAX,
            SyncMode::Every(_) => UNSYNCED_BYTES_MAX.min(self.shared.room_bytes() / UNSYNCED_OF_ROOM),
        }
    }

    /// Ends the active file, durably, and begins the next.
    fn roll(&mut self) -> Result<(), BufferError> {
        self.sync()?;
        let first = self.next_lsn();
        self.retire_active();
        self.begin_file(first)
    }

    /// A full buffer takes no intents, so its active file would never grow to its end; and only ended files are
    /// released. When nothing else is left to release, the active one is ended early.
    fn roll_if_stuck(&mut self) -> Result<(), BufferError> {
        let holds_frames = self
            .active
            .as_ref()
            .is_some_and(|active| active.bytes > FILE_HEADER_BYTES as u64);
        let is_full = self.used_bytes() >= self.max_bytes();
        if !holds_frames || !is_full || !self.closed.is_empty() {
            return Ok(());
        }
        self.roll()?;
        self.sync()?;
        self.release();
        Ok(())
    }

    /// The first frame that is not durable yet, or will be the next to be given out.
    fn next_lsn(&self) -> Lsn {
        match self.held.front() {
            Some(item) => item.lsn,
            None => self.shared.waiters.synced().lsn.next(),
        }
    }

    fn begin_file(&mut self, first_lsn: Lsn) -> Result<(), BufferError> {
        let header = FileHeader {
            buffer_id: self.shared.identity.buffer_id,
            session: self.session,
            file_number: self.next_number,
            first_lsn,
            created_at_ms: (self.now_ms)(),
        };
        // The number is used up even if this fails: a half-made file may stay behind under it.
        self.next_number = self.next_number.saturating_add(1);
        self.active = Some(ActiveFile::create(&self.directory, &header)?);
        self.publish_usage();
        Ok(())
    }

    fn retire_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.closed.push_back(ClosedFile {
                number: active.number,
                bytes: active.bytes,
                session: self.session,
                first_lsn: active.first_lsn,
            });
        }
    }

    /// Makes the written part of `held` durable, tells readers, then those who wait.
    fn sync(&mut self) -> Result<(), BufferError> {
        let Some(active) = self.active.as_ref() else {
            return Ok(());
        };
        let began = Instant::now();
        active.sync()?;
        self.last_sync = Instant::now();
        histogram!("teeline_buffer_sync_seconds").record(self.last_sync.duration_since(began).as_secs_f64());
        let durable: Vec<Item> = self.held.drain(..self.written).collect();
        (self.written, self.unsynced_bytes) = (0, 0);
        if let Some(last) = durable.last() {
            self.shared.waiters.advance(last.lsn);
        }
        self.publish_positions(false);
        self.publish_usage();
        Ok(())
    }

    /// A write or a sync failed. The file's pages may be gone, so it is not touched again: everything since the last
    /// good sync goes into a new file, or is given up.
    fn survive(&mut self, error: BufferError) {
        self.note_full_disk(&error);
        counter!("teeline_buffer_failures_total").increment(1);
        warn!(error = %error_chain(&error), frames = self.held.len(), "the buffer file failed, writing what is held to a new one");
        self.retire_active();
        (self.written, self.unsynced_bytes) = (0, 0);
        let first = self.next_lsn();
        let again = self
            .begin_file(first)
            .and_then(|()| self.write_held())
            .and_then(|()| self.sync());
        if let Err(error) = again {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &BufferError) {
        self.note_full_disk(error);
        error!(error = %error_chain(error), frames = self.held.len(), "the buffer cannot be written, capture is interrupted until it can");
        self.retire_active();
        self.shared.break_session(error_chain(error));
        self.shared.count_lost(&self.held);
        self.held.clear();
        (self.written, self.unsynced_bytes) = (0, 0);
        self.last_sync = Instant::now();
    }

    fn try_new_session(&mut self) {
        // Frames that slipped in while the session was being broken were refused durability with it.
        self.shared.count_lost(&self.held);
        self.held.clear();
        (self.written, self.unsynced_bytes) = (0, 0);
        if self.last_sync.elapsed() < RETRY_AFTER {
            return;
        }
        self.last_sync = Instant::now();
        // What is archived can make the room that was missing.
        self.release();
        let former = self.session;
        let begun = self.directory.next_session(former).and_then(|session| {
            self.session = session;
            self.begin_file(Lsn(1))?;
            let Some(active) = self.active.as_ref() else {
                return Ok(());
            };
            Ok(active.sync()?)
        });
        match begun {
            Ok(()) => {
                self.shared.begin_session(self.session);
                self.publish_positions(false);
                info!(
                    session = self.session.0,
                    "the buffer can be written again, a new session begins"
                );
            }
            Err(error) => {
                warn!(error = %error_chain(&error), "the buffer still cannot be written");
                self.retire_active();
            }
        }
    }

    fn finish(&mut self) -> Result<(), BufferError> {
        if self.active.is_none() {
            return Err(BufferError::Io {
                action: "write to",
                path: self.directory.path().to_owned(),
                source: std::io::Error::other("the buffer is broken"),
            });
        }
        let closing = Frame::SessionClosed {
            at_ms: (self.now_ms)(),
        };
        self.held.push_back(self.shared.closing_item(closing));
        if let Err(error) = self.write_held().and_then(|()| self.sync()) {
            self.survive(error);
            if self.active.is_none() {
                return self.finish();
            }
        }
        self.publish_positions(true);
        self.release();
        Ok(())
    }

    fn publish_positions(&self, closed: bool) {
        let synced = self.shared.waiters.synced();
        let mark = Positions {
            written: synced,
            synced,
            file_number: self.active.as_ref().map_or(0, |active| active.number),
            file_bytes: self.active.as_ref().map_or(0, |active| active.bytes),
            closed,
        };
        if let Err(error) = self.positions.write(&mark) {
            // Readers then lag behind; the next sync publishes again.
            warn!(error = %error_chain(&error), "the buffer's synced position could not be published");
        }
    }

    fn used_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|file| file.bytes).sum();
        closed.saturating_add(self.active.as_ref().map_or(0, |active| active.bytes))
    }

    fn note_full_disk(&mut self, error: &BufferError) {
        if is_storage_full(error) {
            let (used_bytes, known) = (self.used_bytes(), self.max_bytes());
            self.disk.was_full_at(used_bytes, self.shared.settings.file_bytes);
            // One failure is met by the write and again by the attempt to survive it.
            if self.max_bytes() < known {
                warn!(
                    used_bytes,
                    max_bytes = self.max_bytes(),
                    "the disk of the write-ahead buffer is full, the buffer is limited for a while"
                );
            }
        }
    }

    fn max_bytes(&self) -> u64 {
        self.disk.max_bytes(self.shared.settings.max_bytes)
    }

    fn publish_usage(&mut self) {
        let max_bytes = self.max_bytes();
        let full = self
            .shared
            .publish_usage(self.used_bytes(), max_bytes, self.archived);
        self.disk.seen(full);
    }

    /// Deletes the files that are archived whole. Best effort: a file that stays is tried again.
    fn release(&mut self) {
        self.released_at = Instant::now();
        let archived = match self.directory.archived() {
            Ok(archived) => archived,
            Err(error) => {
                warn!(error = %error_chain(&error), "the archived position could not be read, no buffer file is released");
                None
            }
        };
        if let Some(archived) = archived {
            while let Some(file) = self.closed.front().copied() {
                if !releasable(file, self.next_start(), archived) {
                    break;
                }
                let path = self.directory.file_path(file.number);
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        warn!(file = %path.display(), error = %e, "an archived buffer file could not be deleted");
                        break;
                    }
                    _ => drop(self.closed.pop_front()),
                }
            }
        }
        self.archived = archived.or(self.archived);
        self.publish_usage();
    }

    /// Where the file after the oldest one begins. While the buffer is broken the last file has no successor: it ends
    /// where the last sync did, as nothing behind that was promised to anybody.
    fn next_start(&self) -> BufferPosition {
        // Where a file without a readable header begins, nobody knows: the one after it says enough.
        let mut later = self.closed.iter().skip(1);
        let next = later
            .find(|file| file.first_lsn != Lsn::NONE)
            .map(|file| (file.session, file.first_lsn));
        let active = self
            .active
            .as_ref()
            .map(|active| (self.session, active.first_lsn));
        match next.or(active) {
            Some((session, lsn)) => BufferPosition { session, lsn },
            None => {
                let synced = self.shared.waiters.synced();
                BufferPosition {
                    lsn: synced.lsn.next(),
                    ..synced
                }
            }
        }
    }
}

/// A file is archived whole when everything before its successor's first frame is. A successor of a later session says
/// nothing about where the file ended, so then the archive has to have reached that later session.
fn releasable(file: ClosedFile, next: BufferPosition, archived: BufferPosition) -> bool {
    if next.session == file.session {
        archived.session > file.session
            || (archived.session == file.session && archived.lsn.0.saturating_add(1) >= next.lsn.0)
    } else {
        archived.session > file.session
    }
}
