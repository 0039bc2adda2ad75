//! Blocks to compressed bytes and back.
//!
//! Each block is one frame of its codec with content size and content checksum, so that the stock tools check
//! what they unpack even without our footer.

use crate::fields::FieldError;
use crate::segment::SegmentError;
use crate::segment::level::{Attempt, Effort, LEVEL_HIGHER, LEVEL_LOWER, Level};
use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use std::fmt;
use std::io::{self, Read, Write};

/// How the blocks of a segment are compressed; the object's extension tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// Zstandard: the default.
    Zstd,
    /// LZ4 frames: cheaper, larger.
    Lz4,
    /// As it is; the footer is an object beside it.
    None,
}

impl Codec {
    /// All codecs.
    pub const ALL: [Codec; 3] = [Codec::Zstd, Codec::Lz4, Codec::None];

    /// The extension of a segment's key, with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Codec::Zstd => ".zst",
            Codec::Lz4 => ".lz4",
            Codec::None => ".log",
        }
    }

    /// The word for it in manifests and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
            Codec::None => "none",
        }
    }

    /// Whether the footer is an object beside the segment.
    pub fn has_sidecar(self) -> bool {
        self == Codec::None
    }

    pub(crate) fn code(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Zstd => 1,
            Codec::Lz4 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Codec, FieldError> {
        match code {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Zstd),
            2 => Ok(Codec::Lz4),
            other => Err(FieldError::invalid("codec", other)),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Compresses blocks; keeps the library's state from block to block.
pub(crate) enum BlockEncoder {
    Zstd(Box<ZstdEncoder>),
    Lz4,
    None,
}

pub(crate) struct ZstdEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    asked: Level,
    /// The compressor's, at the moment.
    level: i32,
}

impl ZstdEncoder {
    fn new(asked: Level) -> io::Result<ZstdEncoder> {
        let level = LEVEL_HIGHER;
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.include_checksum(true)?;
        compressor.include_contentsize(true)?;
        Ok(ZstdEncoder {
            compressor,
            asked,
            level,
        })
    }

    fn encode(&mut self, block: &[u8], effort: Effort) -> io::Result<Bytes> {
        let trial = match self.asked.of(effort, block.len()) {
            Attempt::At(level) => return self.encode_at(block, level),
            Attempt::Both(trial) => trial,
        };
        let higher = self.encode_at(block, LEVEL_HIGHER)?;
        let lower = self.encode_at(block, LEVEL_LOWER)?;
        trial.note(higher.len(), lower.len());
        Ok(if lower.len() < higher.len() { lower } else { higher })
    }

    fn encode_at(&mut self, block: &[u8], level: i32) -> io::Result<Bytes> {
        if level != self.level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        self.compressor.compress(block).map(shrunk)
    }
}

impl BlockEncoder {
    pub(crate) fn new(codec: Codec, level: Level) -> Result<BlockEncoder, SegmentError> {
        Ok(match codec {
            Codec::Zstd => {
                let wrap = |source| SegmentError::Compress { codec, source };
                BlockEncoder::Zstd(Box::new(ZstdEncoder::new(level).map_err(wrap)?))
            }
            Codec::Lz4 => BlockEncoder::Lz4,
            Codec::None => BlockEncoder::None,
        })
    }

    /// Compresses a block; how hard it is tried matters to zstd only.
    pub(crate) fn encode(&mut self, block: &[u8], effort: Effort) -> Result<Bytes, SegmentError> {
        match self {
            BlockEncoder::Zstd(encoder) => {
                let wrap = |source| SegmentError::Compress {
                    codec: Codec::Zstd,
                    source,
                };
                encoder.encode(block, effort).map_err(wrap)
            }
            BlockEncoder::Lz4 => {
                let wrap = |source| SegmentError::Compress {
                    codec: Codec::Lz4,
                    source,
                };
                lz4(block).map(shrunk).map_err(wrap)
            }
            BlockEncoder::None => Ok(Bytes::copy_from_slice(block)),
        }
    }
}

/// The worst case is reserved while compressing; what waits for its upload should not hold it.
fn shrunk(mut bytes: Vec<u8>) -> Bytes {
    if bytes.capacity() > bytes.len().saturating_mul(5) / 4 {
        bytes.shrink_to_fit();
    }
    Bytes::from(bytes)
}

fn lz4(block: &[u8]) -> io::Result<Vec<u8>> {
    let info = FrameInfo::new()
        .content_size(Some(block.len() as u64))
        .content_checksum(true)
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max1MB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(block.len() / 2));
    encoder.write_all(block)?;
    encoder.finish().map_err(io::Error::other)
}

