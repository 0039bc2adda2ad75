//! Produce responses, and the error response for a request that is not forwarded.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Layout, ProduceEntry, ProduceRequest, TopicRef, read_topic};
use crate::WireError;
use crate::read::Reader;
use crate::write;

/// The broker's answer to a Produce request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceResponse {
    /// One outcome per partition, in the order of the response.
    pub outcomes: Vec<ProduceOutcome>,
    /// How long the client was throttled.
    pub throttle_time_ms: i32,
    /// The response names broker addresses: it has to go through `rewrite` before a client sees it.
    pub has_node_endpoints: bool,
}

/// The broker's answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceOutcome {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: i32,
    /// 0 on success. Errors 6, 7 and 20 may come with a base offset: written, but not settled.
    pub error_code: i16,
    /// The offset of the first record, -1 if nothing was written.
    pub base_offset: i64,
    /// The append time, -1 if the topic keeps the producers' times (or the version has no such field).
    pub log_append_time_ms: i64,
    /// The partition's first offset, -1 if unknown.
    pub log_start_offset: i64,
    /// Who leads the partition now; sent with NOT_LEADER_OR_FOLLOWER only.
    pub current_leader: Option<CurrentLeader>,
}

/// A partition's leader as a broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The leader's node id, -1 if unknown.
    pub leader_id: i32,
    /// The leader's epoch, -1 if unknown.
    pub leader_epoch: i32,
}

/// Reads a response body and returns its outcomes.
pub fn parse_response(version: i16, body: &[u8]) -> Result<Vec<ProduceOutcome>, WireError> {
    parse_response_whole(version, body).map(|response| response.outcomes)
}

/// Reads a response body.
pub fn parse_response_whole(version: i16, body: &[u8]) -> Result<ProduceResponse, WireError> {
    let layout = Layout::of(version)?;
    let mut reader = Reader::new(body);
    let mut outcomes = Vec::new();
    let topics = reader.array_count(layout.flexible, 1)?;
    for _ in 0..topics {
        let topic = read_topic(&mut reader, layout)?;
        let partitions = reader.array_count(layout.flexible, OUTCOME_BYTES_MIN)?;
        outcomes.reserve(partitions);
        for _ in 0..partitions {
            outcomes.push(read_outcome(&mut reader, layout, topic.clone())?);
        }
        reader.skip_tagged_fields_if(layout.flexible)?;
    }
    let throttle_time_ms = if layout.has_throttle_time() {
        reader.i32()?
    } else {
        0
    };
    let mut has_node_endpoints = false;
    if layout.flexible {
        for _ in 0..reader.unsigned_varint()? {
            let (tag, _) = reader.tagged_field()?;
            has_node_endpoints |= layout.has_leader_hints() && tag == NODE_ENDPOINTS_TAG;
        }
    }
    reader.expect_end()?;
    Ok(ProduceResponse {
        outcomes,
        throttle_time_ms,
        has_node_endpoints,
    })
}

fn read_outcome(
    reader: &mut Reader<'_>,
    layout: Layout,
    topic: TopicRef,
) -> Result<ProduceOutcome, WireError> {
    let mut outcome = ProduceOutcome {
        topic,
        partition: reader.i32()?,
        error_code: reader.i16()?,
        base_offset: reader.i64()?,
        log_append_time_ms: if layout.has_log_append_time() {
            reader.i64()?
        } else {
            -1
        },
        log_start_offset: if layout.has_log_start_offset() {
            reader.i64()?
        } else {
            -1
        },
        current_leader: None,
    };
    if layout.has_record_errors() {
        for _ in 0..reader
            .nullable_array_count(layout.flexible, RECORD_ERROR_BYTES_MIN)?
            .unwrap_or(0)
        {
            reader.i32()?;
            reader.nullable_string_range(layout.flexible)?;
            reader.skip_tagged_fields_if(layout.flexible)?;
        }
        reader.nullable_string_range(layout.flexible)?;
    }
    if layout.flexible {
        for _ in 0..reader.unsigned_varint()? {
            let (tag, content) = reader.tagged_field()?;
            if layout.has_leader_hints() && tag == CURRENT_LEADER_TAG {
                outcome.current_leader = Some(read_leader(reader, content)?);
            }
        }
    }
    Ok(outcome)
}

fn read_leader(reader: &Reader<'_>, content: std::ops::Range<usize>) -> Result<CurrentLeader, WireError> {
    let size = content.len();
    let at = content.start;
    let mut inner = Reader::new(reader.whole().get(content).unwrap_or_default());
    let leader = CurrentLeader {
        leader_id: inner.i32()?,
        leader_epoch: inner.i32()?,
    };
    inner.skip_tagged_fields()?;
    inner
        .expect_end()
        .map_err(|_| WireError::BadTaggedField { at, size })?;
    Ok(leader)
}

/// The body that answers a request which is not forwarded: the same error for every partition.
pub fn error_response(version: i16, request: &ProduceRequest, error_code: i16) -> Result<Bytes, WireError> {
    let layout = Layout::of(version)?;
    let topics = by_topic(&request.entries);
    let mut out = BytesMut::with_capacity(64 + request.entries.len().saturating_mul(OUTCOME_BYTES_MAX));
    write::put_array_count(&mut out, topics.len(), layout.flexible)?;
    for (topic, partitions) in topics {
        match topic {
            TopicRef::Name(name) => write::put_string(&mut out, name, layout.flexible)?,
            TopicRef::Id(id) => out.put_slice(id.as_bytes()),
        }
        write::put_array_count(&mut out, partitions.len(), layout.flexible)?;
        for partition in partitions {
            put_error(&mut out, layout, partition, error_code)?;
        }
        write::put_no_tagged_fields(&mut out, layout.flexible);
    }
    if layout.has_throttle_time() {
        out.put_i32(0);
    }
    write::put_no_tagged_fields(&mut out, layout.flexible);
    Ok(out.freeze())
}

fn put_error(out: &mut BytesMut, layout: Layout, partition: i32, error_code: i16) -> Result<(), WireError> {
    out.put_i32(partition);
    out.put_i16(error_code);
    out.put_i64(-1);
    if layout.has_log_append_time() {
        out.put_i64(-1);
    }
    if layout.has_log_start_offset() {
        out.put_i64(-1);
    }
    if layout.has_record_errors() {
        write::put_array_count(out, 0, layout.flexible)?;
        write::put_nullable_string(out, None, layout.flexible)?;
    }
    write::put_no_tagged_fields(out, layout.flexible);
    Ok(())
}

/// Partitions grouped by topic, each once, in the order in which the request first names them.
fn by_topic(entries: &[ProduceEntry]) -> Vec<(&TopicRef, Vec<i32>)> {
    let mut index = HashMap::new();
    let mut topics: Vec<(&TopicRef, Vec<i32>)> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.superseded) {
        let next = topics.len();
        let at = *index.entry(&entry.topic).or_insert(next);
        match topics.get_mut(at) {
            Some((_, partitions)) => partitions.push(entry.partition),
            None => topics.push((&entry.topic, vec![entry.partition])),
        }
    }
    topics
}

const NODE_ENDPOINTS_TAG: u32 = 0;
const CURRENT_LEADER_TAG: u32 = 0;

/// Partition, error and base offset.
const OUTCOME_BYTES_MIN: usize = 14;
/// An outcome without texts in the longest version.
const OUTCOME_BYTES_MAX: usize = 40;
/// Index and an empty text.
const RECORD_ERROR_BYTES_MIN: usize = 5;
