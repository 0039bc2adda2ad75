//! What the source's cluster says about its logs, to hold the archive against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use teeline_archive::ledger::{LedgerState, TopicKey};
use teeline_config::{KafkaEndpoint, TopicFilter};
use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster, ClusterMetadata, ListedOffset, OffsetAt, OffsetQuery, TopicMetadata,
    TopicPartition, TopicSelection,
};
use uuid::Uuid;

use super::{MissingPartition, NotAsked};
use crate::error::RestorerError;

/// The logs of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Live {
    topics: BTreeMap<String, LiveTopic>,
    not_asked: Vec<NotAsked>,
}

#[derive(Debug, Clone)]
struct LiveTopic {
    id: Uuid,
    partitions: BTreeMap<i32, LivePartition>,
}

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivePartition {
    /// Its first offset.
    pub log_start_offset: i64,
    /// Its end, as far as it is replicated.
    pub high_watermark: i64,
}

/// How long the cluster may take to answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Keeps a request within a few hundred KiB.
const NAMES_AT_ONCE: usize = 1_000;

/// Asks the cluster that a backup comes from. `topics`: those that matter; Kafka's own ones only if they are named.
pub async fn ask(
    endpoint: &KafkaEndpoint,
    topics: &TopicFilter,
    state: &LedgerState,
) -> Result<Live, RestorerError> {
    let mut config = ClientConfig::from(endpoint);
    config.retry.deadline = DEADLINE;
    let cluster = Cluster::connect(config).await;
    let cluster = cluster.map_err(RestorerError::target("connect to the source"))?;
    let metadata = cluster.metadata(TopicSelection::All).await;
    let metadata = metadata.map_err(RestorerError::target("read the source's metadata"))?;
    if let (Some(found), Some(expected)) = (&metadata.cluster_id, state.cluster_id())
        && found != expected
    {
        return Err(RestorerError::TargetState(format!(
            "the cluster asked is {found}, the backup comes from {expected}"
        )));
    }
    let mut live = Live::default();
    let mut asked = Vec::new();
    for topic in &metadata.topics {
        let known = state.latest_incarnation(&topic.name).is_some();
        if !topics.matches(&topic.name) || topic.is_internal && !known {
            continue;
        }
        if !topic.error.is_ok() {
            live.refuse(&topic.name, None, topic.error.to_string());
            continue;
        }
        asked.push(topic);
    }
    live.read_offsets(&cluster, &asked).await;
    live.look_for_hidden(&cluster, topics, state, &metadata).await?;
    Ok(live)
}

impl Live {
    /// A cluster leaves out of the list of all topics what may not be described; asked by name, it says so. Those of the
    /// archive that it does not have any more are judged by the archive alone.
    async fn look_for_hidden(
        &mut self,
        cluster: &Cluster,
        topics: &TopicFilter,
        state: &LedgerState,
        listed: &ClusterMetadata,
    ) -> Result<(), RestorerError> {
        let seen: BTreeSet<&str> = listed.topics.iter().map(|topic| &*topic.name).collect();
        let hidden: BTreeSet<Arc<str>> = state
            .topics()
            .into_iter()
            .map(|(key, _)| key.name.as_str())
            .filter(|name| topics.matches(name) && !seen.contains(name))
            .map(Arc::from)
            .collect();
        let hidden: Vec<Arc<str>> = hidden.into_iter().collect();
        for names in hidden.chunks(NAMES_AT_ONCE) {
            let answer = cluster.metadata(TopicSelection::Named(names)).await;
            let answer = answer.map_err(RestorerError::target("read the source's metadata"))?;
            for topic in &answer.topics {
                if !topic.error.is_ok() && !topic.error.is_unknown_topic() {
                    self.refuse(&topic.name, None, topic.error.to_string());
                }
            }
        }
        Ok(())
    }

