//! The audited cluster over the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use teeline_config::TopicFilter;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster, ClusterMetadata, ConfigResource, EpochQuery, ErrorCode, ListedOffset,
    OffsetAt, OffsetQuery, TopicKey, TopicMetadata, TopicPartition, TopicSelection,
};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::upstream::{
    Bounds, Configs, EpochAnswer, EpochQuestion, LogPartition, PartitionFound, Silence, Survey,
    SurveyRequest, ToldEnd, TopicFound, Upstream,
};
use crate::catalog::synthetic_incarnation;
use crate::partition::PartitionId;

/// A real cluster; connected when it is first asked.
pub struct KafkaUpstream {
    config: ClientConfig,
    cluster: Mutex<Option<Cluster>>,
}

impl KafkaUpstream {
    /// The cluster with this configuration.
    pub fn new(config: ClientConfig) -> Self {
        // A round is repeated anyway: one partition without a leader must not hold the others up for long.
        let mut config = config;
        config.retry.deadline = config.retry.deadline.min(CALL_DEADLINE);
        config.retry.unknown_topic_deadline = Duration::ZERO;
        KafkaUpstream {
            config,
            cluster: Mutex::new(None),
        }
    }

    /// The client, connected.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn cluster(&self) -> Result<Cluster, ClientError> {
        let mut cluster = self.cluster.lock().await;
        if let Some(cluster) = cluster.as_ref() {
            return Ok(cluster.clone());
        }
        let connected = Cluster::connect(self.config.clone()).await?;
        *cluster = Some(connected.clone());
        Ok(connected)
    }

    async fn look(&self, request: SurveyRequest<'_>) -> Result<Survey, ClientError> {
        let cluster = self.cluster().await?;
        let mut survey = self.list(request).await?;
        measure(&cluster, &mut survey, request.quiet).await;
        Ok(survey)
    }

    /// What there is, without how far it reaches: one request, or two.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn list(&self, request: SurveyRequest<'_>) -> Result<Survey, ClientError> {
        let cluster = self.cluster().await?;
        let named = named_topics(request.topics);
        let mut metadata = match &named {
            Some(names) => {
                let all: BTreeSet<Arc<str>> = names.iter().chain(request.known).cloned().collect();
                let all: Vec<Arc<str>> = all.into_iter().collect();
                cluster.metadata(TopicSelection::Named(&all)).await?
            }
            None => cluster.metadata(TopicSelection::All).await?,
        };
        let include = request.topics.include.iter();
        let exact = include.filter_map(|pattern| pattern.exact_name()).map(Arc::from);
        let unseen: BTreeSet<Arc<str>> = exact
            .chain(request.known.iter().cloned())
            .filter(|name| request.topics.matches(name))
            .filter(|name| !metadata.topics.iter().any(|topic| topic.name == *name))
            .collect();
        let unseen: Vec<Arc<str>> = unseen.into_iter().collect();
        if !unseen.is_empty() {
            // A list of all topics leaves out what may not be seen; asking by name tells it from what is not there.
            let asked = cluster.metadata(TopicSelection::Named(&unseen)).await?;
            metadata.topics.extend(asked.topics);
        }
        Ok(sort_out(&metadata, request))
    }

    async fn ends(&self, questions: &[EpochQuestion]) -> Vec<Option<ToldEnd>> {
        let Ok(cluster) = self.cluster().await else {
            return questions.iter().map(|_| None).collect();
        };
        let cluster_id = cluster.cluster_id().unwrap_or_default();
        let queries: Vec<EpochQuery> = questions
            .iter()
            .map(|question| EpochQuery {
                partition: wire_partition(&cluster_id, &question.partition),
                leader_epoch: question.leader_epoch,
            })
            .collect();
        let answers = cluster.offsets_for_leader_epochs(&queries).await;
        answers
            .into_iter()
            .map(|answer| {
                let answer = answer.ok()?;
                Some(ToldEnd {
                    by_epoch: answer.current_epoch,
                    answer: EpochAnswer {
                        leader_epoch: answer.leader_epoch,
                        end_offset: answer.end_offset,
                    },
                })
            })
            .collect()
    }

    async fn at_time(&self, partitions: &[LogPartition], timestamp: i64) -> Vec<Option<i64>> {
        let Ok(cluster) = self.cluster().await else {
            return partitions.iter().map(|_| None).collect();
        };
        let cluster_id = cluster.cluster_id().unwrap_or_default();
        let queries: Vec<OffsetQuery> = partitions
            .iter()
            .flat_map(|partition| {
                [OffsetAt::Timestamp(timestamp), OffsetAt::Latest].map(|at| OffsetQuery {
                    partition: wire_partition(&cluster_id, partition),
                    at,
                })
            })
            .collect();
        let answers = cluster.list_offsets(&queries).await;
        answers
            .chunks(2)
            .map(|pair| match pair {
                // Nothing is that young: what is written from now on is.
                [Ok(found), Ok(end)] if found.offset < 0 => Some(end.offset),
                [Ok(found), Ok(_)] => Some(found.offset),
                _ => None,
            })
            .collect()
    }

    async fn configs(&self, topics: &[Arc<str>]) -> BTreeMap<Arc<str>, Configs> {
        let mut found = BTreeMap::new();
        let Ok(cluster) = self.cluster().await else {
            return found;
        };
        for names in topics.chunks(CONFIGS_AT_ONCE) {
            let resources: Vec<ConfigResource> = names
                .iter()
                .map(|name| ConfigResource::Topic(Arc::clone(name)))
                .collect();
            let answers = cluster.describe_configs(&resources).await;
            for (name, answer) in names.iter().zip(answers) {
                let Ok(entries) = answer else { continue };
                let mut configs: Configs = entries
                    .into_iter()
                    .filter(|entry| !entry.is_sensitive && (entry.is_own || is_telling(&entry.name)))
                    .map(|entry| (entry.name, entry.value))
                    .collect();
                configs.sort();
                found.insert(Arc::clone(name), configs);
            }
        }
        found
    }
}

