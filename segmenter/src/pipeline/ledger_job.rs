//! The ledger works on one thing at a time: a commit, the manifest, or reading what others committed.

use std::time::{Duration, Instant};

use teeline_archive::ledger::{Commit, LedgerState};
use teeline_runtime::{Backoff, ComponentHealth};
use tokio::task::JoinHandle;

use crate::chain::{CommitFailure, Ledger};
use crate::engine::CommitPlan;
use crate::error::SegmenterError;
use crate::metrics;

/// What the ledger finished.
pub(super) enum LedgerDone {
    /// The commit is there.
    Committed(CommitPlan),
    /// Other chains were read, and there was something new.
    Refreshed,
    /// Nothing that anybody waits for.
    Nothing,
}

/// The ledger, resting or at work.
pub(super) struct LedgerJobs {
    resting: Option<Ledger>,
    working: Option<JoinHandle<(Ledger, Result<LedgerDone, SegmenterError>)>>,
    health: ComponentHealth,
    manifest_interval_ms: u64,
    refresh_interval_ms: i64,
    refreshed_ms: i64,
}

impl LedgerJobs {
    pub(super) fn new(
        ledger: Ledger,
        health: ComponentHealth,
        manifest_interval_ms: u64,
        refresh_interval_ms: i64,
    ) -> Self {
        LedgerJobs {
            resting: Some(ledger),
            working: None,
            health,
            manifest_interval_ms,
            refresh_interval_ms,
            refreshed_ms: 0,
        }
    }

    /// True when nothing is being done.
    pub(super) fn is_free(&self) -> bool {
        self.resting.is_some()
    }

    /// Writes a commit, waiting for the store as long as it takes.
    pub(super) fn commit(&mut self, cluster_id: &str, plan: CommitPlan, now_ms: i64) {
        let Some(mut ledger) = self.resting.take() else {
            return;
        };
        let commit = ledger.prepare(cluster_id, plan.entries.clone(), rand::random(), now_ms);
        let health = self.health.clone();
        self.working = Some(tokio::spawn(async move {
            let result = write(&mut ledger, &commit, &health).await;
            (ledger, result.map(|()| LedgerDone::Committed(plan)))
        }));
    }

    /// Uses a quiet moment: the manifest when it is time, other chains when there are holes that they may fill.
    pub(super) fn idle(&mut self, now_ms: i64, holes: bool) {
        let since = |then: i64| now_ms.saturating_sub(then);
        let is_due = |ledger: &mut Ledger| ledger.is_manifest_due(now_ms, self.manifest_interval_ms);
        if let Some(mut ledger) = self.resting.take_if(is_due) {
            self.working = Some(tokio::spawn(async move {
                let seq = ledger.news();
                let written = write_manifest(&mut ledger, now_ms).await;
                let result = match written {
                    Ok(()) => Ok(()),
                    Err(error @ SegmenterError::Fenced { .. }) => Err(error),
                    Err(error) => {
                        let reason = teeline_runtime::exit::error_chain(&error);
                        tracing::warn!(error = %reason, "manifest.json could not be written; trying again later");
                        Ok(())
                    }
                };
                let news = ledger.news() > seq;
                let done = if news {
                    LedgerDone::Refreshed
                } else {
                    LedgerDone::Nothing
                };
                (ledger, result.map(|()| done))
            }));
        } else if holes && since(self.refreshed_ms) >= self.refresh_interval_ms {
            self.refreshed_ms = now_ms;
            let Some(mut ledger) = self.resting.take() else {
                return;
            };
            self.working = Some(tokio::spawn(async move {
                let result = match ledger.refresh().await {
                    Ok(true) => Ok(LedgerDone::Refreshed),
                    Ok(false) => Ok(LedgerDone::Nothing),
                    // A store that does not answer now is asked again; a fence is for ever.
                    Err(SegmenterError::Store(_)) => Ok(LedgerDone::Nothing),
                    Err(error) => Err(error),
                };
                (ledger, result)
            }));
        }
    }

    /// Waits for what is being done; for ever when there is nothing. Cancel-safe.
    pub(super) async fn done(&mut self) -> Result<LedgerDone, SegmenterError> {
        let Some(working) = self.working.as_mut() else {
            return std::future::pending().await;
        };
        let ended = working.await;
        self.working = None;
        match ended {
            Ok((ledger, result)) => {
                self.resting = Some(ledger);
                result
            }
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(SegmenterError::Stopped { part: "ledger" }),
            },
        }
    }

    /// Shows what the ledger says, when it is at rest.
    pub(super) fn with_state(&self, look: impl FnOnce(&LedgerState)) {
        if let Some(ledger) = &self.resting {
            look(ledger.state());
        }
    }

    /// Writes the manifest a last time if it is not up to date.
    pub(super) async fn write_last_manifest(&mut self, now_ms: i64) -> Result<(), SegmenterError> {
        match &mut self.resting {
            Some(ledger) if ledger.is_manifest_stale() => write_manifest(ledger, now_ms).await,
            _ => Ok(()),
        }
    }
}

impl Drop for LedgerJobs {
    fn drop(&mut self) {
        if let Some(working) = &self.working {
            working.abort();
        }
    }
}

/// The auditor writes the manifest too, and has read all chains: one that knew only its own would show less than before.
async fn write_manifest(ledger: &mut Ledger, now_ms: i64) -> Result<(), SegmenterError> {
    ledger.refresh().await?;
    ledger.write_manifest(now_ms).await
}

async fn write(ledger: &mut Ledger, commit: &Commit, health: &ComponentHealth) -> Result<(), SegmenterError> {
    let began = Instant::now();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match ledger.commit(commit).await {
            Ok(()) => {
                health.ready();
                metrics::committed(began.elapsed().as_secs_f64());
                tracing::debug!(
                    seq = commit.seq,
                    entries = commit.entries.len(),
                    "committed to the ledger"
                );
                return Ok(());
            }
            Err(CommitFailure::Fatal(error)) => return Err(error),
            Err(CommitFailure::Store(error)) => {
                metrics::commit_failed();
                tracing::warn!(seq = commit.seq, %error, "a ledger commit could not be written; trying again");
                health.not_ready(error.to_string());
                backoff.wait().await;
            }
        }
    }
}

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_archive::ids::WriterId;
    use teeline_archive::ledger::Entry;
    use teeline_runtime::Store;

    #[tokio::test]
    async fn a_manifest_says_what_others_committed_whoever_writes_it() {
        let store = Store::in_memory();
        let open = async |writer| {
            Ledger::load(store.clone(), "daily", WriterId(writer))
                .await
                .unwrap()
        };
        let (mut one, mut other) = (open(1).await, open(2).await);
        let brokers = vec![Entry::SourceBrokers(vec!["broker:9092".to_owned()])];
        let commit = one.prepare("cluster", brokers, rand::random(), 1);
        one.commit(&commit).await.unwrap();
        write_manifest(&mut other, 3).await.unwrap();
        assert_eq!(other.news(), 1, "so that the engine hears of it");
        let key = teeline_archive::names::manifest_key("daily").unwrap();
        let manifest = store.get(&key).await.unwrap();
        assert!(String::from_utf8_lossy(&manifest).contains("broker:9092"));
    }
}
