//! Segments on their way into the store: the builder on a blocking thread, the upload beside it.
//!
//! A segment passes through in pieces: memory is about one block, one group of batches and two parts of the upload,
//! whatever the size of the segment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::names;
use teeline_archive::segment::{
    Codec, Level, LevelTrial, Origin, SegmentBuilder, SegmentError, SegmentIdentity, SegmentInfo,
    SegmentNotes,
};
use teeline_config::{Compression, Segmenter as Settings};
use teeline_runtime::{Clock, Store, StoreError, Uploader};

use crate::partition::PartitionId;

/// Why a segment did not come about.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store did not take it. May pass.
    #[error("upload segment {key}")]
    Store {
        /// The object.
        key: String,
        /// The store's answer.
        #[source]
        source: StoreError,
    },
    /// The buffer did not give the bytes. May pass.
    #[error("read captured batches again")]
    Buffer(#[from] crate::buffer::BufferError),
    /// The segment cannot be built. A bug, or a limit.
    #[error("build a segment")]
    Build(#[from] SegmentError),
    /// The process is ending.
    #[error("the blocking pool is gone")]
    Stopped,
}

/// What all segments of one segmenter have in common.
#[derive(Debug)]
pub struct SegmentSink {
    store: Store,
    backup_id: String,
    writer: WriterId,
    codec: Codec,
    level: Option<i32>,
    /// Of every topic archived so far, if the level is chosen: about as many bytes as its name and 100 more.
    trials: Mutex<HashMap<String, Arc<LevelTrial>>>,
    block_bytes: usize,
    bytes_max: u64,
    clock: Arc<dyn Clock>,
    session: AtomicU64,
    counter: AtomicU32,
}

impl SegmentSink {
    /// Segments of this backup, written by this writer; counters begin at `counter`.
    pub fn new(
        store: Store,
        backup_id: &str,
        writer: WriterId,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        counter: u32,
    ) -> Self {
        SegmentSink {
            store,
            backup_id: backup_id.to_owned(),
            writer,
            codec: match settings.compression {
                Compression::Zstd => Codec::Zstd,
                Compression::Lz4 => Codec::Lz4,
                Compression::None => Codec::None,
            },
            level: settings.level,
            trials: Mutex::default(),
            block_bytes: usize::try_from(settings.block_bytes).unwrap_or(usize::MAX),
            bytes_max: settings.segment_max_bytes,
            clock,
            session: AtomicU64::new(0),
            counter: AtomicU32::new(counter),
        }
    }

    /// The buffer's session, part of every name.
    pub fn set_session(&self, session: SessionId) {
        self.session.fetch_max(session.0, Ordering::Relaxed);
    }

    /// Where a streamed segment is cut, in bytes before compression.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Begins a segment.
    pub fn begin(
        &self,
        cluster_id: &str,
        topic: &str,
        id: PartitionId,
        origin: Origin,
    ) -> Result<SegmentWriter, WriteError> {
        self.begin_as_of(cluster_id, topic, id, origin, self.clock.now_ms())
    }

    /// The level for a topic: what this run has found out about its content goes from segment to segment.
    fn level(&self, topic: &str) -> Level {
        match self.level {
            Some(level) => Level::Fixed(level),
            None if self.codec != Codec::Zstd => Level::Fixed(0),
            None => {
                let mut trials = self.trials.lock().unwrap_or_else(PoisonError::into_inner);
                Level::Chosen(Arc::clone(trials.entry(topic.to_owned()).or_default()))
            }
        }
    }

    /// Begins a segment of batches that were archived before, at `created_at_ms`.
    pub fn begin_as_of(
        &self,
        cluster_id: &str,
        topic: &str,
        id: PartitionId,
        origin: Origin,
        created_at_ms: i64,
    ) -> Result<SegmentWriter, WriteError> {
        let identity = SegmentIdentity {
            backup_id: self.backup_id.clone(),
            cluster_id: cluster_id.to_owned(),
            topic: topic.to_owned(),
            incarnation: id.incarnation,
            partition: id.partition,
            writer: self.writer,
            session: SessionId(self.session.load(Ordering::Relaxed)),
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            origin,
            created_at_ms,
        };
        let builder = SegmentBuilder::new(identity, self.codec, self.level(topic), self.block_bytes)?;
        Ok(SegmentWriter {
            store: self.store.clone(),
            builder: Some(builder),
            uploader: None,
        })
    }
}

/// One segment being written.
pub struct SegmentWriter {
    store: Store,
    /// `None` while the blocking pool has it.
    builder: Option<SegmentBuilder>,
    uploader: Option<Uploader>,
}

impl SegmentWriter {
    /// Lets `work` push batches on a blocking thread, then uploads what became ready.
    pub async fn push_with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut SegmentBuilder) -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let mut builder = self.builder.take().ok_or(WriteError::Stopped)?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut builder);
            let output = builder.drain_output();
            (builder, output, result)
        });
        let (builder, output, result) = join(worked.await)?;
        let key = builder.key();
        self.builder = Some(builder);
        if let Some(key) = key {
            let store = &self.store;
            let uploader = self.uploader.get_or_insert_with(|| store.upload(&key));
            uploader
                .write(output)
                .await
                .map_err(|source| WriteError::Store { key, source })?;
        }
        Ok(result)
    }

    /// Bytes of the batches so far.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.builder
            .as_ref()
            .map_or(0, SegmentBuilder::uncompressed_bytes)
    }

    /// Makes the segment visible. `None` when no batch is in it.
    pub async fn finish(mut self, notes: SegmentNotes) -> Result<Option<SegmentInfo>, WriteError> {
        let mut builder = self.builder.take().ok_or(WriteError::Stopped)?;
        let Some(mut uploader) = self.uploader.take().filter(|_| !builder.is_empty()) else {
            return Ok(None);
        };
        builder.set_notes(notes);
        let finished = join(tokio::task::spawn_blocking(move || builder.finish()).await)??;
        let key = finished.info.key.clone();
        let failed = |source| WriteError::Store {
            key: key.clone(),
            source,
        };
        if let Some(sidecar) = finished.sidecar {
            // The index first: a segment without it would look whole and be unreadable.
            self.store
                .put(&names::segment_index_key(&key), sidecar)
                .await
                .map_err(failed)?;
        }
        uploader.write(finished.tail).await.map_err(failed)?;
        uploader.finish().await.map_err(failed)?;
        Ok(Some(finished.info))
    }

    /// Gives up.
    pub async fn abort(mut self) {
        if let Some(uploader) = self.uploader.take() {
            uploader.abort().await;
        }
    }
}

