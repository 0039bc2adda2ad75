//! Lives of a process on a recorded disk: what it did and what it believed, in one order.
//!
//! A life is an ignored test of the same test binary, run in a process of its own with `faultfs` below it. It works on
//! one directory, and notes what it was told is durable. From the order of operations and notes follows, for each moment
//! at which the power could have failed, what the disk may hold and what has to be on it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use crate::power_loss::{Disk, Fate, Op, read_log};
use crate::process::Process;
use crate::workdir::WorkDir;

const DIRECTORY: &str = "TEELINE_LIFE_DIRECTORY";
const SEED: &str = "TEELINE_LIFE_SEED";

/// One thing that happened in a life.
#[derive(Debug, Clone)]
pub enum Step {
    /// A file operation.
    Op(Op),
    /// What the process noted.
    Note(String),
}

/// A directory for simulations, in memory where that is possible: images are many, and their syncs are to cost nothing.
pub fn work_directory(name: &str) -> WorkDir {
    WorkDir::create_in(Path::new("/dev/shm"), name)
}

/// A number from the environment.
///
/// # Panics
/// When it is not a number.
pub fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// One life, seen from outside.
#[derive(Debug)]
pub struct Life {
    directory: PathBuf,
    /// What the disk held when it began.
    begin: Disk,
    /// What happened.
    pub steps: Vec<Step>,
}

impl Life {
    /// The disk of a life in `directory`: to be filled with what the life is to find.
    pub fn disk_in(directory: &Path) -> PathBuf {
        directory.join("disk")
    }

    /// Lets `test` live in `directory`.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn record(library: &Path, directory: &Path, test: &str, seed: u64) -> Life {
        let disk = Life::disk_in(directory);
        fs::create_dir_all(&disk).expect("create the disk of a life");
        let begin = Disk::of(&disk).expect("read the disk of a life");
        let (operations, notes) = (directory.join("operations"), notes_in(directory));
        let mut command = Command::new(env::current_exe().expect("the path of this test"));
        command
            .args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"])
            .env(DIRECTORY, directory)
            .env(SEED, seed.to_string())
            .env("LD_PRELOAD", library)
            .env("FAULTFS_ROOTS", format!("{}:{}", disk.display(), notes.display()))
            .env("FAULTFS_LOG", &operations)
            .env("FAULTFS_NOTES", &notes)
            .env("FAULTFS_FAULTS", faults_in(directory));
        let mut process = Process::start("life", command, &directory.join("output"));
        let status = process.wait_exit(LIFE_MAX);
        assert!(
            status.success() && process.log().contains("1 passed"),
            "a life with seed {seed} in {} ended with {status}:\n{}",
            directory.display(),
            process.log_tail()
        );
        let steps = steps(
            &fs::read(&operations).expect("read the operations of a life"),
            &notes,
        );
        Life {
            directory: directory.to_owned(),
            begin,
            steps,
        }
    }

    /// Goes through the life, and calls `crash` at each moment at which the power could have failed, with the number of the
    /// step that did not happen, and `note` for each note in between.
    ///
    /// # Errors
    /// The first one of `crash`.
    pub fn crash_everywhere<T>(
        mut self,
        state: &mut T,
        note: impl Fn(&mut T, &str),
        mut crash: impl FnMut(&mut T, usize, &CrashedDisk<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let root = Life::disk_in(&self.directory);
        let steps = std::mem::take(&mut self.steps);
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Note(text) => note(state, text),
                Step::Op(op) => {
                    let disk = CrashedDisk {
                        disk: &self.begin,
                        root: &root,
                    };
                    crash(state, number, &disk)
                        .map_err(|why| format!("before step {number}, {op:.200?}: {why}"))?;
                    self.begin.apply(op);
                }
            }
        }
        let disk = CrashedDisk {
            disk: &self.begin,
            root: &root,
        };
        crash(state, steps.len(), &disk).map_err(|why| format!("at the end: {why}"))
    }

    /// How many operations were recorded.
    pub fn operations(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| matches!(step, Step::Op(_)))
            .count()
    }
}

/// A disk at the moment when the power failed.
#[derive(Debug)]
pub struct CrashedDisk<'a> {
    disk: &'a Disk,
    root: &'a Path,
}

impl CrashedDisk<'_> {
    /// What may be on it; `image` is made anew.
    pub fn write_image(&self, image: &Path, fate: Fate) {
        match fs::remove_dir_all(image) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("remove an image: {error}"),
            _ => {}
        }
        let written = self.disk.write_image(self.root, image, fate);
        written.expect("write an image");
    }
}

fn steps(log: &[u8], notes: &Path) -> Vec<Step> {
    let mut notes_inode = None;
    let mut steps = Vec::new();
    for op in read_log(log) {
        match op {
            Op::Create { inode, path } if path == notes => notes_inode = Some(inode),
            Op::Write { inode, data, .. } if Some(inode) == notes_inode => {
                let text = String::from_utf8(data).expect("notes are text");
                steps.push(Step::Note(text.trim_end().to_owned()));
            }
            op => steps.push(Step::Op(op)),
        }
    }
    steps
}

fn notes_in(directory: &Path) -> PathBuf {
    directory.join("notes")
}

fn faults_in(directory: &Path) -> PathBuf {
    directory.join("faults")
}

/// Longer than any life takes, on a busy machine too.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// One life, seen from inside.
#[derive(Debug)]
pub struct OwnLife {
    directory: PathBuf,
    notes: File,
    /// What it is made of.
    pub seed: u64,
}

impl OwnLife {
    /// Begins; `None` when this process is not a life, but a test run that was told to run ignored tests.
    pub fn begin() -> Option<OwnLife> {
        let directory = PathBuf::from(env::var_os(DIRECTORY)?);
        let notes = File::options()
            .create(true)
            .append(true)
            .open(notes_in(&directory))
            .expect("open the notes");
        Some(OwnLife {
            directory,
            notes,
            seed: number(SEED)?,
        })
    }

    /// The directory whose operations are recorded.
    pub fn disk(&self) -> PathBuf {
        Life::disk_in(&self.directory)
    }

    /// Notes a line: what is believed from here on.
    pub fn note(&mut self, line: &str) {
        // One write, so that a note is whole or not there.
        let line = format!("{line}\n");
        self.notes.write_all(line.as_bytes()).expect("write a note");
    }

    /// What is wrong with the disk from here on, in the words of `faultfs`.
    pub fn fault(&self, line: &str) {
        fs::write(faults_in(&self.directory), line).expect("write the faults");
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        // A fault that strikes once has taken the file away.
        let _ = fs::remove_file(faults_in(&self.directory));
    }
}
