//! `teeline-segmenter backup`, as an operator runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::archived::Archived;
use crate::process::Process;
use crate::programs::{Archive, Restorer, assert_orderly_log, binary};

/// A backup's configuration.
#[derive(Debug, Clone)]
pub struct Backup {
    /// The file, as JSON, which is YAML. Tests change it at will.
    pub document: Value,
    archive: Archive,
    directory: PathBuf,
}

/// What a run said.
#[derive(Debug)]
pub struct BackupRun {
    /// The exit code.
    pub code: i32,
    /// The last line of standard output, if it is a report or an error.
    pub report: Value,
    /// Standard error.
    pub stderr: String,
}

impl Backup {
    /// A backup of `topics` of a source, with an archive of its own in `directory`.
    pub fn new(directory: &Path, source: &str, topics: &[&str]) -> Self {
        Self::into_archive(
            directory,
            source,
            topics,
            Archive::Directory(directory.join("archive")),
        )
    }

    /// The same into another archive.
    pub fn into_archive(directory: &Path, source: &str, topics: &[&str], archive: Archive) -> Self {
        let document = json!({
            "mode": "backup",
            "backup_id": "e2e",
            "source": {"bootstrap_servers": source},
            "storage": archive.storage(),
            "backup": {"topics": topics, "interval": "200ms", "segment_max_bytes": 1 << 20, "block_bytes": "64KiB"},
        });
        Self {
            document,
            archive,
            directory: directory.to_owned(),
        }
    }

    /// Changes a key of the `backup` section.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.document["backup"][key] = value.into();
        self
    }

    /// The archive's directory.
    pub fn archive(&self) -> &Path {
        match &self.archive {
            Archive::Directory(path) => path,
            Archive::S3 { .. } => panic!("the archive is no directory"),
        }
    }

    /// What the archive holds.
    pub fn archived(&self) -> Archived {
        Archived::read(self.archive(), self.id())
    }

    /// What the ledger says.
    pub fn ledger(&self) -> Archived {
        Archived::ledger_only(self.archive(), self.id())
    }

    /// A restorer for the archive.
    pub fn restorer(&self) -> Restorer {
        Restorer::at(&self.directory, &self.archive, self.id())
    }

    /// The backup's id.
    pub fn id(&self) -> &str {
        self.document["backup_id"].as_str().expect("a string")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let path = self.directory.join("backup.yaml");
        fs::create_dir_all(&self.directory).expect("create the backup's directory");
        fs::write(&path, self.document.to_string()).expect("write the configuration");
        let mut command = Command::new(binary("teeline-segmenter"));
        command
            .arg("backup")
            .arg("--config")
            .arg(path)
            .arg("--json")
            .args(flags)
            .current_dir(&self.directory);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, flags: &[&str]) -> BackupRun {
        let output = self.command(flags).output().expect("run the backup");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = stdout.lines().last().unwrap_or_default();
        BackupRun {
            code: output.status.code().unwrap_or(-1),
            report: serde_json::from_str(last).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it to its end, which must be a good one, without a warning.
    pub fn run_well(&self, flags: &[&str]) -> BackupRun {
        let run = self.run(flags);
        assert_eq!(run.code, 0, "the backup failed: {}\n{}", run.report, run.stderr);
        assert_orderly_log(&run.stderr, &[]);
        run
    }

    /// Starts it.
    pub fn launch(&self, flags: &[&str]) -> Process {
        let log = self
            .directory
            .join(format!("backup-{:08x}.log", rand::random::<u32>()));
        Process::start("teeline-segmenter backup", self.command(flags), &log)
    }
}

impl BackupRun {
    /// A number of the report.
    pub fn number(&self, name: &str) -> u64 {
        self.report[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {}\n{}", self.report, self.stderr))
    }

    /// A word of the report.
    pub fn word(&self, name: &str) -> &str {
        self.report[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {}\n{}", self.report, self.stderr))
    }
}
