//! Walking decompressed records without copying them.

use super::varint::{take_i32, take_i64};
use crate::batch::{BatchError, BatchHeader};

/// One record, as slices of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset in its partition.
    pub offset: i64,
    /// Its timestamp: the append time in a `LogAppendTime` batch, else its own.
    pub timestamp: i64,
    /// Offset relative to the batch.
    pub offset_delta: i32,
    /// Own timestamp relative to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Record attributes; unused by Kafka, kept.
    pub attributes: i8,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null (a tombstone on compacted topics).
    pub value: Option<&'a [u8]>,
    /// Headers, as they are.
    pub headers: Headers<'a>,
}

/// The headers of one record: checked, and kept as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    count: u32,
    bytes: &'a [u8],
}

/// One record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Name; may repeat, need not be UTF-8.
    pub key: &'a [u8],
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// No headers.
    pub const EMPTY: Headers<'static> = Headers { count: 0, bytes: &[] };

    /// How many.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All headers encoded, without their count.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// One after the other, in the record's order.
    pub fn iter(&self) -> HeaderIter<'a> {
        HeaderIter {
            left: self.count,
            rest: self.bytes,
        }
    }

    /// Reads `count` headers, which must be all there is.
    fn parse(count: i32, bytes: &'a [u8]) -> Result<Self, &'static str> {
        let count = u32::try_from(count).map_err(|_| "its header count is negative")?;
        let mut iter = HeaderIter {
            left: count,
            rest: bytes,
        };
        for _ in 0..count {
            iter.read_one().ok_or("a header is cut short")?;
        }
        if !iter.rest.is_empty() {
            return Err("bytes are left after its headers");
        }
        Ok(Self { count, bytes })
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = HeaderView<'a>;
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over the headers of one record.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    left: u32,
    rest: &'a [u8],
}

impl<'a> HeaderIter<'a> {
    fn read_one(&mut self) -> Option<HeaderView<'a>> {
        // Kafka knows no null header names; the broker refuses them.
        let key = take_bytes(&mut self.rest)??;
        let value = take_bytes(&mut self.rest)?;
        Some(HeaderView { key, value })
    }
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.read_one()
    }
}

/// Iterator over the records of a batch; ends after the first error. See [`super::Records::iter`].
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    base_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
    announced: u32,
    index: u32,
    rest: &'a [u8],
    ended: bool,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(header: &BatchHeader, payload: &'a [u8]) -> Self {
        Self {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: header.is_log_append_time().then_some(header.max_timestamp),
            announced: header.records(),
            index: 0,
            rest: payload,
            ended: false,
        }
    }

    fn read(&mut self) -> Result<RecordView<'a>, &'static str> {
        let length = take_i32(&mut self.rest).ok_or("its length is cut short")?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let (mut body, rest) = self.rest.split_at_checked(length).ok_or("it is cut short")?;
        self.rest = rest;
        let (&attributes, after) = body.split_first().ok_or("it is empty")?;
        body = after;
        let timestamp_delta = take_i64(&mut body).ok_or("its timestamp is cut short")?;
        let offset_delta = take_i32(&mut body).ok_or("its offset is cut short")?;
        let key = take_bytes(&mut body).ok_or("its key is cut short")?;
        let value = take_bytes(&mut body).ok_or("its value is cut short")?;
        let header_count = take_i32(&mut body).ok_or("its header count is cut short")?;
        let headers = Headers::parse(header_count, body)?;
        // Wrapping, as the Java consumer adds: this is what an application sees.
        let own_timestamp = self.base_timestamp.wrapping_add(timestamp_delta);
        Ok(RecordView {
            offset: self.base_offset.wrapping_add(i64::from(offset_delta)),
            timestamp: self.append_time.unwrap_or(own_timestamp),
            offset_delta,
            timestamp_delta,
            attributes: attributes as i8,
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.index == self.announced {
            self.ended = true;
            // Trailing bytes are no record: the Java consumer stops at the count too.
            return None;
        }
        if self.rest.is_empty() {
            self.ended = true;
            return Some(Err(BatchError::RecordCount {
                announced: self.announced,
                found: self.index,
            }));
        }
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.ended = true;
                Some(Err(BatchError::MalformedRecord {
                    index: self.index,
                    reason,
                }))
            }
        }
    }
}

/// Takes length-prefixed bytes: outer `None` is damage, inner `None` is null.
fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_i32(bytes)?;
    let Ok(length) = usize::try_from(length) else {
        // Any negative length reads as null, as in Kafka.
        return Some(None);
    };
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Some(taken))
}