impl Upstream for KafkaUpstream {
    fn survey<'a>(&'a self, request: SurveyRequest<'a>) -> BoxFuture<'a, Result<Survey, ClientError>> {
        Box::pin(self.look(request))
    }

    fn epoch_ends<'a>(&'a self, questions: &'a [EpochQuestion]) -> BoxFuture<'a, Vec<Option<ToldEnd>>> {
        Box::pin(self.ends(questions))
    }

    fn offsets_at<'a>(
        &'a self,
        partitions: &'a [LogPartition],
        timestamp: i64,
    ) -> BoxFuture<'a, Vec<Option<i64>>> {
        Box::pin(self.at_time(partitions, timestamp))
    }

    fn topic_configs<'a>(&'a self, topics: &'a [Arc<str>]) -> BoxFuture<'a, BTreeMap<Arc<str>, Configs>> {
        Box::pin(self.configs(topics))
    }
}

/// One call, retries included.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
const CONFIGS_AT_ONCE: usize = 200;
/// The name is none that a topic can have.
const INVALID_TOPIC_EXCEPTION: ErrorCode = ErrorCode(17);

/// The topics by name, when the filter has nothing but names.
fn named_topics(filter: &TopicFilter) -> Option<Vec<Arc<str>>> {
    if filter.include.is_empty() {
        return None;
    }
    let names: Option<Vec<&str>> = filter
        .include
        .iter()
        .map(|pattern| pattern.exact_name())
        .collect();
    Some(
        names?
            .into_iter()
            .filter(|name| filter.matches(name))
            .map(Arc::from)
            .collect(),
    )
}

