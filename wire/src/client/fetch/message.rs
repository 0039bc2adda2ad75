//! The Fetch request and its response, byte by byte.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{AbortedTransaction, FetchOptions, FetchedPartition, Isolation};
use crate::client::connection::malformed;
use crate::client::{ClientError, Connection, ErrorCode, RawRequest, TopicPartition};
use crate::read::Reader;
use crate::write::{put_array_count, put_no_tagged_fields, put_string};
use crate::{WireError, apis};

/// Topics are named up to this version, and have ids from the next one on.
pub(super) const NEWEST_BY_NAME: i16 = 12;
/// What is spoken: from Kafka 2.3 on, and enough for every later broker. Sessions exist in all of it.
pub(super) const OLDEST: i16 = 11;
pub(super) const NEWEST: i16 = 13;
const FLEXIBLE_FROM: i16 = 12;

/// The newest version that both sides speak; by ids only where all topics have one.
pub(super) fn choose_version(connection: &Connection, by_id: bool) -> Result<i16, ClientError> {
    let newest = if by_id { NEWEST } else { NEWEST_BY_NAME };
    connection.choose(apis::FETCH, &(OLDEST..=newest))
}

/// A topic as the message names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum WireTopic {
    Name(Arc<str>),
    Id(Uuid),
}

/// A partition as the message names it.
pub(super) type WireKey = (WireTopic, i32);

pub(super) fn key_of(partition: &TopicPartition, by_id: bool) -> WireKey {
    let topic = match partition.topic.id {
        Some(id) if by_id => WireTopic::Id(id),
        _ => WireTopic::Name(Arc::clone(&partition.topic.name)),
    };
    (topic, partition.partition)
}

/// Which step of which session a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionStep {
    /// 0 for none yet.
    pub(super) id: i32,
    /// 0 begins a session, and ends the one that is named; -1 wants none.
    pub(super) epoch: i32,
}

impl SessionStep {
    /// No session, and none wanted.
    pub(super) const NONE: SessionStep = SessionStep { id: 0, epoch: -1 };
}

/// What is asked of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) partition: &'a TopicPartition,
    /// Lets the broker refuse if it is not the leader that Metadata told us of.
    pub(super) leader_epoch: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: i32,
}

/// A request to be written.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) version: i16,
    pub(super) options: &'a FetchOptions,
    pub(super) rack: &'a str,
    pub(super) session: SessionStep,
    pub(super) asked: &'a [Asked<'a>],
    /// What the session is to forget.
    pub(super) forgotten: &'a [WireKey],
}

impl Exchange<'_> {
    /// Whether topics go by their ids.
    pub(super) fn is_by_id(&self) -> bool {
        self.version > NEWEST_BY_NAME
    }

    /// Writes it.
    pub(super) fn encode(&self) -> Result<Encoded, ClientError> {
        let body = self.body().map_err(|error| ClientError::Encode {
            what: apis::name(apis::FETCH),
            reason: error.to_string(),
        })?;
        Ok(Encoded {
            version: self.version,
            body,
        })
    }

    pub(super) fn body(&self) -> Result<Bytes, WireError> {
        let flexible = self.version >= FLEXIBLE_FROM;
        let options = self.options;
        let max_wait_ms = i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX);
        let mut out = BytesMut::with_capacity(64 + (self.asked.len() + self.forgotten.len()) * 64);
        out.put_i32(-1); // a consumer, not a replica
        out.put_i32(max_wait_ms);
        out.put_i32(options.min_bytes);
        out.put_i32(options.max_bytes);
        out.put_i8(i8::from(options.isolation == Isolation::ReadCommitted));
        out.put_i32(self.session.id);
        out.put_i32(self.session.epoch);
        // One entry per partition: brokers accept a topic more than once, and requests stay small.
        put_array_count(&mut out, self.asked.len(), flexible)?;
        for asked in self.asked {
            let (topic, partition) = key_of(asked.partition, self.is_by_id());
            put_topic(&mut out, &topic, flexible)?;
            put_array_count(&mut out, 1, flexible)?;
            out.put_i32(partition);
            out.put_i32(asked.leader_epoch);
            out.put_i64(asked.offset);
            if self.version >= 12 {
                out.put_i32(-1); // epoch of the last record fetched: only replicas compare logs
            }
            out.put_i64(-1); // our log start: we have none
            out.put_i32(asked.max_bytes);
            put_no_tagged_fields(&mut out, flexible);
            put_no_tagged_fields(&mut out, flexible);
        }
        put_array_count(&mut out, self.forgotten.len(), flexible)?;
        for (topic, partition) in self.forgotten {
            put_topic(&mut out, topic, flexible)?;
            put_array_count(&mut out, 1, flexible)?;
            out.put_i32(*partition);
            put_no_tagged_fields(&mut out, flexible);
        }
        put_string(&mut out, self.rack, flexible)?;
        put_no_tagged_fields(&mut out, flexible);
        Ok(out.freeze())
    }
}

