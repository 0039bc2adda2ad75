//! Intents meet their outcomes.
//!
//! A pure state machine over the frames of a buffer. An intent ends in one of three ways: the broker *wrote* it at a
//! known offset, *refused* it, or it is *unresolved*: the broker may or may not have written it (connection lost,
//! crash, acks=0, or an error that is given after the append). Unresolved intents are settled by the log itself, see
//! [`crate::settlement`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use teeline_archive::buffer::{ConnectionLost, Intent, Outcome, TopicRef};
use teeline_archive::ids::{BufferPosition, SessionId};
use teeline_wire::batch::BatchHeader;
use uuid::Uuid;

use crate::buffer::FrameLocation;

/// A topic as its producer named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    /// By topic id: says which incarnation was meant.
    Id(Uuid),
    /// By name: which incarnation was meant is for the catalog to say.
    Name(Arc<str>),
}

/// What is remembered of an intent: everything but its bytes.
#[derive(Debug, Clone)]
pub struct PendingIntent {
    /// The intent's frame.
    pub position: BufferPosition,
    /// Where its bytes are.
    pub location: FrameLocation,
    /// The client connection, unique within the session.
    pub connection_id: u64,
    /// Topic, as the request named it.
    pub topic: TopicKey,
    /// Partition.
    pub partition: i32,
    /// When it was forwarded.
    pub sent_at_ms: i64,
    /// The batch's header; `None` when it does not read as one batch.
    pub header: Option<BatchHeader>,
    /// What was held of its partition when it was read: incarnation, and the offset after the last one. If it was
    /// written, then there or later.
    pub floor: Option<(Uuid, i64)>,
}

/// An intent that the broker wrote.
#[derive(Debug, Clone)]
pub struct Written {
    /// The intent.
    pub intent: PendingIntent,
    /// The outcome's frame.
    pub outcome: BufferPosition,
    /// Offset of its first record.
    pub base_offset: i64,
    /// The append time as the broker answered it, -1 for none.
    pub log_append_time_ms: i64,
    /// The epoch with which Metadata last named the broker that answered the leader, -1 if it did not.
    pub leader_epoch: i32,
}

/// Why an intent is unresolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The connection ended before its answer.
    ConnectionLost,
    /// The proxy's session ended before its answer.
    SessionLost,
    /// The producer asked for no answer.
    NoAnswer,
    /// The answer leaves it open whether the append holds.
    OpenError(i16),
    /// It was written, but to which incarnation of the topic (or in which form) is not certain.
    Uncertain,
}

/// An intent that the broker may or may not have written.
#[derive(Debug, Clone)]
pub struct Unresolved {
    /// The intent.
    pub intent: PendingIntent,
    /// Why.
    pub doubt: Doubt,
    /// Since when, on the local clock.
    pub since_ms: i64,
    /// Where the broker says it put it, if it said.
    pub base_offset: Option<i64>,
    /// Whether the broker accepted an earlier batch of this connection for this topic.
    pub accepted_before: bool,
}

/// How an intent ended.
#[derive(Debug, Clone)]
pub enum Resolution {
    /// Written at a known offset.
    Written(Written),
    /// Not written.
    Refused(BufferPosition),
    /// Not known yet.
    Unresolved(Unresolved),
}

/// Matches outcomes to intents.
#[derive(Debug, Default)]
pub struct Resolver {
    pending: BTreeMap<BufferPosition, PendingIntent>,
    by_connection: HashMap<(SessionId, u64), BTreeSet<BufferPosition>>,
    /// Who had a batch accepted, to tell plausible unconfirmed batches from foreign ones.
    accepted: BTreeSet<(SessionId, u64, TopicKey)>,
    names: HashMap<String, Arc<str>>,
}

impl Resolver {
    /// Takes an intent in. One that asks for no answer is unresolved at once.
    pub fn on_intent(
        &mut self,
        position: BufferPosition,
        location: FrameLocation,
        intent: &Intent,
        floor: impl FnOnce(&TopicKey) -> Option<(Uuid, i64)>,
        now_ms: i64,
    ) -> Option<Resolution> {
        let topic = self.topic_key(&intent.topic);
        let pending = PendingIntent {
            floor: floor(&topic),
            position,
            location,
            connection_id: intent.connection_id,
            topic,
            partition: intent.partition,
            sent_at_ms: intent.sent_at_ms,
            header: BatchHeader::parse(&intent.records).ok(),
        };
        if intent.acks == 0 {
            return Some(self.unresolved(pending, Doubt::NoAnswer, now_ms, None));
        }
        let connection = (position.session, intent.connection_id);
        self.by_connection.entry(connection).or_default().insert(position);
        self.pending.insert(position, pending);
        None
    }

