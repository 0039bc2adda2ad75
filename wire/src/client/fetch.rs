//! Fetch: raw batches out of a log.
//!
//! Requests are full ones, without a fetch session. The response is sliced by the crate's own reader: the
//! records come out as shared slices of the frame, as the broker keeps them. `followers` lets replicas nearby answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::cluster::Lane;
use super::connection::malformed;
use super::offsets::missing;
use super::{ClientError, Cluster, Connection, ErrorCode, Leader, RawRequest, TopicPartition};
use crate::read::Reader;
use crate::write::{put_array_count, put_no_tagged_fields, put_string};
use crate::{WireError, apis};

mod followers;

pub(super) use followers::Followers;

/// Topics are named up to this version, and have ids from the next one on.
const NEWEST_BY_NAME: i16 = 12;
/// What is spoken: from Kafka 2.3 on, and enough for every later broker.
const OLDEST: i16 = 11;
const NEWEST: i16 = 13;
const FLEXIBLE_FROM: i16 = 12;
/// Nowhere: it is always the leader that answers.
const NO_RACK: &str = "";

/// What of a transactional log is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// Everything up to the high watermark.
    #[default]
    ReadUncommitted,
    /// Everything up to the last stable offset, with the list of aborted transactions in it.
    ReadCommitted,
}

/// How much to fetch, and how long to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// What is shown.
    pub isolation: Isolation,
    /// How long the broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// What it waits for.
    pub min_bytes: i32,
    /// About how much a response may hold; a first batch that is larger comes nevertheless.
    pub max_bytes: i32,
    /// Whether a follower may answer: the one that the leader names for our `client_rack`, if that is set. It sends
    /// the same records, perhaps a moment later; its high watermark may be behind. What rests on an answer being
    /// complete (settling, proving that something is gone) asks leaders.
    pub nearest: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::ReadUncommitted,
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            // Kafka's consumers ask for 50 MiB; a third of it is as quick and keeps memory small.
            max_bytes: 16 * 1024 * 1024,
            nearest: false,
        }
    }
}

/// What to fetch of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchQuery {
    /// Of which partition. With a topic id, and brokers that know ids in Fetch (3.1), a topic of the same name but
    /// another id is never read.
    pub partition: TopicPartition,
    /// From where; batches come whole, so the first may begin earlier.
    pub offset: i64,
    /// About how much.
    pub max_bytes: i32,
}

/// What a leader sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Raw batches, see [`crate::batch::fetched_batches`]: the last one may be cut. A slice of the whole response,
    /// which it keeps in memory: copy what is to be kept for long.
    pub records: Bytes,
    /// The end of what is replicated.
    pub high_watermark: i64,
    /// Everything before it is decided; -1 if the broker does not tell.
    pub last_stable_offset: i64,
    /// The log's start.
    pub log_start_offset: i64,
    /// Aborted transactions with records in the range, for [`Isolation::ReadCommitted`].
    pub aborted: Vec<AbortedTransaction>,
    /// Epoch of the leader that was asked, as Metadata had it; -1 if unknown.
    pub leader_epoch: i32,
    /// Whether the topic was asked for by its id. If not, records may be of a later topic of the same name.
    pub by_id: bool,
    /// The follower that answered; `None` for the leader.
    pub follower: Option<i32>,
}

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// Its first offset; it ends at the producer's next marker.
    pub first_offset: i64,
}

impl Cluster {
    /// Fetches from one partition. An offset out of range is an error with
    /// [`ErrorCode::OFFSET_OUT_OF_RANGE`].
    pub async fn fetch(
        &self,
        partition: &TopicPartition,
        offset: i64,
        options: &FetchOptions,
    ) -> Result<FetchedPartition, ClientError> {
        let query = FetchQuery {
            partition: partition.clone(),
            offset,
            max_bytes: options.max_bytes,
        };
        self.fetch_many(&[query], options)
            .await
            .pop()
            .expect("one question has one answer")
    }

    /// Fetches from many partitions, one request per leader; answers in the order of the questions. No partition
    /// may be named twice.
    pub async fn fetch_many(
        &self,
        queries: &[FetchQuery],
        options: &FetchOptions,
    ) -> Vec<Result<FetchedPartition, ClientError>> {
        match &self.config().endpoint.client_rack {
            Some(rack) if options.nearest => self.fetch_nearest(queries, options, rack).await,
            _ => {
                let answers = self.fetch_from_leaders(queries, options, NO_RACK).await;
                answers
                    .into_iter()
                    .map(|answer| answer.map(|answer| answer.partition))
                    .collect()
            }
        }
    }

    /// Asks leaders; where they know a rack they may name a follower instead of answering.
    async fn fetch_from_leaders(
        &self,
        queries: &[FetchQuery],
        options: &FetchOptions,
        rack: &str,
    ) -> Vec<Result<Answer, ClientError>> {
        let ask = |connection: Connection, group: Vec<(usize, Leader)>| async move {
            let asked: Vec<(&FetchQuery, Leader)> = group
                .iter()
                .filter_map(|&(at, leader)| Some((queries.get(at)?, leader)))
                .collect();
            self.ask_fetch(&connection, &asked, options, rack).await
        };
        self.on_leaders(Lane::Fetch, queries, |query| &query.partition, |_, _| true, ask)
            .await
    }

