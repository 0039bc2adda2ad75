//! The footer of a segment: what is in it, where, and the checksums of everything.
//!
//! ```text
//! | block 0 | block 1 | ... | skippable frame: header (8) | body | trailer (32) |
//!                            \_____ footer_crc32c covers _______/
//! ```
//! The trailer is the last 32 bytes of the object (of the index beside it, for uncompressed segments), so one
//! ranged read finds the footer. Every byte is covered: blocks by their entries, skippable header and body by the
//! footer's checksum, the trailer by its own.

use crate::fields::{FieldError, FieldReader, put_count};
use crate::ranges::OffsetRange;
use crate::segment::meta::{SegmentIdentity, SegmentInfo, SegmentNotes, put_gaps, read_gaps};
use crate::segment::{Codec, SegmentError};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Version of the segment format that is written.
pub const SEGMENT_VERSION: u16 = 1;
/// Bytes of the trailer.
pub const FOOTER_TRAILER_BYTES: usize = 32;
/// Most bytes of a footer, trailer included.
pub const FOOTER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Both codecs reserve 0x184D2A50 to 0x184D2A5F for frames that decoders skip. 0x...5E is used by zstd's seekable
/// format, 0x...50 by pzstd; a reader of those must not take our footer for theirs.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A54;
const SKIPPABLE_HEADER_BYTES: usize = 8;
const TRAILER_MAGIC: [u8; 8] = *b"TLSEGMNT";
const TRAILER_CHECKED_BYTES: usize = FOOTER_TRAILER_BYTES - 4;

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Whose segment it is.
    pub identity: SegmentIdentity,
    /// Codec of the blocks.
    pub codec: Codec,
    /// First offset held.
    pub start_offset: i64,
    /// Last offset held.
    pub end_offset: i64,
    /// Offsets in between that are neither held nor vouched for.
    pub gaps: Vec<OffsetRange>,
    /// True lowest timestamp; -1 if some record has none.
    pub timestamp_min: i64,
    /// True highest timestamp; -1 if no record has one.
    pub timestamp_max: i64,
    /// Records, transaction markers not counted.
    pub record_count: u64,
    /// Batches, markers included.
    pub batch_count: u64,
    /// Transaction markers.
    pub control_count: u64,
    /// Batches of records that belong to a transaction.
    pub transactional_count: u64,
    /// Bytes of all blocks, decompressed.
    pub uncompressed_bytes: u64,
    /// Bytes of all blocks, as stored.
    pub data_bytes: u64,
    /// What the writer knew besides.
    pub notes: SegmentNotes,
    /// The blocks, in order.
    pub blocks: Vec<BlockEntry>,
    /// Leader epochs and the first offset of each, in order of offsets; batches without one are not listed.
    pub epochs: Vec<(i32, i64)>,
    /// Transaction markers, in order of offsets.
    pub markers: Vec<MarkerEntry>,
}

/// One block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Where it begins in the object.
    pub file_offset: u64,
    /// Bytes as stored.
    pub compressed_len: u32,
    /// Bytes of its batches.
    pub uncompressed_len: u32,
    /// Checksum of the bytes as stored.
    pub crc32c: u32,
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// True lowest timestamp; -1 if some record has none.
    pub timestamp_min: i64,
    /// True highest timestamp; -1 if no record has one.
    pub timestamp_max: i64,
    /// Records, transaction markers not counted.
    pub record_count: u32,
}

/// A transaction marker of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerEntry {
    /// Its offset.
    pub offset: i64,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Committed, or aborted.
    pub commit: bool,
}

/// Where the footer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Inside the tail that was given.
    Located {
        /// Its place in the tail: what [`Footer::decode`] wants.
        range: Range<usize>,
    },
    /// It begins before the tail: read that many bytes from the object's end.
    NeedMore {
        /// Bytes from the object's end.
        bytes: u64,
    },
}

/// The trailer, checked.
struct Trailer {
    codec: Codec,
    footer_bytes: u32,
    footer_crc32c: u32,
    data_bytes: u64,
}

impl Footer {
    /// Finds the footer from the last bytes of an object (of the index object, for uncompressed segments).
    pub fn locate(tail: &[u8], object_len: u64) -> Result<Location, SegmentError> {
        let present = tail.len() as u64;
        let needed = FOOTER_TRAILER_BYTES as u64;
        if object_len < needed {
            return Err(SegmentError::Torn {
                needed,
                present: object_len,
            });
        }
        if present < needed {
            return Ok(Location::NeedMore { bytes: needed });
        }
        let trailer_at = object_len.saturating_sub(needed);
        let trailer = Trailer::decode(tail, trailer_at)?;
        let footer_bytes = u64::from(trailer.footer_bytes);
        let before = if trailer.codec.has_sidecar() {
            0
        } else {
            trailer.data_bytes
        };
        if before.checked_add(footer_bytes) != Some(object_len) {
            return Err(SegmentError::Corrupt {
                what: "the object has another length than its trailer says",
                at: trailer_at,
            });
        }
        match tail.len().checked_sub(trailer.footer_bytes as usize) {
            Some(start) => Ok(Location::Located {
                range: start..tail.len(),
            }),
            None => Ok(Location::NeedMore { bytes: footer_bytes }),
        }
    }

