//! The open segment of a partition: which batches it will hold.
//!
//! It is a list of positions: the bytes stay in the buffer until the segment is built. Batches that overlap stand in
//! different layers and become different segments, and so do batches of different leader epochs: what a truncation
//! takes from the log must be told from what it leaves by segment and offset alone.

use std::collections::{BTreeMap, BTreeSet};

use teeline_archive::OffsetRange;
use teeline_archive::ids::SessionId;

use crate::batch::{Batch, Content};

/// How much an open segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenSize {
    /// Bytes of its batches.
    pub bytes: u64,
    /// How many batches.
    pub batches: usize,
    /// Bytes of it that are in memory.
    pub memory_bytes: u64,
    /// Since when it is open, on the local clock.
    pub since_ms: Option<i64>,
}

/// Batches that wait for their segment.
#[derive(Debug, Default)]
pub struct OpenSegment {
    /// Batches of a layer do not overlap.
    layers: Vec<BTreeMap<i64, Batch>>,
    size: OpenSize,
}

impl OpenSegment {
    /// How much it holds.
    pub fn size(&self) -> OpenSize {
        self.size
    }

    /// Adds a batch.
    pub fn put(&mut self, batch: Batch) {
        self.size.count(&batch);
        let free = self.layers.iter_mut().find(|layer| !overlaps(layer, batch.range));
        match free {
            Some(layer) => {
                layer.insert(batch.range.first, batch);
            }
            None => self.layers.push(BTreeMap::from([(batch.range.first, batch)])),
        }
    }

    /// Its batches at these offsets.
    pub fn at(&self, range: OffsetRange) -> impl Iterator<Item = &Batch> {
        self.layers.iter().flat_map(move |layer| {
            layer
                .range(..=range.last)
                .rev()
                .map(|(_, batch)| batch)
                .take_while(move |batch| batch.range.last >= range.first)
        })
    }

    /// The leader epochs that its batches are noted with.
    pub fn leader_epochs(&self) -> BTreeSet<i32> {
        let batches = self.layers.iter().flat_map(BTreeMap::values);
        batches
            .map(Batch::leader_epoch)
            .filter(|epoch| *epoch >= 0)
            .collect()
    }

    /// Takes out every batch that `closes`: runs in order of offset, each to be one segment of about `bytes_max`, with
    /// batches of one leader epoch, and with captured ones of one session, as the ledger names the frames that went in
    /// by session. `closes` may complete the batch.
    pub fn close(&mut self, bytes_max: u64, mut closes: impl FnMut(&mut Batch) -> bool) -> Vec<Vec<Batch>> {
        self.size = OpenSize::default();
        let mut segments = Vec::new();
        for layer in std::mem::take(&mut self.layers) {
            let mut runs: BTreeMap<i32, Run> = BTreeMap::new();
            let mut left = BTreeMap::new();
            for (first, mut batch) in layer {
                if !closes(&mut batch) {
                    self.size.count(&batch);
                    left.insert(first, batch);
                    continue;
                }
                // Epochs mostly follow each other; where they alternate (markers, which are fetched and have one, among
                // batches without) each gets a segment of its own all the same, with the others' offsets as gaps.
                let run = runs.entry(batch.leader_epoch()).or_default();
                if run.is_full(bytes_max, &batch) {
                    segments.push(std::mem::take(run).batches);
                }
                run.push(batch);
            }
            segments.extend(runs.into_values().map(|run| run.batches));
            if !left.is_empty() {
                self.layers.push(left);
            }
        }
        segments
    }
}

impl OpenSize {
    fn count(&mut self, batch: &Batch) {
        self.bytes = self.bytes.saturating_add(u64::from(batch.bytes));
        self.batches = self.batches.saturating_add(1);
        if let Content::Fetched(bytes) = &batch.content {
            self.memory_bytes = self.memory_bytes.saturating_add(bytes.len() as u64);
        }
        let since_ms = self
            .since_ms
            .map_or(batch.placed_ms, |since| since.min(batch.placed_ms));
        self.since_ms = Some(since_ms);
    }
}

