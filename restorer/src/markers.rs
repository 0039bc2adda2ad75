//! Finding the marker that ends a transaction, however far behind its batches it lies.
//!
//! Footers list the markers of their segments, so no block is read for this. Footers are opened only as far ahead as
//! a decision needs, and their markers let go of once every batch in front of them is decided.

use std::collections::VecDeque;
use std::sync::Arc;

use teeline_archive::segment::{MarkerEntry, SegmentInfo};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_runtime::Store;

use crate::error::RestorerError;
use crate::footers::open_segment;
use crate::plan::Lost;
use crate::transactions::{Decision, Evidence, MarkerAt, Markers, TransactionalBatch, decide};

/// The markers of one partition.
pub struct MarkerSource {
    /// Segments with markers that were not opened yet, by first offset.
    unread: VecDeque<Arc<SegmentInfo>>,
    markers: Markers,
    /// What is held of the partition; a marker counts only if nothing is missing in front of it.
    held: OffsetSet,
    evidence: Vec<Evidence>,
    /// Markers that are not in the log any more end nothing.
    lost: Lost,
    forgotten_below: i64,
}

/// Letting go costs a walk over all markers held, so it is done only every so many offsets.
const FORGET_EVERY: i64 = 65_536;

impl MarkerSource {
    /// Markers are looked for in those of the `segments` that have any.
    pub fn new(segments: &[Arc<SegmentInfo>], held: OffsetSet, evidence: Vec<Evidence>, lost: Lost) -> Self {
        let mut unread: Vec<_> = segments
            .iter()
            .filter(|segment| segment.control_count > 0)
            .map(Arc::clone)
            .collect();
        unread.sort_by_key(|segment| segment.start_offset);
        Self {
            unread: unread.into(),
            markers: Markers::default(),
            held,
            evidence,
            lost,
            forgotten_below: 0,
        }
    }

    /// What became of the batch's transaction.
    pub async fn decide(
        &mut self,
        store: &Store,
        batch: TransactionalBatch,
    ) -> Result<Decision, RestorerError> {
        self.forget_below(batch.base_offset);
        let marker = self
            .first_after(store, batch.producer_id, batch.last_offset)
            .await?;
        let whole = marker.is_some_and(|marker| self.is_whole(batch.last_offset, marker.offset));
        let decision = decide(batch, marker, whole, &self.evidence);
        if decision == Decision::Undecided && marker.is_none() && self.reaches_the_end(batch.last_offset) {
            return Ok(Decision::Open);
        }
        Ok(decision)
    }

    /// What the brokers answered about the batch's transaction, whatever the log says behind it.
    pub fn evident(&self, batch: TransactionalBatch) -> Decision {
        decide(batch, None, false, &self.evidence)
    }

    async fn first_after(
        &mut self,
        store: &Store,
        producer_id: i64,
        offset: i64,
    ) -> Result<Option<MarkerAt>, RestorerError> {
        loop {
            let found = self.markers.first_after(producer_id, offset);
            let Some(next) = self.unread.front() else {
                return Ok(found);
            };
            // Segments interleave: one that begins in front of the marker may hold an earlier one.
            if found.is_some_and(|marker| marker.offset < next.start_offset) {
                return Ok(found);
            }
            let segment = open_segment(store, next)
                .await
                .map_err(|error| error.into_error(&next.key))?;
            self.unread.pop_front();
            let gone = self.lost.of_segment(&segment.info.key);
            let counts = |entry: &&MarkerEntry| !gone.is_some_and(|gone| gone.contains(entry.offset));
            for entry in segment.footer.markers.iter().filter(counts) {
                self.markers.insert(MarkerAt {
                    offset: entry.offset,
                    producer_id: entry.producer_id,
                    producer_epoch: entry.producer_epoch,
                    commit: entry.commit,
                });
            }
        }
    }

    fn is_whole(&self, last_offset: i64, marker_offset: i64) -> bool {
        match OffsetRange::new(last_offset.saturating_add(1), marker_offset) {
            Some(between) => self.held.contains_range(between),
            None => true,
        }
    }

    /// Whether nothing is missing behind an offset up to where the archive ends.
    fn reaches_the_end(&self, last_offset: i64) -> bool {
        let end = self.held.last().unwrap_or(-1);
        match OffsetRange::new(last_offset.saturating_add(1), end) {
            Some(behind) => self.held.contains_range(behind),
            None => true,
        }
    }

    fn forget_below(&mut self, offset: i64) {
        if offset.saturating_sub(self.forgotten_below) >= FORGET_EVERY {
            self.markers.forget_below(offset);
            self.forgotten_below = offset;
        }
    }
}
