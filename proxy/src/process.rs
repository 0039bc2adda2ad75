//! The whole process: start everything in order, wait, reload when asked to, drain in order.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use teeline_config::{Config, ConfigErrors, Listen};
use teeline_runtime::admin::{AdminError, AdminServer};
use teeline_runtime::clock::SystemClock;
use teeline_runtime::exit::{ExitCode, error_chain};
use teeline_runtime::health::Health;
use teeline_runtime::metrics::{self as registry, MetricsError};
use teeline_runtime::shutdown::Shutdown;
use teeline_runtime::store::{Store, StoreError};
use teeline_runtime::{Clock, signals, threads};
use teeline_segmenter::SegmenterError;
use teeline_wire::client::ClientError;
use teeline_wire::tls::UnusableFiles;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::archiving::Drained;
use crate::budget::ProcessBudget;
use crate::buffer::BufferError;
use crate::cluster::{self, to_usize};
use crate::metrics;
use crate::observe::{self, Observatory};
use crate::places::{self, Places};
use crate::reload::{self, Source};
use crate::running::{OpenCluster, RunningCluster};
use crate::stop::Stop;
use crate::upstream::Upstream;

/// A proxy that is to be run.
pub struct Proxy {
    config: Config,
    source: Option<Source>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Proxy").finish_non_exhaustive()
    }
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
    /// What the brokers are reached by cannot be used. A setting's fault.
    #[error("read the certificates for the brokers of cluster {cluster} (hint: upstream.tls)")]
    UpstreamTls {
        /// The cluster.
        cluster: String,
        /// Why.
        source: Box<ClientError>,
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
    /// What is in force.
    pub(crate) config: Config,
    pub(crate) process: cluster::Process,
    pub(crate) health: Health,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Option<Store>,
}

impl Environment {
    /// The same with another configuration.
    pub(crate) fn with(&self, config: Config) -> Environment {
        Environment {
            config,
            process: self.process.clone(),
            health: self.health.clone(),
            clock: Arc::clone(&self.clock),
            store: self.store.clone(),
        }
    }

    /// Opens the archive if something is archived here and it is not open yet.
    pub(crate) fn open_store(&mut self) -> Result<(), ProxyError> {
        let captures = self.config.clusters.iter().any(|cluster| cluster.capture.enabled);
        if !captures || !self.config.segmenter.embedded || self.store.is_some() {
            return Ok(());
        }
        let storage = self.config.storage.as_ref().ok_or_else(|| {
            let text = "no storage is configured (hint: add storage, or run with --no-segmenter)";
            ProxyError::Unusable(text.to_owned())
        })?;
        self.store = Some(Store::open(storage)?);
        Ok(())
    }
}

impl Proxy {
    /// A proxy with this configuration.
    #[must_use]
    pub fn new(config: Config) -> Proxy {
        Proxy { config, source: None }
    }

    /// The same, which reads its configuration again when it is asked for a reload.
    #[must_use]
    pub fn reloading(
        self,
        source: impl Fn() -> Result<Config, ConfigErrors> + Send + Sync + 'static,
    ) -> Proxy {
        Proxy {
            source: Some(Arc::new(source)),
            ..self
        }
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
        let (requests, receiver) = mpsc::channel(RELOADS_WAITING_MAX);
        let observatory = Observatory::new(self.config.log.access);
        let mut routes = vec![reload::route(requests)];
        routes.extend(observe::routes(&observatory));
        let _admin = AdminServer::start(&self.config.admin, health.clone(), registry, routes)?;
        let count = self.config.process.worker_threads;
        let serving = serve(self.config, self.source, health, observatory, receiver);
        threads::run(count, "proxy", serving).map_err(ProxyError::Runtime)?
    }
}

/// The clusters: those that are served, and those that a reload took away and that finish what is in flight.
struct Fleet {
    environment: Environment,
    clusters: Vec<RunningCluster>,
    leaving: JoinSet<(String, Drained)>,
    /// Something that was captured by a cluster that has gone is not archived.
    incomplete: bool,
}

