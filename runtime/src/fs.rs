//! Durable file operations: the only home of create, write, sync, rename and sync directory.
//!
//! A file's bytes are durable after a sync of the file; its name is durable after a sync of the directory
//! that holds it. Every function here says which of the two it has done when it returns.
//!
//! Everything goes through [`std::fs`], and so through the C library: a test can load a library in between
//! that records or drops what was not synced.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A file operation that failed: what was tried, on what, and the system's answer.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct FsError {
    /// What was tried, as `create file`.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// The kind of the system's answer.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// Puts action and path around an answer of the system.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FsError {
    let path = path.to_owned();
    move |source| FsError { action, path, source }
}

/// Replaces a file as a whole: after a crash there is the old content or the new, never a mixture. Durable
/// when it returns.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let staging = staging_path(path);
    // The bytes must be durable before the rename: else a crash could leave the new name on an empty file.
    let mut file = File::create(&staging).map_err(failed("create file", &staging))?;
    let written = file.write_all(bytes).map_err(failed("write file", &staging));
    let synced = written.and_then(|()| file.sync_all().map_err(failed("sync file", &staging)));
    drop(file);
    let renamed =
        synced.and_then(|()| std::fs::rename(&staging, path).map_err(failed("rename file to", path)));
    if let Err(error) = renamed {
        // The staging file is in nobody's way: the next attempt overwrites it.
        let _ = std::fs::remove_file(&staging);
        return Err(error);
    }
    sync_dir(parent_of(path))
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<(), FsError> {
    let dir = File::open(path).map_err(failed("open directory", path))?;
    dir.sync_all().map_err(failed("sync directory", path))
}

/// Creates a directory and those above it, as far as they are missing; durable when it returns. Each is synced
/// before the next is created, so of what an earlier attempt that died has left only the deepest may not be
/// durable: that one is synced too.
pub fn create_dir_durable(path: &Path) -> Result<(), FsError> {
    let mut missing = Vec::new();
    for dir in path.ancestors().take_while(|dir| !dir.as_os_str().is_empty()) {
        if dir.is_dir() {
            match if dir.parent().is_some() {
                sync_dir(parent_of(dir))
            } else {
                Ok(())
            } {
                // Where we may not even look we have not created anything.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                result => result?,
            }
            break;
        }
        missing.push(dir);
    }
    for dir in missing.iter().rev() {
        match std::fs::create_dir(dir) {
            // Somebody else was quicker; its name may not be durable yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            result => result.map_err(failed("create directory", dir))?,
        }
        sync_dir(parent_of(dir))?;
    }
    Ok(())
}

/// Removes a file's name. Whether the name is gone after a crash needs a [`sync_dir`]: removals come in
/// numbers, and one sync serves for all.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    std::fs::remove_file(path).map_err(failed("remove file", path))
}

/// Reads a whole small file. For files whose size nobody limits, read in pieces instead.
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    std::fs::read(path).map_err(failed("read file", path))
}

/// The directory that holds a path; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn staging_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// A file that is appended to, whose errors name it. Written ≥ synced: what [`sync_data`](Self::sync_data)
/// returned for is durable; what was written since may be lost.
#[derive(Debug)]
pub struct DurableFile {
    file: File,
    path: PathBuf,
}

impl DurableFile {
    /// Creates a file that must not exist, for reading and writing. Its name is durable when this returns.
    pub fn create_new(path: &Path) -> Result<Self, FsError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = file.map_err(failed("create file", path))?;
        sync_dir(parent_of(path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Opens a file that exists, for reading and writing from its beginning.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(failed("open file", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size by the file system.
    pub fn size(&self) -> Result<u64, FsError> {
        Ok(self
            .file
            .metadata()
            .map_err(failed("examine file", &self.path))?
            .len())
    }

    /// Writes all bytes at the current position.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.file
            .write_all(bytes)
            .map_err(failed("write file", &self.path))
    }

    /// Writes all slices in order with as few calls as possible, without copying them together.
    pub fn write_all_vectored(&mut self, slices: &mut [IoSlice<'_>]) -> Result<(), FsError> {
        let mut rest = slices;
        IoSlice::advance_slices(&mut rest, 0); // drops leading empty slices, which would look like an end of file
        while !rest.is_empty() {
            // The C library refuses more than IOV_MAX (1024 on Linux) slices; std cuts there.
            let written = match self.file.write_vectored(rest) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result,
            };
            let written = written.map_err(failed("write file", &self.path))?;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Reads exactly `buffer.len()` bytes at an offset; the position for writing does not move.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), FsError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(failed("read file", &self.path))
    }

    /// Makes what was written durable, with the size of the file. After an error the file must not be synced
    /// again: the kernel may have dropped the pages that failed, and a second sync would succeed without them.
    pub fn sync_data(&self) -> Result<(), FsError> {
        self.file.sync_data().map_err(failed("sync file", &self.path))
    }

    /// Cuts the file, durably, and continues to write at its new end.
    pub fn truncate(&mut self, len: u64) -> Result<(), FsError> {
        self.file
            .set_len(len)
            .map_err(failed("truncate file", &self.path))?;
        self.file.sync_all().map_err(failed("sync file", &self.path))?;
        self.seek_to(len)
    }

    /// Continues to write at a position.
    pub fn seek_to(&mut self, offset: u64) -> Result<(), FsError> {
        use std::io::Seek;
        self.file
            .seek(io::SeekFrom::Start(offset))
            .map(drop)
            .map_err(failed("seek in file", &self.path))
    }

    /// The file itself, for what is not offered here.
    pub fn as_file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_atomic(&path, b"old and longer").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_what_was_tried_and_the_path() {
        let error = write_atomic(Path::new("/nonexistent/state"), b"x").unwrap_err();
        assert_eq!(error.to_string(), "create file /nonexistent/state.new");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(crate::exit::error_chain(&error).contains("No such file"));
    }

    #[test]
    fn directories_are_created_down_to_the_deepest_and_again_without_harm() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_durable(&deep).unwrap();
        create_dir_durable(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let error = create_dir_durable(&dir.path().join("file/below")).unwrap_err();
        assert_eq!(error.action, "create directory");
    }

    #[test]
    fn a_durable_file_is_appended_to_cut_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = DurableFile::create_new(&path).unwrap();
        assert_eq!(
            DurableFile::create_new(&path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        file.write_all(b"0123456789").unwrap();
        file.sync_data().unwrap();
        file.truncate(4).unwrap();
        file.write_all(b"ab").unwrap();
        let mut tail = [0; 3];
        file.read_exact_at(&mut tail, 3).unwrap();
        assert_eq!((&tail, file.size().unwrap()), (b"3ab", 6));
        let missing = file.read_exact_at(&mut tail, 4).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(DurableFile::open(&path).unwrap().size().unwrap(), 6);
    }

    proptest! {
        #[test]
        fn slices_of_any_number_and_size_are_written_in_order(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..2100),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut file = DurableFile::create_new(&dir.path().join("log")).unwrap();
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            file.write_all_vectored(&mut slices).unwrap();
            prop_assert_eq!(read(file.path()).unwrap(), pieces.concat());
        }
    }
}
