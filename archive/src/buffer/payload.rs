//! What the frames of the buffer say, and how each payload is laid out.
//!
//! New fields are only ever appended to a payload (before the records, in an intent): a reader ignores bytes
//! that follow the fields it knows, so that neighbouring versions share one buffer.

use super::terms::LeaderTerms;
use crate::fields::{FieldError, FieldReader, put_configs, put_count, put_name, read_configs};
use crate::ids::Lsn;
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A batch on its way to the broker.
    Intent(Intent),
    /// The broker's answer to an intent.
    Outcome(Outcome),
    /// A connection ended with intents unanswered.
    ConnectionLost(ConnectionLost),
    /// A transaction was ended, and the broker said so.
    EndTxn(EndTxn),
    /// Names and ids of topics, as the cluster told them.
    Catalog(Catalog),
    /// Configuration of a topic.
    TopicConfig(TopicConfig),
    /// Under which epochs partitions are led, as their leaders told.
    LeaderTerms(LeaderTerms),
    /// The session was closed properly: nothing follows in it.
    SessionClosed {
        /// When, in epoch milliseconds.
        at_ms: i64,
    },
    /// Written by a newer version; kept as it is.
    Unknown {
        /// Kind, as in the frame's header.
        kind: u16,
        /// The payload.
        payload: Bytes,
    },
}

/// A batch on its way to the broker: written while the request is forwarded.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The client connection, unique within the session.
    pub connection_id: u64,
    /// What the producer asked for: -1, 0 or 1.
    pub acks: i16,
    /// When the request was forwarded, in epoch milliseconds.
    pub sent_at_ms: i64,
    /// Topic as the request named it.
    pub topic: TopicRef,
    /// Partition.
    pub partition: i32,
    /// Transactional id of the request, if any.
    pub transactional_id: Option<String>,
    /// The record batch exactly as received.
    pub records: Bytes,
}

/// A topic by name, by id, or by both. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicRef {
    /// Name (requests up to version 12).
    pub name: Option<String>,
    /// Topic id (requests from version 13 on).
    pub id: Option<Uuid>,
}

impl TopicRef {
    /// A topic known by name.
    pub fn by_name(name: impl Into<String>) -> TopicRef {
        TopicRef {
            name: Some(name.into()),
            id: None,
        }
    }

    /// A topic known by id.
    pub fn by_id(id: Uuid) -> TopicRef {
        TopicRef {
            name: None,
            id: Some(id),
        }
    }
}

/// The broker's answer to an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The intent, in the same session.
    pub intent: Lsn,
    /// When the answer arrived, in epoch milliseconds.
    pub received_at_ms: i64,
    /// Kafka error code; 0 is success.
    pub error_code: i16,
    /// Offset of the first record, or -1.
    pub base_offset: i64,
    /// Append time if the topic stamps records itself, else -1.
    pub log_append_time_ms: i64,
    /// First offset of the partition then, or -1.
    pub log_start_offset: i64,
    /// Leader epoch of the batch; -1 when unknown, never guessed.
    pub leader_epoch: i32,
}

/// Every intent of the connection without an outcome is unresolved from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLost {
    /// The connection.
    pub connection_id: u64,
    /// When it was found lost, in epoch milliseconds.
    pub at_ms: i64,
}

/// Written after the broker's success answer and before the client sees it, so that its LSN separates the
/// transactions of one producer id and epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndTxn {
    /// Transactional id.
    pub transactional_id: String,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch of the request.
    pub producer_epoch: i16,
    /// Committed, or aborted.
    pub committed: bool,
    /// When the answer arrived, in epoch milliseconds.
    pub at_ms: i64,
}

/// Names and ids of topics, from one Metadata answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// The last LSN assigned when the request was sent: the answer is younger than every frame up to it.
    pub requested_after: Lsn,
    /// When the answer arrived, in epoch milliseconds.
    pub at_ms: i64,
    /// Cluster id.
    pub cluster_id: String,
    /// The topics asked for.
    pub topics: Vec<CatalogTopic>,
}

