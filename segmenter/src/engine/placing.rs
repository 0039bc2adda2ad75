//! From resolutions to partitions.

use std::sync::Arc;

use teeline_archive::OffsetRange;
use teeline_wire::batch::BatchHeader;
use uuid::Uuid;

use super::Engine;
use crate::append_time::{StoredForm, stored_form};
use crate::batch::{Batch, Content, Identity};
use crate::catalog::Attribution;
use crate::metrics;
use crate::partition::{PartitionId, Placed};
use crate::resolver::{Doubt, Resolution, TopicKey, Unresolved, Written};
use crate::settlement::Unsettled;
use crate::transactions::Order;

impl Engine {
    pub(super) fn on_resolutions(&mut self, resolutions: impl IntoIterator<Item = Resolution>, now_ms: i64) {
        for resolution in resolutions {
            match resolution {
                Resolution::Written(written) => self.attribute(written, now_ms),
                Resolution::Refused(position) => self.watermark.let_go(position),
                Resolution::Unresolved(unresolved) => self.doubt(unresolved, now_ms),
            }
        }
    }

    /// Finds the incarnation of an acknowledged batch, or lets it wait for the catalog.
    pub(super) fn attribute(&mut self, written: Written, now_ms: i64) {
        match self.attribution(&written) {
            Attribution::Certain(incarnation) => match self.catalogs.name_of(incarnation) {
                Some(topic) => self.place(written, incarnation, &topic, now_ms),
                None if self.is_left_out(&written.intent.topic) => {
                    self.watermark.let_go(written.intent.position)
                }
                None => {
                    self.unattributed.insert(written.intent.position, written);
                }
            },
            Attribution::Wait => {
                self.unattributed.insert(written.intent.position, written);
            }
            Attribution::Uncertain { newest, before } => {
                self.doubt_attribution(written, newest, before, now_ms)
            }
        }
    }

    /// Looks again at what waits for the catalog.
    pub(super) fn attribute_waiting(&mut self, now_ms: i64) {
        for (_, written) in std::mem::take(&mut self.unattributed) {
            self.attribute(written, now_ms);
        }
    }

    /// Acknowledged batches that have waited for the catalog for `patience_ms` are taken from the log.
    pub(super) fn give_up_catalog(&mut self, now_ms: i64, patience_ms: i64) {
        let waited: Vec<_> = self
            .unattributed
            .iter()
            .take_while(|(_, written)| now_ms.saturating_sub(written.intent.sent_at_ms) >= patience_ms)
            .filter(|(_, written)| matches!(written.intent.topic, TopicKey::Name(_)))
            .map(|(&position, _)| position)
            .collect();
        for position in waited {
            if let Some(written) = self.unattributed.remove(&position) {
                self.doubt_attribution(written, None, None, now_ms);
            }
        }
    }

    fn attribution(&self, written: &Written) -> Attribution {
        match &written.intent.topic {
            TopicKey::Id(id) => Attribution::Certain(*id),
            TopicKey::Name(name) => self
                .catalogs
                .attribute(name, written.intent.position, written.outcome),
        }
    }

    /// The catalog does not prove where an acknowledged batch went.
    pub(super) fn doubt_attribution(
        &mut self,
        written: Written,
        newest: Option<Uuid>,
        before: Option<Uuid>,
        now_ms: i64,
    ) {
        if self.was_archived(written.intent.position) {
            return;
        }
        let former = before.filter(|before| newest != Some(*before));
        if newest.is_none()
            && let Some(incarnation) = former
            && let Some(topic) = self.catalogs.name_of(incarnation)
            && !self.is_behind(&written, incarnation)
        {
            // The topic is gone, so the log cannot be asked; the batch goes on where the last life of it ended.
            return self.place(written, incarnation, &topic, now_ms);
        }
        tracing::debug!(position = %written.intent.position, ?newest, ?before,
            "a batch by name is not attributed with certainty; it is taken from the log");
        self.doubt_written(written, former, now_ms);
    }

    /// Whether the batch lies before what is held of the incarnation: then it cannot go on there.
    fn is_behind(&self, written: &Written, incarnation: Uuid) -> bool {
        let id = PartitionId {
            incarnation,
            partition: written.intent.partition,
        };
        let end = self
            .partitions
            .get(&id)
            .and_then(|partition| partition.held_end());
        end.is_some_and(|end| written.base_offset < end)
    }

    /// An acknowledged batch is to be taken from the log at its offsets.
    fn doubt_written(&mut self, written: Written, fallback: Option<Uuid>, now_ms: i64) {
        let unresolved = Unresolved {
            intent: written.intent.clone(),
            doubt: Doubt::Uncertain,
            since_ms: now_ms,
            base_offset: Some(written.base_offset),
            accepted_before: true,
        };
        metrics::unresolved(cause(Doubt::Uncertain));
        self.settlement.add(Unsettled {
            written: Some(written),
            fallback,
            ..Unsettled::new(unresolved)
        });
    }

