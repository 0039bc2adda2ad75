//! The whole process: start everything in order, wait, drain in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use teeline_config::Config;
use teeline_runtime::admin::{AdminError, AdminServer};
use teeline_runtime::clock::SystemClock;
use teeline_runtime::exit::{ExitCode, error_chain};
use teeline_runtime::health::Health;
use teeline_runtime::metrics::{self as registry, MetricsError};
use teeline_runtime::shutdown::Shutdown;
use teeline_runtime::store::{Store, StoreError};
use teeline_runtime::{Clock, signals, threads};
use teeline_segmenter::SegmenterError;
use teeline_wire::tls::UnusableFiles;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::budget::ProcessBudget;
use crate::buffer::BufferError;
use crate::cluster;
use crate::metrics;
use crate::running::{Drained, RunningCluster};

/// A proxy that is to be run.
#[derive(Debug)]
pub struct Proxy {
    config: Config,
}

/// Why the proxy could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The threads of the data path cannot be started. The machine's fault.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// The metrics registry cannot be installed. A bug.
    #[error("start metrics")]
    Metrics(#[from] MetricsError),
    /// The admin port cannot be opened. A setting's fault, mostly.
    #[error("start the admin port (hint: --admin or admin.listen chooses another address)")]
    Admin(#[from] AdminError),
    /// Signals cannot be listened for. The machine's fault.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// The archive cannot be opened, or refuses us. A setting's fault.
    #[error("open the archive")]
    Archive(#[from] StoreError),
    /// The certificates that clients are to see cannot be used. A setting's fault.
    #[error("read the certificates of cluster {cluster} (hint: listen.tls)")]
    Certificates {
        /// The cluster.
        cluster: String,
        /// Why.
        source: UnusableFiles,
    },
    /// The listener of a cluster cannot be bound.
    #[error(
        "listen on {address} for cluster {cluster} (hint: --listen or listen.address chooses another address)"
    )]
    Listen {
        /// The cluster.
        cluster: String,
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The write-ahead buffer cannot be opened.
    #[error(
        "open the write-ahead buffer of cluster {cluster} (hint: --buffer or capture.buffer.dir chooses its directory)"
    )]
    Buffer {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: BufferError,
    },
    /// A task that opens something panicked. A bug.
    #[error("a task stopped unexpectedly")]
    Task(#[from] tokio::task::JoinError),
    /// The archive cannot be used as configured, so that nothing would ever be archived.
    #[error("archive cluster {cluster}")]
    Segmenter {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: Box<SegmenterError>,
    },
    /// What is configured cannot be run.
    #[error("{0}")]
    Unusable(String),
}

/// What the clusters of the process are started with.
pub(crate) struct Environment {
    pub(crate) config: Config,
    pub(crate) process: cluster::Process,
    pub(crate) health: Health,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Option<Store>,
    /// Where a part reports that the process must not go on.
    pub(crate) fatal: mpsc::Sender<ProxyError>,
}

impl Proxy {
    /// A proxy with this configuration.
    #[must_use]
    pub fn new(config: Config) -> Proxy {
        Proxy { config }
    }

    /// Runs until a signal, drains, and says how that went.
    ///
    /// # Errors
    /// When something cannot be started, or turns out to be unusable at start.
    pub fn run(self) -> Result<ExitCode, ProxyError> {
        raise_open_files_limit();
        let registry = registry::install()?;
        metrics::describe();
        let health = Health::new();
        // Before anybody can ask: without components a process counts as ready.
        for cluster in &self.config.clusters {
            health.component(format!("upstream/{}", cluster.name));
        }
        let _admin = AdminServer::start(&self.config.admin, health.clone(), registry, Vec::new())?;
        let count = self.config.process.worker_threads;
        threads::run(count, "proxy", serve(self.config, health)).map_err(ProxyError::Runtime)?
    }
}

