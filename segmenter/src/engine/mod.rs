//! The state of one segmenter, and what it wants done. No I/O and no clock: frames and results go in with the time,
//! work comes out.
//!
//! Frames are taken in ([`Engine::on_frame`]) and end up in partitions ([`placing`]). From time to time the engine looks
//! at itself ([`Engine::poll`]) and has work to hand out ([`work`]): segments to build, ranges to fetch, partitions to
//! survey, commits to write. Results come back through [`results`]. What a lost source leaves is in [`lost`], what
//! an earlier run left in [`load`], what is other writers' in [`others`], and what catalogs say of topics in [`naming`]. Why
//! frames are still needed at the end is in [`remains`].

mod evidence;
mod load;
mod lost;
mod naming;
mod others;
mod placing;
mod remains;
mod results;
mod work;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use teeline_archive::buffer::Frame;
use teeline_archive::ids::{BufferPosition, SessionId};
use teeline_archive::ledger::{Absence, LedgerState};
use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet, WriterId};
use teeline_config::TopicFilter;
use uuid::Uuid;

use crate::buffer::FrameLocation;
use crate::catalog::Catalogs;
use crate::close::CloseLimits;
use crate::confirmed::ConfirmedBatches;
use crate::error::SegmenterError;
use crate::leaders::Leaders;
use crate::metrics::Gauges;
use crate::partition::{Partition, PartitionId};
use crate::patience::{Patience, PatienceLimits};
use crate::resolver::{Resolver, TopicKey, Written};
use crate::settlement::Settlement;
use crate::topics::Topics;
use crate::transactions::Endings;
use crate::upload::SegmentPlan;
use crate::watermark::Watermark;

pub use work::CommitPlan;

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The backup.
    pub backup_id: String,
    /// Whose chain is written.
    pub writer: WriterId,
    /// When segments close.
    pub close: CloseLimits,
    /// How long small ones wait.
    pub patience: PatienceLimits,
    /// How old a hole must be to be fetched.
    pub hole_grace_ms: i64,
    /// Which topics are captured.
    pub topics: TopicFilter,
    /// Whether the source can be asked.
    pub has_source: bool,
    /// Whether somebody compares the whole archive with the whole log, so that holes may be left.
    pub has_auditor: bool,
}

/// What was counted over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments committed.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Intents archived as unconfirmed.
    pub unconfirmed: u64,
}

/// The state of one segmenter.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    cluster_id: Option<Arc<str>>,
    /// What an earlier run published: frames up to here are read for what they tell, not archived again.
    archived_before: Option<BufferPosition>,
    watermark: Watermark,
    resolver: Resolver,
    catalogs: Catalogs,
    leaders: Leaders,
    topics: Topics,
    endings: Endings,
    /// EndTxn answers whose evidence the ledger has; kept for the order of what comes later.
    evidenced: HashSet<BufferPosition>,
    /// Some answer is worth a commit of its own.
    evidence_due: bool,
    /// Producers whose transaction ended since the last look.
    just_ended: BTreeSet<i64>,
    settlement: Settlement,
    confirmed: ConfirmedBatches,
    partitions: BTreeMap<PartitionId, Partition>,
    /// Topics that only their id names, and that are not captured.
    left_out: HashSet<Uuid>,
    /// Acknowledged batches whose topic is not known yet.
    unattributed: BTreeMap<BufferPosition, Written>,
    /// Partitions whose holes are to be looked at.
    dirty: BTreeSet<PartitionId>,
    patience: Patience,
    plans: VecDeque<SegmentPlan>,
    plan_count: u64,
    /// Plans that are handed out or waiting: the batches they stand for.
    under_way: BTreeMap<u64, UnderWay>,
    uploaded: Vec<Stored>,
    uploaded_since_ms: Option<i64>,
    fetching: BTreeSet<PartitionId>,
    /// Whose turn it was last.
    fetched_last: PartitionId,
    source: SourcePace,
    absences: Vec<Absence>,
    brokers: Vec<String>,
    brokers_changed: bool,
    source_lost_at_ms: Option<i64>,
    committing: bool,
    draining: bool,
    /// A part of the buffer could not be read.
    is_damaged: bool,
    /// The session that is being read, and whether its writer closed it.
    session: Option<(SessionId, bool)>,
    counts: Counts,
    /// When another writer that captures was last at work.
    others_committed_ms: Option<i64>,
    /// Holes that nobody here waits for are the auditor's.
    leaves_holes: bool,
}

/// What a plan stands for.
#[derive(Debug, Clone)]
struct UnderWay {
    id: PartitionId,
    /// Offsets that it will hold; none of what is unconfirmed.
    held: OffsetSet,
    intents: Vec<UnderWayIntent>,
    batches: usize,
    memory_bytes: u64,
}

/// A captured batch on its way into a segment.
#[derive(Debug, Clone, Copy)]
struct UnderWayIntent {
    position: BufferPosition,
    location: FrameLocation,
    range: OffsetRange,
}

