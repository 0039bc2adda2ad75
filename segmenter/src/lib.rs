//! From the write-ahead buffer to segments and their ledger.
//!
//! What this crate does: it follows a buffer, matches intents with their outcomes, finds out which topic incarnation
//! they belong to, builds segments of record batches, uploads them, lists them in the ledger, and tells the buffer how
//! far it may be released. What the buffer does not hold (lost answers, transaction markers, writes past the proxy) it
//! fetches from the cluster.
//!
//! What it deliberately does not do: it never truncates or deletes in the buffer of a living writer, it never decides
//! a conflict between two contents of one offset (both are kept), and it never keeps the bytes of what it read in
//! memory: it keeps positions.
//!
//! | module | duty |
//! |---|---|
//! | [`buffer`] | the buffer directory, and following it |
//! | [`engine`] | the whole state of one segmenter, without I/O and without a clock |
//! | [`resolver`], [`confirmed`] | intents meet their outcomes |
//! | [`catalog`], [`topics`] | names, incarnations and configurations of topics |
//! | [`leaders`] | under which leader epoch a batch was written |
//! | [`partition`], [`open_segment`], [`batch`], [`holes`], [`floor`], [`transactions`] | state of one partition |
//! | [`append_time`] | in which form the broker stored a batch |
//! | [`settlement`] | what became of intents in doubt |
//! | [`close`], [`patience`] | when open segments close, and how long small ones wait |
//! | [`watermark`] | how far the buffer may be released |
//! | [`prepare`], [`writer`], [`upload`] | positions to segments in the store |
//! | [`source`], [`fetching`] | asking the cluster, and what it answers |
//! | [`fetcher`] | the Fetch engine: ranges of many partitions straight into segments |
//! | [`state`] | the source's state beside its records: groups, settings, ACLs, quotas, users |
//! | [`audit`] | makes the archive equal the log, and says why where it cannot |
//! | [`upkeep`], [`stored`] | small segments become one, replaced ones go; segments read back |
//! | [`backup`] | topics of a cluster, without a proxy: the auditor's rounds with an end |
//! | [`chain`] | the ledger as one of its writers |
//! | `pipeline` | the shell: tasks, limits, stopping in order |
//! | [`cli`], [`process`], [`options`], [`error`], [`metrics`] | the edges |

pub mod append_time;
pub mod audit;
pub mod backup;
pub mod batch;
pub mod buffer;
pub mod catalog;
pub mod chain;
pub mod close;
pub mod confirmed;
pub mod engine;
pub mod error;
pub mod fetcher;
pub mod fetching;
pub mod floor;
pub mod holes;
pub mod leaders;
pub mod metrics;
pub mod open_segment;
pub mod options;
pub mod partition;
pub mod patience;
pub mod prepare;
pub mod process;
pub mod resolver;
pub mod settlement;
pub mod source;
pub mod state;
pub mod stored;
pub mod topics;
pub mod transactions;
pub mod upkeep;
pub mod upload;
pub mod watermark;
pub mod writer;

pub mod cli;
mod manifest_pace;
mod pipeline;

#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

pub use error::SegmenterError;
pub use options::{DrainReport, Options};
use teeline_runtime::{Health, Shutdown, SystemClock};
use tokio::task::JoinHandle;

/// Runs one segmenter until it is told to stop, or until its buffer is drained, and an auditor beside it if it is to.
///
/// When told to stop it archives what the buffer holds; the future may be dropped at any moment, as what is not
/// committed then is still in the buffer. The auditor stops at once, and what it has not committed is found again; only
/// its lease is given back before the run ends.
///
/// # Errors
/// What cannot be waited out; see [`SegmenterError`].
pub async fn run(
    options: Options,
    health: Health,
    shutdown: Shutdown,
) -> Result<DrainReport, SegmenterError> {
    let component = health.component(format!("segmenter/{}", options.name));
    component.ready();
    let auditor = start_auditor(&options, &health, &shutdown);
    // On the heap: both are large, and whoever awaits this need not be.
    let started = Box::pin(pipeline::start(
        options,
        None,
        Arc::new(SystemClock),
        &health,
        shutdown,
    ));
    let ended = match started.await {
        Ok(Some(pipeline)) => Box::pin(pipeline.run()).await,
        Ok(None) => Ok(DrainReport {
            complete: true,
            ..DrainReport::default()
        }),
        Err(error) => Err(error),
    };
    if let Some(auditor) = auditor {
        auditor.stop().await;
    }
    if let Err(error) = &ended {
        component.failed(teeline_runtime::exit::error_chain(error));
    }
    ended
}

/// A running auditor; it ends with its segmenter.
struct RunningAuditor {
    task: JoinHandle<()>,
    stop: Shutdown,
}

impl RunningAuditor {
    /// Mostly it has stopped by then: it was told when the segmenter was.
    async fn stop(mut self) {
        self.stop.trigger();
        let _ = tokio::time::timeout(AUDITOR_PATIENCE, &mut self.task).await;
    }
}

impl Drop for RunningAuditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The lease is released within this time, or it runs out by itself.
const AUDITOR_PATIENCE: Duration = Duration::from_secs(2);

fn start_auditor(options: &Options, health: &Health, shutdown: &Shutdown) -> Option<RunningAuditor> {
    let audit = options.audit.as_ref().filter(|audit| audit.enabled)?;
    // A run that ends by itself is about its buffer alone.
    let upstream = options
        .upstream
        .clone()
        .filter(|_| !options.source_lost && !options.until_drained)?;
    metrics::register();
    let job = audit::service::Job {
        name: options.name.clone(),
        backup_id: options.backup_id.clone(),
        store: options.store.clone(),
        upstream,
        topics: options.topics.clone(),
        segments: options.settings.clone(),
        settings: audit.clone(),
    };
    let stop = shutdown.child();
    let health = health.component(format!("auditor/{}", options.name));
    let task = tokio::spawn(audit::service::run(
        job,
        Arc::new(SystemClock),
        health,
        stop.clone(),
    ));
    Some(RunningAuditor { task, stop })
}
