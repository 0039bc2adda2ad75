//! What concerns the process as a whole: admin port, log, limits.

use std::time::Duration;

use crate::endpoint::HostPort;

/// The admin port: metrics and health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens. Port 0 takes a free one, which the log then names.
    pub listen: HostPort,
}

impl Admin {
    /// Loopback: metrics tell much about a system, so showing them to a network is a decision, not a default.
    pub const DEFAULT_HOST: &'static str = "127.0.0.1";
    /// Near Kafka's exporters by habit, below the ephemeral range so that no client socket takes it first.
    pub const DEFAULT_PORT: u16 = 19644;
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: HostPort::new(Self::DEFAULT_HOST, Self::DEFAULT_PORT),
        }
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// A person must look.
    Error,
    /// Unexpected, and the program went on.
    Warn,
    /// State changes.
    #[default]
    Info,
    /// On demand.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How much the proxy's access log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nothing: metrics tell how many there are, the log what went wrong.
    #[default]
    Off,
    /// A line for each connection that ended or was turned away.
    Connections,
    /// And one for each request.
    Requests,
}

impl AccessLog {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Connections => "connections",
            Self::Requests => "requests",
        }
    }

    /// The one that is written so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Off, Self::Connections, Self::Requests]
            .into_iter()
            .find(|access| access.as_str() == name)
    }
}

/// The log, always on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// The least severe level that is written, for our own crates.
    pub level: LogLevel,
    /// Text or JSON.
    pub format: LogFormat,
    /// Directives that replace the level, as `info,teeline_wire=debug`; the variable `TEELINE_LOG` wins over it.
    pub filter: Option<String>,
    /// Lines about connections and requests, of the proxy.
    pub access: AccessLog,
}

/// Limits of the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Bytes of requests and responses held in memory by all connections together; beyond it clients wait.
    pub in_flight_bytes: u64,
    /// From the first stop signal to giving up on what is still in flight or not yet archived, the delay included.
    pub drain_timeout: Duration,
    /// How long clients are still taken in after the first stop signal, while the process says that it is not ready.
    pub drain_delay: Duration,
    /// Threads of the data path; `None` takes the number of cores.
    pub worker_threads: Option<usize>,
}

impl Process {
    /// Room for two full-size (100 MiB) requests, or thousands of ordinary ones, in the memory of a small container.
    pub const DEFAULT_IN_FLIGHT_BYTES: u64 = 256 * 1024 * 1024;
    /// Below the 30 s that orchestrators grant between SIGTERM and SIGKILL, so that it is us who decide.
    pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
}

impl Default for Process {
    fn default() -> Self {
        Self {
            in_flight_bytes: Self::DEFAULT_IN_FLIGHT_BYTES,
            drain_timeout: Self::DEFAULT_DRAIN_TIMEOUT,
            drain_delay: Duration::ZERO,
            worker_threads: None,
        }
    }
}
