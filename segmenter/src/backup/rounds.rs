//! The rounds of a backup: what is wanted is fetched, round after round, until everything is there or nobody wants more.

use std::sync::Arc;
use std::time::Duration;

use teeline_runtime::exit::error_chain;
use tokio::time::Instant;

use super::args::Job;
use super::backlog::Scope;
use super::display::Shown;
use super::error::BackupError;
use super::lookout::Lookout;
use super::patience::{Next, Patience, Went};
use super::report::{BackupReport, Outcome};
use super::run::{Surroundings, open, state_of};
use super::state::State;
use super::sum::Sum;
use super::tended::Tended;
use crate::audit::{AuditError, Auditor, Demand, KafkaUpstream, RoundReport};
use crate::fetcher::{Ended, Fetch};
use crate::metrics;

/// The rounds of a backup.
pub(super) struct Rounds<'a> {
    pub(super) job: &'a Job,
    pub(super) around: &'a Surroundings,
    pub(super) upstream: Arc<KafkaUpstream>,
    pub(super) auditor: Auditor,
    pub(super) cluster_id: Arc<str>,
    pub(super) state: Option<State>,
    pub(super) fetch: Fetch,
    pub(super) lease: &'a Tended,
    pub(super) shown: Shown,
    pub(super) demand: Demand,
    pub(super) patience: Patience,
    pub(super) sum: Sum,
    /// Follows the logs between the rounds of a run that has no end.
    pub(super) lookout: Option<Lookout>,
    /// How often somebody else had written the chain.
    pub(super) reopened: u32,
}