/// One topic of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTopic {
    /// Name.
    pub name: String,
    /// Topic id; nil when the cluster has none.
    pub id: Uuid,
    /// Kafka error code; 0 is success. Or [`CatalogTopic::NOT_CAPTURED`].
    pub error_code: i16,
    /// Partition and its leader epoch (-1 unknown).
    pub partitions: Vec<(i32, i32)>,
    /// Replicas of a partition.
    pub replication_factor: i16,
}

/// Non-default configuration of a topic, and always `message.timestamp.type`, `cleanup.policy` and
/// `compression.type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Name.
    pub name: String,
    /// Topic id; nil when the cluster has none.
    pub id: Uuid,
    /// When it was read, in epoch milliseconds.
    pub at_ms: i64,
    /// Keys and values.
    pub configs: Vec<(String, Option<String>)>,
}

pub(crate) const KIND_INTENT: u16 = 1;
pub(crate) const KIND_OUTCOME: u16 = 2;
pub(crate) const KIND_CONNECTION_LOST: u16 = 3;
pub(crate) const KIND_END_TXN: u16 = 4;
pub(crate) const KIND_CATALOG: u16 = 5;
pub(crate) const KIND_TOPIC_CONFIG: u16 = 6;
pub(crate) const KIND_SESSION_CLOSED: u16 = 7;
pub(crate) const KIND_LEADER_TERMS: u16 = 8;

const HAS_NAME: u8 = 1;
const HAS_ID: u8 = 2;
const HAS_TRANSACTIONAL_ID: u8 = 4;

impl Frame {
    /// The kind that stands in the frame's header.
    pub fn kind(&self) -> u16 {
        match self {
            Frame::Intent(_) => KIND_INTENT,
            Frame::Outcome(_) => KIND_OUTCOME,
            Frame::ConnectionLost(_) => KIND_CONNECTION_LOST,
            Frame::EndTxn(_) => KIND_END_TXN,
            Frame::Catalog(_) => KIND_CATALOG,
            Frame::TopicConfig(_) => KIND_TOPIC_CONFIG,
            Frame::LeaderTerms(_) => KIND_LEADER_TERMS,
            Frame::SessionClosed { .. } => KIND_SESSION_CLOSED,
            Frame::Unknown { kind, .. } => *kind,
        }
    }

    /// Appends the payload, without the records of an intent.
    pub(crate) fn encode_prefix(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        match self {
            Frame::Intent(intent) => intent.encode_prefix(out),
            Frame::Outcome(outcome) => {
                outcome.encode(out);
                Ok(())
            }
            Frame::ConnectionLost(lost) => {
                out.put_u64_le(lost.connection_id);
                out.put_i64_le(lost.at_ms);
                Ok(())
            }
            Frame::EndTxn(end) => end.encode(out),
            Frame::Catalog(catalog) => catalog.encode(out),
            Frame::TopicConfig(config) => config.encode(out),
            Frame::LeaderTerms(terms) => terms.encode(out),
            Frame::SessionClosed { at_ms } => {
                out.put_i64_le(*at_ms);
                Ok(())
            }
            Frame::Unknown { payload, .. } => {
                out.put_slice(payload);
                Ok(())
            }
        }
    }

    /// Reads a payload; the records of an intent are a slice of it.
    pub(crate) fn decode(kind: u16, payload: &Bytes) -> Result<Frame, FieldError> {
        let fields = &mut FieldReader::new(payload);
        Ok(match kind {
            KIND_INTENT => Frame::Intent(Intent::decode(payload)?),
            KIND_OUTCOME => Frame::Outcome(Outcome::decode(fields)?),
            KIND_CONNECTION_LOST => Frame::ConnectionLost(ConnectionLost {
                connection_id: fields.u64("connection id")?,
                at_ms: fields.i64("time")?,
            }),
            KIND_END_TXN => Frame::EndTxn(EndTxn::decode(fields)?),
            KIND_CATALOG => Frame::Catalog(Catalog::decode(fields)?),
            KIND_TOPIC_CONFIG => Frame::TopicConfig(TopicConfig::decode(fields)?),
            KIND_LEADER_TERMS => Frame::LeaderTerms(LeaderTerms::decode(fields)?),
            KIND_SESSION_CLOSED => Frame::SessionClosed {
                at_ms: fields.i64("time")?,
            },
            kind => Frame::Unknown {
                kind,
                payload: payload.clone(),
            },
        })
    }
}

