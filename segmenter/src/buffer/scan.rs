//! Reading the buffer's files in order, synchronously: from bytes to frames, damage and ends.
//!
//! The scanner knows nothing of time. It is told how far it may read ([`Horizon`]) and says what it found, or that
//! there is nothing more within the horizon.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use teeline_archive::buffer::recovery::{self, Source};
use teeline_archive::buffer::{
    Corruption, Decoded, FILE_HEADER_BYTES, FileHeader, FileHeaderError, FrameError, decode_frame,
};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_runtime::exit::error_chain;

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
    /// Files up to this number are read.
    passed: u64,
    session: SessionId,
    last_lsn: Lsn,
}

impl Scanner {
    pub(super) fn new(directory: Directory) -> Self {
        Scanner {
            directory,
            open: None,
            passed: 0,
            session: SessionId(0),
            last_lsn: Lsn::NONE,
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
                    Passed::FileEnd => self.close(),
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
        let files = self.directory.files()?;
        let Some(next) = files.iter().find(|file| file.number > self.passed) else {
            return Ok(None);
        };
        let is_last = files.last().is_some_and(|last| last.number == next.number);
        let path = self.directory.file_path(next.number);
        let file = match File::open(&path) {
            Ok(file) => file,
            // Released between the listing and now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.passed = next.number;
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
            Err(error) => return self.pass_headless(next.number, &file, &error),
        };
        self.open = Some(Open {
            number: next.number,
            file,
            at: FILE_HEADER_BYTES as u64,
            window: Bytes::new(),
            window_at: FILE_HEADER_BYTES as u64,
        });
        if header.session == self.session {
            return Ok(None);
        }
        self.session = header.session;
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
        let mut window = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        let read = read_some_at(&open.file, &mut window, open.at).map_err(BufferError::io("read", &path))?;
        window.truncate(read);
        if open.at + read as u64 <= loaded {
            return Ok(Some(result));
        }
        (open.window, open.window_at) = (window.into(), open.at);
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
        if missing > 0 && self.is_written_again(number)? {
            self.close();
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
        // A frame whose header is whole says how long it is.
        let known = match error {
            FrameError::Corrupt(
                Corruption::PayloadChecksum { frame_bytes } | Corruption::Payload { frame_bytes, .. },
            ) => Some(*frame_bytes as u64),
            _ => None,
        };
        // Nobody looks for frames inside a frame of known length, where the bytes are a producer's.
        let (from, expected) = match known {
            Some(len) => (at.saturating_add(len), self.last_lsn.next().next()),
            None => (at, self.last_lsn.next()),
        };
        let mut source = FileSource {
            file: &open.file,
            len: length,
        };
        let next = recovery::find_frame(&mut source, from, self.session, expected)
            .map_err(BufferError::io("read", &path))?;
        match next {
            Some(_) if self.is_written_again(number)? => Ok(Passed::FileEnd),
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

    /// Whether what is missing in this file stands in a later one. The writer does not trust a file whose sync failed: all
    /// that it was not sure of is written again, to the next file. Of the first writing the disk may have kept any part,
    /// so what is behind a hole there must not make us skip what the hole hides.
    fn is_written_again(&self, number: u64) -> Result<bool, BufferError> {
        let missing = self.last_lsn.next();
        for later in self.directory.files()?.iter().filter(|file| file.number > number) {
            let path = self.directory.file_path(later.number);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(BufferError::io("open", &path)(e)),
            };
            match read_header(&file).map_err(BufferError::io("read", &path))? {
                Ok(header) if header.session > self.session => return Ok(false),
                Ok(header) if header.session == self.session && header.first_lsn <= missing => {
                    return Ok(true);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// A file is over when a later one exists or no writer lives.
    fn pass_end(&self, number: u64, horizon: Horizon) -> Result<Passed, BufferError> {
        let later = self.directory.files()?.iter().any(|file| file.number > number);
        Ok(if later || horizon == Horizon::End {
            Passed::FileEnd
        } else {
            Passed::Wait
        })
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.passed = open.number;
        }
    }
}

enum Passed {
    Damage(Damage),
    FileEnd,
    Wait,
}

struct FileSource<'a> {
    file: &'a File,
    len: u64,
}

impl Source for FileSource<'_> {
    type Error = io::Error;

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, at: u64, window: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(window, at)
    }
}

fn reopen(directory: &Directory, number: u64) -> Result<File, BufferError> {
    let path = directory.file_path(number);
    File::open(&path).map_err(BufferError::io("open", &path))
}

fn read_header(file: &File) -> io::Result<Result<FileHeader, FileHeaderError>> {
    let mut head = vec![0; FILE_HEADER_BYTES];
    let read = read_some_at(file, &mut head, 0)?;
    head.truncate(read);
    Ok(FileHeader::decode(&head))
}

/// Fills as much of `bytes` as the file has.
fn read_some_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}
