//! Whole batches and runs of them.

use bytes::Bytes;

use super::header::ATTRIBUTES_AT;
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader};

/// One whole batch: a parsed header and exactly its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchView {
    header: BatchHeader,
    bytes: Bytes,
}

impl BatchView {
    /// The first batch in `bytes`, which may go on after it. The checksum is not looked at.
    pub fn parse(bytes: &Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let needed = header.size_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Incomplete {
                needed,
                available: bytes.len(),
            });
        }
        Ok(Self {
            header,
            bytes: bytes.slice(..needed),
        })
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records, still compressed.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(BATCH_HEADER_BYTES..)
    }

    /// Gives the whole batch away.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Compares the checksum in the header with the content.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let content = self
            .bytes
            .get(ATTRIBUTES_AT..)
            .expect("a view holds its whole header");
        let computed = crc32c::crc32c(content);
        if computed == self.header.crc {
            return Ok(());
        }
        Err(BatchError::ChecksumMismatch {
            base_offset: self.header.base_offset,
            stored: self.header.crc,
            computed,
        })
    }
}

/// The batches in a run that must end where its last batch ends (a segment block, a produce request).
pub fn batches(bytes: &Bytes) -> Batches {
    Batches {
        rest: bytes.clone(),
        partial_tail_allowed: false,
    }
}

/// The batches in a fetch response: it may be cut anywhere in its last batch, which is then left out.
pub fn fetched_batches(bytes: &Bytes) -> Batches {
    Batches {
        rest: bytes.clone(),
        partial_tail_allowed: true,
    }
}

/// Iterator over the batches of a run; ends after the first error.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    partial_tail_allowed: bool,
}

impl Iterator for Batches {
    type Item = Result<BatchView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match BatchView::parse(&self.rest) {
            Ok(batch) => {
                self.rest = self.rest.split_off(batch.bytes.len());
                Some(Ok(batch))
            }
            Err(BatchError::Incomplete { .. }) if self.partial_tail_allowed => {
                self.rest.clear();
                None
            }
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}
