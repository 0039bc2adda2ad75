//! The process of `teeline-segmenter run`: admin port, signals, one segmenter per buffer, the exit code.

use std::io;

use teeline_config::Config;
use teeline_runtime::admin::{AdminError, AdminServer};
use teeline_runtime::exit::{ExitCode, error_chain};
use teeline_runtime::metrics::{self as registry, MetricsError};
use teeline_runtime::{Health, Shutdown, Store, StoreError, signals, threads};
use teeline_wire::client::ClientConfig;
use tokio::task::JoinSet;

use crate::cli::{Plan, RunArgs};
use crate::error::SegmenterError;
use crate::options::{DrainReport, Options};

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The threads cannot be started. The machine's fault.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// The metrics registry cannot be installed. A bug.
    #[error("start metrics")]
    Metrics(#[from] MetricsError),
    /// The admin port cannot be opened. A setting's fault, mostly.
    #[error("start the admin port (hint: a proxy on this host may have it; --admin chooses another address)")]
    Admin(#[from] AdminError),
    /// Signals cannot be listened for. The machine's fault.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// The archive cannot be opened. A setting's fault.
    #[error("open the archive")]
    Archive(#[from] StoreError),
}

/// How the run ended: the reports of the buffers, and the exit code.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: ExitCode,
    /// By name of the cluster.
    pub reports: Vec<(String, DrainReport)>,
}

/// Runs every buffer of the plan to its end.
///
/// # Errors
/// What keeps the process from starting. What ends a segmenter later is logged, and in the exit code.
pub fn run(args: &RunArgs, plan: Plan) -> Result<Ended, ProcessError> {
    let count = plan.config.process.worker_threads;
    threads::run(count, "segmenter", serve(args, plan)).map_err(ProcessError::Runtime)?
}

async fn serve(args: &RunArgs, plan: Plan) -> Result<Ended, ProcessError> {
    let health = Health::new();
    let metrics = registry::install()?;
    let _admin = AdminServer::start(&plan.config.admin, health.clone(), metrics, Vec::new())?;
    let shutdown = Shutdown::new();
    let _signals = signals::listen(shutdown.clone()).map_err(ProcessError::Signals)?;
    let store = Store::open(&plan.storage)?;
    let mut segmenters = JoinSet::new();
    for job in &plan.jobs {
        let options = Options {
            name: job.name.clone(),
            backup_id: job.backup_id.clone(),
            buffer_dir: job.buffer_dir.clone(),
            buffer_max_bytes: job.buffer_max_bytes,
            store: store.clone(),
            topics: job.topics.clone(),
            upstream: job
                .upstream
                .as_ref()
                .filter(|_| !args.source_lost)
                .map(ClientConfig::from),
            settings: plan.settings.clone(),
            source_lost: args.source_lost,
            until_drained: args.drains(),
            audited: plan.config.audit.enabled,
            audit: Some(plan.config.audit.clone()),
        };
        let (name, health, shutdown) = (job.name.clone(), health.clone(), shutdown.clone());
        segmenters.spawn(async move { (name, Box::pin(crate::run(options, health, shutdown)).await) });
    }
    Ok(wait(segmenters, &plan.config, &shutdown).await)
}

/// Waits for the segmenters. One that fails does not stop the others: their buffers are still to be archived.
async fn wait(
    mut segmenters: JoinSet<(String, Result<DrainReport, SegmenterError>)>,
    config: &Config,
    shutdown: &Shutdown,
) -> Ended {
    let mut ended = Ended {
        code: ExitCode::Done,
        reports: Vec::new(),
    };
    let deadline = async {
        shutdown.triggered().await;
        tokio::time::sleep(config.process.drain_timeout).await;
    };
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut deadline => {
                tracing::warn!(left = segmenters.len(), "the drain deadline has passed; the rest is safe in the buffer");
                ended.code = ended.code.worse(ExitCode::Incomplete);
                return ended;
            }
            done = segmenters.join_next() => match done {
                None => return ended,
                Some(Ok((name, Ok(report)))) => {
                    if !report.complete {
                        ended.code = ended.code.worse(ExitCode::Incomplete);
                    }
                    ended.reports.push((name, report));
                }
                Some(Ok((name, Err(error)))) => {
                    tracing::error!(cluster = %name, error = %error_chain(&error), "a segmenter has stopped");
                    ended.code = ExitCode::Failed;
                }
                Some(Err(_)) => {
                    tracing::error!("a segmenter has panicked");
                    ended.code = ExitCode::Failed;
                }
            }
        }
    }
}