fn join<T>(joined: Result<T, tokio::task::JoinError>) -> Result<T, WriteError> {
    joined.map_err(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => WriteError::Stopped,
    })
}

#[cfg(test)]
mod tests {
    use teeline_runtime::SystemClock;

    use super::*;

    fn sink(settings: &Settings) -> SegmentSink {
        SegmentSink::new(
            Store::in_memory(),
            "b",
            WriterId(1),
            settings,
            Arc::new(SystemClock),
            0,
        )
    }

    #[test]
    fn the_level_is_chosen_topic_by_topic_unless_it_is_set() {
        let chosen = sink(&Settings::default());
        let trial = |topic| match chosen.level(topic) {
            Level::Chosen(trial) => trial,
            Level::Fixed(level) => panic!("{level}"),
        };
        assert!(Arc::ptr_eq(&trial("orders"), &trial("orders")));
        assert!(!Arc::ptr_eq(&trial("orders"), &trial("payments")));
        let set = sink(&Settings {
            level: Some(5),
            ..Settings::default()
        });
        assert!(matches!(set.level("orders"), Level::Fixed(5)));
        let lz4 = sink(&Settings {
            compression: Compression::Lz4,
            ..Settings::default()
        });
        assert!(matches!(lz4.level("orders"), Level::Fixed(_)));
    }
}