impl Rounds<'_> {
    /// Makes rounds until the last one.
    pub(super) async fn run(&mut self) -> Result<Outcome, BackupError> {
        let mut scope = Scope::All;
        loop {
            let begun = Instant::now();
            let done = self.round(&scope).await;
            if self.lease.is_lost() {
                return Err(self.taken_over());
            }
            let looked_at = std::mem::replace(&mut scope, Scope::All);
            let went = match done {
                Ok((report, went)) => {
                    self.around.health.ready();
                    self.shown
                        .expect(self.fetch.progress.offsets().saturating_add(self.sum.left()));
                    if let Some(outcome) = self.outcome(&report) {
                        return Ok(outcome);
                    }
                    // What has no answer now is looked at again after the interval, and keeps nothing else waiting.
                    let is_settled = went == Went::Forward || report.jobs.is_empty();
                    if let Some(lookout) = &mut self.lookout
                        && is_settled
                    {
                        lookout.settle(&report, &looked_at, begun);
                        self.patience.after(went, Instant::now());
                        match self.wait().await {
                            Ok(Some(due)) => scope = due,
                            Ok(None) if self.lease.is_lost() => return Err(self.taken_over()),
                            Ok(None) => return Ok(Outcome::Stopped),
                            Err(AuditError::Fenced { .. }) => self.reopen().await?,
                            Err(error) if error.may_pass() => self.sum.round_failed(error_chain(&error)),
                            Err(error) => return Err(error.into()),
                        }
                        continue;
                    }
                    went
                }
                Err(AuditError::Fenced { .. }) => {
                    self.reopen().await?;
                    Went::Nowhere
                }
                Err(error) if error.may_pass() => {
                    let reason = error_chain(&error);
                    self.around.health.not_ready(reason.clone());
                    self.sum.round_failed(reason.clone());
                    tracing::warn!(backup_id = %self.job.backup_id, error = %reason, "a round failed; trying again");
                    match self.patience.after(Went::Nowhere, Instant::now()) {
                        Next::GiveUp => return Err(error.into()),
                        Next::After(pause) if self.pause(pause).await => continue,
                        Next::After(_) => return Ok(Outcome::Stopped),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            match self.patience.after(went, Instant::now()) {
                Next::GiveUp => return Ok(Outcome::Incomplete),
                Next::After(pause) if self.pause(pause).await => {}
                Next::After(_) => return Ok(Outcome::Stopped),
            }
        }
    }

    /// A round, and a look at the state if it is time.
    async fn round(&mut self, scope: &Scope) -> Result<(RoundReport, Went), AuditError> {
        let partly = match scope {
            Scope::All => None,
            Scope::AllBut(quiet) => Some(Demand::NowBut(quiet.clone())),
        };
        let demand = partly.as_ref().unwrap_or(&self.demand);
        let report = self.auditor.round(demand, &self.fetch).await?;
        let went = self.sum.take(&report, *scope == Scope::All);
        self.look_at_state(false).await?;
        Ok((report, went))
    }

    /// Waits until a round is due, and says of what. `None` when it was told to stop.
    async fn wait(&mut self) -> Result<Option<Scope>, AuditError> {
        // Of the stop of the process and that of a lost lease.
        let stop = self.fetch.shutdown.clone();
        loop {
            let Some(lookout) = &mut self.lookout else {
                return Ok(Some(Scope::All));
            };
            tokio::select! {
                biased;
                () = stop.triggered() => return Ok(None),
                (cause, scope) = lookout.wait() => {
                    tracing::debug!(backup_id = %self.job.backup_id, cause = cause.as_str(), "a round is due");
                    metrics::backup_round(cause.as_str());
                    return Ok(Some(scope));
                }
                () = tokio::time::sleep(self.job.backup.interval.max(STATE_PACE_MIN)) => {}
            }
            self.look_at_state(false).await?;
            self.auditor.write_manifest(false).await;
        }
    }

    /// Whether this was the last round, and how it ended then, troubles aside.
    fn outcome(&self, report: &RoundReport) -> Option<Outcome> {
        let limited = report.jobs.iter().any(|job| matches!(job.ended, Ended::Limited));
        if limited {
            return Some(Outcome::Cut);
        }
        if self.around.shutdown.is_triggered() {
            return Some(Outcome::Stopped);
        }
        let is_over = report.jobs.is_empty() && report.round.unjudged == 0 && !self.job.backup.continuous;
        is_over.then_some(Outcome::Complete)
    }

    /// Writes down that what is left of the log was not wanted.
    pub(super) async fn note_cut(&mut self) -> Result<Outcome, BackupError> {
        let left = self.auditor.not_wanted();
        match self.auditor.commit(&self.cluster_id, left).await {
            Ok(()) => {}
            // What was fetched counts; only its absence stays unexplained until the next run.
            Err(error) if error.may_pass() => self.sum.round_failed(error_chain(&error)),
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome::Cut)
    }

    /// Somebody else has written the chain. If the lease is ours, it was the one before us, and notices by and by.
    async fn reopen(&mut self) -> Result<(), BackupError> {
        self.reopened = self.reopened.saturating_add(1);
        if self.reopened > REOPENED_MAX || !self.lease.is_still_mine().await {
            return Err(self.taken_over());
        }
        tracing::info!(backup_id = %self.job.backup_id, "an earlier auditor has committed meanwhile; reading on");
        self.auditor = open(self.job, self.around, &self.upstream).await?;
        self.fetch.sink = self.auditor.sink();
        self.state = state_of(self.job, self.around, &self.cluster_id, &self.auditor);
        Ok(())
    }

    /// The look at the state with which a run ends. What passes in moments must not leave it incomplete.
    pub(super) async fn last_look(&mut self) -> Result<(), BackupError> {
        let mut looks = 0u32;
        loop {
            match self.look_at_state(true).await {
                Ok(()) if self.sum.has_state() => return Ok(()),
                Ok(()) => {
                    looks = looks.saturating_add(1);
                    if looks >= LAST_LOOKS_MAX || !self.pause(LAST_LOOKS_PAUSE).await {
                        return Ok(());
                    }
                }
                Err(AuditError::Fenced { .. }) => self.reopen().await?,
                Err(error) if error.may_pass() && self.around.shutdown.is_triggered() => {
                    self.sum.round_failed(error_chain(&error));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Once at the end of a run, now and then in one that has none.
    async fn look_at_state(&mut self, is_last: bool) -> Result<(), AuditError> {
        let Some(state) = &mut self.state else {
            return Ok(());
        };
        let is_wanted = match self.job.backup.continuous {
            true => is_last || state.is_due(),
            false => is_last && !self.around.shutdown.is_triggered(),
        };
        if is_wanted {
            let (auditor, cluster_id) = (&mut self.auditor, &self.cluster_id);
            let looked = state.look(auditor, &self.upstream, cluster_id, self.around, is_last);
            let troubles = looked.await?;
            self.sum.note_state(troubles);
        }
        Ok(())
    }

    fn taken_over(&self) -> BackupError {
        BackupError::TakenOver {
            backup_id: self.job.backup_id.clone(),
        }
    }

    /// False when it was told to stop meanwhile.
    async fn pause(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            return !self.around.shutdown.is_triggered();
        }
        self.around
            .shutdown
            .run_until(tokio::time::sleep(pause))
            .await
            .is_some()
    }

    /// What was done, however it ended.
    pub(super) fn report(&mut self, begun: Instant) -> BackupReport {
        BackupReport {
            backup_id: self.job.backup_id.clone(),
            cluster_id: self.cluster_id.to_string(),
            outcome: Outcome::Incomplete,
            max_messages_reached: false,
            topics: self.sum.topics.len() as u64,
            partitions: self.sum.partitions.len() as u64,
            segments: self.sum.segments,
            records: self.sum.records,
            bytes: self.sum.bytes,
            offsets_left: self.sum.left(),
            seconds: begun.elapsed().as_secs_f64(),
            troubles: self.sum.troubles().cloned().collect(),
        }
    }
}

/// Nobody waits for the state of the cluster, and a look takes more requests than following the logs.
const STATE_PACE_MIN: Duration = Duration::from_secs(10);
/// Another writer may commit once between our taking the lease and its noticing.
const REOPENED_MAX: u32 = 3;
/// Coordinators move, and are asked again.
const LAST_LOOKS_MAX: u32 = 3;
const LAST_LOOKS_PAUSE: Duration = Duration::from_secs(1);