    /// Reads a footer: the bytes that [`Footer::locate`] points at.
    pub fn decode(footer: &[u8]) -> Result<Footer, SegmentError> {
        let trailer_at = footer.len().saturating_sub(FOOTER_TRAILER_BYTES) as u64;
        let trailer = Trailer::decode(footer, trailer_at)?;
        // Positions in errors count from the object's start.
        let base = if trailer.codec.has_sidecar() {
            0
        } else {
            trailer.data_bytes
        };
        let corrupt = |what| SegmentError::Corrupt { what, at: base };
        if footer.len() != trailer.footer_bytes as usize {
            return Err(corrupt("the footer has another length than its trailer says"));
        }
        let checked = footer
            .get(..footer.len().saturating_sub(FOOTER_TRAILER_BYTES))
            .unwrap_or_default();
        if crc32c::crc32c(checked) != trailer.footer_crc32c {
            return Err(corrupt("the footer does not match its checksum"));
        }
        let mut fields = FieldReader::new(checked);
        let magic = fields.u32("skippable frame magic")?;
        let size = fields.u32("skippable frame size")? as usize;
        if magic != SKIPPABLE_MAGIC || size != footer.len().saturating_sub(SKIPPABLE_HEADER_BYTES) {
            return Err(corrupt("the footer is no skippable frame"));
        }
        let footer = Footer::decode_body(&mut fields, &trailer)?;
        footer.check().map_err(corrupt)?;
        Ok(footer)
    }

    /// Finds and reads the footer of an object (or index) that is in memory.
    pub fn of_object(object: &[u8]) -> Result<Footer, SegmentError> {
        let len = object.len() as u64;
        match Footer::locate(object, len)? {
            Location::Located { range } => Footer::decode(object.get(range).unwrap_or_default()),
            // The whole object was given, and locate has compared its length with the trailer's.
            Location::NeedMore { bytes } => Err(SegmentError::Torn {
                needed: bytes,
                present: len,
            }),
        }
    }

    /// Whether it holds batches of transactions, or their markers.
    pub fn transactional(&self) -> bool {
        self.transactional_count > 0 || self.control_count > 0
    }

    /// The checksum of an encoded footer, as the ledger keeps it.
    pub fn crc32c_of(footer: &[u8]) -> Result<u32, SegmentError> {
        Ok(Trailer::decode(footer, footer.len().saturating_sub(FOOTER_TRAILER_BYTES) as u64)?.footer_crc32c)
    }

    /// The segment as the ledger lists it: the segments alone suffice to rebuild the ledger.
    pub fn info(&self, encoded: &[u8]) -> Result<SegmentInfo, SegmentError> {
        let object_bytes = match self.codec.has_sidecar() {
            true => self.data_bytes,
            false => self.data_bytes.saturating_add(encoded.len() as u64),
        };
        Ok(SegmentInfo {
            key: self.identity.key(self.start_offset, self.codec)?,
            identity: self.identity.clone(),
            codec: self.codec,
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            gaps: self.gaps.clone(),
            timestamp_min: self.timestamp_min,
            timestamp_max: self.timestamp_max,
            record_count: self.record_count,
            batch_count: self.batch_count,
            control_count: self.control_count,
            transactional_count: self.transactional_count,
            undecided_first_offset: self.notes.undecided_first_offset,
            undecided: self.notes.undecided.clone(),
            object_bytes,
            uncompressed_bytes: self.uncompressed_bytes,
            footer_crc32c: Footer::crc32c_of(encoded)?,
            leader_epoch_first: self.epochs.first().map_or(-1, |(epoch, _)| *epoch),
            leader_epoch_last: self.epochs.last().map_or(-1, |(epoch, _)| *epoch),
            lsn_range: self.notes.lsn_range,
            quarantined: self.notes.quarantined,
        })
    }

