//! The tee: what goes into the write-ahead buffer, and the one policy for the times when it cannot.
//!
//! | what happens | `on_failure: open` | `on_failure: closed` |
//! |---|---|---|
//! | buffer full or broken | forwarded, counted as missed | the request waits up to `hold_max_ms`, then is refused |
//! | buffer takes no more bytes for now | waits up to `hold_max_ms`, then as above | the same, then refused |
//! | a response is held longer than `hold_max_ms` | released, counted; later ones are not held while the disk is behind | held on; new requests are refused |
//! | the buffer lost what it had taken | released, counted as missed | the same: the broker has it, its answer is due |
//!
//! What is missed leaves a hole in the dense offsets, which the segmenter finds and fills by Fetch.

mod connections;
mod hold;
mod rules;

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use teeline_archive::buffer::{EndTxn, Frame};
use teeline_archive::ids::SessionId;
use teeline_archive::names::check_topic;
use teeline_config::cluster::{Ack, Capture as Settings, OnFailure};
use teeline_runtime::clock::Clock;
use teeline_wire::end_txn::EndTxnRequest;
use teeline_wire::produce::{ProduceEntry, ProduceOutcome, ProduceRequest, TopicRef};
use tokio::time::Instant;

use crate::buffer::{AppendError, Appended, Writer};
use crate::frames::{captured, first_batch, intent, is_settled, outcome_frame};
use crate::lost::LostConnections;
use crate::metrics::{Backpressure, ClusterMetrics, Missed, Skipped, record_wait};
use crate::quiet::Quiet;
use crate::session::in_flight::Captured;
use crate::session::outbox::Gate;
use crate::session::sasl::Access;
use crate::stall::Stall;
use crate::topics::Topics;
use rules::Rules;

/// The capture of one virtual cluster.
pub(crate) struct Capture {
    cluster: String,
    writer: Writer,
    pub(crate) topics: Arc<Topics>,
    ack: Ack,
    rules: Rules,
    metrics: Arc<ClusterMetrics>,
    clock: Arc<dyn Clock>,
    stall: Stall,
    misses: Quiet,
    lost: LostConnections,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Capture")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// What is to be done with a request after the attempt to capture it.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Forward it, and watch for the answer.
    Forward(Captured),
    /// Do not forward it; answer with a retriable error.
    Refuse,
}

/// What was noted of an answer.
#[derive(Debug)]
pub(crate) struct Noted {
    /// What the answer has to wait for.
    pub(crate) gate: Option<Gate>,
    /// How many of the request's intents are settled by it.
    pub(crate) settled: u64,
    /// False when the outcomes are not in the buffer: it was too slow to take them.
    pub(crate) recorded: bool,
}

impl Noted {
    fn nothing() -> Noted {
        Noted {
            gate: None,
            settled: 0,
            recorded: true,
        }
    }
}

impl Capture {
    /// Capture into an open buffer.
    pub(crate) fn new(
        cluster: &str,
        settings: &Settings,
        writer: Writer,
        topics: Arc<Topics>,
        metrics: Arc<ClusterMetrics>,
        clock: Arc<dyn Clock>,
    ) -> Capture {
        Capture {
            cluster: cluster.to_owned(),
            writer,
            topics,
            ack: settings.ack,
            rules: Rules::of(settings),
            metrics,
            clock,
            stall: Stall::default(),
            misses: Quiet::default(),
            lost: LostConnections::default(),
        }
    }

    /// From here on these rules apply; what cannot change while the buffer is open is left as it is.
    pub(crate) fn follow(&self, settings: &Settings) {
        self.rules.follow(settings);
        self.topics.follow(settings.topics());
    }

    /// What happens to producers when capture fails.
    pub(crate) fn on_failure(&self) -> OnFailure {
        self.rules.on_failure()
    }

