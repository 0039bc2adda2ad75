//! The records inside a batch: reading them in place, and building batches of them.
//!
//! A record stays raw bytes throughout. Keys, values, header names and header values are slices of the
//! batch; null and empty are kept apart; header names may repeat and need not be UTF-8. What is rebuilt is
//! rebuilt from those slices, so that nothing is altered by having been understood.

mod build;
mod digest;
mod iter;
mod rebuild;
mod timestamps;
mod varint;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::batch::{BatchError, BatchHeader, BatchView};
use crate::codec;

pub use build::BatchBuilder;
pub use digest::{ContentDigest, DigestScope, content_digest};
pub use iter::{HeaderIter, HeaderView, Headers, RecordIter, RecordView};
pub use rebuild::{rebuild, rebuild_within};
pub use timestamps::{TimestampRange, timestamp_range};

/// The decompression limit to use where nothing better is known: 256 MiB, far above what any broker's
/// default `message.max.bytes` (1 MiB) unfolds to, far below what hurts a host.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The decompressed records of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    payload: Bytes,
}

impl Records {
    /// Decompresses the records of `batch`; refuses more than `limit` bytes of them. For uncompressed
    /// batches this is free.
    pub fn decode(batch: &BatchView, limit: usize) -> Result<Self, BatchError> {
        let header = *batch.header();
        let payload = codec::decompress(header.compression()?, &batch.payload(), limit)?;
        Ok(Self { header, payload })
    }

    /// Header of the batch they came from.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records' bytes, decompressed.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Walks the records. Exactly as many as the header announces come out, or an error.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter::new(&self.header, &self.payload)
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
