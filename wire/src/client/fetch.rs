//! Fetch: raw batches out of a log.
//!
//! The calls here are full requests, without a fetch session. The response is sliced by the crate's own reader: the
//! records come out as shared slices of the frame, as the broker keeps them.
//!
//! | module | duty |
//! |---|---|
//! | `message` | the request and the response, byte by byte |
//! | `followers` | lets replicas nearby answer |
//! | `session` | what a broker remembers of a client's requests (KIP-227); pure |
//! | `watch` | follows many partitions by sessions and long polls |

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cluster::Lane;
use super::offsets::missing;
use super::{ClientError, Cluster, Connection, Leader, TopicPartition};
use crate::apis;

mod followers;
mod message;
mod session;
mod watch;

pub(super) use followers::Followers;
use message::{Answer, Asked, Exchange, SessionStep};
pub use watch::{LogWatch, WatchEvent, WatchOptions, WatchStats};

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
        let by_id = asked.iter().all(|(query, _)| query.partition.topic.id.is_some());
        let partitions: Vec<Asked<'_>> = asked
            .iter()
            .map(|(query, leader)| Asked {
                partition: &query.partition,
                leader_epoch: leader.epoch,
                offset: query.offset,
                max_bytes: query.max_bytes,
            })
            .collect();
        let exchange = Exchange {
            version: message::choose_version(connection, by_id)?,
            options,
            rack,
            session: SessionStep::NONE,
            asked: &partitions,
            forgotten: &[],
        };
        let by_id = exchange.is_by_id();
        let request = exchange.encode()?;
        let timeout = self.config().endpoint.request_timeout + options.max_wait;
        let began = Instant::now();
        let mut response = loop {
            let response = request.send(connection, timeout).await?;
            response
                .error
                .check(|| format!("fetch from broker {}", connection.address()), None)?;
            // A client that is over its quota gets an answer about nothing, and is to wait.
            let pause = response.pause();
            let is_put_off = response.partitions.is_empty() && !pause.is_zero();
            if !is_put_off || began.elapsed() + pause > PUT_OFF_MAX {
                break response;
            }
            tokio::time::sleep(pause).await;
        };
        let answer = |(query, leader): &(&FetchQuery, Leader)| {
            let key = message::key_of(&query.partition, by_id);
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

#[cfg(test)]
mod tests;
