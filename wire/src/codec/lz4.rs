//! LZ4 frames.
//!
//! Frames are taken apart here and their blocks given to the block decoder of lz4_flex. That crate's own frame
//! decoder sets up several times 64 KiB for every frame, which for a batch of usual size takes longer than
//! decoding it; and it takes a frame that ends without its end mark for complete.
//!
//! As Kafka's own decoder does, the first frame is read and nothing behind it.

use std::cell::RefCell;
use std::io::Write;

use bytes::{Buf, Bytes};
use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{CodecError, Compression};

const MAGIC: u32 = 0x184d_2204;
/// The flag in a block's length that says: stored as it is.
const STORED: u32 = 1 << 31;
/// How far back a block may refer to those before it.
const WINDOW_BYTES: usize = 64 * 1024;

thread_local! {
    // Blocks are decoded into here first, as their length is known only afterwards.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn compress(bytes: &[u8]) -> Result<Bytes, CodecError> {
    // Independent 64 KiB blocks: the only kind that Kafka's Java decoder reads.
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let failed = |reason: String| CodecError::Compress {
        codec: Compression::Lz4,
        reason,
    };
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(bytes.len() / 2));
    encoder
        .write_all(bytes)
        .map_err(|error| failed(error.to_string()))?;
    encoder
        .finish()
        .map(Bytes::from)
        .map_err(|error| failed(error.to_string()))
}

pub(super) fn decompress(bytes: &[u8], limit: usize) -> Result<Bytes, CodecError> {
    let mut output = Vec::new();
    decompress_over(bytes, limit, &mut output)?;
    Ok(output.into())
}

/// The same in the place of whatever `output` holds.
pub(super) fn decompress_over(bytes: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    output.clear();
    BLOCK.with_borrow_mut(|scratch| {
        let mut rest = bytes;
        let frame = Frame::read(&mut rest)?;
        while let Some(block) = frame.next_block(&mut rest)? {
            frame.append(block, scratch, limit, output)?;
        }
        if frame.has_content_checksum {
            let expected = take_u32(&mut rest, "the content checksum is cut short")?;
            check(
                expected == XxHash32::oneshot(0, output),
                "the content has another checksum",
            )?;
        }
        if let Some(size) = frame.content_bytes {
            check(
                size == output.len() as u64,
                "the content has another length than announced",
            )?;
        }
        Ok(())
    })
}

/// What a frame's header says.
#[derive(Debug)]
struct Frame {
    blocks_are_independent: bool,
    has_block_checksums: bool,
    has_content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

struct Block<'a> {
    bytes: &'a [u8],
    is_stored: bool,
}