async fn serve(config: Config, health: Health) -> Result<ExitCode, ProxyError> {
    let stop = Shutdown::new();
    let _signals = signals::listen(stop.clone()).map_err(ProxyError::Signals)?;
    let (fatal, mut failures) = mpsc::channel(1);
    let environment = environment(config, health, fatal)?;
    let mut clusters = Vec::with_capacity(environment.config.clusters.len());
    for settings in &environment.config.clusters {
        clusters.push(RunningCluster::start(settings, &environment).await?);
    }
    let gauge = tokio::spawn(watch_budget(environment.process.budget.clone()));
    let failure = tokio::select! {
        () = stop.triggered() => None,
        failure = failures.recv() => failure,
    };
    let drained = drain(clusters, &environment).await;
    gauge.abort();
    match failure {
        Some(failure) => Err(failure),
        None => Ok(drained),
    }
}

fn environment(
    config: Config,
    health: Health,
    fatal: mpsc::Sender<ProxyError>,
) -> Result<Environment, ProxyError> {
    let captures = config.clusters.iter().any(|cluster| cluster.capture.enabled);
    let store = match &config.storage {
        Some(storage) if captures && config.segmenter.embedded => Some(Store::open(storage)?),
        _ => None,
    };
    if captures && config.segmenter.embedded && store.is_none() {
        let text = "no storage is configured (hint: add storage, or run with --no-segmenter)";
        return Err(ProxyError::Unusable(text.to_owned()));
    }
    let in_flight = usize::try_from(config.process.in_flight_bytes).unwrap_or(usize::MAX);
    let process = cluster::Process {
        budget: ProcessBudget::new(in_flight),
        drain: Shutdown::new(),
        cut: Shutdown::new(),
    };
    Ok(Environment {
        config,
        process,
        health,
        clock: Arc::new(SystemClock),
        store,
        fatal,
    })
}

/// Who stops first, and what is finished before:
///
/// 1. Listeners close. Sessions finish what is in flight; half of the time is theirs, then they are cut.
/// 2. The poller writes a last catalog, so that what was answered last can be attributed.
/// 3. The buffer writes and syncs everything, and is closed: from here on nothing can be lost.
/// 4. The segmenter archives what the buffer holds, until the deadline.
async fn drain(clusters: Vec<RunningCluster>, environment: &Environment) -> ExitCode {
    let began = Instant::now();
    let patience = environment.config.process.drain_timeout;
    let deadline = began + patience;
    tracing::info!(deadline_seconds = patience.as_secs_f64(), "draining");
    environment.process.drain.trigger();
    let cut = environment.process.cut.clone();
    let cutter = tokio::spawn(async move {
        tokio::time::sleep_until(began + patience / 2).await;
        cut.trigger();
    });
    let mut stopping = tokio::task::JoinSet::new();
    for cluster in clusters {
        stopping.spawn(cluster.stop(deadline));
    }
    let mut code = ExitCode::Done;
    while let Some(stopped) = stopping.join_next().await {
        match stopped {
            Ok(Drained::Archived) => {}
            Ok(Drained::InBuffer) => code = ExitCode::Incomplete,
            Err(error) => {
                tracing::error!(
                    "a task panicked while draining; this is a bug: {}",
                    error_chain(&error)
                );
                code = ExitCode::Incomplete;
            }
        }
    }
    cutter.abort();
    tracing::info!(
        seconds = began.elapsed().as_secs_f64(),
        exit_code = code.code(),
        "drained"
    );
    code
}

/// Each client connection takes two sockets. The soft limit is low by default only for programs that use `select`.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(open_files = ?limit.maximum, "limit of open files raised"),
        Err(error) => tracing::info!(open_files = ?limit.current, "the limit of open files stays: {error}"),
    }
}

async fn watch_budget(budget: ProcessBudget) {
    loop {
        metrics::in_flight_bytes(budget.bytes_used());
        tokio::time::sleep(GAUGE_INTERVAL).await;
    }
}

const GAUGE_INTERVAL: Duration = Duration::from_secs(1);
