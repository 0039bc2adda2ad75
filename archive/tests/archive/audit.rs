//! What auditors say, and what the ledger makes of it.

use crate::golden::golden;
use crate::samples::{EPOCH_MS, WRITER, identity, listed, sample_audit_commit, sample_commit};
use proptest::prelude::*;
use std::collections::BTreeSet;
use teeline_archive::ledger::{
    AbsenceReason, Commit, CommitError, Entry, LedgerState, PartitionAudit, PartitionState, Removed,
    Replaced, StateKind, StateObject, Superseded,
};
use teeline_archive::manifest::Manifest;
use teeline_archive::segment::{Origin, SegmentInfo};
use teeline_archive::{OffsetRange, WriterId};

fn commit(writer: WriterId, seq: u64, entries: Vec<Entry>) -> Commit {
    Commit {
        writer,
        seq,
        nonce: u128::from(writer.0) << 32 | u128::from(seq),
        entries,
        ..sample_commit()
    }
}

fn range(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

fn superseded(segment: &SegmentInfo, first_offset: i64, last_offset: i64) -> Superseded {
    let identity = &segment.identity;
    Superseded {
        topic: identity.topic.clone(),
        incarnation: identity.incarnation,
        partition: identity.partition,
        segment: segment.key.clone(),
        first_offset,
        last_offset,
        leader_epoch: 4,
        end_offset: first_offset,
        at_ms: EPOCH_MS,
        same: false,
    }
}

fn audit(at_ms: i64, high_watermark: i64) -> PartitionAudit {
    let identity = identity(Origin::Tee);
    PartitionAudit {
        topic: identity.topic,
        incarnation: identity.incarnation,
        partition: identity.partition,
        at_ms,
        start_offset: 3,
        log_start_offset: 0,
        high_watermark,
        leader_epoch: 4,
        epochs: Vec::new(),
    }
}

fn partition(state: &LedgerState) -> &PartitionState {
    let identity = identity(Origin::Tee);
    state
        .partition(&identity.topic, identity.incarnation, identity.partition)
        .unwrap()
}

#[test]
fn an_auditors_commit_is_read_back_and_any_flipped_bit_is_noticed() {
    let bytes = sample_audit_commit().encode().unwrap();
    assert_eq!(Commit::decode(&bytes).unwrap(), sample_audit_commit());
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Commit::decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn an_absence_of_an_older_commit_has_no_evidence_and_is_written_as_it_was() {
    let object = golden("00000000000000000001.commit");
    let commit = Commit::decode(&object).unwrap();
    let absence = commit.entries.iter().find_map(|entry| match entry {
        Entry::Absent(absence) => Some(absence),
        _ => None,
    });
    let evidence = &absence.unwrap().evidence;
    assert_eq!((evidence.log_start_offset, evidence.leader_epoch), (-1, -1));
    assert_eq!(commit.encode().unwrap(), object);
}

#[test]
fn a_reason_of_a_newer_version_is_kept_and_explains() {
    let mut entries = sample_audit_commit().entries;
    entries.truncate(1);
    let Some(Entry::Absent(absence)) = entries.first_mut() else {
        panic!("the sample begins with an absence")
    };
    absence.reason = AbsenceReason::Unknown(99);
    let commit = commit(WriterId::AUDITOR, 1, entries);
    let read = Commit::decode(&commit.encode().unwrap()).unwrap();
    assert_eq!(read, commit);
    let mut state = LedgerState::new();
    state.apply(&read).unwrap();
    assert!(partition(&state).explained().contains(50));
    assert_eq!(partition(&state).absences()[0].reason.as_str(), "unknown");
}

#[test]
fn offsets_that_make_no_range_are_refused() {
    let listed = listed(WriterId(1), 0, 0, 9, Origin::Tee);
    let backwards = Entry::Superseded(superseded(&listed, 5, 4));
    let refused = commit(WriterId::AUDITOR, 1, vec![backwards]).encode();
    assert!(matches!(refused, Err(CommitError::Field(_))), "{refused:?}");
}

#[test]
fn what_is_superseded_is_held_no_more_unless_another_segment_holds_it() {
    let stale = listed(WriterId(1), 0, 0, 19, Origin::Tee);
    let again = listed(WriterId(2), 0, 10, 14, Origin::Fetch);
    let mut state = LedgerState::new();
    // The auditor's chain may be read before the one that lists the segment.
    let lost = Entry::Superseded(superseded(&stale, 10, 19));
    state
        .apply(&commit(
            WriterId::AUDITOR,
            1,
            vec![lost, Entry::Audit(audit(5, 20))],
        ))
        .unwrap();
    assert_eq!(partition(&state).held().ranges(), []);
    state
        .apply(&commit(WriterId(1), 1, vec![Entry::Segment(stale.clone())]))
        .unwrap();
    assert_eq!(partition(&state).held().ranges(), [range(0, 9)]);
    state
        .apply(&commit(WriterId(2), 1, vec![Entry::Segment(again.clone())]))
        .unwrap();
    let partition = partition(&state);
    assert_eq!(partition.held().ranges(), [range(0, 14)]);
    assert_eq!(partition.held_by(&stale).ranges(), [range(0, 9)]);
    assert_eq!(partition.held_by(&again).ranges(), [range(10, 14)]);
    assert_eq!(partition.superseded_of(&stale.key).ranges(), [range(10, 19)]);
    assert_eq!(partition.superseded().len(), 1);
    assert_eq!(partition.audit().unwrap().wanted(), Some(range(3, 19)));
}

#[test]
fn a_copy_that_another_segment_replaces_counts_no_more_and_is_not_called_lost() {
    let captured = listed(WriterId(1), 0, 0, 9, Origin::Tee);
    let fetched = listed(WriterId(2), 0, 0, 9, Origin::Fetch);
    let same = Superseded {
        same: true,
        ..superseded(&captured, 0, 9)
    };
    let mut state = LedgerState::new();
    let segments = [&captured, &fetched].map(|info| Entry::Segment(info.clone()));
    state.apply(&commit(WriterId(1), 1, segments.to_vec())).unwrap();
    let replaced = commit(WriterId::AUDITOR, 1, vec![Entry::Superseded(same)]);
    state
        .apply(&Commit::decode(&replaced.encode().unwrap()).unwrap())
        .unwrap();
    let partition = partition(&state);
    assert_eq!(partition.superseded(), []);
    assert_eq!(partition.superseded_copies().len(), 1);
    assert_eq!(partition.superseded_of(&captured.key).ranges(), [range(0, 9)]);
    assert_eq!(partition.held_by(&captured).ranges(), []);
    assert_eq!(partition.held().ranges(), [range(0, 9)]);
}

#[test]
fn the_latest_audit_counts_in_whatever_order_it_is_read() {
    let early = commit(WriterId(1), 1, vec![Entry::Audit(audit(10, 100))]);
    let late = commit(WriterId::AUDITOR, 1, vec![Entry::Audit(audit(20, 50))]);
    let mut one = LedgerState::new();
    let mut other = LedgerState::new();
    for (state, commits) in [(&mut one, [&early, &late]), (&mut other, [&late, &early])] {
        for commit in commits {
            state.apply(commit).unwrap();
        }
        assert_eq!(partition(state).audit().unwrap().high_watermark, 50);
        assert_eq!(partition(state).previous_audit().unwrap().high_watermark, 100);
        let (_, topic) = state.latest_incarnation("orders").unwrap();
        assert_eq!(topic.first_seen_ms(), Some(10));
    }
    assert_eq!(one, other);
    assert_eq!(audit(1, 3).wanted(), None, "nothing lies between start and end");
}

#[test]
fn replaced_segments_are_read_no_more_in_whichever_order_the_chains_come() {
    let small = [
        listed(WRITER, 0, 0, 9, Origin::Tee),
        listed(WRITER, 1, 10, 19, Origin::Tee),
    ];
    let large = listed(WriterId::AUDITOR, 0, 0, 19, Origin::Tee);
    let place = identity(Origin::Tee);
    let replaced = Entry::Replaced(Replaced {
        topic: place.topic.clone(),
        incarnation: place.incarnation,
        partition: place.partition,
        by: large.key.clone(),
        keys: small.iter().map(|info| info.key.clone()).collect(),
        at_ms: 7,
    });
    let removed = Entry::Removed(Removed {
        topic: place.topic,
        incarnation: place.incarnation,
        partition: place.partition,
        keys: vec![small[0].key.clone()],
        at_ms: 8,
    });
    let captured = commit(
        place.writer,
        1,
        small.iter().cloned().map(Entry::Segment).collect(),
    );
    let joined = commit(
        WriterId::AUDITOR,
        1,
        vec![Entry::Segment(large.clone()), replaced.clone(), removed],
    );
    let (mut one, mut other) = (LedgerState::new(), LedgerState::new());
    one.apply(&captured).unwrap();
    one.apply(&joined).unwrap();
    other.apply(&joined).unwrap();
    other.apply(&captured).unwrap();
    assert_eq!(one, other);
    let state = partition(&one);
    assert_eq!(state.segments(), [large]);
    assert_eq!(state.held().ranges(), [range(0, 19)]);
    let told: Vec<_> = state
        .replaced()
        .map(|(info, said)| (info.start_offset, said.at_ms, said.removed))
        .collect();
    assert_eq!(told, [(0, 7, true), (10, 7, false)]);
    // Without what takes their place, they stay.
    let mut alone = LedgerState::new();
    alone.apply(&captured).unwrap();
    alone
        .apply(&commit(WriterId::AUDITOR, 1, vec![replaced]))
        .unwrap();
    assert_eq!(partition(&alone).segments(), small);
}

/// Joined twice, and removed: of what came from no buffer nothing is kept but the names.
#[test]
fn what_is_removed_and_came_from_no_buffer_is_forgotten_in_whichever_order_the_chains_come() {
    let fetched = |counter, first, last| {
        let mut info = listed(WriterId::AUDITOR, counter, first, last, Origin::Fetch);
        info.lsn_range = None;
        info
    };
    let small = [fetched(0, 0, 4), fetched(1, 5, 9)];
    let (middle, large) = (fetched(2, 0, 9), fetched(3, 0, 19));
    let place = identity(Origin::Fetch);
    let replaced = |by: &SegmentInfo, keys: &[SegmentInfo]| {
        Entry::Replaced(Replaced {
            topic: place.topic.clone(),
            incarnation: place.incarnation,
            partition: place.partition,
            by: by.key.clone(),
            keys: keys.iter().map(|info| info.key.clone()).collect(),
            at_ms: 7,
        })
    };
    let removed = |keys: &[SegmentInfo]| {
        Entry::Removed(Removed {
            topic: place.topic.clone(),
            incarnation: place.incarnation,
            partition: place.partition,
            keys: keys.iter().map(|info| info.key.clone()).collect(),
            at_ms: 8,
        })
    };
    let mut entries: Vec<Entry> = small.iter().cloned().map(Entry::Segment).collect();
    entries.extend([
        Entry::Segment(middle.clone()),
        replaced(&middle, &small),
        removed(&small),
    ]);
    let first = commit(place.writer, 1, entries);
    let middles = std::slice::from_ref(&middle);
    let entries = vec![
        Entry::Segment(large.clone()),
        replaced(&large, middles),
        removed(middles),
    ];
    let second = commit(WriterId::AUDITOR, 1, entries);
    let (mut one, mut other) = (LedgerState::new(), LedgerState::new());
    for commit in [&first, &second] {
        one.apply(commit).unwrap();
    }
    for commit in [&second, &first] {
        other.apply(commit).unwrap();
    }
    assert_eq!(one, other);
    let state = partition(&one);
    assert_eq!(state.segments(), [large]);
    assert_eq!((state.replaced().count(), state.replaced_count()), (0, 3));
    assert!(state.is_replaced(&small[0].key));
}

#[test]
fn state_objects_are_listed_by_kind_and_time() {
    let object = |kind, first_at_ms: i64| StateObject {
        kind,
        key: format!("{kind}-{first_at_ms}"),
        first_at_ms,
        last_at_ms: first_at_ms + 5,
        full: false,
        bytes: 1,
        crc32c: 2,
    };
    let early = object(StateKind::Groups, 10);
    let late = object(StateKind::Groups, 20);
    let acls = object(StateKind::Acls, 5);
    let newer = object(StateKind::Unknown(200), 1);
    let mut state = LedgerState::new();
    let entries = [&newer, &late, &acls, &early, &late];
    let entries = entries.map(|object| Entry::State(object.clone())).to_vec();
    state.apply(&commit(WriterId::AUDITOR, 1, entries)).unwrap();
    assert_eq!(state.state_objects(), [early, late, acls, newer]);
}

#[test]
fn kinds_of_state_have_one_number_and_one_word() {
    for code in 0..=u8::MAX {
        let kind = StateKind::from_code(code);
        assert_eq!(kind.code(), code);
        assert_eq!(StateKind::from_word(&kind.to_string()), Some(kind));
    }
    assert_eq!(StateKind::TopicConfigs.to_string(), "topic-configs");
    assert_eq!(StateKind::from_word("kind-"), None);
    assert_eq!(StateKind::from_word("people"), None);
}

#[test]
fn the_manifest_says_what_the_auditor_said() {
    let mut state = LedgerState::new();
    state.apply(&sample_commit()).unwrap();
    state.apply(&sample_audit_commit()).unwrap();
    let manifest = Manifest::from_ledger(&state, EPOCH_MS + 90_000);
    let text = manifest.to_json().unwrap();
    assert_eq!(Manifest::from_json(&text).unwrap(), manifest);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let partition = &json["topics"][0]["partitions"][0];
    assert_eq!(partition["superseded"][0]["start_offset"], 110);
    assert_eq!(partition["superseded"][0]["leader_epoch"], 5);
    assert_eq!(partition["audit"]["high_watermark"], 120);
    assert_eq!(partition["absent"][0]["log_start_offset"], 108);
    assert_eq!(json["cluster_state"][0]["kind"], "groups");
}

/// Segment, gap in it, range superseded in it, by offsets from its start.
type Piece = (i64, i64, Option<(i64, i64)>, Option<(i64, i64)>);

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let part = || prop::option::of((1i64..12, 0i64..6));
    prop::collection::vec((0i64..60, 2i64..20, part(), part()), 1..12)
}

proptest! {
    #[test]
    fn held_is_what_the_segments_span_without_gaps_and_superseded_ranges(
        pieces in pieces(), auditor_first: bool,
    ) {
        let mut model = BTreeSet::new();
        let (mut segments, mut lost) = (Vec::new(), Vec::new());
        for (counter, (first, span, gap, dead)) in pieces.into_iter().enumerate() {
            let mut info = listed(WriterId(1), counter as u32, first, first + span, Origin::Tee);
            let mut own: BTreeSet<i64> = (first..=first + span).collect();
            // A gap lies strictly inside; what is superseded may reach anywhere.
            let gap = gap.map(|(at, more)| range(first + at, (first + at + more).min(first + span - 1)));
            if let Some(gap) = gap.filter(|gap| gap.first <= gap.last) {
                own.retain(|offset| !gap.contains(*offset));
                info.gaps = vec![gap];
            }
            if let Some((at, more)) = dead {
                let dead = range(first + at - 1, first + at + more);
                own.retain(|offset| !dead.contains(*offset));
                lost.push(Entry::Superseded(superseded(&info, dead.first, dead.last)));
            }
            model.extend(own);
            segments.push(Entry::Segment(info));
        }
        let mut commits = vec![commit(WriterId(1), 1, segments), commit(WriterId::AUDITOR, 1, lost)];
        if auditor_first {
            commits.reverse();
        }
        let mut state = LedgerState::new();
        for commit in &commits {
            state.apply(&Commit::decode(&commit.encode().unwrap()).unwrap()).unwrap();
        }
        let held = partition(&state).held();
        let seen: BTreeSet<i64> = (-1..120).filter(|offset| held.contains(*offset)).collect();
        prop_assert_eq!(seen, model);
        let by_segment = partition(&state).segments().iter().map(|segment| partition(&state).held_by(segment));
        let union = by_segment.flat_map(|own| own.ranges().to_vec()).collect();
        prop_assert_eq!(held, union);
    }
}