/// What becomes one segment.
#[derive(Debug, Default)]
struct Run {
    batches: Vec<Batch>,
    bytes: u64,
    session: Option<SessionId>,
}

impl Run {
    fn is_full(&self, bytes_max: u64, next: &Batch) -> bool {
        let own = next.session();
        let other_session = own.is_some() && self.session.is_some() && own != self.session;
        !self.batches.is_empty() && (self.bytes >= bytes_max || other_session)
    }

    fn push(&mut self, batch: Batch) {
        self.session = self.session.or(batch.session());
        self.bytes = self.bytes.saturating_add(u64::from(batch.bytes));
        self.batches.push(batch);
    }
}

fn overlaps(layer: &BTreeMap<i64, Batch>, range: OffsetRange) -> bool {
    // Batches of a layer do not overlap, so only the last one that starts within reach can.
    layer
        .range(..=range.last)
        .next_back()
        .is_some_and(|(_, batch)| batch.range.last >= range.first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::batch::Identity;
    use crate::testing::{batch_with, location};
    use teeline_archive::Lsn;
    use teeline_archive::ids::BufferPosition;

    fn captured(base: i64, leader_epoch: i32, placed_ms: i64) -> Batch {
        let (header, _) = batch_with(0, 5, |_| {});
        let position = BufferPosition {
            session: SessionId(1),
            lsn: Lsn(1),
        };
        Batch {
            range: OffsetRange::new(base, base + 4).unwrap(),
            bytes: 100,
            identity: Identity::of(&header),
            placed_ms,
            content: Content::Captured {
                intent: position,
                outcome: position,
                location: location(position),
                leader_epoch,
                append_time_ms: None,
            },
        }
    }

    fn fetched(base: i64, leader_epoch: i32) -> Batch {
        let (header, bytes) = batch_with(base, 1, |header| header.partition_leader_epoch = leader_epoch);
        Batch {
            range: OffsetRange::new(base, base).unwrap(),
            bytes: 100,
            identity: Identity::of(&header),
            placed_ms: 0,
            content: Content::Fetched(bytes),
        }
    }

    fn offsets(segments: &[Vec<Batch>]) -> Vec<Vec<i64>> {
        segments
            .iter()
            .map(|batches| batches.iter().map(|batch| batch.range.first).collect())
            .collect()
    }

    #[test]
    fn a_segment_has_batches_of_one_epoch() {
        let mut open = OpenSegment::default();
        for (base, epoch) in [(0, 4), (6, 4), (12, 5), (18, -1), (24, -1)] {
            open.put(captured(base, epoch, 0));
        }
        for (base, epoch) in [(5, 4), (11, 4), (17, 5), (23, 5), (29, 5)] {
            open.put(fetched(base, epoch));
        }
        let segments = open.close(1 << 20, |_| true);
        let expected = [vec![18, 24], vec![0, 5, 6, 11], vec![12, 17, 23, 29]];
        assert_eq!(offsets(&segments), expected);
        assert_eq!(open.size(), OpenSize::default());
    }

    #[test]
    fn what_does_not_close_stays_with_its_age() {
        let mut open = OpenSegment::default();
        for (base, placed_ms) in [(0, 10), (6, 20), (12, 30)] {
            open.put(captured(base, 4, placed_ms));
        }
        let segments = open.close(1 << 20, |batch| batch.range.first < 6);
        assert_eq!(offsets(&segments), [[0]]);
        let size = open.size();
        assert_eq!((size.batches, size.bytes, size.since_ms), (2, 200, Some(20)));
        assert_eq!(open.at(OffsetRange::new(0, 11).unwrap()).count(), 1);
        assert_eq!(offsets(&open.close(1 << 20, |_| true)), [[6, 12]]);
    }
}
