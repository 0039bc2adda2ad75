//! The buffer directory: names of its files, its marks, its lock. Both the writer and the readers go through here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use teeline_archive::buffer::{Archived, BufferIdentity, Positions, SessionMark, StateError};
use teeline_archive::ids::{BufferPosition, SessionId, WriterId};
use teeline_archive::names::buffer_files as names;
use teeline_runtime::fs::{create_dir_durable, write_atomic};
use teeline_runtime::lock::{LockError, LockFile};
use uuid::Uuid;

use super::BufferError;

/// A mark is one small `pwrite`; a reader that meets it halfway finds it whole a moment later.
const MARK_READ_TRIES: usize = 5;
const LOCK_TRIES: u32 = 5;
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// No mark is longer than this.
const MARK_BYTES_MAX: usize = 256;

/// One buffer file as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferFile {
    /// Its number; files are read in this order.
    pub number: u64,
    /// Its length in bytes when it was listed.
    pub bytes: u64,
}

/// A buffer directory.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Names a directory; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Directory { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the writer's lock, making the directory when there is none.
    ///
    /// # Errors
    /// [`BufferError::Locked`] naming the holder when another process has it.
    pub fn lock(&self) -> Result<LockFile, BufferError> {
        create_dir_durable(&self.path)?;
        let path = self.path.join(names::LOCK);
        for _ in 1..LOCK_TRIES {
            match LockFile::acquire(&path) {
                // A reader that looks whether a writer lives holds the lock for an instant.
                Err(LockError::Held { .. }) => std::thread::sleep(LOCK_RETRY),
                result => return Ok(result?),
            }
        }
        Ok(LockFile::acquire(&path)?)
    }

    /// True while some process holds the writer's lock.
    pub fn is_locked(&self) -> Result<bool, BufferError> {
        Ok(LockFile::is_held(&self.path.join(names::LOCK))?)
    }

    /// The path of file `number`.
    pub fn file_path(&self, number: u64) -> PathBuf {
        self.path.join(names::data_file(number))
    }

    /// The numbers of the buffer files, in reading order. A directory that does not exist yet has none.
    pub fn numbers(&self) -> Result<Vec<u64>, BufferError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(BufferError::io("list", &self.path)(e)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(BufferError::io("list", &self.path))?;
            numbers.extend(entry.file_name().to_str().and_then(names::parse_data_file));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The numbers of the files that are read after this one.
    pub(super) fn numbers_after(&self, number: u64) -> Result<Vec<u64>, BufferError> {
        let mut later = self.numbers()?;
        later.retain(|later| *later > number);
        Ok(later)
    }

    /// The buffer files with their lengths, in reading order.
    pub fn files(&self) -> Result<Vec<BufferFile>, BufferError> {
        let mut files = Vec::new();
        for number in self.numbers()? {
            let path = self.file_path(number);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => files.push(BufferFile {
                    number,
                    bytes: metadata.len(),
                }),
                // Released by the writer between the two calls.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(BufferError::io("look at", path)(e)),
            }
        }
        Ok(files)
    }

    /// Who this buffer is; `None` before its first writer.
    pub fn identity(&self) -> Result<Option<BufferIdentity>, BufferError> {
        self.read_state(names::IDENTITY, BufferIdentity::decode)
    }

    /// Who this buffer is, given a name now if it has none. For the holder of the lock.
    pub fn identity_or_create(&self) -> Result<BufferIdentity, BufferError> {
        if let Some(identity) = self.identity()? {
            return Ok(identity);
        }
        let writer = WriterId(rand::rng().random_range(1..u64::MAX));
        let identity = BufferIdentity {
            buffer_id: Uuid::new_v4(),
            writer,
        };
        write_atomic(&self.path.join(names::IDENTITY), &identity.encode())?;
        Ok(identity)
    }

    /// The next session number, durable before it is returned: a number is never used twice, whatever crashes.
    /// For the holder of the lock. `seen` is the highest session found in the files.
    pub fn next_session(&self, seen: SessionId) -> Result<SessionId, BufferError> {
        let stored = self
            .read_state(names::SESSION, SessionMark::decode)?
            .map(|mark| mark.session);
        let archived = self.archived()?.map(|position| position.session);
        let highest = stored.into_iter().chain(archived).fold(seen, SessionId::max);
        let next = SessionMark {
            session: highest.next(),
        };
        write_atomic(&self.path.join(names::SESSION), &next.encode())?;
        Ok(next.session)
    }

    /// What the writer published, `None` when nothing (readable) is published.
    pub fn positions(&self) -> Result<Option<Positions>, BufferError> {
        self.read_advice(names::POSITIONS, Positions::decode)
    }

    /// The writer's own mark, kept open. It is overwritten in place after every sync.
    pub fn open_positions(&self) -> Result<PositionsFile, BufferError> {
        Ok(PositionsFile(Mark::open(self.path.join(names::POSITIONS))?))
    }

    /// How far the archive has everything, `None` when nothing (readable) is published.
    pub fn archived(&self) -> Result<Option<BufferPosition>, BufferError> {
        Ok(self
            .read_advice(names::ARCHIVED, Archived::decode)?
            .map(|archived| archived.position)
            .filter(|position| *position != BufferPosition::NONE))
    }

    /// Makes room for the archived mark while there is some: on a full disk it is what files are released by.
    pub fn reserve_archived(&self) -> Result<(), BufferError> {
        match self.path.join(names::ARCHIVED).exists() {
            true => Ok(()),
            false => self.publish_archived(BufferPosition::NONE),
        }
    }

    /// Publishes how far the archive has everything. For the segmenter, after its ledger commit.
    pub fn publish_archived(&self, position: BufferPosition) -> Result<(), BufferError> {
        Mark::open(self.path.join(names::ARCHIVED))?.write(&Archived { position }.encode())
    }

    /// A file that is replaced by rename and synced: what does not read is damage.
    fn read_state<T>(
        &self,
        name: &str,
        decode: impl Fn(&[u8]) -> Result<T, StateError>,
    ) -> Result<Option<T>, BufferError> {
        let Some(bytes) = self.read_small(name)? else {
            return Ok(None);
        };
        decode(&bytes)
            .map(Some)
            .map_err(|error| self.damaged(name, &error))
    }

    /// A mark that is overwritten in place and never synced: half an update is read again, and what a power cut left
    /// of it says nothing.
    fn read_advice<T>(
        &self,
        name: &str,
        decode: impl Fn(&[u8]) -> Result<T, StateError>,
    ) -> Result<Option<T>, BufferError> {
        for _ in 0..MARK_READ_TRIES {
            let Some(bytes) = self.read_small(name)? else {
                return Ok(None);
            };
            match decode(&bytes) {
                Ok(value) => return Ok(Some(value)),
                Err(error @ StateError::Version { .. }) => return Err(self.damaged(name, &error)),
                Err(StateError::Torn) => return Ok(None),
                Err(StateError::Corrupt { .. } | StateError::Field(_)) => std::thread::yield_now(),
            }
        }
        Ok(None)
    }

    fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, BufferError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(BufferError::io("open", &path)(e)),
        };
        let mut bytes = vec![0u8; MARK_BYTES_MAX];
        let read = file
            .read_at(&mut bytes, 0)
            .map_err(BufferError::io("read", &path))?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn damaged(&self, name: &str, why: &StateError) -> BufferError {
        BufferError::Damaged {
            path: self.path.join(name),
            why: why.to_string(),
        }
    }
}