/// Settings that are told even when they are inherited: they say what the log does to its records. The proxy keeps the
/// same ones.
fn is_telling(name: &str) -> bool {
    matches!(
        name,
        "cleanup.policy" | "compression.type" | "message.timestamp.type"
    )
}

/// The topics that are meant, without their bounds.
fn sort_out(metadata: &ClusterMetadata, request: SurveyRequest<'_>) -> Survey {
    let filter = request.topics;
    let cluster_id: Arc<str> = Arc::from(metadata.cluster_id.as_deref().unwrap_or_default());
    let mut brokers: Vec<String> = metadata
        .brokers
        .iter()
        .map(|broker| broker.address.to_string())
        .collect();
    brokers.sort();
    let mut survey = Survey {
        cluster_id: Arc::clone(&cluster_id),
        brokers,
        ..Survey::default()
    };
    for topic in metadata.topics.iter().filter(|topic| filter.matches(&topic.name)) {
        // Kafka's own topics mean nothing elsewhere: they are meant when they are named.
        let is_meant = !topic.is_internal || names(filter, &topic.name);
        match silence_of(topic.error) {
            None if !is_meant && request.known.contains(&topic.name) => {
                survey.missing.push((Arc::clone(&topic.name), Silence::NotMeant));
            }
            None if !is_meant => {}
            Some(silence) => survey.missing.push((Arc::clone(&topic.name), silence)),
            None => survey.topics.push(found(&cluster_id, topic)),
        }
    }
    survey.topics.sort_by(|one, other| one.name.cmp(&other.name));
    survey.topics.dedup_by(|one, other| one.name == other.name);
    survey
}

fn names(filter: &TopicFilter, topic: &str) -> bool {
    filter
        .include
        .iter()
        .any(|pattern| pattern.exact_name() == Some(topic))
}

fn silence_of(error: ErrorCode) -> Option<Silence> {
    if error.is_ok() {
        return None;
    }
    Some(if error == ErrorCode::TOPIC_AUTHORIZATION_FAILED {
        Silence::NotAllowed
    } else if error.is_unknown_topic() || error == INVALID_TOPIC_EXCEPTION {
        Silence::Gone
    } else {
        Silence::NotNow
    })
}

fn found(cluster_id: &str, topic: &TopicMetadata) -> TopicFound {
    let incarnation = match topic.id.is_nil() {
        true => synthetic_incarnation(cluster_id, &topic.name),
        false => topic.id,
    };
    let partitions = topic.partitions.iter().map(|partition| PartitionFound {
        partition: partition.partition,
        leader: partition.leader_id,
        bounds: Ok(Bounds {
            log_start: -1,
            high_watermark: -1,
            leader_epoch: partition.leader_epoch,
        }),
    });
    TopicFound {
        name: Arc::clone(&topic.name),
        incarnation,
        replication_factor: topic.replication_factor(),
        partitions: partitions.collect(),
    }
}

/// Asks for all bounds but those of the quiet ones: two requests per broker.
async fn measure(cluster: &Cluster, survey: &mut Survey, quiet: &BTreeSet<PartitionId>) {
    let cluster_id = Arc::clone(&survey.cluster_id);
    let mut queries = Vec::new();
    for topic in &mut survey.topics {
        for partition in &mut topic.partitions {
            let id = PartitionId {
                incarnation: topic.incarnation,
                partition: partition.partition,
            };
            if quiet.contains(&id) {
                partition.bounds = Err(Silence::NotAsked);
                continue;
            }
            let topic = Arc::clone(&topic.name);
            let at = wire_partition(&cluster_id, &LogPartition { topic, id });
            queries.extend([OffsetAt::Earliest, OffsetAt::Latest].map(|which| OffsetQuery {
                partition: at.clone(),
                at: which,
            }));
        }
    }
    let answers = cluster.list_offsets(&queries).await;
    let partitions = survey
        .topics
        .iter_mut()
        .flat_map(|topic| &mut topic.partitions)
        .filter(|partition| partition.bounds != Err(Silence::NotAsked));
    for (partition, pair) in partitions.zip(answers.chunks(2)) {
        let epoch = partition.bounds.map_or(-1, |bounds| bounds.leader_epoch);
        partition.bounds = match pair {
            [Ok(start), Ok(end)] => Ok(bounds_of(*start, *end, epoch)),
            [Err(error), _] | [_, Err(error)] => Err(silence_of_error(error)),
            _ => Err(Silence::NotNow),
        };
    }
}

