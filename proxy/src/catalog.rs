//! Catalogs: which topic has which name and id, as the cluster told, with their place in the buffer's order.
//!
//! What was captured by name belongs to a topic incarnation once a catalog from before the send and one from after the
//! answer name the same id. Each catalog says what the buffer had given out when the question was asked: it is younger
//! than that.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::MetadataResponse;
use kafka_protocol::protocol::Decodable;
use teeline_archive::buffer::{Catalog, CatalogTopic, Frame};
use teeline_archive::ids::BufferPosition;
use teeline_wire::client::{ConfigEntry, TopicMetadata};
use teeline_wire::{apis, schema};
use uuid::Uuid;

use crate::capture::Capture;
use crate::cluster::Cluster;
use crate::leaders::Leader;

/// Takes new topic names and ids from a Metadata answer on its way to a client. The client can only send to a topic
/// after this, so the topic's first batch has a catalog before it.
pub(crate) async fn observe(
    cluster: &Cluster,
    capture: &Capture,
    version: i16,
    body: &Bytes,
    asked_after: BufferPosition,
    at_ms: i64,
) {
    if version < VERSION_WITH_TOPIC_IDS || schema::precheck(apis::METADATA, version, true, body).is_err() {
        return;
    }
    let Ok(answer) = MetadataResponse::decode(&mut body.clone(), version) else {
        return;
    };
    let mut topics = Vec::new();
    let mut pairs = Vec::new();
    for topic in answer
        .topics
        .iter()
        .filter(|topic| topic.error_code == 0 && !topic.topic_id.is_nil())
    {
        let Some(name) = topic.name.as_ref().map(|name| name.0.as_str()) else {
            continue;
        };
        if capture.topics.knows(name, topic.topic_id) || !capture.topics.wanted(name) {
            continue;
        }
        let shared: Arc<str> = Arc::from(name);
        let leaders = topic.partitions.iter().map(|p| Leader {
            partition: p.partition_index,
            node_id: p.leader_id.0,
            epoch: p.leader_epoch,
        });
        capture.topics.leaders.learn(&shared, topic.topic_id, leaders);
        pairs.push((shared, topic.topic_id));
        topics.push(CatalogTopic {
            name: name.to_owned(),
            id: topic.topic_id,
            error_code: 0,
            partitions: topic
                .partitions
                .iter()
                .map(|p| (p.partition_index, p.leader_epoch))
                .collect(),
            replication_factor: replication_factor(topic.partitions.first().map(|p| p.replica_nodes.len())),
        });
    }
    if topics.is_empty() {
        return;
    }
    let cluster_id = answer.cluster_id.map(|id| id.to_string()).unwrap_or_default();
    if append(cluster, capture, at_ms, cluster_id, topics, asked_after).await {
        capture.topics.learn(pairs);
        capture.topics.unknown.notify_one();
    }
}

/// Appends a catalog; false when the buffer does not take it.
pub(crate) async fn append(
    cluster: &Cluster,
    capture: &Capture,
    at_ms: i64,
    cluster_id: String,
    topics: Vec<CatalogTopic>,
    asked_after: BufferPosition,
) -> bool {
    if !cluster_id.is_empty() && *cluster.identity.get_or_init(|| cluster_id.clone()) != cluster_id {
        // The backup and the buffer belong to one cluster for ever: a catalog of another one would spoil both.
        if let Some(suppressed) = cluster.unreachable.admit() {
            tracing::error!(
                cluster = cluster.name,
                cluster_id,
                suppressed,
                "another cluster answers at upstream.bootstrap_servers; what is written to it is not attributed"
            );
        }
        return false;
    }
    let catalog = Catalog {
        requested_after: asked_after.lsn,
        at_ms,
        cluster_id,
        topics,
    };
    // Bounded: a client may be waiting for the Metadata answer behind it.
    let frames = vec![Frame::Catalog(catalog)];
    match capture.append_small(asked_after.session, frames).await {
        Ok(_) => {
            cluster.metrics.catalogs.increment(1);
            true
        }
        Err(reason) => {
            tracing::info!(cluster = cluster.name, ?reason, "a catalog was not written");
            false
        }
    }
}

/// What a catalog says of a topic.
pub(crate) fn catalog_topic(topic: &TopicMetadata) -> CatalogTopic {
    CatalogTopic {
        name: topic.name.to_string(),
        id: topic.id,
        error_code: topic.error.0,
        partitions: topic
            .partitions
            .iter()
            .map(|p| (p.partition, p.leader_epoch))
            .collect(),
        replication_factor: topic.replication_factor(),
    }
}

/// Who leads the topic's partitions.
pub(crate) fn leaders(topic: &TopicMetadata) -> impl Iterator<Item = Leader> + '_ {
    topic.partitions.iter().map(|p| Leader {
        partition: p.partition,
        node_id: p.leader_id,
        epoch: p.leader_epoch,
    })
}

/// What a catalog says of a topic that is not captured, after a batch for its id was, as the id had no name yet.
pub(crate) fn left_out_topic(topic: &TopicMetadata) -> CatalogTopic {
    without_partitions(&topic.name, topic.id, CatalogTopic::NOT_CAPTURED)
}

/// What a catalog says of a topic that the cluster no longer lists.
pub(crate) fn gone_topic(name: &str) -> CatalogTopic {
    without_partitions(name, Uuid::nil(), UNKNOWN_TOPIC_OR_PARTITION)
}

fn without_partitions(name: &str, id: Uuid, error_code: i16) -> CatalogTopic {
    CatalogTopic {
        name: name.to_owned(),
        id,
        error_code,
        partitions: Vec::new(),
        replication_factor: 0,
    }
}

fn replication_factor(replicas: Option<usize>) -> i16 {
    replicas.map_or(0, |replicas| i16::try_from(replicas).unwrap_or(i16::MAX))
}

/// What is set on the topic itself, and what decides how its records look.
pub(crate) fn worth_keeping(entries: Vec<ConfigEntry>) -> Vec<(String, Option<String>)> {
    let kept = entries
        .into_iter()
        .filter(|entry| entry.is_own || ALWAYS_KEPT.contains(&entry.name.as_str()));
    let mut configs: Vec<_> = kept.map(|entry| (entry.name, entry.value)).collect();
    configs.sort_unstable();
    configs
}

const ALWAYS_KEPT: [&str; 3] = ["message.timestamp.type", "cleanup.policy", "compression.type"];
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// Metadata tells topic ids from this version on.
const VERSION_WITH_TOPIC_IDS: i16 = 10;
