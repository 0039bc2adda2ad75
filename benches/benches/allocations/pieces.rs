//! Single pieces of the hot path, by themselves.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use stats_alloc::Region;
use teeline_archive::buffer::{Intent, TopicRef, encode_intent_prefix};
use teeline_archive::{Lsn, SessionId};
use teeline_benches::producer::event;
use teeline_segmenter::prepare::captured;
use teeline_wire::batch::{BatchView, Producer, split_for_replay};
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use crate::{ALLOCATOR, Line};

const TIMES: u32 = 1_000;
const BATCH_BYTES: usize = 65_536;

pub(crate) fn all() -> Vec<Line> {
    let sent = batch();
    let records = sent.bytes().clone();
    let mut scratch = BytesMut::new();
    let intent = intent(&records);
    let producer = Producer {
        id: 7,
        epoch: 0,
        base_sequence: 40,
    };
    vec![
        counted("an intent's frame without its records", || {
            scratch.clear();
            encode_intent_prefix(&intent, SessionId(1), Lsn(1), &mut scratch).unwrap();
        }),
        counted("a captured batch as the broker stored it", || {
            drop(black_box(captured(records.clone(), 70, 3, None).unwrap()));
        }),
        counted("a new header before the same payload, for replay", || {
            drop(black_box(split_for_replay(&sent, producer).unwrap()));
        }),
    ]
}

fn batch() -> BatchView {
    let mut builder = BatchBuilder::new(Compression::None);
    for number in 0..BATCH_BYTES as u64 / 1_100 {
        builder
            .push(1_700_000_000_000, None, Some(event(number).as_bytes()), &[])
            .unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn intent(records: &Bytes) -> Intent {
    Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: 1_700_000_000_000,
        topic: TopicRef::by_name("orders"),
        partition: 3,
        transactional_id: None,
        records: records.clone(),
    }
}

fn counted(what: &str, mut piece: impl FnMut()) -> Line {
    // What is kept for later times is made now.
    piece();
    let region = Region::new(ALLOCATOR);
    for _ in 0..TIMES {
        piece();
    }
    let stats = region.change();
    let each = |count: usize| count as f64 / f64::from(TIMES);
    Line {
        what: what.to_owned(),
        batch_bytes: BATCH_BYTES,
        allocations_per_request: each(stats.allocations),
        reallocations_per_request: each(stats.reallocations),
        allocated_bytes_per_request: each(stats.bytes_allocated),
    }
}
