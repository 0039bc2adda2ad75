//! One job, from its first offset to its last.

use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_wire::batch::BatchError;
use tokio::sync::mpsc;

use super::appetite::Appetite;
use super::log::{LogRun, Replica};
use super::output::{Evidence, Output, OutputError};
use super::walk::{Piece, Taken, Walk};
use super::{Ended, Fetch, FetchJob, Found, JobReport};
use crate::fetching::FetchError;
use crate::source::{SourceError, SourcePartition};

/// Runs one job.
pub(super) async fn run(job: FetchJob, fetch: Fetch, found: mpsc::Sender<Found>) -> JobReport {
    let job = Arc::new(job);
    let mut output = Output::new(Arc::clone(&job), fetch.clone(), found);
    let mut reading = Reading::new(Arc::clone(&job), fetch);
    let ended = match reading.run(&mut output).await {
        Ok(ended) => match output.finish().await {
            Ok(()) => ended,
            Err(error) => failed(error),
        },
        Err(error) => failed(error),
    };
    let stored = output.stored();
    output.abort().await;
    JobReport {
        id: job.id,
        topic: Arc::clone(&job.topic),
        offsets: reading.offsets,
        segments: stored.segments,
        records: stored.records,
        bytes: stored.bytes,
        unreadable: reading.unreadable,
        ended,
    }
}

fn failed(error: OutputError) -> Ended {
    match error {
        OutputError::Write(error) => Ended::Failed(FetchError::Write(error)),
        OutputError::Unheard => Ended::Stopped,
    }
}

/// The reading half of a job.
struct Reading {
    job: Arc<FetchJob>,
    partition: SourcePartition,
    fetch: Fetch,
    walk: Walk,
    appetite: Appetite,
    /// The leader is to answer next: a follower's answer lacked something.
    is_doubtful: bool,
    /// A damaged batch was met here: it is read once more before it is believed.
    doubted: Option<i64>,
    /// Answers in a row that had nothing at the offset asked for.
    empty: u32,
    unreadable: Vec<(OffsetRange, BatchError)>,
    /// What came with the last response that counted.
    evidence: Evidence,
    /// Wanted offsets dealt with.
    offsets: u64,
}

/// What to do after a response.
struct Step {
    pieces: Vec<Piece>,
    evidence: Evidence,
    from_follower: bool,
    ended: Option<Ended>,
}

impl Reading {
    fn new(job: Arc<FetchJob>, fetch: Fetch) -> Self {
        Reading {
            partition: SourcePartition {
                topic: Arc::clone(&job.topic),
                incarnation: Some(job.id.incarnation),
                partition: job.id.partition,
            },
            walk: Walk::new(job.ranges.iter().copied()),
            appetite: Appetite::new(fetch.limits.fetch_bytes),
            is_doubtful: false,
            doubted: None,
            empty: 0,
            unreadable: Vec::new(),
            evidence: Evidence::at(-1),
            offsets: 0,
            job,
            fetch,
        }
    }

    /// While one response is compressed and uploaded the next one is on its way.
    async fn run(&mut self, output: &mut Output) -> Result<Ended, OutputError> {
        let Some(mut answer) = self.read().await else {
            return Ok(self.end());
        };
        loop {
            let step = match answer {
                Ok(run) => self.digest(&run),
                Err(SourceError::OutOfRange { log_start, end }) => {
                    match self.out_of_range(log_start, end, output).await? {
                        Some(ended) => return Ok(ended),
                        None => self.nothing_new(),
                    }
                }
                Err(SourceError::Gone) => return Ok(Ended::Gone),
                Err(source) => return Ok(Ended::Failed(self.source_error(source))),
            };
            if let Some(ended) = step.ended {
                output
                    .push(step.pieces, step.evidence, step.from_follower)
                    .await?;
                return Ok(ended);
            }
            let pushed = output.push(step.pieces, step.evidence, step.from_follower);
            let (pushed, next) = tokio::join!(pushed, self.read());
            pushed?;
            match next {
                Some(next) => answer = next,
                None => return Ok(self.end()),
            }
        }
    }

