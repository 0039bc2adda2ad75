//! Recovery of a buffer file: a pure function from bytes to a report.
//!
//! A tear is where nothing valid follows: the file is cut there. A bad frame with valid frames of the same
//! session after it is damage: it is reported with its position, stepped over, and reading goes on.

use crate::buffer::file_header::{FILE_HEADER_BYTES, FileHeader, FileHeaderError};
use crate::buffer::frame::{
    Corruption, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameError, FrameHeader, decode_frame_header,
};
use crate::buffer::payload::KIND_SESSION_CLOSED;
use crate::ids::{Lsn, SessionId};

/// What recovery found in one file.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryReport {
    /// The file's header, or what is wrong with it.
    pub header: Result<FileHeader, FileHeaderError>,
    /// Session of the frames: the header's, or that of the first valid frame where the header is lost.
    pub session: Option<SessionId>,
    /// Valid frames.
    pub frames: u64,
    /// LSN of the last valid frame.
    pub last_lsn: Option<Lsn>,
    /// Whether the last valid frame says that the session was closed properly.
    pub closed: bool,
    /// Bytes up to the end of the last valid frame (or header): what is to be kept.
    pub valid_bytes: u64,
    /// Where the file is cut, if bytes other than zeros follow the last valid frame.
    pub cut: Option<Cut>,
    /// What was stepped over.
    pub damage: Vec<Damage>,
}

/// Where a file is cut, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Position in the file.
    pub at: u64,
    /// Bytes cut off.
    pub len: u64,
    /// Why.
    pub why: DamageKind,
}

/// A stretch that was stepped over, with valid frames after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Position in the file.
    pub at: u64,
    /// Length in bytes; 0 when frames are missing without a trace.
    pub len: u64,
    /// How many LSNs are missing because of it.
    pub missing: u64,
    /// What is wrong at `at`.
    pub why: DamageKind,
}

/// What is wrong at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageKind {
    /// The file's header is unreadable.
    #[error("the file header is unreadable")]
    FileHeader,
    /// No frame begins here.
    #[error("no frame begins here")]
    NoFrame,
    /// Zeros where frames follow.
    #[error("nothing was written here")]
    Zeros,
    /// The header of a frame was changed.
    #[error("the frame header does not match its checksum")]
    FrameHeader,
    /// The payload was changed or never arrived.
    #[error("the payload does not match its checksum")]
    Payload,
    /// The file ends inside the frame.
    #[error("the file ends inside the frame")]
    Torn,
    /// The frame is of another session, or its LSN does not follow.
    #[error("the frame does not belong here")]
    Misplaced,
    /// LSNs are missing between two whole frames.
    #[error("frames are missing")]
    Missing,
    /// The search for the next frame was given up: the rest of the file is full of bytes made to look like
    /// frames. It is kept and reported, never cut.
    #[error("the search for the next frame was given up")]
    SearchLimit,
}

/// Where recovery reads a file from: a window at a time, so that memory does not grow with the file.
pub trait Source {
    /// What reading can fail with.
    type Error;
    /// Length of the file.
    fn len(&self) -> u64;
    /// Whether it is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `window` from position `at`; called only inside the file's length.
    fn read_at(&mut self, at: u64, window: &mut [u8]) -> Result<(), Self::Error>;
}

impl Source for &[u8] {
    type Error = std::convert::Infallible;

    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&mut self, at: u64, window: &mut [u8]) -> Result<(), Self::Error> {
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(part) = self.get(from..).and_then(|rest| rest.get(..window.len())) {
            window.copy_from_slice(part);
        }
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    type Error = S::Error;

    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&mut self, at: u64, window: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read_at(at, window)
    }
}

/// Recovers a file that is in memory.
pub fn recover_bytes(mut file: &[u8]) -> RecoveryReport {
    match recover(&mut file) {
        Ok(report) => report,
        Err(never) => match never {},
    }
}

/// Recovers a file through a source, in bounded memory.
pub fn recover<S: Source + ?Sized>(source: &mut S) -> Result<RecoveryReport, S::Error> {
    let mut head = [0; FILE_HEADER_BYTES];
    let present = usize::try_from(source.len())
        .unwrap_or(usize::MAX)
        .min(FILE_HEADER_BYTES);
    let head = head.get_mut(..present).unwrap_or_default();
    source.read_at(0, head)?;
    let header = FileHeader::decode(head);
    // What a newer version laid out differently is not damage; it is left alone.
    let newer = matches!(header, Err(FileHeaderError::Version { .. }));
    let mut walk = Walk::new(source, header);
    if !newer {
        walk.run()?;
    }
    Ok(walk.report)
}

