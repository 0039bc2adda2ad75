//! Pieces of one partition's log to segments.
//!
//! A fetched segment vouches for what it spans: offsets inside it that the log does not have need no word in the ledger.
//! What it does not vouch for (what lies between wanted ranges, batches that cannot be read) goes into its gaps. Only
//! what is absent before the first or after the last batch of a segment is told of by itself. A segment is read under one
//! leader epoch from its first to its last batch, so that it is a piece of one lineage: what the leader has. A follower may
//! know of an election before it has cut off what the new leader does not have; where followers answered, a segment holds
//! batches of one epoch, which one leader wrote.

use std::sync::Arc;

use teeline_archive::ledger::AbsenceReason;
use teeline_archive::segment::meta::UNDECIDED_MAX;
use teeline_archive::segment::{Origin, SegmentBuilder, SegmentError, SegmentNotes, UndecidedTransaction};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_wire::batch::BatchView;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::walk::Piece;
use super::{Fetch, FetchJob, Found, Gone};
use crate::fetching::{note_transaction, undecided};
use crate::prepare;
use crate::transactions::Transactions;
use crate::writer::{SegmentWriter, WriteError};

/// Why pieces were not stored.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The archive did not take them.
    #[error("store what was fetched")]
    Write(#[from] WriteError),
    /// Nobody wants to hear of it.
    #[error("nobody takes what is found")]
    Unheard,
}

/// What was read along with the pieces, and shows that offsets are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Where the log began.
    pub log_start_offset: i64,
    /// Epoch of the leader, -1 when unknown.
    pub leader_epoch: i32,
}

/// What one job has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Segments.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
}

/// The segments of one job.
pub struct Output {
    job: Arc<FetchJob>,
    fetch: Fetch,
    found: mpsc::Sender<Found>,
    open: Option<OpenSegment>,
    /// Absent since the last batch.
    absent: Vec<OffsetRange>,
    evidence: Evidence,
    /// A follower has answered once.
    from_follower: bool,
    stored: Stored,
}

/// A batch, and what the log does not have between it and the one before.
struct Item {
    view: BatchView,
    absent: Vec<OffsetRange>,
}

/// The segment being written.
struct OpenSegment {
    writer: SegmentWriter,
    begun: Instant,
    next_offset: Option<i64>,
    /// Of the last batch.
    leader_epoch: Option<i32>,
    gaps: Vec<OffsetRange>,
    transactions: Transactions,
}

impl Output {
    /// No segment is begun before there is a batch.
    pub fn new(job: Arc<FetchJob>, fetch: Fetch, found: mpsc::Sender<Found>) -> Self {
        Output {
            job,
            fetch,
            found,
            open: None,
            absent: Vec::new(),
            evidence: Evidence {
                log_start_offset: -1,
                leader_epoch: -1,
            },
            from_follower: false,
            stored: Stored::default(),
        }
    }

