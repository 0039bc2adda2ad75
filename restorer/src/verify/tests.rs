//! Archives with something planted in them: each is named.

use std::time::Duration;

use teeline_archive::ledger::{Commit, Entry, Replaced};
use teeline_archive::segment::Origin;
use teeline_wire::batch::BatchView;

use super::*;
use crate::coverage::{Clock, coverage};
use crate::fixture::{BACKUP, Fixture, data, edit, marker, sequenced};
use crate::ledger::load;

const TOPIC: &str = "orders";

async fn verified(fixture: &Fixture) -> Verification {
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    let (topics, live, shutdown) = (TopicFilter::default(), Arc::default(), Shutdown::new());
    let verification = verify(&fixture.store, &backup, &topics, &live, &shutdown)
        .await
        .unwrap();
    assert!(render(&verification).contains(if verification.is_clean() {
        "no damage"
    } else {
        "finding"
    }));
    verification
}

/// Three segments without a fault, committed.
async fn whole() -> (Fixture, Vec<SegmentInfo>) {
    let mut fixture = Fixture::new();
    let mut segments = Vec::new();
    for base in [0, 10, 20] {
        // Of the same length, so that no length tells them apart.
        let batches = [data(base, &[1; 4]), data(base + 4, &[1; 6])];
        segments.push(fixture.segment(TOPIC, Origin::Tee, &batches).await);
    }
    fixture.commit().await;
    assert!(verified(&fixture).await.is_clean());
    (fixture, segments)
}

/// Writes the only commit anew, with other entries and a right checksum.
async fn recommit(fixture: &Fixture, change: impl Fn(&mut Vec<Entry>)) {
    let key = "test/ledger/0000000000000007/00000000000000000001.commit";
    let mut commit = Commit::decode(&fixture.store.get(key).await.unwrap()).unwrap();
    change(&mut commit.entries);
    std::fs::write(fixture.directory.path().join(key), commit.encode().unwrap()).unwrap();
}

async fn is_covered(fixture: &Fixture) -> bool {
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    let clock = Clock::new(1_000_000, Duration::ZERO);
    coverage(&backup, &TopicFilter::default(), clock, None).is_whole()
}

#[tokio::test]
async fn a_segment_removed_is_named() {
    let (fixture, segments) = whole().await;
    std::fs::remove_file(fixture.directory.path().join(&segments[1].key)).unwrap();
    let found = verified(&fixture).await.damage;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, segments[1].key);
    assert!(found[0].reason.contains("missing"), "{}", found[0].reason);
}

#[tokio::test]
async fn a_segment_struck_off_the_ledger_is_a_hole_without_an_explanation() {
    let (fixture, segments) = whole().await;
    assert!(is_covered(&fixture).await);
    recommit(&fixture, |entries| {
        entries.retain(|entry| !matches!(entry, Entry::Segment(info) if *info == segments[1]));
    })
    .await;
    assert!(!is_covered(&fixture).await);
}

#[tokio::test]
async fn a_count_that_was_changed_is_named() {
    let (fixture, segments) = whole().await;
    recommit(&fixture, |entries| {
        for entry in entries {
            if let Entry::Segment(info) = entry
                && info.key == segments[2].key
            {
                info.record_count += 1;
            }
        }
    })
    .await;
    let found = verified(&fixture).await.damage;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, segments[2].key);
}

#[tokio::test]
async fn two_segments_that_were_swapped_are_both_named() {
    let (fixture, segments) = whole().await;
    let path = |at: usize| fixture.directory.path().join(&segments[at].key);
    let (one, other) = (std::fs::read(path(0)).unwrap(), std::fs::read(path(1)).unwrap());
    std::fs::write(path(0), other).unwrap();
    std::fs::write(path(1), one).unwrap();
    let found: Vec<String> = verified(&fixture)
        .await
        .damage
        .into_iter()
        .map(|found| found.key)
        .collect();
    assert_eq!(found, [segments[0].key.clone(), segments[1].key.clone()]);
}

#[tokio::test]
async fn two_ranges_that_were_swapped_in_the_ledger_are_named() {
    let (fixture, _) = whole().await;
    recommit(&fixture, |entries| {
        let mut segments: Vec<&mut SegmentInfo> = entries
            .iter_mut()
            .filter_map(|entry| match entry {
                Entry::Segment(info) => Some(info),
                _ => None,
            })
            .collect();
        let (first, second) = segments.split_at_mut(1);
        std::mem::swap(&mut first[0].start_offset, &mut second[0].start_offset);
        std::mem::swap(&mut first[0].end_offset, &mut second[0].end_offset);
    })
    .await;
    // A segment whose name is not its own is refused with its commit, and nothing else is there.
    assert!(!is_covered(&fixture).await);
    assert_eq!(verified(&fixture).await.damage.len(), 1);
}

