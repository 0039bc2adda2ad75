//! One virtual cluster while it runs: its tasks, and how they are started, changed and stopped.

use std::sync::Arc;
use std::time::Duration;

use teeline_config::cluster::{Ack, VirtualCluster};
use teeline_config::process::Process as ProcessSettings;
use teeline_config::{Config, KafkaEndpoint};
use teeline_runtime::exit::error_chain;
use teeline_runtime::health::Health;
use teeline_runtime::shutdown::Shutdown;
use teeline_wire::client::{ClientConfig, Cluster as Client, RetryPolicy, TopicSelection};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::archiving::{Drained, RunningSegmenter, notice};
use crate::buffer::{SyncMode, Writer, WriterSettings};
use crate::buffer_state;
use crate::capture::Capture;
use crate::certificates;
use crate::cluster::{Cluster, Live, to_usize};
use crate::door::Door;
use crate::intercept;
use crate::listeners;
use crate::metrics::ClusterMetrics;
use crate::openness::Openness;
use crate::poller::Poller;
use crate::process::{Environment, ProxyError};
use crate::sockets::{BindError, Change};
use crate::topics::Topics;
use crate::topology::{ListenError, Move, Topology};
use crate::upstream::Upstream;

/// The tasks of one virtual cluster.
pub(crate) struct RunningCluster {
    settings: VirtualCluster,
    cluster: Arc<Cluster>,
    listeners: JoinHandle<()>,
    poller: JoinHandle<()>,
    poller_stop: Shutdown,
    watcher: Option<JoinHandle<()>>,
    certificates: JoinHandle<()>,
    names: JoinHandle<()>,
    segmenter: Option<RunningSegmenter>,
}

/// What of a cluster is there before anybody can connect: its buffer and its listeners.
pub(crate) struct OpenCluster {
    cluster: Arc<Cluster>,
    settings: VirtualCluster,
    changes: mpsc::Receiver<Change>,
    unused: CloseUnused,
}

/// Closes the buffer of a cluster that is dropped before it starts: its thread, and its lock with it, would stay.
struct CloseUnused(Option<Arc<Cluster>>);

impl Drop for CloseUnused {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.take() {
            tokio::spawn(async move { close_unused(&cluster).await });
        }
    }
}

async fn close_unused(cluster: &Cluster) {
    if let Some(capture) = &cluster.capture
        && let Err(error) = capture.writer().close().await
    {
        tracing::warn!(
            cluster = cluster.name,
            "the write-ahead buffer of a cluster that was not taken was not closed: {}",
            error_chain(&error)
        );
    }
}

/// New settings of a running cluster, with all that they need.
pub(crate) struct Prepared {
    settings: VirtualCluster,
    live: Live,
    moved: Option<Move>,
    /// What is known of the brokers' addresses may be wrong from then on.
    elsewhere: bool,
}

impl OpenCluster {
    /// Binds the listeners and opens the buffer. Nobody is let in yet: capture must work first. The buffer comes last,
    /// because it is not closed by being dropped.
    pub(crate) async fn open(
        settings: &VirtualCluster,
        environment: &Environment,
        upstream: Arc<Upstream>,
    ) -> Result<OpenCluster, ProxyError> {
        let door = open_door(settings).await?;
        // Names are resolved, which may take its time.
        let (name, listen) = (settings.name.clone(), settings.listen.clone());
        let opened = tokio::task::spawn_blocking(move || Topology::open(&name, &listen)).await?;
        let (topology, changes) = opened.map_err(|error| cannot_listen(settings, error))?;
        let live = Live::new(settings, &environment.config.process, door, upstream);
        let (capture, metrics) = match settings.capture.enabled {
            true => {
                let writer = open_buffer(settings, environment).await?;
                // Registered when nothing can go wrong any more: a cluster that never came has no series.
                let metrics = Arc::new(ClusterMetrics::new(&settings.name));
                (Some(capture(settings, environment, writer, &metrics)), metrics)
            }
            false => (None, Arc::new(ClusterMetrics::new(&settings.name))),
        };
        let cluster = Cluster::new(settings, live, topology, capture, metrics, &environment.process);
        let cluster = Arc::new(cluster);
        Ok(OpenCluster {
            unused: CloseUnused(Some(Arc::clone(&cluster))),
            cluster,
            settings: settings.clone(),
            changes,
        })
    }