async fn serve(
    config: Config,
    source: Option<Source>,
    health: Health,
    observatory: Arc<Observatory>,
    mut requests: mpsc::Receiver<reload::Request>,
) -> Result<ExitCode, ProxyError> {
    let stop = Shutdown::new();
    let _signals = signals::listen(stop.clone()).map_err(ProxyError::Signals)?;
    let mut hangups = signals::Hangups::listen().map_err(ProxyError::Signals)?;
    let (fatal, mut failures) = mpsc::channel(1);
    let mut fleet = Fleet::start(environment(config, health, observatory)?, &fatal).await?;
    metrics::config_loaded(SystemTime::now());
    let gauge = tokio::spawn(watch_budget(fleet.environment.process.budget.clone()));
    let failure = loop {
        let request = tokio::select! {
            () = stop.triggered() => break None,
            failure = failures.recv() => break failure,
            Some(gone) = fleet.leaving.join_next() => {
                fleet.gone(gone);
                continue;
            }
            Some(request) = requests.recv() => request,
            () = hangups.next() => reload::Request::by_signal(),
        };
        fleet.reload(request, source.as_ref(), &stop).await;
    };
    // Whoever asks for a reload from here on is told that there is none.
    drop(requests);
    let drained = fleet.drain(hangups, failure.is_some()).await;
    gauge.abort();
    match failure {
        Some(failure) => Err(failure),
        None => Ok(drained),
    }
}

fn environment(
    config: Config,
    health: Health,
    observatory: Arc<Observatory>,
) -> Result<Environment, ProxyError> {
    let process = cluster::Process {
        budget: ProcessBudget::new(to_usize(config.process.in_flight_bytes)),
        places: Places::new(places_most(&config)),
        observatory,
        stop: Stop::default(),
    };
    let mut environment = Environment {
        config,
        process,
        health,
        clock: Arc::new(SystemClock),
        store: None,
    };
    environment.open_store()?;
    Ok(environment)
}

impl Fleet {
    async fn start(environment: Environment, fatal: &mpsc::Sender<ProxyError>) -> Result<Fleet, ProxyError> {
        let mut clusters = Vec::with_capacity(environment.config.clusters.len());
        for settings in &environment.config.clusters {
            // Certificates for brokers that are not there yet may come later, too.
            let upstream = Arc::new(Upstream::new(&settings.upstream));
            let open = OpenCluster::open(settings, &environment, upstream).await?;
            clusters.push(open.start(&environment, Some(fatal.clone())));
        }
        Ok(Fleet {
            environment,
            clusters,
            leaving: JoinSet::new(),
            incomplete: false,
        })
    }

    /// A stop that comes meanwhile wins: what was made ready is dropped, and nothing has changed.
    async fn reload(&mut self, request: reload::Request, source: Option<&Source>, stop: &Shutdown) {
        let ready = tokio::select! {
            biased;
            () = stop.triggered() => Err(reload::Report::refused(reload::STOPPING)),
            () = tokio::time::sleep(PREPARE_MAX) => Err(reload::Report::refused(reload::TOO_SLOW)),
            ready = Box::pin(reload::prepare(source, &self.clusters, &self.environment)) => ready,
        };
        let report = match ready {
            Ok(ready) => {
                let (report, go) = ready.apply(&mut self.clusters, &mut self.environment);
                let deadline = Instant::now() + self.environment.config.process.drain_timeout;
                for cluster in go {
                    tracing::info!(cluster = cluster.name(), "no longer served: draining");
                    let name = cluster.name().to_owned();
                    self.leaving
                        .spawn(async move { (name, Box::pin(cluster.retire(deadline)).await) });
                }
                report
            }
            Err(refused) => refused,
        };
        request.answer(report);
    }

    fn gone(&mut self, gone: Result<(String, Drained), JoinError>) {
        match gone {
            Ok((name, drained)) => {
                // It may be there again by now.
                if !self.clusters.iter().any(|cluster| cluster.name() == name) {
                    RunningCluster::forget_health(&name, &self.environment.health);
                }
                let archived = drained == Drained::Archived;
                self.incomplete |= !archived;
                tracing::info!(
                    cluster = name,
                    archived,
                    "drained; it is no longer part of the process"
                );
            }
            Err(error) => {
                self.incomplete = true;
                panicked(&error);
            }
        }
    }

