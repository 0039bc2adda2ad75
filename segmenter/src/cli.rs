//! The command line. Stable: scripts rely on it.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use teeline_config::{
    Buffer, Capture, Config, ConfigErrors, HostPort, KafkaEndpoint, Mode, Problem, Program,
    Segmenter as Settings, Storage, TopicFilter,
};

use crate::backup::{self, BackupArgs};
use crate::options::DrainReport;

/// What was asked for.
#[derive(Debug, Parser)]
#[command(
    name = "teeline-segmenter",
    version,
    about = "Turns Teeline's write-ahead buffers, and topics of Kafka clusters, into archived segments",
    long_about = "Follows the write-ahead buffer of a teeline-proxy, archives it as segments with a ledger, and fetches \
                  from the cluster what the buffer does not hold. The proxy runs one inside unless told not to; this \
                  program serves buffers beside it, and buffers that were left behind. `backup` needs no proxy: it \
                  takes topics of any cluster by Fetch, into the same archive.",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Archive buffers until stopped, or until they are drained
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Back up topics of a cluster by Fetch, once or for ever
    #[command(after_help = backup::args::EXAMPLES)]
    Backup(BackupArgs),
    /// Validate a configuration file, offline, and report every problem
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Print shell completions
    Completions {
        /// For this shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Configuration file, the same as the proxy's; takes the place of the flags below
    #[arg(long, value_name = "FILE", required_unless_present = "buffer")]
    pub config: Option<PathBuf>,
    /// Directory of the write-ahead buffer
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub buffer: Option<PathBuf>,
    /// Where the archive is: a path, file://, s3://bucket/prefix, gs:// or az:// [default: ./teeline-archive]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub archive: Option<String>,
    /// Name of the backup within the archive [default: default]
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    pub backup_id: Option<String>,
    /// Broker of the cluster that was captured, to fetch what the buffer does not hold. Several may be given, separated
    /// by commas
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub upstream: Option<String>,
    /// Where metrics and health are served; without it as configured, and nowhere in a run that only drains
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<HostPort>,
    /// End when no proxy writes the buffer and everything in it is archived
    #[arg(long)]
    pub until_drained: bool,
    /// The cluster is gone for good: archive what it never confirmed as unconfirmed. Drains, too
    #[arg(long, conflicts_with = "upstream")]
    pub source_lost: bool,
    /// Print the report of the run as JSON
    #[arg(long)]
    pub json: bool,
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// One buffer to serve.
#[derive(Debug, Clone)]
pub struct Job {
    /// Name of the virtual cluster.
    pub name: String,
    /// The backup.
    pub backup_id: String,
    /// The buffer's directory.
    pub buffer_dir: PathBuf,
    /// How large the buffer may grow.
    pub buffer_max_bytes: u64,
    /// The captured cluster.
    pub upstream: Option<KafkaEndpoint>,
    /// Which topics of it are captured.
    pub topics: TopicFilter,
}

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The configuration, for everything that concerns the process.
    pub config: Config,
    /// Where the archive is.
    pub storage: Storage,
    /// How segments are built.
    pub settings: Settings,
    /// The buffers.
    pub jobs: Vec<Job>,
}

