//! Which incarnation of a topic an intent by name was written to.
//!
//! A topic can be deleted and created again under its old name while its producers go on. A batch sent by name is
//! attributed to an incarnation only when one Metadata answer from before the send and one asked for after the
//! response name the same topic id: ids are never used twice, so the name meant that incarnation all the time between.
//! A batch sent by id needs no such proof.

use std::collections::HashMap;
use std::sync::Arc;

use teeline_archive::buffer::{Catalog, CatalogTopic};
use teeline_archive::ids::BufferPosition;
use uuid::Uuid;

/// What the catalogs say about one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// It was written to this incarnation.
    Certain(Uuid),
    /// No answer from after the response is in yet.
    Wait,
    /// The answers do not prove it. `newest` is what the name means now, `before` what it meant before the send.
    Uncertain {
        /// The incarnation that the name meant last, `None` when the topic is gone.
        newest: Option<Uuid>,
        /// The incarnation that the name meant before the send, if an answer says so.
        before: Option<Uuid>,
    },
}

/// What one catalog changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CatalogNews {
    /// Topics seen for the first time, or under a new id: name and incarnation.
    pub new_incarnations: Vec<(Arc<str>, Uuid)>,
    /// Names that meant a topic before and mean none, or another one, now.
    pub replaced: Vec<(Arc<str>, Uuid)>,
}

/// The Metadata answers of a buffer, folded.
#[derive(Debug, Default)]
pub struct Catalogs {
    by_name: HashMap<Arc<str>, Vec<Sighting>>,
    names: HashMap<Uuid, Arc<str>>,
}

/// A run of answers that gave one name the same meaning.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    /// The topic id, `None` for "no such topic".
    incarnation: Option<Uuid>,
    /// The first answer of the run.
    first_seen: BufferPosition,
    /// The last answer of the run is younger than every frame up to here.
    younger_than: BufferPosition,
}

impl Catalogs {
    /// Folds one answer in.
    pub fn on_catalog(&mut self, position: BufferPosition, catalog: &Catalog) -> CatalogNews {
        let younger_than = BufferPosition {
            session: position.session,
            lsn: catalog.requested_after,
        };
        let mut news = CatalogNews::default();
        for topic in &catalog.topics {
            let Some(meaning) = meaning_of(&catalog.cluster_id, topic) else {
                continue;
            };
            let name = self.intern(&topic.name);
            if let Some(id) = meaning {
                self.names.insert(id, Arc::clone(&name));
            }
            let runs = self.by_name.entry(Arc::clone(&name)).or_default();
            if let Some(run) = runs.last_mut()
                && run.incarnation == meaning
            {
                run.younger_than = run.younger_than.max(younger_than);
                continue;
            }
            if let Some(old) = runs.last().and_then(|run| run.incarnation) {
                news.replaced.push((Arc::clone(&name), old));
            }
            runs.push(Sighting {
                incarnation: meaning,
                first_seen: position,
                younger_than,
            });
            if runs.len() > RUNS_MAX {
                runs.remove(0);
            }
            if let Some(id) = meaning {
                news.new_incarnations.push((name, id));
            }
        }
        news
    }

    /// Learns the name of an id from a request that carried both.
    pub fn note_name(&mut self, id: Uuid, name: &str) {
        if !self.names.contains_key(&id) {
            let name = self.intern(name);
            self.names.insert(id, name);
        }
    }

    /// Where a batch by `name` went, given the positions of its intent and of its outcome.
    pub fn attribute(&self, name: &str, intent: BufferPosition, outcome: BufferPosition) -> Attribution {
        let Some(runs) = self.by_name.get(name) else {
            return Attribution::Wait;
        };
        for run in runs {
            if let Some(id) = run.incarnation
                && run.first_seen < intent
                && run.younger_than >= outcome
            {
                return Attribution::Certain(id);
            }
        }
        match runs.last() {
            Some(newest) if newest.younger_than >= outcome => Attribution::Uncertain {
                newest: newest.incarnation,
                before: runs
                    .iter()
                    .rev()
                    .find(|run| run.first_seen < intent)
                    .and_then(|run| run.incarnation),
            },
            _ => Attribution::Wait,
        }
    }

    /// What the name meant last.
    pub fn newest(&self, name: &str) -> Option<Uuid> {
        self.by_name
            .get(name)?
            .iter()
            .rev()
            .find_map(|run| run.incarnation)
    }

    /// The name of an incarnation.
    pub fn name_of(&self, incarnation: Uuid) -> Option<Arc<str>> {
        self.names.get(&incarnation).cloned()
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        self.by_name
            .get_key_value(name)
            .map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known))
    }
}

/// The identity of a topic on a cluster without topic ids (Kafka before 2.8, and some that stand in for it): a hash of
/// cluster id and name, the same for everyone. A topic deleted and created again keeps it; the offsets that start over
/// then show as conflicts.
pub fn synthetic_incarnation(cluster_id: &str, topic: &str) -> Uuid {
    // FNV-1a of 128 bits: short, fixed for ever, and needs no library. UUID version 8 ("custom") keeps the result apart
    // from Kafka's own ids, which are version 4.
    let bytes = cluster_id.bytes().chain([0]).chain(topic.bytes());
    let hash = bytes.fold(FNV_OFFSET_BASIS, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME)
    });
    let versioned = (hash & !(0xf << 76)) | (0x8 << 76);
    let varianted = (versioned & !(0b11 << 62)) | (0b10 << 62);
    Uuid::from_u128(varianted)
}

