//! One virtual cluster while it runs: its tasks, and how they are started and stopped.

use std::sync::Arc;
use std::time::Duration;

use teeline_config::cluster::{Ack, OnFailure, VirtualCluster};
use teeline_runtime::exit::error_chain;
use teeline_runtime::health::ComponentHealth;
use teeline_runtime::shutdown::Shutdown;
use teeline_segmenter::{AuditOptions, DrainReport, Options, SegmenterError};
use teeline_wire::client::ClientConfig;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::buffer::{SyncMode, Writer, WriterSettings};
use crate::capture::Capture;
use crate::certificates;
use crate::cluster::Cluster;
use crate::door::Door;
use crate::listeners;
use crate::metrics::{ClusterMetrics, Missed};
use crate::poller::Poller;
use crate::process::{Environment, ProxyError};
use crate::topics::Topics;
use crate::topology::Topology;

/// The tasks of one virtual cluster.
pub(crate) struct RunningCluster {
    cluster: Arc<Cluster>,
    listeners: JoinHandle<()>,
    poller: JoinHandle<()>,
    poller_stop: Shutdown,
    watcher: Option<JoinHandle<()>>,
    certificates: JoinHandle<()>,
    segmenter: Option<RunningSegmenter>,
}

struct RunningSegmenter {
    task: JoinHandle<Option<DrainReport>>,
    stop: Shutdown,
}

/// What became of what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All of it is archived, or nothing was to be archived here.
    Archived,
    /// A part is safe in the buffer and not archived yet.
    InBuffer,
}

