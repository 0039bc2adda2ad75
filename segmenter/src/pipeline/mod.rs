//! The shell around the engine: reads the buffer, runs uploads, fetches and commits, and stops in order.
//!
//! One task owns the engine. Everything that waits (store, source, disk) runs in tasks of its own, a bounded number at a
//! time, and comes back as a result.

mod ledger_job;
mod start;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use teeline_archive::OffsetRange;
use teeline_archive::ids::BufferPosition;
use teeline_runtime::{Clock, ComponentHealth, Shutdown};
use tokio::task::{JoinError, JoinSet};

use crate::buffer::{Adopted, BufferError, BufferFiles, Event, Reader};
use crate::engine::Engine;
use crate::error::SegmenterError;
use crate::fetching::{Fetched, fetch};
use crate::metrics;
use crate::options::{DrainReport, Options};
use crate::partition::PartitionId;
use crate::source::{Source, SourceError, SurveyReport};
use crate::upload::{Uploaded, upload};
use crate::writer::{SegmentSink, WriteError};
use ledger_job::{LedgerDone, LedgerJobs};

pub(crate) use start::start;

/// A running segmenter.
pub(crate) struct Pipeline {
    options: Options,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    reader: Reader,
    files: BufferFiles,
    adopted: Option<Adopted>,
    engine: Engine,
    sink: Arc<SegmentSink>,
    source: Option<Arc<dyn Source>>,
    ledger: LedgerJobs,
    archive_health: ComponentHealth,
    buffer_health: ComponentHealth,
    uploads: JoinSet<(u64, PartitionId, Result<Uploaded, WriteError>)>,
    fetches: JoinSet<(PartitionId, Vec<OffsetRange>, Fetched)>,
    surveys: JoinSet<(i64, Result<SurveyReport, SourceError>)>,
    phase: Phase,
    published: Option<BufferPosition>,
    publish_not_before_ms: i64,
    polled_ms: i64,
}

/// What the segmenter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Following the buffer.
    Following,
    /// Told to stop: reading what is there.
    ReadingOut {
        /// Since when.
        since_ms: i64,
    },
    /// Everything is read: archiving what is left.
    Draining {
        /// Since when.
        since_ms: i64,
    },
}