    /// An intent without a (clear) outcome.
    fn doubt(&mut self, unresolved: Unresolved, _now_ms: i64) {
        let intent = &unresolved.intent;
        if self.was_archived(intent.position) {
            return;
        }
        if self.is_left_out(&intent.topic) {
            return self.watermark.let_go(intent.position);
        }
        let incarnation = match &intent.topic {
            TopicKey::Id(id) => Some(*id),
            TopicKey::Name(name) => self.catalogs.newest(name),
        };
        if let (Some(incarnation), Some(header)) = (incarnation, &intent.header)
            && self.confirmed.contains(incarnation, intent.partition, header)
        {
            self.watermark.let_go(intent.position);
            return;
        }
        metrics::unresolved(cause(unresolved.doubt));
        self.settlement.add(Unsettled::new(unresolved));
    }

    /// Puts an acknowledged batch where it belongs.
    pub(super) fn place(&mut self, written: Written, incarnation: Uuid, topic: &Arc<str>, now_ms: i64) {
        let Some(header) = written.intent.header else {
            return;
        };
        let last = written
            .base_offset
            .saturating_add(i64::from(header.last_offset_delta));
        let Some(range) = OffsetRange::new(written.base_offset, last) else {
            return;
        };
        let id = PartitionId {
            incarnation,
            partition: written.intent.partition,
        };
        let position = written.intent.position;
        let order = match header.is_transactional() {
            true => self.endings.order_of(header.producer_id, written.outcome),
            false => Order::default(),
        };
        let was_archived = self.was_archived(position);
        let partition = self.partition(id, topic);
        if was_archived || partition.is_committed(written.outcome, range) {
            partition.note_committed(range, &header, order);
            self.watermark.let_go(position);
            return self.confirm(&written, id, topic);
        }
        let form = stored_form(
            &header,
            written.log_append_time_ms,
            self.topics.stamps(incarnation),
        );
        let append_time_ms = match form {
            StoredForm::AsSent => None,
            StoredForm::Stamped(append_time_ms) => Some(append_time_ms),
            StoredForm::Ambiguous if !self.settings.has_source => likely_append_time(&written, &header),
            StoredForm::Ambiguous => return self.doubt_written(written, None, now_ms),
        };
        let batch = Batch {
            range,
            bytes: u32::try_from(header.size_bytes()).unwrap_or(u32::MAX),
            identity: Identity::of(&header),
            placed_ms: now_ms,
            content: Content::Captured {
                intent: position,
                outcome: written.outcome,
                location: written.intent.location,
                leader_epoch: written.leader_epoch,
                append_time_ms,
            },
        };
        match self.partition(id, topic).place_captured(batch, &header, order) {
            Placed::Held => {}
            Placed::Duplicate => {
                metrics::duplicate();
                self.watermark.let_go(position);
            }
            Placed::Overlapping => {
                tracing::debug!(%topic, partition = id.partition, offset = range.first,
                    "a batch lies at offsets that are held already; both are kept");
            }
            Placed::Conflicting => self.on_conflict(id, topic, range),
        }
        self.topics.note_captured(incarnation);
        self.dirty.insert(id);
        self.confirm(&written, id, topic);
    }

    /// Two contents claim the same offsets. Both are kept, and what the log has there now is fetched beside them.
    fn on_conflict(&mut self, id: PartitionId, topic: &Arc<str>, range: OffsetRange) {
        metrics::conflict();
        tracing::warn!(%topic, partition = id.partition, offset = range.first,
            "the broker gave out the same offsets twice, as after an unclean leader election; both contents are kept");
        if self.settings.has_source {
            self.partition(id, topic).contest(range);
        }
    }

    /// A batch is confirmed: copies of it that are in doubt are settled.
    fn confirm(&mut self, written: &Written, id: PartitionId, topic: &Arc<str>) {
        let Some(header) = &written.intent.header else {
            return;
        };
        self.confirmed.note(id.incarnation, id.partition, header);
        let is_topic = |key: &TopicKey| match key {
            TopicKey::Id(incarnation) => *incarnation == id.incarnation,
            TopicKey::Name(name) => name == topic,
        };
        for position in self.settlement.on_confirmed(written, is_topic) {
            self.watermark.let_go(position);
        }
    }
}

/// Without a source to ask: an answer that repeats the batch's own time is a duplicate's far more often than a coincidence.
fn likely_append_time(written: &Written, header: &BatchHeader) -> Option<i64> {
    let answered_ms = written.log_append_time_ms;
    (answered_ms >= 0 && answered_ms != header.max_timestamp).then_some(answered_ms)
}

/// The word for it in metrics.
fn cause(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::ConnectionLost => "connection_lost",
        Doubt::SessionLost => "session_lost",
        Doubt::NoAnswer => "no_answer",
        Doubt::OpenError(_) => "open_error",
        Doubt::Uncertain => "uncertain",
    }
}
