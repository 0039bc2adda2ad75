//! The whole file.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use crate::audit::Audit;
use crate::cluster::{Ack, Buffer, Capture, Limits, Listen, VirtualCluster};
use crate::door::{Addressing, Ports};
use crate::endpoint::{HostPort, HostPortError, KafkaEndpoint};
use crate::environment::{Env, ProcessEnv};
use crate::jobs::{Backup, Restore, Segmenter};
use crate::problem::{ConfigErrors, Problem};
use crate::process::{Admin, Log, Process};
use crate::reading::{self, whole_file};
use crate::rules;
use crate::section::{Reading, Section};
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
    /// How the archive is compared with the log.
    pub audit: Audit,
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
        Self::load_and_check(path, None)
    }

    /// Reads and validates a file for one program: what that program needs must be there.
    pub fn load_for(path: &Path, program: Program) -> Result<Self, ConfigErrors> {
        Self::load_and_check(path, Some(program))
    }

    fn load_and_check(path: &Path, program: Option<Program>) -> Result<Self, ConfigErrors> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let hint = "name a YAML file that this user may read";
            ConfigErrors::one(&origin, whole_file(format!("cannot be read: {error}"), hint))
        })?;
        Self::read(&origin, &text, &ProcessEnv, program)
    }

    /// Validates a text.
    pub fn parse(text: &str, env: &dyn Env) -> Result<Self, ConfigErrors> {
        Self::read("configuration", text, env, None)
    }

    /// Validates a text for one program.
    pub fn parse_for(text: &str, env: &dyn Env, program: Program) -> Result<Self, ConfigErrors> {
        Self::read("configuration", text, env, Some(program))
    }

    fn read(origin: &str, text: &str, env: &dyn Env, program: Option<Program>) -> Result<Self, ConfigErrors> {
        let mapping = match top_mapping(text) {
            Ok(mapping) => mapping,
            Err(problem) => return Err(ConfigErrors::one(origin, problem)),
        };
        let given = |key: &str| mapping.get(key).is_some_and(|value| !value.is_null());
        // A section that is there but wrong has its own problems: it is not missing as well.
        let there: Vec<&str> = ["clusters", "storage", "source", "target", "backup_id"]
            .into_iter()
            .filter(|key| given(key))
            .collect();
        let reading = Reading::new(env);
        let config = reading::config(Section::new(&reading, String::new(), mapping.clone()));
        let mut problems = reading.into_problems();
        problems.extend(rules::between_sections(&config));
        if let Some(program) = program {
            let wrong = !problems.is_empty();
            let needed = rules::for_program(&config, program);
            let has_own_problem = |problem: &Problem| wrong && there.contains(&problem.key.as_str());
            problems.extend(needed.into_iter().filter(|problem| !has_own_problem(problem)));
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors {
                origin: origin.to_owned(),
                problems,
            })
        }
    }

    /// What a program needs and this configuration lacks; empty when it can run.
    pub fn problems_for(&self, program: Program) -> Vec<Problem> {
        rules::for_program(self, program)
    }

    /// What can be used and is perhaps not meant; empty when nothing is worth a word.
    pub fn warnings(&self) -> Vec<Problem> {
        rules::warnings(self)
    }

    /// The configuration of a quick start: what the flags say, and defaults for the rest.
    pub fn for_proxy_flags(flags: &ProxyFlags) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let config = quick_start(flags, &mut problems);
        problems.extend(rules::between_sections(&config));
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors {
                origin: "command line".to_owned(),
                problems,
            })
        }
    }
}

fn top_mapping(text: &str) -> Result<Mapping, Problem> {
    let value: Value = serde_yaml::from_str(text).map_err(|error| {
        whole_file(
            format!("is not valid YAML: {error}"),
            "correct the line it names; indentation and duplicate keys are the usual causes",
        )
    })?;
    match value {
        Value::Mapping(mapping) => Ok(mapping),
        Value::Null => Err(whole_file("is empty", "begin with an example of config/examples")),
        _ => Err(whole_file(
            "is not a mapping of keys",
            "begin with an example of config/examples",
        )),
    }
}

fn quick_start(flags: &ProxyFlags, problems: &mut Vec<Problem>) -> Config {
    let mut wrong = |flag: &str, value: &str, message: String, hint: &str| {
        let (key, value) = (format!("--{flag}"), Some(format!("{value:?}")));
        problems.push(Problem {
            key,
            value,
            message,
            hint: hint.to_owned(),
        });
    };
    let servers = reading::bootstrap_servers(&flags.upstream).unwrap_or_else(|message| {
        wrong(
            "upstream",
            &flags.upstream,
            message,
            "write host:port of one of the brokers",
        );
        Vec::new()
    });
    let mut host_port =
        |flag: &str, text: &Option<String>, default: HostPort| match text.as_deref().map(str::parse) {
            None => default,
            Some(Ok(address)) => address,
            Some(Err(error)) => {
                let error: HostPortError = error;
                wrong(
                    flag,
                    text.as_deref().unwrap_or_default(),
                    error.to_string(),
                    "write host:port",
                );
                default
            }
        };
    let default = Listen::default();
    let address = host_port("listen", &flags.listen, default.address);
    let admin = Admin {
        listen: host_port("admin", &flags.admin, Admin::default().listen),
        ..Admin::default()
    };
    if address.port == 0 {
        let hint = "give a fixed port; clients keep it over restarts";
        wrong(
            "listen",
            &address.to_string(),
            "port 0 would change with every start".to_owned(),
            hint,
        );
    }
    if address.is_unspecified() {
        let hint =
            "name the address at which clients reach this host, or use a file with listen.advertised_host";
        wrong(
            "listen",
            &address.to_string(),
            "stands for every interface, and no client can connect to that".to_owned(),
            hint,
        );
    }
    let storage = match Storage::from_url(flags.archive.as_deref().unwrap_or(Storage::DEFAULT_PATH)) {
        Ok(storage) => Some(storage),
        Err(problem) => {
            wrong(
                "archive",
                flags.archive.as_deref().unwrap_or_default(),
                problem.message,
                &problem.hint,
            );
            None
        }
    };
    let backup_id = flags
        .backup_id
        .clone()
        .unwrap_or_else(|| VirtualCluster::DEFAULT_BACKUP_ID.to_owned());
    if let Err((message, hint)) = reading::check_backup_id(&backup_id) {
        wrong("backup-id", &backup_id, message, &hint);
    }
    let ack = match flags.ack.as_deref() {
        None | Some("durable") => Ack::Durable,
        Some("async") => Ack::Async,
        Some(other) => {
            wrong(
                "ack",
                other,
                "is not one of the choices".to_owned(),
                "choose from durable, async",
            );
            Ack::Durable
        }
    };
    let dir = flags.buffer.as_deref().unwrap_or(Buffer::DEFAULT_DIR).into();
    let cluster = VirtualCluster {
        name: VirtualCluster::DEFAULT_NAME.to_owned(),
        backup_id: backup_id.clone(),
        upstream: KafkaEndpoint::plaintext(servers),
        capture_credentials: None,
        listen: Listen {
            addressing: Addressing::Ports(Ports::fitting_after(address.port)),
            address,
            ..Listen::default()
        },
        capture: Capture {
            ack,
            buffer: Buffer {
                dir,
                ..Buffer::default()
            },
            ..Capture::default()
        },
        limits: Limits::default(),
    };
    Config {
        backup_id: Some(backup_id),
        clusters: vec![cluster],
        storage,
        admin,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