    async fn ask_fetch(
        &self,
        connection: &Connection,
        asked: &[(&FetchQuery, Leader)],
        options: &FetchOptions,
        rack: &str,
    ) -> Result<Vec<Result<Answer, ClientError>>, ClientError> {
        let all_have_ids = asked.iter().all(|(query, _)| query.partition.topic.id.is_some());
        let newest = if all_have_ids { NEWEST } else { NEWEST_BY_NAME };
        let version = connection.choose(apis::FETCH, &(OLDEST..=newest))?;
        let by_id = version > NEWEST_BY_NAME;
        let body = encode_request(version, asked, options, rack).map_err(|error| ClientError::Encode {
            what: apis::name(apis::FETCH),
            reason: error.to_string(),
        })?;
        let timeout = self.config().endpoint.request_timeout + options.max_wait;
        let began = Instant::now();
        let mut response = loop {
            let request = RawRequest {
                api_key: apis::FETCH,
                api_version: version,
                body: vec![body.clone()],
                timeout,
            };
            let frame = connection.send(request).await?.wait().await?;
            let response = parse_response(version, &frame)
                .map_err(|source| malformed(connection.address(), apis::FETCH, source))?;
            response
                .error
                .check(|| format!("fetch from broker {}", connection.address()), None)?;
            // A client that is over its quota gets an answer about nothing, and is to wait.
            let pause = Duration::from_millis(u64::try_from(response.throttle_time_ms).unwrap_or(0));
            let is_put_off = response.partitions.is_empty() && !pause.is_zero();
            if !is_put_off || began.elapsed() + pause > PUT_OFF_MAX {
                break response;
            }
            tokio::time::sleep(pause).await;
        };
        let answer = |(query, leader): &(&FetchQuery, Leader)| {
            let key = (topic_of(&query.partition, by_id), query.partition.partition);
            let found = response.partitions.remove(&key);
            let mut found = found.ok_or_else(|| missing(connection, apis::FETCH))?;
            found.error.check(
                || format!("fetch {} from offset {}", query.partition, query.offset),
                None,
            )?;
            found.partition.leader_epoch = leader.epoch;
            found.partition.by_id = by_id;
            Ok(found)
        };
        Ok(asked.iter().map(answer).collect())
    }
}

/// Brokers put clients off for some seconds; ten times as long says that something else is wrong.
const PUT_OFF_MAX: Duration = Duration::from_secs(120);

/// A topic as the message names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum WireTopic {
    Name(String),
    Id(Uuid),
}

fn topic_of(partition: &TopicPartition, by_id: bool) -> WireTopic {
    match partition.topic.id {
        Some(id) if by_id => WireTopic::Id(id),
        _ => WireTopic::Name(partition.topic.name.to_string()),
    }
}

#[derive(Debug)]
struct Response {
    throttle_time_ms: i32,
    error: ErrorCode,
    partitions: HashMap<(WireTopic, i32), Answer>,
}

#[derive(Debug)]
struct Answer {
    error: ErrorCode,
    partition: FetchedPartition,
    /// The follower to ask instead, in which case there are no records.
    preferred: Option<i32>,
}

fn encode_request(
    version: i16,
    asked: &[(&FetchQuery, Leader)],
    options: &FetchOptions,
    rack: &str,
) -> Result<Bytes, WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let by_id = version > NEWEST_BY_NAME;
    let max_wait_ms = i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX);
    let mut out = BytesMut::with_capacity(64 + asked.len() * 64);
    out.put_i32(-1); // a consumer, not a replica
    out.put_i32(max_wait_ms);
    out.put_i32(options.min_bytes);
    out.put_i32(options.max_bytes);
    out.put_i8(i8::from(options.isolation == Isolation::ReadCommitted));
    out.put_i32(0); // no session
    out.put_i32(-1); // and none wanted
    // One entry per partition: brokers accept a topic more than once, and requests stay small.
    put_array_count(&mut out, asked.len(), flexible)?;
    for (query, leader) in asked {
        match topic_of(&query.partition, by_id) {
            WireTopic::Name(name) => put_string(&mut out, &name, flexible)?,
            WireTopic::Id(id) => out.put_slice(id.as_bytes()),
        }
        put_array_count(&mut out, 1, flexible)?;
        out.put_i32(query.partition.partition);
        // Lets the broker refuse if it is not the leader that Metadata told us of.
        out.put_i32(leader.epoch);
        out.put_i64(query.offset);
        if version >= 12 {
            out.put_i32(-1); // epoch of the last record fetched: only replicas compare logs
        }
        out.put_i64(-1); // our log start: we have none
        out.put_i32(query.max_bytes);
        put_no_tagged_fields(&mut out, flexible);
        put_no_tagged_fields(&mut out, flexible);
    }
    put_array_count(&mut out, 0, flexible)?; // nothing to forget
    put_string(&mut out, rack, flexible)?;
    put_no_tagged_fields(&mut out, flexible);
    Ok(out.freeze())
}

fn parse_response(version: i16, body: &Bytes) -> Result<Response, WireError> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut reader = Reader::new(body);
    let throttle_time_ms = reader.i32()?;
    let error = ErrorCode(reader.i16()?);
    let _session_id = reader.i32()?;
    let mut partitions = HashMap::new();
    for _ in 0..reader.array_count(flexible, 2)? {
        let topic = match version > NEWEST_BY_NAME {
            true => WireTopic::Id(reader.uuid()?),
            false => WireTopic::Name(reader.string(flexible)?.to_owned()),
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
        partitions,
    })
}

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

#[cfg(test)]
mod tests;
