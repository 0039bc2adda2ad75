//! What a disk may hold after the power failed: computed from the log that `faultfs` wrote.
//!
//! The model is the strict one. A file's bytes are durable when the file was synced after they were written. A name is
//! durable when its directory was synced after the name was made, and not before, even if the file itself was synced.
//! Of everything else any part may be on the disk: writes in any order, each in whole, in pages or in sectors, and names
//! in the order in which they were made, up to some point (directories are journalled). What was written before a sync
//! that failed stays in that state for ever: a later sync of the same file reports nothing about it.

mod log;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use log::{Op, read_log};

/// Index of a file's content; inode numbers are used again, contents are not.
type FileId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(FileId),
    Dir,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// Written before a sync that failed.
    doubtful: Vec<Change>,
    pending: Vec<Change>,
}

#[derive(Debug, Default, Clone)]
struct Names {
    durable: BTreeMap<PathBuf, Entry>,
    /// `None` removes the name.
    pending: Vec<(PathBuf, Option<Entry>)>,
    /// As the process saw it.
    current: BTreeMap<PathBuf, Entry>,
}

/// The disk as the recorded process left it: what is durable, and what is pending.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<Content>,
    by_inode: HashMap<u64, FileId>,
    directories: HashMap<PathBuf, Names>,
}

/// What becomes of pending changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    Lost,
    /// Some of it, by this seed, is on the disk.
    Some(u64),
    /// None of it is lost: the process died, and the host went on.
    Kept,
}

/// How a fate decides.
enum Dice {
    Lose,
    Keep,
    Throw { random: Box<StdRng>, unit_bytes: usize },
}

impl Dice {
    fn of(fate: Fate) -> Dice {
        match fate {
            Fate::Lost => Dice::Lose,
            Fate::Kept => Dice::Keep,
            Fate::Some(seed) => Dice::Throw {
                random: Box::new(StdRng::seed_from_u64(seed)),
                unit_bytes: if seed % 2 == 0 { PAGE_BYTES } else { SECTOR_BYTES },
            },
        }
    }

    /// How many of so many changes of names are on the disk.
    fn names_kept(&mut self, pending: usize) -> usize {
        match self {
            Dice::Lose => 0,
            Dice::Keep => pending,
            Dice::Throw { random, .. } => random.random_range(0..=pending),
        }
    }
}

const PAGE_BYTES: usize = 4096;
/// What a disk writes as a whole at best.
const SECTOR_BYTES: usize = 512;

impl Disk {
    /// Replays a log on empty roots.
    pub fn replay(ops: &[Op]) -> Disk {
        let mut disk = Disk::default();
        for op in ops {
            disk.apply(op);
        }
        disk
    }

