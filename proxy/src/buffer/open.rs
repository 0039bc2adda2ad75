//! Taking over a buffer directory: lock, identity, new session, first file, thread.

use std::sync::Arc;

use teeline_archive::buffer::{FILE_HEADER_BYTES, FileHeader};
use teeline_archive::ids::{Lsn, SessionId};
use teeline_segmenter::buffer::{BufferFile, Directory};

use super::queue::Shared;
use super::thread::{ClosedFile, Thread};
use super::{BufferError, OpenReport, Writer, WriterSettings};

pub(super) type NowMs = Box<dyn Fn() -> i64 + Send>;

/// Files of earlier sessions stay as they are: a torn tail is the readers' business (they report it), and what must
/// still be archived is theirs to say. Only their headers are read here, so that opening costs no time.
pub(super) fn open(settings: WriterSettings, now_ms: NowMs) -> Result<(Writer, OpenReport), BufferError> {
    let directory = Directory::new(&settings.dir);
    let lock = directory.lock()?;
    let identity = directory.identity_or_create()?;
    let files = directory.files()?;
    let mut earlier = Vec::with_capacity(files.len());
    for file in &files {
        earlier.push(closed_file(&directory, file)?);
    }
    let seen = earlier
        .iter()
        .map(|file| file.session)
        .max()
        .unwrap_or(SessionId(0));
    let session = directory.next_session(seen)?;
    // Sessions are numbered without holes, so the newest earlier one is the one before.
    give_sessions(&mut earlier, SessionId(session.0.saturating_sub(1)));
    let report = OpenReport {
        session,
        files: files.len(),
        bytes: files.iter().map(|file| file.bytes).sum(),
    };
    let next_number = files.last().map_or(1, |file| file.number.saturating_add(1));
    let positions = directory.open_positions()?;
    directory.reserve_archived()?;
    let shared = Arc::new(Shared::new(identity, settings, session));
    let thread = Thread::start(
        shared.clone(),
        directory,
        lock,
        positions,
        session,
        next_number,
        earlier,
        now_ms,
    )?;
    let path = shared.settings.dir.clone();
    std::thread::Builder::new()
        .name("wal-writer".into())
        .spawn(move || thread.run())
        .map_err(|source| BufferError::Io {
            action: "start the writer thread for",
            path,
            source,
        })?;
    Ok((Writer { shared }, report))
}

/// A file whose header does not read may still hold frames that readers find: it goes no sooner than the file after it
/// would let it, as one of that file's session.
fn give_sessions(files: &mut [ClosedFile], newest: SessionId) {
    let mut later = newest;
    for file in files.iter_mut().rev() {
        if file.session == SessionId(0) {
            file.session = later;
        }
        later = file.session;
    }
}

/// What is needed to know when a file may be deleted; session 0 where the header does not read.
fn closed_file(directory: &Directory, file: &BufferFile) -> Result<ClosedFile, BufferError> {
    use std::os::unix::fs::FileExt;
    let path = directory.file_path(file.number);
    let mut bytes = [0u8; FILE_HEADER_BYTES];
    let read = std::fs::File::open(&path)
        .and_then(|opened| opened.read_at(&mut bytes, 0))
        .map_err(|source| BufferError::Io {
            action: "read",
            path,
            source,
        })?;
    let header = bytes.get(..read).and_then(|bytes| FileHeader::decode(bytes).ok());
    Ok(ClosedFile {
        number: file.number,
        bytes: file.bytes,
        session: header.as_ref().map_or(SessionId(0), |header| header.session),
        first_lsn: header.as_ref().map_or(Lsn::NONE, |header| header.first_lsn),
    })
}
