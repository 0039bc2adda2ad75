//! `faultfs`: the library that stands between a program and its disk, records what the program does, and fails or slows
//! it down on request.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::components::source;

/// Compiles the library into a directory.
pub fn build(directory: &Path) -> PathBuf {
    let library = directory.join("faultfs.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source("faultfs/faultfs.c"))
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("run the C compiler");
    assert!(built.success(), "faultfs does not compile");
    library
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes and syncs fail with an error of the device.
    Error,
    /// Nothing more can be written: the file system is full.
    Full,
    /// Each sync takes this many milliseconds.
    Slow(u32),
}

/// A disk below one directory, whose faults come and go.
#[derive(Debug)]
pub struct FaultyDisk {
    library: PathBuf,
    root: PathBuf,
    control: PathBuf,
}

impl FaultyDisk {
    /// A disk without faults so far, for everything below `root`; `directory` holds what it needs itself.
    pub fn new(directory: &Path, root: &Path) -> Self {
        Self {
            library: build(directory),
            root: root.to_owned(),
            control: directory.join("faults"),
        }
    }

    /// What a program has to find in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), path(&self.library)),
            ("FAULTFS_ROOTS".to_owned(), path(&self.root)),
            ("FAULTFS_FAULTS".to_owned(), path(&self.control)),
        ]
    }

    /// From now on this is wrong.
    pub fn inject(&self, fault: Fault) {
        let lines = match fault {
            Fault::Error => format!("write {EIO} 0\nsync {EIO} 0\ncreate {EIO} 0\n"),
            Fault::Full => format!("write {ENOSPC} 0\ncreate {ENOSPC} 0\n"),
            Fault::Slow(milliseconds) => format!("sync 0 {milliseconds}\n"),
        };
        // Whole at once: the program reads it at any moment.
        let next = self.control.with_extension("next");
        fs::write(&next, lines).expect("write the list of faults");
        fs::rename(&next, &self.control).expect("put the list of faults in its place");
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        fs::remove_file(&self.control).expect("remove the list of faults");
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
