//! What the source has, as the bytes of its record batches: fetched from the leaders by franz-go, markers and aborted
//! records included, nothing decoded. This is the truth that an archive is compared with.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::driver::Driver;

const HEADER_BYTES: usize = 61;
/// The four bytes of a batch, outside of its checksum, that a broker sets and a tee may not know.
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// One record batch, whole.
#[derive(Clone, PartialEq, Eq)]
pub struct RawBatch {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Under which leader it was written; -1 where that is not known.
    pub leader_epoch: i32,
    /// A transaction marker.
    pub control: bool,
    /// Part of a transaction, its marker included.
    pub transactional: bool,
    /// Number of records.
    pub records: u32,
    /// Who wrote it; -1 for nobody in particular.
    pub producer_id: i64,
    /// Which of its epochs; it begins to count its records anew with each.
    pub producer_epoch: i16,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl RawBatch {
    /// The batches of a run, which must be whole.
    pub fn parse_run(mut run: &[u8]) -> Vec<Self> {
        let mut batches = Vec::new();
        while !run.is_empty() {
            assert!(
                run.len() >= HEADER_BYTES,
                "a batch is cut short: {} bytes",
                run.len()
            );
            let length = 12 + u32::from_be_bytes(field(run, 8)) as usize;
            let (batch, rest) = run.split_at(length);
            batches.push(Self::parse(batch));
            run = rest;
        }
        batches
    }

    fn parse(bytes: &[u8]) -> Self {
        let base_offset = i64::from_be_bytes(field(bytes, 0));
        let attributes = i16::from_be_bytes(field(bytes, 21));
        Self {
            base_offset,
            last_offset: base_offset + i64::from(i32::from_be_bytes(field(bytes, 23))),
            leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH.start)),
            control: attributes & 0x20 != 0,
            transactional: attributes & 0x10 != 0,
            records: u32::from_be_bytes(field(bytes, 57)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            bytes: bytes.to_vec(),
        }
    }

    /// Whether both are the same batch at the same offsets, byte for byte but for the leader epoch.
    pub fn is_same(&self, other: &Self) -> bool {
        let around = |batch: &'_ Self| {
            let (head, tail) = (
                &batch.bytes[..LEADER_EPOCH.start],
                &batch.bytes[LEADER_EPOCH.end..],
            );
            [head.to_vec(), tail.to_vec()]
        };
        self.bytes.len() == other.bytes.len() && around(self) == around(other)
    }
}

impl std::fmt::Debug for RawBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.control, self.transactional) {
            (true, _) => "marker",
            (false, true) => "transactional",
            (false, false) => "plain",
        };
        write!(
            f,
            "{}..={} ({kind}, epoch {}, producer {}, {} B)",
            self.base_offset,
            self.last_offset,
            self.leader_epoch,
            self.producer_id,
            self.bytes.len()
        )
    }
}

/// One partition of the source.
#[derive(Debug, Clone)]
pub struct SourcePartition {
    /// The topic's id, 32 hex digits.
    pub topic_id: String,
    /// The first offset that it still has.
    pub log_start: i64,
    /// The offset after the last one.
    pub high_watermark: i64,
    /// The present leader's epoch.
    pub leader_epoch: i32,
    /// What it has, in order.
    pub batches: Vec<RawBatch>,
}

/// Topics of the source, by name and partition.
#[derive(Debug, Clone, Default)]
pub struct SourceLog(pub BTreeMap<(String, i32), SourcePartition>);

impl SourcePartition {
    /// Producer id and epoch of what is at an offset.
    pub fn producer_at(&self, offset: i64) -> Option<(i64, i16)> {
        let at = self.batches.partition_point(|batch| batch.last_offset < offset);
        let batch = self.batches.get(at)?;
        (batch.base_offset <= offset).then_some((batch.producer_id, batch.producer_epoch))
    }
}

impl SourceLog {
    /// Fetches whole topics. What is written meanwhile may or may not be among it.
    pub fn fetch(go: &Driver, bootstrap: &str, topics: &[&str]) -> Self {
        let out = go.file(&format!("raw-{:08x}", rand::random::<u32>()));
        let answer = go.ask(&json!({"op": "read_raw", "bootstrap": bootstrap, "topics": topics, "out": out}));
        let rows = answer["partitions"].as_array().expect("an array of partitions");
        Self(rows.iter().map(Self::row).collect())
    }

    fn row(row: &Value) -> ((String, i32), SourcePartition) {
        let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name} in {row}"));
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name} in {row}"));
        let file = text("file");
        let bytes = fs::read(file).unwrap_or_else(|error| panic!("read {file}: {error}"));
        // Nobody needs it again, and a long run makes many.
        fs::remove_file(file).unwrap_or_else(|error| panic!("remove {file}: {error}"));
        let (high_watermark, mut batches) = (number("high_watermark"), RawBatch::parse_run(&bytes));
        batches.retain(|batch| batch.base_offset < high_watermark);
        let partition = SourcePartition {
            topic_id: text("topic_id").to_owned(),
            log_start: number("log_start"),
            high_watermark,
            leader_epoch: i32::try_from(number("leader_epoch")).expect("an epoch"),
            batches,
        };
        let key = (
            text("topic").to_owned(),
            i32::try_from(number("partition")).expect("a partition"),
        );
        (key, partition)
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("as long as asked for")
}
