#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::Bytes;
use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::segment::{Origin, SegmentInfo, SegmentNotes};
use teeline_config::Segmenter as Settings;
use teeline_runtime::SystemClock;
use uuid::Uuid;

use super::*;
use crate::partition::PartitionId;
use crate::prepare;
use crate::testing::{batch, batch_with, labelled_batch};
use crate::writer::SegmentSink;

async fn segment(store: &Store, writer: u64, origin: Origin, batches: Vec<Bytes>) -> SegmentInfo {
    let sink = SegmentSink::new(
        store.clone(),
        "b",
        WriterId(writer),
        &Settings::default(),
        Arc::new(SystemClock),
        0,
    );
    sink.set_session(SessionId(1));
    let id = PartitionId {
        incarnation: Uuid::from_u128(7),
        partition: 0,
    };
    let mut segment = sink.begin("c", "orders", id, origin).unwrap();
    let pushed = segment.push_with(move |builder| {
        for batch in &batches {
            let prepared = prepare::fetched(batch).unwrap();
            builder.push(&prepared.bytes, prepared.meta).unwrap();
        }
    });
    pushed.await.unwrap();
    segment.finish(SegmentNotes::default()).await.unwrap().unwrap()
}

async fn compared(captured: Vec<Bytes>, log: Vec<Bytes>) -> Comparison {
    let store = Store::in_memory();
    let questioned = segment(&store, 1, Origin::Tee, captured).await;
    let sure = segment(&store, 2, Origin::Fetch, log).await;
    let ranges: OffsetSet = [questioned.range()].into_iter().collect();
    let valid: OffsetSet = [sure.range()].into_iter().collect();
    let doubt = Doubt {
        segment: questioned,
        ranges,
        sure: vec![(sure, valid)],
    };
    compare(&store, &doubt).await.unwrap()
}

fn set(ranges: &[(i64, i64)]) -> OffsetSet {
    ranges
        .iter()
        .map(|(first, last)| OffsetRange {
            first: *first,
            last: *last,
        })
        .collect()
}

/// Of the producer; `thinned` takes that many records out, as compaction does.
fn of_producer(base_offset: i64, records: u32, sequence: i32, thinned: u32) -> Bytes {
    let (_, bytes) = batch_with(base_offset, records - thinned, |header| {
        (header.producer_id, header.producer_epoch, header.base_sequence) = (9, 0, sequence);
        header.last_offset_delta = i32::try_from(records).unwrap() - 1;
    });
    bytes
}

#[tokio::test]
async fn the_same_batches_are_the_same_and_others_are_not() {
    let captured = vec![of_producer(0, 5, 0, 0), batch(5, 5).into(), batch(10, 5).into()];
    let log = vec![
        of_producer(0, 5, 5, 0),
        batch(5, 5).into(),
        labelled_batch(10, 5, "other").into(),
    ];
    let comparison = compared(captured, log).await;
    assert_eq!(comparison.same, set(&[(5, 9)]));
    assert_eq!(comparison.different, set(&[(0, 4), (10, 14)]));
    assert!(comparison.gone.is_empty());
}

#[tokio::test]
async fn what_compaction_has_thinned_out_takes_the_place_of_nothing() {
    let captured = vec![of_producer(0, 5, 0, 0), of_producer(5, 5, 5, 0)];
    let log = vec![of_producer(0, 5, 0, 1), of_producer(5, 5, 5, 0)];
    let comparison = compared(captured, log).await;
    assert_eq!(comparison.gone, set(&[(0, 4)]), "the captured batch holds more");
    assert_eq!(comparison.same, set(&[(5, 9)]));
    assert!(comparison.different.is_empty());
}

#[tokio::test]
async fn offsets_that_the_log_has_nothing_at_are_neither_shown_nor_disproved() {
    let comparison = compared(
        vec![batch(0, 5).into(), batch(5, 5).into()],
        vec![batch(5, 5).into()],
    )
    .await;
    assert_eq!(
        (comparison.gone, comparison.same),
        (set(&[(0, 4)]), set(&[(5, 9)]))
    );
}