/// The writer's mark of how far readers may read.
#[derive(Debug)]
pub struct PositionsFile(Mark);

impl PositionsFile {
    /// Publishes, without a sync: the mark is advice.
    pub fn write(&self, positions: &Positions) -> Result<(), BufferError> {
        self.0.write(&positions.encode())
    }
}

#[derive(Debug)]
struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    fn open(path: PathBuf) -> Result<Self, BufferError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(BufferError::io("open", &path))?;
        Ok(Mark { path, file })
    }

    /// Overwrites the mark in one `pwrite`: marks of one kind have one length.
    fn write(&self, bytes: &[u8]) -> Result<(), BufferError> {
        self.file
            .write_all_at(bytes, 0)
            .map_err(BufferError::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_archive::ids::Lsn;

    #[test]
    fn sessions_are_never_handed_out_twice() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path().join("buffer"));
        let _lock = directory.lock().unwrap();
        assert_eq!(directory.next_session(SessionId(0)).unwrap(), SessionId(1));
        assert_eq!(directory.next_session(SessionId(0)).unwrap(), SessionId(2));
        assert_eq!(directory.next_session(SessionId(7)).unwrap(), SessionId(8));
        directory
            .publish_archived(BufferPosition {
                session: SessionId(20),
                lsn: Lsn(1),
            })
            .unwrap();
        assert_eq!(directory.next_session(SessionId(0)).unwrap(), SessionId(21));
    }

    #[test]
    fn a_torn_mark_says_nothing_and_a_torn_identity_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path());
        let _lock = directory.lock().unwrap();
        let identity = directory.identity_or_create().unwrap();
        assert_eq!(directory.identity_or_create().unwrap(), identity);
        fs::write(dir.path().join(names::ARCHIVED), [7; 40]).unwrap();
        assert_eq!(directory.archived().unwrap(), None);
        fs::write(dir.path().join(names::IDENTITY), [7; 40]).unwrap();
        assert!(matches!(directory.identity(), Err(BufferError::Damaged { .. })));
    }

    #[test]
    fn the_lock_is_seen_while_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::new(dir.path());
        assert!(!directory.is_locked().unwrap());
        let lock = directory.lock().unwrap();
        assert!(directory.is_locked().unwrap());
        assert!(directory.lock().is_err());
        drop(lock);
        assert!(!directory.is_locked().unwrap());
    }
}
