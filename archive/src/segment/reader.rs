//! An object to batches.

use crate::fields::FieldError;
use crate::segment::codec::decompress;
use crate::segment::{BlockEntry, Codec, Footer, SegmentError};
use bytes::Bytes;

/// Shortest batch of version 2: its header.
const BATCH_HEADER_BYTES: usize = 61;

/// A segment's footer and what can be asked of it. The bytes of blocks are fetched by the caller.
#[derive(Clone, Debug)]
pub struct SegmentReader {
    footer: Footer,
}

impl SegmentReader {
    /// A reader of a segment whose footer was read.
    pub fn new(footer: Footer) -> SegmentReader {
        SegmentReader { footer }
    }

    /// A reader of a segment in memory: the footer is in the object, or in the index beside it.
    pub fn open(object: &[u8], sidecar: Option<&[u8]>) -> Result<SegmentReader, SegmentError> {
        let reader = SegmentReader::new(Footer::of_object(sidecar.unwrap_or(object))?);
        if sidecar.is_some() && reader.footer.data_bytes != object.len() as u64 {
            let (needed, present) = (reader.footer.data_bytes, object.len() as u64);
            return Err(match present < needed {
                true => SegmentError::Torn { needed, present },
                false => SegmentError::Corrupt {
                    what: "bytes follow the last block",
                    at: needed,
                },
            });
        }
        Ok(reader)
    }

    /// The footer.
    pub fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The blocks that may hold offsets of a range (both ends included).
    pub fn blocks_by_offset(&self, first: i64, last: i64) -> &[BlockEntry] {
        let blocks = &self.footer.blocks;
        let from = blocks.partition_point(|block| block.last_offset < first);
        let to = blocks.partition_point(|block| block.first_offset <= last);
        blocks.get(from..to).unwrap_or_default()
    }

    /// The blocks that may hold timestamps of a window, start included, end excluded. Late records make windows of
    /// neighbouring blocks overlap, so the result need not be contiguous.
    pub fn blocks_by_time(&self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = &BlockEntry> {
        let wanted =
            move |block: &&BlockEntry| block.timestamp_max >= from_ms && block.timestamp_min < until_ms;
        self.footer.blocks.iter().filter(wanted)
    }

    /// Checks and decompresses a block from its stored bytes.
    pub fn decode_block(&self, stored: &Bytes, block: &BlockEntry) -> Result<Bytes, SegmentError> {
        decode_block(self.footer.codec, stored, block)
    }

    /// Checks and decompresses a block of an object in memory.
    pub fn block_of(&self, object: &Bytes, block: &BlockEntry) -> Result<Bytes, SegmentError> {
        let torn = SegmentError::Torn {
            needed: block.range().end,
            present: object.len() as u64,
        };
        let Ok(start) = usize::try_from(block.file_offset) else {
            return Err(torn);
        };
        let Some(end) = start.checked_add(block.compressed_len as usize) else {
            return Err(torn);
        };
        if end > object.len() {
            return Err(torn);
        }
        self.decode_block(&object.slice(start..end), block)
    }

    /// Checks every block of an object in memory; together with [`SegmentReader::open`] that is every byte.
    pub fn verify(&self, object: &Bytes) -> Result<(), SegmentError> {
        self.footer
            .blocks
            .iter()
            .try_for_each(|block| self.block_of(object, block).map(|_| ()))
    }
}

/// Checks and decompresses one block: length, then checksum, then content of exactly the length in the index,
/// then that the content is whole batches that begin at the block's first offset.
///
/// Nothing is copied for uncompressed segments.
pub fn decode_block(codec: Codec, stored: &Bytes, block: &BlockEntry) -> Result<Bytes, SegmentError> {
    let at = block.file_offset;
    if stored.len() != block.compressed_len as usize {
        let (needed, present) = (block.compressed_len.into(), stored.len() as u64);
        return Err(SegmentError::Torn { needed, present });
    }
    if crc32c::crc32c(stored) != block.crc32c {
        return Err(SegmentError::Corrupt {
            what: "the block does not match its checksum",
            at,
        });
    }
    if block.uncompressed_len as usize > i32::MAX as usize {
        let (len, limit) = (block.uncompressed_len.into(), i32::MAX as u64);
        return Err(FieldError::TooLong {
            what: "block content",
            len,
            limit,
        }
        .into());
    }
    let content = decompress(codec, stored, block.uncompressed_len as usize)
        .map_err(|source| SegmentError::Decompress { codec, at, source })?;
    check_batches(&content, block).map_err(|what| SegmentError::Corrupt { what, at })?;
    Ok(content)
}

fn check_batches(content: &[u8], block: &BlockEntry) -> Result<(), &'static str> {
    let (mut rest, mut next) = (content, block.first_offset);
    let mut first = true;
    while !rest.is_empty() {
        let head = BatchHead::read(rest).ok_or("a batch is cut short")?;
        if first && head.base_offset != block.first_offset {
            return Err("the block does not begin at its first offset");
        }
        if head.base_offset < next {
            return Err("the batches of the block are not in order");
        }
        let last = head
            .last_offset()
            .ok_or("a batch has an impossible last offset")?;
        next = last
            .checked_add(1)
            .ok_or("a batch has an impossible last offset")?;
        rest = usize::try_from(head.bytes)
            .ok()
            .and_then(|len| rest.get(len..))
            .ok_or("a batch is cut short")?;
        first = false;
    }
    if next.checked_sub(1) != Some(block.last_offset) || first {
        return Err("the block does not end at its last offset");
    }
    Ok(())
}

/// Cuts the content of a block into its batches, without copying. Ends at the first thing that is no whole
/// batch; the content of [`decode_block`] has none.
pub fn batches(content: &Bytes) -> impl Iterator<Item = Bytes> + use<> {
    let mut rest = content.clone();
    std::iter::from_fn(move || {
        let head = BatchHead::read(&rest)?;
        let len = usize::try_from(head.bytes)
            .ok()
            .filter(|len| *len <= rest.len())?;
        Some(rest.split_to(len))
    })
}

/// The few fields of a Kafka record batch that an archive must agree with. Kafka's numbers are big-endian.
pub(crate) struct BatchHead {
    pub(crate) base_offset: i64,
    pub(crate) bytes: u64,
    pub(crate) magic: u8,
    pub(crate) attributes: i16,
    last_offset_delta: i32,
}

impl BatchHead {
    pub(crate) fn read(batch: &[u8]) -> Option<BatchHead> {
        let head = batch.first_chunk::<BATCH_HEADER_BYTES>()?;
        let (base_offset, rest) = head.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (_leader_epoch, rest) = rest.split_first_chunk::<4>()?;
        let (magic, rest) = rest.split_first()?;
        let (_crc, rest) = rest.split_first_chunk::<4>()?;
        let (attributes, rest) = rest.split_first_chunk::<2>()?;
        let (last_offset_delta, _) = rest.split_first_chunk::<4>()?;
        let bytes = u64::try_from(i32::from_be_bytes(*length)).ok()?.checked_add(12)?;
        (bytes >= BATCH_HEADER_BYTES as u64).then_some(BatchHead {
            base_offset: i64::from_be_bytes(*base_offset),
            bytes,
            magic: *magic,
            attributes: i16::from_be_bytes(*attributes),
            last_offset_delta: i32::from_be_bytes(*last_offset_delta),
        })
    }

    pub(crate) fn last_offset(&self) -> Option<i64> {
        if self.last_offset_delta < 0 {
            None
        } else {
            self.base_offset.checked_add(self.last_offset_delta.into())
        }
    }
}
