//! Snappy, bare and in the framing of the Java library.
//!
//! Java clients and most others write the framing of xerial's snappy-java: a 16-byte header, then blocks,
//! each a big-endian length and a bare snappy block. Some clients write one bare block instead. Consumers
//! accept both, so both are read; the framing is what is written.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{CodecError, Compression};

/// Magic, then version 1 and the lowest version that can read it, 1, each as i32.
const HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];
const MAGIC_BYTES: usize = 8;
/// No block unfolds to more than so many times its size.
const UNFOLDS_MAX: usize = 32;
/// The block size of the Java library.
const BLOCK_BYTES: usize = 32 * 1024;

pub(super) fn compress(bytes: &[u8]) -> Result<Bytes, CodecError> {
    let mut output = BytesMut::with_capacity(HEADER.len() + bytes.len() / 2);
    output.put_slice(&HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(BLOCK_BYTES) {
        let compressed = encoder
            .compress_vec(block)
            .map_err(|error| CodecError::Compress {
                codec: Compression::Snappy,
                reason: error.to_string(),
            })?;
        let length = u32::try_from(compressed.len()).expect("a block of 32 KiB stays small");
        output.put_u32(length);
        output.put_slice(&compressed);
    }
    Ok(output.freeze())
}

pub(super) fn decompress(bytes: &Bytes, limit: usize) -> Result<Bytes, CodecError> {
    let magic = HEADER
        .first_chunk::<MAGIC_BYTES>()
        .expect("the header is longer than its magic");
    let mut output = Vec::new();
    if !bytes.starts_with(magic) {
        append_block(bytes, limit, &mut output)?;
        return Ok(output.into());
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        // Concatenated streams repeat the header between blocks. Its versions have never changed.
        if rest.starts_with(magic) {
            rest = rest
                .get(HEADER.len()..)
                .ok_or_else(|| damaged("the framing header is cut short"))?;
            continue;
        }
        let length = rest
            .try_get_u32()
            .map_err(|_| damaged("a block length is cut short"))?;
        let block = rest
            .get(..length as usize)
            .ok_or_else(|| damaged("a block is cut short"))?;
        append_block(block, limit, &mut output)?;
        rest = rest.get(length as usize..).unwrap_or_default();
    }
    Ok(output.into())
}

fn append_block(block: &[u8], limit: usize, output: &mut Vec<u8>) -> Result<(), CodecError> {
    let length = snap::raw::decompress_len(block).map_err(|error| damaged(error.to_string()))?;
    let start = output.len();
    let end = start.saturating_add(length);
    if end > limit {
        return Err(CodecError::TooLarge {
            codec: Compression::Snappy,
            limit,
        });
    }
    // Three bytes copy 64 at most: a claim of more is none that the block can keep.
    if length > block.len().saturating_mul(UNFOLDS_MAX) {
        return Err(damaged("it says that it unfolds to more than it can"));
    }
    output.resize(end, 0);
    let target = output.get_mut(start..).unwrap_or_default();
    let written = snap::raw::Decoder::new()
        .decompress(block, target)
        .map_err(|error| damaged(error.to_string()))?;
    output.truncate(start + written);
    Ok(())
}

fn damaged(reason: impl Into<String>) -> CodecError {
    CodecError::Damaged {
        codec: Compression::Snappy,
        reason: reason.into(),
    }
}
