//! The fold of all chains into one state.
//!
//! Within a chain, commits are applied in order; between chains the order does not matter. A commit that is
//! refused leaves the state as it was.

use crate::fields::FieldError;
use crate::ids::{Lsn, SessionId, WriterId};
use crate::ledger::views::{Incarnation, TopicKey};
use crate::ledger::{Commit, Entry, PartitionAudit, PartitionState, StateObject};
use crate::names::{NameError, parse_segment_key};
use crate::segment::SegmentInfo;
use std::collections::BTreeMap;

/// Everything that the ledger says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    pub(crate) backup_id: Option<String>,
    pub(crate) cluster_id: Option<String>,
    pub(crate) chains: BTreeMap<WriterId, ChainState>,
    pub(crate) topics: BTreeMap<TopicKey, Incarnation>,
    pub(crate) source_brokers: Option<(i64, WriterId, Vec<String>)>,
    pub(crate) source_lost_at_ms: Option<i64>,
    /// Sorted by kind, time and key.
    pub(crate) state_objects: Vec<StateObject>,
    pub(crate) created_at_ms: Option<i64>,
    pub(crate) updated_at_ms: Option<i64>,
    pub(crate) unknown_entries: u64,
}

/// How far one writer's chain was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainState {
    /// Sequence of the last commit.
    pub last_seq: u64,
    /// Nonce of the last commit.
    pub last_nonce: u128,
    /// When the last commit was made, in epoch milliseconds.
    pub last_at_ms: i64,
    /// The highest committed LSN, by session, incarnation and partition: what a restarted segmenter skips.
    pub committed: BTreeMap<(SessionId, TopicKey, i32), Lsn>,
    /// The highest segment counter used, by session: a restarted segmenter counts on.
    pub counters: BTreeMap<SessionId, u32>,
}

/// What applying a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The state has moved on.
    New,
    /// The last commit of the chain, once more.
    Again,
}

