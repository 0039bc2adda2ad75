//! The command line. Stable: scripts rely on it.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use teeline_config::{Config, ConfigErrors, Problem, Program, ProxyFlags};

/// What was asked for.
#[derive(Debug, Parser)]
#[command(
    name = "teeline-proxy",
    version,
    about = "Transparent Kafka proxy that captures what producers write",
    long_about = "Stands before a Kafka cluster, passes everything on, and captures what producers write into an \
                  archive, as they write it. Producers connect to it instead of to the brokers; nothing else changes.",
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
    /// Serve clients until stopped
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
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
    /// Configuration file; takes the place of the flags below
    #[arg(long, value_name = "FILE", required_unless_present = "upstream")]
    pub config: Option<PathBuf>,
    /// Broker to connect to; the others are found by asking it. Several may be given, separated by commas
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub upstream: Option<String>,
    /// Where clients connect; brokers are presented on the ports after it [default: 127.0.0.1:19092]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub listen: Option<String>,
    /// Where the archive is: a path, file://, s3://bucket/prefix, gs:// or az:// [default: ./teeline-archive]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub archive: Option<String>,
    /// Name of the backup within the archive [default: default]
    #[arg(long, value_name = "ID", conflicts_with = "config")]
    pub backup_id: Option<String>,
    /// Directory of the write-ahead buffer, on a local disk [default: ./teeline-buffer]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub buffer: Option<String>,
    /// When producers are answered: once their records are on disk here too, or at once [default: durable]
    #[arg(long, value_name = "durable|async", conflicts_with = "config")]
    pub ack: Option<String>,
    /// Where metrics and health are served [default: 127.0.0.1:19644]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
    pub admin: Option<String>,
    /// Do not archive from this process; `teeline-segmenter run` does it from the same buffer
    #[arg(long)]
    pub no_segmenter: bool,
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

impl RunArgs {
    /// The configuration that the file or the flags say.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut config = match &self.config {
            Some(path) => Config::load_for(path, Program::Proxy)?,
            None => Config::for_proxy_flags(&self.flags())?,
        };
        if self.no_segmenter {
            config.segmenter.embedded = false;
        }
        Ok(config)
    }

    fn flags(&self) -> ProxyFlags {
        ProxyFlags {
            upstream: self.upstream.clone().unwrap_or_default(),
            listen: self.listen.clone(),
            archive: self.archive.clone(),
            backup_id: self.backup_id.clone(),
            buffer: self.buffer.clone(),
            ack: self.ack.clone(),
            admin: self.admin.clone(),
        }
    }
}

impl CheckArgs {
    /// Loads the file and says in words, or as JSON, what is in it or wrong with it. The flag is true when it can be
    /// used; the text then belongs on standard output.
    #[must_use]
    pub fn check(&self) -> (bool, String) {
        match Config::load_for(&self.config, Program::Proxy) {
            Ok(config) if self.json => (true, summary_json(&config).to_string()),
            Ok(config) => (true, summary(&self.config.display().to_string(), &config)),
            Err(errors) if self.json => (false, problems_json(&errors).to_string()),
            Err(errors) => (false, errors.to_string()),
        }
    }
}

fn summary(path: &str, config: &Config) -> String {
    let mut text = format!("{path}: no problems");
    for cluster in &config.clusters {
        let upstream: Vec<String> = cluster
            .upstream
            .bootstrap_servers
            .iter()
            .map(ToString::to_string)
            .collect();
        let capture = if cluster.capture.enabled {
            format!("captured into backup {}", cluster.backup_id)
        } else {
            "not captured".to_owned()
        };
        let (name, listen) = (&cluster.name, &cluster.listen.address);
        text.push_str(&format!(
            "\n  cluster {name}: {listen} -> {}, {capture}",
            upstream.join(",")
        ));
    }
    for warning in config.warnings() {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}

fn summary_json(config: &Config) -> serde_json::Value {
    let clusters: Vec<_> = config
        .clusters
        .iter()
        .map(|cluster| {
            let upstream: Vec<String> = cluster
                .upstream
                .bootstrap_servers
                .iter()
                .map(ToString::to_string)
                .collect();
            serde_json::json!({
                "name": cluster.name,
                "listen": cluster.listen.address.to_string(),
                "upstream": upstream,
                "capture": cluster.capture.enabled,
                "backup_id": cluster.backup_id,
            })
        })
        .collect();
    let warnings = problems_list(&config.warnings());
    serde_json::json!({ "ok": true, "clusters": clusters, "warnings": warnings })
}

fn problems_json(errors: &ConfigErrors) -> serde_json::Value {
    serde_json::json!({ "ok": false, "problems": problems_list(&errors.problems) })
}

fn problems_list(problems: &[Problem]) -> Vec<serde_json::Value> {
    problems
        .iter()
        .map(|problem| {
            serde_json::json!({
                "key": problem.key,
                "value": problem.value,
                "message": problem.message,
                "hint": problem.hint,
            })
        })
        .collect()
}

/// Shell completions, as text.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "teeline-proxy", &mut out);
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

const EXIT_CODES: &str = "\
Exit codes:
  0  done; after SIGTERM: everything captured is archived
  1  failed
  2  wrong usage or configuration
  3  stopped at the drain deadline; the rest is safe in the buffer";

const RUN_EXAMPLES: &str = "\
Examples:
  # capture what is produced through 127.0.0.1:19092 into ./teeline-archive
  teeline-proxy run --upstream kafka-1:9092

  # into a bucket, reachable from other hosts
  teeline-proxy run --upstream kafka-1:9092 --listen 10.0.0.5:19092 --archive s3://backups/kafka

  # from a file, archived by a separate teeline-segmenter
  teeline-proxy run --config teeline.yaml --no-segmenter";

const CHECK_EXAMPLES: &str = "\
Examples:
  teeline-proxy check --config teeline.yaml
  teeline-proxy check --config teeline.yaml --json";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_wants_a_file_or_an_upstream_and_not_both() {
        assert!(Cli::try_parse_from(["teeline-proxy", "run"]).is_err());
        assert!(Cli::try_parse_from(["teeline-proxy", "run", "--config", "a", "--upstream", "b:1"]).is_err());
        assert!(Cli::try_parse_from(["teeline-proxy", "run", "--config", "a", "--listen", "b:1"]).is_err());
        assert!(Cli::try_parse_from(["teeline-proxy", "run", "--upstream", "b:1", "--ack", "async"]).is_ok());
    }

    #[test]
    fn every_subcommand_prints_its_examples() {
        for name in ["run", "check"] {
            let mut command = Cli::command();
            let help = command
                .find_subcommand_mut(name)
                .unwrap()
                .render_long_help()
                .to_string();
            assert!(help.contains("Examples:"), "{name}");
        }
        assert!(!completions(Shell::Bash).is_empty());
        assert!(!manual().unwrap().is_empty());
    }
}
