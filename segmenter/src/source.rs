//! The cluster that the buffer was captured from, as the segmenter asks it.
//!
//! Three questions: how far does a partition reach, what is the name of a topic of which only the id is known (both in a
//! survey), and what is at these offsets (a fetch). They are behind a trait, so that tests answer them from a table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use teeline_archive::buffer::CatalogTopic;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster, ErrorCode, OffsetAt, OffsetQuery, TopicMetadata, TopicPartition,
    TopicSelection,
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::catalog::synthetic_incarnation;
use crate::fetcher::log::{Replica, read_log};
use crate::settlement::Answer;

/// Which partition of the source is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// The incarnation that is meant; `None` for whichever the name means now.
    pub incarnation: Option<Uuid>,
    /// Partition.
    pub partition: i32,
}

/// What is asked in one survey.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Partitions: how far do they reach?
    pub partitions: BTreeSet<SourcePartition>,
    /// Ids of topics: what are their names?
    pub ids: BTreeSet<Uuid>,
}

/// What a fetch brought.
#[derive(Debug, Clone)]
pub struct FetchedRun {
    /// Raw batches; the last one may be cut.
    pub records: Bytes,
    /// One past the last offset that may be read now.
    pub end: i64,
    /// Epoch of the leader that answered, -1 when unknown.
    pub leader_epoch: i32,
}

/// Why the source gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The offset lies below the first or above the last that the source has.
    #[error("offset out of range, the log begins at {log_start} and ends at {end}")]
    OutOfRange {
        /// First offset of the log.
        log_start: i64,
        /// One past the last offset.
        end: i64,
    },
    /// The topic, this incarnation of it, or the partition does not exist there (any more).
    #[error("the source does not have this partition")]
    Gone,
    /// It is another cluster than the one that was captured.
    #[error("the source is cluster {found}, the buffer was captured from {expected}")]
    OtherCluster {
        /// The cluster that answered.
        found: String,
        /// The cluster that is wanted.
        expected: String,
    },
    /// It could not be asked. May pass.
    #[error("ask the source cluster")]
    Unavailable(#[from] ClientError),
}

/// The answers of one survey.
#[derive(Debug, Clone, Default)]
pub struct SurveyReport {
    /// By question; what could not be answered is left out.
    pub answers: BTreeMap<SourcePartition, Answer>,
    /// By id: what a catalog would say of the topic, `None` when there is none. What could not be answered is left out.
    pub topics: BTreeMap<Uuid, Option<CatalogTopic>>,
    /// The brokers, as `host:port`.
    pub brokers: Vec<String>,
}

/// A cluster that can be asked.
pub trait Source: Send + Sync {
    /// How far partitions reach, and what topics are called. `cluster_id` is the cluster that is meant.
    fn survey<'a>(
        &'a self,
        cluster_id: &'a str,
        questions: &'a Questions,
    ) -> BoxFuture<'a, Result<SurveyReport, SourceError>>;

    /// What a partition has from an offset on.
    fn fetch<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
    ) -> BoxFuture<'a, Result<FetchedRun, SourceError>>;
}

/// A real cluster; connected when it is first asked.
pub struct KafkaSource {
    config: ClientConfig,
    cluster: Mutex<Option<Cluster>>,
}

impl KafkaSource {
    /// The cluster with this configuration.
    pub fn new(config: ClientConfig) -> Self {
        // The segmenter has its own patience: a call that cannot succeed now must not hold others up for long.
        let mut config = config;
        config.retry.deadline = config.retry.deadline.min(CALL_DEADLINE);
        config.retry.unknown_topic_deadline = config.retry.unknown_topic_deadline.min(CALL_DEADLINE);
        KafkaSource {
            config,
            cluster: Mutex::new(None),
        }
    }

    async fn cluster(&self) -> Result<Cluster, ClientError> {
        let mut cluster = self.cluster.lock().await;
        if let Some(cluster) = cluster.as_ref() {
            return Ok(cluster.clone());
        }
        let connected = Cluster::connect(self.config.clone()).await?;
        *cluster = Some(connected.clone());
        Ok(connected)
    }

    async fn ask(&self, cluster_id: &str, questions: &Questions) -> Result<SurveyReport, SourceError> {
        let cluster = self.cluster().await?;
        let topics = name(&cluster, cluster_id, &questions.ids).await;
        let questions = &questions.partitions;
        let names: BTreeSet<Arc<str>> = questions
            .iter()
            .map(|question| Arc::clone(&question.topic))
            .collect();
        let names: Vec<Arc<str>> = names.into_iter().collect();
        let metadata = cluster.metadata(TopicSelection::Named(&names)).await?;
        let found = metadata.cluster_id.unwrap_or_default();
        if found != cluster_id {
            return Err(SourceError::OtherCluster {
                found,
                expected: cluster_id.to_owned(),
            });
        }
        let brokers = metadata
            .brokers
            .iter()
            .map(|broker| broker.address.to_string())
            .collect();
        let mut report = SurveyReport {
            answers: BTreeMap::new(),
            topics,
            brokers,
        };
        let mut asked = Vec::new();
        for question in questions {
            let topic = metadata.topics.iter().find(|topic| topic.name == question.topic);
            match topic.map_or(Existence::Unknown, |topic| existence(cluster_id, topic, question)) {
                Existence::Unknown => {}
                Existence::Gone => {
                    report.answers.insert(question.clone(), Answer::Gone);
                }
                Existence::There(incarnation, partition) => asked.push((question, incarnation, partition)),
            }
        }
        let queries: Vec<OffsetQuery> = asked
            .iter()
            .flat_map(|(_, _, partition)| {
                [OffsetAt::Earliest, OffsetAt::LastStable, OffsetAt::Latest].map(|at| OffsetQuery {
                    partition: partition.clone(),
                    at,
                })
            })
            .collect();
        let offsets = cluster.list_offsets(&queries).await;
        for ((question, incarnation, _), three) in asked.into_iter().zip(offsets.chunks(3)) {
            if let [Ok(start), Ok(stable), Ok(end)] = three {
                let answer = Answer::Found {
                    incarnation,
                    log_start: start.offset,
                    end: end.offset,
                    stable_end: stable.offset,
                };
                report.answers.insert(question.clone(), answer);
            }
        }
        Ok(report)
    }