    /// Closes the buffer again: others may open it when this returns.
    pub(crate) async fn abandon(mut self) {
        if let Some(cluster) = self.unused.0.take() {
            close_unused(&cluster).await;
        }
    }

    /// Starts the tasks. `fatal` is told what can never work.
    pub(crate) fn start(
        self,
        environment: &Environment,
        fatal: Option<mpsc::Sender<ProxyError>>,
    ) -> RunningCluster {
        let OpenCluster {
            cluster,
            settings,
            changes,
            mut unused,
        } = self;
        unused.0 = None;
        let health = |part: &str| environment.health.component(format!("{part}/{}", settings.name));
        cluster.topology.report_to(health("listeners"));
        let poller_stop = Shutdown::new();
        let poller = Poller::new(
            Arc::clone(&cluster),
            Arc::clone(&environment.clock),
            health("upstream"),
        );
        let watcher = cluster
            .capture
            .is_some()
            .then(|| tokio::spawn(buffer_state::watch(Arc::clone(&cluster), health("buffer"))));
        announce(&settings, cluster.topology.listeners());
        RunningCluster {
            listeners: tokio::spawn(listeners::serve(Arc::clone(&cluster), changes)),
            poller: tokio::spawn(poller.run(poller_stop.clone())),
            poller_stop,
            watcher,
            certificates: tokio::spawn(certificates::watch(Arc::clone(&cluster))),
            names: tokio::spawn(intercept::resolve_names(Arc::clone(&cluster))),
            segmenter: RunningSegmenter::start(&settings, environment, fatal),
            settings,
            cluster,
        }
    }
}

fn announce(settings: &VirtualCluster, listeners: usize) {
    let upstream: Vec<String> = settings
        .upstream
        .bootstrap_servers
        .iter()
        .map(ToString::to_string)
        .collect();
    tracing::info!(
        cluster = settings.name,
        listen = %settings.listen.address,
        listeners,
        upstream = upstream.join(","),
        capture = settings.capture.enabled,
        backup_id = settings.backup_id,
        tls = settings.listen.tls.is_some(),
        upstream_tls = settings.upstream.security.tls.is_some(),
        "serving"
    );
}

impl RunningCluster {
    /// Takes over what was prepared for it. Nothing can go wrong any more.
    pub(crate) fn apply(&mut self, prepared: Prepared) {
        let Prepared {
            settings,
            live,
            moved,
            elsewhere,
        } = prepared;
        let cluster = &self.cluster;
        // First: whoever comes in by a new listener goes through the new door.
        cluster.live.store(Arc::new(live));
        if let Some(moved) = moved {
            cluster.topology.apply(moved);
        }
        if elsewhere {
            cluster.topology.forget();
        }
        if let Some(capture) = &cluster.capture {
            capture.follow(&settings.capture);
        }
        cluster.set_places(&settings.listen);
        if let Some(segmenter) = &self.segmenter {
            segmenter.follow(&settings);
        }
        self.settings = settings;
        // What a reload changed shows in what is known of the brokers at once.
        cluster.trouble.notify_one();
    }

    /// Makes everything ready that new settings need and that may fail. Nothing changes yet.
    ///
    /// # Errors
    /// When certificates cannot be used, or a listener cannot be bound.
    pub(crate) async fn prepare(
        &self,
        settings: &VirtualCluster,
        process: &ProcessSettings,
    ) -> Result<Prepared, ProxyError> {
        let live = self.cluster.live.load_full();
        let (old, new) = (&self.settings.listen, &settings.listen);
        let same_door = old.tls == new.tls
            && old.proxy_protocol_from == new.proxy_protocol_from
            && old.handshake_timeout == new.handshake_timeout;
        let door = match same_door {
            true => Arc::clone(&live.door),
            false => open_door(settings).await?,
        };
        let elsewhere = leads_elsewhere(&self.settings.upstream, &settings.upstream);
        let upstream = match self.settings.upstream == settings.upstream {
            true => Arc::clone(&live.upstream),
            false => {
                let former = (!elsewhere).then(|| Arc::clone(&live.upstream.openness));
                open_upstream(settings, former).await?
            }
        };
        if settings.capture.enabled && elsewhere {
            self.check_identity(settings).await?;
        }
        let moved = old.address != new.address
            || old.advertised_host != new.advertised_host
            || old.addressing != new.addressing;
        let moved = match moved {
            false => None,
            true => {
                // Names are resolved, which may take its time.
                let (cluster, listen) = (Arc::clone(&self.cluster), new.clone());
                let prepared = tokio::task::spawn_blocking(move || cluster.topology.prepare(&listen)).await?;
                Some(prepared.map_err(|error| cannot_listen(settings, error))?)
            }
        };
        Ok(Prepared {
            live: Live::new(settings, process, door, upstream),
            settings: settings.clone(),
            moved,
            elsewhere,
        })
    }

