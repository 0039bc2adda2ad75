//! What the auditor asks of the cluster: how far its logs reach, and where their leader epochs end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use teeline_config::TopicFilter;
use teeline_wire::client::ClientError;
use uuid::Uuid;

use crate::partition::PartitionId;

/// The cluster, as far as an audit asks it.
pub trait Upstream: Send + Sync {
    /// What there is, and how far it reaches.
    fn survey<'a>(&'a self, request: SurveyRequest<'a>) -> BoxFuture<'a, Result<Survey, ClientError>>;

    /// Where leader epochs end, in the order of the questions; `None` where there is no answer now.
    fn epoch_ends<'a>(&'a self, questions: &'a [EpochQuestion]) -> BoxFuture<'a, Vec<Option<ToldEnd>>>;

    /// Where the first record at or after a time lies, in the order of the partitions; `None` where there is no
    /// answer now.
    fn offsets_at<'a>(
        &'a self,
        partitions: &'a [LogPartition],
        timestamp: i64,
    ) -> BoxFuture<'a, Vec<Option<i64>>>;

    /// The settings of topics, of those that could be read.
    fn topic_configs<'a>(&'a self, topics: &'a [Arc<str>]) -> BoxFuture<'a, BTreeMap<Arc<str>, Configs>>;
}

/// Settings of a topic.
pub type Configs = Vec<(String, Option<String>)>;

/// Which topics a survey is about.
#[derive(Debug, Clone, Copy)]
pub struct SurveyRequest<'a> {
    /// Which topics.
    pub topics: &'a TopicFilter,
    /// Topics that are to be asked for by name: the archive has them, and not being told of them means something.
    pub known: &'a [Arc<str>],
    /// Partitions that are not to be measured.
    pub quiet: &'a BTreeSet<PartitionId>,
}

/// A partition of one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Incarnation and number.
    pub id: PartitionId,
}

/// A question for the end of a leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochQuestion {
    /// Of which partition.
    pub partition: LogPartition,
    /// Which epoch.
    pub leader_epoch: i32,
}

/// Where a leader epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochAnswer {
    /// The largest epoch up to the one asked for that the leader's log has; -1 for none.
    pub leader_epoch: i32,
    /// First offset behind it; -1 when the leader cannot tell.
    pub end_offset: i64,
}

/// An answer, and whose it is: another leader's may be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToldEnd {
    /// Epoch under which the leader that answered leads; -1 when the cluster does not tell epochs.
    pub by_epoch: i32,
    /// What it said.
    pub answer: EpochAnswer,
}

/// What a survey found.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The cluster that answered.
    pub cluster_id: Arc<str>,
    /// Its brokers, as `host:port`.
    pub brokers: Vec<String>,
    /// Topics that are there.
    pub topics: Vec<TopicFound>,
    /// Topics asked for by name that are not there, or may not be seen.
    pub missing: Vec<(Arc<str>, Silence)>,
}

/// A topic that is there.
#[derive(Debug, Clone)]
pub struct TopicFound {
    /// Name.
    pub name: Arc<str>,
    /// Its id, or the synthetic one of a cluster without topic ids.
    pub incarnation: Uuid,
    /// Replicas of a partition.
    pub replication_factor: i16,
    /// Its partitions.
    pub partitions: Vec<PartitionFound>,
}

/// A partition that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionFound {
    /// Number.
    pub partition: i32,
    /// The broker that leads it; -1 for none.
    pub leader: i32,
    /// How far it reaches.
    pub bounds: Result<Bounds, Silence>,
}

/// How far a log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset.
    pub log_start: i64,
    /// One past the last replicated offset.
    pub high_watermark: i64,
    /// Epoch of the leader that said so; -1 when unknown.
    pub leader_epoch: i32,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// We may not ask.
    NotAllowed,
    /// The cluster does not have it.
    Gone,
    /// Not now.
    NotNow,
    /// It is there, and not meant any more.
    NotMeant,
    /// It was not to be measured.
    NotAsked,
}
