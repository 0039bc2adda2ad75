//! Teeline's own programs, as an operator runs them: real binaries, configuration files, signals, exit codes, logs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_port;
use crate::ports::PortBlock;
use crate::process::Process;
use crate::s3;
use crate::wait::{seconds, wait_for};

/// How long a program may take to stop cleanly when nothing is in its way.
pub const STOP_LIMIT: Duration = seconds(60);

/// A binary of this workspace: from `TEELINE_BIN_DIR`, else from the target directory of the running test.
pub fn binary(name: &str) -> PathBuf {
    let directory = env::var_os("TEELINE_BIN_DIR").map_or_else(target_directory, PathBuf::from);
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins`",
        path.display()
    );
    path
}

fn target_directory() -> PathBuf {
    let test = env::current_exe().expect("the path of the running test");
    let directory = test.parent().expect("a file lies in a directory");
    if directory.ends_with("deps") {
        directory.parent().expect("target/debug").to_owned()
    } else {
        directory.to_owned()
    }
}

/// Where an archive lies.
#[derive(Debug, Clone)]
pub enum Archive {
    /// A directory.
    Directory(PathBuf),
    /// A bucket behind an endpoint.
    S3 {
        /// `http://host:port`
        endpoint: String,
        /// What every key begins with.
        prefix: String,
    },
}

impl Archive {
    pub(crate) fn storage(&self) -> Value {
        match self {
            Self::Directory(path) => json!({"backend": "filesystem", "path": path}),
            Self::S3 { endpoint, prefix } => json!({
                "backend": "s3", "bucket": s3::BUCKET, "prefix": prefix, "endpoint": endpoint, "region": "us-east-1",
                "access_key": s3::ACCESS_KEY, "secret_key": s3::SECRET_KEY,
            }),
        }
    }
}

/// A virtual cluster's configuration with its ports and directories.
#[derive(Debug)]
pub struct ProxySettings {
    /// The one file for proxy and segmenter, as JSON, which is YAML. Tests change it at will before starting.
    pub document: Value,
    /// Log lines of WARN and ERROR that the test announces: any that contains one of these texts.
    pub announced: Vec<String>,
    /// Environment variables of the proxy, beside the test's own.
    pub environment: Vec<(String, String)>,
    directory: PathBuf,
    ports: PortBlock,
}

impl ProxySettings {
    /// A configuration for `upstream`, with buffer and log in `directory`.
    pub fn new(directory: &Path, upstream: &str, archive: &Archive) -> Self {
        let ports = PortBlock::reserve();
        let document = json!({
            "backup_id": "e2e",
            "clusters": [{
                "name": "main",
                "upstream": {"bootstrap_servers": upstream},
                "listen": {"address": ports.address(1), "addressing": {"node_port_count": 10}},
                "capture": {
                    "ack": "durable",
                    "buffer": {"dir": directory.join("buffer")},
                    "catalog_poll_interval": "1s",
                },
            }],
            "storage": archive.storage(),
            "segmenter": {"segment_max_interval_ms": 2_000, "manifest_interval_ms": 1_000, "hole_grace_ms": 2_000},
            "admin": {"listen": ports.address(0)},
        });
        Self {
            document,
            announced: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_owned(),
            ports,
        }
    }

    /// Announces a WARN or ERROR line by a part of its text.
    pub fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// What clients are given to bootstrap from.
    pub fn bootstrap(&self) -> String {
        self.ports.address(1)
    }

    /// The admin port.
    pub fn admin(&self) -> String {
        let listen = self.document["admin"]["listen"].as_str();
        listen.expect("a string").to_owned()
    }

    /// Another port of its block: 0 and 1 are admin and bootstrap, the brokers' follow.
    pub fn port(&self, index: u16) -> u16 {
        self.ports.port(index)
    }

    /// The backup's id.
    pub fn backup_id(&self) -> &str {
        self.document["backup_id"].as_str().expect("a string")
    }

    /// The buffer's directory.
    pub fn buffer_directory(&self) -> PathBuf {
        self.directory.join("buffer")
    }

    /// Writes the configuration file.
    pub fn write(&self) -> PathBuf {
        let path = self.directory.join("teeline.yaml");
        fs::create_dir_all(&self.directory).expect("create the proxy's directory");
        fs::write(&path, serde_json::to_string_pretty(&self.document).expect("JSON"))
            .expect("write the configuration");
        path
    }

