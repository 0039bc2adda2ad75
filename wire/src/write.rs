//! The few encodings that Teeline produces itself.

use bytes::{BufMut, BytesMut};

use crate::WireError;

/// An unsigned variable-length integer.
pub fn put_unsigned_varint(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes that [`put_unsigned_varint`] takes.
pub fn unsigned_varint_bytes(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// A string that is not null, in the compact form if `flexible`.
pub fn put_string(out: &mut BytesMut, text: &str, flexible: bool) -> Result<(), WireError> {
    put_string_length(out, text.len(), flexible)?;
    out.put_slice(text.as_bytes());
    Ok(())
}

/// A string that may be null.
pub fn put_nullable_string(out: &mut BytesMut, text: Option<&str>, flexible: bool) -> Result<(), WireError> {
    match (text, flexible) {
        (Some(text), _) => put_string(out, text, flexible)?,
        (None, true) => put_unsigned_varint(out, 0),
        (None, false) => out.put_i16(-1),
    }
    Ok(())
}

/// The number of elements of an array that is not null.
pub fn put_array_count(out: &mut BytesMut, count: usize, flexible: bool) -> Result<(), WireError> {
    let too_long = WireError::TooLong { length: count };
    let count = i32::try_from(count).map_err(|_| too_long)?;
    match flexible {
        true => put_unsigned_varint(out, count.unsigned_abs().saturating_add(1)),
        false => out.put_i32(count),
    }
    Ok(())
}

/// A section of no tagged fields, if the version is flexible.
pub fn put_no_tagged_fields(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}

fn put_string_length(out: &mut BytesMut, length: usize, flexible: bool) -> Result<(), WireError> {
    // Brokers refuse longer strings in either form, so the compact form gets the same limit.
    let short = i16::try_from(length).map_err(|_| WireError::TooLong { length })?;
    match flexible {
        true => put_unsigned_varint(out, u32::from(short.unsigned_abs()).saturating_add(1)),
        false => out.put_i16(short),
    }
    Ok(())
}
