//! Zig-zag variable-length integers, as records use them.
//!
//! Separate from the wire's general reader because this loop runs once per field of every record: it works
//! on a plain slice and answers `None` for whatever is wrong; the caller knows which record it was.

use bytes::BufMut;

/// Takes a varint off the front; `None` if it is cut short or does not fit an i32.
pub(super) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let raw = take_unsigned(bytes, 5)?;
    let raw = u32::try_from(raw).ok()?;
    Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

/// Takes a varlong off the front; `None` if it is cut short or does not fit an i64.
pub(super) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let raw = take_unsigned(bytes, 10)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn take_unsigned(bytes: &mut &[u8], bytes_max: u32) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..bytes_max {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(super) fn put_i32(output: &mut impl BufMut, value: i32) {
    put_unsigned(output, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

pub(super) fn put_i64(output: &mut impl BufMut, value: i64) {
    put_unsigned(output, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_unsigned(output: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        output.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    output.put_u8(value as u8);
}

/// Bytes that `put_i32` writes.
pub(super) fn size_i32(value: i32) -> usize {
    size_unsigned(u64::from(((value << 1) ^ (value >> 31)) as u32))
}

/// Bytes that `put_i64` writes.
pub(super) fn size_i64(value: i64) -> usize {
    size_unsigned(((value << 1) ^ (value >> 63)) as u64)
}

fn size_unsigned(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken_and_sized_right(small: i32, large: i64) {
            let mut bytes = Vec::new();
            put_i32(&mut bytes, small);
            prop_assert_eq!(bytes.len(), size_i32(small));
            put_i64(&mut bytes, large);
            prop_assert_eq!(bytes.len(), size_i32(small) + size_i64(large));
            let mut rest = &bytes[..];
            prop_assert_eq!(take_i32(&mut rest), Some(small));
            prop_assert_eq!(take_i64(&mut rest), Some(large));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn values_too_long_for_their_type_are_refused() {
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x0f][..]), Some(i32::MIN));
        assert_eq!(take_i32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
        assert_eq!(take_i32(&mut &[0x80, 0x80][..]), None);
        assert_eq!(take_i64(&mut &[0xff; 11][..]), None);
        let mut longest = [0xff; 10];
        longest[9] = 0x01;
        assert_eq!(take_i64(&mut &longest[..]), Some(i64::MIN));
        longest[9] = 0x02;
        assert_eq!(take_i64(&mut &longest[..]), None);
    }
}