impl RunArgs {
    /// What the file or the flags ask for.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn plan(&self) -> Result<Plan, ConfigErrors> {
        let mut plan = match &self.config {
            Some(path) => self.plan_from(Config::load_for(path, Program::Segmenter)?)?,
            None => self.plan_from_flags()?,
        };
        if let Some(listen) = &self.admin {
            plan.config.admin.enabled = true;
            plan.config.admin.listen = listen.clone();
        } else if self.drains() || self.config.is_none() {
            // A run that ends by itself needs no port, and must not take the one of a proxy on the same host.
            plan.config.admin.enabled = false;
        }
        Ok(plan)
    }

    /// Whether the run ends by itself.
    pub fn drains(&self) -> bool {
        self.until_drained || self.source_lost
    }

    fn plan_from(&self, config: Config) -> Result<Plan, ConfigErrors> {
        let jobs = config
            .clusters
            .iter()
            .filter(|cluster| cluster.capture.enabled)
            .map(|cluster| Job {
                name: cluster.name.clone(),
                backup_id: cluster.backup_id.clone(),
                buffer_dir: cluster.capture.buffer.dir.clone(),
                buffer_max_bytes: cluster.capture.buffer.max_bytes,
                upstream: Some(cluster.own_endpoint().clone()),
                topics: cluster.capture.topics(),
            })
            .collect();
        let storage = config
            .storage
            .clone()
            .unwrap_or_else(|| Storage::filesystem(Storage::DEFAULT_PATH));
        Ok(Plan {
            storage,
            settings: config.segmenter.clone(),
            jobs,
            config,
        })
    }

    fn plan_from_flags(&self) -> Result<Plan, ConfigErrors> {
        let wrong = |problem| ConfigErrors::one("command line", problem);
        let archive = self.archive.as_deref().unwrap_or(Storage::DEFAULT_PATH);
        let storage = Storage::from_url(archive).map_err(wrong)?;
        let upstream = self
            .upstream
            .as_deref()
            .map(endpoint)
            .transpose()
            .map_err(wrong)?;
        let job = Job {
            name: DEFAULT_NAME.to_owned(),
            backup_id: self.backup_id.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            buffer_dir: self.buffer.clone().unwrap_or_else(|| Buffer::DEFAULT_DIR.into()),
            buffer_max_bytes: Buffer::DEFAULT_MAX_BYTES,
            upstream,
            topics: Capture::default().topics(),
        };
        Ok(Plan {
            config: Config::default(),
            storage,
            settings: Settings::default(),
            jobs: vec![job],
        })
    }
}

impl CheckArgs {
    /// Loads the file and says in words, or as JSON, what is in it or wrong with it. The flag is true when it can be
    /// used; the text then belongs on standard output.
    #[must_use]
    pub fn check(&self) -> (bool, String) {
        let is_backup = |config: Config| config.mode == Some(Mode::Backup);
        let program = match Config::load(&self.config).is_ok_and(is_backup) {
            true => Program::Backup,
            false => Program::Segmenter,
        };
        let checked = Config::load_for(&self.config, program);
        match (checked, self.json) {
            (Ok(config), false) => (true, summary(&self.config.display().to_string(), &config)),
            (Ok(config), true) => {
                let names: Vec<&str> = captured(&config).map(|cluster| cluster.name.as_str()).collect();
                (
                    true,
                    serde_json::json!({ "ok": true, "clusters": names }).to_string(),
                )
            }
            (Err(errors), false) => (false, errors.to_string()),
            (Err(errors), true) => (false, problems(&errors).to_string()),
        }
    }
}

/// The report of one buffer, in words.
#[must_use]
pub fn describe(name: &str, report: &DrainReport) -> String {
    let state = if report.complete { "archived" } else { "incomplete" };
    format!(
        "{name}: {state}; {} segments with {} records committed, {} frames remain in the buffer ({} unsettled), {} \
         unconfirmed, {} offsets missing",
        report.segments,
        report.records,
        report.remaining,
        report.unsettled,
        report.unconfirmed,
        report.missing_offsets
    )
}

/// The report of one buffer, for scripts.
#[must_use]
pub fn to_json(name: &str, report: &DrainReport) -> serde_json::Value {
    serde_json::json!({
        "cluster": name,
        "complete": report.complete,
        "segments": report.segments,
        "records": report.records,
        "remaining": report.remaining,
        "unsettled": report.unsettled,
        "unconfirmed": report.unconfirmed,
        "missing_offsets": report.missing_offsets,
        "archived_to": report.archived_to.map(|position| position.to_string()),
    })
}

/// Shell completions, as text.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "teeline-segmenter", &mut out);
    out
}