/// The leader may have changed since Metadata was read; the younger epoch is that of the one who answered last.
fn bounds_of(start: ListedOffset, end: ListedOffset, epoch: i32) -> Bounds {
    Bounds {
        log_start: start.offset,
        high_watermark: end.offset,
        leader_epoch: epoch.max(end.leader_epoch),
    }
}

fn silence_of_error(error: &ClientError) -> Silence {
    match error {
        ClientError::TopicRecreated { .. } => Silence::Gone,
        error => error.code().and_then(silence_of).unwrap_or(Silence::NotNow),
    }
}

/// By id wherever there is one: a topic of the same name and another id is never meant.
pub(crate) fn wire_partition(cluster_id: &str, partition: &LogPartition) -> TopicPartition {
    let id: Uuid = partition.id.incarnation;
    let topic = match id == synthetic_incarnation(cluster_id, &partition.topic) {
        true => TopicKey::named(Arc::clone(&partition.topic)),
        false => TopicKey::with_id(Arc::clone(&partition.topic), id),
    };
    TopicPartition::new(topic, partition.id.partition)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use teeline_config::TopicPattern;

    fn topic(name: &str, error: i16, is_internal: bool) -> TopicMetadata {
        TopicMetadata {
            name: Arc::from(name),
            id: Uuid::from_u128(1),
            error: ErrorCode(error),
            is_internal,
            partitions: Vec::new(),
        }
    }

    fn survey(include: &[&str], topics: Vec<TopicMetadata>) -> Survey {
        let include = include
            .iter()
            .map(|pattern| TopicPattern::parse(pattern).unwrap());
        let metadata = ClusterMetadata {
            cluster_id: Some("c".to_owned()),
            controller_id: 1,
            brokers: Vec::new(),
            topics,
        };
        let filter = TopicFilter::new(include.collect(), Vec::new());
        let known = [Arc::from("orders")];
        let request = SurveyRequest {
            topics: &filter,
            known: &known,
            quiet: &BTreeSet::new(),
        };
        sort_out(&metadata, request)
    }

    fn found(survey: &Survey) -> Vec<&str> {
        survey.topics.iter().map(|topic| &*topic.name).collect()
    }

    #[test]
    fn what_is_denied_what_is_gone_and_what_is_unclear_are_told_apart() {
        let topics = vec![
            topic("a", 0, false),
            topic("denied", 29, false),
            topic("gone", 3, false),
            topic("unclear", 5, false),
        ];
        let survey = survey(&[], topics);
        assert_eq!(found(&survey), ["a"]);
        let missing: Vec<_> = survey
            .missing
            .iter()
            .map(|(name, silence)| (&**name, *silence))
            .collect();
        assert_eq!(
            missing,
            [
                ("denied", Silence::NotAllowed),
                ("gone", Silence::Gone),
                ("unclear", Silence::NotNow)
            ]
        );
    }

    #[test]
    fn topics_of_kafka_itself_are_meant_when_they_are_named() {
        let topics = || vec![topic("__share_group_state", 0, true), topic("orders", 0, false)];
        assert_eq!(found(&survey(&[], topics())), ["orders"]);
        assert_eq!(found(&survey(&["*"], topics())), ["orders"]);
        assert_eq!(
            found(&survey(&["__share_group_state"], topics())),
            ["__share_group_state"]
        );
    }
}
