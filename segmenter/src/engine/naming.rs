//! What catalogs say of topics: which id a name means, what changed, and which ids are not captured at all.
//!
//! A producer may name a topic by an id that its proxy has not heard of yet, as after another proxy told the client. Such
//! a batch is captured, as it could not be brought back. When the id turns out to be of a topic that is not to be
//! captured, no catalog will ever name it otherwise: the batches are let go.
//!
//! The proxy asks for the name at once, but it may die before the answer, and the topic may have been deleted by then.
//! What has waited for a name for long is therefore asked for here, by the id. The answer is the name, or that there
//! is no such topic (any more). The latter is believed like "no such partition" for a batch in doubt: when the source
//! has said so for a while.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use teeline_archive::buffer::{Catalog, CatalogTopic};
use teeline_archive::ids::{BufferPosition, Lsn};
use uuid::Uuid;

use super::Engine;
use crate::error::SegmenterError;
use crate::resolver::TopicKey;
use crate::settlement::{Answer, Graces};

impl Engine {
    pub(super) fn on_catalog(
        &mut self,
        position: BufferPosition,
        catalog: &Catalog,
        now_ms: i64,
    ) -> Result<(), SegmenterError> {
        match &self.cluster_id {
            Some(bound) if **bound != *catalog.cluster_id => {
                return Err(SegmenterError::OtherCluster {
                    backup_id: self.settings.backup_id.clone(),
                    bound_to: bound.to_string(),
                    found: catalog.cluster_id.clone(),
                });
            }
            Some(_) => {}
            None => self.cluster_id = Some(Arc::from(catalog.cluster_id.as_str())),
        }
        self.note_left_out(catalog);
        let news = self.catalogs.on_catalog(position, catalog);
        for (topic, incarnation) in &news.replaced {
            tracing::info!(%topic, %incarnation, "a topic was deleted, or deleted and created again");
        }
        let gone = news.replaced.iter().map(|(_, incarnation)| *incarnation);
        self.on_topics_gone(&gone.collect());
        let replaced = self.topics.on_catalog(position, catalog);
        self.keep_snapshot(position, catalog.at_ms, replaced);
        self.attribute_waiting(now_ms);
        Ok(())
    }

    pub(super) fn keep_snapshot(
        &mut self,
        position: BufferPosition,
        at_ms: i64,
        replaced: impl IntoIterator<Item = BufferPosition>,
    ) {
        if self.topics.needs(position) {
            self.watermark.hold(position, at_ms);
        }
        for old in replaced {
            if !self.topics.needs(old) {
                self.watermark.let_go(old);
            }
        }
    }

    fn note_left_out(&mut self, catalog: &Catalog) {
        let mut is_new = false;
        for topic in catalog.topics.iter().filter(|topic| !topic.id.is_nil()) {
            if topic.error_code != CatalogTopic::NOT_CAPTURED {
                self.left_out.remove(&topic.id);
            } else if self.catalogs.name_of(topic.id).is_none() && self.left_out.insert(topic.id) {
                tracing::info!(topic = %topic.name, id = %topic.id,
                    "what was captured of a topic before its id was known is left out: the topic is not captured");
                is_new = true;
            }
        }
        if is_new {
            // Acknowledged ones are looked at with all that wait for a catalog, and what comes later when it comes.
            let left_out = &self.left_out;
            for position in self
                .settlement
                .forget_topics(|topic| names_one_of(topic, left_out))
            {
                self.watermark.let_go(position);
            }
        }
    }

    /// Ids of topics that acknowledged batches have waited long for the names of.
    pub(super) fn unnamed(&self, now_ms: i64) -> BTreeSet<Uuid> {
        let grace_ms = self.settle_grace_ms();
        let waiting = self
            .unattributed
            .values()
            .take_while(|written| now_ms.saturating_sub(written.intent.sent_at_ms) >= grace_ms);
        waiting
            .filter_map(|written| match &written.intent.topic {
                TopicKey::Id(id) => Some(*id),
                TopicKey::Name(_) => None,
            })
            .collect()
    }

    /// Whether acknowledged batches wait for the source to say what their topics are called.
    pub fn waits_for_names(&self) -> bool {
        let mut waiting = self.unattributed.values();
        self.settings.has_source && waiting.any(|written| matches!(written.intent.topic, TopicKey::Id(_)))
    }

    /// The source has said what these ids are called, or that it has no such topic.
    pub(super) fn on_named(
        &mut self,
        answers: &BTreeMap<Uuid, Option<CatalogTopic>>,
        (asked_ms, graces): (i64, Graces),
        now_ms: i64,
    ) {
        let mut found = Vec::new();
        for (id, topic) in answers {
            let Some(topic) = topic else {
                self.on_id_gone(*id, (asked_ms, graces), now_ms);
                continue;
            };
            let is_captured = self.settings.topics.matches(&topic.name);
            if is_captured {
                self.catalogs.note_name(*id, &topic.name);
            }
            found.push(CatalogTopic {
                error_code: if is_captured {
                    0
                } else {
                    CatalogTopic::NOT_CAPTURED
                },
                ..topic.clone()
            });
        }
        if found.is_empty() {
            return;
        }
        // It says what a catalog of the proxy would have said, but has no place in the order of the buffer.
        let catalog = Catalog {
            requested_after: Lsn::NONE,
            at_ms: asked_ms,
            cluster_id: self.cluster_id.as_deref().unwrap_or_default().to_owned(),
            topics: found,
        };
        self.note_left_out(&catalog);
        for old in self.topics.on_catalog(BufferPosition::NONE, &catalog) {
            if !self.topics.needs(old) {
                self.watermark.let_go(old);
            }
        }
        self.attribute_waiting(now_ms);
    }

    /// No such topic: what was acknowledged for it is in doubt like the rest, until the source has said so for long enough.
    fn on_id_gone(&mut self, id: Uuid, (asked_ms, graces): (i64, Graces), now_ms: i64) {
        if self.catalogs.name_of(id).is_some() {
            return;
        }
        let is_meant = |topic: &TopicKey| matches!(topic, TopicKey::Id(of) if *of == id);
        for (position, written) in std::mem::take(&mut self.unattributed) {
            match is_meant(&written.intent.topic) {
                true => self.doubt_attribution(written, None, None, now_ms),
                false => {
                    self.unattributed.insert(position, written);
                }
            }
        }
        let doubted = self.settlement.questions(now_ms, graces.asking_ms);
        for (topic, partition) in doubted.iter().filter(|(topic, _)| is_meant(topic)) {
            let verdicts = self
                .settlement
                .on_answer(topic, *partition, &Answer::Gone, asked_ms, graces);
            self.follow(verdicts, &Arc::from(""), now_ms);
        }
    }

    /// Whether the batches of a topic are let go.
    pub(super) fn is_left_out(&self, topic: &TopicKey) -> bool {
        names_one_of(topic, &self.left_out)
    }
}

fn names_one_of(topic: &TopicKey, ids: &HashSet<Uuid>) -> bool {
    matches!(topic, TopicKey::Id(id) if ids.contains(id))
}