/// The manual page, as text.
///
/// # Errors
/// Never in practice: it is written to memory.
pub fn manual() -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut out)?;
    Ok(out)
}

/// What a quick start calls its only cluster and its backup.
const DEFAULT_NAME: &str = "default";

const EXIT_CODES: &str = "\
Exit codes:
  0  done; after SIGTERM, or drained: everything in the buffer is archived
  1  failed
  2  wrong usage or configuration
  3  ended with something left: frames in the buffer, or offsets missing between those archived";

const RUN_EXAMPLES: &str = "\
Examples:
  # serve the buffers of a proxy that runs with --no-segmenter
  teeline-segmenter run --config teeline.yaml

  # archive a buffer that a proxy left behind
  teeline-segmenter run --buffer ./teeline-buffer --archive s3://backups/kafka --upstream kafka-1:9092 --until-drained

  # the same after the cluster is gone for good
  teeline-segmenter run --buffer ./teeline-buffer --source-lost";

const CHECK_EXAMPLES: &str = "\
Examples:
  teeline-segmenter check --config teeline.yaml
  teeline-segmenter check --config teeline.yaml --json";

fn captured(config: &Config) -> impl Iterator<Item = &teeline_config::VirtualCluster> {
    config.clusters.iter().filter(|cluster| cluster.capture.enabled)
}

fn summary(path: &str, config: &Config) -> String {
    let mut text = format!("{path}: no problems");
    for cluster in captured(config) {
        let (name, dir) = (&cluster.name, cluster.capture.buffer.dir.display());
        text.push_str(&format!(
            "\n  cluster {name}: {dir} -> backup {}",
            cluster.backup_id
        ));
    }
    if let (Some(Mode::Backup), Some(source), Some(id)) = (config.mode, &config.source, &config.backup_id) {
        let servers: Vec<String> = source.bootstrap_servers.iter().map(HostPort::to_string).collect();
        text.push_str(&format!("\n  source {} -> backup {id}", servers.join(", ")));
    }
    text
}

fn problems(errors: &ConfigErrors) -> serde_json::Value {
    let problems: Vec<_> = errors
        .problems
        .iter()
        .map(|problem| {
            serde_json::json!({
                "key": problem.key,
                "value": problem.value,
                "message": problem.message,
                "hint": problem.hint,
            })
        })
        .collect();
    serde_json::json!({ "ok": false, "problems": problems })
}

fn endpoint(text: &str) -> Result<KafkaEndpoint, Problem> {
    let servers: Result<Vec<HostPort>, _> = text.split(',').map(str::parse).collect();
    servers.map(KafkaEndpoint::plaintext).map_err(|error| Problem {
        key: "--upstream".to_owned(),
        value: Some(format!("{text:?}")),
        message: error.to_string(),
        hint: "write host:port, several separated by commas".to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(line: &[&str]) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from([&["teeline-segmenter", "run"], line].concat())?.command {
            Command::Run(args) => Ok(args),
            _ => unreachable!("run was asked for"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(!manual().unwrap().is_empty());
        assert!(!completions(Shell::Bash).is_empty());
    }

    #[test]
    fn a_buffer_can_be_named_without_a_file() {
        let plan = args(&["--buffer", "b", "--archive", "a", "--upstream", "k:1,l:2"])
            .unwrap()
            .plan()
            .unwrap();
        let job = plan.jobs.first().unwrap();
        assert_eq!(
            (job.name.as_str(), job.backup_id.as_str()),
            ("default", "default")
        );
        assert_eq!(job.upstream.as_ref().unwrap().bootstrap_servers.len(), 2);
        assert!(!plan.config.admin.enabled);
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(args(&[]).is_err());
        assert!(args(&["--config", "f", "--buffer", "b"]).is_err());
        assert!(args(&["--buffer", "b", "--source-lost", "--upstream", "k:1"]).is_err());
        assert!(
            args(&["--buffer", "b", "--upstream", "nowhere"])
                .unwrap()
                .plan()
                .is_err()
        );
    }
}
