//! What tests build on: batches, a buffer directory, a cluster that answers from a table.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use teeline_archive::buffer::{CatalogTopic, FileHeader, Frame, Positions, encode_frame};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_wire::batch::{BatchHeader, set_base_offset_and_epoch};
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;
use uuid::Uuid;

use crate::buffer::{Directory, FrameLocation};
use crate::settlement::Answer;
use crate::source::{FetchedRun, Questions, Source, SourceError, SourcePartition, SurveyReport};

/// A batch of `records` records at `base_offset`.
pub(crate) fn batch(base_offset: i64, records: u32) -> Vec<u8> {
    labelled_batch(base_offset, records, "value")
}

/// A batch whose values begin with `label`.
pub(crate) fn labelled_batch(base_offset: i64, records: u32, label: &str) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..records {
        let value = format!("{label} {n}");
        builder
            .push(1_000 + i64::from(n), Some(b"key"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    let mut bytes = builder.build().unwrap().unwrap().into_bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, base_offset, 0).unwrap();
    bytes
}

/// A batch with other header fields, checksum redone.
pub(crate) fn batch_with(
    base_offset: i64,
    records: u32,
    change: impl FnOnce(&mut BatchHeader),
) -> (BatchHeader, Bytes) {
    changed(batch(base_offset, records), change)
}

/// The batch with other header fields, checksum redone.
pub(crate) fn changed(bytes: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> (BatchHeader, Bytes) {
    let mut bytes = bytes;
    let mut header = BatchHeader::parse(&bytes).unwrap();
    change(&mut header);
    bytes[..61].copy_from_slice(&header.to_bytes());
    header.crc = crc32c::crc32c(&bytes[21..]);
    bytes[..61].copy_from_slice(&header.to_bytes());
    (header, Bytes::from(bytes))
}

/// A batch of a transaction.
pub(crate) fn transactional_batch(
    base_offset: i64,
    records: u32,
    producer_id: i64,
    sequence: i32,
) -> (BatchHeader, Bytes) {
    batch_with(base_offset, records, |header| {
        header.attributes |= 0x10;
        (header.producer_id, header.producer_epoch, header.base_sequence) = (producer_id, 0, sequence);
    })
}

/// A transaction marker.
pub(crate) fn marker(base_offset: i64, producer_id: i64, commit: bool) -> (BatchHeader, Bytes) {
    let mut builder = BatchBuilder::new(Compression::None);
    let key = [0, 0, 0, u8::from(commit)];
    builder
        .push(1_000, Some(&key), Some(&[0, 0, 0, 0, 0, 0]), &[])
        .unwrap();
    let mut bytes = builder.build().unwrap().unwrap().into_bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, base_offset, 0).unwrap();
    changed(bytes, |header| {
        header.attributes |= 0x30;
        (header.producer_id, header.producer_epoch) = (producer_id, 0);
    })
}

/// A place that stands for a position.
pub(crate) fn location(position: BufferPosition) -> FrameLocation {
    FrameLocation {
        file_number: position.session.0,
        at: position.lsn.0,
        len: 100,
    }
}

/// A buffer directory as a writer leaves it: one file a session.
pub(crate) struct TestBuffer {
    directory: Directory,
    session: SessionId,
    next: Lsn,
    bytes: BytesMut,
}

impl TestBuffer {
    /// An empty buffer.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let directory = Directory::new(path);
        drop(directory.lock().unwrap());
        directory.identity_or_create().unwrap();
        TestBuffer {
            directory,
            session: SessionId(0),
            next: Lsn(1),
            bytes: BytesMut::new(),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Begins the next session in a file of its own.
    pub(crate) fn begin_session(&mut self) {
        self.flush();
        self.session = self.session.next();
        self.next = Lsn(1);
        let header = FileHeader {
            buffer_id: self.directory.identity().unwrap().unwrap().buffer_id,
            session: self.session,
            file_number: self.session.0,
            first_lsn: Lsn(1),
            created_at_ms: 0,
        };
        self.bytes = BytesMut::from(&header.encode()[..]);
    }

    /// The position that the next frame gets.
    pub(crate) fn next(&self) -> BufferPosition {
        BufferPosition {
            session: self.session,
            lsn: self.next,
        }
    }

    /// Appends a frame.
    pub(crate) fn append(&mut self, frame: &Frame) -> BufferPosition {
        let position = self.next();
        encode_frame(frame, position.session, position.lsn, &mut self.bytes).unwrap();
        self.next = self.next.next();
        position
    }

    /// Makes everything so far visible.
    pub(crate) fn flush(&mut self) {
        if self.session.0 == 0 {
            return;
        }
        fs::write(self.directory.file_path(self.session.0), &self.bytes).unwrap();
        let last = BufferPosition {
            session: self.session,
            lsn: Lsn(self.next.0 - 1),
        };
        let positions = Positions {
            written: last,
            synced: last,
            file_number: self.session.0,
            file_bytes: self.bytes.len() as u64,
            closed: false,
        };
        self.directory
            .open_positions()
            .unwrap()
            .write(&positions)
            .unwrap();
    }
}

/// One log of the test cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    /// Its batches, in order; what lies between them is compacted away.
    pub(crate) batches: Vec<Bytes>,
    /// First offset.
    pub(crate) start: i64,
    /// One past the last offset.
    pub(crate) end: i64,
    /// Epoch of the leader, as fetches tell it.
    pub(crate) leader_epoch: i32,
}

impl Log {
    /// Appends a batch as a broker does. Returns its base offset.
    pub(crate) fn append(&mut self, sent: &[u8]) -> i64 {
        let base = self.end;
        let mut bytes = sent.to_vec();
        set_base_offset_and_epoch(&mut bytes, base, 3).unwrap();
        self.end = BatchHeader::parse(&bytes).unwrap().next_offset();
        self.batches.push(Bytes::from(bytes));
        base
    }
}

/// A cluster that answers from a table.
#[derive(Debug, Default)]
pub(crate) struct TestCluster {
    /// Logs by topic id and partition.
    pub(crate) logs: Mutex<BTreeMap<(Uuid, i32), Log>>,
    /// What names mean.
    pub(crate) names: Mutex<BTreeMap<String, Uuid>>,
    /// True while it does not answer.
    pub(crate) is_down: AtomicBool,
    /// Every fetch: partition and offset.
    pub(crate) fetches: Mutex<Vec<(i32, i64)>>,
}

pub(crate) const CLUSTER: &str = "test-cluster";

impl TestCluster {
    /// A cluster with one topic.
    pub(crate) fn with_topic(name: &str, id: Uuid, partitions: i32) -> Arc<Self> {
        let cluster = TestCluster::default();
        cluster.names.lock().unwrap().insert(name.to_owned(), id);
        for partition in 0..partitions {
            cluster
                .logs
                .lock()
                .unwrap()
                .insert((id, partition), Log::default());
        }
        Arc::new(cluster)
    }

    /// Appends a batch.
    pub(crate) fn append(&self, id: Uuid, partition: i32, sent: &[u8]) -> i64 {
        self.logs
            .lock()
            .unwrap()
            .get_mut(&(id, partition))
            .unwrap()
            .append(sent)
    }

    fn check_up(&self) -> Result<(), SourceError> {
        if self.is_down.load(Ordering::SeqCst) {
            Err(SourceError::OutOfRange {
                log_start: -1,
                end: -1,
            })
        } else {
            Ok(())
        }
    }

    fn answer(&self, question: &SourcePartition) -> Answer {
        let names = self.names.lock().unwrap();
        let Some(&incarnation) = names.get(&*question.topic) else {
            return Answer::Gone;
        };
        if question.incarnation.is_some_and(|wanted| wanted != incarnation) {
            return Answer::Gone;
        }
        match self.logs.lock().unwrap().get(&(incarnation, question.partition)) {
            Some(log) => Answer::Found {
                incarnation,
                log_start: log.start,
                end: log.end,
                stable_end: log.end,
            },
            None => Answer::Gone,
        }
    }
}

impl TestCluster {
    fn topic_of(&self, id: Uuid) -> Option<CatalogTopic> {
        let names = self.names.lock().unwrap();
        let (name, _) = names.iter().find(|(_, known)| **known == id)?;
        let partitions = self.logs.lock().unwrap().keys().filter(|key| key.0 == id).count();
        Some(CatalogTopic {
            name: name.to_string(),
            id,
            error_code: 0,
            partitions: (0..i32::try_from(partitions).unwrap())
                .map(|partition| (partition, 0))
                .collect(),
            replication_factor: 1,
        })
    }
}

impl Source for TestCluster {
    fn survey<'a>(
        &'a self,
        cluster_id: &'a str,
        questions: &'a Questions,
    ) -> BoxFuture<'a, Result<SurveyReport, SourceError>> {
        Box::pin(async move {
            self.check_up()?;
            assert_eq!(cluster_id, CLUSTER);
            let answers = questions
                .partitions
                .iter()
                .map(|question| (question.clone(), self.answer(question)))
                .collect();
            Ok(SurveyReport {
                answers,
                topics: questions.ids.iter().map(|id| (*id, self.topic_of(*id))).collect(),
                brokers: vec!["broker:9092".to_owned()],
            })
        })
    }

    fn fetch<'a>(
        &'a self,
        partition: &'a SourcePartition,
        offset: i64,
        bytes_max: i32,
    ) -> BoxFuture<'a, Result<FetchedRun, SourceError>> {
        Box::pin(async move {
            self.check_up()?;
            self.fetches.lock().unwrap().push((partition.partition, offset));
            let logs = self.logs.lock().unwrap();
            let key = (partition.incarnation.unwrap(), partition.partition);
            let log = logs.get(&key).ok_or(SourceError::Gone)?;
            if offset < log.start || offset > log.end {
                return Err(SourceError::OutOfRange {
                    log_start: log.start,
                    end: log.end,
                });
            }
            let mut records = BytesMut::new();
            for batch in &log.batches {
                if BatchHeader::parse(batch).unwrap().last_offset() < offset {
                    continue;
                }
                let room = usize::try_from(bytes_max).unwrap().saturating_sub(records.len());
                if !records.is_empty() && room < batch.len() {
                    // Brokers cut the last batch where the room ends.
                    records.extend_from_slice(&batch[..room]);
                    break;
                }
                records.extend_from_slice(batch);
            }
            Ok(FetchedRun {
                records: records.freeze(),
                end: log.end,
                leader_epoch: log.leader_epoch,
            })
        })
    }
}
