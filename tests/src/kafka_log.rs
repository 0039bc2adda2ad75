//! A broker's own log files, read directly: where batches begin and end, without any client between.

use std::fs;
use std::path::Path;

const HEADER_BYTES: usize = 61;

/// The header of one batch as it lies on a broker's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its first offset.
    pub base_offset: i64,
    /// Its number of records.
    pub record_count: i32,
    /// The codec, 0 to 4: none, gzip, snappy, lz4, zstd.
    pub codec: i16,
    /// Part of a transaction.
    pub transactional: bool,
    /// A marker.
    pub control: bool,
    /// Who wrote it, -1 for nobody in particular.
    pub producer_id: i64,
}

/// Every batch of a partition, from all of its segments in order.
pub fn batches(partition_directory: &Path) -> Vec<StoredBatch> {
    let mut files: Vec<_> = fs::read_dir(partition_directory)
        .unwrap_or_else(|error| panic!("list {}: {error}", partition_directory.display()))
        .map(|entry| entry.expect("list a partition's files").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|path| parse(&fs::read(path).expect("read a broker's log file")))
        .collect()
}

/// The batches of a run of record batches, as in a log file; an unfinished one at the end is left out.
pub fn parse(log: &[u8]) -> Vec<StoredBatch> {
    let mut batches = Vec::new();
    let mut rest = log;
    while rest.len() >= HEADER_BYTES {
        let length = 12 + u32::from_be_bytes(field(rest, 8)) as usize;
        if rest.len() < length || length < HEADER_BYTES {
            break;
        }
        let attributes = i16::from_be_bytes(field(rest, 21));
        batches.push(StoredBatch {
            base_offset: i64::from_be_bytes(field(rest, 0)),
            record_count: i32::from_be_bytes(field(rest, 57)),
            codec: attributes & 0x07,
            transactional: attributes & 0x10 != 0,
            control: attributes & 0x20 != 0,
            producer_id: i64::from_be_bytes(field(rest, 43)),
        });
        rest = &rest[length..];
    }
    batches
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as long as asked for")
}
