//! The source's logs, as they are read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use teeline_wire::client::{
    ClientError, Cluster, ErrorCode, FetchOptions, Isolation, OffsetAt, TopicKey, TopicPartition,
    TopicSelection,
};

use crate::catalog::synthetic_incarnation;
use crate::source::{SourceError, SourcePartition};

/// Part of a log.
#[derive(Debug, Clone)]
pub struct LogRun {
    /// Raw batches; the last one may be cut.
    pub records: Bytes,
    /// One past the last offset that may be read now.
    pub end: i64,
    /// First offset of the log.
    pub log_start: i64,
    /// Epoch of the leader, -1 when unknown.
    pub leader_epoch: i32,
    /// Whether a follower answered. What it has is true; what it lacks the leader may have.
    pub from_follower: bool,
}

/// Who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replica {
    /// The leader only.
    Leader,
    /// A follower in our rack, if there is one.
    Nearest,
}

/// Logs that can be read.
pub trait LogReader: Send + Sync {
    /// What a partition has from an offset on. [`SourceError::OutOfRange`] and [`SourceError::Gone`] are answers.
    fn read<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
        replica: Replica,
    ) -> BoxFuture<'a, Result<LogRun, SourceError>>;
}

/// The logs of a real cluster. A connection serves one request after the other, so that several clients of the same
/// cluster read several partitions of one broker side by side.
#[derive(Debug, Clone)]
pub struct KafkaLog {
    clients: Arc<[Cluster]>,
}

impl KafkaLog {
    /// Reads through these clients, all of the same cluster.
    pub fn new(clients: impl Into<Arc<[Cluster]>>) -> Self {
        KafkaLog {
            clients: clients.into(),
        }
    }

    fn client(&self, partition: i32) -> Option<&Cluster> {
        let at = partition.unsigned_abs() as usize % self.clients.len().max(1);
        self.clients.get(at)
    }
}

impl LogReader for KafkaLog {
    fn read<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
        replica: Replica,
    ) -> BoxFuture<'a, Result<LogRun, SourceError>> {
        Box::pin(async move {
            let client = self.client(partition.partition).ok_or(SourceError::Gone)?;
            read_log(client, partition, offset, bytes_max, replica).await
        })
    }
}

/// Reads from one partition. An incarnation that is named is the one that is read, or none.
pub async fn read_log(
    cluster: &Cluster,
    partition: &SourcePartition,
    offset: i64,
    bytes_max: i32,
    replica: Replica,
) -> Result<LogRun, SourceError> {
    let cluster_id = cluster.cluster_id().unwrap_or_default();
    let synthetic = synthetic_incarnation(&cluster_id, &partition.topic);
    let real_id = partition.incarnation.filter(|id| *id != synthetic);
    let topic = match real_id {
        Some(id) => TopicKey::with_id(Arc::clone(&partition.topic), id),
        None => TopicKey::named(Arc::clone(&partition.topic)),
    };
    let at = TopicPartition::new(topic, partition.partition);
    let options = FetchOptions {
        isolation: Isolation::ReadUncommitted,
        max_wait: FETCH_WAIT,
        max_bytes: bytes_max,
        nearest: replica == Replica::Nearest,
        ..FetchOptions::default()
    };
    match cluster.fetch(&at, offset, &options).await {
        Ok(fetched) => {
            if real_id.is_some() && !fetched.by_id {
                // Between Kafka 2.8 and 3.0 topics have ids, but Fetch does not take them: check that the name still
                // means the same topic now that the records are here.
                check_still(cluster, partition).await?;
            }
            Ok(LogRun {
                records: fetched.records,
                end: fetched.high_watermark,
                log_start: fetched.log_start_offset,
                leader_epoch: fetched.leader_epoch,
                from_follower: fetched.follower.is_some(),
            })
        }
        Err(error) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
            let log_start = cluster.list_offset(&at, OffsetAt::Earliest).await?.offset;
            let end = cluster.list_offset(&at, OffsetAt::Latest).await?.offset;
            Err(SourceError::OutOfRange { log_start, end })
        }
        Err(error) if is_gone(&error) => Err(SourceError::Gone),
        Err(error) => Err(error.into()),
    }
}

/// What is fetched exists already; waiting only helps where a replica lags.
const FETCH_WAIT: Duration = Duration::from_millis(200);

fn is_gone(error: &ClientError) -> bool {
    match error {
        ClientError::TopicRecreated { .. } => true,
        ClientError::GaveUp { source, .. } => is_gone(source),
        other => other.code().is_some_and(ErrorCode::is_unknown_topic),
    }
}

async fn check_still(cluster: &Cluster, partition: &SourcePartition) -> Result<(), SourceError> {
    let names = [Arc::clone(&partition.topic)];
    let metadata = cluster.metadata(TopicSelection::Named(&names)).await?;
    let same = metadata
        .topics
        .iter()
        .any(|topic| Some(topic.id) == partition.incarnation);
    if same { Ok(()) } else { Err(SourceError::Gone) }
}
