//! What catalogs say of topics: which id a name means, what changed, and which ids are not captured at all.
//!
//! A producer may name a topic by an id that its proxy has not heard of yet, as after another proxy told the client. Such
//! a batch is captured, as it could not be brought back. When the id turns out to be of a topic that is not to be
//! captured, no catalog will ever name it otherwise: the batches are let go.

use std::collections::HashSet;
use std::sync::Arc;

use teeline_archive::buffer::{Catalog, CatalogTopic};
use teeline_archive::ids::BufferPosition;
use uuid::Uuid;

use super::Engine;
use crate::error::SegmenterError;
use crate::resolver::TopicKey;

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

    /// Whether the batches of a topic are let go.
    pub(super) fn is_left_out(&self, topic: &TopicKey) -> bool {
        names_one_of(topic, &self.left_out)
    }
}

fn names_one_of(topic: &TopicKey, ids: &HashSet<Uuid>) -> bool {
    matches!(topic, TopicKey::Id(id) if ids.contains(id))
}
