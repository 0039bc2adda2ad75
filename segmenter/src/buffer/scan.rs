//! Reading the buffer's files in order, synchronously: from bytes to frames, damage and ends.
//!
//! The scanner knows nothing of time. It is told how far it may read ([`Horizon`]) and says what it found, or that
//! there is nothing more within the horizon.

use std::fs::File;
use std::io;

use bytes::Bytes;
use teeline_archive::buffer::recovery;
use teeline_archive::buffer::{
    Corruption, Decoded, FILE_HEADER_BYTES, FileHeaderError, FrameError, decode_frame, decode_frame_header,
};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_runtime::exit::error_chain;

use super::scan_file::{FileSource, find_from, later_files, open_file, read_header, read_some_at, reopen};
use super::windows::Windows;
use super::{BufferError, Directory, FrameLocation, ReadFrame};

/// A stretch of the buffer that could not be read, with valid frames after it, or frames that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Number of the file.
    pub file_number: u64,
    /// Position in it, in bytes.
    pub at: u64,
    /// Length in bytes; 0 when frames are missing without a trace.
    pub len: u64,
    /// The session whose frames are concerned, if known.
    pub session: Option<SessionId>,
    /// What is wrong.
    pub why: String,
}

/// How far frames may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Horizon {
    /// A writer lives: up to what it has published as synced.
    Synced(BufferPosition),
    /// No writer lives: up to the end of the files.
    End,
}

/// What one step found.
#[derive(Debug)]
pub(super) enum Found {
    Session(SessionId),
    Frame(ReadFrame),
    Damage(Damage),
    /// Nothing more within the horizon.
    Nothing,
}

/// Read at once, where a frame does not need more.
const WINDOW_BYTES: u64 = 1 << 20;

struct Open {
    number: u64,
    file: File,
    /// Position of the next frame.
    at: u64,
    /// Bytes of the file from `window_at` on.
    window: Bytes,
    window_at: u64,
}

pub(super) struct Scanner {
    directory: Directory,
    open: Option<Open>,
    pub(super) windows: Windows,
    /// Files up to this number are read.
    passed: u64,
    session: SessionId,
    last_lsn: Lsn,
    /// Files of this session that were left for a later writing of what they lack.
    left: Vec<u64>,
    /// The highest frame for which one of them was opened again.
    returned_for: Lsn,
    /// For the number of a file and a horizon: with which frame the next file begins.
    again_from: Option<(u64, Horizon, Option<Lsn>)>,
}

impl Scanner {
    pub(super) fn new(directory: Directory) -> Self {
        Scanner {
            directory,
            open: None,
            windows: Windows::default(),
            passed: 0,
            session: SessionId(0),
            last_lsn: Lsn::NONE,
            left: Vec::new(),
            returned_for: Lsn::NONE,
            again_from: None,
        }
    }

    /// Finds the next thing to tell.
    pub(super) fn step(&mut self, horizon: Horizon) -> Result<Found, BufferError> {
        loop {
            if self.open.is_none() {
                let passed = self.passed;
                match self.open_next(horizon)? {
                    Some(found) => return Ok(found),
                    // A file without a header is passed silently; what comes after it is not to be missed.
                    None if self.open.is_some() || self.passed != passed => continue,
                    None => return Ok(Found::Nothing),
                }
            }
            if self.reached(horizon) {
                return Ok(Found::Nothing);
            }
            let Some(decoded) = self.decode()? else { continue };
            match decoded {
                Ok(decoded) => {
                    if let Some(found) = self.accept(decoded, horizon)? {
                        return Ok(found);
                    }
                }
                Err(error) => match self.pass_bad_bytes(&error, horizon)? {
                    Passed::Damage(damage) => return Ok(Found::Damage(damage)),
                    Passed::FileEnd => {
                        if !self.return_to_left(horizon, false)? {
                            self.close();
                        }
                    }
                    Passed::Elsewhere => {}
                    Passed::Wait => return Ok(Found::Nothing),
                },
            }
        }
    }

    /// True when the live writer has published nothing beyond what is read.
    fn reached(&self, horizon: Horizon) -> bool {
        match horizon {
            Horizon::Synced(synced) => {
                synced.session == self.session && synced.lsn <= self.last_lsn || synced.session < self.session
            }
            Horizon::End => false,
        }
    }