const FNV_OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// Meanings of one name that are remembered. More only matter for a topic recreated this often within one poll.
const RUNS_MAX: usize = 16;
const ERROR_NONE: i16 = 0;
const ERROR_UNKNOWN_TOPIC: i16 = 3;

/// What the answer says the name means; the outer `None` when it says nothing (an error on the way).
fn meaning_of(cluster_id: &str, topic: &CatalogTopic) -> Option<Option<Uuid>> {
    match topic.error_code {
        ERROR_NONE if topic.id.is_nil() => Some(Some(synthetic_incarnation(cluster_id, &topic.name))),
        ERROR_NONE => Some(Some(topic.id)),
        ERROR_UNKNOWN_TOPIC => Some(None),
        CatalogTopic::NOT_CAPTURED => None,
        _ if !topic.id.is_nil() => Some(Some(topic.id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_archive::ids::{Lsn, SessionId};

    fn at(lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(1),
            lsn: Lsn(lsn),
        }
    }

    fn catalog(requested_after: u64, name: &str, id: u128, error_code: i16) -> Catalog {
        let topic = CatalogTopic {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            error_code,
            partitions: vec![(0, -1)],
            replication_factor: 1,
        };
        Catalog {
            requested_after: Lsn(requested_after),
            at_ms: 0,
            cluster_id: "cluster".to_owned(),
            topics: vec![topic],
        }
    }

    #[test]
    fn a_batch_between_two_answers_of_the_same_id_is_certain() {
        let mut catalogs = Catalogs::default();
        catalogs.on_catalog(at(1), &catalog(0, "orders", 7, 0));
        assert_eq!(catalogs.attribute("orders", at(2), at(3)), Attribution::Wait);
        catalogs.on_catalog(at(5), &catalog(2, "orders", 7, 0));
        assert_eq!(
            catalogs.attribute("orders", at(2), at(3)),
            Attribution::Wait,
            "asked before the outcome"
        );
        catalogs.on_catalog(at(6), &catalog(4, "orders", 7, 0));
        assert_eq!(
            catalogs.attribute("orders", at(2), at(3)),
            Attribution::Certain(Uuid::from_u128(7))
        );
        assert_eq!(&*catalogs.name_of(Uuid::from_u128(7)).unwrap(), "orders");
    }

    #[test]
    fn a_batch_from_before_the_first_answer_is_not_certain() {
        let mut catalogs = Catalogs::default();
        catalogs.on_catalog(at(4), &catalog(3, "orders", 7, 0));
        let newest = Some(Uuid::from_u128(7));
        let expected = Attribution::Uncertain { newest, before: None };
        assert_eq!(catalogs.attribute("orders", at(1), at(2)), expected);
    }

    #[test]
    fn a_topic_created_again_is_never_spliced() {
        let mut catalogs = Catalogs::default();
        catalogs.on_catalog(at(1), &catalog(0, "orders", 7, 0));
        let news = catalogs.on_catalog(at(9), &catalog(8, "orders", 8, 0));
        assert_eq!(news.replaced, [(Arc::from("orders"), Uuid::from_u128(7))]);
        let expected = Attribution::Uncertain {
            newest: Some(Uuid::from_u128(8)),
            before: Some(Uuid::from_u128(7)),
        };
        assert_eq!(catalogs.attribute("orders", at(2), at(3)), expected);
        catalogs.on_catalog(at(20), &catalog(19, "orders", 8, 0));
        let certain = Attribution::Certain(Uuid::from_u128(8));
        assert_eq!(catalogs.attribute("orders", at(12), at(13)), certain);
    }

    #[test]
    fn a_deleted_topic_leaves_what_the_name_meant_before() {
        let mut catalogs = Catalogs::default();
        catalogs.on_catalog(at(1), &catalog(0, "orders", 7, 0));
        catalogs.on_catalog(at(9), &catalog(8, "orders", 0, ERROR_UNKNOWN_TOPIC));
        let expected = Attribution::Uncertain {
            newest: None,
            before: Some(Uuid::from_u128(7)),
        };
        assert_eq!(catalogs.attribute("orders", at(2), at(3)), expected);
        assert_eq!(catalogs.newest("orders"), Some(Uuid::from_u128(7)));
    }

    #[test]
    fn an_answer_with_another_error_says_nothing() {
        let mut catalogs = Catalogs::default();
        catalogs.on_catalog(at(1), &catalog(0, "orders", 0, 29));
        assert_eq!(catalogs.attribute("orders", at(2), at(3)), Attribution::Wait);
    }

    #[test]
    fn synthetic_incarnations_are_stable_and_distinct() {
        let id = synthetic_incarnation("cluster", "orders");
        assert_eq!(id, synthetic_incarnation("cluster", "orders"));
        assert_ne!(id, synthetic_incarnation("cluster", "orders2"));
        assert_ne!(synthetic_incarnation("ab", "c"), synthetic_incarnation("a", "bc"));
        assert_eq!(id.get_version_num(), 8);
    }
}
