//! Following the buffer: frames as they become durable, sessions as they begin, the end when nobody writes any more.

use std::collections::VecDeque;
use std::time::Duration;

use teeline_archive::buffer::{BufferIdentity, Frame};
use teeline_archive::ids::{BufferPosition, SessionId};
use tokio::task::JoinHandle;

use super::scan::{Found, Horizon, Scanner};
use super::{BufferError, BufferFiles, Damage, Directory, FrameLocation};

/// A frame, where it stands in the log and where it lies on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadFrame {
    /// Its place in the log.
    pub position: BufferPosition,
    /// Where to read it again.
    pub location: FrameLocation,
    /// What it says. The records of an intent are a slice of the window that was read: do not keep them.
    pub frame: Frame,
}

/// What a reader has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session begins: every intent of an earlier session without an outcome is unresolved from here on.
    SessionStart(SessionId),
    /// The next frame.
    Frame(ReadFrame),
    /// Something could not be read; reading goes on behind it.
    Damage(Damage),
    /// Nothing new within the poll interval.
    Idle,
    /// No writer lives and everything is read. Asking again is allowed: a new writer brings a new session.
    End {
        /// True when the last session was closed in order.
        clean: bool,
    },
}

/// How a buffer is followed.
#[derive(Debug, Clone, Copy)]
pub struct ReaderOptions {
    /// How often the writer's published position is looked at while nothing is new.
    pub poll: Duration,
    /// True when the caller itself holds the writer's lock ([`super::adopt`]): no writer lives.
    pub adopted: bool,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        // Far below the age at which segments close, and cheap: one pread of a small file.
        ReaderOptions {
            poll: Duration::from_millis(20),
            adopted: false,
        }
    }
}

/// Found in one go, so that the blocking pool is not asked for every frame.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 2 << 20;
/// Whether a writer lives is asked only after this many polls without news.
const POLLS_BEFORE_LIVENESS: u32 = 5;

/// The scanner comes back with whether a writer was taken to live, and with what it found.
type Filled = (Scanner, bool, Result<Vec<Event>, BufferError>);

/// Follows one buffer from its first file on.
pub struct Reader {
    directory: Directory,
    options: ReaderOptions,
    files: BufferFiles,
    /// `None` while the blocking pool has it.
    scanner: Option<Scanner>,
    /// What the blocking pool is doing; kept here so that a dropped call to `next` loses nothing.
    filling: Option<JoinHandle<Filled>>,
    ready: VecDeque<Event>,
    idle_polls: u32,
    clean: bool,
}

impl Reader {
    /// Follows the buffer in `directory`, which may still be empty or missing.
    pub fn open(directory: Directory, options: ReaderOptions) -> Reader {
        Reader {
            scanner: Some(Scanner::new(directory.clone())),
            files: BufferFiles::new(directory.clone()),
            directory,
            options,
            filling: None,
            ready: VecDeque::new(),
            idle_polls: 0,
            clean: true,
        }
    }

    /// Who the buffer is; `None` before its first writer.
    pub fn identity(&self) -> Result<Option<BufferIdentity>, BufferError> {
        self.directory.identity()
    }

    /// What is published as archived. Frames up to there are still told when their file exists.
    pub fn archived(&self) -> Result<Option<BufferPosition>, BufferError> {
        self.directory.archived()
    }

    /// Random access to frames, and the way to publish what is archived.
    pub fn files(&self) -> BufferFiles {
        self.files.clone()
    }

    /// The next event; waits at most about one poll interval. Cancel-safe.
    pub async fn next(&mut self) -> Result<Event, BufferError> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(event);
        }
        let live =
            self.options.adopted || self.idle_polls < POLLS_BEFORE_LIVENESS || self.directory.is_locked()?;
        let live = self.fill(live && !self.options.adopted).await?;
        if let Some(event) = self.ready.pop_front() {
            self.idle_polls = 0;
            return Ok(event);
        }
        if !live {
            tokio::time::sleep(self.options.poll).await;
            return Ok(Event::End { clean: self.clean });
        }
        self.idle_polls = self.idle_polls.saturating_add(1);
        tokio::time::sleep(self.options.poll).await;
        Ok(Event::Idle)
    }

    /// Fills `ready`; says whether a writer was taken to live when this reading began, which may be an earlier call's.
    async fn fill(&mut self, live: bool) -> Result<bool, BufferError> {
        if self.filling.is_none() {
            let directory = self.directory.clone();
            let mut scanner = self
                .scanner
                .take()
                .unwrap_or_else(|| Scanner::new(directory.clone()));
            self.filling = Some(tokio::task::spawn_blocking(move || {
                let events = scan(&mut scanner, &directory, live);
                (scanner, live, events)
            }));
        }
        let Some(filling) = self.filling.as_mut() else {
            return Ok(true);
        };
        let filled = filling.await;
        self.filling = None;
        let (scanner, live, events) = match filled {
            Ok(filled) => filled,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down and nobody will read any more.
                Err(_) => return Ok(live),
            },
        };
        self.scanner = Some(scanner);
        for event in events? {
            match &event {
                Event::SessionStart(_) => self.clean = false,
                Event::Frame(read) => self.clean = matches!(read.frame, Frame::SessionClosed { .. }),
                _ => {}
            }
            self.ready.push_back(event);
        }
        Ok(live)
    }
}

fn scan(scanner: &mut Scanner, directory: &Directory, live: bool) -> Result<Vec<Event>, BufferError> {
    let horizon = match live {
        false => Horizon::End,
        true => match directory.positions()? {
            Some(positions) => Horizon::Synced(positions.synced),
            None => Horizon::Synced(BufferPosition::NONE),
        },
    };
    let (mut events, mut bytes) = (Vec::new(), 0usize);
    while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
        let found = match scanner.step(horizon) {
            Ok(found) => found,
            // The scanner stands behind what was found before: that must be told. The error comes again.
            Err(_) if !events.is_empty() => break,
            Err(error) => return Err(error),
        };
        match found {
            Found::Nothing => break,
            Found::Session(session) => events.push(Event::SessionStart(session)),
            Found::Damage(damage) => events.push(Event::Damage(damage)),
            Found::Frame(frame) => {
                bytes = bytes.saturating_add(frame.location.len as usize);
                events.push(Event::Frame(frame));
            }
        }
    }
    if events.is_empty() {
        scanner.windows.looked_in_vain();
    }
    Ok(events)
}
