//! What a cluster consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use teeline_config::HostPort;
use uuid::Uuid;

use super::{ClientError, Connection, ErrorCode};

/// Versions of Metadata that are spoken: from 4 on auto-creation can be switched off.
const VERSIONS: std::ops::RangeInclusive<i16> = 4..=13;
/// Those that answer by topic id: earlier ones have the field, and brokers refuse it.
const VERSIONS_BY_ID: std::ops::RangeInclusive<i16> = 12..=13;

/// A topic, by name and, where known, by id. With the id a call is refused when the name has passed to
/// another topic in the meantime.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicKey {
    /// Name.
    pub name: Arc<str>,
    /// Id; `None` when unknown or when the cluster has no topic ids.
    pub id: Option<Uuid>,
}

impl TopicKey {
    /// The topic that has this name at the time of the call.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            id: None,
        }
    }

    /// This very topic. A nil id counts as unknown.
    pub fn with_id(name: impl Into<Arc<str>>, id: Uuid) -> Self {
        Self {
            name: name.into(),
            id: (!id.is_nil()).then_some(id),
        }
    }
}

impl fmt::Display for TopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<&str> for TopicKey {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic.
    pub topic: TopicKey,
    /// Partition.
    pub partition: i32,
}

impl TopicPartition {
    /// Puts the two together.
    pub fn new(topic: impl Into<TopicKey>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Which topics to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicSelection<'a> {
    /// Only the brokers.
    None,
    /// These.
    Named(&'a [Arc<str>]),
    /// All that we may see.
    All,
}

/// An answer to Metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// The controller, as far as clients need to know; -1 if there is none just now.
    pub controller_id: i32,
    /// Brokers that are alive.
    pub brokers: Vec<BrokerMetadata>,
    /// The topics asked for, those that do not exist with an error.
    pub topics: Vec<TopicMetadata>,
}

/// An answer to Metadata for topics of which only the ids are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsById {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// By id; the error says why there is no topic to tell of.
    pub topics: BTreeMap<Uuid, Result<TopicMetadata, ErrorCode>>,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerMetadata {
    /// Node id.
    pub node_id: i32,
    /// Where it listens for clients.
    pub address: HostPort,
    /// Its rack.
    pub rack: Option<String>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Name.
    pub name: Arc<str>,
    /// Id; nil when the cluster has none, or for a topic that does not exist.
    pub id: Uuid,
    /// Why there is no more to say.
    pub error: ErrorCode,
    /// Whether it is one of Kafka's own.
    pub is_internal: bool,
    /// Partitions, by number.
    pub partitions: Vec<PartitionMetadata>,
}

impl TopicMetadata {
    /// Name and id, for calls.
    pub fn key(&self) -> TopicKey {
        TopicKey::with_id(Arc::clone(&self.name), self.id)
    }

    /// Whether it can be the topic with this id; clusters without topic ids cannot tell.
    pub(super) fn may_have_id(&self, id: Uuid) -> bool {
        self.id.is_nil() || self.id == id
    }

