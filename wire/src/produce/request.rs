//! Produce requests.

use bytes::Bytes;

use super::{Layout, TopicRef, read_topic};
use crate::WireError;
use crate::header::RequestHeader;
use crate::read::Reader;

/// A Produce request, records uncopied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The transaction's name, if the producer is transactional.
    pub transactional_id: Option<String>,
    /// 0: no response follows. 1: the leader has it. -1: all in-sync replicas have it.
    pub acks: i16,
    /// How long the broker may wait for replicas.
    pub timeout_ms: i32,
    /// One entry per partition, in the order of the request.
    pub entries: Vec<ProduceEntry>,
}

/// What a request holds for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceEntry {
    /// The topic.
    pub topic: TopicRef,
    /// The partition.
    pub partition: i32,
    /// The records as received, a shared slice of the request. Empty when null.
    pub records: Bytes,
    /// A later entry of the same request names the same partition. Brokers write only the last one,
    /// and answer once; capturing this one would be wrong.
    pub superseded: bool,
}

/// Where the magic byte stands in every version of Kafka's message format.
const MAGIC_AT: usize = 16;

impl ProduceEntry {
    /// The message format: 2 is a RecordBatch; 0 and 1 are the old message sets, which are not
    /// captured. None when there are too few bytes to tell.
    pub fn magic(&self) -> Option<i8> {
        self.records.get(MAGIC_AT).map(|byte| *byte as i8)
    }
}

/// Reads a request body. Record slices share memory with `body`.
pub fn parse_request(version: i16, body: &Bytes) -> Result<ProduceRequest, WireError> {
    let layout = Layout::of(version)?;
    let mut reader = Reader::new(body);
    let transactional_id = match layout.has_transactional_id() {
        true => reader.nullable_string(layout.flexible)?.map(str::to_owned),
        false => None,
    };
    let acks = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let entries = read_topics(&mut reader, body, layout)?;
    reader.skip_tagged_fields_if(layout.flexible)?;
    reader.expect_end()?;
    Ok(ProduceRequest {
        transactional_id,
        acks,
        timeout_ms,
        entries,
    })
}

/// The acks of a request of which only the beginning is there: `frame` begins with its header, after the length.
///
/// # Errors
/// When there is too little of it, or it cannot be read.
pub fn parse_acks(version: i16, frame: &[u8]) -> Result<i16, WireError> {
    let layout = Layout::of(version)?;
    let header = RequestHeader::parse(frame)?;
    let mut reader = Reader::new(frame.get(header.header_len..).unwrap_or_default());
    if layout.has_transactional_id() {
        reader.nullable_string_range(layout.flexible)?;
    }
    reader.i16()
}

fn read_topics(
    reader: &mut Reader<'_>,
    body: &Bytes,
    layout: Layout,
) -> Result<Vec<ProduceEntry>, WireError> {
    let mut entries = Vec::new();
    let topics = reader.array_count(layout.flexible, 1)?;
    for _ in 0..topics {
        let topic = read_topic(reader, layout)?;
        let partitions = reader.array_count(layout.flexible, PARTITION_BYTES_MIN)?;
        // The count is checked against the bytes left, so this reserves in proportion to the frame.
        entries.reserve(partitions);
        for _ in 0..partitions {
            let partition = reader.i32()?;
            let records = reader.nullable_shared(body, layout.flexible)?.unwrap_or_default();
            reader.skip_tagged_fields_if(layout.flexible)?;
            entries.push(ProduceEntry {
                topic: topic.clone(),
                partition,
                records,
                superseded: false,
            });
        }
        reader.skip_tagged_fields_if(layout.flexible)?;
    }
    mark_superseded(&mut entries);
    Ok(entries)
}

/// A partition index, a length, and, in flexible versions, a tag count: five bytes at the least.
const PARTITION_BYTES_MIN: usize = 5;

/// Up to this many entries, comparing each with each costs less than sorting.
const PAIRWISE_ENTRIES_MAX: usize = 32;

fn mark_superseded(entries: &mut [ProduceEntry]) {
    if entries.len() <= PAIRWISE_ENTRIES_MAX {
        let mut rest = entries;
        while let Some((first, later)) = rest.split_first_mut() {
            first.superseded = later.iter().any(|other| same_partition(first, other));
            rest = later;
        }
        return;
    }
    // The sort is stable: among equals the request's order is kept, and the last one stands.
    let mut order: Vec<&mut ProduceEntry> = entries.iter_mut().collect();
    order.sort_by(|left, right| (left.partition, &left.topic).cmp(&(right.partition, &right.topic)));
    let mut rest = order.as_mut_slice();
    while let Some((first, later)) = rest.split_first_mut() {
        first.superseded = later.first().is_some_and(|next| same_partition(first, next));
        rest = later;
    }
}

fn same_partition(left: &ProduceEntry, right: &ProduceEntry) -> bool {
    left.partition == right.partition && left.topic == right.topic
}
