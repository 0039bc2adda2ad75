//! Frames, Produce requests, checksums, and batches made ready for producing again.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use teeline_restorer::replay::{Wanted, replay};
use teeline_restorer::window::{Position, Window};
use teeline_wire::batch::{Producer, reset_for_replay, split_for_replay};
use teeline_wire::codec::Compression;
use teeline_wire::frame::{FrameLimits, read_frame};
use teeline_wire::header::RequestHeader;
use teeline_wire::produce::parse_request;
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, rebuild_within};

use crate::input::{FULL_BATCH_BYTES, PRODUCE_VERSION, batch, produce_body, produce_frame};

pub(crate) fn all(criterion: &mut Criterion) {
    frame_read(criterion);
    produce_parse(criterion);
    checksum(criterion);
    replay_batches(criterion);
}

fn frame_read(criterion: &mut Criterion) {
    let stream = produce_frame(1, &batch(FULL_BATCH_BYTES, Compression::None, 0));
    let limits = FrameLimits { max_bytes: 1 << 20 };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("frame read, 64 KiB");
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("from memory", |bencher| {
        bencher.iter(|| {
            let mut from: &[u8] = black_box(&stream);
            runtime.block_on(read_frame(&mut from, limits)).unwrap()
        });
    });
    memcpy(&mut group, &stream);
    group.finish();
}

fn produce_parse(criterion: &mut Criterion) {
    for (name, partitions, bytes) in [
        ("Produce parse, 1 x 64 KiB", 1, FULL_BATCH_BYTES),
        ("Produce parse, 100 x 1 KiB", 100, 1_024),
    ] {
        let batch = batch(bytes, Compression::None, 0);
        let body = produce_body(partitions, &batch);
        let frame = produce_frame(partitions, &batch);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function("header", |bencher| {
            bencher.iter(|| RequestHeader::parse(black_box(&frame[4..])).unwrap());
        });
        group.bench_function("body, records shared", |bencher| {
            bencher.iter(|| parse_request(PRODUCE_VERSION, black_box(&body)).unwrap());
        });
        memcpy(&mut group, &body);
        group.finish();
    }
}

fn checksum(criterion: &mut Criterion) {
    for (name, bytes) in [
        ("CRC-32C, 1 KiB", 1_024),
        ("CRC-32C, 16 KiB", 16_384),
        ("CRC-32C, 64 KiB", 65_536),
    ] {
        let content = batch(bytes, Compression::None, 0).into_bytes();
        let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
        assert_eq!(
            u64::from(crc32c::crc32c(&content)),
            crc_fast::checksum(algorithm, &content)
        );
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function("as used here", |bencher| {
            bencher.iter(|| crc32c::crc32c(black_box(&content)));
        });
        group.bench_function("limit: carry-less multiplication in vectors", |bencher| {
            bencher.iter(|| crc_fast::checksum(algorithm, black_box(&content)));
        });
        group.finish();
    }
}

fn replay_batches(criterion: &mut Criterion) {
    let producer = Producer {
        id: 7,
        epoch: 0,
        base_sequence: 40,
    };
    let wanted = Wanted {
        window: Window::ALL,
        position: Position::Inside,
        from_offset: 0,
        batch_bytes_max: 1 << 20,
    };
    let stored = batch(FULL_BATCH_BYTES, Compression::None, 0);
    let mut group = criterion.benchmark_group("batch rewriting for replay, 64 KiB");
    group.throughput(Throughput::Bytes(stored.bytes().len() as u64));
    group.bench_function("decide, and a new header before the same payload", |bencher| {
        bencher.iter(|| {
            let replayed = replay(black_box(&stored), wanted).unwrap();
            split_for_replay(&replayed.batches[0], producer).unwrap()
        });
    });
    let bytes = stored.bytes().to_vec();
    group.bench_function("in place", |bencher| {
        bencher.iter_batched_ref(
            || bytes.clone(),
            |bytes| reset_for_replay(bytes, producer).unwrap(),
            BatchSize::LargeInput,
        );
    });
    for codec in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let compressed = batch(FULL_BATCH_BYTES, codec, 0);
        group.bench_function(
            format!("records decoded and encoded anew, {}", codec.name()),
            |bencher| {
                bencher.iter(|| {
                    rebuild_within(black_box(&compressed), DECOMPRESSED_BYTES_MAX, 1 << 20, |_| true).unwrap()
                });
            },
        );
    }
    memcpy(&mut group, stored.bytes());
    group.finish();
}

/// The same bytes copied to fresh memory.
pub(crate) fn memcpy(group: &mut BenchmarkGroup<'_, WallTime>, bytes: &[u8]) {
    group.bench_function("limit: memcpy", |bencher| {
        bencher.iter(|| Bytes::copy_from_slice(black_box(bytes)));
    });
}