    /// Opens the next file, if there is one that may be read.
    fn open_next(&mut self, horizon: Horizon) -> Result<Option<Found>, BufferError> {
        let later = self.directory.numbers_after(self.passed)?;
        let Some(next) = later.first().copied() else {
            return Ok(None);
        };
        let is_last = later.len() == 1;
        let path = self.directory.file_path(next);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Released between the listing and now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.passed = next;
                return Ok(None);
            }
            Err(e) => return Err(BufferError::io("open", &path)(e)),
        };
        let header = match read_header(&file).map_err(BufferError::io("read", &path))? {
            Ok(header) => header,
            Err(error @ FileHeaderError::Version { .. }) => {
                return Err(BufferError::Damaged {
                    path,
                    why: error.to_string(),
                });
            }
            // The last file of a live writer may be without its header for a moment.
            Err(_) if is_last && matches!(horizon, Horizon::Synced(_)) => return Ok(None),
            Err(error) => return self.pass_headless(next, &file, &error),
        };
        self.open = Some(Open {
            number: next,
            file,
            at: FILE_HEADER_BYTES as u64,
            window: Bytes::new(),
            window_at: FILE_HEADER_BYTES as u64,
        });
        if header.session == self.session {
            return Ok(None);
        }
        self.session = header.session;
        (self.left, self.returned_for) = (Vec::new(), Lsn::NONE);
        // The first file may begin inside a session whose earlier files are released.
        self.last_lsn = Lsn(header.first_lsn.0.saturating_sub(1));
        Ok(Some(Found::Session(header.session)))
    }

    /// A file whose header is lost: made and never synced, unless valid frames show that it is damaged.
    fn pass_headless(
        &mut self,
        number: u64,
        file: &File,
        error: &FileHeaderError,
    ) -> Result<Option<Found>, BufferError> {
        let path = self.directory.file_path(number);
        let len = file.metadata().map_err(BufferError::io("look at", &path))?.len();
        let report =
            recovery::recover(&mut FileSource { file, len }).map_err(BufferError::io("read", &path))?;
        if report.frames == 0 {
            self.passed = number;
            return Ok(None);
        }
        let at = FILE_HEADER_BYTES as u64;
        self.open = Some(Open {
            number,
            file: reopen(&self.directory, number)?,
            at,
            window: Bytes::new(),
            window_at: at,
        });
        let damage = Damage {
            file_number: number,
            at: 0,
            len: at,
            session: report.session,
            why: error.to_string(),
        };
        Ok(Some(Found::Damage(damage)))
    }

    /// Decodes the frame at the current position, loading more of the file as needed.
    /// `None` after more was loaded.
    fn decode(&mut self) -> Result<Option<Result<Decoded, FrameError>>, BufferError> {
        let Some(open) = self.open.as_mut() else {
            return Ok(None);
        };
        let offset = usize::try_from(open.at - open.window_at).unwrap_or(usize::MAX);
        let result = decode_frame(&open.window, offset.min(open.window.len()));
        let needed = match &result {
            Err(FrameError::Torn { needed, .. }) => *needed as u64,
            Err(FrameError::NotThere) => WINDOW_BYTES,
            _ => return Ok(Some(result)),
        };
        let path = self.directory.file_path(open.number);
        let length = open
            .file
            .metadata()
            .map_err(BufferError::io("look at", &path))?
            .len();
        let loaded = open.window_at + open.window.len() as u64;
        if length <= loaded {
            return Ok(Some(result));
        }
        let wanted = needed.max(WINDOW_BYTES).min(length - open.at);
        let mut window = self.windows.room(usize::try_from(wanted).unwrap_or(usize::MAX));
        let read = read_some_at(&open.file, &mut window, open.at).map_err(BufferError::io("read", &path))?;
        window.truncate(read);
        if open.at + read as u64 <= loaded {
            return Ok(Some(result));
        }
        let passed = std::mem::replace(&mut open.window, window.freeze());
        open.window_at = open.at;
        self.windows.keep(passed);
        Ok(None)
    }

    /// A whole frame was read: is it the next one?
    fn accept(&mut self, decoded: Decoded, horizon: Horizon) -> Result<Option<Found>, BufferError> {
        let Some(open) = self.open.as_mut() else {
            return Ok(None);
        };
        let (session, lsn) = (decoded.header.session, decoded.header.lsn);
        if session != self.session && session > self.session {
            // Only in a file whose header was lost; otherwise the header announced the session.
            self.session = session;
            self.last_lsn = Lsn(lsn.0.saturating_sub(1));
            return Ok(Some(Found::Session(session)));
        }
        let len = decoded.header.frame_bytes();
        let location = FrameLocation {
            file_number: open.number,
            at: open.at,
            len: u32::try_from(len).unwrap_or(u32::MAX),
        };
        if session < self.session || lsn <= self.last_lsn {
            // Written again after a failed sync: the first reading stands.
            open.at += len as u64;
            return Ok(None);
        }
        let missing = lsn.0 - self.last_lsn.0 - 1;
        let (number, at) = (open.number, open.at);
        if missing > 0 && self.go_elsewhere(number, horizon)? {
            return Ok(None);
        }
        if missing > 0 {
            let damage = Damage {
                file_number: number,
                at,
                len: 0,
                session: Some(session),
                why: format!("{missing} frames are missing before {session}/{lsn}"),
            };
            self.last_lsn = Lsn(lsn.0 - 1);
            return Ok(Some(Found::Damage(damage)));
        }
        let position = BufferPosition { session, lsn };
        if matches!(horizon, Horizon::Synced(synced) if position > synced) {
            return Ok(Some(Found::Nothing));
        }
        if self.goes_on_later(number, lsn, horizon)? {
            return Ok(None);
        }
        if let Some(open) = self.open.as_mut() {
            open.at += len as u64;
        }
        self.last_lsn = lsn;
        Ok(Some(Found::Frame(ReadFrame {
            position,
            location,
            frame: decoded.frame,
        })))
    }

    /// No frame at the current position: the end of a file, or damage to step over.
    fn pass_bad_bytes(&mut self, error: &FrameError, horizon: Horizon) -> Result<Passed, BufferError> {
        let Some(open) = self.open.as_ref() else {
            return Ok(Passed::FileEnd);
        };
        let (number, at) = (open.number, open.at);
        let path = self.directory.file_path(number);
        let length = open
            .file
            .metadata()
            .map_err(BufferError::io("look at", &path))?
            .len();
        if length <= at {
            return self.pass_end(number, horizon);
        }
        // A frame whose header is whole says how long it is and which.
        let known = match error {
            FrameError::Corrupt(Corruption::PayloadChecksum { .. } | Corruption::Payload { .. }) => {
                let offset = usize::try_from(at - open.window_at).unwrap_or(usize::MAX);
                let head = open.window.get(offset..).unwrap_or_default();
                decode_frame_header(head)
                    .ok()
                    .filter(|header| header.session == self.session)
            }
            _ => None,
        };
        // Nobody looks for frames inside a frame of known length, where the bytes are a producer's.
        let (from, expected) = match known {
            Some(header) => (at.saturating_add(header.frame_bytes() as u64), header.lsn.next()),
            None => (at, self.last_lsn.next()),
        };
        if known.is_some_and(|header| header.lsn <= self.last_lsn) {
            // Its other writing was read.
            if let Some(open) = self.open.as_mut() {
                open.at = from;
            }
            return Ok(Passed::Elsewhere);
        }
        let mut source = FileSource {
            file: &open.file,
            len: length,
        };
        let next = recovery::find_frame(&mut source, from, self.session, expected)
            .map_err(BufferError::io("read", &path))?;
        match next {
            Some(_) if self.go_elsewhere(number, horizon)? => Ok(Passed::Elsewhere),
            // Valid frames follow in this file, so this is no tear.
            Some(end) => {
                if let Some(open) = self.open.as_mut() {
                    open.at = end;
                }
                Ok(Passed::Damage(Damage {
                    file_number: number,
                    at,
                    len: end.saturating_sub(at),
                    session: Some(self.session),
                    why: error_chain(error),
                }))
            }
            // Nothing valid follows: the file ends here, once it is certain that nobody writes on.
            _ => self.pass_end(number, horizon),
        }
    }

    /// Goes where the frame stands that is missing in this file, if it stands anywhere. The writer does not trust a file
    /// whose sync failed: all that it was not sure of is written again, to the next file. Of the first writing the disk may
    /// have kept any part, so what is behind a hole there must not make us skip what the hole hides.
    fn go_elsewhere(&mut self, number: u64, horizon: Horizon) -> Result<bool, BufferError> {
        let missing = self.last_lsn.next();
        if self.is_written_again(number, missing, horizon)? {
            self.leave(number);
            return Ok(true);
        }
        self.return_to_left(horizon, true)
    }

    /// Whether a later file has a frame. While the session lives, its header says so: what is asked for is synced. After
    /// that nothing but the frame itself does, for the power may have failed before more than the header was written.
    fn is_written_again(&self, number: u64, missing: Lsn, horizon: Horizon) -> Result<bool, BufferError> {
        let later = later_files(&self.directory, self.session, number, |first| first <= missing)?;
        for (later, file, _) in later.into_iter().filter(|(_, _, first)| *first <= missing) {
            if self.is_of_living_session(horizon) {
                return Ok(true);
            }
            let path = self.directory.file_path(later);
            let found = find_from(&file, self.session, missing).map_err(BufferError::io("read", &path))?;
            if found.is_some_and(|(_, lsn)| lsn == missing) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a frame of this file stands in a later one too. Then this is the first writing, of a sync that failed: it
    /// may be in memory only, and gone when it is read again.
    fn goes_on_later(&mut self, number: u64, lsn: Lsn, horizon: Horizon) -> Result<bool, BufferError> {
        let known = self
            .again_from
            .filter(|(of, at, _)| (*of, *at) == (number, horizon));
        let again_from = match known {
            Some((_, _, again_from)) => again_from,
            // The file that has what is synced was there before that was published.
            None => self.next_begins_with(number)?,
        };
        self.again_from = Some((number, horizon, again_from));
        if again_from.is_none_or(|from| from > lsn) || !self.is_written_again(number, lsn, horizon)? {
            return Ok(false);
        }
        self.leave(number);
        Ok(true)
    }

    /// The first frame of the next file with a header, if it is of this session.
    fn next_begins_with(&self, number: u64) -> Result<Option<Lsn>, BufferError> {
        let rewritings = later_files(&self.directory, self.session, number, |_| false)?;
        Ok(rewritings.first().map(|(_, _, first)| *first))
    }

    fn leave(&mut self, number: u64) {
        if !self.left.contains(&number) {
            self.left.push(number);
        }
        self.close();
    }

    fn is_of_living_session(&self, horizon: Horizon) -> bool {
        matches!(horizon, Horizon::Synced(synced) if synced.session == self.session)
    }

    /// Where the second writing ends early, the first one may have more: opens it again, behind what is read. At a hole
    /// (`exactly`) only for the frame that is missing.
    fn return_to_left(&mut self, horizon: Horizon, exactly: bool) -> Result<bool, BufferError> {
        let Some(number) = self.open.as_ref().map(|open| open.number) else {
            return Ok(false);
        };
        let wanted = self.last_lsn.next();
        if self.left.is_empty()
            || self.is_of_living_session(horizon)
            || self.is_written_again(number, wanted, horizon)?
        {
            return Ok(false);
        }
        for left in self.left.iter().copied().filter(|left| *left < number) {
            let path = self.directory.file_path(left);
            let Some(file) = open_file(&self.directory, left)? else {
                continue;
            };
            let found = find_from(&file, self.session, wanted).map_err(BufferError::io("read", &path))?;
            let Some((at, lsn)) = found.filter(|(_, lsn)| !exactly || *lsn == wanted) else {
                continue;
            };
            // Once for each frame, so that one that does not decode does not hold us here.
            if lsn <= self.returned_for {
                continue;
            }
            self.returned_for = lsn;
            self.passed = left.saturating_sub(1);
            self.open = Some(Open {
                number: left,
                file,
                at,
                window: Bytes::new(),
                window_at: at,
            });
            return Ok(true);
        }
        Ok(false)
    }

    /// A file is over when a later one exists or no writer lives.
    fn pass_end(&self, number: u64, horizon: Horizon) -> Result<Passed, BufferError> {
        let is_last = self.directory.numbers_after(number)?.is_empty();
        Ok(if !is_last || horizon == Horizon::End {
            Passed::FileEnd
        } else {
            Passed::Wait
        })
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.passed = open.number;
            self.windows.keep(open.window);
        }
    }
}

enum Passed {
    Damage(Damage),
    FileEnd,
    /// Another place is looked at: in this file, in another one, or in the next that is opened.
    Elsewhere,
    Wait,
}
