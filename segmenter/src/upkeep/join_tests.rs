#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::Bytes;
use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::segment::UndecidedTransaction;
use teeline_config::Segmenter as Settings;
use teeline_runtime::SystemClock;
use uuid::Uuid;

use super::*;
use crate::testing::{batch, marker, transactional_batch};

const TOPIC: &str = "orders";

fn sink(store: &Store, writer: WriterId) -> SegmentSink {
    let settings = Settings {
        block_bytes: 4_096,
        ..Settings::default()
    };
    let sink = SegmentSink::new(store.clone(), "b", writer, &settings, Arc::new(SystemClock), 0);
    sink.set_session(SessionId(1));
    sink
}

async fn segment(
    store: &Store,
    counter: u64,
    origin: Origin,
    batches: Vec<Bytes>,
    notes: SegmentNotes,
) -> SegmentInfo {
    let id = PartitionId {
        incarnation: Uuid::from_u128(7),
        partition: 3,
    };
    let mut writer = sink(store, WriterId(counter))
        .begin("c", TOPIC, id, origin)
        .unwrap();
    let pushed = writer.push_with(move |builder| {
        for batch in &batches {
            let prepared = prepare::fetched(batch).unwrap();
            builder.push(&prepared.bytes, prepared.meta).unwrap();
        }
    });
    pushed.await.unwrap();
    writer.finish(notes).await.unwrap().unwrap()
}

fn run(segments: Vec<SegmentInfo>) -> Run {
    Run {
        topic: TOPIC.to_owned(),
        incarnation: Uuid::from_u128(7),
        partition: 3,
        segments,
    }
}

async fn content(store: &Store, segments: &[SegmentInfo]) -> Vec<Bytes> {
    let mut found = Vec::new();
    for info in segments {
        let stored = StoredSegment::open(store, info).await.unwrap();
        for block in stored.blocks() {
            let batches = stored.batches_of(store, block).await.unwrap();
            found.extend(batches.iter().map(|batch| batch.bytes().clone()));
        }
    }
    found
}

fn gap(first: i64, last: i64) -> OffsetRange {
    OffsetRange { first, last }
}

#[tokio::test]
async fn captured_segments_become_one_with_the_same_batches_and_gaps() {
    let store = Store::in_memory();
    let (sent, sent_next) = (Bytes::from(batch(0, 10)), Bytes::from(batch(12, 300)));
    let open = UndecidedTransaction {
        producer_id: 9,
        producer_epoch: 0,
        first_offset: 400,
        last_offset: 404,
    };
    let notes = SegmentNotes {
        undecided_first_offset: 400,
        undecided: vec![open],
        ..SegmentNotes::default()
    };
    let parts = vec![
        segment(
            &store,
            1,
            Origin::Tee,
            vec![sent, sent_next],
            SegmentNotes::default(),
        )
        .await,
        segment(
            &store,
            2,
            Origin::Tee,
            vec![transactional_batch(400, 5, 9, 0).1],
            notes,
        )
        .await,
    ];
    let before = content(&store, &parts).await;
    let joined = join(&store, &sink(&store, WriterId::AUDITOR), "c", &run(parts))
        .await
        .unwrap();
    assert_eq!((joined.start_offset, joined.end_offset), (0, 404));
    assert_eq!(joined.gaps, [gap(10, 11), gap(312, 399)]);
    assert_eq!((joined.record_count, joined.batch_count), (315, 3));
    assert_eq!(
        (joined.undecided_first_offset, joined.undecided.as_slice()),
        (400, [open].as_slice())
    );
    assert_eq!(content(&store, &[joined]).await, before);
}

#[tokio::test]
async fn fetched_segments_vouch_for_no_more_than_before() {
    let store = Store::in_memory();
    let notes = SegmentNotes {
        gaps: vec![gap(11, 19)],
        ..SegmentNotes::default()
    };
    let parts = vec![
        segment(
            &store,
            1,
            Origin::Fetch,
            vec![marker(10, 5, true).1, marker(20, 5, false).1],
            notes,
        )
        .await,
        // Compaction took 31 to 34: the segment vouches for that.
        segment(
            &store,
            2,
            Origin::Fetch,
            vec![batch(30, 1).into(), batch(35, 2).into()],
            SegmentNotes::default(),
        )
        .await,
    ];
    let joined = join(&store, &sink(&store, WriterId::AUDITOR), "c", &run(parts))
        .await
        .unwrap();
    assert_eq!(joined.gaps, [gap(11, 19), gap(21, 29)]);
    assert_eq!((joined.control_count, joined.record_count), (2, 3));
}

#[tokio::test]
async fn a_part_that_is_damaged_or_gone_is_named_and_nothing_comes_of_it() {
    let store = Store::in_memory();
    let good = segment(
        &store,
        1,
        Origin::Tee,
        vec![batch(0, 10).into()],
        SegmentNotes::default(),
    )
    .await;
    let bad = segment(
        &store,
        2,
        Origin::Tee,
        vec![batch(10, 10).into()],
        SegmentNotes::default(),
    )
    .await;
    let mut bytes = store.get(&bad.key).await.unwrap().to_vec();
    bytes[20] ^= 1;
    store.put(&bad.key, bytes.into()).await.unwrap();
    let auditor = sink(&store, WriterId::AUDITOR);
    let failed = join(&store, &auditor, "c", &run(vec![good.clone(), bad.clone()])).await;
    let error = failed.unwrap_err();
    assert!(
        matches!(error, JoinError::Read(StoredError::Segment { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains(&bad.key), "{error}");
    store.delete(&bad.key).await.unwrap();
    let failed = join(&store, &auditor, "c", &run(vec![good, bad])).await;
    assert!(matches!(failed, Err(JoinError::Read(StoredError::Store { .. }))));
}

#[tokio::test]
async fn what_counts_less_than_its_parts_replaces_nothing() {
    let store = Store::in_memory();
    let mut part = segment(
        &store,
        1,
        Origin::Tee,
        vec![batch(0, 10).into()],
        SegmentNotes::default(),
    )
    .await;
    part.record_count = 11;
    let failed = join(&store, &sink(&store, WriterId::AUDITOR), "c", &run(vec![part])).await;
    assert!(matches!(
        failed,
        Err(JoinError::Differs {
            what: "records",
            expected: 11,
            found: 10
        })
    ));
}
