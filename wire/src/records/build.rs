//! Making batches of records.

use bytes::{BufMut, BytesMut};

use super::RecordView;
use super::varint::{put_i32, put_i64, size_i32, size_i64};
use crate::batch::{BATCH_HEADER_BYTES, BatchError, BatchHeader, BatchView, NO_PRODUCER_ID, NO_SEQUENCE};
use crate::codec::{self, Compression};

/// Builds one batch as a producer sends it: base offset 0, leader epoch -1, no producer, offsets dense.
///
/// The records' timestamps are their own (`CreateTime`). [`crate::batch::reset_for_replay`] puts a
/// producer in afterwards.
#[derive(Debug)]
pub struct BatchBuilder {
    compression: Compression,
    payload: BytesMut,
    record_count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch to be compressed with `compression`.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            payload: BytesMut::new(),
            record_count: 0,
            base_timestamp: 0,
            max_timestamp: i64::MIN,
        }
    }

    /// Appends a record taken from elsewhere; its headers go over as bytes, its offset is the next one.
    pub fn push_record(&mut self, record: &RecordView<'_>) -> Result<(), BatchError> {
        let count = i32::try_from(record.headers.len()).map_err(|_| BatchError::TooLarge {
            what: "number of headers",
        })?;
        self.push_parts(
            record.timestamp,
            record.attributes,
            record.key,
            record.value,
            count,
            record.headers.bytes(),
        )
    }

    /// Appends a record from its parts.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<(), BatchError> {
        let count = i32::try_from(headers.len()).map_err(|_| BatchError::TooLarge {
            what: "number of headers",
        })?;
        let mut encoded = BytesMut::new();
        for (name, header_value) in headers {
            put_bytes(&mut encoded, Some(name))?;
            put_bytes(&mut encoded, *header_value)?;
        }
        self.push_parts(timestamp, 0, key, value, count, &encoded)
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.record_count.unsigned_abs()
    }

    /// Bytes so far, header included, before compression.
    pub fn uncompressed_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.payload.len()
    }

    /// The finished batch; `None` without records, which no broker accepts.
    pub fn build(self) -> Result<Option<BatchView>, BatchError> {
        if self.record_count == 0 {
            return Ok(None);
        }
        let payload = codec::compress(self.compression, &self.payload.freeze())?;
        let batch_length =
            i32::try_from(BATCH_HEADER_BYTES - 12 + payload.len()).map_err(|_| BatchError::TooLarge {
                what: "compressed length",
            })?;
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length,
            partition_leader_epoch: -1,
            crc: 0,
            attributes: self.compression.id(),
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: NO_SEQUENCE,
            record_count: self.record_count,
        };
        header.crc = crc32c::crc32c_append(header.content_crc(), &payload);
        let mut bytes = BytesMut::with_capacity(BATCH_HEADER_BYTES + payload.len());
        bytes.put_slice(&header.to_bytes());
        bytes.put_slice(&payload);
        BatchView::parse(&bytes.freeze()).map(Some)
    }

    /// An uncompressed batch of a single record without headers: enough for probes and tests.
    pub fn single(timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<BatchView, BatchError> {
        let mut builder = Self::new(Compression::None);
        builder.push(timestamp, key, value, &[])?;
        Ok(builder.build()?.expect("one record was pushed"))
    }

    fn push_parts(
        &mut self,
        timestamp: i64,
        attributes: i8,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header_count: i32,
        headers: &[u8],
    ) -> Result<(), BatchError> {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        let offset_delta = self.record_count;
        let record_count = offset_delta.checked_add(1).ok_or(BatchError::TooLarge {
            what: "number of records",
        })?;
        // Wrapping both ways: the reader's wrapping addition gives the timestamp back whatever it is.
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let length = 1
            + size_i64(timestamp_delta)
            + size_i32(offset_delta)
            + size_bytes(key)?
            + size_bytes(value)?
            + size_i32(header_count)
            + headers.len();
        let length = i32::try_from(length).map_err(|_| BatchError::TooLarge { what: "record" })?;
        if self.payload.len() + length as usize > i32::MAX as usize - BATCH_HEADER_BYTES {
            return Err(BatchError::TooLarge {
                what: "records together",
            });
        }
        put_i32(&mut self.payload, length);
        self.payload.put_i8(attributes);
        put_i64(&mut self.payload, timestamp_delta);
        put_i32(&mut self.payload, offset_delta);
        put_bytes(&mut self.payload, key)?;
        put_bytes(&mut self.payload, value)?;
        put_i32(&mut self.payload, header_count);
        self.payload.put_slice(headers);
        self.record_count = record_count;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }
}

fn length_of(bytes: Option<&[u8]>) -> Result<i32, BatchError> {
    match bytes {
        None => Ok(-1),
        Some(bytes) => i32::try_from(bytes.len()).map_err(|_| BatchError::TooLarge {
            what: "key, value or header",
        }),
    }
}

fn size_bytes(bytes: Option<&[u8]>) -> Result<usize, BatchError> {
    Ok(size_i32(length_of(bytes)?) + bytes.map_or(0, <[u8]>::len))
}

fn put_bytes(output: &mut BytesMut, bytes: Option<&[u8]>) -> Result<(), BatchError> {
    put_i32(output, length_of(bytes)?);
    output.put_slice(bytes.unwrap_or_default());
    Ok(())
}