/// Why a commit does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It belongs to another backup.
    #[error("the commit belongs to backup {found:?}, not to {expected:?}")]
    OtherBackup {
        /// The ledger's backup.
        expected: String,
        /// The commit's.
        found: String,
    },
    /// It comes from another cluster: a backup id is bound to one.
    #[error(
        "the commit comes from cluster {found:?}, but this backup is bound to {expected:?}; use another backup id"
    )]
    OtherCluster {
        /// The ledger's cluster.
        expected: String,
        /// The commit's.
        found: String,
    },
    /// A link of the chain is missing.
    #[error("chain {writer} goes on with commit {found}, expected {expected}: a commit is missing")]
    Gap {
        /// The chain.
        writer: WriterId,
        /// The sequence expected.
        expected: u64,
        /// The sequence found.
        found: u64,
    },
    /// The sequence was applied before, with another content.
    #[error("chain {writer} has two different commits {seq}")]
    Fork {
        /// The chain.
        writer: WriterId,
        /// The sequence.
        seq: u64,
    },
    /// A segment is listed under a name that is not its own.
    #[error("a segment is listed under a name that is not its own")]
    Segment(#[source] NameError),
    /// The same key was listed before with another content.
    #[error("segment {key} is listed twice, differently")]
    SegmentTwice {
        /// The key.
        key: String,
    },
    /// An entry contradicts itself.
    #[error("an entry contradicts itself")]
    Field(#[from] FieldError),
}

impl LedgerState {
    /// An empty ledger.
    pub fn new() -> LedgerState {
        LedgerState::default()
    }

    /// Applies the next commit of any chain.
    pub fn apply(&mut self, commit: &Commit) -> Result<Applied, LedgerError> {
        if self.check_chain(commit)? == Applied::Again {
            return Ok(Applied::Again);
        }
        self.check_binding(commit)?;
        // Everything is checked before anything is changed.
        let mut seen = BTreeMap::new();
        for entry in &commit.entries {
            if let Entry::Segment(info) = entry {
                self.check_segment(info)?;
                if seen
                    .insert(&info.key, info)
                    .is_some_and(|earlier| earlier != info)
                {
                    return Err(LedgerError::SegmentTwice {
                        key: info.key.clone(),
                    });
                }
            }
        }
        self.backup_id.get_or_insert_with(|| commit.backup_id.clone());
        if !commit.cluster_id.is_empty() {
            self.cluster_id.get_or_insert_with(|| commit.cluster_id.clone());
        }
        let at = commit.created_at_ms;
        self.created_at_ms = Some(self.created_at_ms.map_or(at, |earlier| earlier.min(at)));
        self.updated_at_ms = Some(self.updated_at_ms.map_or(at, |earlier| earlier.max(at)));
        let chain = self.chains.entry(commit.writer).or_default();
        chain.last_seq = commit.seq;
        chain.last_nonce = commit.nonce;
        chain.last_at_ms = at;
        for entry in &commit.entries {
            self.apply_entry(commit, entry);
        }
        Ok(Applied::New)
    }

    fn check_chain(&self, commit: &Commit) -> Result<Applied, LedgerError> {
        let (writer, found) = (commit.writer, commit.seq);
        let chain = self.chains.get(&writer);
        let last = chain.map_or(0, |chain| chain.last_seq);
        if found > 0 && found == last {
            let same = chain.is_some_and(|chain| chain.last_nonce == commit.nonce);
            return if same {
                Ok(Applied::Again)
            } else {
                Err(LedgerError::Fork { writer, seq: found })
            };
        }
        match last.checked_add(1) {
            Some(expected) if found == expected => Ok(Applied::New),
            expected => Err(LedgerError::Gap {
                writer,
                expected: expected.unwrap_or(last),
                found,
            }),
        }
    }

    fn check_binding(&self, commit: &Commit) -> Result<(), LedgerError> {
        if let Some(expected) = self.backup_id.as_ref().filter(|id| **id != commit.backup_id) {
            return Err(LedgerError::OtherBackup {
                expected: expected.clone(),
                found: commit.backup_id.clone(),
            });
        }
        let other = self.cluster_id.as_ref().filter(|id| **id != commit.cluster_id);
        match other {
            // A commit made before the cluster answered has no cluster id; it binds to nothing.
            Some(expected) if !commit.cluster_id.is_empty() => Err(LedgerError::OtherCluster {
                expected: expected.clone(),
                found: commit.cluster_id.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn check_segment(&self, info: &SegmentInfo) -> Result<(), LedgerError> {
        let name = parse_segment_key(&info.key).map_err(LedgerError::Segment)?;
        if name != info.identity.name(info.start_offset, info.codec) {
            return Err(LedgerError::Segment(NameError::Unknown(info.key.clone())));
        }
        let listed = self
            .partition(
                &info.identity.topic,
                info.identity.incarnation,
                info.identity.partition,
            )
            .and_then(|partition| partition.segment(&info.key));
        match listed {
            Some(listed) if listed != info => Err(LedgerError::SegmentTwice {
                key: info.key.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn apply_entry(&mut self, commit: &Commit, entry: &Entry) {
        match entry {
            Entry::Segment(info) => {
                self.note_writer(commit.writer, info);
                let identity = &info.identity;
                self.partition_mut(&identity.topic, identity.incarnation, identity.partition)
                    .add_segment(info.clone());
            }
            Entry::Topic(snapshot) => {
                let key = TopicKey {
                    name: snapshot.name.clone(),
                    incarnation: snapshot.incarnation,
                };
                self.topics
                    .entry(key)
                    .or_default()
                    .add_snapshot(snapshot, commit.writer);
            }
            Entry::SourceBrokers(brokers) => {
                let said = (commit.created_at_ms, commit.writer);
                let newer = self
                    .source_brokers
                    .as_ref()
                    .is_none_or(|(at, writer, _)| said >= (*at, *writer));
                if newer {
                    self.source_brokers = Some((said.0, said.1, brokers.clone()));
                }
            }
            Entry::TxnEvidence(evidence) => {
                let partition = self.partition_mut(&evidence.topic, evidence.incarnation, evidence.partition);
                partition.add_evidence(evidence.clone());
            }
            Entry::SourceLost { at_ms } => {
                self.source_lost_at_ms = Some(self.source_lost_at_ms.map_or(*at_ms, |at| at.min(*at_ms)));
            }
            Entry::Absent(absence) => {
                let partition = self.partition_mut(&absence.topic, absence.incarnation, absence.partition);
                partition.add_absence(absence.clone());
            }
            Entry::Superseded(superseded) => {
                let s = superseded;
                self.partition_mut(&s.topic, s.incarnation, s.partition)
                    .add_superseded(s.clone());
            }
            Entry::Audit(audit) => self.note_audit(commit.writer, audit),
            Entry::State(object) => self.add_state_object(object),
            Entry::Replaced(entry) => {
                let partition = self.partition_mut(&entry.topic, entry.incarnation, entry.partition);
                partition.replace(entry);
            }
            Entry::Removed(entry) => {
                let partition = self.partition_mut(&entry.topic, entry.incarnation, entry.partition);
                partition.note_removed(entry);
            }
            Entry::Unknown { .. } => self.unknown_entries = self.unknown_entries.saturating_add(1),
        }
    }

    fn note_writer(&mut self, writer: WriterId, info: &SegmentInfo) {
        let identity = &info.identity;
        let chain = self.chains.entry(writer).or_default();
        let counter = chain.counters.entry(identity.session).or_default();
        *counter = identity.counter.max(*counter);
        if let Some(range) = info.lsn_range {
            let topic = TopicKey {
                name: identity.topic.clone(),
                incarnation: identity.incarnation,
            };
            let committed = chain
                .committed
                .entry((range.session, topic, identity.partition))
                .or_default();
            *committed = range.last.max(*committed);
        }
    }

    fn note_audit(&mut self, writer: WriterId, audit: &PartitionAudit) {
        let key = TopicKey {
            name: audit.topic.clone(),
            incarnation: audit.incarnation,
        };
        let topic = self.topics.entry(key).or_default();
        topic.note_said_at(audit.at_ms);
        topic
            .partitions
            .entry(audit.partition)
            .or_default()
            .add_audit(audit, writer);
    }

    fn add_state_object(&mut self, object: &StateObject) {
        let order = |o: &StateObject| {
            (
                o.kind,
                o.first_at_ms,
                o.key.clone(),
                o.last_at_ms,
                o.full,
                o.bytes,
                o.crc32c,
            )
        };
        if let Err(place) = self.state_objects.binary_search_by_key(&order(object), order) {
            self.state_objects.insert(place, object.clone());
        }
    }

    fn partition_mut(&mut self, topic: &str, incarnation: uuid::Uuid, partition: i32) -> &mut PartitionState {
        let key = TopicKey {
            name: topic.to_owned(),
            incarnation,
        };
        self.topics
            .entry(key)
            .or_default()
            .partitions
            .entry(partition)
            .or_default()
    }
}