/// Segments that are stored and not listed yet.
#[derive(Debug, Clone, Default)]
struct Stored {
    segments: Vec<SegmentInfo>,
    intents: Vec<BufferPosition>,
}

/// When the source may be asked again.
#[derive(Debug, Clone, Copy, Default)]
struct SourcePace {
    not_before_ms: i64,
    pause_ms: i64,
    failures: u32,
    surveying: bool,
    /// The next survey comes no sooner: an answer that settles nothing must not be asked for in a circle.
    survey_not_before_ms: i64,
    /// It has answered once.
    is_known: bool,
}

impl Engine {
    /// Begins where the ledger and the buffer stand.
    pub fn new(settings: EngineSettings, ledger: &LedgerState, archived: Option<BufferPosition>) -> Self {
        let patience = Patience::new(settings.patience);
        let mut engine = Engine {
            settings,
            cluster_id: ledger.cluster_id().filter(|id| !id.is_empty()).map(Arc::from),
            archived_before: archived,
            watermark: Watermark::new(archived),
            resolver: Resolver::default(),
            catalogs: Catalogs::default(),
            leaders: Leaders::default(),
            topics: Topics::default(),
            endings: Endings::default(),
            evidenced: HashSet::new(),
            evidence_due: false,
            just_ended: BTreeSet::new(),
            settlement: Settlement::default(),
            confirmed: ConfirmedBatches::default(),
            partitions: BTreeMap::new(),
            left_out: HashSet::new(),
            unattributed: BTreeMap::new(),
            dirty: BTreeSet::new(),
            patience,
            plans: VecDeque::new(),
            plan_count: 0,
            under_way: BTreeMap::new(),
            uploaded: Vec::new(),
            uploaded_since_ms: None,
            fetching: BTreeSet::new(),
            fetched_last: PartitionId {
                incarnation: Uuid::nil(),
                partition: 0,
            },
            source: SourcePace::default(),
            absences: Vec::new(),
            brokers: ledger.source_brokers().to_vec(),
            brokers_changed: false,
            source_lost_at_ms: None,
            committing: false,
            draining: false,
            is_damaged: false,
            session: None,
            counts: Counts::default(),
            others_committed_ms: None,
            leaves_holes: false,
        };
        engine.load(ledger);
        engine
    }

    /// Takes the next frame in.
    ///
    /// # Errors
    /// When the buffer comes from another cluster than the backup.
    pub fn on_frame(
        &mut self,
        position: BufferPosition,
        location: FrameLocation,
        frame: Frame,
        now_ms: i64,
    ) -> Result<(), SegmenterError> {
        self.watermark.read(position);
        self.patience.on_read(u64::from(location.len), now_ms);
        match frame {
            Frame::Intent(intent) => {
                if let (Some(id), Some(name)) = (intent.topic.id, &intent.topic.name) {
                    self.catalogs.note_name(id, name);
                }
                if !self.was_archived(position) {
                    self.watermark.hold(position, intent.sent_at_ms);
                }
                let (catalogs, partitions) = (&self.catalogs, &self.partitions);
                let sent = (position, intent.sent_at_ms);
                let floor = |topic: &TopicKey| floor_of(catalogs, partitions, topic, intent.partition, sent);
                let resolution = self
                    .resolver
                    .on_intent(position, location, &intent, floor, now_ms);
                self.on_resolutions(resolution, now_ms);
            }
            Frame::Outcome(outcome) => {
                let resolution = self.resolver.on_outcome(position, &outcome, now_ms);
                self.on_resolutions(resolution, now_ms);
            }
            Frame::ConnectionLost(lost) => {
                let resolutions = self.resolver.on_connection_lost(position.session, &lost, now_ms);
                self.on_resolutions(resolutions, now_ms);
            }
            Frame::EndTxn(end) => {
                self.endings.on_end(position, &end);
                if self.settings.has_source {
                    self.just_ended.insert(end.producer_id);
                }
                if !self.was_archived(position) {
                    self.watermark.hold(position, end.at_ms);
                }
            }
            Frame::Catalog(catalog) => self.on_catalog(position, &catalog, now_ms)?,
            Frame::TopicConfig(config) => {
                let cluster_id = self.cluster_id.clone().unwrap_or_default();
                let replaced = self.topics.on_config(position, &cluster_id, &config);
                self.keep_snapshot(position, config.at_ms, replaced);
            }
            Frame::LeaderTerms(terms) => {
                let followed = self.leaders.on_terms(position, &terms);
                self.forget_leaders(followed);
            }
            Frame::SessionClosed { .. } => self.session = Some((position.session, true)),
            Frame::Unknown { kind, .. } => {
                tracing::debug!(kind, %position, "a frame of a kind that this version does not know is passed over");
            }
        }
        Ok(())
    }