    async fn read(
        &self,
        partition: &SourcePartition,
        offset: i64,
        bytes_max: i32,
    ) -> Result<FetchedRun, SourceError> {
        let cluster = self.cluster().await?;
        let run = read_log(&cluster, partition, offset, bytes_max, Replica::Leader).await?;
        Ok(FetchedRun {
            records: run.records,
            end: run.end,
            leader_epoch: run.leader_epoch,
        })
    }
}

impl Source for KafkaSource {
    fn survey<'a>(
        &'a self,
        cluster_id: &'a str,
        questions: &'a Questions,
    ) -> BoxFuture<'a, Result<SurveyReport, SourceError>> {
        Box::pin(self.ask(cluster_id, questions))
    }

    fn fetch<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
    ) -> BoxFuture<'a, Result<FetchedRun, SourceError>> {
        Box::pin(self.read(partition, offset, bytes_max))
    }
}

/// What these topics are called. Whoever cannot be asked is asked again: what is in doubt for other reasons does not wait
/// for this.
async fn name(
    cluster: &Cluster,
    cluster_id: &str,
    ids: &BTreeSet<Uuid>,
) -> BTreeMap<Uuid, Option<CatalogTopic>> {
    if ids.is_empty() {
        return BTreeMap::new();
    }
    match cluster.topics_by_id(ids).await {
        // Another cluster knows none of them, and that says nothing.
        Ok(answer) if answer.cluster_id.as_deref() != Some(cluster_id) => BTreeMap::new(),
        Ok(answer) => answer
            .topics
            .into_iter()
            .filter_map(|(id, found)| match found {
                Ok(topic) => Some((id, Some(as_catalog_topic(&topic)))),
                Err(ErrorCode::UNKNOWN_TOPIC_ID) => Some((id, None)),
                // Such as a topic that we may not see: it exists.
                Err(_) => None,
            })
            .collect(),
        Err(error) => {
            let reason = teeline_runtime::exit::error_chain(&error);
            tracing::debug!(error = %reason, ids = ids.len(), "the source does not tell what topics are called");
            BTreeMap::new()
        }
    }
}

fn as_catalog_topic(topic: &TopicMetadata) -> CatalogTopic {
    CatalogTopic {
        name: topic.name.to_string(),
        id: topic.id,
        error_code: 0,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| (partition.partition, partition.leader_epoch))
            .collect(),
        replication_factor: topic.replication_factor(),
    }
}

/// The name is none that a topic can have.
const INVALID_TOPIC_EXCEPTION: ErrorCode = ErrorCode(17);
/// One call to the source, retries included.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

enum Existence {
    Unknown,
    Gone,
    There(Uuid, TopicPartition),
}

fn existence(cluster_id: &str, topic: &TopicMetadata, question: &SourcePartition) -> Existence {
    // A name that the cluster refuses can never have been written to.
    if topic.error.is_unknown_topic() || topic.error == INVALID_TOPIC_EXCEPTION {
        return Existence::Gone;
    }
    if !topic.error.is_ok() {
        return Existence::Unknown;
    }
    let incarnation = match topic.id.is_nil() {
        true => synthetic_incarnation(cluster_id, &topic.name),
        false => topic.id,
    };
    let is_wanted = question.incarnation.is_none_or(|wanted| wanted == incarnation);
    let has_partition = topic
        .partitions
        .iter()
        .any(|partition| partition.partition == question.partition);
    if is_wanted && has_partition {
        Existence::There(incarnation, TopicPartition::new(topic.key(), question.partition))
    } else {
        Existence::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_topic_can_have_is_gone_and_other_errors_say_nothing() {
        let question = SourcePartition {
            topic: Arc::from("not a name"),
            incarnation: None,
            partition: 0,
        };
        let answer = |code| TopicMetadata {
            name: Arc::clone(&question.topic),
            id: Uuid::nil(),
            error: ErrorCode(code),
            is_internal: false,
            partitions: Vec::new(),
        };
        assert!(matches!(
            existence("cluster", &answer(17), &question),
            Existence::Gone
        ));
        assert!(matches!(
            existence("cluster", &answer(3), &question),
            Existence::Gone
        ));
        assert!(matches!(
            existence("cluster", &answer(5), &question),
            Existence::Unknown
        ));
    }
}