impl Pipeline {
    /// Runs until told to stop, or until the buffer is drained.
    ///
    /// Stopping, for each cause:
    /// * told to stop: what the buffer holds now is read, every segment closes, uploads and commits finish, what is
    ///   unresolved is settled if the source answers soon, the manifest is written, then the run ends;
    /// * drained (`until_drained`, no writer lives): the same, with more patience for the source;
    /// * an error that waiting does not cure: the tasks are dropped where they are. Nothing is lost: what is not committed
    ///   is still in the buffer.
    pub(crate) async fn run(mut self) -> Result<DrainReport, SegmenterError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now_ms = self.clock.now_ms();
            self.hand_out(now_ms).await?;
            if self.is_done(now_ms) {
                return self.finish().await;
            }
            let reads = !matches!(self.phase, Phase::Draining { .. }) && !self.engine.must_pause();
            tokio::select! {
                event = self.reader.next(), if reads => self.on_event(event).await?,
                Some(done) = self.uploads.join_next() => self.on_uploaded(done)?,
                Some(done) = self.fetches.join_next() => self.on_fetched(done)?,
                Some(done) = self.surveys.join_next() => self.on_survey(done)?,
                done = self.ledger.done() => self.on_ledger(done?)?,
                () = self.shutdown.triggered(), if self.phase == Phase::Following => {
                    tracing::info!(cluster = %self.options.name, "stopping: archiving what the buffer holds");
                    self.phase = Phase::ReadingOut { since_ms: self.clock.now_ms() };
                }
                _ = tick.tick() => {}
            }
        }
    }

    /// Starts whatever there is to do, as far as the limits allow.
    async fn hand_out(&mut self, now_ms: i64) -> Result<(), SegmenterError> {
        if now_ms.saturating_sub(self.polled_ms).saturating_abs() < POLL_MS {
            return Ok(());
        }
        self.polled_ms = now_ms;
        self.engine.poll(now_ms);
        metrics::show(&self.options.name, &self.engine.gauges(now_ms));
        while self.uploads.len() < self.options.settings.upload_concurrency.max(1)
            && let Some(plan) = self.engine.take_upload()
        {
            let (number, id) = (plan.number, plan.id);
            let (files, sink, health) = (
                self.files.clone(),
                Arc::clone(&self.sink),
                self.archive_health.clone(),
            );
            self.uploads
                .spawn(async move { (number, id, upload(plan, files, sink, health).await) });
        }
        if let Some(source) = &self.source {
            while self.fetches.len() < FETCHES_AT_ONCE
                && let Some(plan) = self.engine.take_fetch(now_ms)
            {
                let (source, sink) = (Arc::clone(source), Arc::clone(&self.sink));
                let (id, ranges) = (plan.id, plan.ranges.clone());
                self.fetches
                    .spawn(async move { (id, ranges, fetch(plan, source, sink).await) });
            }
            if let (Some(cluster_id), true) = (self.engine.cluster_id().cloned(), self.surveys.is_empty())
                && let Some(questions) = self.engine.take_survey(now_ms)
            {
                let source = Arc::clone(source);
                self.surveys
                    .spawn(async move { (now_ms, source.survey(&cluster_id, &questions).await) });
            }
        }
        if self.ledger.is_free() {
            match self.engine.take_commit(now_ms) {
                Some(plan) => {
                    let cluster_id = self
                        .engine
                        .cluster_id()
                        .map(|id| id.to_string())
                        .unwrap_or_default();
                    self.ledger.commit(&cluster_id, plan, now_ms);
                }
                None => {
                    let holes = self.engine.missing_offsets() > 0 || self.engine.left_offsets() > 0;
                    self.ledger.idle(now_ms, holes);
                }
            }
        }
        self.publish().await
    }

    async fn on_event(&mut self, event: Result<Event, BufferError>) -> Result<(), SegmenterError> {
        let mut next = Some(event);
        let mut taken = 0usize;
        while let Some(event) = next.take() {
            match event {
                Ok(event) => {
                    self.buffer_health.ready();
                    let is_pause = matches!(event, Event::Idle | Event::End { .. });
                    self.take_event(event)?;
                    if is_pause {
                        return Ok(());
                    }
                }
                Err(error @ BufferError::Damaged { .. }) => return Err(error.into()),
                Err(error) => {
                    let reason = teeline_runtime::exit::error_chain(&error);
                    tracing::warn!(cluster = %self.options.name, error = %reason, "the buffer cannot be read; trying again");
                    self.buffer_health.not_ready(reason);
                    tokio::time::sleep(BUFFER_PAUSE).await;
                    return Ok(());
                }
            }
            taken = taken.saturating_add(1);
            if taken < EVENTS_AT_ONCE && !self.engine.must_pause() {
                // What is read already is taken without going round; a read that has to wait is dropped, which is safe.
                next = self.reader.next().now_or_never();
            }
        }
        Ok(())
    }

    fn take_event(&mut self, event: Event) -> Result<(), SegmenterError> {
        let now_ms = self.clock.now_ms();
        match event {
            Event::Frame(read) => {
                metrics::frame_read();
                self.engine
                    .on_frame(read.position, read.location, read.frame, now_ms)?;
            }
            Event::SessionStart(session) => {
                self.sink.set_session(session);
                self.engine.on_session_start(session, now_ms);
            }
            Event::Damage(damage) => {
                metrics::damage_found();
                self.engine.on_damage();
                tracing::error!(cluster = %self.options.name, ?damage,
                    "the write-ahead buffer is damaged; what lies there is fetched from the source as far as possible");
            }
            Event::Idle => {
                if let Phase::ReadingOut { since_ms } = self.phase
                    && now_ms.saturating_sub(since_ms) >= READ_OUT_MS
                {
                    self.begin_draining(false, now_ms);
                }
            }
            Event::End { clean } => {
                self.engine.on_end(now_ms);
                if self.phase != Phase::Following || self.options.until_drained || self.options.source_lost {
                    tracing::debug!(cluster = %self.options.name, clean, "the buffer is read to its end");
                    self.begin_draining(true, now_ms);
                }
            }
        }
        Ok(())
    }

    fn begin_draining(&mut self, ended: bool, now_ms: i64) {
        self.phase = Phase::Draining { since_ms: now_ms };
        if ended && self.options.source_lost {
            self.engine.on_source_lost(now_ms);
        }
        self.engine.drain(ended, now_ms);
        // Whatever is due now must not wait for the next look.
        self.polled_ms = i64::MIN;
    }

    fn is_done(&self, now_ms: i64) -> bool {
        let Phase::Draining { since_ms } = self.phase else {
            return false;
        };
        if !self.engine.is_idle() || !self.ledger.is_free() {
            return false;
        }
        let settled = self.engine.unsettled() == 0
            && !self.engine.waits_for_names()
            && self.engine.missing_offsets() == 0
            && self.engine.suspects() == 0;
        let patience_ms = if self.shutdown.is_triggered() {
            STOP_PATIENCE_MS
        } else {
            DRAIN_PATIENCE_MS
        };
        let gave_up = self.source.is_none()
            || self.engine.source_failures() >= SOURCE_FAILURES_MAX
            || now_ms.saturating_sub(since_ms) >= patience_ms;
        // Holes are noticed by a look at the state, so one must have happened since draining began.
        let looked = self.polled_ms >= since_ms;
        looked && (settled || gave_up)
    }

    async fn finish(mut self) -> Result<DrainReport, SegmenterError> {
        if let Err(error) = self.ledger.write_last_manifest(self.clock.now_ms()).await {
            let reason = teeline_runtime::exit::error_chain(&error);
            tracing::warn!(cluster = %self.options.name, error = %reason,
                "manifest.json could not be written; it is only a view, the ledger is complete");
        }
        self.publish_not_before_ms = i64::MIN;
        self.publish().await?;
        let counts = self.engine.counts();
        let remaining = self.engine.remaining() as u64;
        let missing_offsets = self.engine.missing_offsets();
        let report = DrainReport {
            archived_to: self.published,
            read_to: self.engine.last_read(),
            remaining,
            unsettled: self.engine.unsettled() as u64,
            unconfirmed: counts.unconfirmed,
            missing_offsets,
            segments: counts.segments,
            records: counts.records,
            complete: remaining == 0 && missing_offsets == 0,
        };
        if let (Some(adopted), Some(archived), true) =
            (self.adopted.take(), report.archived_to, remaining == 0)
        {
            let deleted = tokio::task::spawn_blocking(move || adopted.delete_all(archived)).await;
            if let Ok(Err(error)) = deleted {
                let reason = teeline_runtime::exit::error_chain(&error);
                tracing::warn!(cluster = %self.options.name, error = %reason, "the archived buffer files stay");
            }
        }
        if remaining > 0 {
            let remains = self.engine.remains();
            tracing::info!(cluster = %self.options.name, %remains, "frames stay in the buffer for the next run");
        }
        tracing::info!(cluster = %self.options.name, segments = report.segments, records = report.records,
            remaining, unsettled = report.unsettled, missing_offsets, complete = report.complete, "stopped");
        Ok(report)
    }

    /// Tells the buffer how far it is archived.
    async fn publish(&mut self) -> Result<(), SegmenterError> {
        let archived = self.engine.archived();
        let now_ms = self.clock.now_ms();
        let is_pausing = now_ms < self.publish_not_before_ms;
        let Some(position) = archived.filter(|_| archived > self.published && !is_pausing) else {
            return Ok(());
        };
        let files = self.files.clone();
        let published = tokio::task::spawn_blocking(move || files.publish_archived(position)).await;
        match published {
            Ok(Ok(())) => self.published = archived,
            // Advice that could not be given now is given later.
            Ok(Err(error)) => {
                self.publish_not_before_ms = now_ms.saturating_add(PUBLISH_PAUSE_MS);
                let reason = teeline_runtime::exit::error_chain(&error);
                tracing::warn!(cluster = %self.options.name, error = %reason, "the archived position could not be published");
            }
            Err(_) => {
                return Err(SegmenterError::Stopped {
                    part: "blocking pool",
                });
            }
        }
        Ok(())
    }

    fn on_uploaded(
        &mut self,
        done: Result<(u64, PartitionId, Result<Uploaded, WriteError>), JoinError>,
    ) -> Result<(), SegmenterError> {
        let (number, id, uploaded) = joined(done, "upload")?;
        let uploaded = uploaded.map_err(|error| match error {
            WriteError::Stopped => SegmenterError::Stopped {
                part: "blocking pool",
            },
            error => SegmenterError::Segment(error),
        })?;
        self.engine.on_uploaded(number, id, uploaded, self.clock.now_ms());
        self.polled_ms = i64::MIN;
        Ok(())
    }

    fn on_fetched(
        &mut self,
        done: Result<(PartitionId, Vec<OffsetRange>, Fetched), JoinError>,
    ) -> Result<(), SegmenterError> {
        let (id, ranges, fetched) = joined(done, "fetch")?;
        self.engine.on_fetched(id, &ranges, fetched, self.clock.now_ms());
        self.polled_ms = i64::MIN;
        Ok(())
    }

    fn on_survey(
        &mut self,
        done: Result<(i64, Result<SurveyReport, SourceError>), JoinError>,
    ) -> Result<(), SegmenterError> {
        let (asked_ms, report) = joined(done, "survey")?;
        self.engine.on_survey(asked_ms, report, self.clock.now_ms());
        self.polled_ms = i64::MIN;
        Ok(())
    }

    fn on_ledger(&mut self, done: LedgerDone) -> Result<(), SegmenterError> {
        match done {
            LedgerDone::Committed(plan) => self.engine.on_committed(plan, self.clock.now_ms()),
            LedgerDone::Refreshed => self.ledger.with_state(|state| self.engine.reload(state)),
            LedgerDone::Nothing => {}
        }
        self.polled_ms = i64::MIN;
        Ok(())
    }
}

/// How often the state is looked at when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// At most so often the state is looked at while frames stream in.
const POLL_MS: i64 = 50;
/// Frames taken in a row before anything else gets its turn.
const EVENTS_AT_ONCE: usize = 1_024;
const FETCHES_AT_ONCE: usize = 4;
/// How long after a failure the archived position is not published again.
const PUBLISH_PAUSE_MS: i64 = 1_000;
const BUFFER_PAUSE: Duration = Duration::from_millis(500);
/// A writer of another process that goes on does not keep a stop from happening.
const READ_OUT_MS: i64 = 1_000;
/// How long a stop waits for the source to settle what is unresolved; the rest waits in the buffer for the next run.
const STOP_PATIENCE_MS: i64 = 8_000;
/// How long a drain waits for it: longer than any single patience within.
const DRAIN_PATIENCE_MS: i64 = 90_000;
const SOURCE_FAILURES_MAX: u32 = 3;

fn joined<T>(done: Result<T, JoinError>, part: &'static str) -> Result<T, SegmenterError> {
    done.map_err(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => SegmenterError::Stopped { part },
    })
}