    /// A session begins: what earlier ones left without an outcome is unresolved. One that ended in a crash may also have
    /// lost frames that were never synced, of partitions that are quiet since: their ends are compared with the source.
    pub fn on_session_start(&mut self, session: SessionId, now_ms: i64) {
        let is_clean = match self.session {
            Some((last, is_closed)) => last == session || is_closed,
            // How the one before ended is not in the buffer any more; an earlier run has looked if it read this one.
            None => session <= SessionId(1) || self.was_begun(session),
        };
        self.session = Some((session, false));
        if !is_clean {
            let at_ms = now_ms.saturating_add(self.graces().1);
            for partition in self.partitions.values_mut() {
                partition.suspect_tail(at_ms);
            }
        }
        let resolutions = self.resolver.on_sessions_over(Some(session), now_ms);
        self.on_resolutions(resolutions, now_ms);
    }

    /// A part of the buffer cannot be read: any partition may have had a batch there. Holes show by themselves; the ends
    /// are compared with the source.
    pub fn on_damage(&mut self) {
        self.is_damaged = true;
        for partition in self.partitions.values_mut() {
            partition.suspect_tail(0);
        }
    }

    /// Partitions whose end is still to be compared with the source.
    pub fn suspects(&self) -> usize {
        self.partitions
            .values()
            .filter(|partition| partition.is_suspect())
            .count()
    }

    /// No writer lives: what has no outcome will have none.
    pub fn on_end(&mut self, now_ms: i64) {
        let resolutions = self.resolver.on_sessions_over(None, now_ms);
        self.on_resolutions(resolutions, now_ms);
    }

    /// From now on everything closes as it comes, and nothing is waited for longer than needed. `ended` says that no
    /// writer lives, so that no catalog will come any more.
    pub fn drain(&mut self, ended: bool, now_ms: i64) {
        self.draining = true;
        if ended && self.settings.has_source {
            self.give_up_catalog(now_ms, 0);
        }
    }

    /// The cluster, once it is known.
    pub fn cluster_id(&self) -> Option<&Arc<str>> {
        self.cluster_id.as_ref()
    }

    /// How far the buffer may be released.
    pub fn archived(&mut self) -> Option<BufferPosition> {
        self.watermark.archived()
    }

    /// The last frame that was read.
    pub fn last_read(&self) -> Option<BufferPosition> {
        self.watermark.last_read()
    }

    /// Frames that are still needed.
    pub fn remaining(&self) -> usize {
        self.watermark.held_count()
    }

    /// Intents in doubt.
    pub fn unsettled(&self) -> usize {
        self.settlement.count()
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How often in a row the source has not answered.
    pub fn source_failures(&self) -> u32 {
        self.source.failures
    }

    /// True when reading on would take more memory than is allowed: segments must be stored, or intents settled, first.
    pub fn must_pause(&self) -> bool {
        let under_way: usize = self.under_way.values().map(|under_way| under_way.batches).sum();
        let memory: u64 = self
            .under_way
            .values()
            .map(|under_way| under_way.memory_bytes)
            .sum();
        let limits = &self.settings.close;
        under_way > limits.positions_max
            || self.settlement.count() > limits.positions_max
            || memory > limits.memory_bytes_max
    }

    /// True when nothing is open, under way or waiting to be listed.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
            && self.uploaded.is_empty()
            && self.fetching.is_empty()
            && !self.committing
            && !self.source.surveying
            && self
                .partitions
                .values()
                .all(|partition| partition.open().batches == 0)
            && !self.wants_commit()
    }

    /// The state for metrics.
    pub fn gauges(&self, now_ms: i64) -> Gauges {
        let age_ms = self
            .watermark
            .oldest_ms()
            .map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0));
        Gauges {
            unarchived_seconds: age_ms as f64 / 1_000.0,
            unarchived_batches: self.remaining(),
            unsettled_intents: self.unsettled(),
            missing_offsets: self.missing_offsets(),
            left_offsets: self.left_offsets(),
            open_segments: self
                .partitions
                .values()
                .filter(|partition| partition.open().batches > 0)
                .count(),
            uploads: self.under_way.len(),
        }
    }

    fn was_begun(&self, session: SessionId) -> bool {
        self.archived_before
            .is_some_and(|archived| archived.session >= session)
    }

    fn was_archived(&self, position: BufferPosition) -> bool {
        self.archived_before.is_some_and(|archived| position <= archived)
    }

    fn partition(&mut self, id: PartitionId, topic: &Arc<str>) -> &mut Partition {
        self.partitions
            .entry(id)
            .or_insert_with(|| Partition::new(id, Arc::clone(topic)))
    }
}

fn floor_of(
    catalogs: &Catalogs,
    partitions: &BTreeMap<PartitionId, Partition>,
    topic: &TopicKey,
    partition: i32,
    (position, sent_at_ms): (BufferPosition, i64),
) -> Option<(Uuid, i64)> {
    let incarnation = match topic {
        TopicKey::Id(id) => *id,
        TopicKey::Name(name) => catalogs.newest(name)?,
    };
    let end = partitions
        .get(&PartitionId {
            incarnation,
            partition,
        })?
        .floor
        .of(position, sent_at_ms)?;
    Some((incarnation, end))
}