    /// The time of the frames.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The buffer behind.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Appends the batches of a request. `before_waiting` runs once if that cannot be done at once.
    pub(crate) async fn request<E>(
        &self,
        request: &ProduceRequest,
        connection_id: u64,
        access: Access,
        before_waiting: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<Verdict, E> {
        let batches: Vec<(&ProduceEntry, Bytes)> = request
            .entries
            .iter()
            .filter_map(|entry| self.batch_of(entry).map(|batch| (entry, batch)))
            .collect();
        if batches.is_empty() {
            return Ok(Verdict::Forward(Captured::none()));
        }
        match access {
            Access::Granted => {}
            Access::Unknown if self.rules.on_failure() == OnFailure::Closed => return Ok(Verdict::Refuse),
            // The broker refuses what comes before authentication.
            Access::Unknown | Access::Denied => {
                self.missed(Missed::Unauthenticated, batches.len());
                return Ok(Verdict::Forward(Captured::none()));
            }
        }
        let sent_at_ms = self.clock.now_ms();
        let frames = || {
            batches
                .iter()
                .map(|batch| intent(request, connection_id, sent_at_ms, batch))
                .collect()
        };
        Ok(match self.append(&frames, before_waiting).await? {
            Ok(appended) => {
                self.metrics.captured_batches.increment(batches.len() as u64);
                self.metrics
                    .captured_bytes
                    .increment(batches.iter().map(|(_, batch)| batch.len() as u64).sum());
                Verdict::Forward(captured(&batches, appended))
            }
            Err(_) if self.rules.on_failure() == OnFailure::Closed => Verdict::Refuse,
            Err(missed) => {
                self.missed(missed, batches.len());
                Verdict::Forward(Captured::none())
            }
        })
    }

    /// Whether a request has anything for topics that are captured.
    pub(crate) fn concerns(&self, request: &ProduceRequest) -> bool {
        let mut entries = request.entries.iter();
        entries.any(|entry| {
            !entry.records.is_empty() && is_possible(&entry.topic) && self.topics.captured(&entry.topic)
        })
    }

    /// How long a request waits to learn whether the broker serves clients without SASL, which others have been waiting
    /// for since then. Once it took too long, nobody waits any more under `open`.
    pub(crate) fn decision_deadline(&self, since: Instant) -> Instant {
        match self.rules.on_failure() {
            OnFailure::Open => since + self.rules.hold_max(),
            OnFailure::Closed => Instant::now() + self.rules.hold_max(),
        }
    }

    /// The batch of an entry, exactly as a broker will see it; none when it is rightly not captured.
    fn batch_of(&self, entry: &ProduceEntry) -> Option<Bytes> {
        if entry.records.is_empty() {
            return None;
        }
        if entry.superseded {
            self.metrics.skipped(Skipped::Superseded);
            return None;
        }
        if !is_possible(&entry.topic) {
            self.metrics.skipped(Skipped::Malformed);
            return None;
        }
        if !self.topics.captured(&entry.topic) {
            self.metrics.skipped(Skipped::Excluded);
            return None;
        }
        if entry.magic() != Some(MAGIC_CAPTURED) {
            self.metrics.skipped(Skipped::OldFormat);
            return None;
        }
        let batch = first_batch(&entry.records);
        if batch.is_none() {
            self.metrics.skipped(Skipped::Malformed);
        }
        batch
    }

    /// Appends intents, within the limits of the policy. The outer error is that of `before_waiting`.
    async fn append<E>(
        &self,
        frames: &impl Fn() -> Vec<Frame>,
        before_waiting: impl AsyncFnOnce() -> Result<(), E>,
    ) -> Result<Result<Appended, Missed>, E> {
        let closed = self.rules.on_failure() == OnFailure::Closed;
        let stalled = self.stall.holds(&self.writer);
        if !(closed && stalled) {
            let mut attempt = pin!(self.writer.append(frames()));
            let first = std::future::poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await;
            match first {
                Poll::Ready(Ok(appended)) => return Ok(Ok(appended)),
                Poll::Ready(Err(error)) if !closed => return Ok(Err(missed_by(error))),
                Poll::Pending if stalled => return Ok(Err(Missed::Slow)),
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        before_waiting().await?;
        let started = Instant::now();
        let waited = tokio::time::timeout_at(
            started + self.rules.hold_max(),
            self.append_patiently(frames, closed),
        )
        .await;
        record_wait(self.metrics.pushed_back(Backpressure::Buffer), started.elapsed());
        if waited.is_err() && !closed && self.ack == Ack::Async {
            // Whoever comes next does not find out anew: no response waits for the disk and tells.
            self.stall.began(self.writer.last_assigned());
        }
        Ok(waited.unwrap_or(Err(Missed::Slow)))
    }

    async fn append_patiently(
        &self,
        frames: &impl Fn() -> Vec<Frame>,
        again: bool,
    ) -> Result<Appended, Missed> {
        loop {
            if !(again && self.stall.holds(&self.writer)) {
                match self.writer.append(frames()).await {
                    Ok(appended) => return Ok(appended),
                    Err(AppendError::Full | AppendError::Broken) if again => {}
                    Err(error) => return Err(missed_by(error)),
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Appends what became of a request's batches, and says what the answer has to wait for.
    /// `node_id` is the broker that answered, if that is known.
    pub(crate) async fn response(
        &self,
        captured: &Captured,
        outcomes: &[ProduceOutcome],
        node_id: Option<i32>,
    ) -> Noted {
        let Some(position) = captured.position else {
            return Noted::nothing();
        };
        let (received_at_ms, since) = (self.clock.now_ms(), Instant::now());
        record_wait(
            &self.metrics.produce_seconds,
            since.duration_since(captured.sent_at),
        );
        let mut hint = 0;
        let mut settled = 0_u64;
        let mut frames = Vec::with_capacity(captured.intents.len());
        for outcome in outcomes {
            if let Some(lsn) = captured.find(&outcome.topic, outcome.partition, &mut hint) {
                settled = settled.saturating_add(u64::from(is_settled(outcome)));
                self.topics.answered(&outcome.topic);
                if outcome.error_code == NOT_LEADER_OR_FOLLOWER {
                    // The next batches belong to another epoch: the sooner a catalog says so, the fewer are in doubt.
                    self.topics.unknown.notify_one();
                }
                let epoch = self
                    .topics
                    .leaders
                    .epoch_of(&outcome.topic, outcome.partition, node_id);
                frames.push(outcome_frame(lsn, received_at_ms, outcome, epoch));
            }
        }
        let count = frames.len();
        let gate = (self.ack == Ack::Durable).then_some(Gate { position, since });
        if count == 0 {
            return Noted {
                gate,
                settled: 0,
                recorded: true,
            };
        }
        match self.append_small(position.session, frames).await {
            Ok(_) => {
                self.metrics.outcomes.increment(count as u64);
                Noted {
                    gate,
                    settled,
                    recorded: true,
                }
            }
            // The buffer's session ended with the intents in it: they are known as unresolved by that.
            Err(Missed::Lost) => {
                self.missed(Missed::Lost, 0);
                Noted {
                    gate: None,
                    settled,
                    recorded: true,
                }
            }
            Err(missed) => {
                self.missed(missed, count);
                Noted {
                    gate,
                    settled: 0,
                    recorded: false,
                }
            }
        }
    }

    /// Appends the end of a transaction that the coordinator has confirmed, and says what the answer has to wait for.
    pub(crate) async fn transaction_ended(&self, request: &EndTxnRequest) -> Option<Gate> {
        let frame = Frame::EndTxn(EndTxn {
            transactional_id: request.transactional_id.clone(),
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            committed: request.committed,
            at_ms: self.clock.now_ms(),
        });
        let since = Instant::now();
        let session = self.writer.last_assigned().session;
        match self.append_small(session, vec![frame]).await {
            Ok(appended) => (self.ack == Ack::Durable).then_some(Gate {
                position: appended.end(),
                since,
            }),
            Err(missed) => {
                self.missed(missed, 1);
                None
            }
        }
    }

    /// Appends frames that are no intents; waits no longer than the policy says.
    pub(crate) async fn append_small(
        &self,
        session: SessionId,
        frames: Vec<Frame>,
    ) -> Result<Appended, Missed> {
        let append = self.writer.append_outcomes(session, frames);
        match tokio::time::timeout(self.rules.hold_max(), append).await {
            Ok(result) => result.map_err(missed_by),
            Err(_) => Err(Missed::Slow),
        }
    }

    fn missed(&self, missed: Missed, batches: usize) {
        self.metrics.missed(missed, batches);
        if let Some(suppressed) = self.misses.admit() {
            tracing::warn!(
                cluster = self.cluster,
                reason = ?missed,
                batches,
                suppressed,
                "batches were forwarded without being captured; the segmenter has to fetch them"
            );
        }
    }
}

/// False for names that no broker can have: nothing is remembered of them, and the broker refuses the batch.
fn is_possible(topic: &TopicRef) -> bool {
    topic.name().is_none_or(|name| check_topic(name).is_ok())
}

fn missed_by(error: AppendError) -> Missed {
    match error {
        AppendError::Full => Missed::Full,
        AppendError::Broken | AppendError::Closed => Missed::Broken,
        AppendError::StaleSession => Missed::Lost,
        AppendError::TooLarge(_) => Missed::TooLarge,
    }
}

const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// RecordBatch version 2.
const MAGIC_CAPTURED: i8 = 2;
/// How often a full or broken buffer is tried again while a request waits.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
