//! The state of the cluster beside its records: once at the end of a run, now and then in a continuous one.

use std::time::Duration;

use teeline_archive::ledger::LedgerState;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Clock, Store};
use tokio::time::Instant;

use crate::audit::{AuditError, Auditor, KafkaUpstream};
use crate::state::{Recorder, Settings};

/// Records the state of one cluster.
pub(super) struct State {
    recorder: Recorder,
    looked_at: Option<Instant>,
}

impl State {
    /// For a backup, as the ledger knows it.
    pub(super) fn new(store: &Store, backup_id: &str, cluster_id: &str, ledger: &LedgerState) -> Self {
        State {
            recorder: Recorder::new(store.clone(), backup_id, cluster_id, ledger, Settings::default()),
            looked_at: None,
        }
    }

    /// Whether it is time for another look.
    pub(super) fn is_due(&self) -> bool {
        self.looked_at.is_none_or(|at| at.elapsed() >= INTERVAL)
    }

    /// Looks, and commits what is to be stored. What cannot be read now is left for the next look: records count more.
    pub(super) async fn look(
        &mut self,
        auditor: &mut Auditor,
        upstream: &KafkaUpstream,
        cluster_id: &str,
        clock: &dyn Clock,
        is_last: bool,
    ) -> Result<(), AuditError> {
        self.looked_at = Some(Instant::now());
        let now_ms = clock.now_ms();
        let polled = match upstream.cluster().await {
            Ok(cluster) => self.recorder.poll(&cluster, now_ms).await.map(drop),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = polled {
            tracing::warn!(error = %error_chain(&error), "the state of the cluster was not recorded this time");
        }
        match self.recorder.flush(now_ms, is_last).await {
            Ok(entries) if entries.is_empty() => Ok(()),
            Ok(entries) => {
                let committed = auditor.commit(cluster_id, entries).await;
                if committed.is_err() {
                    self.recorder.start_over();
                }
                committed
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the state of the cluster was not stored this time");
                Ok(())
            }
        }
    }
}

/// Consumers commit every five seconds by default.
const INTERVAL: Duration = Duration::from_secs(10);
