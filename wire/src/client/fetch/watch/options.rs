//! How logs are followed, and what is told of them.

use std::time::Duration;

use super::super::{FetchedPartition, Isolation};
use crate::client::{ClientError, TopicPartition};

/// How partitions are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// What is shown.
    pub isolation: Isolation,
    /// How long a broker may wait for `min_bytes`. So long it may also take until a partition that is added is asked for.
    pub max_wait: Duration,
    /// What it waits for.
    pub min_bytes: i32,
    /// About how much a response may hold; a first batch that is larger comes nevertheless.
    pub max_bytes: i32,
    /// About how much of one partition. With 1 there is next to nothing but the offsets: who wants no more moves each
    /// partition on to its high watermark.
    pub partition_bytes: i32,
    /// The shortest time from one request to the next, per broker. What is written meanwhile comes in one answer.
    pub pace: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            isolation: Isolation::ReadUncommitted,
            max_wait: Duration::from_secs(5),
            min_bytes: 1,
            max_bytes: 4 * 1024 * 1024,
            partition_bytes: 1024 * 1024,
            pace: Duration::ZERO,
        }
    }
}

/// What a watch has to say.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// Records, or other bounds of the log than were told before, or another leader epoch.
    News {
        /// Of which partition.
        partition: TopicPartition,
        /// From the offset at which it is followed; without records when that has changed meanwhile.
        fetched: FetchedPartition,
    },
    /// There is no answer for longer than passes by itself. It is still followed.
    Troubled {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        error: ClientError,
    },
    /// It is not followed any more: the topic is gone, may not be read, or does not have the offset
    /// ([`ErrorCode::OFFSET_OUT_OF_RANGE`]).
    Ended {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        error: ClientError,
    },
}

/// What following took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchStats {
    /// Requests answered, or given up.
    pub requests: u64,
    /// Requests with the whole list of partitions.
    pub whole: u64,
    /// Sessions that were over before we wanted: forgotten by the broker, or lost with a connection.
    pub resets: u64,
    /// Answers of brokers that keep no session for us.
    pub refused: u64,
    /// Bytes of records.
    pub bytes: u64,
}
