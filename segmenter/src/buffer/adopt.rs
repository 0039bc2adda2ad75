//! Taking over a buffer that no writer serves any more.

use teeline_archive::ids::BufferPosition;
use teeline_runtime::fs::{remove_file, sync_dir};
use teeline_runtime::lock::LockFile;

use super::{BufferError, Directory};

/// The writer's lock on an orphaned buffer, and with it the duty to delete what is archived.
#[derive(Debug)]
pub struct Adopted {
    directory: Directory,
    _lock: LockFile,
}

/// Takes the writer's lock of an orphaned buffer. Nothing is changed by it.
///
/// # Errors
/// [`BufferError::Locked`] naming the holder while a writer lives.
pub fn adopt(directory: &Directory) -> Result<Adopted, BufferError> {
    let lock = directory.lock()?;
    Ok(Adopted {
        directory: directory.clone(),
        _lock: lock,
    })
}

impl Adopted {
    /// Deletes all buffer files. Only for the caller who has read them to their end, archived everything, and
    /// published `archived` as their last position; it is asked for to be compared with what is published.
    ///
    /// # Errors
    /// [`BufferError::Damaged`] when the published position says otherwise; nothing is deleted then.
    pub fn delete_all(&self, archived: BufferPosition) -> Result<usize, BufferError> {
        let published = self.directory.archived()?;
        if published != Some(archived) {
            let why = format!("the published archived position is {published:?}, not {archived}");
            return Err(BufferError::Damaged {
                path: self.directory.path().to_owned(),
                why,
            });
        }
        let numbers = self.directory.numbers()?;
        for number in &numbers {
            remove_file(&self.directory.file_path(*number))?;
        }
        sync_dir(self.directory.path())?;
        Ok(numbers.len())
    }
}