impl RunningCluster {
    /// Opens the buffer, binds the bootstrap listener and starts the tasks, in this order: nobody can connect before
    /// capture works.
    pub(crate) async fn start(
        settings: &VirtualCluster,
        environment: &Environment,
    ) -> Result<RunningCluster, ProxyError> {
        let metrics = Arc::new(ClusterMetrics::new(&settings.name));
        let upstream_health = environment
            .health
            .component(format!("upstream/{}", settings.name));
        let capture = match settings.capture.enabled {
            true => Some(open_capture(settings, environment, &metrics).await?),
            false => None,
        };
        let door = Door::open(&settings.listen)
            .await
            .map_err(|source| ProxyError::Certificates {
                cluster: settings.name.clone(),
                source,
            })?;
        let (topology, bound) = Topology::open(&settings.name, &settings.listen).map_err(|source| {
            let address = settings.listen.address.to_string();
            ProxyError::Listen {
                cluster: settings.name.clone(),
                address,
                source,
            }
        })?;
        let listeners_health = environment
            .health
            .component(format!("listeners/{}", settings.name));
        let cluster = Arc::new(Cluster::new(
            settings,
            topology.reporting_to(listeners_health),
            door,
            capture,
            metrics,
            &environment.process,
        ));
        let poller_stop = Shutdown::new();
        let interval = settings.capture.catalog_poll_interval;
        let poller = Poller::new(
            Arc::clone(&cluster),
            Arc::clone(&environment.clock),
            upstream_health,
            interval,
        );
        let watcher = cluster.capture.is_some().then(|| {
            let health = environment.health.component(format!("buffer/{}", settings.name));
            tokio::spawn(watch_buffer(
                Arc::clone(&cluster),
                settings.capture.on_failure,
                health,
            ))
        });
        let running = RunningCluster {
            listeners: tokio::spawn(listeners::serve(Arc::clone(&cluster), bound)),
            poller: tokio::spawn(poller.run(poller_stop.clone())),
            poller_stop,
            watcher,
            certificates: tokio::spawn(certificates::watch(Arc::clone(&cluster))),
            segmenter: start_segmenter(settings, environment),
            cluster,
        };
        let upstream: Vec<String> = settings
            .upstream
            .bootstrap_servers
            .iter()
            .map(ToString::to_string)
            .collect();
        tracing::info!(
            cluster = settings.name,
            listen = %settings.listen.address,
            upstream = upstream.join(","),
            capture = settings.capture.enabled,
            backup_id = settings.backup_id,
            tls = settings.listen.tls.is_some(),
            upstream_tls = settings.upstream.security.tls.is_some(),
            "serving"
        );
        Ok(running)
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
}

impl RunningSegmenter {
    async fn finish(mut self, cluster: &str, deadline: Instant) -> Drained {
        self.stop.trigger();
        match tokio::time::timeout_at(deadline, &mut self.task).await {
            Ok(Ok(Some(report))) if report.complete => Drained::Archived,
            Ok(Ok(Some(report))) => {
                tracing::warn!(
                    cluster,
                    ?report,
                    "not everything captured is archived; the rest is safe in the buffer"
                );
                Drained::InBuffer
            }
            Ok(Ok(None)) => Drained::InBuffer,
            Ok(Err(error)) => {
                notice(cluster, "segmenter", Err(error));
                Drained::InBuffer
            }
            Err(_) => {
                self.task.abort();
                tracing::warn!(
                    cluster,
                    "the drain deadline passed before everything captured was archived; the rest is safe in the buffer"
                );
                Drained::InBuffer
            }
        }
    }
}

async fn open_capture(
    settings: &VirtualCluster,
    environment: &Environment,
    metrics: &Arc<ClusterMetrics>,
) -> Result<Capture, ProxyError> {
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
        // Frames in the buffer's queue hold the process's budget, so this bounds nothing that is not bounded already.
        pending_bytes_max: usize::try_from(environment.config.process.in_flight_bytes).unwrap_or(usize::MAX),
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
    let topics = Arc::new(Topics::new(settings.capture.topics()));
    let clock = Arc::clone(&environment.clock);
    Ok(Capture::new(
        &settings.name,
        &settings.capture,
        writer,
        topics,
        Arc::clone(metrics),
        clock,
    ))
}

fn start_segmenter(settings: &VirtualCluster, environment: &Environment) -> Option<RunningSegmenter> {
    if !settings.capture.enabled {
        return None;
    }
    let store = environment.store.clone()?;
    let options = Options {
        name: settings.name.clone(),
        backup_id: settings.backup_id.clone(),
        buffer_dir: settings.capture.buffer.dir.clone(),
        buffer_max_bytes: settings.capture.buffer.max_bytes,
        store,
        upstream: Some(ClientConfig::from(settings.own_endpoint())),
        settings: environment.config.segmenter.clone(),
        source_lost: false,
        until_drained: false,
        audited: environment.config.audit.enabled,
        audit: Some(AuditOptions {
            topics: settings.capture.topics(),
            settings: environment.config.audit.clone(),
        }),
    };
    let stop = Shutdown::new();
    let health = environment.health.clone();
    let (fatal, cluster, stopping) = (environment.fatal.clone(), settings.name.clone(), stop.clone());
    let task = tokio::spawn(async move {
        let component = health.component(format!("segmenter/{cluster}"));
        match Box::pin(teeline_segmenter::run(options, health, stopping)).await {
            Ok(report) => Some(report),
            Err(source) => {
                // Clients are served on: what is captured waits in the buffer. A setting that can never work is
                // better told by not starting.
                component.failed(error_chain(&source));
                if never_works(&source) {
                    let source = Box::new(source);
                    let _ = fatal.try_send(ProxyError::Segmenter { cluster, source });
                } else {
                    tracing::error!(cluster, "the segmenter stopped: {}", error_chain(&source));
                }
                None
            }
        }
    });
    Some(RunningSegmenter { task, stop })
}

fn never_works(error: &SegmenterError) -> bool {
    matches!(
        error,
        SegmenterError::UnsuitableStore { .. }
            | SegmenterError::OtherCluster { .. }
            | SegmenterError::Usage(_)
    )
}

/// Shows the state of the buffer in metrics, health and log.
async fn watch_buffer(cluster: Arc<Cluster>, on_failure: OnFailure, health: ComponentHealth) {
    let Some(capture) = &cluster.capture else { return };
    let mut last = None;
    let mut lost_intents = 0;
    loop {
        let state = capture.writer().state();
        cluster.metrics.buffer_used_bytes.set(state.used_bytes as f64);
        cluster
            .metrics
            .buffer_pending_bytes
            .set(state.pending_bytes as f64);
        let newly_lost = state.lost_intents.saturating_sub(lost_intents);
        if newly_lost > 0 {
            let batches = usize::try_from(newly_lost).unwrap_or(usize::MAX);
            cluster.metrics.missed(Missed::Lost, batches);
            lost_intents = state.lost_intents;
        }
        cluster.metrics.buffer_full.set(f64::from(u8::from(state.full)));
        cluster
            .metrics
            .buffer_broken
            .set(f64::from(u8::from(state.broken.is_some())));
        let trouble = state.trouble();
        if last.as_ref() != Some(&trouble) {
            match (&trouble, on_failure) {
                (None, _) => health.ready(),
                // Clients are served all the same: taking the proxy out of service would be worse for them.
                (Some(_), OnFailure::Open) => health.ready(),
                (Some(trouble), OnFailure::Closed) => health.not_ready(trouble.clone()),
            }
            if let Some(trouble) = &trouble {
                tracing::warn!(
                    cluster = cluster.name,
                    ?on_failure,
                    "capture is suspended: {trouble}"
                );
            } else if last.is_some() {
                tracing::info!(cluster = cluster.name, "capture goes on");
            }
            last = Some(trouble);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn notice(cluster: &str, task: &str, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(
            cluster,
            task,
            "a task panicked; this is a bug: {}",
            error_chain(&error)
        );
    }
}

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
