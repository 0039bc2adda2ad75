//! What can be asked of a ledger's state; of one partition: see [`PartitionState`].

use crate::ids::{Lsn, SessionId, WriterId};
use crate::ledger::state::{ChainState, LedgerState};
use crate::ledger::{PartitionState, StateObject, TopicSnapshot};
use crate::segment::SegmentInfo;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A topic and which of its lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicKey {
    /// Name.
    pub name: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
}

/// One life of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    pub(crate) partitions: BTreeMap<i32, PartitionState>,
    /// Writer of the latest snapshot; the higher one where two are of the same time.
    snapshot: Option<(WriterId, TopicSnapshot)>,
    /// Earliest time of a snapshot or an audit.
    first_said_at_ms: Option<i64>,
}

impl LedgerState {
    /// The backup, once a commit was applied.
    pub fn backup_id(&self) -> Option<&str> {
        self.backup_id.as_deref()
    }

    /// The cluster that the backup is bound to, once known.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Brokers of the source, as last written.
    pub fn source_brokers(&self) -> &[String] {
        self.source_brokers
            .as_ref()
            .map_or(&[], |(_, _, brokers)| brokers)
    }

    /// When the source was declared gone, if it was.
    pub fn source_lost_at_ms(&self) -> Option<i64> {
        self.source_lost_at_ms
    }

    /// Time of the first commit, in epoch milliseconds.
    pub fn created_at_ms(&self) -> Option<i64> {
        self.created_at_ms
    }

    /// Time of the last commit, in epoch milliseconds.
    pub fn updated_at_ms(&self) -> Option<i64> {
        self.updated_at_ms
    }

    /// Entries that a newer version wrote and this one does not know.
    pub fn unknown_entries(&self) -> u64 {
        self.unknown_entries
    }

    /// The stored pieces of the cluster's state, by kind and time.
    pub fn state_objects(&self) -> &[StateObject] {
        &self.state_objects
    }

    /// All chains.
    pub fn chains(&self) -> impl Iterator<Item = (WriterId, &ChainState)> {
        self.chains.iter().map(|(writer, chain)| (*writer, chain))
    }

    /// One chain.
    pub fn chain(&self, writer: WriterId) -> Option<&ChainState> {
        self.chains.get(&writer)
    }

    /// The sequence of a chain's next commit.
    pub fn next_seq(&self, writer: WriterId) -> u64 {
        self.chain(writer)
            .map_or(0, |chain| chain.last_seq)
            .saturating_add(1)
    }

    /// The highest LSN of a session that a writer committed for a partition.
    pub fn committed_lsn(
        &self,
        writer: WriterId,
        session: SessionId,
        topic: &TopicKey,
        partition: i32,
    ) -> Option<Lsn> {
        self.chain(writer)?
            .committed
            .get(&(session, topic.clone(), partition))
            .copied()
    }

    /// The counter that a writer's next segment of a session takes.
    pub fn next_counter(&self, writer: WriterId, session: SessionId) -> u32 {
        let used = self.chain(writer).and_then(|chain| chain.counters.get(&session));
        used.map_or(0, |counter| counter.saturating_add(1))
    }

    /// All lives of all topics, by name; of one name in the order of their first appearance.
    pub fn topics(&self) -> Vec<(&TopicKey, &Incarnation)> {
        let mut topics: Vec<_> = self.topics.iter().collect();
        topics.sort_by_key(|(key, topic)| (&key.name, topic.first_seen_ms(), key.incarnation));
        topics
    }

    /// The lives of one topic, in the order of their first appearance.
    pub fn incarnations(&self, name: &str) -> Vec<(&TopicKey, &Incarnation)> {
        self.topics()
            .into_iter()
            .filter(|(key, _)| key.name == name)
            .collect()
    }

    /// The youngest life of a topic.
    pub fn latest_incarnation(&self, name: &str) -> Option<(&TopicKey, &Incarnation)> {
        self.incarnations(name).pop()
    }

    /// One life of a topic.
    pub fn topic(&self, name: &str, incarnation: Uuid) -> Option<&Incarnation> {
        self.topics.get(&TopicKey {
            name: name.to_owned(),
            incarnation,
        })
    }

    /// One partition.
    pub fn partition(&self, name: &str, incarnation: Uuid, partition: i32) -> Option<&PartitionState> {
        self.topic(name, incarnation)?.partitions.get(&partition)
    }

    /// All segments, unconfirmed ones included.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentInfo> {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        partitions.flat_map(|partition| partition.segments().iter().chain(partition.unconfirmed()))
    }
}

impl Incarnation {
    /// Partitions that the ledger says something about.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &PartitionState)> {
        self.partitions
            .iter()
            .map(|(number, partition)| (*number, partition))
    }

    /// One partition.
    pub fn partition(&self, number: i32) -> Option<&PartitionState> {
        self.partitions.get(&number)
    }

    /// The latest snapshot of the topic.
    pub fn snapshot(&self) -> Option<&TopicSnapshot> {
        self.snapshot.as_ref().map(|(_, snapshot)| snapshot)
    }

    /// When it was first seen: by a snapshot, an audit or a segment, whichever is earliest.
    pub fn first_seen_ms(&self) -> Option<i64> {
        let segments = self
            .partitions
            .values()
            .flat_map(|p| p.segments().iter().chain(p.unconfirmed()));
        segments
            .map(|segment| segment.identity.created_at_ms)
            .chain(self.first_said_at_ms)
            .min()
    }

    /// Partitions it has: as the snapshot says, or as many as there are segments for.
    pub fn partition_count(&self) -> i32 {
        let said = self.snapshot().map_or(0, |snapshot| snapshot.partition_count);
        let seen = self
            .partitions
            .keys()
            .next_back()
            .map_or(0, |highest| highest.saturating_add(1));
        said.max(seen)
    }

    pub(crate) fn add_snapshot(&mut self, snapshot: &TopicSnapshot, writer: WriterId) {
        let at = snapshot.at_ms;
        self.note_said_at(at);
        let newer = self
            .snapshot
            .as_ref()
            .is_none_or(|(who, held)| (at, writer) >= (held.at_ms, *who));
        if newer {
            self.snapshot = Some((writer, snapshot.clone()));
        }
    }

    pub(crate) fn note_said_at(&mut self, at_ms: i64) {
        self.first_said_at_ms = Some(self.first_said_at_ms.map_or(at_ms, |earlier| earlier.min(at_ms)));
    }
}
