//! Segments read back from the store, one block at a time.

use bytes::Bytes;
use teeline_archive::names;
use teeline_archive::segment::{
    BlockEntry, Footer, Location, SegmentError, SegmentInfo, SegmentReader, batches,
};
use teeline_runtime::{Store, StoreError};
use teeline_wire::batch::{BatchError, BatchView};

/// Why a stored segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The store does not give it. May pass.
    #[error("read segment {key}")]
    Store {
        /// Its key.
        key: String,
        /// The store's answer.
        #[source]
        source: StoreError,
    },
    /// It is damaged.
    #[error("read segment {key}")]
    Segment {
        /// Its key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: SegmentError,
    },
    /// One of its batches is damaged.
    #[error("read the batch at or behind offset {offset} of segment {key}")]
    Batch {
        /// The segment's key.
        key: String,
        /// First offset of the block that it is in.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: BatchError,
    },
}

/// A segment in the store, its footer read.
#[derive(Debug)]
pub struct StoredSegment {
    key: String,
    reader: SegmentReader,
}

impl StoredSegment {
    /// Reads the footer.
    ///
    /// # Errors
    /// When the store does not give it, or it is damaged.
    pub async fn open(store: &Store, segment: &SegmentInfo) -> Result<StoredSegment, StoredError> {
        let key = segment.key.clone();
        let unusable = |source| StoredError::Segment {
            key: key.clone(),
            source,
        };
        let missing = |source| StoredError::Store {
            key: key.clone(),
            source,
        };
        let at = match segment.codec.has_sidecar() {
            true => names::segment_index_key(&key),
            false => key.clone(),
        };
        let (mut tail, size) = store.get_tail(&at, TAIL_BYTES).await.map_err(missing)?;
        let range = loop {
            match Footer::locate(&tail, size).map_err(unusable)? {
                Location::Located { range } => break range,
                Location::NeedMore { bytes } => tail = store.get_tail(&at, bytes).await.map_err(missing)?.0,
            }
        };
        let footer = Footer::decode(tail.get(range).unwrap_or_default()).map_err(unusable)?;
        Ok(StoredSegment {
            reader: SegmentReader::new(footer),
            key,
        })
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// All its blocks, in order.
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.reader.footer().blocks
    }

    /// The blocks that may hold offsets of a range, both ends included.
    pub fn blocks_by_offset(&self, first: i64, last: i64) -> &[BlockEntry] {
        self.reader.blocks_by_offset(first, last)
    }

    /// The batches of a block; the block's checksum is compared.
    ///
    /// # Errors
    /// As [`StoredSegment::open`].
    pub async fn batches_of(&self, store: &Store, block: &BlockEntry) -> Result<Vec<BatchView>, StoredError> {
        let stored = store
            .get_range(&self.key, block.range())
            .await
            .map_err(|source| StoredError::Store {
                key: self.key.clone(),
                source,
            })?;
        let content: Bytes =
            self.reader
                .decode_block(&stored, block)
                .map_err(|source| StoredError::Segment {
                    key: self.key.clone(),
                    source,
                })?;
        batches(&content)
            .map(|batch| {
                BatchView::parse(&batch).map_err(|source| StoredError::Batch {
                    key: self.key.clone(),
                    offset: block.first_offset,
                    source,
                })
            })
            .collect()
    }
}

/// Holds the footers of nearly all segments.
const TAIL_BYTES: u64 = 64 * 1024;
