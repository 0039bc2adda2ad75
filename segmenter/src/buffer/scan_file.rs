//! Reading single buffer files: their headers, and frames by their number.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use teeline_archive::buffer::recovery::{self, Source};
use teeline_archive::buffer::{
    FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FileHeader, FileHeaderError, decode_frame_header,
};
use teeline_archive::ids::{Lsn, SessionId};

use super::{BufferError, Directory};

/// The first valid frame of a session from `wanted` on, and its number. Frames before it are passed by their length: nobody
/// looks inside them, where the bytes are a producer's.
pub(super) fn find_from(file: &File, session: SessionId, wanted: Lsn) -> io::Result<Option<(u64, Lsn)>> {
    let len = file.metadata()?.len();
    let mut at = FILE_HEADER_BYTES as u64;
    loop {
        let mut head = vec![0; FRAME_HEADER_BYTES];
        let read = read_some_at(file, &mut head, at)?;
        head.truncate(read);
        let expected = match decode_frame_header(&head) {
            Ok(header) if header.session != session || header.lsn < wanted => {
                at = at.saturating_add(header.frame_bytes() as u64);
                continue;
            }
            Ok(header) => header.lsn,
            Err(_) => wanted,
        };
        if at >= len {
            return Ok(None);
        }
        let Some(found) = recovery::find_frame(&mut FileSource { file, len }, at, session, expected)? else {
            return Ok(None);
        };
        let mut head = vec![0; FRAME_HEADER_BYTES];
        let read = read_some_at(file, &mut head, found)?;
        head.truncate(read);
        return Ok(decode_frame_header(&head).ok().map(|header| (found, header.lsn)));
    }
}

pub(super) struct FileSource<'a> {
    pub(super) file: &'a File,
    pub(super) len: u64,
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

pub(super) fn reopen(directory: &Directory, number: u64) -> Result<File, BufferError> {
    let path = directory.file_path(number);
    File::open(&path).map_err(BufferError::io("open", &path))
}

pub(super) fn read_header(file: &File) -> io::Result<Result<FileHeader, FileHeaderError>> {
    let mut head = vec![0; FILE_HEADER_BYTES];
    let read = read_some_at(file, &mut head, 0)?;
    head.truncate(read);
    Ok(FileHeader::decode(&head))
}

/// Fills as much of `bytes` as the file has.
pub(super) fn read_some_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
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

/// Later files of a session, and the first frame of each. In a session this never goes back, so that the first file that is
/// not `wanted` ends the list; it is in it only as the first.
pub(super) fn later_files(
    directory: &Directory,
    session: SessionId,
    number: u64,
    wanted: impl Fn(Lsn) -> bool,
) -> Result<Vec<(u64, File, Lsn)>, BufferError> {
    let mut found = Vec::new();
    for later in directory.numbers_after(number)? {
        let Some(file) = open_file(directory, later)? else {
            continue;
        };
        let path = directory.file_path(later);
        let Ok(header) = read_header(&file).map_err(BufferError::io("read", &path))? else {
            continue;
        };
        if header.session != session || !found.is_empty() && !wanted(header.first_lsn) {
            break;
        }
        found.push((later, file, header.first_lsn));
    }
    Ok(found)
}

/// `None` when the file was released meanwhile.
pub(super) fn open_file(directory: &Directory, number: u64) -> Result<Option<File>, BufferError> {
    let path = directory.file_path(number);
    match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(BufferError::io("open", &path)(e)),
    }
}
