//! One partition of a backup as the run of batches that a restore produces.
//!
//! Segments are opened in the order of their first offsets, and only when their turn has come; their batches are
//! merged by offset, decided by transaction, cut to the window. Unconfirmed segments follow at the end.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_wire::batch::{BatchHeader, BatchView};

use crate::apart::{self, Given, OpenTransaction, OpenTransactions};
use crate::cursor::{Cursor, Found, Source};
use crate::error::RestorerError;
use crate::footers::open_segment;
use crate::markers::MarkerSource;
use crate::merge::{Dropped, Head, Step, next_step};
use crate::plan::{Lost, Only, PartitionPlan, blocks_of};
use crate::replay::{Wanted, replay};
use crate::tally::Tally;
use crate::target::settings::BATCH_BYTES_MAX;
use crate::transactions::{Decision, TransactionalBatch};
use crate::window::Window;

/// What a partition's stream is made of.
pub struct Parts {
    /// Confirmed segments that the window wants.
    pub segments: Vec<Arc<SegmentInfo>>,
    /// Unconfirmed segments that are wanted.
    pub unconfirmed: Vec<Arc<SegmentInfo>>,
    /// Offsets that several of the segments claim.
    pub contested: OffsetSet,
    /// What of the segments counts no more.
    pub lost: Lost,
    /// Where transactions end.
    pub markers: MarkerSource,
    /// The time window.
    pub window: Window,
    /// Which class of records, if not the log itself.
    pub only: Option<Only>,
}

impl Parts {
    /// What a plan says about a partition.
    pub fn new(plan: PartitionPlan, window: Window, only: Option<Only>) -> Self {
        let markers = MarkerSource::new(&plan.marker_segments, plan.held, plan.evidence, plan.lost.clone());
        Self {
            segments: plan.segments,
            unconfirmed: plan.unconfirmed,
            contested: plan.contested,
            lost: plan.lost,
            markers,
            window,
            only,
        }
    }
}

/// The stream.
pub struct PartitionStream {
    source: Source,
    window: Window,
    contested: OffsetSet,
    lost: Lost,
    only: Option<Only>,
    given: Given,
    /// Offsets of what was given out apart from the log.
    apart: OffsetSet,
    open_transactions: OpenTransactions,
    upcoming: VecDeque<Arc<SegmentInfo>>,
    cursors: Vec<Cursor>,
    unconfirmed: VecDeque<Arc<SegmentInfo>>,
    unconfirmed_cursor: Option<Cursor>,
    markers: MarkerSource,
    /// Batches that are unconfirmed somewhere; whether they are confirmed is found out on the way.
    doubtful: HashSet<SequenceKey>,
    confirmed: HashSet<SequenceKey>,
    next_offset: i64,
    ready: VecDeque<BatchView>,
    left_out: Tally,
}

/// What merging gives out.
enum Next {
    /// The next batch of the log, and the key of its segment.
    OfTheLog(Found, String),
    /// A batch that is not in the log, and was asked for.
    Apart(Found, String),
}

/// Producer id, epoch and base sequence: with these a batch is the same wherever it lies.
type SequenceKey = (i64, i16, i32);

/// A batch rebuilt at an edge may come out larger than it was, since encoders differ; it is split at this size, which
/// brokers take by default.
const REBUILT_BATCH_BYTES_MAX: usize = 1_000_000;

impl PartitionStream {
    /// Begins; nothing is read yet.
    pub fn new(source: Source, mut parts: Parts) -> Self {
        parts
            .segments
            .sort_by_key(|segment| (segment.start_offset, segment.end_offset));
        parts.unconfirmed.sort_by_key(|segment| {
            (
                segment.identity.writer,
                segment.identity.session,
                segment.identity.counter,
            )
        });
        Self {
            source,
            window: parts.window,
            contested: parts.contested,
            lost: parts.lost,
            only: parts.only,
            given: Given::default(),
            apart: OffsetSet::new(),
            open_transactions: OpenTransactions::default(),
            upcoming: parts.segments.into(),
            cursors: Vec::new(),
            unconfirmed: parts.unconfirmed.into(),
            unconfirmed_cursor: None,
            markers: parts.markers,
            doubtful: HashSet::new(),
            confirmed: HashSet::new(),
            next_offset: 0,
            ready: VecDeque::new(),
            left_out: Tally::default(),
        }
    }

    /// What was left out or rebuilt so far. Records produced are counted by whoever produces them.
    pub fn left_out(&self) -> Tally {
        self.left_out
    }

