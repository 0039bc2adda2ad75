//! The lease, held by a task of its own while rounds take their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use teeline_runtime::{Shutdown, Store};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::Job;
use super::error::BackupError;
use crate::audit::lease::{Lease, Standing};

/// A lease that is tended.
pub(super) struct Tended {
    lease: Arc<Mutex<Lease>>,
    is_lost: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Tended {
    /// Takes it, whoever has it. When somebody else does the same later, `stop` is triggered.
    pub(super) async fn take(job: &Job, store: &Store, stop: Shutdown) -> Result<Self, BackupError> {
        let mut lease = Lease::new(store.clone(), &job.backup_id, PROGRAM, LEASE_TTL)?;
        // Somebody else may take it in the same moment: the last one has it.
        if lease.take().await.map_err(BackupError::Archive)? == Standing::Theirs {
            return Err(BackupError::TakenOver {
                backup_id: job.backup_id.clone(),
            });
        }
        let pace = lease.pace();
        let lease = Arc::new(Mutex::new(lease));
        let is_lost = Arc::new(AtomicBool::new(false));
        let (own, lost) = (Arc::clone(&lease), Arc::clone(&is_lost));
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pace).await;
                // A store that does not answer says nothing about whose the lease is.
                if let Ok(Standing::Theirs) = own.lock().await.tend(Instant::now()).await {
                    lost.store(true, Ordering::Relaxed);
                    return stop.trigger();
                }
            }
        });
        Ok(Tended { lease, is_lost, task })
    }

    /// Whether somebody else has taken it.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// Whether it is still ours, asked now.
    pub(super) async fn is_still_mine(&self) -> bool {
        matches!(
            self.lease.lock().await.tend(Instant::now()).await,
            Ok(Standing::Mine)
        )
    }

    /// Gives it up, so that nobody has to wait for it.
    pub(super) async fn release(self) {
        self.task.abort();
        let release = async { self.lease.lock().await.release().await };
        match tokio::time::timeout(RELEASE_PATIENCE, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lease is left to run out"),
            Err(_) => tracing::debug!("the lease is left to run out"),
        }
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const PROGRAM: &str = concat!("teeline-segmenter backup ", env!("CARGO_PKG_VERSION"));
/// A store that does not answer must not keep the process.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
const LEASE_TTL: Duration = teeline_config::Audit::DEFAULT_LEASE_TTL;