    /// Takes an outcome in. `None` when its intent is not pending (it was archived before).
    pub fn on_outcome(
        &mut self,
        position: BufferPosition,
        outcome: &Outcome,
        now_ms: i64,
    ) -> Option<Resolution> {
        let intent = self.take(BufferPosition {
            session: position.session,
            lsn: outcome.intent,
        })?;
        let base_offset = (outcome.base_offset >= 0).then_some(outcome.base_offset);
        match (outcome.error_code, base_offset) {
            (0, Some(base)) => {
                self.note_accepted(&intent);
                if intent.header.is_none() {
                    return Some(self.unresolved(intent, Doubt::Uncertain, now_ms, Some(base)));
                }
                Some(Resolution::Written(Written {
                    intent,
                    outcome: position,
                    base_offset: base,
                    log_append_time_ms: outcome.log_append_time_ms,
                    leader_epoch: outcome.leader_epoch,
                }))
            }
            (code, base) if base.is_some() || is_open(code) => {
                Some(self.unresolved(intent, Doubt::OpenError(code), now_ms, base))
            }
            _ => Some(Resolution::Refused(intent.position)),
        }
    }

    /// The connection is gone: what it had in flight stays without an answer.
    pub fn on_connection_lost(
        &mut self,
        session: SessionId,
        lost: &ConnectionLost,
        now_ms: i64,
    ) -> Vec<Resolution> {
        let positions = self
            .by_connection
            .remove(&(session, lost.connection_id))
            .unwrap_or_default();
        let intents: Vec<_> = positions
            .iter()
            .filter_map(|position| self.pending.remove(position))
            .collect();
        let resolutions = intents
            .into_iter()
            .map(|intent| self.unresolved(intent, Doubt::ConnectionLost, now_ms, None))
            .collect();
        self.accepted
            .retain(|(of, connection, _)| (*of, *connection) != (session, lost.connection_id));
        resolutions
    }

    /// Every session before `session` is over (all of them, for `None`): what is pending there stays without an answer.
    pub fn on_sessions_over(&mut self, before: Option<SessionId>, now_ms: i64) -> Vec<Resolution> {
        let over = |session: SessionId| before.is_none_or(|before| session < before);
        let positions: Vec<_> = self
            .pending
            .keys()
            .copied()
            .filter(|at| over(at.session))
            .collect();
        let intents: Vec<_> = positions
            .into_iter()
            .filter_map(|position| self.take(position))
            .collect();
        let resolutions = intents
            .into_iter()
            .map(|intent| self.unresolved(intent, Doubt::SessionLost, now_ms, None))
            .collect();
        self.accepted.retain(|(session, _, _)| !over(*session));
        resolutions
    }

    /// The lowest intent without an outcome.
    pub fn lowest_pending(&self) -> Option<BufferPosition> {
        self.pending.keys().next().copied()
    }

    /// How many intents wait for their outcome.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    fn take(&mut self, position: BufferPosition) -> Option<PendingIntent> {
        let intent = self.pending.remove(&position)?;
        let connection = (position.session, intent.connection_id);
        if let Some(positions) = self.by_connection.get_mut(&connection) {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
        Some(intent)
    }

    fn note_accepted(&mut self, intent: &PendingIntent) {
        let session = intent.position.session;
        self.accepted
            .insert((session, intent.connection_id, intent.topic.clone()));
        // The oldest connections make room. It only means that later unconfirmed batches of them are quarantined: the safe
        // side.
        if self.accepted.len() > ACCEPTED_MAX {
            self.accepted.pop_first();
        }
    }

    fn unresolved(
        &self,
        intent: PendingIntent,
        doubt: Doubt,
        now_ms: i64,
        base_offset: Option<i64>,
    ) -> Resolution {
        let connection = (
            intent.position.session,
            intent.connection_id,
            intent.topic.clone(),
        );
        let accepted_before = self.accepted.contains(&connection);
        Resolution::Unresolved(Unresolved {
            intent,
            doubt,
            since_ms: now_ms,
            base_offset,
            accepted_before,
        })
    }

    fn topic_key(&mut self, topic: &TopicRef) -> TopicKey {
        if let Some(id) = topic.id {
            return TopicKey::Id(id);
        }
        let name = topic.name.as_deref().unwrap_or_default();
        if let Some(known) = self.names.get(name) {
            return TopicKey::Name(Arc::clone(known));
        }
        let shared: Arc<str> = Arc::from(name);
        self.names.insert(name.to_owned(), Arc::clone(&shared));
        TopicKey::Name(shared)
    }
}

/// How many (connection, topic) pairs are remembered as accepted.
const ACCEPTED_MAX: usize = 100_000;

/// Errors that a broker can give after it appended: UNKNOWN_SERVER_ERROR, REQUEST_TIMED_OUT,
/// NOT_ENOUGH_REPLICAS_AFTER_APPEND and KAFKA_STORAGE_ERROR. NOT_LEADER_OR_FOLLOWER counts when it carries an offset.
fn is_open(error_code: i16) -> bool {
    matches!(error_code, -1 | 7 | 20 | 56 | 0)
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
