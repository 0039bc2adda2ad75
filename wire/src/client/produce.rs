//! Produce: batches that exist already.
//!
//! Record bytes are never copied: a request is a list of pieces, small ones for the message and the caller's own
//! slices for the batches, and goes out in vectored writes.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use super::cluster::Lane;
use super::connection::decode;
use super::{
    ClientError, Cluster, Connection, ErrorCode, Leader, PendingResponse, RawRequest, TopicPartition,
};
use crate::batch::{BatchHeader, BatchView, ReplayBatch};
use crate::write::{
    put_array_count, put_no_tagged_fields, put_nullable_string, put_string, put_unsigned_varint,
};
use crate::{WireError, apis};

/// By topic name, which every broker from 0.11 to 4.x takes. Version 13 would name topics by id.
const VERSIONS: std::ops::RangeInclusive<i16> = 3..=12;
const FLEXIBLE_FROM: i16 = 9;

/// When a broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// When all in-sync replicas have it.
    #[default]
    All,
    /// When the leader has it.
    Leader,
}

/// How to produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceOptions {
    /// When the broker answers.
    pub acks: Acks,
    /// How long the broker may wait for replicas; our own patience is this and the request timeout.
    pub timeout: Duration,
}

impl Default for ProduceOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            timeout: Duration::from_secs(30),
        }
    }
}

/// One batch for one partition: exactly one batch with base offset 0, in one or more pieces, the first of which
/// holds at least its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBatch {
    /// Where to.
    pub partition: TopicPartition,
    pieces: Vec<Bytes>,
    is_idempotent: bool,
}

impl PartitionBatch {
    /// A batch made ready by [`crate::batch::split_for_replay`].
    pub fn replay(partition: TopicPartition, batch: ReplayBatch) -> Self {
        Self::from_pieces(partition, vec![batch.header, batch.payload])
    }

    /// A batch in one piece.
    pub fn whole(partition: TopicPartition, batch: &BatchView) -> Self {
        Self::from_pieces(partition, vec![batch.bytes().clone()])
    }

    /// Bytes of the batch.
    pub fn size_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn from_pieces(partition: TopicPartition, pieces: Vec<Bytes>) -> Self {
        let header = pieces.first().and_then(|first| BatchHeader::parse(first).ok());
        let is_idempotent = header.is_some_and(|header| header.has_producer());
        Self {
            partition,
            pieces,
            is_idempotent,
        }
    }
}

/// Where a batch was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// Offset of its first record. For a repeated batch that of the first time.
    pub base_offset: i64,
    /// When it was appended, on `LogAppendTime` topics; else -1.
    pub log_append_time_ms: i64,
    /// The log's start.
    pub log_start_offset: i64,
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}{}", message.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
pub struct ProduceFailure {
    /// The broker's error.
    pub code: ErrorCode,
    /// Its words, those about single records included.
    pub message: Option<String>,
    /// Where the batch was appended nevertheless, or -1, see [`ProduceFailure::may_be_appended`].
    pub base_offset: i64,
}

impl ProduceFailure {
    /// Whether the batch may stand in the log in spite of the error: the leader appended it, and then replicas were
    /// missing, time ran out, or leadership moved. Sending the same sequence again settles it.
    pub fn may_be_appended(&self) -> bool {
        self.base_offset >= 0
            || matches!(
                self.code,
                ErrorCode::REQUEST_TIMED_OUT | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            )
    }
}

/// What became of one batch of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceOutcome {
    /// Where it was sent.
    pub partition: TopicPartition,
    /// What became of it.
    pub result: Result<Produced, ProduceFailure>,
}

/// A Produce request on its way. Dropping it forgets the answer, not the request.
#[derive(Debug)]
pub struct PendingProduce {
    response: PendingResponse,
    connection: Connection,
    version: i16,
    partitions: Vec<TopicPartition>,
}

impl PendingProduce {
    /// What became of the batches, in their order. An error here means that nothing is known about any of them.
    pub async fn wait(self) -> Result<Vec<ProduceOutcome>, ClientError> {
        let Self {
            response,
            connection,
            version,
            partitions,
        } = self;
        let body = response.wait().await?;
        let response: ProduceResponse = decode(connection.address(), apis::PRODUCE, version, body)?;
        let mut found = HashMap::new();
        for topic in response.responses {
            let name = topic.name.to_string();
            found.extend(
                topic
                    .partition_responses
                    .into_iter()
                    .map(|part| ((name.clone(), part.index), part)),
            );
        }
        let outcome = |partition: TopicPartition| {
            let key = (partition.topic.name.to_string(), partition.partition);
            let answer = found.remove(&key);
            let answer = answer.ok_or_else(|| super::offsets::missing(&connection, apis::PRODUCE))?;
            Ok(ProduceOutcome {
                partition,
                result: convert(answer),
            })
        };
        partitions.into_iter().map(outcome).collect()
    }
}

impl Cluster {
    /// Puts batches for several partitions of one leader on their way in one request, at most one per partition.
    /// Requests to the same broker arrive in the order in which these calls end, so that idempotent batches can
    /// be pipelined (at most five requests per partition). Nothing is retried.
    pub async fn send_produce(
        &self,
        leader: Leader,
        batches: &[PartitionBatch],
        options: &ProduceOptions,
    ) -> Result<PendingProduce, ClientError> {
        let connection = self.connection(leader.node_id, Lane::Produce).await?;
        let batches: Vec<&PartitionBatch> = batches.iter().collect();
        self.send_on(&connection, &batches, options).await
    }

