//! The command line of `teeline-segmenter backup`, and what it amounts to.

use std::path::PathBuf;

use clap::Args;
use teeline_config::{
    Backup, Config, ConfigErrors, HostPort, KafkaEndpoint, Problem, Program, Segmenter, Start, Storage,
    TopicPattern,
};

/// What to back up.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Configuration file with `source`, `storage` and `backup`. Several may be given: each is a backup of its own
    #[arg(long, value_name = "FILE", required_unless_present = "source")]
    pub config: Vec<PathBuf>,
    /// Broker of the cluster to be read. Several may be given, separated by commas
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub source: Option<String>,
    /// Where the archive is: a path, file://, s3://bucket/prefix, gs:// or az:// [default: ./teeline-archive]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub archive: Option<String>,
    /// Name of the backup within the archive [default: default]
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    pub backup_id: Option<String>,
    /// Only this topic: a name, a glob as `orders-*`, or `regex:…`; may be repeated. A name that does not exist is an
    /// error
    #[arg(long = "topic", value_name = "PATTERN")]
    pub topics: Vec<String>,
    /// Not this topic; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Go on until stopped, instead of ending where the logs ended at the start
    #[arg(long)]
    pub continuous: bool,
    /// End after so many records; the report says so, and a later run goes on from there
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_messages: Option<u64>,
    /// Where partitions begin that the backup sees for the first time: earliest, latest, a time (2026-11-21T08:00:00Z,
    /// -24h) or an offset [default: earliest]
    #[arg(long, value_name = "START", allow_hyphen_values = true)]
    pub start: Option<String>,
    /// Where metrics and health are served; without it as configured, and nowhere in a run that ends by itself
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<HostPort>,
    /// Print progress and report as lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// One backup to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// The backup.
    pub backup_id: String,
    /// Where the archive is.
    pub storage: Storage,
    /// The cluster.
    pub source: KafkaEndpoint,
    /// How segments are built.
    pub segments: Segmenter,
    /// What is taken.
    pub backup: Backup,
}

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first configuration, for everything that concerns the process.
    pub config: Config,
    /// The backups.
    pub jobs: Vec<Job>,
}

/// What a quick start calls its backup.
const DEFAULT_ID: &str = "default";

impl BackupArgs {
    /// What the files or the flags ask for.
    ///
    /// # Errors
    /// Every problem of a file, or of the flags, at once.
    pub fn plan(&self) -> Result<Plan, ConfigErrors> {
        let mut plan = match self.config.is_empty() {
            true => self.plan_from_flags()?,
            false => self.plan_from_files()?,
        };
        self.adjust(&mut plan)?;
        check(&plan)?;
        if let Some(listen) = &self.admin {
            plan.config.admin.enabled = true;
            plan.config.admin.listen = listen.clone();
        } else if self.config.is_empty() || !plan.jobs.iter().any(|job| job.backup.continuous) {
            // A run that ends by itself needs no port, and must not take the one of a proxy on the same host.
            plan.config.admin.enabled = false;
        }
        Ok(plan)
    }

    fn plan_from_files(&self) -> Result<Plan, ConfigErrors> {
        let mut first = None;
        let mut jobs = Vec::new();
        for path in &self.config {
            let config = Config::load_for(path, Program::Backup)?;
            // The check for the program has made sure that all three are there.
            if let (Some(backup_id), Some(storage), Some(source)) = (
                config.backup_id.clone(),
                config.storage.clone(),
                config.source.clone(),
            ) {
                jobs.push(Job {
                    backup_id,
                    storage,
                    source,
                    segments: config.segmenter.clone(),
                    backup: config.backup.clone(),
                });
            }
            first.get_or_insert(config);
        }
        Ok(Plan {
            config: first.unwrap_or_default(),
            jobs,
        })
    }

    fn plan_from_flags(&self) -> Result<Plan, ConfigErrors> {
        let wrong = |problem| ConfigErrors::one("command line", problem);
        let archive = self.archive.as_deref().unwrap_or(Storage::DEFAULT_PATH);
        let job = Job {
            backup_id: self.backup_id.clone().unwrap_or_else(|| DEFAULT_ID.to_owned()),
            storage: Storage::from_url(archive).map_err(wrong)?,
            source: endpoint(self.source.as_deref().unwrap_or_default()).map_err(wrong)?,
            segments: Segmenter::default(),
            backup: Backup::default(),
        };
        Ok(Plan {
            config: Config::default(),
            jobs: vec![job],
        })
    }

    /// What flags say counts more than what the files say.
    fn adjust(&self, plan: &mut Plan) -> Result<(), ConfigErrors> {
        let include = patterns("--topic", &self.topics)?;
        let exclude = patterns("--exclude", &self.exclude)?;
        let start = self.start.as_deref().map(Start::parse).transpose();
        let start = start.map_err(|error| {
            let text = self.start.as_deref().unwrap_or_default();
            flag("--start", text, error.to_string(), Start::HINT)
        })?;
        for Job { backup, .. } in &mut plan.jobs {
            if !include.is_empty() {
                backup.topics.include.clone_from(&include);
            }
            backup.topics.exclude.extend(exclude.iter().cloned());
            backup.continuous |= self.continuous;
            backup.max_messages = self.max_messages.or(backup.max_messages);
            if let Some(start) = start {
                backup.start = start;
                backup.start_by_topic.clear();
            }
        }
        Ok(())
    }
}

