//! The whole file.

use std::path::Path;

use crate::cluster::VirtualCluster;
use crate::endpoint::KafkaEndpoint;
use crate::environment::{Env, ProcessEnv};
use crate::jobs::{Backup, Restore, Segmenter};
use crate::problem::{ConfigErrors, Problem};
use crate::process::{Admin, Log, Process};
use crate::storage::Storage;

/// What a file of a single job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A backup by Fetch.
    Backup,
    /// A restore.
    Restore,
}

/// Who reads the file: what must be in it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `teeline-proxy run`
    Proxy,
    /// `teeline-segmenter run`
    Segmenter,
    /// `teeline-segmenter backup`
    Backup,
    /// `teeline-restorer restore`
    Restorer,
}

/// The whole configuration. One schema for all programs; each takes what concerns it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// What a file of a single job is for.
    pub mode: Option<Mode>,
    /// The backup of a single job, and the default of the virtual clusters.
    pub backup_id: Option<String>,
    /// What the proxy serves.
    pub clusters: Vec<VirtualCluster>,
    /// Where the archive lies.
    pub storage: Option<Storage>,
    /// How the buffer becomes segments.
    pub segmenter: Segmenter,
    /// Metrics and health.
    pub admin: Admin,
    /// The log.
    pub log: Log,
    /// The cluster that a backup reads.
    pub source: Option<KafkaEndpoint>,
    /// The cluster that a restore writes.
    pub target: Option<KafkaEndpoint>,
    /// What a backup takes.
    pub backup: Backup,
    /// What a restore gives back.
    pub restore: Restore,
    /// Limits of the whole process.
    pub process: Process,
}

/// The flags of `teeline-proxy run` without a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyFlags {
    /// `--upstream HOST:PORT`, or several separated by commas
    pub upstream: String,
    /// `--listen HOST:PORT`
    pub listen: Option<String>,
    /// `--archive URL`
    pub archive: Option<String>,
    /// `--backup-id ID`
    pub backup_id: Option<String>,
    /// `--buffer DIR`
    pub buffer: Option<String>,
    /// `--ack durable|async`
    pub ack: Option<String>,
    /// `--admin HOST:PORT`
    pub admin: Option<String>,
}

impl Config {
    /// Reads and validates a file, with this process's environment.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let _ = path;
        Self::parse("", &ProcessEnv)
    }

    /// Reads and validates a file for one program: what that program needs must be there.
    pub fn load_for(path: &Path, program: Program) -> Result<Self, ConfigErrors> {
        let _ = program;
        Self::load(path)
    }

    /// Validates a text.
    pub fn parse(text: &str, env: &dyn Env) -> Result<Self, ConfigErrors> {
        let _ = (text, env);
        Err(ConfigErrors::one(
            "",
            Problem {
                key: String::new(),
                value: None,
                message: String::new(),
                hint: String::new(),
            },
        ))
    }

    /// What a program needs and this configuration lacks; empty when it can run.
    pub fn problems_for(&self, program: Program) -> Vec<Problem> {
        let _ = program;
        Vec::new()
    }

    /// The configuration of a quick start.
    pub fn for_proxy_flags(flags: &ProxyFlags) -> Result<Self, ConfigErrors> {
        let _ = flags;
        Self::parse("", &ProcessEnv)
    }
}
