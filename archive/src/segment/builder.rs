//! Batches to an object. Memory stays at about one block; the footer's lists grow slowly.

use crate::names::{NameError, check_backup_id, check_topic};
use crate::ranges::{OffsetRange, OffsetSet};
use crate::segment::codec::BlockEncoder;
use crate::segment::footer::{BLOCK_ENTRY_BYTES, FOOTER_BYTES_MAX, Footer, MARKER_ENTRY_BYTES};
use crate::segment::level::{Effort, Level};
use crate::segment::meta::GAPS_MAX;
use crate::segment::reader::BatchHead;
use crate::segment::{
    BatchKind, BatchMeta, BlockEntry, Codec, MarkerEntry, Origin, SegmentError, SegmentIdentity, SegmentInfo,
    SegmentNotes,
};
use bytes::{BufMut, Bytes, BytesMut};

/// Blocks of a mebibyte: long enough to compress well, short enough to be read alone.
pub const BLOCK_BYTES_DEFAULT: usize = 1024 * 1024;

/// Builds one segment.
///
/// A batch is copied once, into the block; a batch as long as a block is compressed from where it is.
pub struct SegmentBuilder {
    encoder: BlockEncoder,
    block_bytes: usize,
    block: BytesMut,
    /// What most bytes of the block are worth.
    worth: Worth,
    open: Option<BlockEntry>,
    output: Vec<Bytes>,
    footer: Footer,
}

/// A finished segment.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The last bytes of the object: what was not drained yet, and the footer.
    pub tail: Bytes,
    /// The index beside an uncompressed segment, to be stored before the ledger names the segment.
    pub sidecar: Option<Bytes>,
    /// The segment as the ledger lists it.
    pub info: SegmentInfo,
}

impl SegmentBuilder {
    /// Begins a segment. `level` is zstd's; the other codecs have none.
    pub fn new(
        identity: SegmentIdentity,
        codec: Codec,
        level: impl Into<Level>,
        block_bytes: usize,
    ) -> Result<SegmentBuilder, SegmentError> {
        check_backup_id(&identity.backup_id)?;
        check_topic(&identity.topic)?;
        if identity.partition < 0 {
            return Err(NameError::Number {
                what: "partition",
                value: identity.partition.into(),
            }
            .into());
        }
        let footer = Footer {
            identity,
            codec,
            start_offset: -1,
            end_offset: -1,
            gaps: Vec::new(),
            timestamp_min: -1,
            timestamp_max: -1,
            record_count: 0,
            batch_count: 0,
            control_count: 0,
            transactional_count: 0,
            uncompressed_bytes: 0,
            data_bytes: 0,
            notes: SegmentNotes::default(),
            blocks: Vec::new(),
            epochs: Vec::new(),
            markers: Vec::new(),
        };
        Ok(SegmentBuilder {
            encoder: BlockEncoder::new(codec, level.into())?,
            block_bytes: block_bytes.clamp(1, BLOCK_BYTES_MAX),
            block: BytesMut::new(),
            worth: Worth::default(),
            open: None,
            output: Vec::new(),
            footer,
        })
    }

    /// The object's key, once the first batch is in.
    pub fn key(&self) -> Option<String> {
        if self.footer.batch_count == 0 {
            return None;
        }
        self.footer
            .identity
            .key(self.footer.start_offset, self.footer.codec)
            .ok()
    }

    /// What the caller knows about the whole segment. Given any time before [`SegmentBuilder::finish`].
    pub fn set_notes(&mut self, notes: SegmentNotes) {
        self.footer.notes = notes;
    }

    /// Whether nothing has been pushed.
    pub fn is_empty(&self) -> bool {
        self.footer.batch_count == 0
    }

    /// Bytes of the batches so far.
    pub fn uncompressed_bytes(&self) -> u64 {
        self.footer.uncompressed_bytes
    }

    /// Bytes of the blocks closed so far, as stored.
    pub fn data_bytes(&self) -> u64 {
        self.footer.data_bytes
    }

    /// First and last offset so far.
    pub fn range(&self) -> Option<OffsetRange> {
        if self.is_empty() {
            None
        } else {
            OffsetRange::new(self.footer.start_offset, self.footer.end_offset)
        }
    }