    /// What is stored so far.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Stores pieces of one answer, in order.
    pub async fn push(
        &mut self,
        pieces: Vec<Piece>,
        evidence: Evidence,
        from_follower: bool,
    ) -> Result<(), OutputError> {
        if evidence.leader_epoch != self.evidence.leader_epoch {
            // What one leader said is true of its log. The next one may have cut off what was read before.
            self.finish().await?;
        }
        self.evidence = evidence;
        self.from_follower |= from_follower;
        let mut items = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Batch(view) => items.push(Item {
                    view,
                    absent: std::mem::take(&mut self.absent),
                }),
                Piece::Absent(range) => self.absent.push(range),
                // Left out, so that it becomes a gap.
                Piece::Unreadable(..) => {}
            }
        }
        while !items.is_empty() {
            items = self.write(items).await?;
        }
        let is_due = |open: &OpenSegment| {
            open.writer.uncompressed_bytes() >= self.fetch.sink.bytes_max()
                || open.begun.elapsed() >= self.fetch.limits.segment_age_max
                || open.gaps.len() >= GAPS_ENOUGH
        };
        if self.open.as_ref().is_some_and(is_due) {
            self.close().await?;
        }
        Ok(())
    }

    /// These offsets lie below the start of the log.
    pub async fn deleted(&mut self, ranges: Vec<OffsetRange>, evidence: Evidence) -> Result<(), OutputError> {
        // The open segment would vouch for what it spans.
        self.finish().await?;
        self.evidence = evidence;
        self.tell_absent(ranges, AbsenceReason::Deleted).await
    }

    /// Makes everything so far visible.
    pub async fn finish(&mut self) -> Result<(), OutputError> {
        self.close().await?;
        let absent = std::mem::take(&mut self.absent);
        self.tell_absent(absent, AbsenceReason::Compacted).await
    }

    /// Gives up what is not visible yet.
    pub async fn abort(mut self) {
        if let Some(open) = self.open.take() {
            open.writer.abort().await;
        }
    }

    /// Writes batches into the open segment; gives back those for which it has no room.
    async fn write(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>, OutputError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let absent = items.first_mut().map(|first| std::mem::take(&mut first.absent));
                self.tell_absent(absent.unwrap_or_default(), AbsenceReason::Compacted)
                    .await?;
                self.begin()?
            }
        };
        let others = items.split_off(self.of_one_lineage(&open, &items));
        let pushed = open.writer.push_with(move |builder| push(builder, items));
        let (mut items, result) = pushed.await?;
        let done = result.map_err(WriteError::Build)?;
        let mut left = items.split_off(done.min(items.len()));
        left.extend(others);
        for item in &items {
            open.note(item);
            let header = item.view.header();
            let records = if header.is_control() { 0 } else { header.records() };
            self.fetch.progress.on_batch(item.view.bytes().len(), records);
        }
        self.open = Some(open);
        if !left.is_empty() {
            self.close().await?;
        }
        Ok(left)
    }

    /// How many of the batches go into the open segment: a segment to which a follower contributed holds one epoch.
    fn of_one_lineage(&self, open: &OpenSegment, items: &[Item]) -> usize {
        if !self.from_follower {
            return items.len();
        }
        let epoch_of = |item: &Item| item.view.header().partition_leader_epoch;
        let own = open.leader_epoch.or_else(|| items.first().map(epoch_of));
        items
            .iter()
            .position(|item| Some(epoch_of(item)) != own)
            .unwrap_or(items.len())
    }

    fn begin(&self) -> Result<OpenSegment, WriteError> {
        let job = &self.job;
        let writer = self
            .fetch
            .sink
            .begin(&job.cluster_id, &job.topic, job.id, Origin::Fetch)?;
        Ok(OpenSegment {
            writer,
            begun: Instant::now(),
            next_offset: None,
            leader_epoch: None,
            gaps: Vec::new(),
            transactions: Transactions::default(),
        })
    }

    async fn close(&mut self) -> Result<(), OutputError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let undecided: Vec<UndecidedTransaction> = open
            .transactions
            .open()
            .map(undecided)
            .take(UNDECIDED_MAX)
            .collect();
        let first = undecided.iter().map(|open| open.first_offset).min();
        let notes = SegmentNotes {
            undecided_first_offset: first.unwrap_or(-1),
            undecided,
            gaps: open.gaps,
            ..SegmentNotes::default()
        };
        if let Some(info) = open.writer.finish(notes).await? {
            self.stored.segments = self.stored.segments.saturating_add(1);
            self.stored.records = self.stored.records.saturating_add(info.record_count);
            self.stored.bytes = self.stored.bytes.saturating_add(info.uncompressed_bytes);
            self.fetch.progress.on_segment();
            self.tell(Found::Segment(Box::new(info))).await?;
        }
        Ok(())
    }

    async fn tell_absent(
        &mut self,
        ranges: Vec<OffsetRange>,
        reason: AbsenceReason,
    ) -> Result<(), OutputError> {
        for range in ranges {
            let gone = Gone {
                id: self.job.id,
                topic: Arc::clone(&self.job.topic),
                range,
                reason,
                log_start_offset: self.evidence.log_start_offset,
                leader_epoch: self.evidence.leader_epoch,
            };
            self.tell(Found::Absent(gone)).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, found: Found) -> Result<(), OutputError> {
        self.found.send(found).await.map_err(|_| OutputError::Unheard)
    }
}

impl OpenSegment {
    fn note(&mut self, item: &Item) {
        let header = item.view.header();
        let last = header.base_offset.saturating_sub(1);
        if let Some(between) = self.next_offset.and_then(|next| OffsetRange::new(next, last)) {
            let vouched: OffsetSet = item.absent.iter().copied().collect();
            self.gaps.extend(vouched.holes(between));
        }
        self.next_offset = Some(header.next_offset());
        self.leader_epoch = Some(header.partition_leader_epoch);
        note_transaction(
            &mut self.transactions,
            header,
            prepare::ended_producer(&item.view),
        );
    }
}

/// Pushes as many as there is room for.
fn push(builder: &mut SegmentBuilder, items: Vec<Item>) -> (Vec<Item>, Result<usize, SegmentError>) {
    let mut done = 0usize;
    for item in &items {
        let prepared = prepare::verified(&item.view);
        match builder.push(&prepared.bytes, prepared.meta) {
            Ok(()) => done = done.saturating_add(1),
            Err(SegmentError::Full { .. }) if !builder.is_empty() => break,
            Err(error) => return (items, Err(error)),
        }
    }
    (items, Ok(done))
}

/// Far below what a footer can list, as one response may bring thousands more.
const GAPS_ENOUGH: usize = 8_192;
