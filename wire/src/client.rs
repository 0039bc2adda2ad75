//! The cluster client: Teeline's own connections to brokers.
//!
//! A small client for the jobs that Teeline does in its own name: finding out what topics there are, reading
//! ranges of a log as raw batches, producing batches that already exist. It keeps connections and metadata,
//! finds leaders, follows them when they move, and retries what Kafka calls retriable until a deadline. It
//! does not batch, group, subscribe, or decode records.
//!
//! | module | duty |
//! |---|---|
//! | `config` | settings, limits, retry policy |
//! | `error` | [`ClientError`], Kafka's [`ErrorCode`]s |
//! | `transport`, `tls` | a byte stream to a broker |
//! | `sasl` | mechanisms of SASL, message by message |
//! | `connection` | pipelined requests over one stream; authentication |
//! | `introduction` | authentication on a stream that others use afterwards |
//! | `versions` | what a broker speaks |
//! | `cluster`, `routing` | brokers, metadata cache, leaders, retries |
//! | `metadata`, `offsets`, `epochs`, `fetch`, `produce`, `admin` | the calls |
//! | `groups`, `acls`, `quotas`, `scram` | the calls that read a cluster's state |
//!
//! Record bytes never pass through the kafka-protocol crate: Fetch responses are sliced by the crate's own
//! reader, Produce requests are written as pieces around the batches. Everything else is encoded and decoded
//! by kafka-protocol, responses only after [`crate::schema::precheck`].

mod acls;
mod admin;
mod cluster;
mod config;
mod connection;
mod epochs;
mod error;
mod fetch;
mod groups;
mod introduction;
mod metadata;
mod offsets;
mod produce;
mod quotas;
mod routing;
mod sasl;
mod scram;
mod tls;
mod transport;
mod versions;

#[cfg(test)]
mod tests;

pub use acls::Acl;
pub use admin::{ConfigEntry, ConfigOperation, ConfigResource, CreatedTopic, NewTopic, ProducerIdentity};
pub use cluster::Cluster;
pub use config::{ClientConfig, RetryPolicy};
pub use connection::{Connection, PendingResponse, RawRequest};
pub use epochs::{EpochEnd, EpochQuery, Term};
pub use error::{ClientError, ErrorCode};
pub use fetch::{
    AbortedTransaction, FetchOptions, FetchQuery, FetchedPartition, Isolation, LogWatch, WatchEvent,
    WatchOptions, WatchStats,
};
pub use groups::{
    CommittedOffset, Followed, GROUP_TOPIC, GroupChange, GroupJournal, GroupListing, GroupOffsets,
    GroupRecord, GroupRecordError, JournalError, ListedGroup, LoggedGroup, LoggedKey, LoggedOffset,
};
pub use introduction::introduce;
pub use metadata::{
    BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicKey, TopicMetadata, TopicPartition,
    TopicSelection, TopicsById,
};
pub use offsets::{ListedOffset, OffsetAt, OffsetQuery};
pub use produce::{
    Acks, PartitionBatch, PendingProduce, ProduceFailure, ProduceOptions, ProduceOutcome, Produced,
};
pub use quotas::ClientQuota;
pub use routing::Leader;
pub use scram::ScramUser;
pub use tls::TlsClient;
pub use transport::Transport;
pub use versions::BrokerVersions;
