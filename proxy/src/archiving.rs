//! The segmenter inside the proxy: one for each virtual cluster that is captured.
//!
//! A reload may change which topics the auditor looks for and how the cluster is reached. The segmenter keeps both for as
//! long as it runs, so it is begun again then: it archives what the buffer holds, or is dropped if that takes too long;
//! what it had not committed is read from the buffer again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use teeline_config::cluster::VirtualCluster;
use teeline_runtime::exit::error_chain;
use teeline_runtime::health::Health;
use teeline_runtime::shutdown::Shutdown;
use teeline_runtime::store::Store;
use teeline_segmenter::{DrainReport, Options, SegmenterError};
use teeline_wire::client::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::process::{Environment, ProxyError};

/// A segmenter that runs.
pub(crate) struct RunningSegmenter {
    task: JoinHandle<Option<DrainReport>>,
    stop: Shutdown,
    settings: watch::Sender<Arc<VirtualCluster>>,
}

/// What became of what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All of it is archived, or nothing was to be archived here.
    Archived,
    /// A part is safe in the buffer and not archived yet.
    InBuffer,
}

impl RunningSegmenter {
    /// None where nothing is captured, or another process archives. `fatal` is told what can never work.
    pub(crate) fn start(
        settings: &VirtualCluster,
        environment: &Environment,
        fatal: Option<mpsc::Sender<ProxyError>>,
    ) -> Option<RunningSegmenter> {
        if !settings.capture.enabled {
            return None;
        }
        let store = environment.store.clone()?;
        let stop = Shutdown::new();
        let (sender, receiver) = watch::channel(Arc::new(settings.clone()));
        let job = Job {
            store,
            segmenter: environment.config.segmenter.clone(),
            audit: environment.config.audit.clone(),
            health: environment.health.clone(),
            settings: receiver,
            stop: stop.clone(),
            fatal,
        };
        Some(RunningSegmenter {
            task: tokio::spawn(job.run()),
            stop,
            settings: sender,
        })
    }

    /// Takes over what concerns it.
    pub(crate) fn follow(&self, settings: &VirtualCluster) {
        self.settings.send_if_modified(|current| {
            let other = current.own_endpoint() != settings.own_endpoint()
                || current.capture.topics() != settings.capture.topics();
            *current = Arc::new(settings.clone());
            other
        });
    }

    /// Stops it, and says what became of what was captured.
    pub(crate) async fn finish(mut self, cluster: &str, deadline: Instant) -> Drained {
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

/// What a segmenter is started with, again and again.
struct Job {
    store: Store,
    segmenter: teeline_config::Segmenter,
    audit: teeline_config::Audit,
    health: Health,
    settings: watch::Receiver<Arc<VirtualCluster>>,
    stop: Shutdown,
    fatal: Option<mpsc::Sender<ProxyError>>,
}

impl Job {
    async fn run(mut self) -> Option<DrainReport> {
        loop {
            let settings = Arc::clone(&self.settings.borrow_and_update());
            let until = self.stop.child();
            let segmenter =
                teeline_segmenter::run(self.options(&settings), self.health.clone(), until.clone());
            let mut segmenter = pin!(Box::pin(segmenter));
            let changed = tokio::select! {
                ended = &mut segmenter => return self.ended(ended),
                changed = self.settings.changed() => changed,
            };
            if changed.is_err() {
                // Nobody can reload any more.
                return self.ended(segmenter.await);
            }
            tracing::info!(
                cluster = settings.name,
                "the segmenter begins again by the new configuration"
            );
            until.trigger();
            let ended = tokio::time::timeout(AGAIN_PATIENCE, &mut segmenter).await;
            let stopping = self.stop.is_triggered();
            // It has worked: what cannot work by the new settings is told, and ends nobody else.
            self.fatal = None;
            match ended {
                Ok(ended) if stopping || ended.is_err() => return self.ended(ended),
                Err(_) if stopping => return self.ended(segmenter.await),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn options(&self, settings: &VirtualCluster) -> Options {
        Options {
            name: settings.name.clone(),
            backup_id: settings.backup_id.clone(),
            buffer_dir: settings.capture.buffer.dir.clone(),
            buffer_max_bytes: settings.capture.buffer.max_bytes,
            store: self.store.clone(),
            topics: settings.capture.topics(),
            upstream: Some(ClientConfig::from(settings.own_endpoint())),
            settings: self.segmenter.clone(),
            source_lost: false,
            until_drained: false,
            audited: self.audit.enabled,
            audit: Some(self.audit.clone()),
        }
    }

    fn ended(&self, ended: Result<DrainReport, SegmenterError>) -> Option<DrainReport> {
        let source = match ended {
            Ok(report) => return Some(report),
            Err(source) => source,
        };
        // Clients are served on: what is captured waits in the buffer. A setting that can never work is better told
        // by not starting.
        let cluster = self.settings.borrow().name.clone();
        let component = self.health.component(format!("segmenter/{cluster}"));
        component.failed(error_chain(&source));
        match &self.fatal {
            Some(fatal) if never_works(&source) => {
                let source = Box::new(source);
                let _ = fatal.try_send(ProxyError::Segmenter { cluster, source });
            }
            _ => tracing::error!(cluster, "the segmenter stopped: {}", error_chain(&source)),
        }
        None
    }
}

fn never_works(error: &SegmenterError) -> bool {
    matches!(
        error,
        SegmenterError::UnsuitableStore { .. }
            | SegmenterError::OtherCluster { .. }
            | SegmenterError::Usage(_)
    )
}

/// A panic in a task ends that task alone; it is a bug, and must be seen.
pub(crate) fn notice(cluster: &str, task: &str, ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(
            cluster,
            task,
            "a task panicked; this is a bug: {}",
            error_chain(&error)
        );
    }
}

/// How long a segmenter may take to archive what it has when it is begun again. It is dropped then: a store that does
/// not answer must not keep the new rules from the auditor.
const AGAIN_PATIENCE: Duration = Duration::from_secs(30);
