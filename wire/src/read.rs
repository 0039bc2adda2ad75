//! Reading the protocol's primitive types from a slice, every step checked against what remains.
//!
//! The reader gives out borrowed slices and ranges, never owned copies; a caller that holds the
//! message as [`bytes::Bytes`] turns a range into a shared slice without copying.

use std::ops::Range;

use bytes::Bytes;
use uuid::Uuid;

use crate::WireError;

/// A cursor over a message. After an error the position is unspecified; give up on the message.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The bytes not yet read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The whole message this reader was made over.
    pub fn whole(&self) -> &'a [u8] {
        self.bytes
    }

    /// Errs unless everything has been read.
    pub fn expect_end(&self) -> Result<(), WireError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(WireError::TrailingBytes { at: self.at, count }),
        }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let taken = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.get(self.at..end));
        let Some(taken) = taken else {
            return Err(WireError::Truncated {
                at: self.at,
                needed: count,
                remaining: self.remaining(),
            });
        };
        self.at = self.at.saturating_add(count);
        Ok(taken)
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: usize) -> Result<(), WireError> {
        self.take(count).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let at = self.at;
        let remaining = self.remaining();
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| WireError::Truncated {
            at,
            needed: N,
            remaining,
        })
    }

    /// An `int8`.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        self.array().map(i8::from_be_bytes)
    }

    /// A `bool`: anything but zero is true, as brokers read it.
    pub fn bool(&mut self) -> Result<bool, WireError> {
        self.i8().map(|value| value != 0)
    }

    /// An `int16`.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_be_bytes)
    }

    /// A `uint16`.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// An `int32`.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A `uint32`.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// An `int64`.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A `uuid`.
    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        self.array().map(Uuid::from_bytes)
    }

    /// An unsigned variable-length integer of at most 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let at = self.at;
        let value = self.unsigned_varlong_within(5)?;
        u32::try_from(value).map_err(|_| WireError::BadVarint { at })
    }

    /// A zig-zag `varint`.
    pub fn varint(&mut self) -> Result<i32, WireError> {
        let raw = self.unsigned_varint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zig-zag `varlong`.
    pub fn varlong(&mut self) -> Result<i64, WireError> {
        let raw = self.unsigned_varlong_within(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn unsigned_varlong_within(&mut self, bytes_max: u32) -> Result<u64, WireError> {
        let at = self.at;
        let mut value = 0_u64;
        for index in 0..bytes_max {
            let byte = u64::from(self.i8()? as u8);
            let bits = byte & 0x7f;
            // The tenth byte has room for one bit only.
            if index == 9 && bits > 1 {
                return Err(WireError::BadVarint { at });
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadVarint { at })
    }

    /// Where a `string` stands: two bytes of length, or the compact form. None is null.
    pub fn nullable_string_range(&mut self, flexible: bool) -> Result<Option<Range<usize>>, WireError> {
        let at = self.at;
        let length = match flexible {
            true => i64::from(self.unsigned_varint()?) - 1,
            false => i64::from(self.i16()?),
        };
        self.range_of(at, length)
    }

    /// Where `bytes` or `records` stand: four bytes of length, or the compact form. None is null.
    pub fn nullable_bytes_range(&mut self, flexible: bool) -> Result<Option<Range<usize>>, WireError> {
        let at = self.at;
        let length = match flexible {
            true => i64::from(self.unsigned_varint()?) - 1,
            false => i64::from(self.i32()?),
        };
        self.range_of(at, length)
    }

    fn range_of(&mut self, length_at: usize, length: i64) -> Result<Option<Range<usize>>, WireError> {
        if length == -1 {
            return Ok(None);
        }
        let bad = WireError::BadLength {
            at: length_at,
            length,
        };
        let length = usize::try_from(length).map_err(|_| bad)?;
        let start = self.at;
        self.skip(length)?;
        Ok(Some(start..self.at))
    }

    /// A string, or None for null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<&'a str>, WireError> {
        match self.nullable_string_range(flexible)? {
            None => Ok(None),
            Some(range) => self.text(range).map(Some),
        }
    }

    /// A string that may not be null.
    pub fn string(&mut self, flexible: bool) -> Result<&'a str, WireError> {
        let at = self.at;
        self.nullable_string(flexible)?
            .ok_or(WireError::BadLength { at, length: -1 })
    }

    /// The text in a range that this reader gave out.
    pub fn text(&self, range: Range<usize>) -> Result<&'a str, WireError> {
        let at = range.start;
        let bytes = self.bytes.get(range).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| WireError::NotUtf8 { at })
    }

    /// `bytes` as a borrowed slice, or None for null.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, WireError> {
        let range = self.nullable_bytes_range(flexible)?;
        Ok(range.map(|range| self.bytes.get(range).unwrap_or_default()))
    }

    /// `bytes` or `records` as a shared slice of `source`, or None for null. `source` must be what
    /// this reader was made over.
    pub fn nullable_shared(&mut self, source: &Bytes, flexible: bool) -> Result<Option<Bytes>, WireError> {
        debug_assert_eq!(
            source.len(),
            self.bytes.len(),
            "a reader slices only its own source"
        );
        let range = self.nullable_bytes_range(flexible)?;
        Ok(range.map(|range| source.slice(range)))
    }

    /// The number of elements of an array, at least `element_bytes_min` bytes each; None for null.
    /// A count that cannot fit into what remains is refused before anybody allocates for it.
    pub fn nullable_array_count(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, WireError> {
        let at = self.at;
        let count = match flexible {
            true => i64::from(self.unsigned_varint()?) - 1,
            false => i64::from(self.i32()?),
        };
        if count == -1 {
            return Ok(None);
        }
        let bad = WireError::BadLength { at, length: count };
        let count = usize::try_from(count).map_err(|_| bad)?;
        let remaining = self.remaining();
        if count.saturating_mul(element_bytes_min.max(1)) > remaining {
            return Err(WireError::TooManyElements {
                at,
                count: count as u64,
                remaining,
            });
        }
        Ok(Some(count))
    }

    /// Like [`Reader::nullable_array_count`] for an array that may not be null.
    pub fn array_count(&mut self, flexible: bool, element_bytes_min: usize) -> Result<usize, WireError> {
        let at = self.at;
        let count = self.nullable_array_count(flexible, element_bytes_min)?;
        count.ok_or(WireError::BadLength { at, length: -1 })
    }

    /// The next tagged field: its tag and where its content stands, which is passed over.
    pub fn tagged_field(&mut self) -> Result<(u32, Range<usize>), WireError> {
        let tag = self.unsigned_varint()?;
        let size = self.unsigned_varint()? as usize;
        let start = self.at;
        self.skip(size)?;
        Ok((tag, start..self.at))
    }

    /// Passes over a whole section of tagged fields.
    pub fn skip_tagged_fields(&mut self) -> Result<(), WireError> {
        // Each field takes two bytes at least, so a wild count ends at the end of the message.
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            self.tagged_field()?;
        }
        Ok(())
    }

    /// Passes over a section of tagged fields if the version is flexible.
    pub fn skip_tagged_fields_if(&mut self, flexible: bool) -> Result<(), WireError> {
        match flexible {
            true => self.skip_tagged_fields(),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