    /// Produces batches and waits for all of them, at most one per partition; follows leaders that move.
    ///
    /// Batches with a producer id are sent again until the deadline, as their sequence makes that safe. Others are
    /// sent again only if they were certainly not appended.
    pub async fn produce(
        &self,
        batches: &[PartitionBatch],
        options: &ProduceOptions,
    ) -> Vec<Result<Produced, ClientError>> {
        let ask = |connection: Connection, group: Vec<(usize, Leader)>| async move {
            let batches: Vec<&PartitionBatch> = group.iter().filter_map(|&(at, _)| batches.get(at)).collect();
            let outcomes = self.send_on(&connection, &batches, options).await?.wait().await?;
            Ok(outcomes.into_iter().map(into_client_result).collect())
        };
        let may_retry = |batch: &PartitionBatch, error: &ClientError| {
            batch.is_idempotent || certainly_not_appended(error)
        };
        self.on_leaders(Lane::Produce, batches, |batch| &batch.partition, may_retry, ask)
            .await
    }

    async fn send_on(
        &self,
        connection: &Connection,
        batches: &[&PartitionBatch],
        options: &ProduceOptions,
    ) -> Result<PendingProduce, ClientError> {
        let version = connection.choose(apis::PRODUCE, &VERSIONS)?;
        let body = encode_request(version, batches, options).map_err(|error| ClientError::Encode {
            what: apis::name(apis::PRODUCE),
            reason: error.to_string(),
        })?;
        let timeout = self.config().endpoint.request_timeout + options.timeout;
        let request = RawRequest {
            api_key: apis::PRODUCE,
            api_version: version,
            body,
            timeout,
        };
        let response = connection.send(request).await?;
        let partitions = batches.iter().map(|batch| batch.partition.clone()).collect();
        Ok(PendingProduce {
            response,
            connection: connection.clone(),
            version,
            partitions,
        })
    }
}

fn encode_request(
    version: i16,
    batches: &[&PartitionBatch],
    options: &ProduceOptions,
) -> Result<Vec<Bytes>, WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let acks = match options.acks {
        Acks::All => -1,
        Acks::Leader => 1,
    };
    let mut pieces = Vec::with_capacity(1 + batches.len() * 3);
    let mut out = BytesMut::new();
    put_nullable_string(&mut out, None, flexible)?;
    out.put_i16(acks);
    out.put_i32(i32::try_from(options.timeout.as_millis()).unwrap_or(i32::MAX));
    // One entry per partition: brokers accept a topic more than once.
    put_array_count(&mut out, batches.len(), flexible)?;
    for batch in batches {
        put_string(&mut out, &batch.partition.topic.name, flexible)?;
        put_array_count(&mut out, 1, flexible)?;
        out.put_i32(batch.partition.partition);
        put_records_length(&mut out, batch.size_bytes(), flexible)?;
        pieces.push(out.split().freeze());
        pieces.extend(batch.pieces.iter().filter(|piece| !piece.is_empty()).cloned());
        put_no_tagged_fields(&mut out, flexible);
        put_no_tagged_fields(&mut out, flexible);
    }
    put_no_tagged_fields(&mut out, flexible);
    if !out.is_empty() {
        pieces.push(out.freeze());
    }
    Ok(pieces)
}

fn put_records_length(out: &mut BytesMut, length: usize, flexible: bool) -> Result<(), WireError> {
    let checked = i32::try_from(length).map_err(|_| WireError::TooLong { length })?;
    match flexible {
        true => put_unsigned_varint(out, checked.unsigned_abs().saturating_add(1)),
        false => out.put_i32(checked),
    }
    Ok(())
}

fn convert(answer: PartitionProduceResponse) -> Result<Produced, ProduceFailure> {
    let code = ErrorCode(answer.error_code);
    if code.is_ok() {
        return Ok(Produced {
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
            log_start_offset: answer.log_start_offset,
        });
    }
    let about_records = answer.record_errors.iter().map(|record| {
        let reason = record.batch_index_error_message.as_deref().unwrap_or("refused");
        format!("record {}: {reason}", record.batch_index)
    });
    let words: Vec<String> = answer
        .error_message
        .iter()
        .map(|text| text.to_string())
        .chain(about_records)
        .collect();
    let message = (!words.is_empty()).then(|| words.join("; "));
    Err(ProduceFailure {
        code,
        message,
        base_offset: answer.base_offset,
    })
}

fn into_client_result(outcome: ProduceOutcome) -> Result<Produced, ClientError> {
    let partition = outcome.partition.to_string();
    outcome
        .result
        .map_err(|failure| ClientError::Produce { partition, failure })
}

/// Whether the failure leaves no doubt that the log is without the batch.
fn certainly_not_appended(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::NoLeader { .. } | ClientError::NoBroker { .. } => true,
        ClientError::Broker { .. } => true,
        ClientError::Produce { failure, .. } => !failure.may_be_appended(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