    /// A disk that holds what `root` holds now, all of it durable.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn of(root: &Path) -> io::Result<Disk> {
        let mut disk = Disk::default();
        disk.take_in(root)?;
        Ok(disk)
    }

    fn take_in(&mut self, directory: &Path) -> io::Result<()> {
        self.directories.entry(directory.to_owned()).or_default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                self.take_in(&path)?;
                self.set(&path, Some(Entry::Dir));
            } else {
                let id = self.files.len();
                self.files.push(Content {
                    durable: fs::read(&path)?,
                    ..Content::default()
                });
                self.by_inode.insert(metadata.ino(), id);
                self.set(&path, Some(Entry::File(id)));
            }
        }
        self.sync_names(directory);
        Ok(())
    }

    fn sync_names(&mut self, directory: &Path) {
        let names = self.directories.entry(directory.to_owned()).or_default();
        names.durable = names.current.clone();
        names.pending.clear();
    }

    /// One operation more.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { inode, path } => {
                let id = self.files.len();
                self.files.push(Content::default());
                self.by_inode.insert(*inode, id);
                self.set(path, Some(Entry::File(id)));
            }
            Op::Write { inode, offset, data } => {
                if let Some(content) = self.content(*inode) {
                    content.pending.push(Change::Write(*offset, data.clone()));
                }
            }
            Op::Truncate { inode, len } => {
                if let Some(content) = self.content(*inode) {
                    content.pending.push(Change::Length(*len));
                }
            }
            Op::Sync { inode } => {
                if let Some(content) = self.content(*inode) {
                    for change in std::mem::take(&mut content.pending) {
                        change.apply(&mut content.durable);
                    }
                }
            }
            Op::SyncFailed { inode } => {
                if let Some(content) = self.content(*inode) {
                    let pending = std::mem::take(&mut content.pending);
                    content.doubtful.extend(pending);
                }
            }
            Op::SyncDir { path } => self.sync_names(path),
            Op::Rename { from, to } => {
                let entry = self.get(from);
                self.set(to, entry);
                self.set(from, None);
            }
            Op::Link { from, to } => {
                let entry = self.get(from);
                self.set(to, entry);
            }
            Op::Unlink { path } | Op::RemoveDir { path } => self.set(path, None),
            Op::MakeDir { path } => self.set(path, Some(Entry::Dir)),
        }
    }

    fn content(&mut self, inode: u64) -> Option<&mut Content> {
        let id = *self.by_inode.get(&inode)?;
        self.files.get_mut(id)
    }

    fn get(&self, path: &Path) -> Option<Entry> {
        let name = PathBuf::from(path.file_name()?);
        self.directories.get(path.parent()?)?.current.get(&name).copied()
    }

    fn set(&mut self, path: &Path, entry: Option<Entry>) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        let name = PathBuf::from(name);
        let names = self.directories.entry(parent.to_owned()).or_default();
        match entry {
            Some(entry) => names.current.insert(name.clone(), entry),
            None => names.current.remove(&name),
        };
        names.pending.push((name, entry));
    }

    /// Writes what the disk holds after the power failed: the tree under `root` goes to `image`.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn write_image(&self, root: &Path, image: &Path, fate: Fate) -> io::Result<()> {
        self.write_directory(root, image, &mut Dice::of(fate))
    }

    fn write_directory(&self, at: &Path, image: &Path, dice: &mut Dice) -> io::Result<()> {
        fs::create_dir_all(image)?;
        let Some(names) = self.directories.get(at) else {
            return Ok(());
        };
        let mut left = names.durable.clone();
        let kept = dice.names_kept(names.pending.len());
        for (name, entry) in &names.pending[..kept] {
            match entry {
                Some(entry) => left.insert(name.clone(), *entry),
                None => left.remove(name),
            };
        }
        for (name, entry) in left {
            match entry {
                Entry::Dir => self.write_directory(&at.join(&name), &image.join(&name), dice)?,
                Entry::File(id) => fs::write(image.join(&name), self.files[id].after_failure(dice))?,
            }
        }
        Ok(())
    }
}

impl Content {
    fn after_failure(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in self.doubtful.iter().chain(&self.pending) {
            match dice {
                Dice::Lose => {}
                Dice::Keep => change.apply(&mut bytes),
                Dice::Throw { random, unit_bytes } => change.apply_some(&mut bytes, random, *unit_bytes),
            }
        }
        bytes
    }
}

impl Change {
    /// All of it, nothing, or some of its units; the file may be as long as if all of them had arrived.
    fn apply_some(&self, bytes: &mut Vec<u8>, random: &mut StdRng, unit_bytes: usize) {
        match self {
            Change::Length(_) if random.random_bool(0.5) => self.apply(bytes),
            Change::Length(_) => {}
            Change::Write(offset, data) => match random.random_range(0..4) {
                0 => {}
                1 => self.apply(bytes),
                _ => {
                    // Units of the file, not of the write.
                    let mut at = *offset as usize;
                    let mut rest = &data[..];
                    while !rest.is_empty() {
                        let (unit, next) = rest.split_at(rest.len().min(unit_bytes - at % unit_bytes));
                        if random.random_bool(0.5) {
                            Change::Write(at as u64, unit.to_vec()).apply(bytes);
                        }
                        at += unit.len();
                        rest = next;
                    }
                }
            },
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(len) => bytes.resize(*len as usize, 0),
            Change::Write(offset, data) => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
        }
    }
}
