//! The directory of one test: removed when it passes, kept and named when it fails.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::reaper;

/// A directory of its own, below the system's temporary directory.
#[derive(Debug)]
pub struct WorkDir {
    directory: Option<TempDir>,
}

impl WorkDir {
    /// Creates an empty directory whose name says what it is for.
    pub fn create(name: &str) -> Self {
        Self::create_in(&std::env::temp_dir(), name)
    }

    /// Creates one below `parent`, or below the system's temporary directory when that is not there.
    pub fn create_in(parent: &Path, name: &str) -> Self {
        let mut builder = tempfile::Builder::new();
        let prefix = format!("teeline-{name}-");
        let builder = builder.prefix(&prefix);
        let directory = match parent.is_dir() {
            true => builder.tempdir_in(parent),
            false => builder.tempdir(),
        };
        let directory = directory.expect("create a work directory");
        reaper::remove_directory_at_exit(directory.path());
        Self {
            directory: Some(directory),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().expect("set until drop").path()
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A new empty directory inside.
    pub fn subdirectory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("create a directory in the work directory");
        path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let Some(directory) = self.directory.take() else {
            return;
        };
        reaper::keep_directory(directory.path());
        if std::thread::panicking() {
            // Its path has been said by the reaper.
            let _ = directory.keep();
        }
    }
}