    /// Starts the proxy without waiting for anything.
    pub fn launch(&self) -> Proxy {
        let mut command = Command::new(binary("teeline-proxy"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.write())
            .current_dir(&self.directory);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start("teeline-proxy", command, &self.directory.join("proxy.log"));
        Proxy {
            process,
            admin: self.admin(),
            announced: self.announced.clone(),
            settled: false,
        }
    }

    /// Starts the proxy and waits until it is ready.
    pub fn start(&self) -> Proxy {
        let mut proxy = self.launch();
        proxy.wait_ready(seconds(60));
        proxy
    }

    /// A segmenter on the same configuration, with more flags; not waited for.
    pub fn launch_segmenter(&self, flags: &[&str]) -> Process {
        let mut command = Command::new(binary("teeline-segmenter"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.write())
            .args(flags)
            .current_dir(&self.directory);
        Process::start(
            "teeline-segmenter",
            command,
            &self.directory.join("segmenter.log"),
        )
    }
}

/// A running proxy. A test ends it by [`Self::stop`] or [`Self::kill`]; otherwise dropping it kills it.
#[derive(Debug)]
pub struct Proxy {
    /// The process, for what this type does not offer.
    pub process: Process,
    admin: String,
    announced: Vec<String>,
    settled: bool,
}

impl Proxy {
    /// Waits until `/readyz` says yes.
    pub fn wait_ready(&mut self, limit: Duration) {
        wait_for("the proxy to be ready", limit, || {
            self.process.assert_running();
            match admin_port::get(&self.admin, "/readyz") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// A metric summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        admin_port::metric(&self.admin, name).unwrap_or_else(|error| panic!("read metric {name}: {error}"))
    }

    /// The same over those labels only that contain a text, as `reason="timeout"`.
    pub fn metric_with(&self, name: &str, label: &str) -> f64 {
        admin_port::metric_with(&self.admin, name, label)
            .unwrap_or_else(|error| panic!("read metric {name}: {error}"))
    }

    /// SIGTERM; it must exit with 0, everything archived, and an orderly log.
    pub fn stop(&mut self) {
        self.process.terminate();
        self.wait_stopped();
    }

    /// The second half of [`Self::stop`], for tests that stop several proxies at once: a second SIGTERM would end one
    /// without its drain.
    pub fn wait_stopped(&mut self) {
        let status = self.process.wait_exit(STOP_LIMIT);
        assert_eq!(
            status.code(),
            Some(0),
            "the proxy did not archive everything; its log ends with\n{}",
            self.process.log_tail()
        );
        self.assert_orderly_log();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
        self.settled = true;
    }

    /// Fails on every WARN and ERROR line that was not announced.
    pub fn assert_orderly_log(&mut self) {
        self.settled = true;
        assert_orderly_log(&self.process.log(), &self.announced);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.settled {
            eprintln!("the proxy's log ends with\n{}", self.process.log_tail());
        }
    }
}

/// Fails on every WARN and ERROR line of a log that contains none of the announced texts.
pub fn assert_orderly_log(log: &str, announced: &[String]) {
    let disorderly: Vec<&str> = log
        .lines()
        .filter(|line| is_alarming(line) && !announced.iter().any(|text| line.contains(text.as_str())))
        .take(10)
        .collect();
    assert!(
        disorderly.is_empty(),
        "unannounced warnings and errors:\n{}",
        disorderly.join("\n")
    );
}

/// The level is the second word of a text line. A panic's message has none, and is worse.
fn is_alarming(line: &str) -> bool {
    let level = line.split_whitespace().nth(1);
    matches!(level, Some("WARN" | "ERROR")) || line.starts_with("thread '") && line.contains("panicked")
}

/// The restorer on an archive.
#[derive(Debug)]
pub struct Restorer {
    config: PathBuf,
    backup_id: String,
}

/// What a run of the restorer said.
#[derive(Debug)]
pub struct RestorerRun {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Restorer {
    /// For the archive that `settings` write to.
    pub fn for_archive_of(settings: &ProxySettings) -> Self {
        Self::with_storage(
            &settings.directory,
            &settings.document["storage"],
            settings.backup_id(),
        )
    }

    /// For a backup in an archive; the configuration goes into `directory`.
    pub fn at(directory: &Path, archive: &Archive, backup_id: &str) -> Self {
        Self::with_storage(directory, &archive.storage(), backup_id)
    }

    fn with_storage(directory: &Path, storage: &Value, backup_id: &str) -> Self {
        let config = directory.join("restorer.yaml");
        fs::create_dir_all(directory).expect("create the restorer's directory");
        fs::write(&config, json!({"storage": storage}).to_string())
            .expect("write the restorer's configuration");
        Self {
            config,
            backup_id: backup_id.to_owned(),
        }
    }

    /// `restore`, with more flags.
    pub fn restore(&self, target: &str, flags: &[&str]) -> RestorerRun {
        let mut arguments = vec!["restore", &self.backup_id, "--target", target, "--quiet"];
        arguments.extend(flags);
        self.run(&arguments)
    }

    /// `restore` that must succeed.
    pub fn restore_all(&self, target: &str, flags: &[&str]) -> RestorerRun {
        let run = self.restore(target, flags);
        assert_eq!(run.code, 0, "the restore failed:\n{}{}", run.stdout, run.stderr);
        run
    }

    /// Any subcommand, with `--config` for the archive.
    pub fn run(&self, arguments: &[&str]) -> RestorerRun {
        let mut command = Command::new(binary("teeline-restorer"));
        command.args(arguments).arg("--config").arg(&self.config);
        RestorerRun::from(command.output().expect("run the restorer"))
    }

    /// The backup's id.
    pub fn backup_id(&self) -> &str {
        &self.backup_id
    }
}

impl From<Output> for RestorerRun {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unannounced_warning_fails_and_an_announced_one_does_not() {
        let log = "2026-11-21T08:00:00Z  INFO teeline_proxy: listening\n2026-11-21T08:00:01Z  WARN teeline_proxy: frame too large\n";
        assert_orderly_log(log, &["too large".to_owned()]);
        assert!(std::panic::catch_unwind(|| assert_orderly_log(log, &[])).is_err());
    }
}
