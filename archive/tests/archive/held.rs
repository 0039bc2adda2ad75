//! What is held is kept up to date entry by entry. Here it is worked out anew from everything that was said.

use crate::samples::{EPOCH_MS, identity, listed, sample_commit};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use teeline_archive::ledger::{Commit, Entry, LedgerState, Replaced, Superseded};
use teeline_archive::segment::{Origin, SegmentInfo};
use teeline_archive::{OffsetRange, WriterId};

/// What happens to a partition, one after the other; numbers are taken modulo what is there.
#[derive(Clone, Debug)]
enum Step {
    Segment {
        first: i64,
        span: i64,
        gap: Option<(i64, i64)>,
    },
    Lost {
        segment: usize,
        at: i64,
        more: i64,
        same: bool,
    },
    Joined {
        segments: Vec<usize>,
        gap: Option<(i64, i64)>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let gap = || prop::option::of((1i64..12, 0i64..6));
    prop_oneof![
        4 => (0i64..60, 0i64..20, gap()).prop_map(|(first, span, gap)| Step::Segment { first, span, gap }),
        3 => (any::<usize>(), -2i64..20, 0i64..12, any::<bool>())
            .prop_map(|(segment, at, more, same)| Step::Lost { segment, at, more, same }),
        1 => (prop::collection::vec(any::<usize>(), 1..4), gap()).prop_map(|(segments, gap)| Step::Joined { segments, gap }),
    ]
}

/// The entries of the writer and of the auditor, and the offsets held.
#[derive(Default)]
struct Model {
    segments: Vec<(SegmentInfo, BTreeSet<i64>)>,
    gone: BTreeSet<String>,
    captured: Vec<Entry>,
    audited: Vec<Entry>,
}

impl Model {
    fn take(&mut self, step: Step) {
        let counter = self.segments.len() as u32;
        match step {
            Step::Segment { first, span, gap } => {
                let mut info = listed(WriterId(1), counter, first, first + span, Origin::Tee);
                let gap = gap_of(first, span, gap);
                info.gaps = gap.into_iter().collect();
                let own =
                    (first..=first + span).filter(|offset| !gap.is_some_and(|gap| gap.contains(*offset)));
                self.segments.push((info.clone(), own.collect()));
                self.captured.push(Entry::Segment(info));
            }
            Step::Lost {
                segment,
                at,
                more,
                same,
            } => {
                let count = self.segments.len().max(1);
                let Some((info, own)) = self.segments.get_mut(segment % count) else {
                    return;
                };
                let (first_offset, last_offset) = (info.start_offset + at, info.start_offset + at + more);
                own.retain(|offset| !(first_offset..=last_offset).contains(offset));
                self.audited.push(Entry::Superseded(Superseded {
                    topic: info.identity.topic.clone(),
                    incarnation: info.identity.incarnation,
                    partition: info.identity.partition,
                    segment: info.key.clone(),
                    first_offset,
                    last_offset,
                    leader_epoch: 4,
                    end_offset: first_offset,
                    at_ms: EPOCH_MS,
                    same,
                }));
            }
            Step::Joined { segments, gap } => {
                let count = self.segments.len().max(1);
                let parts: BTreeSet<usize> = segments.into_iter().map(|segment| segment % count).collect();
                let listed_parts: Vec<&(SegmentInfo, BTreeSet<i64>)> =
                    parts.iter().filter_map(|part| self.segments.get(*part)).collect();
                let first = listed_parts.iter().map(|(info, _)| info.start_offset).min();
                let last = listed_parts.iter().map(|(info, _)| info.end_offset).max();
                let (Some(first), Some(last)) = (first, last) else {
                    return;
                };
                let keys: Vec<String> = listed_parts.iter().map(|(info, _)| info.key.clone()).collect();
                let mut info = listed(WriterId::AUDITOR, counter, first, last, Origin::Fetch);
                let gap = gap_of(first, last - first, gap);
                info.gaps = gap.into_iter().collect();
                let place = identity(Origin::Fetch);
                self.gone.extend(keys.iter().cloned());
                self.audited.push(Entry::Segment(info.clone()));
                self.audited.push(Entry::Replaced(Replaced {
                    topic: place.topic,
                    incarnation: place.incarnation,
                    partition: place.partition,
                    by: info.key.clone(),
                    keys,
                    at_ms: 7,
                }));
                let own = (first..=last).filter(|offset| !gap.is_some_and(|gap| gap.contains(*offset)));
                self.segments.push((info, own.collect()));
            }
        }
    }

