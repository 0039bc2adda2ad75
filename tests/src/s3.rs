//! versitygw: a real S3 server on a directory.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use crate::components;
use crate::ports::PortBlock;
use crate::process::Process;
use crate::wait::{seconds, wait_for};
use crate::workdir::WorkDir;

/// The bucket that is there from the start.
pub const BUCKET: &str = "backups";
/// The server's credentials.
pub const ACCESS_KEY: &str = "teeline-test-key";
/// The server's credentials.
pub const SECRET_KEY: &str = "teeline-test-secret";

/// A server. Its data survives [`Self::kill`] and [`Self::start`].
#[derive(Debug)]
pub struct S3 {
    process: Option<Process>,
    ports: PortBlock,
    work: WorkDir,
}

impl S3 {
    /// Starts a server with one empty bucket.
    pub fn start() -> Self {
        let mut s3 = Self {
            process: None,
            ports: PortBlock::reserve(),
            work: WorkDir::create("s3"),
        };
        fs::create_dir_all(s3.bucket_directory()).expect("create the bucket's directory");
        s3.start_again();
        s3
    }

    /// Starts it again on the same data and port.
    pub fn start_again(&mut self) {
        let address = self.ports.address(0);
        let mut command = Command::new(components::versitygw());
        command.args([
            "--port", &address, "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet",
        ]);
        command.arg("--access-log").arg(self.access_log());
        command.arg("posix").arg(self.work.join("data"));
        let process = self.process.insert(Process::start(
            "versitygw",
            command,
            &self.work.join("versitygw.log"),
        ));
        wait_for("versitygw to listen", seconds(60), || {
            process.assert_running();
            TcpStream::connect(&address)
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.ports.address(0))
    }

    /// Its `host:port`.
    pub fn address(&self) -> String {
        self.ports.address(0)
    }

    /// One line per request that it answered; see [`crate::requests`].
    pub fn access_log(&self) -> PathBuf {
        self.work.join("access.log")
    }

    /// Where the bucket's objects lie as plain files.
    pub fn bucket_directory(&self) -> PathBuf {
        self.work.join("data").join(BUCKET)
    }
}
