//! An archive for tests: batches as brokers store them, segments, commits, in a directory of its own.

use bytes::Bytes;
use teeline_archive::ledger::{Commit, Entry, TopicSnapshot, TxnEvidence};
use teeline_archive::names::segment_index_key;
use teeline_archive::segment::{
    BatchKind, BatchMeta, Codec, Marker, Origin, Producer, SegmentBuilder, SegmentIdentity, SegmentInfo,
    SegmentNotes,
};
use teeline_archive::{SessionId, WriterId};
use teeline_config::Storage;
use teeline_runtime::Store;
use teeline_wire::batch::{BatchHeader, BatchView};
use teeline_wire::codec::Compression;
use teeline_wire::records::{BatchBuilder, DECOMPRESSED_BYTES_MAX, Records, timestamp_range};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const BACKUP: &str = "test";
pub(crate) const CLUSTER: &str = "cluster-a";
pub(crate) const FIRST_LIFE: Uuid = Uuid::from_u128(0x11);

/// An archive under construction.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
    entries: Vec<Entry>,
    writer: WriterId,
    seq: u64,
    counter: u32,
    /// Blocks of the next segments; small, so that few records make many.
    pub(crate) block_bytes: usize,
    pub(crate) codec: Codec,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Storage::filesystem(directory.path())).unwrap();
        Self {
            directory,
            store,
            entries: Vec::new(),
            writer: WriterId(7),
            seq: 0,
            counter: 0,
            block_bytes: 256,
            codec: Codec::Zstd,
        }
    }

    pub(crate) fn topic(&mut self, name: &str, life: Uuid, partition_count: i32, at_ms: i64) {
        self.entry(Entry::Topic(TopicSnapshot {
            name: name.to_owned(),
            incarnation: life,
            at_ms,
            partition_count,
            replication_factor: 3,
            configs: vec![("retention.ms".to_owned(), Some("-1".to_owned()))],
        }));
    }

    pub(crate) fn evidence(&mut self, topic: &str, batch: &BatchView, commit: bool) {
        let header = batch.header();
        self.entry(Entry::TxnEvidence(TxnEvidence {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            topic: topic.to_owned(),
            incarnation: FIRST_LIFE,
            partition: 0,
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            commit,
            at_ms: 1,
        }));
    }

    pub(crate) fn entry(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Stores a segment of partition 0 and lists it in the next commit.
    pub(crate) async fn segment(
        &mut self,
        topic: &str,
        origin: Origin,
        batches: &[BatchView],
    ) -> SegmentInfo {
        self.segment_of(topic, FIRST_LIFE, 0, origin, false, batches)
            .await
    }

    pub(crate) async fn segment_of(
        &mut self,
        topic: &str,
        life: Uuid,
        partition: i32,
        origin: Origin,
        quarantined: bool,
        batches: &[BatchView],
    ) -> SegmentInfo {
        let identity = SegmentIdentity {
            backup_id: BACKUP.to_owned(),
            cluster_id: CLUSTER.to_owned(),
            topic: topic.to_owned(),
            incarnation: life,
            partition,
            writer: self.writer,
            session: SessionId(1),
            counter: self.counter,
            origin,
            created_at_ms: 1,
        };
        self.counter += 1;
        let mut builder = SegmentBuilder::new(identity, self.codec, 1, self.block_bytes).unwrap();
        for batch in batches {
            builder.push(batch.bytes(), meta(batch)).unwrap();
        }
        builder.set_notes(SegmentNotes {
            quarantined,
            ..SegmentNotes::default()
        });
        let begun = builder.drain_output();
        let finished = builder.finish().unwrap();
        let object = [begun, finished.tail].concat();
        self.store.put(&finished.info.key, object.into()).await.unwrap();
        if let Some(sidecar) = finished.sidecar {
            self.store
                .put(&segment_index_key(&finished.info.key), sidecar)
                .await
                .unwrap();
        }
        self.entry(Entry::Segment(finished.info.clone()));
        finished.info
    }

    /// Commits everything entered so far.
    pub(crate) async fn commit(&mut self) {
        self.seq += 1;
        let commit = Commit {
            backup_id: BACKUP.to_owned(),
            cluster_id: CLUSTER.to_owned(),
            writer: self.writer,
            seq: self.seq,
            nonce: u128::from(self.seq),
            created_at_ms: i64::try_from(self.seq).unwrap(),
            program: "test".to_owned(),
            entries: std::mem::take(&mut self.entries),
        };
        self.store
            .put(&commit.key().unwrap(), commit.encode().unwrap())
            .await
            .unwrap();
    }

    /// Flips a bit of an object.
    pub(crate) fn damage(&self, key: &str, at: usize) {
        let path = self.directory.path().join(key);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
}

fn meta(batch: &BatchView) -> BatchMeta {
    let header = batch.header();
    let range = timestamp_range(batch, DECOMPRESSED_BYTES_MAX).unwrap();
    let kind = if header.is_control() {
        let marker = teeline_wire::batch::control_marker(batch).unwrap().unwrap();
        BatchKind::Control(Marker {
            commit: marker.is_commit(),
        })
    } else if header.is_transactional() {
        BatchKind::TransactionalData
    } else {
        BatchKind::Data
    };
    BatchMeta {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        record_count: header.records(),
        timestamp_min: range.min,
        timestamp_max: range.max,
        leader_epoch: header.partition_leader_epoch,
        producer: header.has_producer().then_some(Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        }),
        kind,
    }
}