/// Decompresses one block to exactly `len` bytes; never allocates more than that (and one byte).
pub(crate) fn decompress(codec: Codec, compressed: &Bytes, len: usize) -> io::Result<Bytes> {
    let content = match codec {
        Codec::Zstd => {
            // The frame says how long its content is: compared before anything is allocated for it.
            let said = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
            if said != Some(len as u64) {
                return Err(other_length());
            }
            Bytes::from(zstd::bulk::decompress(compressed, len)?)
        }
        Codec::Lz4 => {
            // LZ4 cannot unpack to more than 255 times its size, whatever an index claims.
            let mut content = Vec::with_capacity(len.min(compressed.len().saturating_mul(255)));
            // One byte more than allowed tells a longer content from one that ends right here.
            let cap = (len as u64).saturating_add(1);
            FrameDecoder::new(compressed.as_ref())
                .take(cap)
                .read_to_end(&mut content)?;
            Bytes::from(content)
        }
        Codec::None => compressed.clone(),
    };
    if content.len() != len {
        Err(other_length())
    } else {
        Ok(content)
    }
}

fn other_length() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the content has another length than its index says",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::segment::LevelTrial;

    /// Bytes that repeat every 256, so that every level but the least finds something.
    fn content() -> Vec<u8> {
        (0..200_000u32)
            .map(|at| (at.wrapping_mul(at) >> 3) as u8)
            .collect()
    }

    #[test]
    fn the_smaller_one_of_two_levels_is_stored_and_settles_what_comes_next() {
        let events: String = (0..10_000)
            .map(|id| {
                format!(
                    "{{\"id\":{id},\"user\":\"user-{}\",\"kind\":\"click\"}}\n",
                    id % 97
                )
            })
            .collect();
        // Short random repetitions, which the lower level passes over.
        let mut state = 1_u32;
        let mut words = Vec::new();
        while words.len() < 400_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = (state >> 20).to_be_bytes();
            words.extend_from_slice(&word[2..]);
            words.extend_from_slice(b"th");
        }
        for (content, is_lower) in [(events.into_bytes(), true), (words, false)] {
            let at = |level| {
                let mut encoder = BlockEncoder::new(Codec::Zstd, Level::Fixed(level)).unwrap();
                encoder.encode(&content, Effort::Full).unwrap()
            };
            let (higher, lower) = (at(LEVEL_HIGHER), at(LEVEL_LOWER));
            let trial = Arc::new(LevelTrial::default());
            let mut encoder = BlockEncoder::new(Codec::Zstd, Level::Chosen(Arc::clone(&trial))).unwrap();
            assert_eq!(
                encoder.encode(&content, Effort::Full).unwrap(),
                higher,
                "not tried yet"
            );
            let first = encoder.encode(&content, Effort::Full).unwrap();
            assert_eq!(first.len(), higher.len().min(lower.len()));
            assert_eq!(decompress(Codec::Zstd, &first, content.len()).unwrap(), content);
            assert_eq!(trial.is_lower(), is_lower);
            let expected = if is_lower { lower } else { higher };
            assert_eq!(encoder.encode(&content, Effort::Full).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_tried_less_comes_back_all_the_same() {
        let content = content();
        let mut encoder = BlockEncoder::new(Codec::Zstd, Level::Fixed(3)).unwrap();
        for effort in [Effort::Full, Effort::Least, Effort::Light, Effort::Full] {
            let stored = encoder.encode(&content, effort).unwrap();
            let back = decompress(Codec::Zstd, &stored, content.len()).unwrap();
            assert!(back == content, "{effort:?}");
            // Checksum and content size stand in every frame, whatever the level: stock tools rely on them.
            let descriptor = stored.get(4).copied().unwrap();
            assert_ne!(descriptor & 0b100, 0, "{effort:?}: no checksum");
            assert_ne!(descriptor >> 6, 0, "{effort:?}: no content size");
        }
    }
}