    /// Writes skippable frame, body and trailer.
    pub fn encode(&self) -> Result<Bytes, SegmentError> {
        let mut out = BytesMut::new();
        out.put_u32_le(SKIPPABLE_MAGIC);
        out.put_u32_le(0);
        self.encode_body(&mut out)?;
        let total = out.len().saturating_add(FOOTER_TRAILER_BYTES);
        if total > FOOTER_BYTES_MAX {
            return Err(SegmentError::Full { what: "the footer" });
        }
        let size = (total - SKIPPABLE_HEADER_BYTES) as u32;
        if let Some(field) = out.get_mut(4..SKIPPABLE_HEADER_BYTES) {
            field.copy_from_slice(&size.to_le_bytes());
        }
        let trailer = Trailer {
            codec: self.codec,
            footer_bytes: total as u32,
            footer_crc32c: crc32c::crc32c(&out),
            data_bytes: self.data_bytes,
        };
        trailer.encode(&mut out);
        Ok(out.freeze())
    }

    fn encode_body(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        self.identity.encode(out)?;
        out.put_i64_le(self.start_offset);
        out.put_i64_le(self.end_offset);
        out.put_i64_le(self.timestamp_min);
        out.put_i64_le(self.timestamp_max);
        out.put_u64_le(self.record_count);
        out.put_u64_le(self.batch_count);
        out.put_u64_le(self.control_count);
        out.put_u64_le(self.transactional_count);
        out.put_u64_le(self.uncompressed_bytes);
        self.notes.encode(out)?;
        put_gaps(out, &self.gaps)?;
        put_count(out, "blocks", self.blocks.len())?;
        self.blocks.iter().for_each(|block| block.encode(out));
        put_count(out, "epochs", self.epochs.len())?;
        for (epoch, first_offset) in &self.epochs {
            out.put_i32_le(*epoch);
            out.put_i64_le(*first_offset);
        }
        put_count(out, "markers", self.markers.len())?;
        for marker in &self.markers {
            out.put_i64_le(marker.offset);
            out.put_i64_le(marker.producer_id);
            out.put_i16_le(marker.producer_epoch);
            out.put_u8(marker.commit.into());
        }
        Ok(())
    }

    fn decode_body(fields: &mut FieldReader<'_>, trailer: &Trailer) -> Result<Footer, FieldError> {
        let identity = SegmentIdentity::decode(fields)?;
        let start_offset = fields.i64("start offset")?;
        let end_offset = fields.i64("end offset")?;
        Ok(Footer {
            identity,
            codec: trailer.codec,
            data_bytes: trailer.data_bytes,
            start_offset,
            end_offset,
            timestamp_min: fields.i64("lowest timestamp")?,
            timestamp_max: fields.i64("highest timestamp")?,
            record_count: fields.u64("record count")?,
            batch_count: fields.u64("batch count")?,
            control_count: fields.u64("control count")?,
            transactional_count: fields.u64("transactional count")?,
            uncompressed_bytes: fields.u64("uncompressed bytes")?,
            notes: SegmentNotes::decode(fields)?,
            gaps: read_gaps(fields, OffsetRange::new(start_offset, end_offset))?,
            blocks: read_list(fields, BLOCK_ENTRY_BYTES, "blocks", BlockEntry::decode)?,
            epochs: read_list(fields, 4 + 8, "epochs", |f| {
                Ok((f.i32("epoch")?, f.i64("first offset")?))
            })?,
            markers: read_list(fields, MARKER_ENTRY_BYTES, "markers", MarkerEntry::decode)?,
        })
    }

    /// Whether a gap lies inside, and spares the ends of all blocks: those are held.
    pub(crate) fn has_room_for(&self, gap: &OffsetRange) -> bool {
        let after = self.blocks.partition_point(|block| block.last_offset < gap.first);
        let inside = self.start_offset < gap.first && gap.last < self.end_offset;
        inside
            && self.blocks.get(after).is_some_and(|block| {
                gap.last < block.first_offset
                    || (block.first_offset < gap.first && gap.last < block.last_offset)
            })
    }

    /// Whether the parts agree: the checksum says that nothing changed, this says that the writer was right.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let (Some(first), Some(last)) = (self.blocks.first(), self.blocks.last()) else {
            return Err("the footer lists no block");
        };
        if first.first_offset != self.start_offset || last.last_offset != self.end_offset {
            return Err("the blocks and the segment span different offsets");
        }
        let (mut file_offset, mut uncompressed, mut records) = (0u64, 0u64, 0u64);
        let mut before: Option<i64> = None;
        for block in &self.blocks {
            if block.file_offset != file_offset {
                return Err("the blocks do not follow each other");
            }
            if block.first_offset > block.last_offset || before.is_some_and(|last| block.first_offset <= last)
            {
                return Err("the offsets of the blocks are not in order");
            }
            before = Some(block.last_offset);
            file_offset = file_offset.saturating_add(block.compressed_len.into());
            uncompressed = uncompressed.saturating_add(block.uncompressed_len.into());
            records = records.saturating_add(block.record_count.into());
        }
        if !self.gaps.iter().all(|gap| self.has_room_for(gap)) {
            return Err("a gap covers what a block holds");
        }
        if file_offset != self.data_bytes {
            return Err("the blocks do not fill the object up to its footer");
        }
        if uncompressed != self.uncompressed_bytes || records != self.record_count {
            return Err("the totals are not the sums of the blocks");
        }
        Ok(())
    }
}

