//! From a captured batch to a segment, with each codec; and how intents meet their outcomes before that.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::Write;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use teeline_archive::buffer::{Intent, Outcome, TopicRef};
use teeline_archive::segment::{BLOCK_BYTES_DEFAULT, Codec, Origin, SegmentBuilder, SegmentIdentity};
use teeline_archive::{BufferPosition, Lsn, SessionId, WriterId};
use teeline_benches::limits::ZSTD_LEVELS;
use teeline_segmenter::buffer::FrameLocation;
use teeline_segmenter::prepare::{Prepared, captured};
use teeline_segmenter::resolver::Resolver;
use teeline_wire::batch::BATCH_HEADER_BYTES;
use teeline_wire::codec::{Compression, decompress_within};
use uuid::Uuid;

use crate::input::{FULL_BATCH_BYTES, batch};
use crate::wire::memcpy;

/// Batches of one measured segment, about 4 MiB.
const BATCHES: u64 = 64;
/// One of those between which a segmenter chooses.
const ZSTD_LEVEL: i32 = ZSTD_LEVELS[0];

pub(crate) fn all(criterion: &mut Criterion) {
    pairing(criterion);
    prepare(criterion);
    for codec in Codec::ALL {
        build(criterion, codec);
    }
}

fn pairing(criterion: &mut Criterion) {
    let records = batch(1_024, Compression::None, 0).into_bytes();
    let mut group = criterion.benchmark_group("outcome pairing, 1,000 batches");
    group.throughput(Throughput::Elements(PAIRS));
    let mut resolver = Resolver::default();
    let mut session = 0;
    group.bench_function("intents, then their outcomes", |bencher| {
        bencher.iter(|| {
            session += 1;
            pair(&mut resolver, SessionId(session), &records);
        });
    });
    group.bench_function("limit: a hash map of as many entries", |bencher| {
        bencher.iter(|| {
            let mut entries = HashMap::new();
            for lsn in 0..PAIRS {
                entries.insert(lsn, intent(lsn, &records));
            }
            (0..PAIRS).filter_map(|lsn| entries.remove(&lsn)).count()
        });
    });
    group.finish();
}

const PAIRS: u64 = 1_000;

fn intent(lsn: u64, records: &Bytes) -> Intent {
    Intent {
        connection_id: lsn % 50,
        acks: -1,
        sent_at_ms: 5,
        topic: TopicRef::by_name("orders"),
        partition: (lsn % 100) as i32,
        transactional_id: None,
        records: records.clone(),
    }
}

fn pair(resolver: &mut Resolver, session: SessionId, records: &Bytes) {
    for lsn in 1..=PAIRS {
        let position = BufferPosition::new(session, Lsn(lsn));
        let location = FrameLocation {
            file_number: 1,
            at: lsn * 2_000,
            len: 2_000,
        };
        let ended = resolver.on_intent(position, location, &intent(lsn, records), |_| None, 10);
        assert!(ended.is_none());
    }
    for lsn in 1..=PAIRS {
        let outcome = Outcome {
            intent: Lsn(lsn),
            received_at_ms: 6,
            error_code: 0,
            base_offset: lsn as i64,
            log_append_time_ms: -1,
            log_start_offset: 0,
            leader_epoch: 3,
        };
        let position = BufferPosition::new(session, Lsn(PAIRS + lsn));
        assert!(black_box(resolver.on_outcome(position, &outcome, 10)).is_some());
    }
}

fn prepare(criterion: &mut Criterion) {
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let sent = batch(FULL_BATCH_BYTES, codec, 0).into_bytes();
        let name = format!("captured batch as the broker stored it, {}", codec.name());
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(sent.len() as u64));
        group.bench_function("checked, placed and described", |bencher| {
            // As read from the buffer: nobody else holds it.
            bencher.iter_batched(
                || Bytes::from(sent.to_vec()),
                |sent| captured(sent, 70, 3, None).unwrap(),
                BatchSize::LargeInput,
            );
        });
        match codec {
            Compression::None => memcpy(&mut group, &sent),
            _ => {
                let records = sent.slice(BATCH_HEADER_BYTES..);
                let mut place = Vec::new();
                group.bench_function("limit: the decoder itself", |bencher| {
                    bencher.iter(|| {
                        decompress_within(codec, black_box(&records), 2 * FULL_BATCH_BYTES, &mut place)
                            .unwrap()
                            .len()
                    });
                });
            }
        }
        group.finish();
    }
}

fn build(criterion: &mut Criterion, codec: Codec) {
    let mut offset = 0;
    let batches: Vec<Prepared> = (0..BATCHES)
        .map(|n| {
            let sent = batch(FULL_BATCH_BYTES, Compression::None, n * 64).into_bytes();
            let prepared = captured(sent, offset, 3, None).unwrap();
            offset = prepared.meta.last_offset + 1;
            prepared
        })
        .collect();
    let content: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
    let mut group = criterion.benchmark_group(format!("segment building, {codec}"));
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("blocks and footer", |bencher| {
        bencher.iter(|| {
            let mut builder =
                SegmentBuilder::new(identity(), codec, ZSTD_LEVEL, BLOCK_BYTES_DEFAULT).unwrap();
            let mut bytes = 0;
            for batch in &batches {
                builder.push(&batch.bytes, batch.meta.clone()).unwrap();
                bytes += builder.drain_output().len();
            }
            bytes + builder.finish().unwrap().tail.len()
        });
    });
    match codec {
        Codec::None => memcpy(&mut group, &content),
        Codec::Lz4 => {
            group.bench_function("limit: lz4 itself", |bencher| {
                bencher.iter(|| lz4(black_box(&content)))
            });
        }
        Codec::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).unwrap();
            compressor.include_checksum(true).unwrap();
            group.bench_function("limit: zstd itself", |bencher| {
                bencher.iter(|| {
                    let blocks = black_box(&content).chunks(BLOCK_BYTES_DEFAULT);
                    blocks
                        .map(|block| compressor.compress(block).unwrap().len())
                        .sum::<usize>()
                });
            });
        }
    }
    group.finish();
}

/// With the settings of a segment's blocks: independent frames with a checksum of their content.
fn lz4(content: &[u8]) -> usize {
    let info = FrameInfo::new()
        .content_checksum(true)
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max1MB);
    let mut bytes = 0;
    for block in content.chunks(BLOCK_BYTES_DEFAULT) {
        let mut encoder = FrameEncoder::with_frame_info(info.clone(), Vec::with_capacity(block.len() / 2));
        encoder.write_all(block).unwrap();
        bytes += encoder.finish().unwrap().len();
    }
    bytes
}

fn identity() -> SegmentIdentity {
    SegmentIdentity {
        backup_id: "bench".to_owned(),
        cluster_id: "cluster".to_owned(),
        topic: "orders".to_owned(),
        incarnation: Uuid::from_u128(17),
        partition: 0,
        writer: WriterId(7),
        session: SessionId(1),
        counter: 0,
        origin: Origin::Tee,
        created_at_ms: 1_700_000_000_000,
    }
}