    async fn read_offsets(&mut self, cluster: &Cluster, topics: &[&TopicMetadata]) {
        let partitions: Vec<(&TopicMetadata, i32)> = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|found| (*topic, found.partition)))
            .collect();
        let queries = |at: OffsetAt| -> Vec<OffsetQuery> {
            partitions
                .iter()
                .map(|(topic, number)| OffsetQuery {
                    partition: TopicPartition::new(topic.key(), *number),
                    at,
                })
                .collect()
        };
        let starts = cluster.list_offsets(&queries(OffsetAt::Earliest)).await;
        let ends = cluster.list_offsets(&queries(OffsetAt::Latest)).await;
        for ((topic, number), (start, end)) in partitions.iter().zip(starts.into_iter().zip(ends)) {
            self.note(topic, *number, start, end);
        }
    }

    fn note(
        &mut self,
        topic: &TopicMetadata,
        number: i32,
        start: Result<ListedOffset, ClientError>,
        end: Result<ListedOffset, ClientError>,
    ) {
        match (start, end) {
            (Ok(start), Ok(end)) => {
                let live = self
                    .topics
                    .entry(topic.name.to_string())
                    .or_insert_with(|| LiveTopic {
                        id: topic.id,
                        partitions: BTreeMap::new(),
                    });
                live.partitions.insert(
                    number,
                    LivePartition {
                        log_start_offset: start.offset,
                        high_watermark: end.offset,
                    },
                );
            }
            (Err(error), _) | (_, Err(error)) => self.refuse(&topic.name, Some(number), error_chain(&error)),
        }
    }

    fn refuse(&mut self, topic: &str, partition: Option<i32>, reason: String) {
        self.not_asked.push(NotAsked {
            topic: topic.to_owned(),
            partition,
            reason,
        });
    }

    /// For tests, and for callers that know the logs by other means.
    pub fn insert(&mut self, topic: &str, id: Uuid, partition: i32, log: LivePartition) {
        let live = self.topics.entry(topic.to_owned()).or_insert(LiveTopic {
            id,
            partitions: BTreeMap::new(),
        });
        live.partitions.insert(partition, log);
    }

    /// The log of a partition of the archive, unless that life of the topic is over.
    pub(super) fn partition(
        &self,
        state: &LedgerState,
        key: &TopicKey,
        number: i32,
    ) -> Option<LivePartition> {
        let topic = self.topics.get(&key.name)?;
        if !topic.is(state, key) {
            return None;
        }
        topic.partitions.get(&number).copied()
    }

    /// Partitions with something in them of which the archive has nothing.
    pub(super) fn missing(&self, state: &LedgerState, topics: &TopicFilter) -> Vec<MissingPartition> {
        let mut missing = Vec::new();
        for (name, topic) in &self.topics {
            let lives = state.incarnations(name);
            let life = lives.iter().find(|(key, _)| topic.is(state, key));
            for (number, log) in &topic.partitions {
                let known = life.is_some_and(|(_, life)| life.partition(*number).is_some());
                if known || log.high_watermark <= log.log_start_offset {
                    continue;
                }
                missing.push(MissingPartition {
                    topic: name.clone(),
                    incarnation: topic.id.to_string(),
                    partition: *number,
                    log_start_offset: log.log_start_offset,
                    high_watermark: log.high_watermark,
                    expected: !lives.is_empty() || !topics.include.is_empty(),
                });
            }
        }
        missing
    }

    /// What could not be asked of the topics selected.
    pub(super) fn not_asked(&self, topics: &TopicFilter) -> Vec<NotAsked> {
        let selected = self
            .not_asked
            .iter()
            .filter(|refused| topics.matches(&refused.topic));
        selected.cloned().collect()
    }
}

impl LiveTopic {
    /// Whether it is this life of the topic. Clusters without topic ids cannot tell: there the newest counts.
    fn is(&self, state: &LedgerState, key: &TopicKey) -> bool {
        if self.id.is_nil() {
            let newest = state.latest_incarnation(&key.name);
            return newest.is_some_and(|(newest, _)| newest.incarnation == key.incarnation);
        }
        self.id == key.incarnation
    }
}