fn read_list<T>(
    fields: &mut FieldReader<'_>,
    element_bytes: usize,
    what: &'static str,
    read: impl Fn(&mut FieldReader<'_>) -> Result<T, FieldError>,
) -> Result<Vec<T>, FieldError> {
    let count = fields.count(element_bytes, what)?;
    (0..count).map(|_| read(fields)).collect()
}

/// Bytes of a block entry; also what the builder reckons with.
pub(crate) const BLOCK_ENTRY_BYTES: usize = 8 + 4 + 4 + 4 + 8 * 4 + 4;
pub(crate) const MARKER_ENTRY_BYTES: usize = 8 + 8 + 2 + 1;

impl BlockEntry {
    /// Where the block lies in the object.
    pub fn range(&self) -> Range<u64> {
        self.file_offset..self.file_offset.saturating_add(self.compressed_len.into())
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.file_offset);
        out.put_u32_le(self.compressed_len);
        out.put_u32_le(self.uncompressed_len);
        out.put_u32_le(self.crc32c);
        out.put_i64_le(self.first_offset);
        out.put_i64_le(self.last_offset);
        out.put_i64_le(self.timestamp_min);
        out.put_i64_le(self.timestamp_max);
        out.put_u32_le(self.record_count);
    }

    fn decode(fields: &mut FieldReader<'_>) -> Result<BlockEntry, FieldError> {
        Ok(BlockEntry {
            file_offset: fields.u64("block position")?,
            compressed_len: fields.u32("block length")?,
            uncompressed_len: fields.u32("block content length")?,
            crc32c: fields.u32("block checksum")?,
            first_offset: fields.i64("first offset")?,
            last_offset: fields.i64("last offset")?,
            timestamp_min: fields.i64("lowest timestamp")?,
            timestamp_max: fields.i64("highest timestamp")?,
            record_count: fields.u32("record count")?,
        })
    }
}

impl MarkerEntry {
    fn decode(fields: &mut FieldReader<'_>) -> Result<MarkerEntry, FieldError> {
        Ok(MarkerEntry {
            offset: fields.i64("marker offset")?,
            producer_id: fields.i64("producer id")?,
            producer_epoch: fields.i16("producer epoch")?,
            commit: fields.flag("commit")?,
        })
    }
}

impl Trailer {
    fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_slice(&TRAILER_MAGIC);
        out.put_u16_le(SEGMENT_VERSION);
        out.put_u8(self.codec.code());
        out.put_u8(0);
        out.put_u32_le(self.footer_bytes);
        out.put_u32_le(self.footer_crc32c);
        out.put_u64_le(self.data_bytes);
        let crc = crc32c::crc32c(out.get(start..).unwrap_or_default());
        out.put_u32_le(crc);
    }

    /// Reads the trailer from the end of `tail`; `at` is its place, for messages.
    fn decode(tail: &[u8], at: u64) -> Result<Trailer, SegmentError> {
        let corrupt = |what| SegmentError::Corrupt { what, at };
        let trailer = tail
            .last_chunk::<FOOTER_TRAILER_BYTES>()
            .ok_or(SegmentError::Torn {
                needed: FOOTER_TRAILER_BYTES as u64,
                present: tail.len() as u64,
            })?;
        let (checked, crc) = trailer.split_at(TRAILER_CHECKED_BYTES);
        let (magic, rest) = checked.split_at(TRAILER_MAGIC.len());
        if magic != TRAILER_MAGIC {
            return Err(corrupt("no trailer of a segment is at its end"));
        }
        if crc != crc32c::crc32c(checked).to_le_bytes() {
            return Err(corrupt("the trailer does not match its checksum"));
        }
        let mut fields = FieldReader::new(rest);
        let version = fields.u16("version")?;
        if version != SEGMENT_VERSION {
            return Err(SegmentError::Version { version });
        }
        let codec = Codec::from_code(fields.u8("codec")?)?;
        fields.u8("reserved")?;
        let footer_bytes = fields.u32("footer length")?;
        let least = SKIPPABLE_HEADER_BYTES + FOOTER_TRAILER_BYTES;
        if !(least..=FOOTER_BYTES_MAX).contains(&(footer_bytes as usize)) {
            return Err(corrupt("the trailer claims an impossible footer"));
        }
        let footer_crc32c = fields.u32("footer checksum")?;
        Ok(Trailer {
            codec,
            footer_bytes,
            footer_crc32c,
            data_bytes: fields.u64("data length")?,
        })
    }
}