/// A data batch whose records are named after their offsets.
pub(crate) fn data(base_offset: i64, timestamps: &[i64]) -> BatchView {
    let mut builder = BatchBuilder::new(Compression::None);
    for (delta, timestamp) in timestamps.iter().enumerate() {
        let value = format!("v{}", base_offset + i64::try_from(delta).unwrap());
        builder
            .push(*timestamp, None, Some(value.as_bytes()), &[])
            .unwrap();
    }
    edit(&builder.build().unwrap().unwrap(), |header| {
        header.base_offset = base_offset
    })
}

/// A data batch of an idempotent producer.
pub(crate) fn sequenced(base_offset: i64, count: usize, producer: (i64, i16, i32)) -> BatchView {
    let timestamps = vec![1000; count];
    edit(&data(base_offset, &timestamps), |header| {
        (header.producer_id, header.producer_epoch, header.base_sequence) = producer;
    })
}

/// A data batch of a transaction.
pub(crate) fn transactional(base_offset: i64, count: usize, producer: (i64, i16, i32)) -> BatchView {
    edit(&sequenced(base_offset, count, producer), |header| {
        header.attributes |= 0x10
    })
}

/// A transaction marker.
pub(crate) fn marker(offset: i64, producer_id: i64, producer_epoch: i16, commit: bool) -> BatchView {
    let mut builder = BatchBuilder::new(Compression::None);
    let key = [0, 0, 0, u8::from(commit)];
    builder.push(1000, Some(&key), Some(&[0; 6]), &[]).unwrap();
    edit(&builder.build().unwrap().unwrap(), |header| {
        header.base_offset = offset;
        header.attributes |= 0x30;
        header.producer_id = producer_id;
        header.producer_epoch = producer_epoch;
    })
}

/// The same batch with another header, its checksum redone.
pub(crate) fn edit(batch: &BatchView, change: impl FnOnce(&mut BatchHeader)) -> BatchView {
    let mut header = *batch.header();
    change(&mut header);
    let mut bytes = [&header.to_bytes()[..], &batch.payload()[..]].concat();
    header.crc = crc32c::crc32c(&bytes[21..]);
    bytes[..61].copy_from_slice(&header.to_bytes());
    BatchView::parse(&Bytes::from(bytes)).unwrap()
}

/// The values in a batch.
pub(crate) fn values(batch: &BatchView) -> Vec<String> {
    let records = Records::decode(batch, DECOMPRESSED_BYTES_MAX).unwrap();
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
    records.iter().map(|record| text(record.unwrap().value)).collect()
}
