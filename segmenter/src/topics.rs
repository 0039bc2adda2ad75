//! What is known about topics: for their snapshots in the ledger, and for the form in which their batches are stored.

use std::collections::HashMap;
use std::sync::Arc;

use teeline_archive::buffer::{Catalog, TopicConfig};
use teeline_archive::ids::BufferPosition;
use teeline_archive::ledger::TopicSnapshot;
use uuid::Uuid;

use crate::catalog::synthetic_incarnation;

/// The topics of a backup.
#[derive(Debug, Default)]
pub struct Topics {
    known: HashMap<Uuid, Topic>,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    partition_count: i32,
    replication_factor: i16,
    configs: Option<Vec<(String, Option<String>)>>,
    at_ms: i64,
    /// Only topics that are captured belong into the backup: those with batches, or with a configuration (the proxy reads
    /// it only for them).
    captured: bool,
    /// The frame that changed it since the ledger last took it.
    changed_at: Option<BufferPosition>,
}

impl Topics {
    /// Takes in what the ledger says.
    pub fn load(&mut self, snapshot: &TopicSnapshot) {
        let topic = self.entry(snapshot.incarnation, &snapshot.name);
        topic.partition_count = snapshot.partition_count;
        topic.replication_factor = snapshot.replication_factor;
        topic.configs = Some(snapshot.configs.clone());
        topic.at_ms = snapshot.at_ms;
        topic.captured = true;
    }

    /// Takes a Metadata answer in. Returns the frames that need not be kept any more.
    pub fn on_catalog(&mut self, position: BufferPosition, catalog: &Catalog) -> Vec<BufferPosition> {
        let mut replaced = Vec::new();
        for found in &catalog.topics {
            if found.error_code != 0 {
                continue;
            }
            let incarnation = identity(&catalog.cluster_id, &found.name, found.id);
            let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
            let topic = self.entry(incarnation, &found.name);
            if topic.partition_count == count && topic.replication_factor == found.replication_factor {
                continue;
            }
            topic.partition_count = count;
            topic.replication_factor = found.replication_factor;
            topic.at_ms = topic.at_ms.max(catalog.at_ms);
            replaced.extend(topic.changed_at.replace(position));
        }
        replaced
    }

    /// Takes a configuration in. Returns the frame that need not be kept any more.
    pub fn on_config(
        &mut self,
        position: BufferPosition,
        cluster_id: &str,
        config: &TopicConfig,
    ) -> Option<BufferPosition> {
        let incarnation = identity(cluster_id, &config.name, config.id);
        let topic = self.entry(incarnation, &config.name);
        if topic.configs.as_ref() == Some(&config.configs) {
            return None;
        }
        topic.configs = Some(config.configs.clone());
        topic.at_ms = topic.at_ms.max(config.at_ms);
        topic.captured = true;
        topic.changed_at.replace(position)
    }

    /// Something of the topic is captured.
    pub fn note_captured(&mut self, incarnation: Uuid) {
        if let Some(topic) = self.known.get_mut(&incarnation) {
            topic.captured = true;
        }
    }

    /// Whether the topic stamps batches with its own time; `None` when that is not known.
    pub fn stamps(&self, incarnation: Uuid) -> Option<bool> {
        let configs = self.known.get(&incarnation)?.configs.as_ref()?;
        let (_, value) = configs.iter().find(|(key, _)| key == TIMESTAMP_TYPE)?;
        value.as_deref().map(|value| value == LOG_APPEND_TIME)
    }

    /// The snapshots that the ledger does not have yet.
    pub fn changed(&self) -> Vec<(TopicSnapshot, BufferPosition)> {
        let mut changed: Vec<_> = self
            .known
            .iter()
            .filter(|(_, topic)| topic.captured)
            .filter_map(|(&incarnation, topic)| Some((topic.snapshot(incarnation), topic.changed_at?)))
            .collect();
        changed.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        changed
    }

    /// The ledger has the snapshot. Returns whether the frame need not be kept any more.
    pub fn committed(&mut self, incarnation: Uuid, position: BufferPosition) -> bool {
        match self.known.get_mut(&incarnation) {
            Some(topic) if topic.changed_at == Some(position) => {
                topic.changed_at = None;
                true
            }
            _ => false,
        }
    }

    /// True when the frame changed a topic and the ledger does not have that yet: it is to be kept.
    pub fn needs(&self, position: BufferPosition) -> bool {
        self.known
            .values()
            .any(|topic| topic.captured && topic.changed_at == Some(position))
    }

    /// True when some snapshot is not in the ledger yet.
    pub fn has_changes(&self) -> bool {
        self.known
            .values()
            .any(|topic| topic.captured && topic.changed_at.is_some())
    }

    fn entry(&mut self, incarnation: Uuid, name: &str) -> &mut Topic {
        self.known.entry(incarnation).or_insert_with(|| Topic {
            name: Arc::from(name),
            partition_count: -1,
            replication_factor: -1,
            configs: None,
            at_ms: 0,
            captured: false,
            changed_at: None,
        })
    }
}

impl Topic {
    fn snapshot(&self, incarnation: Uuid) -> TopicSnapshot {
        TopicSnapshot {
            name: self.name.to_string(),
            incarnation,
            at_ms: self.at_ms,
            partition_count: self.partition_count,
            replication_factor: self.replication_factor,
            configs: self.configs.clone().unwrap_or_default(),
        }
    }
}

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

fn identity(cluster_id: &str, name: &str, id: Uuid) -> Uuid {
    if id.is_nil() {
        synthetic_incarnation(cluster_id, name)
    } else {
        id
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_archive::buffer::CatalogTopic;
    use teeline_archive::ids::{Lsn, SessionId};

    fn at(lsn: u64) -> BufferPosition {
        BufferPosition {
            session: SessionId(1),
            lsn: Lsn(lsn),
        }
    }

    fn config(stamp: &str) -> TopicConfig {
        TopicConfig {
            name: "orders".to_owned(),
            id: Uuid::from_u128(7),
            at_ms: 5,
            configs: vec![(TIMESTAMP_TYPE.to_owned(), Some(stamp.to_owned()))],
        }
    }

    #[test]
    fn a_snapshot_is_told_once_and_only_for_captured_topics() {
        let mut topics = Topics::default();
        let id = Uuid::from_u128(7);
        let found = CatalogTopic {
            name: "orders".to_owned(),
            id,
            error_code: 0,
            partitions: vec![(0, -1)],
            replication_factor: 1,
        };
        let catalog = Catalog {
            requested_after: Lsn(0),
            at_ms: 1,
            cluster_id: "c".to_owned(),
            topics: vec![found],
        };
        assert!(topics.on_catalog(at(0), &catalog).is_empty());
        assert!(
            topics.changed().is_empty() && !topics.needs(at(0)),
            "nothing of it is captured"
        );
        assert_eq!(topics.on_config(at(1), "c", &config("CreateTime")), Some(at(0)));
        assert!(topics.needs(at(1)));
        assert_eq!(
            topics.on_config(at(2), "c", &config("LogAppendTime")),
            Some(at(1))
        );
        assert_eq!(topics.stamps(id), Some(true));
        let changed = topics.changed();
        assert!(
            matches!(&changed[..], [(snapshot, position)] if snapshot.name == "orders" && *position == at(2))
        );
        assert!(!topics.committed(id, at(1)), "an older state was committed");
        assert!(topics.committed(id, at(2)));
        assert!(!topics.has_changes());
        assert_eq!(topics.on_config(at(3), "c", &config("LogAppendTime")), None);
        assert!(!topics.has_changes(), "nothing changed");
    }
}
