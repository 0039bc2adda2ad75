//! Reading one frame again, by its location. The segmenter keeps locations, not bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use teeline_archive::buffer::{Frame, decode_frame};
use teeline_archive::ids::BufferPosition;

use super::{BufferError, Directory};

/// Where a frame lies. Valid until the frame's position is archived and released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLocation {
    /// Number of the buffer file.
    pub file_number: u64,
    /// Position of the frame's header in the file, in bytes.
    pub at: u64,
    /// Length of the whole frame, in bytes.
    pub len: u32,
}

/// Files kept open between reads; segments are built from neighbouring files.
const OPEN_FILES_MAX: usize = 8;

/// Number and handle, in the order in which they were opened.
type OpenFiles = VecDeque<(u64, Arc<File>)>;

/// Random access to a buffer's frames. Clones share the open files.
#[derive(Debug, Clone)]
pub struct BufferFiles {
    directory: Directory,
    open: Arc<Mutex<OpenFiles>>,
}

impl BufferFiles {
    pub(super) fn new(directory: Directory) -> Self {
        BufferFiles {
            directory,
            open: Arc::default(),
        }
    }

    /// Reads a frame again, checksums included. Blocking.
    ///
    /// # Errors
    /// [`BufferError::Damaged`] when the bytes have changed since they were first read.
    pub fn read_at(&self, location: &FrameLocation) -> Result<Frame, BufferError> {
        let path = self.directory.file_path(location.file_number);
        let file = self.file(location.file_number)?;
        let mut bytes = vec![0; location.len as usize];
        file.read_exact_at(&mut bytes, location.at)
            .map_err(BufferError::io("read", &path))?;
        match decode_frame(&Bytes::from(bytes), 0) {
            Ok(decoded) => Ok(decoded.frame),
            Err(error) => Err(BufferError::Damaged {
                path,
                why: format!("at byte {}: {error}", location.at),
            }),
        }
    }

    /// Tells the writer that everything up to and including `position` is in the archive and may be released.
    ///
    /// `(session, 0)` says that all earlier sessions are archived.
    pub fn publish_archived(&self, position: BufferPosition) -> Result<(), BufferError> {
        self.directory.publish_archived(position)
    }

    fn file(&self, number: u64) -> Result<Arc<File>, BufferError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(open, _)| *open == number) {
            return Ok(file.clone());
        }
        let path = self.directory.file_path(number);
        let file = Arc::new(File::open(&path).map_err(BufferError::io("open", &path))?);
        if open.len() >= OPEN_FILES_MAX {
            open.pop_front();
        }
        open.push_back((number, file.clone()));
        Ok(file)
    }
}