/// What one process cannot do.
fn check(plan: &Plan) -> Result<(), ConfigErrors> {
    let at_once = plan.config.backup.max_concurrent_backups;
    let endless = plan.jobs.iter().filter(|job| job.backup.continuous).count();
    if endless > at_once || (endless == at_once && endless < plan.jobs.len()) {
        let message = format!("{endless} continuous backups would keep the others waiting for ever");
        let hint = "raise it, or give the backups to several processes";
        return Err(flag(
            "backup.max_concurrent_backups",
            &at_once.to_string(),
            message,
            hint,
        ));
    }
    for (at, job) in plan.jobs.iter().enumerate() {
        let same = |other: &&Job| other.backup_id == job.backup_id && other.storage == job.storage;
        if plan.jobs.iter().take(at).any(|other| same(&other)) {
            let message = "two of the files name the same backup of the same archive".to_owned();
            let hint = "one process at a time makes a backup; put their topics into one file";
            return Err(flag("backup_id", &job.backup_id, message, hint));
        }
    }
    Ok(())
}

fn patterns(name: &str, texts: &[String]) -> Result<Vec<TopicPattern>, ConfigErrors> {
    let hint = "write a name, a glob as `orders-*`, or `regex:…` for the whole name";
    texts
        .iter()
        .map(|text| TopicPattern::parse(text).map_err(|error| flag(name, text, error.to_string(), hint)))
        .collect()
}

fn endpoint(text: &str) -> Result<KafkaEndpoint, Problem> {
    let servers: Result<Vec<HostPort>, _> = text.split(',').map(str::parse).collect();
    servers.map(KafkaEndpoint::plaintext).map_err(|error| Problem {
        key: "--source".to_owned(),
        value: Some(format!("{text:?}")),
        message: error.to_string(),
        hint: "write host:port, several separated by commas".to_owned(),
    })
}

fn flag(name: &str, value: &str, message: String, hint: &str) -> ConfigErrors {
    ConfigErrors::one(
        "command line",
        Problem {
            key: name.to_owned(),
            value: Some(format!("{value:?}")),
            message,
            hint: hint.to_owned(),
        },
    )
}

/// Shown with the help of the subcommand.
pub const EXAMPLES: &str = "\
Examples:
  # everything that the cluster has now
  teeline-segmenter backup --source kafka-1:9092 --archive s3://backups/kafka --backup-id nightly

  # again, the next night: takes what is new
  teeline-segmenter backup --source kafka-1:9092 --archive s3://backups/kafka --backup-id nightly

  # some topics, from yesterday on, for ever
  teeline-segmenter backup --source kafka-1:9092 --topic orders --topic 'payments-*' --start -24h --continuous

  # as configured, two clusters in one process
  teeline-segmenter backup --config eu.yaml --config us.yaml

Exit codes:
  0  done: everything that was asked for is held, or explained
  1  failed
  2  wrong usage or configuration, or topics that do not exist; nothing was begun
  3  ended with something left: stopped early, or offsets that could not be read";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(line: &[&str]) -> Result<Plan, String> {
        let cli = Cli::try_parse_from([&["teeline-segmenter", "backup"], line].concat());
        match cli.map_err(|error| error.to_string())?.command {
            Command::Backup(args) => args.plan().map_err(|errors| errors.to_string()),
            _ => unreachable!("backup was asked for"),
        }
    }

    #[test]
    fn a_cluster_can_be_named_without_a_file() {
        let plan = plan(&[
            "--source",
            "k:1,l:2",
            "--topic",
            "orders",
            "--start",
            "-1h",
            "--max-messages",
            "5",
        ])
        .unwrap();
        let job = plan.jobs.first().unwrap();
        assert_eq!(job.source.bootstrap_servers.len(), 2);
        assert_eq!(
            (job.backup_id.as_str(), job.backup.max_messages),
            ("default", Some(5))
        );
        assert!(job.backup.filter().matches("orders") && !job.backup.filter().matches("payments"));
        assert!(!plan.config.admin.enabled);
    }

    #[test]
    fn files_are_backups_of_their_own_and_flags_count_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, more: &str| {
            let path = dir.path().join(name);
            let text = format!(
                "backup_id: {name}\nsource: {{bootstrap_servers: k:1}}\nstorage: {{backend: filesystem, path: /a}}\n\
                 backup: {{start_offset: latest{more}}}\n"
            );
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (one, two) = (
            file("one", ""),
            file("two", ", continuous: true, max_messages: 9"),
        );
        let made = plan(&["--config", &one, "--config", &two, "--start", "5"]).unwrap();
        assert_eq!(made.jobs.len(), 2);
        assert!(made.jobs.iter().all(|job| job.backup.start == Start::Offset(5)));
        let two_job = made.jobs.last().unwrap();
        assert_eq!(
            (two_job.backup.continuous, two_job.backup.max_messages),
            (true, Some(9))
        );
        assert!(
            plan(&["--config", &one, "--config", &one])
                .unwrap_err()
                .contains("same backup")
        );
        let limit = file("three", ", continuous: true, max_concurrent_backups: 1");
        assert!(
            plan(&["--config", &limit, "--config", &one])
                .unwrap_err()
                .contains("waiting for ever")
        );
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(plan(&[]).is_err());
        assert!(plan(&["--config", "f", "--source", "k:1"]).is_err());
        assert!(plan(&["--source", "nowhere"]).unwrap_err().contains("--source"));
        assert!(
            plan(&["--source", "k:1", "--topic", "a b"])
                .unwrap_err()
                .contains("--topic")
        );
        assert!(
            plan(&["--source", "k:1", "--start", "newest"])
                .unwrap_err()
                .contains("--start")
        );
        assert!(plan(&["--source", "k:1", "--max-messages", "0"]).is_err());
    }
}
