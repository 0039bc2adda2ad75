//! The log that `faultfs` wrote: the file operations of one process, in the order of their effects.

use std::path::PathBuf;

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
    /// A sync of the file failed: what was written since the last good one may never reach the disk, whatever later
    /// syncs say.
    SyncFailed { inode: u64 },
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
            11 => Op::SyncFailed { inode },
            other => panic!("unknown operation {other} in the log"),
        });
        rest = &rest[end..];
    }
    ops
}

fn text(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes.to_vec()).expect("test paths are UTF-8"))
}