    /// Adds a batch. Batches come in order of offsets, their base offsets already set.
    ///
    /// An error leaves the segment as it was; after [`SegmentError::Full`] it can still be finished.
    pub fn push(&mut self, batch: &[u8], meta: BatchMeta) -> Result<(), SegmentError> {
        let effort = self.check(batch, &meta)?;
        let gap = self.gap_before(&meta);
        self.check_room(gap.is_some(), batch.len())?;
        if !self.block.is_empty() && self.block.len().saturating_add(batch.len()) > self.block_bytes {
            self.close_block()?;
        }
        if self.block.is_empty() && batch.len() >= self.block_bytes {
            let stored = self.encoder.encode(batch, effort)?;
            self.note(&meta, gap, batch.len());
            self.add_block(stored);
            return Ok(());
        }
        self.block.put_slice(batch);
        self.worth.count(effort, batch.len());
        self.note(&meta, gap, batch.len());
        if self.block.len() >= self.block_bytes {
            self.close_block()?;
        }
        Ok(())
    }

    /// Takes the compressed bytes that are ready. Empty when there are none.
    pub fn drain_output(&mut self) -> Bytes {
        join(std::mem::take(&mut self.output))
    }

    /// Closes the last block and writes the footer.
    pub fn finish(mut self) -> Result<Finished, SegmentError> {
        if self.is_empty() {
            return Err(SegmentError::Empty);
        }
        self.close_block()?;
        self.list_gaps()?;
        debug_assert_eq!(self.footer.check(), Ok(()), "the builder keeps its own books");
        let encoded = self.footer.encode()?;
        let info = self.footer.info(&encoded)?;
        let sidecar = if self.footer.codec.has_sidecar() {
            Some(encoded)
        } else {
            self.output.push(encoded);
            None
        };
        Ok(Finished {
            tail: join(self.output),
            sidecar,
            info,
        })
    }

    /// The batch must be what is said about it: asserted before writing, and again after reading.
    fn check(&self, batch: &[u8], meta: &BatchMeta) -> Result<Effort, SegmentError> {
        let refuse = |why| {
            Err(SegmentError::Batch {
                base_offset: meta.base_offset,
                why,
            })
        };
        let Some(head) = BatchHead::read(batch) else {
            return refuse("it is shorter than a batch header");
        };
        if head.bytes != batch.len() as u64 {
            return refuse("it is not exactly one batch");
        }
        if head.magic != 2 {
            return refuse("it is not a batch of version 2");
        }
        if meta.base_offset < 0 || head.base_offset != meta.base_offset {
            return refuse("its base offset is not the one given");
        }
        if head.last_offset() != Some(meta.last_offset) {
            return refuse("its last offset is not the one given");
        }
        if !self.is_empty() && meta.base_offset <= self.footer.end_offset {
            return refuse("it does not come after the batch before it");
        }
        Ok(Effort::of(head.attributes))
    }

    /// Adds the gaps that the caller knows of to those that were seen between batches.
    fn list_gaps(&mut self) -> Result<(), SegmentError> {
        let given = std::mem::take(&mut self.footer.notes.gaps);
        if given.is_empty() {
            return Ok(());
        }
        let all: OffsetSet = self.footer.gaps.iter().copied().chain(given).collect();
        if all.ranges().len() > GAPS_MAX {
            return Err(SegmentError::Full { what: "gaps" });
        }
        match all.ranges().iter().find(|gap| !self.footer.has_room_for(gap)) {
            Some(gap) => Err(SegmentError::Gap { gap: *gap }),
            None => {
                self.footer.gaps = all.ranges().to_vec();
                Ok(())
            }
        }
    }

    fn gap_before(&self, meta: &BatchMeta) -> Option<OffsetRange> {
        if self.is_empty() || self.footer.identity.origin != Origin::Tee {
            return None;
        }
        let first = self.footer.end_offset.checked_add(1)?;
        OffsetRange::new(first, meta.base_offset.checked_sub(1)?)
    }

    fn check_room(&self, gap: bool, batch_bytes: usize) -> Result<(), SegmentError> {
        if batch_bytes > BLOCK_BYTES_MAX {
            return Err(SegmentError::Full {
                what: "a batch longer than any block",
            });
        }
        if gap && self.footer.gaps.len() >= GAPS_MAX {
            return Err(SegmentError::Full { what: "gaps" });
        }
        // Half of the limit is left to what is reckoned only at the end.
        let lists = (self.footer.blocks.len() + self.footer.epochs.len()).saturating_mul(BLOCK_ENTRY_BYTES);
        let markers = self.footer.markers.len().saturating_mul(MARKER_ENTRY_BYTES);
        if lists.saturating_add(markers) > FOOTER_BYTES_MAX / 2 {
            return Err(SegmentError::Full { what: "the footer" });
        }
        Ok(())
    }