fn put_topic(out: &mut BytesMut, topic: &WireTopic, flexible: bool) -> Result<(), WireError> {
    match topic {
        WireTopic::Name(name) => put_string(out, name, flexible),
        WireTopic::Id(id) => {
            out.put_slice(id.as_bytes());
            Ok(())
        }
    }
}

/// A request that is written.
#[derive(Debug, Clone)]
pub(super) struct Encoded {
    version: i16,
    body: Bytes,
}

impl Encoded {
    /// Sends it, and waits for the answer.
    pub(super) async fn send(
        &self,
        connection: &Connection,
        timeout: Duration,
    ) -> Result<Response, ClientError> {
        let request = RawRequest {
            api_key: apis::FETCH,
            api_version: self.version,
            body: vec![self.body.clone()],
            timeout,
        };
        let frame = connection.send(request).await?.wait().await?;
        parse_response(self.version, &frame)
            .map_err(|source| malformed(connection.address(), apis::FETCH, source))
    }
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) throttle_time_ms: i32,
    pub(super) error: ErrorCode,
    /// The session that the broker keeps; 0 for none.
    pub(super) session_id: i32,
    pub(super) partitions: HashMap<WireKey, Answer>,
}

impl Response {
    /// How long we are to wait before the next request.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.throttle_time_ms).unwrap_or(0))
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) error: ErrorCode,
    pub(super) partition: FetchedPartition,
    /// The follower to ask instead, in which case there are no records.
    pub(super) preferred: Option<i32>,
}

pub(super) fn parse_response(version: i16, body: &Bytes) -> Result<Response, WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut reader = Reader::new(body);
    let throttle_time_ms = reader.i32()?;
    let error = ErrorCode(reader.i16()?);
    let session_id = reader.i32()?;
    let mut partitions = HashMap::new();
    for _ in 0..reader.array_count(flexible, 2)? {
        let topic = match version > NEWEST_BY_NAME {
            true => WireTopic::Id(reader.uuid()?),
            false => WireTopic::Name(topic_name(&mut reader, flexible)?),
        };
        for _ in 0..reader.array_count(flexible, PARTITION_BYTES_MIN)? {
            let (number, answer) = parse_partition(&mut reader, body, flexible)?;
            partitions.insert((topic.clone(), number), answer);
        }
        reader.skip_tagged_fields_if(flexible)?;
    }
    reader.skip_tagged_fields_if(flexible)?;
    Ok(Response {
        throttle_time_ms,
        error,
        session_id,
        partitions,
    })
}

/// A name that a topic can have. All partitions of a response share it.
fn topic_name(reader: &mut Reader<'_>, flexible: bool) -> Result<Arc<str>, WireError> {
    let at = reader.position();
    let name = reader.string(flexible)?;
    if name.len() > TOPIC_NAME_MAX {
        return Err(WireError::BadLength {
            at,
            length: i64::try_from(name.len()).unwrap_or(i64::MAX),
        });
    }
    Ok(Arc::from(name))
}

/// As brokers limit it.
const TOPIC_NAME_MAX: usize = 249;
/// Index, error, three offsets, preferred replica, and at least a byte each for the aborted list and the records.
const PARTITION_BYTES_MIN: usize = 4 + 2 + 3 * 8 + 4 + 2;
const ABORTED_BYTES: usize = 16;

fn parse_partition(
    reader: &mut Reader<'_>,
    body: &Bytes,
    flexible: bool,
) -> Result<(i32, Answer), WireError> {
    let number = reader.i32()?;
    let error = ErrorCode(reader.i16()?);
    let high_watermark = reader.i64()?;
    let last_stable_offset = reader.i64()?;
    let log_start_offset = reader.i64()?;
    let aborted_count = reader.nullable_array_count(flexible, ABORTED_BYTES)?.unwrap_or(0);
    let mut aborted = Vec::with_capacity(aborted_count);
    for _ in 0..aborted_count {
        aborted.push(AbortedTransaction {
            producer_id: reader.i64()?,
            first_offset: reader.i64()?,
        });
        reader.skip_tagged_fields_if(flexible)?;
    }
    let preferred = reader.i32()?;
    let records = reader.nullable_shared(body, flexible)?.unwrap_or_default();
    reader.skip_tagged_fields_if(flexible)?;
    let partition = FetchedPartition {
        records,
        high_watermark,
        last_stable_offset,
        log_start_offset,
        aborted,
        leader_epoch: -1,
        by_id: false,
        follower: None,
    };
    let answer = Answer {
        error,
        partition,
        preferred: (preferred >= 0).then_some(preferred),
    };
    Ok((number, answer))
}