    fn held(&self) -> BTreeSet<i64> {
        let listed = self
            .segments
            .iter()
            .filter(|(info, _)| !self.gone.contains(&info.key));
        listed.flat_map(|(_, own)| own.iter().copied()).collect()
    }
}

/// A gap lies strictly inside.
fn gap_of(first: i64, span: i64, gap: Option<(i64, i64)>) -> Option<OffsetRange> {
    let (at, more) = gap?;
    OffsetRange::new(first + at, (first + at + more).min(first + span - 1))
}

fn commits(writer: WriterId, entries: &[Entry], each: usize) -> Vec<Commit> {
    let parts = entries.chunks(each).zip(1u64..);
    parts
        .map(|(entries, seq)| Commit {
            writer,
            seq,
            nonce: u128::from(writer.0) << 32 | u128::from(seq),
            entries: entries.to_vec(),
            ..sample_commit()
        })
        .collect()
}

/// `cargo test --release -p teeline-archive --test archive -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement: it asserts no speed"]
fn a_ledger_of_a_million_segments() {
    const SEGMENTS: u32 = 1_000_000;
    const PER_COMMIT: u32 = 20;
    let mut state = LedgerState::new();
    let (mut decoding, mut applying, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for seq in 0..SEGMENTS / PER_COMMIT {
        let entries = (seq * PER_COMMIT..(seq + 1) * PER_COMMIT).map(|counter| {
            // Five hundred of each of 2,000 partitions.
            let first = i64::from(counter / 2_000) * 10;
            let mut info = listed(WriterId(1), counter, first, first + 9, Origin::Tee);
            info.identity.partition = (counter % 2_000) as i32;
            info.key = info.identity.key(first, info.codec).unwrap();
            Entry::Segment(info)
        });
        let entries: Vec<Entry> = entries.collect();
        let commit = Commit {
            writer: WriterId(1),
            seq: u64::from(seq) + 1,
            nonce: u128::from(seq),
            entries,
            ..sample_commit()
        };
        let encoded = commit.encode().unwrap();
        bytes += encoded.len();
        let began = Instant::now();
        let commit = Commit::decode(&encoded).unwrap();
        decoding += began.elapsed();
        let began = Instant::now();
        state.apply(&commit).unwrap();
        applying += began.elapsed();
    }
    let began = Instant::now();
    let held: u64 = state
        .topics()
        .into_iter()
        .flat_map(|(_, life)| life.partitions())
        .map(|(_, partition)| partition.held().span())
        .sum();
    eprintln!(
        "{SEGMENTS} segments, {bytes} bytes: decoded in {decoding:?}, folded in {applying:?}; all that is held in {:?}",
        began.elapsed()
    );
    assert_eq!(held, u64::from(SEGMENTS) * 10);
}

proptest! {
    #[test]
    fn what_is_held_is_the_same_in_every_order_and_as_if_worked_out_anew(
        steps in prop::collection::vec(step(), 1..40), each in 1usize..6, turns in prop::collection::vec(any::<bool>(), 80),
    ) {
        let mut model = Model::default();
        steps.into_iter().for_each(|step| model.take(step));
        let (captured, audited) = (commits(WriterId(1), &model.captured, each), commits(WriterId::AUDITOR, &model.audited, each));
        let mut in_turn = LedgerState::new();
        let (mut one, mut other) = (captured.iter().peekable(), audited.iter().peekable());
        let mut turns = turns.into_iter().cycle();
        while one.peek().is_some() || other.peek().is_some() {
            let next = if turns.next() == Some(true) { one.next().or_else(|| other.next()) } else { other.next().or_else(|| one.next()) };
            in_turn.apply(next.unwrap()).unwrap();
        }
        let mut one_by_one = LedgerState::new();
        for commit in captured.iter().chain(&audited) {
            one_by_one.apply(commit).unwrap();
        }
        prop_assert_eq!(&in_turn, &one_by_one);
        let place = identity(Origin::Tee);
        let Some(state) = in_turn.partition(&place.topic, place.incarnation, place.partition) else { return Ok(()) };
        let held: BTreeSet<i64> = (-5..140).filter(|offset| state.held().contains(*offset)).collect();
        prop_assert_eq!(held, model.held());
        for segment in state.segments() {
            let own: BTreeSet<i64> = (-5..140).filter(|offset| state.held_by(segment).contains(*offset)).collect();
            let modelled = model.segments.iter().find(|(info, _)| info.key == segment.key).unwrap();
            prop_assert_eq!(&own, &modelled.1);
        }
    }
}