    /// What is captured belongs to one cluster: other servers have to be the same one's.
    async fn check_identity(&self, settings: &VirtualCluster) -> Result<(), ProxyError> {
        let Some(known) = self.cluster.identity.get() else {
            // Nobody has answered yet, so nothing was captured of it in this process: as at a start.
            return Ok(());
        };
        let unusable = |why: String| {
            let name = &settings.name;
            ProxyError::Unusable(format!("the new servers of cluster {name} {why}"))
        };
        let config = ClientConfig {
            retry: IDENTITY_RETRY,
            ..ClientConfig::from(settings.own_endpoint())
        };
        let asked = async {
            Client::connect(config)
                .await?
                .metadata(TopicSelection::None)
                .await
        };
        let answer = asked.await.map_err(|error| {
            let why = error_chain(&error);
            unusable(format!(
                "cannot be asked whether they are the same cluster: {why}"
            ))
        })?;
        match answer.cluster_id {
            Some(id) if id != *known => Err(unusable(format!(
                "are another cluster ({id}, and not {known}); a backup holds one cluster only (hint: give it as a cluster of its own)"
            ))),
            _ => Ok(()),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Tells its connections to end, when it alone goes.
    pub(crate) fn begin_stop(&self, patience: Duration) {
        self.cluster.stop.begin(patience);
    }

    /// It is no longer part of the process, so its state says nothing about it.
    pub(crate) fn forget_health(name: &str, health: &Health) {
        for (component, _) in health.states() {
            // As `listeners/main` or `segmenter/main/archive`.
            if component.split('/').nth(1) == Some(name) {
                health.component(component).remove();
            }
        }
    }

    /// Drains the cluster, phase by phase; sessions have been told to by now.
    pub(crate) async fn stop(self, deadline: Instant) -> Drained {
        let name = self.cluster.name.as_str();
        notice(name, "listeners", self.listeners.await);
        self.poller_stop.trigger();
        notice(name, "poller", self.poller.await);
        let closed = match &self.cluster.capture {
            Some(capture) => tokio::time::timeout_at(deadline, capture.writer().close())
                .await
                .map_err(|_| "the disk does not answer".to_owned())
                .and_then(|closed| closed.map_err(|error| error_chain(&error))),
            None => Ok(()),
        };
        if let Err(error) = &closed {
            tracing::error!(cluster = name, "the write-ahead buffer was not closed: {error}");
        }
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
        self.certificates.abort();
        self.names.abort();
        let drained = match self.segmenter {
            Some(segmenter) => segmenter.finish(name, deadline).await,
            None => Drained::Archived,
        };
        if closed.is_err() {
            Drained::InBuffer
        } else {
            drained
        }
    }

    /// The same for one that goes alone: what is measured of it must not look like trouble for ever.
    pub(crate) async fn retire(self, deadline: Instant) -> Drained {
        let (metrics, settings) = (Arc::clone(&self.cluster.metrics), self.settings.clone());
        let drained = self.stop(deadline).await;
        metrics.gone();
        if drained == Drained::InBuffer {
            tracing::warn!(
                cluster = settings.name,
                dir = %settings.capture.buffer.dir.display(),
                "a cluster that is no longer served leaves captured data in its buffer (hint: `teeline-segmenter run` \
                 with the former configuration archives it)"
            );
        }
        drained
    }
}

/// What may wait for the disk in all buffers together is a quarter of the room for requests: while a disk stands still the
/// rest is for those that pass uncaptured (`capture.on_failure: open`). What waits also keeps what else is in the read
/// buffers that it was cut off, up to eight times as much where little of them is captured.
fn pending_bytes_max(config: &Config) -> usize {
    let capturing = config.clusters.iter().filter(|cluster| cluster.capture.enabled);
    let buffers = capturing.count().max(1) as u64;
    to_usize(config.process.in_flight_bytes / 4 / buffers)
}

async fn open_buffer(settings: &VirtualCluster, environment: &Environment) -> Result<Writer, ProxyError> {
    let buffer = &settings.capture.buffer;
    let mode = match settings.capture.ack {
        Ack::Durable => SyncMode::OnAppend,
        Ack::Async => SyncMode::Every(Duration::from_millis(buffer.sync_interval_ms)),
    };
    let writer = WriterSettings {
        dir: buffer.dir.clone(),
        max_bytes: buffer.max_bytes,
        file_bytes: buffer.file_bytes,
        mode,
        pending_bytes_max: pending_bytes_max(&environment.config),
    };
    let clock = Arc::clone(&environment.clock);
    let opened = tokio::task::spawn_blocking(move || Writer::open(writer, move || clock.now_ms())).await?;
    let (writer, report) = opened.map_err(|source| ProxyError::Buffer {
        cluster: settings.name.clone(),
        source,
    })?;
    tracing::info!(
        cluster = settings.name,
        dir = %buffer.dir.display(),
        session = %report.session,
        files = report.files,
        bytes = report.bytes,
        "write-ahead buffer opened"
    );
    Ok(writer)
}

fn capture(
    settings: &VirtualCluster,
    environment: &Environment,
    writer: Writer,
    metrics: &Arc<ClusterMetrics>,
) -> Capture {
    let topics = Arc::new(Topics::new(settings.capture.topics()));
    let clock = Arc::clone(&environment.clock);
    let metrics = Arc::clone(metrics);
    Capture::new(&settings.name, &settings.capture, writer, topics, metrics, clock)
}

async fn open_door(settings: &VirtualCluster) -> Result<Arc<Door>, ProxyError> {
    let opened = Door::open(&settings.listen).await;
    opened.map(Arc::new).map_err(|source| ProxyError::Certificates {
        cluster: settings.name.clone(),
        source,
    })
}

/// With its files read once, so that those that cannot be used are found before anything changes.
///
/// What is known of the brokers' listener stays if it is the same one.
pub(crate) async fn open_upstream(
    settings: &VirtualCluster,
    former: Option<Arc<Openness>>,
) -> Result<Arc<Upstream>, ProxyError> {
    let mut upstream = Upstream::new(&settings.upstream);
    if let Some(openness) = former {
        upstream.openness = openness;
    }
    let upstream = Arc::new(upstream);
    let looking = Arc::clone(&upstream);
    let looked = tokio::task::spawn_blocking(move || match &looking.tls {
        Some(tls) => tls.reload().map(drop),
        None => Ok(()),
    });
    looked.await?.map_err(|error| ProxyError::UpstreamTls {
        cluster: settings.name.clone(),
        source: Box::new(error),
    })?;
    Ok(upstream)
}

/// Whether what is known of the brokers' addresses may be wrong from then on: by another protocol they are reached at
/// other ports, and other servers may be another cluster.
fn leads_elsewhere(old: &KafkaEndpoint, new: &KafkaEndpoint) -> bool {
    let mut servers = old.bootstrap_servers.iter();
    let stays = servers.any(|server| new.bootstrap_servers.contains(server));
    !stays || old.security.protocol() != new.security.protocol()
}

fn cannot_listen(settings: &VirtualCluster, error: ListenError) -> ProxyError {
    let (address, source) = match error {
        ListenError::Resolve { address, source } => (address.to_string(), source),
        ListenError::Bind(BindError { address, source }) => (address.to_string(), source),
    };
    ProxyError::Listen {
        cluster: settings.name.clone(),
        address,
        source,
    }
}

/// Whoever waits for a reload waits for this.
const IDENTITY_RETRY: RetryPolicy = RetryPolicy {
    deadline: Duration::from_secs(5),
    unknown_topic_deadline: Duration::ZERO,
    backoff_first: Duration::from_millis(50),
    backoff_max: Duration::from_millis(500),
};
