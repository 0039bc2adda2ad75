//! LZ4 frames.

use std::io::Write;

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{CodecError, Compression, read_all};

pub(super) fn decompress(bytes: &Bytes, limit: usize) -> Result<Bytes, CodecError> {
    read_all(Compression::Lz4, FrameDecoder::new(&bytes[..]), limit)
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
