//! The source is gone for good: what is in doubt is archived as what it is.
//!
//! Acknowledged batches go to the last known incarnation of their topic. Intents without an answer become *unconfirmed*:
//! they are kept apart, under provisional offsets that continue after what is held, and they count as coverage of nothing.
//! Those of connections of which the broker had accepted nothing before are *quarantined*. Holes are explained by the
//! loss.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_archive::ledger::AbsenceReason;
use teeline_archive::segment::{Origin, SegmentNotes};
use uuid::Uuid;

use super::Engine;
use super::results::absence;
use crate::batch::{Batch, Content, Identity};
use crate::metrics;
use crate::partition::PartitionId;
use crate::resolver::{TopicKey, Unresolved, Written};
use crate::upload::lsn_range;

impl Engine {
    /// Declares the source lost. For when everything is read and no writer lives.
    pub fn on_source_lost(&mut self, now_ms: i64) {
        self.source_lost_at_ms = Some(now_ms);
        self.place_acknowledged(now_ms);
        self.archive_unconfirmed(now_ms);
        self.explain_holes(now_ms);
    }

    fn place_acknowledged(&mut self, now_ms: i64) {
        for (_, written) in std::mem::take(&mut self.unattributed) {
            if let Some(left) = self.place_by_name(written, now_ms) {
                self.unattributed.insert(left.intent.position, left);
            }
        }
    }

    /// Gives the batch back when no catalog has ever named its topic.
    fn place_by_name(&mut self, written: Written, now_ms: i64) -> Option<Written> {
        let found = self.incarnation_of(&written.intent.topic);
        match found {
            Some((incarnation, topic)) => {
                self.place(written, incarnation, &topic, now_ms);
                None
            }
            None => Some(written),
        }
    }

    fn archive_unconfirmed(&mut self, now_ms: i64) {
        let mut groups: BTreeMap<(PartitionId, bool), (Arc<str>, Vec<Unresolved>)> = BTreeMap::new();
        let mut seen = HashSet::new();
        for unsettled in self.settlement.take_all() {
            if let Some(written) = unsettled.written {
                if let Some(left) = self.place_by_name(written, now_ms) {
                    self.unattributed.insert(left.intent.position, left);
                }
                continue;
            }
            let unresolved = unsettled.unresolved;
            let intent = &unresolved.intent;
            let (Some((incarnation, topic)), Some(header)) =
                (self.incarnation_of(&intent.topic), intent.header)
            else {
                tracing::warn!(position = %intent.position, topic = ?intent.topic,
                    "an unconfirmed batch stays in the buffer: its topic was never identified, or it does not read");
                continue;
            };
            let is_copy = header.has_producer()
                && !seen.insert((
                    header.producer_id,
                    header.producer_epoch,
                    header.base_sequence,
                    incarnation,
                    intent.partition,
                ));
            if is_copy {
                self.watermark.let_go(intent.position);
                continue;
            }
            let id = PartitionId {
                incarnation,
                partition: intent.partition,
            };
            let quarantined = !unresolved.accepted_before;
            groups
                .entry((id, quarantined))
                .or_insert_with(|| (topic, Vec::new()))
                .1
                .push(unresolved);
        }
        let mut next: BTreeMap<PartitionId, i64> = BTreeMap::new();
        for ((id, quarantined), (topic, intents)) in groups {
            let held_end = self.partition(id, &topic).held_end().unwrap_or(0);
            let offset = next.entry(id).or_insert(held_end);
            let batches: Vec<Batch> = intents
                .iter()
                .filter_map(|unresolved| provisional(unresolved, offset))
                .collect();
            let count = batches.len() as u64;
            metrics::unconfirmed(count);
            self.counts.unconfirmed = self.counts.unconfirmed.saturating_add(count);
            self.topics.note_captured(id.incarnation);
            let notes = SegmentNotes {
                lsn_range: lsn_range(&batches),
                quarantined,
                ..SegmentNotes::default()
            };
            self.plan_segment(id, &topic, Origin::Unconfirmed, batches, notes);
        }
    }

    fn explain_holes(&mut self, now_ms: i64) {
        for (id, partition) in &mut self.partitions {
            for range in partition.missing() {
                partition.mark_absent(range, now_ms);
                let topic = &partition.topic;
                self.absences
                    .push(absence(topic, *id, range, AbsenceReason::SourceLost, now_ms));
            }
            self.dirty.insert(*id);
        }
    }

    fn incarnation_of(&self, topic: &TopicKey) -> Option<(Uuid, Arc<str>)> {
        let incarnation = match topic {
            TopicKey::Id(id) => *id,
            TopicKey::Name(name) => self.catalogs.newest(name)?,
        };
        Some((incarnation, self.catalogs.name_of(incarnation)?))
    }
}

/// The batch at the next provisional offset.
fn provisional(unresolved: &Unresolved, offset: &mut i64) -> Option<Batch> {
    let header = unresolved.intent.header?;
    let last = offset.saturating_add(i64::from(header.last_offset_delta));
    let range = OffsetRange::new(*offset, last)?;
    *offset = last.saturating_add(1);
    let position = unresolved.intent.position;
    let content = Content::Captured {
        intent: position,
        outcome: position,
        location: unresolved.intent.location,
        leader_epoch: -1,
        append_time_ms: None,
    };
    let bytes = u32::try_from(header.size_bytes()).unwrap_or(u32::MAX);
    Some(Batch {
        range,
        bytes,
        identity: Identity::of(&header),
        placed_ms: 0,
        content,
    })
}
