//! Compression of records, both directions, for the five codecs of Kafka.
//!
//! Input to decompression comes from producers, so every decoder stops at a limit given by the caller: a
//! batch of a few hundred bytes that unfolds into gigabytes is an error, not an allocation.

mod lz4;
mod snappy;
mod zstandard;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// A codec, as numbered in a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Records as they are.
    None,
    /// RFC 1952 members.
    Gzip,
    /// Snappy blocks, bare or in the framing of the Java library.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames (RFC 8878).
    Zstd,
}

impl Compression {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number in the attributes.
    pub fn from_id(id: i16) -> Option<Self> {
        usize::try_from(id)
            .ok()
            .and_then(|index| Self::ALL.get(index))
            .copied()
    }

    /// Its number in the attributes.
    pub fn id(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Its name as in Kafka's `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why records could not be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The content unfolds to more than the caller allows.
    #[error("{} data unfolds to more than the {limit} bytes allowed", codec.name())]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The caller's limit.
        limit: usize,
    },
    /// The compressed bytes are damaged or cut short.
    #[error("{} data is damaged: {reason}", codec.name())]
    Damaged {
        /// The codec.
        codec: Compression,
        /// What its decoder says.
        reason: String,
    },
    /// The encoder failed; not for any content, so for lack of memory.
    #[error("{} compression failed: {reason}", codec.name())]
    Compress {
        /// The codec.
        codec: Compression,
        /// What its encoder says.
        reason: String,
    },
}

/// Unfolds `bytes`; more than `limit` bytes of output are refused before they are allocated.
pub fn decompress(codec: Compression, bytes: &Bytes, limit: usize) -> Result<Bytes, CodecError> {
    match codec {
        // Already in memory, so there is nothing to be protected from.
        Compression::None => Ok(bytes.clone()),
        Compression::Gzip => read_all(codec, MultiGzDecoder::new(&bytes[..]), limit),
        Compression::Snappy => snappy::decompress(bytes, limit),
        Compression::Lz4 => lz4::decompress(bytes, limit),
        Compression::Zstd => zstandard::decompress(bytes, limit),
    }
}

/// The same for content that is only looked at: it lies in `room`, which is used again and again, so that neither memory
/// is asked for nor the content copied. What `room` held is gone.
pub fn decompress_within<'a>(
    codec: Compression,
    bytes: &'a Bytes,
    limit: usize,
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], CodecError> {
    match codec {
        Compression::None => Ok(bytes),
        Compression::Lz4 => {
            lz4::decompress_over(bytes, limit, room)?;
            Ok(room)
        }
        Compression::Zstd => {
            let length = zstandard::decompress_over(bytes, limit, room)?;
            Ok(room.get(..length).unwrap_or_default())
        }
        Compression::Gzip | Compression::Snappy => {
            *room = decompress(codec, bytes, limit)?.into();
            Ok(room)
        }
    }
}

/// Compresses `bytes` in the form that Kafka's Java client writes.
pub fn compress(codec: Compression, bytes: &Bytes) -> Result<Bytes, CodecError> {
    match codec {
        Compression::None => Ok(bytes.clone()),
        Compression::Gzip => gzip(bytes),
        Compression::Snappy => snappy::compress(bytes),
        Compression::Lz4 => lz4::compress(bytes),
        Compression::Zstd => zstandard::compress(bytes),
    }
}

fn gzip(bytes: &[u8]) -> Result<Bytes, CodecError> {
    let failed = |error: std::io::Error| CodecError::Compress {
        codec: Compression::Gzip,
        reason: error.to_string(),
    };
    let mut encoder = GzEncoder::new(
        Vec::with_capacity(bytes.len() / 2),
        flate2::Compression::default(),
    );
    encoder.write_all(bytes).map_err(failed)?;
    encoder.finish().map(Bytes::from).map_err(failed)
}

/// Reads a decoder to its end, but no further than `limit`.
fn read_all(codec: Compression, decoder: impl Read, limit: usize) -> Result<Bytes, CodecError> {
    let mut output = Vec::new();
    // One byte beyond the limit tells "exactly full" from "too much".
    let allowed = (limit as u64).saturating_add(1);
    decoder
        .take(allowed)
        .read_to_end(&mut output)
        .map_err(|error| CodecError::Damaged {
            codec,
            reason: error.to_string(),
        })?;
    if output.len() > limit {
        return Err(CodecError::TooLarge { codec, limit });
    }
    Ok(output.into())
}
