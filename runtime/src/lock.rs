//! One writer per file: a lock that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::fs::{FsError, failed};

/// A lock on a file, held until dropped, and released by the system when the process dies in any way. The
/// file stays behind; only the lock counts, so a stale file is no obstacle.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process (or another part of this one) has it.
    #[error("{} is held by {holder}; stop that process first, or give this one another directory", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// `process 4711`, or that nobody knows.
        holder: String,
    },
    /// The lock file could not be used.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// More than a process id and a line break ever take.
const HOLDER_BYTES_MAX: u64 = 64;

impl LockFile {
    /// Takes the lock, or says who holds it. Does not wait.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = file.map_err(failed("open lock file", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held {
                    path: path.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock file", path)(source).into()),
        }
        // Only for people: nothing depends on it, so it is not synced.
        let pid = format!("{}\n", std::process::id());
        file.set_len(0).map_err(failed("truncate lock file", path))?;
        file.rewind()
            .and_then(|()| file.write_all(pid.as_bytes()))
            .map_err(failed("write lock file", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Whether somebody holds the lock now. An answer about the past as soon as it is given; to be sure, acquire it.
    pub fn is_held(path: &Path) -> Result<bool, FsError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(failed("open lock file", path))?,
        };
        // Shared, so that two who merely look do not see each other.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(failed("lock file", path)(source)),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing releases it too, but not while a forked child holds a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) if pid == std::process::id() => format!("this process ({pid})"),
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "a process that has not said its id".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!LockFile::is_held(&path).unwrap());
        let held = LockFile::acquire(&path).unwrap();
        assert!(LockFile::is_held(&path).unwrap());
        let message = LockFile::acquire(&path).unwrap_err().to_string();
        let expected = format!(
            "lock is held by this process ({}); stop that process first",
            std::process::id()
        );
        assert!(message.contains(&expected), "{message}");
        drop(held);
        LockFile::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4294967294 and more that was written once").unwrap();
        let held = LockFile::acquire(&path).unwrap();
        assert_eq!(
            std::fs::read_to_string(held.path()).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    #[test]
    fn a_lock_in_a_missing_directory_is_an_error_with_the_path() {
        let error = LockFile::acquire(Path::new("/nonexistent/lock")).unwrap_err();
        assert!(
            error.to_string().starts_with("open lock file /nonexistent/lock"),
            "{error}"
        );
    }
}
