//! One partition of one topic incarnation: what is held, what is committed, what is missing, and the open segment.
//!
//! > demanded >= held >= committed
//!
//! *Held* is what lies in the buffer (by position), in bounded memory (small fetched ranges) or in the archive;
//! *committed* is what the ledger lists. What is demanded and not held is *missing*.

#[path = "partition_absent.rs"]
mod absent;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use teeline_archive::ids::{BufferPosition, SessionId};
use teeline_archive::{Lsn, OffsetRange, OffsetSet};
use teeline_wire::batch::BatchHeader;
use uuid::Uuid;

use self::absent::Absent;
use crate::batch::{Batch, Content, FetchedBatch, Identity};
use crate::floor::Floor;
use crate::holes::HoleAges;
use crate::open_segment::{OpenSegment, OpenSize};
use crate::transactions::{OpenTransaction, Order, Transactions};

/// Which partition: the topic's incarnation, never only its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// Topic id.
    pub incarnation: Uuid,
    /// Partition number.
    pub partition: i32,
}

/// What became of a captured batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is part of the open segment.
    Held,
    /// The very same batch is held already.
    Duplicate,
    /// Its offsets are held, with a content that is not known here: both are kept.
    Overlapping,
    /// Its offsets are held with another content: both are kept, and the log decides.
    Conflicting,
}

/// Outcomes that an earlier run committed for this partition.
#[derive(Debug, Clone)]
pub struct CommittedRun {
    /// Writer session.
    pub session: SessionId,
    /// First and last LSN of the segment's outcomes.
    pub lsn: (Lsn, Lsn),
    /// What the segment holds.
    pub held: OffsetSet,
}

/// State of one partition.
#[derive(Debug)]
pub struct Partition {
    /// Which one.
    pub id: PartitionId,
    /// Name of its topic.
    pub topic: Arc<str>,
    /// Transactions without a marker.
    pub transactions: Transactions,
    /// How old the holes are.
    pub holes: HoleAges,
    held: OffsetSet,
    committed: OffsetSet,
    /// What the source no longer has.
    absent: Absent,
    demanded: Option<OffsetRange>,
    open: OpenSegment,
    /// Missing ranges that somebody waits for.
    urgent: OffsetSet,
    /// When the tail is to be looked at for markers, and how long to pause after that.
    tail: Tail,
    transactional: bool,
    /// Something may lie behind what is held, although nothing says so.
    is_tail_suspect: bool,
    /// Since when the source says that it does not have this partition.
    gone_since_ms: Option<i64>,
    recent: VecDeque<(OffsetRange, Identity)>,
    committed_runs: Vec<CommittedRun>,
    /// Below which offset an intent cannot lie.
    pub floor: Floor,
}

/// When a partition with undecided transactions is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tail {
    next_ms: i64,
    pause_ms: i64,
}

impl Partition {
    /// A partition of which nothing is known.
    pub fn new(id: PartitionId, topic: Arc<str>) -> Self {
        Partition {
            id,
            topic,
            transactions: Transactions::default(),
            holes: HoleAges::default(),
            held: OffsetSet::new(),
            committed: OffsetSet::new(),
            absent: Absent::default(),
            demanded: None,
            open: OpenSegment::default(),
            urgent: OffsetSet::new(),
            tail: Tail::default(),
            transactional: false,
            is_tail_suspect: false,
            gone_since_ms: None,
            recent: VecDeque::new(),
            committed_runs: Vec::new(),
            floor: Floor::default(),
        }
    }

    /// Notes that everything held now was in the ledger when the run began, see [`Floor::on_loaded`].
    pub fn note_loaded(&mut self, to: Option<BufferPosition>, at_ms: i64) {
        self.floor.on_loaded(self.held_end(), to, at_ms);
    }

    /// Takes in what the ledger lists. `run` is given for what this writer captured.
    pub fn load_committed(&mut self, ranges: &[OffsetRange], run: Option<CommittedRun>) {
        for range in ranges {
            self.committed.insert(*range);
            self.hold(*range);
        }
        self.committed_runs.extend(run);
    }

