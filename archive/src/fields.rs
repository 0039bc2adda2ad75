//! Bounded little-endian fields, shared by all codecs of this crate.
//!
//! A reader checks length, then limit, then meaning, and allocates only after the limit. A writer refuses
//! what a reader would refuse, so that nothing can be written that cannot be read back.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Longest string of a name-like field (topic, identifier, configuration key), in bytes.
pub const NAME_BYTES_MAX: usize = u16::MAX as usize;
/// Longest configuration value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A field that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The bytes end inside the field.
    #[error("{what} is cut short")]
    Short {
        /// The field.
        what: &'static str,
    },
    /// A length or count exceeds its limit.
    #[error("{what} is too long: {len}, the limit is {limit}")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length or count.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotUtf8 {
        /// The field.
        what: &'static str,
    },
    /// A value has no meaning here.
    #[error("{what} has no meaning: {value}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// The value, as text.
        value: String,
    },
}

impl FieldError {
    pub(crate) fn invalid(what: &'static str, value: impl ToString) -> FieldError {
        FieldError::Invalid {
            what,
            value: value.to_string(),
        }
    }
}

/// Reads fields from the front of a slice.
#[derive(Clone, Debug)]
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(crate) fn $name(&mut self, what: &'static str) -> Result<$type, FieldError> {
            let (head, rest) = self
                .rest
                .split_first_chunk()
                .ok_or(FieldError::Short { what })?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*head))
        }
    };
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> FieldReader<'a> {
        FieldReader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    number!(u8, u8);
    number!(u16, u16);
    number!(i16, i16);
    number!(u32, u32);
    number!(i32, i32);
    number!(u64, u64);
    number!(i64, i64);
    number!(u128, u128);

    pub(crate) fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], FieldError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FieldError::Short { what })?;
        self.rest = rest;
        Ok(head)
    }

    /// An identifier in its 16 bytes of network order, as Kafka and RFC 9562 write it.
    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Uuid, FieldError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(FieldError::Short { what })?;
        self.rest = rest;
        Ok(Uuid::from_bytes(*head))
    }

    /// A string behind its length in two bytes.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String, FieldError> {
        let len = usize::from(self.u16(what)?);
        self.utf8(len, what)
    }

    /// A string behind its length in four bytes; `u32::MAX` stands for none.
    pub(crate) fn value(&mut self, what: &'static str) -> Result<Option<String>, FieldError> {
        match self.u32(what)? {
            u32::MAX => Ok(None),
            len if len as usize > VALUE_BYTES_MAX => Err(FieldError::TooLong {
                what,
                len: len.into(),
                limit: VALUE_BYTES_MAX as u64,
            }),
            len => self.utf8(len as usize, what).map(Some),
        }
    }

    /// A count of elements of at least `element_bytes` each: more than can follow is refused before anything
    /// is allocated.
    pub(crate) fn count(&mut self, element_bytes: usize, what: &'static str) -> Result<usize, FieldError> {
        let count = self.u32(what)? as usize;
        let limit = self.remaining() / element_bytes.max(1);
        if count > limit {
            return Err(FieldError::TooLong {
                what,
                len: count as u64,
                limit: limit as u64,
            });
        }
        Ok(count)
    }

    /// A truth value in one byte.
    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, FieldError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(FieldError::invalid(what, other)),
        }
    }

    fn utf8(&mut self, len: usize, what: &'static str) -> Result<String, FieldError> {
        let text = std::str::from_utf8(self.bytes(len, what)?).map_err(|_| FieldError::NotUtf8 { what })?;
        Ok(text.to_owned())
    }
}

/// Appends a string behind its length in two bytes.
pub(crate) fn put_name(out: &mut BytesMut, what: &'static str, text: &str) -> Result<(), FieldError> {
    let len = u16::try_from(text.len()).map_err(|_| FieldError::TooLong {
        what,
        len: text.len() as u64,
        limit: NAME_BYTES_MAX as u64,
    })?;
    out.put_u16_le(len);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends an optional string behind its length in four bytes.
pub(crate) fn put_value(
    out: &mut BytesMut,
    what: &'static str,
    text: Option<&str>,
) -> Result<(), FieldError> {
    let Some(text) = text else {
        out.put_u32_le(u32::MAX);
        return Ok(());
    };
    if text.len() > VALUE_BYTES_MAX {
        return Err(FieldError::TooLong {
            what,
            len: text.len() as u64,
            limit: VALUE_BYTES_MAX as u64,
        });
    }
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Appends a count of elements.
pub(crate) fn put_count(out: &mut BytesMut, what: &'static str, count: usize) -> Result<(), FieldError> {
    let count = u32::try_from(count).map_err(|_| FieldError::TooLong {
        what,
        len: count as u64,
        limit: u32::MAX.into(),
    })?;
    out.put_u32_le(count);
    Ok(())
}

/// Appends configuration entries.
pub(crate) fn put_configs(
    out: &mut BytesMut,
    configs: &[(String, Option<String>)],
) -> Result<(), FieldError> {
    put_count(out, "configuration count", configs.len())?;
    for (key, value) in configs {
        put_name(out, "configuration key", key)?;
        put_value(out, "configuration value", value.as_deref())?;
    }
    Ok(())
}

/// Reads configuration entries.
pub(crate) fn read_configs(
    fields: &mut FieldReader<'_>,
) -> Result<Vec<(String, Option<String>)>, FieldError> {
    let count = fields.count(2 + 4, "configuration count")?;
    (0..count)
        .map(|_| {
            Ok((
                fields.name("configuration key")?,
                fields.value("configuration value")?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_cannot_follow_is_refused_before_allocation() {
        let mut fields = FieldReader::new(&[0xff, 0xff, 0xff, 0x7f, 0, 0]);
        let error = fields.count(4, "things").expect_err("two bytes cannot hold them");
        assert!(matches!(error, FieldError::TooLong { limit: 0, .. }));
    }

    #[test]
    fn none_and_empty_values_differ() {
        let mut out = BytesMut::new();
        put_value(&mut out, "v", None).expect("fits");
        put_value(&mut out, "v", Some("")).expect("fits");
        let mut fields = FieldReader::new(&out);
        assert_eq!(fields.value("v"), Ok(None));
        assert_eq!(fields.value("v"), Ok(Some(String::new())));
        assert_eq!(fields.u8("end"), Err(FieldError::Short { what: "end" }));
    }

    #[test]
    fn a_name_beyond_its_length_field_is_refused_when_written() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(put_name(&mut BytesMut::new(), "n", &long).is_err());
    }
}