    /// The replication factor; 0 for a topic without partitions.
    pub fn replication_factor(&self) -> i16 {
        let replicas = self
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len());
        i16::try_from(replicas).unwrap_or(i16::MAX)
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Number.
    pub partition: i32,
    /// Its state, such as LEADER_NOT_AVAILABLE.
    pub error: ErrorCode,
    /// The leader's node id, -1 for none.
    pub leader_id: i32,
    /// The leader's epoch, -1 if the broker does not tell.
    pub leader_epoch: i32,
    /// Node ids of all replicas.
    pub replicas: Vec<i32>,
    /// Node ids of the in-sync ones.
    pub in_sync_replicas: Vec<i32>,
}

/// Asks one broker.
pub(super) async fn ask(
    connection: &Connection,
    selection: TopicSelection<'_>,
    timeout: std::time::Duration,
) -> Result<ClusterMetadata, ClientError> {
    let topics = match selection {
        TopicSelection::All => None,
        TopicSelection::None => Some(Vec::new()),
        TopicSelection::Named(names) => Some(names.iter().map(|name| requested(name)).collect()),
    };
    // Asking about a topic must never create it.
    let request = MetadataRequest::default()
        .with_topics(topics)
        .with_allow_auto_topic_creation(false);
    let response = connection.call(VERSIONS, &request, timeout).await?;
    ErrorCode(response.error_code).check(
        || format!("ask broker {} for metadata", connection.address()),
        None,
    )?;
    convert(response, connection.address())
}

/// Asks one broker for topics by their ids.
pub(super) async fn ask_by_id(
    connection: &Connection,
    ids: &BTreeSet<Uuid>,
    timeout: std::time::Duration,
) -> Result<TopicsById, ClientError> {
    let by_id = |id: &Uuid| MetadataRequestTopic::default().with_topic_id(*id).with_name(None);
    let request = MetadataRequest::default()
        .with_topics(Some(ids.iter().map(by_id).collect()))
        .with_allow_auto_topic_creation(false);
    let response = connection.call(VERSIONS_BY_ID, &request, timeout).await?;
    let subject = || format!("ask broker {} for topics by id", connection.address());
    ErrorCode(response.error_code).check(subject, None)?;
    Ok(TopicsById {
        cluster_id: response.cluster_id.map(|id| id.to_string()),
        topics: response.topics.into_iter().map(convert_by_id).collect(),
    })
}

fn requested(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
}

fn convert(response: MetadataResponse, address: &HostPort) -> Result<ClusterMetadata, ClientError> {
    let brokers = response
        .brokers
        .into_iter()
        .map(|broker| convert_broker(broker, address));
    let brokers = brokers.collect::<Result<_, _>>()?;
    Ok(ClusterMetadata {
        cluster_id: response.cluster_id.map(|id| id.to_string()),
        controller_id: response.controller_id.0,
        brokers,
        // A topic without a name was asked for by id, and here none is.
        topics: response.topics.into_iter().filter_map(convert_topic).collect(),
    })
}

fn convert_broker(broker: MetadataResponseBroker, address: &HostPort) -> Result<BrokerMetadata, ClientError> {
    let port = u16::try_from(broker.port).map_err(|_| ClientError::Unusable {
        address: address.to_string(),
        what: "Metadata",
        reason: format!("broker {} has port {}", broker.node_id.0, broker.port),
    })?;
    Ok(BrokerMetadata {
        node_id: broker.node_id.0,
        address: HostPort::new(broker.host.to_string(), port),
        rack: broker.rack.map(|rack| rack.to_string()),
    })
}

fn convert_topic(topic: MetadataResponseTopic) -> Option<TopicMetadata> {
    let mut partitions: Vec<_> = topic.partitions.into_iter().map(convert_partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    Some(TopicMetadata {
        name: Arc::from(topic.name?.as_str()),
        id: topic.topic_id,
        error: ErrorCode(topic.error_code),
        is_internal: topic.is_internal,
        partitions,
    })
}

fn convert_by_id(topic: MetadataResponseTopic) -> (Uuid, Result<TopicMetadata, ErrorCode>) {
    let (id, error) = (topic.topic_id, ErrorCode(topic.error_code));
    // Without a name and without an error it tells nothing.
    let found = match error.is_ok() {
        true => convert_topic(topic).ok_or(ErrorCode::NONE),
        false => Err(error),
    };
    (id, found)
}

fn convert_partition(partition: MetadataResponsePartition) -> PartitionMetadata {
    let ids = |nodes: Vec<kafka_protocol::messages::BrokerId>| nodes.into_iter().map(|node| node.0).collect();
    PartitionMetadata {
        partition: partition.partition_index,
        error: ErrorCode(partition.error_code),
        leader_id: partition.leader_id.0,
        leader_epoch: partition.leader_epoch,
        replicas: ids(partition.replica_nodes),
        in_sync_replicas: ids(partition.isr_nodes),
    }
}