/// Finds the next frame of a session at or after `from`, for a reader that met a frame it could not read and
/// whose length it could not trust. `expected` is the lowest LSN that can follow.
pub fn find_frame<S: Source + ?Sized>(
    source: &mut S,
    from: u64,
    session: SessionId,
    expected: Lsn,
) -> Result<Option<u64>, S::Error> {
    let mut scan = Scan::new(source, Some(session), expected);
    Ok(match scan.find(from, from)? {
        Found::Frame(at) => Some(at),
        Found::Nothing | Found::GaveUp => None,
    })
}

/// Reading goes from frame to frame. What cannot be read is remembered until the next valid frame tells that it
/// was damage, or the end tells that it was a tear.
struct Walk<S> {
    scan: Scan<S>,
    report: RecoveryReport,
    bad: Option<(u64, DamageKind)>,
}

impl<S: Source> Walk<S> {
    fn new(source: S, header: Result<FileHeader, FileHeaderError>) -> Walk<S> {
        let good = header.as_ref().ok();
        let session = good.map(|header| header.session);
        let expected = good.map_or(Lsn::NONE, |header| header.first_lsn);
        let bad = if good.is_some() {
            None
        } else {
            Some((0, DamageKind::FileHeader))
        };
        let valid_bytes = if good.is_some() {
            FILE_HEADER_BYTES as u64
        } else {
            0
        };
        let report = RecoveryReport {
            header,
            session,
            frames: 0,
            last_lsn: None,
            closed: false,
            valid_bytes,
            cut: None,
            damage: Vec::new(),
        };
        Walk {
            scan: Scan::new(source, session, expected),
            report,
            bad,
        }
    }

    fn run(&mut self) -> Result<(), S::Error> {
        let mut at = FILE_HEADER_BYTES as u64;
        while at < self.scan.len {
            match self.scan.classify(at)? {
                Step::Frame { header, next } => {
                    self.keep(at, next, &header);
                    at = next;
                }
                // The header is whole, so its length holds: the next frame begins behind it. Nobody looks for
                // frames inside, where the bytes are a producer's.
                Step::Bad {
                    why,
                    next: Some(next),
                } => {
                    self.bad.get_or_insert((at, why));
                    at = next;
                }
                Step::Bad { why, next: None } => {
                    let (start, _) = *self.bad.get_or_insert((at, why));
                    match self.scan.find(at.saturating_add(1), start)? {
                        Found::Frame(next) => at = next,
                        Found::Nothing => break,
                        Found::GaveUp => {
                            self.give_up(start);
                            return Ok(());
                        }
                    }
                }
            }
        }
        self.end()
    }

    fn keep(&mut self, at: u64, next: u64, header: &FrameHeader) {
        let expected = self.scan.expected;
        // Without a file header nobody knows which LSN was first, so nothing can be said to be missing.
        let missing = if expected == Lsn::NONE {
            0
        } else {
            header.lsn.0.saturating_sub(expected.0)
        };
        match self.bad.take() {
            Some((start, why)) => {
                let len = at.saturating_sub(start);
                self.report.damage.push(Damage {
                    at: start,
                    len,
                    missing,
                    why,
                });
            }
            None if missing > 0 => {
                self.report.damage.push(Damage {
                    at,
                    len: 0,
                    missing,
                    why: DamageKind::Missing,
                });
            }
            None => {}
        }
        self.report.session = Some(header.session);
        self.report.frames = self.report.frames.saturating_add(1);
        self.report.last_lsn = Some(header.lsn);
        self.report.closed = header.kind == KIND_SESSION_CLOSED;
        self.report.valid_bytes = next;
        self.scan.session = Some(header.session);
        self.scan.expected = header.lsn.next();
    }

    fn give_up(&mut self, start: u64) {
        let len = self.scan.len.saturating_sub(start);
        self.report.damage.push(Damage {
            at: start,
            len,
            missing: 0,
            why: DamageKind::SearchLimit,
        });
    }

    /// Nothing valid follows: what is left is a tear, unless it is zeros, which are space not yet written.
    fn end(&mut self) -> Result<(), S::Error> {
        if let Some((start, why)) = self.bad
            && !self.scan.zeros_from(start)?
        {
            self.report.cut = Some(Cut {
                at: start,
                len: self.scan.len.saturating_sub(start),
                why,
            });
        }
        Ok(())
    }
}

enum Step {
    Frame {
        header: FrameHeader,
        next: u64,
    },
    /// `next` is known only where the frame's length can be trusted.
    Bad {
        why: DamageKind,
        next: Option<u64>,
    },
}

enum Found {
    Frame(u64),
    Nothing,
    GaveUp,
}

/// Looks at single positions, and for the next frame.
struct Scan<S> {
    source: S,
    len: u64,
    session: Option<SessionId>,
    /// The lowest LSN that can come next; [`Lsn::NONE`] while unknown.
    expected: Lsn,
    /// Payload bytes that searching may still check: bytes made to look like frame headers could otherwise have
    /// the same payload checked over and over.
    search_budget: u64,
    window: Vec<u8>,
}