    /// The next response; `None` when there is nothing to be asked for, or we are to stop.
    async fn read(&mut self) -> Option<Result<LogRun, SourceError>> {
        let position = self.walk.position()?;
        let limits = &self.fetch.limits;
        if limits.budget.as_ref().is_some_and(|budget| budget.is_spent()) {
            return None;
        }
        let bytes_max = self.appetite.ask(self.walk.ahead());
        let read = async {
            if let Some(throttle) = &limits.throttle {
                throttle.paid().await;
            }
            let replica = match self.is_doubtful {
                true => Replica::Leader,
                false => Replica::Nearest,
            };
            self.fetch
                .log
                .read(&self.partition, position, bytes_max, replica)
                .await
        };
        // Nothing is lost when a response is not waited for.
        let answer = self.fetch.shutdown.run_until(read).await?;
        self.fetch.progress.on_response();
        if let (Some(throttle), Ok(run)) = (&limits.throttle, &answer) {
            throttle.take(run.records.len());
        }
        Some(answer)
    }

    /// Why there is nothing more to read.
    fn end(&self) -> Ended {
        let budget = self.fetch.limits.budget.as_ref();
        if self.walk.position().is_none() {
            Ended::Done
        } else if budget.is_some_and(|budget| budget.is_spent()) {
            Ended::Limited
        } else {
            Ended::Stopped
        }
    }

    fn digest(&mut self, run: &LogRun) -> Step {
        let evidence = Evidence {
            log_start_offset: run.log_start,
            leader_epoch: run.leader_epoch,
        };
        let from = self.walk.position().unwrap_or(i64::MAX);
        let before = run.from_follower.then(|| self.walk.clone());
        let Taken { mut pieces, damage } = self.walk.take(&run.records, self.doubted == Some(from));
        if let Some(before) = before {
            let lacks = |piece: &Piece| !matches!(piece, Piece::Batch(_));
            if damage.is_some() || pieces.is_empty() || pieces.iter().any(lacks) {
                // Followers lag, and clean their logs at times of their own: the leader's word counts.
                self.walk = before;
                self.is_doubtful = true;
                return self.nothing_new();
            }
        }
        self.is_doubtful = false;
        self.evidence = evidence;
        let ended = match self.cut(&mut pieces) {
            true => Some(Ended::Limited),
            false => self.assess(run, from, damage, &mut pieces),
        };
        self.remember(&pieces, from, run.records.len());
        Step {
            pieces,
            evidence,
            from_follower: run.from_follower,
            ended,
        }
    }

    fn nothing_new(&self) -> Step {
        Step {
            pieces: Vec::new(),
            evidence: self.evidence,
            from_follower: false,
            ended: None,
        }
    }

    /// What to make of a response that did not bring the walk to its own end.
    fn assess(
        &mut self,
        run: &LogRun,
        from: i64,
        damage: Option<BatchError>,
        pieces: &mut Vec<Piece>,
    ) -> Option<Ended> {
        let at = self.walk.position();
        let Some(error) = damage else {
            if at == Some(from) {
                return self.nothing(run, pieces);
            }
            self.empty = 0;
            return None;
        };
        if self.doubted == at {
            // It is no entry of a log at all, so that nobody can say where the next one begins.
            return Some(Ended::Failed(self.batch_error(error)));
        }
        tracing::warn!(topic = %self.job.topic, partition = self.job.id.partition, offset = at, %error,
            "a batch of the source cannot be read; reading it once more");
        self.doubted = at;
        None
    }

