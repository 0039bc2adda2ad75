//! Appends to the write-ahead buffer, beside plain writes of the same bytes with as many syncs.
//!
//! Both go to fresh files in one directory, on whatever disk the build lies. A sync's time changes with all else that
//! this disk does, so only the ratio means something.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use teeline_archive::buffer::{Frame, Intent, TopicRef};
use teeline_proxy::buffer::{SyncMode, Writer, WriterSettings};
use teeline_wire::codec::Compression;
use tempfile::TempDir;

use crate::input::{FULL_BATCH_BYTES, batch};

/// What `buffer.sync_interval_ms` is by default.
const SYNC_EVERY: Duration = Duration::from_millis(5);
/// Batches of one measured append with asynchronous capture.
const ASYNC_BATCHES: usize = 64;
/// Batches of one write of a mebibyte.
const GATHERED: usize = 16;
/// Writes after which the buffer syncs, whatever its interval is: it bounds what it has to keep for another file.
const UNSYNCED_WRITES_MAX: usize = 4;

pub(crate) fn all(criterion: &mut Criterion) {
    let records = batch(FULL_BATCH_BYTES, Compression::None, 0).into_bytes();
    for at_once in [1, 16] {
        group_commit(criterion, at_once, &records);
    }
    asynchronous(criterion, &records);
}

/// So many batches of 64 KiB wait for one sync.
fn group_commit(criterion: &mut Criterion, at_once: usize, records: &Bytes) {
    let mut group = criterion.benchmark_group(format!("buffer, group commit of {at_once} x 64 KiB"));
    group.throughput(Throughput::Bytes((at_once * records.len()) as u64));
    group.bench_function("append and wait for the sync", |bencher| {
        bencher.iter_custom(|iterations| {
            with_writer(SyncMode::OnAppend, async |writer| {
                let began = Instant::now();
                for _ in 0..iterations {
                    let frames = vec![intent(records); at_once];
                    let appended = writer.append(frames).await.unwrap();
                    writer.wait_synced(appended.end()).await.unwrap();
                }
                began.elapsed()
            })
        });
    });
    group.bench_function("limit: one vectored write and one sync", |bencher| {
        bencher.iter_custom(|iterations| {
            let directory = directory();
            let mut file = File::create_new(directory.path().join("raw")).unwrap();
            let began = Instant::now();
            for _ in 0..iterations {
                write_gathered(&mut file, records, at_once);
                file.sync_data().unwrap();
            }
            began.elapsed()
        });
    });
    group.finish();
}

/// Appends do not wait; the disk is synced at an interval, and once at the end.
fn asynchronous(criterion: &mut Criterion, records: &Bytes) {
    let mut group = criterion.benchmark_group("buffer, appends with a sync every 5 ms or 4 MiB");
    group.throughput(Throughput::Bytes((ASYNC_BATCHES * records.len()) as u64));
    group.bench_function("append", |bencher| {
        bencher.iter_custom(|iterations| {
            with_writer(SyncMode::Every(SYNC_EVERY), async |writer| {
                let began = Instant::now();
                let mut end = None;
                for _ in 0..iterations * ASYNC_BATCHES as u64 {
                    end = Some(writer.append(vec![intent(records)]).await.unwrap().end());
                }
                writer.wait_synced(end.unwrap()).await.unwrap();
                began.elapsed()
            })
        });
    });
    group.bench_function("limit: write, with a sync as often", |bencher| {
        bencher.iter_custom(|iterations| {
            let directory = directory();
            let mut file = File::create_new(directory.path().join("raw")).unwrap();
            let began = Instant::now();
            let (mut synced, mut unsynced) = (began, 0);
            // By a mebibyte, as the buffer gathers what nobody waits for.
            for _ in 0..iterations * (ASYNC_BATCHES / GATHERED) as u64 {
                write_gathered(&mut file, records, GATHERED);
                unsynced += 1;
                if synced.elapsed() >= SYNC_EVERY || unsynced >= UNSYNCED_WRITES_MAX {
                    file.sync_data().unwrap();
                    (synced, unsynced) = (Instant::now(), 0);
                }
            }
            file.sync_data().unwrap();
            began.elapsed()
        });
    });
    group.finish();
}

fn write_gathered(file: &mut File, records: &Bytes, count: usize) {
    let mut slices = vec![IoSlice::new(records); count];
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let written = file.write_vectored(slices).unwrap();
        IoSlice::advance_slices(&mut slices, written);
    }
}

fn intent(records: &Bytes) -> Frame {
    Frame::Intent(Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: 1_700_000_000_000,
        topic: TopicRef::by_name("orders"),
        partition: 3,
        transactional_id: None,
        records: records.clone(),
    })
}

/// A writer in a directory of its own; opening and closing it are not measured.
fn with_writer(mode: SyncMode, measure: impl AsyncFnOnce(&Writer) -> Duration) -> Duration {
    let directory = directory();
    let settings = WriterSettings {
        dir: directory.path().to_owned(),
        max_bytes: u64::MAX,
        file_bytes: 128 << 20,
        mode,
        // What one buffer has by default.
        pending_bytes_max: 64 << 20,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (writer, _) = Writer::open(settings, || 1_700_000_000_000).unwrap();
        let elapsed = measure(&writer).await;
        writer.close().await.unwrap();
        elapsed
    })
}

fn directory() -> TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}
