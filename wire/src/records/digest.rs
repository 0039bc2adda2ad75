//! Telling whether two batches hold the same records.
//!
//! Brokers and cleaners rewrite batches: another codec, corrected timestamps, another checksum. What stays is
//! the records, so they are what is compared. Where a batch has a producer id, that, the epoch, the base
//! sequence and the count identify it and no digest is needed.

use twox_hash::xxhash3_128::Hasher;

use super::Records;
use crate::batch::{BatchError, BatchView};

/// 128 bits that stand for the records of a batch. Not for adversaries: it tells apart what differs by
/// chance, and a producer that crafts a collision deceives only itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub u128);

/// Which fields of the records a digest covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestScope {
    /// Number and order of the records, timestamps, keys, values and headers.
    WithTimestamps,
    /// All but the timestamps: for comparing what was sent with what a `LogAppendTime` topic stored.
    WithoutTimestamps,
}

/// Digest of the decoded records of `batch`; `limit` bounds decompression as in [`Records::decode`].
pub fn content_digest(
    batch: &BatchView,
    scope: DigestScope,
    limit: usize,
) -> Result<ContentDigest, BatchError> {
    let records = Records::decode(batch, limit)?;
    let mut hasher = Hasher::new();
    for record in &records {
        let record = record?;
        if scope == DigestScope::WithTimestamps {
            hasher.write(&record.timestamp.to_le_bytes());
        }
        hash_bytes(&mut hasher, record.key);
        hash_bytes(&mut hasher, record.value);
        hasher.write(&record.headers.len().to_le_bytes());
        for header in record.headers {
            hash_bytes(&mut hasher, Some(header.key));
            hash_bytes(&mut hasher, header.value);
        }
    }
    Ok(ContentDigest(hasher.finish_128()))
}

/// Lengths go in as well, so that no two different records run together to the same bytes.
fn hash_bytes(hasher: &mut Hasher, bytes: Option<&[u8]>) {
    let length = bytes.map_or(-1, |bytes| bytes.len() as i64);
    hasher.write(&length.to_le_bytes());
    hasher.write(bytes.unwrap_or_default());
}