impl<S: Source> Scan<S> {
    fn new(source: S, session: Option<SessionId>, expected: Lsn) -> Scan<S> {
        let len = source.len();
        let search_budget = len.saturating_mul(SEARCH_BUDGET_FACTOR);
        Scan {
            source,
            len,
            session,
            expected,
            search_budget,
            window: Vec::new(),
        }
    }

    fn classify(&mut self, at: u64) -> Result<Step, S::Error> {
        let bad = |why, next| Ok(Step::Bad { why, next });
        let head = self.read(at, FRAME_HEADER_BYTES)?;
        let header = match decode_frame_header(head) {
            Ok(header) => header,
            Err(FrameError::NotThere) => return bad(DamageKind::Zeros, None),
            Err(FrameError::Torn { .. }) => return bad(DamageKind::Torn, None),
            Err(FrameError::Corrupt(Corruption::Magic)) => return bad(DamageKind::NoFrame, None),
            Err(FrameError::Corrupt(_)) => return bad(DamageKind::FrameHeader, None),
        };
        let next = at.saturating_add(header.frame_bytes() as u64);
        if next > self.len {
            return bad(DamageKind::Torn, Some(self.len));
        }
        let strange = self.session.is_some_and(|session| session != header.session);
        if strange || header.lsn < self.expected.max(Lsn::FIRST) {
            return bad(DamageKind::Misplaced, Some(next));
        }
        if self.payload_crc(at.saturating_add(FRAME_HEADER_BYTES as u64), next)? != header.crc {
            return bad(DamageKind::Payload, Some(next));
        }
        Ok(Step::Frame { header, next })
    }

    /// Searches from `from`; `start` is where the unreadable stretch began.
    fn find(&mut self, from: u64, start: u64) -> Result<Found, S::Error> {
        let mut at = from;
        while at < self.len {
            let candidates = self.candidates(at, start)?;
            for (candidate, payload_bytes) in candidates {
                if let Step::Frame { .. } = self.classify(candidate)? {
                    return Ok(Found::Frame(candidate));
                }
                self.search_budget = self.search_budget.saturating_sub(payload_bytes);
                if self.search_budget == 0 {
                    return Ok(Found::GaveUp);
                }
            }
            at = at.saturating_add(WINDOW_BYTES as u64);
        }
        Ok(Found::Nothing)
    }

    /// Places in one window where a whole frame header stands that could come next, and the payload it claims. Only
    /// for these is a payload read.
    fn candidates(&mut self, at: u64, start: u64) -> Result<Vec<(u64, u64)>, S::Error> {
        let expected = self.expected;
        // A header may straddle two windows, so each window is read a little further.
        let window = self.read(at, WINDOW_BYTES + FRAME_HEADER_BYTES - 1)?;
        let mut candidates = Vec::new();
        for (place, bytes) in window.windows(FRAME_HEADER_BYTES).enumerate() {
            if !bytes.starts_with(&FRAME_MAGIC) {
                continue;
            }
            let Ok(header) = decode_frame_header(bytes) else {
                continue;
            };
            let candidate = at.saturating_add(place as u64);
            // Frames are dense, so the stretch bounds how many of them can have been lost in it.
            let lost_max = candidate.saturating_sub(start) / FRAME_HEADER_BYTES as u64;
            if expected == Lsn::NONE || header.lsn.0 <= expected.0.saturating_add(lost_max) {
                candidates.push((candidate, u64::from(header.len)));
            }
        }
        Ok(candidates)
    }

    fn payload_crc(&mut self, from: u64, to: u64) -> Result<u32, S::Error> {
        let (mut at, mut crc) = (from, 0);
        while at < to {
            let part = usize::try_from(to - at).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            let window = self.read(at, part)?;
            crc = crc32c::crc32c_append(crc, window);
            at = at.saturating_add(part as u64);
        }
        Ok(crc)
    }

    fn zeros_from(&mut self, from: u64) -> Result<bool, S::Error> {
        let mut at = from;
        while at < self.len {
            let window = self.read(at, WINDOW_BYTES)?;
            if window.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at = at.saturating_add(WINDOW_BYTES as u64);
        }
        Ok(true)
    }

    /// At most `wanted` bytes from a position, fewer at the file's end.
    fn read(&mut self, at: u64, wanted: usize) -> Result<&[u8], S::Error> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        self.window.resize(wanted.min(left), 0);
        self.source.read_at(at, &mut self.window)?;
        Ok(&self.window)
    }
}

const WINDOW_BYTES: usize = 256 * 1024;
const SEARCH_BUDGET_FACTOR: u64 = 8;