impl Intent {
    pub(crate) fn encode_prefix(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        let flags = [
            (self.topic.name.is_some(), HAS_NAME),
            (self.topic.id.is_some(), HAS_ID),
            (self.transactional_id.is_some(), HAS_TRANSACTIONAL_ID),
        ];
        let flags = flags
            .iter()
            .filter(|(set, _)| *set)
            .fold(0, |all, (_, bit)| all | bit);
        if flags & (HAS_NAME | HAS_ID) == 0 {
            return Err(FieldError::invalid("topic", "neither name nor id"));
        }
        let name_bytes = self.topic.name.as_ref().map_or(0, |name| 2 + name.len());
        let id_bytes = if self.topic.id.is_some() { 16 } else { 0 };
        let txn_bytes = self.transactional_id.as_ref().map_or(0, |id| 2 + id.len());
        // Both strings are refused beyond 64 KiB below, so a saturated length is never written.
        let prefix_bytes = INTENT_FIXED_BYTES + name_bytes + id_bytes + txn_bytes;
        out.put_u32_le(u32::try_from(prefix_bytes).unwrap_or(u32::MAX));
        out.put_u64_le(self.connection_id);
        out.put_i16_le(self.acks);
        out.put_i64_le(self.sent_at_ms);
        out.put_i32_le(self.partition);
        out.put_u8(flags);
        if let Some(name) = &self.topic.name {
            put_name(out, "topic name", name)?;
        }
        if let Some(id) = &self.topic.id {
            out.put_slice(id.as_bytes());
        }
        if let Some(id) = &self.transactional_id {
            put_name(out, "transactional id", id)?;
        }
        Ok(())
    }

    fn decode(payload: &Bytes) -> Result<Intent, FieldError> {
        let prefix_bytes = FieldReader::new(payload).u32("prefix length")? as usize;
        let prefix = payload
            .get(..prefix_bytes)
            .ok_or(FieldError::Short { what: "prefix" })?;
        let fields = &mut FieldReader::new(prefix);
        fields.u32("prefix length")?;
        let connection_id = fields.u64("connection id")?;
        let acks = fields.i16("acks")?;
        let sent_at_ms = fields.i64("time")?;
        let partition = fields.i32("partition")?;
        let flags = fields.u8("flags")?;
        if flags & !(HAS_NAME | HAS_ID | HAS_TRANSACTIONAL_ID) != 0 || flags & (HAS_NAME | HAS_ID) == 0 {
            return Err(FieldError::invalid("flags", flags));
        }
        let has = |bit| flags & bit != 0;
        let name = if has(HAS_NAME) {
            Some(fields.name("topic name")?)
        } else {
            None
        };
        let id = if has(HAS_ID) {
            Some(fields.uuid("topic id")?)
        } else {
            None
        };
        let transactional_id = if has(HAS_TRANSACTIONAL_ID) {
            Some(fields.name("transactional id")?)
        } else {
            None
        };
        Ok(Intent {
            connection_id,
            acks,
            sent_at_ms,
            topic: TopicRef { name, id },
            partition,
            transactional_id,
            records: payload.slice(prefix_bytes..),
        })
    }
}

const INTENT_FIXED_BYTES: usize = 4 + 8 + 2 + 8 + 4 + 1;

