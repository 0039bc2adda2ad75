//! The state of the cluster beside its records: once at the end of a run, now and then in a continuous one.

use std::future::Future;
use std::time::Duration;

use teeline_archive::ledger::LedgerState;
use teeline_config::OffsetsFrom;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Shutdown, Store};
use tokio::time::Instant;

use super::report::Trouble;
use super::run::Surroundings;
use crate::audit::{AuditError, Auditor, KafkaUpstream};
use crate::state::{Recorder, Settings};

/// Records the state of one cluster.
pub(super) struct State {
    recorder: Recorder,
    looked_at: Option<Instant>,
    /// What the last look that came to its end could not see; none yet.
    unseen: Option<Vec<Trouble>>,
}

impl State {
    /// For a backup, as the ledger knows it. A run that ends looks once: there is nothing to follow.
    pub(super) fn new(
        store: &Store,
        backup_id: &str,
        cluster_id: &str,
        ledger: &LedgerState,
        continuous: bool,
    ) -> Self {
        let settings = Settings {
            offsets: match continuous {
                true => OffsetsFrom::Log,
                false => OffsetsFrom::Poll,
            },
            ..Settings::default()
        };
        State {
            recorder: Recorder::new(store.clone(), backup_id, cluster_id, ledger, settings),
            looked_at: None,
            unseen: None,
        }
    }

    /// Whether it is time for another look.
    pub(super) fn is_due(&self) -> bool {
        self.looked_at.is_none_or(|at| at.elapsed() >= INTERVAL)
    }

    /// Looks, and commits what is to be stored. What cannot be read now is left for the next look, because records count
    /// more, and told. A look that is still under way when the process stops is given up soon.
    pub(super) async fn look(
        &mut self,
        auditor: &mut Auditor,
        upstream: &KafkaUpstream,
        cluster_id: &str,
        around: &Surroundings,
        is_last: bool,
    ) -> Result<Vec<Trouble>, AuditError> {
        self.looked_at = Some(Instant::now());
        let now_ms = around.clock.now_ms();
        let recorder = &mut self.recorder;
        let poll = async {
            let cluster = upstream.cluster().await?;
            recorder.poll(&cluster, now_ms).await
        };
        match soon(&around.shutdown, poll).await {
            // What an earlier look has seen is as good as its age.
            None => {}
            Some(Ok(report)) => {
                let failures = report.failures.iter();
                let told = failures.map(|(kind, error)| trouble(&format!("{kind}: {}", error_chain(error))));
                self.unseen = Some(told.collect());
            }
            Some(Err(error)) => {
                let reason = error_chain(&error);
                tracing::warn!(error = %reason, "the state of the cluster was not recorded this time");
                self.unseen = Some(vec![trouble(&reason)]);
            }
        }
        let mut troubles = match &self.unseen {
            Some(unseen) => unseen.clone(),
            None => vec![trouble("stopped before the first look at it")],
        };
        let store = async {
            match self.recorder.flush(now_ms, is_last).await {
                Ok(entries) if entries.is_empty() => Ok(None),
                Ok(entries) => {
                    let committed = auditor.commit(cluster_id, entries).await;
                    if committed.is_err() {
                        self.recorder.start_over();
                    }
                    committed.map(|()| None)
                }
                Err(error) => Ok(Some(error_chain(&error))),
            }
        };
        let failure = match soon(&around.shutdown, store).await {
            Some(stored) => stored?,
            None => {
                self.recorder.start_over();
                Some("stopped before the archive had taken it".to_owned())
            }
        };
        if let Some(reason) = failure {
            tracing::warn!(error = %reason, "the state of the cluster was not stored this time");
            troubles.push(trouble(&reason));
        }
        Ok(troubles)
    }
}

fn trouble(reason: &str) -> Trouble {
    let reason = format!("the state of the cluster beside its records was not recorded: {reason}");
    Trouble::new("*", None, None, reason)
}

/// Runs a future that may be dropped anywhere; given up a moment after the process was told to stop.
pub(super) async fn soon<F: Future>(stop: &Shutdown, future: F) -> Option<F::Output> {
    let over = async {
        stop.triggered().await;
        tokio::time::sleep(STOPPING_PATIENCE).await;
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = over => None,
    }
}

/// How long a process that is to stop waits for brokers and store. A commit gives up sooner and says why.
const STOPPING_PATIENCE: Duration = Duration::from_millis(1_500);
/// Consumers commit every five seconds by default.
const INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_end_is_given_up_soon_after_the_stop_and_not_before() {
        let stop = Shutdown::new();
        assert_eq!(
            soon(&stop, tokio::time::sleep(Duration::from_millis(5))).await,
            Some(())
        );
        stop.trigger();
        let begun = Instant::now();
        assert_eq!(soon(&stop, std::future::pending::<()>()).await, None);
        assert!(begun.elapsed() >= STOPPING_PATIENCE);
        assert_eq!(soon(&stop, async { 7 }).await, Some(7));
    }
}
