//! What can be asked of a ledger's state.

use crate::ids::{Lsn, SessionId, WriterId};
use crate::ledger::state::{ChainState, LedgerState};
use crate::ledger::{Absence, TopicSnapshot, TxnEvidence};
use crate::names::parse_segment_key;
use crate::ranges::{OffsetRange, OffsetSet};
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
    first_snapshot_at_ms: Option<i64>,
}

/// One partition of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Sorted by start offset, longest first, then by key.
    segments: Vec<SegmentInfo>,
    /// Sorted like the others, among themselves.
    unconfirmed: Vec<SegmentInfo>,
    evidence: Vec<TxnEvidence>,
    absences: Vec<Absence>,
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
        partitions.flat_map(|partition| partition.segments.iter().chain(&partition.unconfirmed))
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

    /// When it was first seen: by a snapshot or a segment, whichever is earlier.
    pub fn first_seen_ms(&self) -> Option<i64> {
        let segments = self
            .partitions
            .values()
            .flat_map(|p| p.segments.iter().chain(&p.unconfirmed));
        segments
            .map(|segment| segment.identity.created_at_ms)
            .chain(self.first_snapshot_at_ms)
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
        self.first_snapshot_at_ms = Some(self.first_snapshot_at_ms.map_or(at, |earlier| earlier.min(at)));
        let newer = self
            .snapshot
            .as_ref()
            .is_none_or(|(who, held)| (at, writer) >= (held.at_ms, *who));
        if newer {
            self.snapshot = Some((writer, snapshot.clone()));
        }
    }
}

impl PartitionState {
    /// Segments with true offsets, by start offset; of two with the same start the longer comes first. They may
    /// overlap.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// Segments with provisional offsets.
    pub fn unconfirmed(&self) -> &[SegmentInfo] {
        &self.unconfirmed
    }

    /// How transactions ended, known without their markers; by offset.
    pub fn evidence(&self) -> &[TxnEvidence] {
        &self.evidence
    }

    /// What the source does not have any more; by offset.
    pub fn absences(&self) -> &[Absence] {
        &self.absences
    }

    /// A segment by its key.
    pub fn segment(&self, key: &str) -> Option<&SegmentInfo> {
        // The key names the start offset, by which the segments are sorted.
        let name = parse_segment_key(key).ok()?;
        let list = if name.unconfirmed {
            &self.unconfirmed
        } else {
            &self.segments
        };
        let from = list.partition_point(|segment| segment.start_offset < name.first_offset);
        let mut same_start = list
            .iter()
            .skip(from)
            .take_while(|segment| segment.start_offset == name.first_offset);
        same_start.find(|segment| segment.key == key)
    }

    /// The offsets held. Unconfirmed segments hold none.
    pub fn held(&self) -> OffsetSet {
        let mut held = OffsetSet::new();
        for segment in &self.segments {
            // A gap of one segment may be held by another, so gaps are cut out before joining.
            let mut own: OffsetSet = [segment.range()].into_iter().collect();
            segment.gaps.iter().for_each(|gap| own.remove(*gap));
            own.ranges().iter().for_each(|range| held.insert(*range));
        }
        held
    }

    /// The offsets held, and those that the source does not have any more.
    pub fn explained(&self) -> OffsetSet {
        let mut explained = self.held();
        self.absences
            .iter()
            .for_each(|absence| explained.insert(absence.range()));
        explained
    }

    /// What is missing, and not explained, between the first and the last offset held.
    pub fn holes(&self) -> Vec<OffsetRange> {
        let held = self.held();
        match (held.first(), held.last()) {
            (Some(first), Some(last)) => self.explained().holes(OffsetRange { first, last }),
            _ => Vec::new(),
        }
    }

    /// Records held, counted by segment: overlapping segments count twice.
    pub fn record_count(&self) -> u64 {
        self.segments
            .iter()
            .fold(0, |sum, segment| sum.saturating_add(segment.record_count))
    }

    pub(crate) fn add_segment(&mut self, info: SegmentInfo) {
        let list = if info.unconfirmed() {
            &mut self.unconfirmed
        } else {
            &mut self.segments
        };
        let order = |s: &SegmentInfo| (s.start_offset, std::cmp::Reverse(s.end_offset), s.key.clone());
        if let Err(place) = list.binary_search_by_key(&order(&info), order) {
            list.insert(place, info);
        }
    }

    pub(crate) fn add_evidence(&mut self, evidence: TxnEvidence) {
        let order = |e: &TxnEvidence| {
            (
                e.first_offset,
                e.last_offset,
                e.producer_id,
                e.producer_epoch,
                e.at_ms,
                e.commit,
            )
        };
        if let Err(place) = self.evidence.binary_search_by_key(&order(&evidence), order) {
            self.evidence.insert(place, evidence);
        }
    }

    pub(crate) fn add_absence(&mut self, absence: Absence) {
        let order = |a: &Absence| (a.first_offset, a.last_offset, a.at_ms, a.reason);
        if let Err(place) = self.absences.binary_search_by_key(&order(&absence), order) {
            self.absences.insert(place, absence);
        }
    }
}