impl Frame {
    fn read(rest: &mut &[u8]) -> Result<Self, CodecError> {
        let cut = "the frame header is cut short";
        check(
            take_u32(rest, cut)? == MAGIC,
            "it does not begin with an LZ4 frame",
        )?;
        let described = *rest;
        let flags = rest.try_get_u8().map_err(|_| damaged(cut))?;
        let block_descriptor = rest.try_get_u8().map_err(|_| damaged(cut))?;
        let flag = |bit: u8| flags >> bit & 1 == 1;
        check(flags >> 6 == 1, "it has an unknown frame version")?;
        check(!flag(0), "it needs a dictionary")?;
        let content_bytes = match flag(3) {
            true => Some(rest.try_get_u64_le().map_err(|_| damaged(cut))?),
            false => None,
        };
        let described = described.get(..described.len() - rest.len()).unwrap_or_default();
        let checksum = rest.try_get_u8().map_err(|_| damaged(cut))?;
        let expected = (XxHash32::oneshot(0, described) >> 8) as u8;
        check(checksum == expected, "the frame header has another checksum")?;
        let block_bytes_max = match block_descriptor >> 4 & 7 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return Err(damaged("it has an unknown block size")),
        };
        Ok(Self {
            blocks_are_independent: flag(5),
            has_block_checksums: flag(4),
            has_content_checksum: flag(2),
            content_bytes,
            block_bytes_max,
        })
    }

    /// The next block; `None` at the end mark.
    fn next_block<'a>(&self, rest: &mut &'a [u8]) -> Result<Option<Block<'a>>, CodecError> {
        let length = take_u32(rest, "the frame has no end mark")?;
        if length == 0 {
            return Ok(None);
        }
        let is_stored = length & STORED != 0;
        let length = (length & !STORED) as usize;
        check(length <= self.block_bytes_max, "a block is larger than announced")?;
        let (bytes, after) = rest
            .split_at_checked(length)
            .ok_or_else(|| damaged("a block is cut short"))?;
        *rest = after;
        if self.has_block_checksums {
            let expected = take_u32(rest, "a block checksum is cut short")?;
            check(
                expected == XxHash32::oneshot(0, bytes),
                "a block has another checksum",
            )?;
        }
        Ok(Some(Block { bytes, is_stored }))
    }

    fn append(
        &self,
        block: Block<'_>,
        scratch: &mut Vec<u8>,
        limit: usize,
        output: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let content = if block.is_stored {
            block.bytes
        } else {
            scratch.resize(self.block_bytes_max, 0);
            let before = output
                .get(output.len().saturating_sub(WINDOW_BYTES)..)
                .unwrap_or_default();
            let written = match self.blocks_are_independent {
                true => decompress_into(block.bytes, scratch),
                false => decompress_into_with_dict(block.bytes, scratch, before),
            };
            let written = written.map_err(|error| damaged(error.to_string()))?;
            scratch.get(..written).unwrap_or_default()
        };
        if output.len() + content.len() > limit {
            return Err(CodecError::TooLarge {
                codec: Compression::Lz4,
                limit,
            });
        }
        output.extend_from_slice(content);
        Ok(())
    }
}

fn take_u32(rest: &mut &[u8], cut: &str) -> Result<u32, CodecError> {
    rest.try_get_u32_le().map_err(|_| damaged(cut))
}

fn check(holds: bool, otherwise: &str) -> Result<(), CodecError> {
    if holds { Ok(()) } else { Err(damaged(otherwise)) }
}

fn damaged(reason: impl Into<String>) -> CodecError {
    CodecError::Damaged {
        codec: Compression::Lz4,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn encode(info: FrameInfo, content: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_kind_of_frame_is_read(
            seed in proptest::collection::vec(any::<u8>(), 1..400), repeat in 1usize..1500,
            linked: bool, block_checksums: bool, content_checksum: bool, sized: bool, size in 0usize..4,
        ) {
            let content = seed.repeat(repeat);
            let sizes = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
            let info = FrameInfo::new()
                .block_mode(if linked { BlockMode::Linked } else { BlockMode::Independent })
                .block_checksums(block_checksums)
                .content_checksum(content_checksum)
                .content_size(sized.then_some(content.len() as u64))
                .block_size(*sizes.get(size).unwrap());
            let frame = encode(info, &content);
            prop_assert_eq!(&decompress(&frame, content.len()).unwrap(), &content);
            let outcome = decompress(&frame, content.len() - 1);
            prop_assert!(matches!(outcome, Err(CodecError::TooLarge { .. })), "a limit is a limit");
        }
    }

    #[test]
    fn damage_is_noticed_where_there_are_checksums() {
        let content: Vec<u8> = (0..100_000u32)
            .flat_map(|number| (number / 7).to_le_bytes())
            .collect();
        let info = FrameInfo::new().block_checksums(true).content_checksum(true);
        let frame = encode(info, &content);
        for at in (0..frame.len()).step_by(997).chain(0..20) {
            let mut damaged = frame.clone();
            *damaged.get_mut(at).unwrap() ^= 0x10;
            assert!(decompress(&damaged, content.len()).is_err(), "byte {at}");
        }
    }
}