    /// Whether an earlier run committed this outcome.
    pub fn is_committed(&self, outcome: BufferPosition, range: OffsetRange) -> bool {
        self.committed_runs.iter().any(|run| {
            run.session == outcome.session
                && (run.lsn.0..=run.lsn.1).contains(&outcome.lsn)
                && run.held.contains_range(range)
        })
    }

    /// These offsets turned out to be held by nothing that is in the log still: what the ledger listed there is
    /// superseded. What is open here, or in flight to the ledger, counts all the same.
    pub fn supersede(&mut self, range: OffsetRange, in_flight: &OffsetSet) {
        let mut flying = OffsetSet::new();
        for own in in_flight.ranges().iter().filter(|own| own.overlaps(&range)) {
            let within = OffsetRange::new(own.first.max(range.first), own.last.min(range.last));
            within.iter().for_each(|within| flying.insert(*within));
        }
        // What is contested is to be fetched, in flight or not.
        self.held
            .holes(range)
            .into_iter()
            .for_each(|hole| flying.remove(hole));
        self.held.remove(range);
        self.committed.remove(range);
        self.absent.cut(range.first);
        let open: Vec<OffsetRange> = self.open.at(range).map(|batch| batch.range).collect();
        for range in open.iter().chain(flying.ranges()) {
            self.held.insert(*range);
        }
        // The log was cut back: behind what is held or waited for, nothing says that it reaches as far again.
        let end = self.held.last().max(self.urgent.last());
        self.demanded = self
            .demanded
            .and_then(|demanded| OffsetRange::new(demanded.first, demanded.last.min(end?)));
    }

    /// Notes a batch that an earlier run committed and that was read again.
    pub fn note_committed(&mut self, range: OffsetRange, header: &BatchHeader, order: Order) {
        self.remember(range, Identity::of(header));
        self.floor.on_read(range.last);
        self.note_transaction(range, header, Some(order));
    }

    /// Places a captured batch.
    pub fn place_captured(&mut self, batch: Batch, header: &BatchHeader, order: Order) -> Placed {
        let range = batch.range;
        self.floor.on_read(range.last);
        self.absent.disprove(range);
        let mut placed = if self.intersects_held(range) {
            Placed::Overlapping
        } else {
            Placed::Held
        };
        if placed == Placed::Overlapping {
            let known = self.known_at(range);
            if known
                .iter()
                .any(|(at, identity)| *at == range && identity.is_same(&batch.identity))
            {
                return Placed::Duplicate;
            }
            if !known.is_empty() {
                placed = Placed::Conflicting;
            }
        }
        self.note_transaction(range, header, Some(order));
        self.remember(range, batch.identity);
        self.open.put(batch);
        self.held.insert(range);
        self.demand(range);
        placed
    }