#[tokio::test]
async fn offsets_that_a_segment_claims_and_does_not_hold_are_named() {
    let mut fixture = Fixture::new();
    // Read back from a compacted log: the batches need not touch each other.
    let sparse = [data(0, &[1; 2]), data(5, &[1; 2])];
    fixture.segment(TOPIC, Origin::Fetch, &sparse).await;
    fixture
        .segment(TOPIC, Origin::Fetch, &[marker(9, 7, 0, true)])
        .await;
    fixture.commit().await;
    assert!(verified(&fixture).await.is_clean());
    // Called captured, the same bytes would hold what they do not have.
    let info = fixture.segment("other", Origin::Tee, &sparse).await;
    assert_eq!(info.gaps.len(), 1);
    let mut claims = info.clone();
    claims.gaps.clear();
    let counted = |ranges: &[(i64, i64)]| Counted {
        covered: ranges
            .iter()
            .map(|(first, last)| OffsetRange {
                first: *first,
                last: *last,
            })
            .collect(),
        ..Counted::default()
    };
    let inside = counted(&[(0, 1), (5, 6)]);
    assert!(compare_offsets(&info, &inside).is_ok());
    assert!(compare_offsets(&claims, &inside).is_err());
    assert!(compare_offsets(&info, &counted(&[(0, 1), (4, 6)])).is_err());
    assert!(compare_offsets(&info, &counted(&[(0, 1)])).is_err());
}

#[tokio::test]
async fn records_that_dispute_the_same_offsets_are_named_and_copies_are_not() {
    let mut fixture = Fixture::new();
    let log = [sequenced(0, 3, (7, 0, 0)), sequenced(3, 2, (7, 0, 3))];
    fixture.segment(TOPIC, Origin::Tee, &log).await;
    fixture.segment(TOPIC, Origin::Fetch, &log[..1]).await;
    fixture.commit().await;
    assert!(verified(&fixture).await.is_clean());
    fixture
        .segment(TOPIC, Origin::Tee, &[sequenced(3, 2, (8, 0, 0))])
        .await;
    fixture.commit().await;
    let found = verified(&fixture).await;
    assert!(!found.is_clean() && found.damage.is_empty());
    assert_eq!(
        (found.disputed[0].first_offset, found.disputed[0].last_offset),
        (3, 4)
    );
    // A leader epoch decides, and nothing is disputed any more.
    let epoch = |batch: &BatchView| edit(batch, |header| header.partition_leader_epoch = 5);
    fixture.segment(TOPIC, Origin::Fetch, &[epoch(&log[1])]).await;
    fixture.commit().await;
    let found = verified(&fixture).await;
    assert!(found.damage.is_empty(), "{:?}", found.damage);
}

#[tokio::test]
async fn segments_that_were_joined_and_deleted_meanwhile_are_read_in_the_larger_one() {
    let (mut fixture, segments) = whole().await;
    let backup = load(&fixture.store, BACKUP).await.unwrap();
    let batches: Vec<_> = [0, 10]
        .into_iter()
        .flat_map(|base| [data(base, &[1; 4]), data(base + 4, &[1; 6])])
        .collect();
    let joined = fixture.segment(TOPIC, Origin::Tee, &batches).await;
    let keys: Vec<String> = segments.iter().take(2).map(|info| info.key.clone()).collect();
    fixture.entry(Entry::Replaced(Replaced {
        topic: TOPIC.to_owned(),
        incarnation: joined.identity.incarnation,
        partition: 0,
        by: joined.key.clone(),
        keys: keys.clone(),
        at_ms: 5,
    }));
    fixture.commit().await;
    for key in &keys {
        fixture.store.delete(key).await.unwrap();
    }
    let again = async || {
        let live = Arc::default();
        verify(
            &fixture.store,
            &backup,
            &TopicFilter::default(),
            &live,
            &Shutdown::new(),
        )
        .await
        .unwrap()
    };
    let verification = again().await;
    assert!(verification.is_clean(), "{:?}", verification.damage);
    assert_eq!(verification.records, 30);
    // What is not in the larger one either is damage.
    fixture.store.delete(&joined.key).await.unwrap();
    let damaged: Vec<String> = again().await.damage.into_iter().map(|found| found.key).collect();
    assert_eq!(damaged, [joined.key]);
}