    fn remember(&mut self, pieces: &[Piece], from: i64, bytes: usize) {
        let mut offsets = 0u64;
        for piece in pieces {
            let range = match piece {
                Piece::Batch(view) => {
                    let header = view.header();
                    OffsetRange::new(header.base_offset.max(from), header.last_offset())
                }
                Piece::Absent(range) => Some(*range),
                Piece::Unreadable(range, error) => {
                    tracing::error!(topic = %self.job.topic, partition = self.job.id.partition, first = range.first,
                        last = range.last, %error, "the source cannot give this batch whole; it stays missing");
                    self.unreadable.push((*range, error.clone()));
                    Some(*range)
                }
            };
            offsets = offsets.saturating_add(range.map_or(0, |range| range.span()));
        }
        self.count(offsets);
        let to = pieces.iter().rev().find_map(|piece| match piece {
            Piece::Batch(view) => Some(view.header().next_offset()),
            _ => None,
        });
        let covered = to.map_or(0, |to| to.saturating_sub(from));
        self.appetite.learn(bytes, u64::try_from(covered).unwrap_or(0));
    }

    fn count(&mut self, offsets: u64) {
        self.offsets = self.offsets.saturating_add(offsets);
        self.fetch.progress.on_offsets(offsets);
    }

    /// The answer had nothing at the offset asked for.
    fn nothing(&mut self, run: &LogRun, pieces: &mut Vec<Piece>) -> Option<Ended> {
        let from = self.walk.position()?;
        self.empty = self.empty.saturating_add(1);
        if self.empty < EMPTY_ANSWERS && from < run.end {
            return None;
        }
        self.empty = 0;
        let (end, offset) = (run.end, from);
        if offset >= end {
            return Some(Ended::Failed(FetchError::BeyondEnd { end, offset }));
        }
        if !self.job.is_compacted {
            return Some(Ended::Failed(FetchError::Nothing { end, offset }));
        }
        // The cleaner may leave nothing at all between here and the end, and a broker then has nothing to send.
        let mut absent = Vec::new();
        self.walk.skip_to(end, |range| absent.push(Piece::Absent(range)));
        pieces.extend(absent);
        None
    }

    /// Leaves out what the budget does not grant. True when that was something.
    fn cut(&self, pieces: &mut Vec<Piece>) -> bool {
        let Some(budget) = &self.fetch.limits.budget else {
            return false;
        };
        let refused = pieces.iter().position(|piece| match piece {
            Piece::Batch(view) if view.header().is_control() => budget.is_spent(),
            Piece::Batch(view) => !budget.grants(view.header().records()),
            _ => budget.is_spent(),
        });
        if let Some(at) = refused {
            pieces.truncate(at);
        }
        refused.is_some()
    }

    async fn out_of_range(
        &mut self,
        log_start: i64,
        end: i64,
        output: &mut Output,
    ) -> Result<Option<Ended>, OutputError> {
        let offset = self.walk.position().unwrap_or(i64::MAX);
        if offset >= log_start {
            return Ok(Some(Ended::Failed(FetchError::BeyondEnd { end, offset })));
        }
        let mut gone = Vec::new();
        self.walk.skip_to(log_start, |range| gone.push(range));
        let offsets = gone
            .iter()
            .fold(0u64, |sum, range| sum.saturating_add(range.span()));
        self.count(offsets);
        output.deleted(gone, Evidence::at(log_start)).await?;
        Ok(None)
    }

    fn source_error(&self, source: SourceError) -> FetchError {
        FetchError::Source {
            topic: Arc::clone(&self.job.topic),
            partition: self.job.id.partition,
            offset: self.walk.position().unwrap_or(-1),
            source,
        }
    }

    fn batch_error(&self, source: BatchError) -> FetchError {
        FetchError::Batch {
            topic: Arc::clone(&self.job.topic),
            partition: self.job.id.partition,
            offset: self.walk.position().unwrap_or(-1),
            source,
        }
    }
}

impl Evidence {
    fn at(log_start_offset: i64) -> Self {
        Evidence {
            log_start_offset,
            leader_epoch: -1,
        }
    }
}

/// An answer may be empty because the broker was slow; so many in a row are not.
const EMPTY_ANSWERS: u32 = 3;