    /// Places a fetched batch, if some of its offsets are missing. True when it was placed.
    pub fn place_fetched(&mut self, batch: FetchedBatch, now_ms: i64) -> bool {
        let range = OffsetRange {
            first: batch.header.base_offset,
            last: batch.header.last_offset(),
        };
        self.note_fetched(&batch);
        self.absent.disprove(range);
        if self.held.contains_range(range) {
            return false;
        }
        let identity = Identity::of(&batch.header);
        self.remember(range, identity);
        let bytes = u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX);
        self.open.put(Batch {
            range,
            bytes,
            identity,
            placed_ms: now_ms,
            content: Content::Fetched(batch.bytes),
        });
        self.held.insert(range);
        self.demand(range);
        true
    }

    /// Notes what a fetched batch says about transactions.
    pub fn note_fetched(&mut self, batch: &FetchedBatch) {
        let header = &batch.header;
        let range = OffsetRange {
            first: header.base_offset,
            last: header.last_offset(),
        };
        match batch.ends {
            Some(producer_id) => self.transactions.on_marker(producer_id, header.base_offset),
            None => self.note_transaction(range, header, None),
        }
    }

    /// Everything of the range must be held sooner or later.
    pub fn demand(&mut self, range: OffsetRange) {
        self.demanded = Some(match self.demanded {
            None => range,
            Some(old) => OffsetRange {
                first: old.first.min(range.first),
                last: old.last.max(range.last),
            },
        });
    }

    /// What is demanded and neither held nor known to be gone from the source, in order.
    pub fn missing(&self) -> Vec<OffsetRange> {
        let Some(demanded) = self.demanded else {
            return Vec::new();
        };
        let holes = self.held.holes(demanded);
        if self.absent.ranges().is_empty() {
            return holes;
        }
        holes
            .into_iter()
            .flat_map(|hole| self.absent.ranges().holes(hole))
            .collect()
    }

    /// What of the range is neither held nor known to be gone.
    pub fn missing_in(&self, range: OffsetRange) -> Vec<OffsetRange> {
        self.held
            .holes(range)
            .into_iter()
            .flat_map(|hole| self.absent.ranges().holes(hole))
            .collect()
    }

    /// The source was asked, and does not have these offsets any more.
    pub fn mark_absent(&mut self, range: OffsetRange, at_ms: i64) {
        self.absent.find(range, at_ms);
    }

    /// What of the range the source may have, as far as is known.
    pub fn not_absent(&self, range: OffsetRange) -> Vec<OffsetRange> {
        self.absent.ranges().holes(range)
    }

    /// These offsets are contested: they are to be fetched, whatever is held.
    pub fn contest(&mut self, range: OffsetRange) {
        self.held.remove(range);
        self.absent.disprove(range);
    }

    /// What is in doubt may be in this range of the log, which reaches over all of it now: the log itself is to say what
    /// is there, whatever was found before.
    pub fn oblige(&mut self, range: OffsetRange) {
        self.absent.disprove(range);
        self.demand_urgently(range);
    }

    /// The range is demanded, and somebody waits for it.
    pub fn demand_urgently(&mut self, range: OffsetRange) {
        self.demand(range);
        self.urgent.insert(range);
    }

    /// How long a hole may stay one: little when somebody waits for it, or when it has the size of a marker among
    /// transactions.
    pub fn grace_ms(&self, hole: &OffsetRange, usual_ms: i64, short_ms: i64) -> i64 {
        let waited_for = self.urgent.holes(*hole) != [*hole];
        if waited_for || self.looks_like_markers(hole) {
            usual_ms.min(short_ms)
        } else {
            usual_ms
        }
    }

    /// What of a hole cannot be left to others: what somebody waits for, and markers.
    pub fn pressing(&self, hole: OffsetRange) -> Vec<OffsetRange> {
        if self.looks_like_markers(&hole) {
            return vec![hole];
        }
        let mut waited_for: OffsetSet = [hole].into_iter().collect();
        for other in self.urgent.holes(hole) {
            waited_for.remove(other);
        }
        waited_for.ranges().to_vec()
    }

    /// How many missing offsets are [`Partition::pressing`].
    pub fn pressing_offsets(&self) -> u64 {
        let pressing = self.holes.ranges().flat_map(|hole| self.pressing(hole));
        pressing.fold(0, |sum, range| sum.saturating_add(range.span()))
    }

    fn looks_like_markers(&self, hole: &OffsetRange) -> bool {
        self.transactional && hole.span() <= MARKERS_AT_MOST
    }

    /// Nobody waits for the range any more: it was fetched, or cannot be.
    pub fn calm(&mut self, range: OffsetRange) {
        self.urgent.remove(range);
    }

    /// The source does not know the partition. True when it has said so for long enough to be believed.
    pub fn is_gone(&mut self, now_ms: i64, after_ms: i64) -> bool {
        let since_ms = *self.gone_since_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since_ms) >= after_ms
    }

    /// The source knows the partition.
    pub fn is_there(&mut self) {
        self.gone_since_ms = None;
    }

    /// Whether the source is to be asked how far it reaches: for the markers of undecided transactions, or on suspicion.
    pub fn tail_due(&self, now_ms: i64) -> bool {
        (self.is_tail_suspect || !self.transactions.is_decided()) && now_ms >= self.tail.next_ms
    }

    /// Something may lie behind what is held; the source is to be asked from `at_ms` on.
    pub fn suspect_tail(&mut self, at_ms: i64) {
        self.is_tail_suspect = true;
        self.tail = Tail {
            next_ms: at_ms,
            pause_ms: 0,
        };
    }

    /// Whether something may lie behind what is held, as far as the source has not said that it is gone.
    pub fn is_suspect(&self) -> bool {
        self.is_tail_suspect && self.gone_since_ms.is_none()
    }

    /// From where on something may lie, if that was suspected; the suspicion ends with the answer.
    pub fn take_suspicion(&mut self) -> Option<i64> {
        std::mem::take(&mut self.is_tail_suspect).then_some(self.held_end()?)
    }

    /// The tail was looked at. Without news the next look comes later and later.
    pub fn tail_seen(&mut self, now_ms: i64, news: bool, first_ms: i64, max_ms: i64) {
        let longer = self.tail.pause_ms.saturating_mul(2).clamp(first_ms, max_ms);
        self.tail.pause_ms = if news { first_ms } else { longer };
        self.tail.next_ms = now_ms.saturating_add(self.tail.pause_ms);
    }

    /// A transaction ended a moment ago: its marker will be there soon.
    pub fn tail_soon(&mut self, at_ms: i64) {
        self.tail = Tail {
            next_ms: self.tail.next_ms.min(at_ms),
            pause_ms: 0,
        };
    }

    /// Everything of the range is in the ledger, or gone from the source.
    pub fn is_durable(&self, range: OffsetRange) -> bool {
        self.committed
            .holes(range)
            .into_iter()
            .all(|hole| self.absent.ranges().contains_range(hole))
    }

    /// These offsets are in a segment on its way into the ledger (a streamed one, which never was open here).
    pub fn hold(&mut self, range: OffsetRange) {
        self.held.insert(range);
        self.demand(range);
    }

    /// The ledger lists these offsets now.
    pub fn commit(&mut self, ranges: &[OffsetRange]) {
        for range in ranges {
            self.committed.insert(*range);
        }
    }

    /// One past the highest offset that is held.
    pub fn held_end(&self) -> Option<i64> {
        self.held.last().map(|last| last.saturating_add(1))
    }

    /// How much the open segment holds.
    pub fn open(&self) -> OpenSize {
        self.open.size()
    }

    /// The leader epochs that batches of the open segment are noted with.
    pub fn open_epochs(&self) -> BTreeSet<i32> {
        self.open.leader_epochs()
    }

    /// Takes what `closes` of the open segment, see [`OpenSegment::close`].
    pub fn close(&mut self, bytes_max: u64, closes: impl FnMut(&mut Batch) -> bool) -> Vec<Vec<Batch>> {
        self.open.close(bytes_max, closes)
    }

    /// True when the batch held at exactly this range is known to be another one.
    pub fn contradicts(&self, range: OffsetRange, identity: &Identity) -> bool {
        let known = self.known_at(range);
        !known.is_empty()
            && !known
                .iter()
                .any(|(at, other)| *at == range && other.is_same(identity))
    }

    /// The batches at these offsets that are held and of which the identity is still known.
    fn known_at(&self, range: OffsetRange) -> Vec<(OffsetRange, Identity)> {
        let recent = self.recent.iter().filter(|(at, _)| at.overlaps(&range)).copied();
        self.open
            .at(range)
            .map(|batch| (batch.range, batch.identity))
            .chain(recent)
            .collect()
    }

    fn intersects_held(&self, range: OffsetRange) -> bool {
        self.held.holes(range) != [range]
    }

    fn note_transaction(&mut self, range: OffsetRange, header: &BatchHeader, order: Option<Order>) {
        self.transactional |= header.is_transactional();
        if header.is_transactional() && !header.is_control() {
            self.transactions.on_batch(OpenTransaction {
                producer_id: header.producer_id,
                producer_epoch: header.producer_epoch,
                first_offset: range.first,
                last_offset: range.last,
                order,
            });
        }
    }

    fn remember(&mut self, range: OffsetRange, identity: Identity) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((range, identity));
    }
}

/// Holes of up to so many offsets are taken for transaction markers.
const MARKERS_AT_MOST: u64 = 2;
/// Batches whose identity is remembered after their segment closed: a broker knows a duplicate among the last five of
/// a producer, and a few producers share a partition.
const RECENT_MAX: usize = 32;

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