impl Outcome {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.intent.0);
        out.put_i64_le(self.received_at_ms);
        out.put_i16_le(self.error_code);
        out.put_i64_le(self.base_offset);
        out.put_i64_le(self.log_append_time_ms);
        out.put_i64_le(self.log_start_offset);
        out.put_i32_le(self.leader_epoch);
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<Outcome, FieldError> {
        Ok(Outcome {
            intent: Lsn(fields.u64("intent")?),
            received_at_ms: fields.i64("time")?,
            error_code: fields.i16("error code")?,
            base_offset: fields.i64("base offset")?,
            log_append_time_ms: fields.i64("append time")?,
            log_start_offset: fields.i64("log start offset")?,
            leader_epoch: fields.i32("leader epoch")?,
        })
    }
}

impl EndTxn {
    fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "transactional id", &self.transactional_id)?;
        out.put_i64_le(self.producer_id);
        out.put_i16_le(self.producer_epoch);
        out.put_u8(self.committed.into());
        out.put_i64_le(self.at_ms);
        Ok(())
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<EndTxn, FieldError> {
        Ok(EndTxn {
            transactional_id: fields.name("transactional id")?,
            producer_id: fields.i64("producer id")?,
            producer_epoch: fields.i16("producer epoch")?,
            committed: fields.flag("committed")?,
            at_ms: fields.i64("time")?,
        })
    }
}

impl Catalog {
    fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        out.put_u64_le(self.requested_after.0);
        out.put_i64_le(self.at_ms);
        put_name(out, "cluster id", &self.cluster_id)?;
        put_count(out, "topic count", self.topics.len())?;
        for topic in &self.topics {
            put_name(out, "topic name", &topic.name)?;
            out.put_slice(topic.id.as_bytes());
            out.put_i16_le(topic.error_code);
            out.put_i16_le(topic.replication_factor);
            put_count(out, "partition count", topic.partitions.len())?;
            for (partition, epoch) in &topic.partitions {
                out.put_i32_le(*partition);
                out.put_i32_le(*epoch);
            }
        }
        Ok(())
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<Catalog, FieldError> {
        let requested_after = Lsn(fields.u64("requested after")?);
        let at_ms = fields.i64("time")?;
        let cluster_id = fields.name("cluster id")?;
        let count = fields.count(CATALOG_TOPIC_BYTES_MIN, "topic count")?;
        let topics = (0..count)
            .map(|_| CatalogTopic::decode(fields))
            .collect::<Result<_, _>>()?;
        Ok(Catalog {
            requested_after,
            at_ms,
            cluster_id,
            topics,
        })
    }
}

const CATALOG_TOPIC_BYTES_MIN: usize = 2 + 16 + 2 + 2 + 4;

impl CatalogTopic {
    /// In place of an error code, which Kafka never gives: the topic is not captured. What names it by an id that no
    /// catalog has named before was captured because that was not known yet, and is left out.
    pub const NOT_CAPTURED: i16 = -2;

    fn decode(fields: &mut FieldReader<'_>) -> Result<CatalogTopic, FieldError> {
        let name = fields.name("topic name")?;
        let id = fields.uuid("topic id")?;
        let error_code = fields.i16("error code")?;
        let replication_factor = fields.i16("replication factor")?;
        let count = fields.count(4 + 4, "partition count")?;
        let partitions = (0..count)
            .map(|_| Ok((fields.i32("partition")?, fields.i32("leader epoch")?)))
            .collect::<Result<_, FieldError>>()?;
        Ok(CatalogTopic {
            name,
            id,
            error_code,
            partitions,
            replication_factor,
        })
    }
}

impl TopicConfig {
    fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic name", &self.name)?;
        out.put_slice(self.id.as_bytes());
        out.put_i64_le(self.at_ms);
        put_configs(out, &self.configs)
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<TopicConfig, FieldError> {
        Ok(TopicConfig {
            name: fields.name("topic name")?,
            id: fields.uuid("topic id")?,
            at_ms: fields.i64("time")?,
            configs: read_configs(fields)?,
        })
    }
}
