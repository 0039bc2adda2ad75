//! What a disk may hold after the power failed: computed from the log that `faultfs` wrote.
//!
//! The model is the strict one. A file's bytes are durable when the file was synced after they were written. A name is
//! durable when its directory was synced after the name was made, and not before, even if the file itself was synced.
//! Of everything else any part may be on the disk: writes in any order, each in whole or in pages, and names in the
//! order in which they were made, up to some point (directories are journalled).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One recorded operation. `inode` is the file concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant says what its fields are")]
pub enum Op {
    /// A file was made under a path.
    Create { inode: u64, path: PathBuf },
    /// Bytes were written.
    Write { inode: u64, offset: u64, data: Vec<u8> },
    /// The length was set.
    Truncate { inode: u64, len: u64 },
    /// The file was synced.
    Sync { inode: u64 },
    /// The directory was synced.
    SyncDir { path: PathBuf },
    /// A name was moved, replacing another perhaps.
    Rename { from: PathBuf, to: PathBuf },
    /// A second name was made.
    Link { from: PathBuf, to: PathBuf },
    /// A name was removed.
    Unlink { path: PathBuf },
    /// A directory was made.
    MakeDir { path: PathBuf },
    /// A directory was removed.
    RemoveDir { path: PathBuf },
}

const HEAD_BYTES: usize = 32;
const PAGE_BYTES: usize = 4096;

/// Reads the log of `faultfs`. A last record that is cut short (the process was killed) is left out.
///
/// # Panics
/// When the log is not one of `faultfs`: a mistake of the test.
pub fn read_log(log: &[u8]) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut rest = log;
    while rest.len() >= HEAD_BYTES {
        assert_eq!(&rest[..4], b"FFS1", "the operation log is out of step");
        let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes")) as usize;
        let (code, inode, offset, path_len, data_len) = (rest[4], word(8), word(16), half(24), half(28));
        let end = HEAD_BYTES + path_len + data_len;
        if rest.len() < end {
            break;
        }
        let path = text(&rest[HEAD_BYTES..HEAD_BYTES + path_len]);
        let data = &rest[HEAD_BYTES + path_len..end];
        ops.push(match code {
            1 => Op::Create { inode, path },
            2 => Op::Write {
                inode,
                offset,
                data: data.to_vec(),
            },
            3 => Op::Truncate { inode, len: offset },
            4 => Op::Sync { inode },
            5 => Op::SyncDir { path },
            6 => Op::Rename {
                from: path,
                to: text(data),
            },
            7 => Op::Link {
                from: path,
                to: text(data),
            },
            8 => Op::Unlink { path },
            9 => Op::MakeDir { path },
            10 => Op::RemoveDir { path },
            other => panic!("unknown operation {other} in the log"),
        });
        rest = &rest[end..];
    }
    ops
}

fn text(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes.to_vec()).expect("test paths are UTF-8"))
}

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
}

impl Disk {
    /// Replays a log on empty roots.
    pub fn replay(ops: &[Op]) -> Disk {
        let mut disk = Disk::default();
        for op in ops {
            disk.apply(op);
        }
        disk
    }

    fn apply(&mut self, op: &Op) {
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
            Op::SyncDir { path } => {
                let names = self.directories.entry(path.clone()).or_default();
                names.durable = names.current.clone();
                names.pending.clear();
            }
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
        let mut random = match fate {
            Fate::Lost => None,
            Fate::Some(seed) => Some(StdRng::seed_from_u64(seed)),
        };
        self.write_directory(root, image, &mut random)
    }

    fn write_directory(&self, at: &Path, image: &Path, random: &mut Option<StdRng>) -> io::Result<()> {
        fs::create_dir_all(image)?;
        let Some(names) = self.directories.get(at) else {
            return Ok(());
        };
        let mut left = names.durable.clone();
        if let Some(random) = random {
            let kept = random.random_range(0..=names.pending.len());
            for (name, entry) in &names.pending[..kept] {
                match entry {
                    Some(entry) => left.insert(name.clone(), *entry),
                    None => left.remove(name),
                };
            }
        }
        for (name, entry) in left {
            match entry {
                Entry::Dir => self.write_directory(&at.join(&name), &image.join(&name), random)?,
                Entry::File(id) => fs::write(image.join(&name), self.files[id].after_failure(random))?,
            }
        }
        Ok(())
    }
}

impl Content {
    fn after_failure(&self, random: &mut Option<StdRng>) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let Some(random) = random else { return bytes };
        for change in &self.pending {
            match change {
                Change::Length(_) if random.random_bool(0.5) => change.apply(&mut bytes),
                Change::Length(_) => {}
                Change::Write(offset, data) => match random.random_range(0..4) {
                    0 => {}
                    1 => change.apply(&mut bytes),
                    // A part of the pages; the file may be as long as if all of them had arrived.
                    _ => {
                        for (n, page) in data.chunks(PAGE_BYTES).enumerate() {
                            if random.random_bool(0.5) {
                                let at = offset + (n * PAGE_BYTES) as u64;
                                Change::Write(at, page.to_vec()).apply(&mut bytes);
                            }
                        }
                    }
                },
            }
        }
        bytes
    }
}

impl Change {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn image(ops: &[Op], fate: Fate) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Disk::replay(ops)
            .write_image(Path::new("/r"), dir.path(), fate)
            .expect("write the image");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir.path()).expect("list the image") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a UTF-8 name");
            files.insert(name, fs::read(entry.path()).unwrap_or_default());
        }
        files
    }

    fn create(path: &str) -> Op {
        Op::Create {
            inode: 1,
            path: path.into(),
        }
    }

    fn write(offset: u64, data: &[u8]) -> Op {
        Op::Write {
            inode: 1,
            offset,
            data: data.to_vec(),
        }
    }

    fn sync_root() -> Op {
        Op::SyncDir { path: "/r".into() }
    }

    #[test]
    fn unsynced_bytes_and_unsynced_names_are_lost() {
        let synced_file = [create("/r/a"), write(0, b"x"), Op::Sync { inode: 1 }];
        assert!(
            image(&synced_file, Fate::Lost).is_empty(),
            "the name was not synced"
        );
        let mut both = synced_file.to_vec();
        both.push(sync_root());
        both.push(write(1, b"y"));
        assert_eq!(image(&both, Fate::Lost)["a"], b"x");
    }

    #[test]
    fn a_rename_before_its_directory_sync_leaves_the_old_name() {
        let rename = Op::Rename {
            from: "/r/a".into(),
            to: "/r/b".into(),
        };
        let ops = [
            create("/r/a"),
            write(0, b"x"),
            Op::Sync { inode: 1 },
            sync_root(),
            rename,
        ];
        assert_eq!(image(&ops, Fate::Lost).into_keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn some_fates_keep_and_some_lose_what_is_pending() {
        let ops = [create("/r/a"), sync_root(), write(0, &[7; 3 * PAGE_BYTES])];
        let lengths: std::collections::BTreeSet<usize> = (0..64)
            .map(|seed| image(&ops, Fate::Some(seed))["a"].len())
            .collect();
        assert!(
            lengths.contains(&0) && lengths.contains(&(3 * PAGE_BYTES)),
            "{lengths:?}"
        );
    }

    #[test]
    fn inode_numbers_that_are_used_again_are_other_files() {
        let ops = [
            create("/r/a"),
            write(0, b"old"),
            Op::Sync { inode: 1 },
            Op::Unlink { path: "/r/a".into() },
            create("/r/b"),
            sync_root(),
        ];
        assert_eq!(image(&ops, Fate::Lost)["b"], b"");
    }
}
