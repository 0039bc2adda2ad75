//! What the machine itself asks for: a sync of a file, plain writes of files, and the codec alone.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use crate::cost;
use crate::report::median;

/// Milliseconds of one sync after so many bytes were appended, at the median.
///
/// # Panics
/// When the directory cannot be written.
pub fn sync_ms(directory: &Path, bytes: &[u8]) -> f64 {
    let path = directory.join("syncs");
    let mut file = File::create(&path).expect("create a file to sync");
    let times = (0..SYNCS).map(|_| {
        file.write_all(bytes).expect("append to a file");
        let begun = Instant::now();
        file.sync_data().expect("sync a file");
        begun.elapsed().as_secs_f64() * 1e3
    });
    let times: Vec<f64> = times.collect();
    std::fs::remove_file(&path).expect("remove the file again");
    median(times.into_iter())
}

/// CPU seconds of a gigabyte that is written as the buffer writes what nobody waits for, to files that stay until all are
/// written, as they do while the archive is behind. Where a virtual machine's host takes free memory back, most of it is the
/// host finding memory again.
///
/// # Panics
/// When the directory cannot be written.
pub fn write_cpu_seconds_per_gb(directory: &Path, batches: &[Bytes]) -> f64 {
    let content = batches.concat();
    let mut pieces = content.chunks(WRITE_BYTES).cycle();
    let path = |number: usize| directory.join(format!("writes-{number}"));
    let mut bytes = 0;
    let cpu_seconds = cost::own_cpu_seconds(|| {
        for number in 0..WRITTEN_FILES {
            let mut file = File::create(path(number)).expect("create a file to write");
            for written in 1..=FILE_WRITES {
                let piece = pieces.next().expect("batches");
                file.write_all(piece).expect("write a file");
                bytes += piece.len();
                if written % WRITES_OF_A_SYNC == 0 {
                    file.sync_data().expect("sync a file");
                }
            }
        }
    });
    for number in 0..WRITTEN_FILES {
        std::fs::remove_file(path(number)).expect("remove the file again");
    }
    cpu_seconds / bytes as f64 * 1e9
}

/// CPU seconds that zstd spends on a gigabyte of these batches, in blocks as long as those of segments.
///
/// # Panics
/// When zstd fails.
pub fn zstd_cpu_seconds_per_gb(batches: &[Bytes], level: i32) -> f64 {
    let content = batches.concat();
    let mut compressor = zstd::bulk::Compressor::new(level).expect("a compressor");
    compressor.include_checksum(true).expect("a checksum");
    let cpu_seconds = cost::own_cpu_seconds(|| {
        for _ in 0..TIMES {
            for block in content.chunks(BLOCK_BYTES) {
                black_box(compressor.compress(block).expect("compress a block"));
            }
        }
    });
    cpu_seconds / (TIMES * content.len()) as f64 * 1e9
}

const SYNCS: usize = 100;
/// A gigabyte in all, by the sizes of the proxy's buffer.
const WRITTEN_FILES: usize = 8;
const FILE_WRITES: usize = 128;
const WRITE_BYTES: usize = 1 << 20;
const WRITES_OF_A_SYNC: usize = 4;
const TIMES: usize = 10;
/// The levels between which a segmenter chooses that was not told one: zstd's own default, and the one that does for JSON.
pub const ZSTD_LEVELS: [i32; 2] = [3, 1];
/// Of a segment.
const BLOCK_BYTES: usize = 1 << 20;