    /// Who stops first, and what is finished before:
    ///
    /// 1. The process is not ready any more; for `process.drain_delay` it goes on as before, so that whoever looks at that
    ///    has time to send clients elsewhere.
    /// 2. Listeners close. Sessions finish what is in flight; half of the time left is theirs, then they are cut.
    /// 3. The poller writes a last catalog, so that what was answered last can be attributed.
    /// 4. The buffer writes and syncs everything, and is closed: from here on nothing can be lost.
    /// 5. The segmenter archives what the buffer holds, until the deadline.
    ///
    /// A cluster that a reload took away goes the same way alone. No reload begins meanwhile: SIGHUP is only noted.
    async fn drain(self, mut hangups: signals::Hangups, at_once: bool) -> ExitCode {
        let began = Instant::now();
        let process = &self.environment.config.process;
        let deadline = began + process.drain_timeout;
        let health = self.environment.health.component("process");
        health.not_ready("stopping");
        let noted = tokio::spawn(async move {
            loop {
                hangups.next().await;
                reload::Request::by_signal().answer(reload::Report::refused(reload::STOPPING));
            }
        });
        if !at_once && !process.drain_delay.is_zero() {
            let delay_seconds = process.drain_delay.as_secs_f64();
            tracing::info!(delay_seconds, "not ready any more; clients are still taken in");
            tokio::time::sleep(process.drain_delay).await;
        }
        let patience = deadline.saturating_duration_since(Instant::now());
        tracing::info!(deadline_seconds = patience.as_secs_f64(), "draining");
        self.environment.process.stop.begin(patience / 2);
        let mut stopping = self.leaving;
        for cluster in self.clusters {
            let name = cluster.name().to_owned();
            stopping.spawn(async move { (name, Box::pin(cluster.stop(deadline)).await) });
        }
        let mut code = match self.incomplete {
            true => ExitCode::Incomplete,
            false => ExitCode::Done,
        };
        while let Some(stopped) = stopping.join_next().await {
            match stopped {
                Ok((_, Drained::Archived)) => {}
                Ok((_, Drained::InBuffer)) => code = ExitCode::Incomplete,
                Err(error) => {
                    panicked(&error);
                    code = ExitCode::Incomplete;
                }
            }
        }
        noted.abort();
        tracing::info!(
            seconds = began.elapsed().as_secs_f64(),
            exit_code = code.code(),
            "drained"
        );
        code
    }
}

fn panicked(error: &JoinError) {
    tracing::error!(
        "a task panicked while draining; this is a bug: {}",
        error_chain(error)
    );
}

/// Room for as many connections as may be open here, whatever each cluster allows.
pub(crate) fn places_most(config: &Config) -> usize {
    let ports = |listen: &Listen| {
        listen
            .addressing
            .ports()
            .map_or(0, |ports| ports.all_ports().count())
    };
    let listens = config.clusters.iter().map(|cluster| &cluster.listen);
    let (mut listeners, mut wanted) = (0_usize, 0_usize);
    for listen in listens {
        listeners = listeners.saturating_add(1).saturating_add(ports(listen));
        wanted = wanted.saturating_add(listen.max_connections as usize);
    }
    let most = places::most_for_open_files(getrlimit(Resource::Nofile).current, listeners);
    if most < wanted {
        tracing::info!(
            connections = most,
            "the limit of open files allows fewer connections than listen.max_connections"
        );
    }
    most
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
        metrics::held_bytes(&budget);
        tokio::time::sleep(GAUGE_INTERVAL).await;
    }
}

const GAUGE_INTERVAL: Duration = Duration::from_secs(1);
/// A file on a disk that does not answer must not keep the next reload, or the end of a cluster, from being seen.
const PREPARE_MAX: Duration = Duration::from_secs(60);
/// Whoever asks while so many wait, waits to ask.
const RELOADS_WAITING_MAX: usize = 8;
