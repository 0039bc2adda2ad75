//! The write-ahead buffer as its readers see it: a directory of append-only files with one writer.
//!
//! The writer lives in the proxy; this module holds what both sides share (the directory and its marks) and the
//! reading side. Positions are `(session, LSN)` and keep one order:
//!
//! > written >= synced >= archived >= released
//!
//! * The *writer* publishes **synced** in the mark file `positions`; a reader never looks past it while the writer
//!   lives, so nothing is archived that a crash could still take back.
//! * The *reader* publishes **archived** in the mark file `archived`, after the ledger commit that makes it true.
//! * Only the writer **releases**, that is deletes files, and only whole files that are archived. When no writer
//!   runs, [`adopt`] takes its lock and with it that duty.
//!
//! Both marks are advice between processes: they are not synced. A lost or torn mark makes a reader read again what
//! it has archived already, which the ledger's watermarks make harmless.
//!
//! What this module does not do: it decides nothing about the frames' meaning (see the resolver) and it never
//! truncates. A torn tail stays in its file; a later session begins a new file.

mod adopt;
mod directory;
mod files;
mod reader;
mod scan;
mod scan_file;
#[cfg(test)]
mod scan_tests;
mod windows;

use std::path::PathBuf;

pub use adopt::{Adopted, adopt};
pub use directory::{BufferFile, Directory, PositionsFile};
pub use files::{BufferFiles, FrameLocation};
pub use reader::{Event, ReadFrame, Reader, ReaderOptions};
pub use scan::Damage;

/// Why the buffer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done, in the present tense.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A durable step (create, write, sync, rename) failed.
    #[error(transparent)]
    Durable(#[from] teeline_runtime::fs::FsError),
    /// The writer's lock could not be had; the message names the holder.
    #[error(transparent)]
    Locked(#[from] teeline_runtime::lock::LockError),
    /// The directory's identity, or a frame that was read before, no longer reads.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
}

impl BufferError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| BufferError::Io { action, path, source }
    }
}
