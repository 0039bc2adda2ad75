//! Blocks to compressed bytes and back.
//!
//! Each block is one frame of its codec with content size and content checksum, so that the stock tools check
//! what they unpack even without our footer.

use crate::fields::FieldError;
use crate::segment::SegmentError;
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
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Lz4,
    None,
}

impl BlockEncoder {
    pub(crate) fn new(codec: Codec, level: i32) -> Result<BlockEncoder, SegmentError> {
        Ok(match codec {
            Codec::Zstd => {
                let wrap = |source| SegmentError::Compress { codec, source };
                let mut compressor = zstd::bulk::Compressor::new(level).map_err(wrap)?;
                compressor.include_checksum(true).map_err(wrap)?;
                compressor.include_contentsize(true).map_err(wrap)?;
                BlockEncoder::Zstd(Box::new(compressor))
            }
            Codec::Lz4 => BlockEncoder::Lz4,
            Codec::None => BlockEncoder::None,
        })
    }

    /// Compresses a block.
    pub(crate) fn encode(&mut self, block: &[u8]) -> Result<Bytes, SegmentError> {
        match self {
            BlockEncoder::Zstd(compressor) => {
                let wrap = |source| SegmentError::Compress {
                    codec: Codec::Zstd,
                    source,
                };
                Ok(shrunk(compressor.compress(block).map_err(wrap)?))
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