    fn note(&mut self, meta: &BatchMeta, gap: Option<OffsetRange>, bytes: usize) {
        let footer = &mut self.footer;
        if footer.batch_count == 0 {
            footer.start_offset = meta.base_offset;
        }
        footer.end_offset = meta.last_offset;
        footer.gaps.extend(gap);
        footer.batch_count += 1;
        footer.uncompressed_bytes += bytes as u64;
        let records = match meta.kind {
            BatchKind::Control(_) => 0,
            BatchKind::Data | BatchKind::TransactionalData => meta.record_count,
        };
        footer.record_count += u64::from(records);
        match meta.kind {
            BatchKind::Data => {}
            BatchKind::TransactionalData => footer.transactional_count += 1,
            BatchKind::Control(marker) => {
                footer.control_count += 1;
                let (producer_id, producer_epoch) = meta.producer.map_or((-1, -1), |p| (p.id, p.epoch));
                let (offset, commit) = (meta.base_offset, marker.commit);
                footer.markers.push(MarkerEntry {
                    offset,
                    producer_id,
                    producer_epoch,
                    commit,
                });
            }
        }
        if meta.leader_epoch >= 0 && footer.epochs.last().map(|(epoch, _)| *epoch) != Some(meta.leader_epoch)
        {
            footer.epochs.push((meta.leader_epoch, meta.base_offset));
        }
        let first = footer.batch_count == 1;
        widen(&mut footer.timestamp_min, &mut footer.timestamp_max, meta, first);
        let first = self.open.is_none();
        let block = self.open.get_or_insert(BlockEntry {
            file_offset: footer.data_bytes,
            compressed_len: 0,
            uncompressed_len: 0,
            crc32c: 0,
            first_offset: meta.base_offset,
            last_offset: meta.last_offset,
            timestamp_min: -1,
            timestamp_max: -1,
            record_count: 0,
        });
        block.last_offset = meta.last_offset;
        // Bounded by BLOCK_BYTES_MAX, which is far below 4 GiB; so is the number of records.
        block.uncompressed_len += bytes as u32;
        block.record_count = block.record_count.saturating_add(records);
        widen(&mut block.timestamp_min, &mut block.timestamp_max, meta, first);
    }

    fn close_block(&mut self) -> Result<(), SegmentError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let stored = match self.encoder {
            // The block's own buffer goes out as it is; the next block gets a new one.
            BlockEncoder::None => std::mem::take(&mut self.block).freeze(),
            _ => self.encoder.encode(&self.block, self.worth.effort())?,
        };
        self.block.clear();
        self.worth = Worth::default();
        self.add_block(stored);
        Ok(())
    }

    fn add_block(&mut self, stored: Bytes) {
        if let Some(mut block) = self.open.take() {
            // Compressed lengths exceed the content's by a fraction at worst.
            block.compressed_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
            block.crc32c = crc32c::crc32c(&stored);
            self.footer.data_bytes += stored.len() as u64;
            self.footer.blocks.push(block);
            self.output.push(stored);
        }
    }
}

/// Bytes of a block by what they are worth.
#[derive(Clone, Copy, Debug, Default)]
struct Worth {
    full: usize,
    light: usize,
    least: usize,
}

impl Worth {
    fn count(&mut self, effort: Effort, bytes: usize) {
        let sum = match effort {
            Effort::Full => &mut self.full,
            Effort::Light => &mut self.light,
            Effort::Least => &mut self.least,
        };
        *sum = sum.saturating_add(bytes);
    }

    /// Producers of one partition rarely differ in their codec; where they do, the larger part decides.
    fn effort(self) -> Effort {
        if self.full >= self.light.max(self.least) {
            Effort::Full
        } else if self.light >= self.least {
            Effort::Light
        } else {
            Effort::Least
        }
    }
}

/// Kafka's batches carry their length in 31 bits.
const BLOCK_BYTES_MAX: usize = i32::MAX as usize;

/// A record without a timestamp counts as -1, so that a minimum of -1 warns of it.
fn widen(min: &mut i64, max: &mut i64, meta: &BatchMeta, first: bool) {
    *min = if first {
        meta.timestamp_min
    } else {
        meta.timestamp_min.min(*min)
    };
    *max = if first {
        meta.timestamp_max
    } else {
        meta.timestamp_max.max(*max)
    };
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.put_slice(part));
    all.freeze()
}