    /// Transactions that were not over where the archive ends, so far.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.open_transactions.list()
    }

    /// Offsets of the records given out so far that are no part of the log: superseded or disputed ones.
    pub fn apart(&self) -> &OffsetSet {
        &self.apart
    }

    /// Reads which batches are unconfirmed. Before the first batch is asked for.
    pub async fn prepare(&mut self) -> Result<(), RestorerError> {
        for info in self.unconfirmed.clone() {
            let Some(mut cursor) = self.open(&info).await? else {
                continue;
            };
            while cursor.load(&self.source, true).await? {
                if let Some(key) = cursor.take().and_then(|found| sequence_key(found.batch.header())) {
                    self.doubtful.insert(key);
                }
            }
        }
        Ok(())
    }

    /// The next batch to produce: dense, without markers, in the order of the original log.
    pub async fn next(&mut self) -> Result<Option<BatchView>, RestorerError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(next) = self.next_confirmed().await? {
                match next {
                    Next::OfTheLog(found, key) => self.accept(&found, &key).await?,
                    Next::Apart(found, key) => self.accept_apart(&found, &key)?,
                }
            } else if let Some((found, key)) = self.next_unconfirmed().await? {
                self.accept_unconfirmed(&found, &key).await?;
            } else {
                return Ok(None);
            }
        }
    }

    async fn open(&mut self, info: &Arc<SegmentInfo>) -> Result<Option<Cursor>, RestorerError> {
        let segment = open_segment(&self.source.store, info)
            .await
            .map_err(|error| error.into_error(&info.key))?;
        let choice = blocks_of(info, self.window, self.only, &self.contested, &self.lost);
        if choice.skipped.is_some() && self.lost.gone_from(&info.key).is_some() {
            self.left_out.records_superseded += choice.records_skipped(&segment.footer.blocks);
        }
        Ok(Cursor::new(segment, choice))
    }

    /// The next batch of the log, or one beside it that was asked for.
    async fn next_confirmed(&mut self) -> Result<Option<Next>, RestorerError> {
        loop {
            self.load_heads().await?;
            let (at, dropped) = match self.lost_head() {
                // What counts no more takes no part in merging.
                Some((at, why)) => (at, Some(why)),
                None => {
                    let heads: Vec<Option<Head>> = self
                        .cursors
                        .iter()
                        .map(|cursor| cursor.head().map(Found::head))
                        .collect();
                    match next_step(&heads, self.next_offset) {
                        None => return Ok(None),
                        Some(Step::Drop(at, why)) => {
                            self.note_confirmed_at(at);
                            (at, Some(why))
                        }
                        Some(Step::Take(at)) => (at, None),
                    }
                }
            };
            let Some(cursor) = self.cursors.get_mut(at) else {
                return Ok(None);
            };
            let Some(found) = cursor.take() else { continue };
            let key = cursor.key().to_owned();
            match dropped {
                None => return Ok(Some(Next::OfTheLog(found, key))),
                Some(why) if apart::wants(self.only, why) => return Ok(Some(Next::Apart(found, key))),
                Some(why) => self.count_dropped(found.batch.header(), why),
            }
        }
    }

    /// A head that counts no more, as the ledger says.
    fn lost_head(&self) -> Option<(usize, Dropped)> {
        if self.lost.is_empty() {
            return None;
        }
        self.cursors.iter().enumerate().find_map(|(at, cursor)| {
            let head = cursor.head()?.head();
            let range = OffsetRange::new(head.base_offset, head.last_offset)?;
            Some((at, self.lost.verdict(cursor.key(), range)?))
        })
    }

    fn note_confirmed_at(&mut self, at: usize) {
        let head = self.cursors.get(at).and_then(Cursor::head);
        if let Some(header) = head.map(|found| *found.batch.header()) {
            self.note_confirmed(&header);
        }
    }

    /// Loads every head that could overlap the lowest one, opening segments whose turn has come.
    async fn load_heads(&mut self) -> Result<(), RestorerError> {
        loop {
            let reach = self
                .cursors
                .iter()
                .filter_map(|cursor| cursor.head().map(Found::head));
            let reach = reach
                .min_by_key(|head| head.base_offset)
                .map(|head| head.last_offset);
            // Without any head, the lowest of what could come decides.
            let lowest = self.cursors.iter().filter_map(Cursor::offset_at_least).min();
            let next_segment = self.upcoming.front().map(|info| info.start_offset);
            let reach = match (reach, lowest, next_segment) {
                (Some(reach), _, _) => reach,
                (None, Some(lowest), Some(segment)) => lowest.min(segment),
                (None, lowest, segment) => match lowest.or(segment) {
                    Some(offset) => offset,
                    None => return Ok(()),
                },
            };
            if next_segment.is_some_and(|offset| offset <= reach) {
                if let Some(info) = self.upcoming.pop_front() {
                    let cursor = self.open(&info).await?;
                    self.cursors.extend(cursor);
                }
                continue;
            }
            let waiting = self.cursors.iter().position(|cursor| {
                cursor.head().is_none() && cursor.offset_at_least().is_none_or(|offset| offset <= reach)
            });
            let Some(at) = waiting else { return Ok(()) };
            self.load(at).await?;
        }
    }

    async fn load(&mut self, at: usize) -> Result<(), RestorerError> {
        let others = self
            .cursors
            .iter()
            .enumerate()
            .any(|(other, cursor)| other != at && cursor.holds_memory());
        if let Some(cursor) = self.cursors.get_mut(at)
            && !cursor.load(&self.source, !others).await?
        {
            self.cursors.remove(at);
        }
        Ok(())
    }

    fn count_dropped(&mut self, header: &BatchHeader, why: Dropped) {
        if header.is_control() {
            return;
        }
        match why {
            Dropped::Duplicate => self.left_out.records_duplicate += u64::from(header.records()),
            Dropped::Disputed => self.left_out.records_disputed += u64::from(header.records()),
            Dropped::Superseded => self.left_out.records_superseded += u64::from(header.records()),
        }
    }

    /// Decides on a batch of the log, and makes ready what is to be produced.
    async fn accept(&mut self, found: &Found, key: &str) -> Result<(), RestorerError> {
        let header = found.batch.header();
        let from_offset = self.next_offset;
        self.next_offset = header.next_offset();
        self.note_confirmed(header);
        if self.only.is_some() || header.is_control() || header.record_count == 0 {
            return Ok(());
        }
        if header.is_transactional() && !self.is_committed(header).await? {
            return Ok(());
        }
        self.make_ready(found, key, from_offset).map(drop)
    }

    /// A batch that is no part of the log, and was asked for. The log does not tell what became of its transaction, so
    /// it is left out only if the brokers said that it was aborted.
    fn accept_apart(&mut self, found: &Found, key: &str) -> Result<(), RestorerError> {
        let header = found.batch.header();
        if header.is_control() || header.record_count == 0 || !self.given.is_new(header) {
            return Ok(());
        }
        if header.is_transactional() && self.markers.evident(transactional(header)) == Decision::Aborted {
            self.left_out.records_aborted += u64::from(header.records());
            return Ok(());
        }
        if let Some(range) = OffsetRange::new(header.base_offset, header.last_offset()) {
            self.apart.insert(range);
        }
        self.make_ready(found, key, 0).map(drop)
    }

    async fn accept_unconfirmed(&mut self, found: &Found, key: &str) -> Result<(), RestorerError> {
        let header = found.batch.header();
        if header.is_control() || header.record_count == 0 {
            return Ok(());
        }
        if sequence_key(header).is_some_and(|key| !self.confirmed.insert(key)) {
            self.left_out.records_unconfirmed_duplicate += u64::from(header.records());
            return Ok(());
        }
        if header.is_transactional() && !self.is_committed(header).await? {
            return Ok(());
        }
        let records = self.make_ready(found, key, 0)?;
        self.left_out.records_unconfirmed += records;
        Ok(())
    }

    async fn is_committed(&mut self, header: &BatchHeader) -> Result<bool, RestorerError> {
        let records = u64::from(header.records());
        match self
            .markers
            .decide(&self.source.store, transactional(header))
            .await?
        {
            Decision::Committed => return Ok(true),
            Decision::Aborted => self.left_out.records_aborted += records,
            Decision::Undecided => self.left_out.records_undecided += records,
            Decision::Open => {
                self.left_out.records_undecided += records;
                self.left_out.records_open += records;
                self.open_transactions.note(header);
            }
        }
        Ok(false)
    }

    fn make_ready(&mut self, found: &Found, key: &str, from_offset: i64) -> Result<u64, RestorerError> {
        let wanted = Wanted {
            window: self.window,
            position: found.position,
            from_offset,
            batch_bytes_max: REBUILT_BATCH_BYTES_MAX
                .max(found.batch.bytes().len())
                .min(BATCH_BYTES_MAX),
        };
        let replay = replay(&found.batch, wanted).map_err(|source| RestorerError::Batch {
            key: key.to_owned(),
            base_offset: found.batch.header().base_offset,
            source,
        })?;
        self.left_out.records_outside_window += replay.outside_window;
        if replay.rebuilt {
            self.left_out.batches_rebuilt += replay.batches.len() as u64;
        }
        let records = replay.records();
        self.ready.extend(replay.batches);
        Ok(records)
    }

    fn note_confirmed(&mut self, header: &BatchHeader) {
        if let Some(key) = sequence_key(header).filter(|key| self.doubtful.contains(key)) {
            self.confirmed.insert(key);
        }
    }

    async fn next_unconfirmed(&mut self) -> Result<Option<(Found, String)>, RestorerError> {
        loop {
            if let Some(cursor) = &mut self.unconfirmed_cursor {
                if cursor.load(&self.source, true).await? {
                    let key = cursor.key().to_owned();
                    return Ok(cursor.take().map(|found| (found, key)));
                }
                self.unconfirmed_cursor = None;
            }
            let Some(info) = self.unconfirmed.pop_front() else {
                return Ok(None);
            };
            self.unconfirmed_cursor = self.open(&info).await?;
        }
    }
}

fn transactional(header: &BatchHeader) -> TransactionalBatch {
    TransactionalBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
    }
}

fn sequence_key(header: &BatchHeader) -> Option<SequenceKey> {
    let known = header.has_producer() && header.base_sequence >= 0 && !header.is_control();
    known.then_some((header.producer_id, header.producer_epoch, header.base_sequence))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod apart_tests;
