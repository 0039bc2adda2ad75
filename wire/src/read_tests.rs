#![allow(clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

#[test]
fn a_value_beyond_the_end_is_refused_and_says_what_is_missing() {
    let mut reader = Reader::new(&[0, 0, 1]);
    assert_eq!(reader.i16(), Ok(0));
    assert_eq!(
        reader.i32(),
        Err(WireError::Truncated {
            at: 2,
            needed: 4,
            remaining: 1
        })
    );
}

#[test]
fn a_length_that_overflows_the_address_space_is_refused() {
    let mut reader = Reader::new(&[1, 2, 3]);
    reader.skip(1).expect("one byte is there");
    assert!(matches!(
        reader.take(usize::MAX),
        Err(WireError::Truncated {
            needed: usize::MAX,
            ..
        })
    ));
}

#[test]
fn a_negative_length_other_than_null_is_refused() {
    let mut reader = Reader::new(&[0xff, 0xfe, 0, 0]);
    assert_eq!(
        reader.nullable_string(false),
        Err(WireError::BadLength { at: 0, length: -2 })
    );
    let mut reader = Reader::new(&[0xff, 0xff]);
    assert_eq!(reader.nullable_string(false), Ok(None));
    let mut reader = Reader::new(&[0]);
    assert_eq!(reader.nullable_string(true), Ok(None));
}

#[test]
fn an_array_of_more_elements_than_bytes_is_refused_before_anyone_allocates() {
    let mut claim = 2_000_000_000_i32.to_be_bytes().to_vec();
    claim.extend([0; 16]);
    let refused = Reader::new(&claim).array_count(false, 1);
    assert_eq!(
        refused,
        Err(WireError::TooManyElements {
            at: 0,
            count: 2_000_000_000,
            remaining: 16
        })
    );
    claim.splice(..4, 3_i32.to_be_bytes());
    assert_eq!(Reader::new(&claim).array_count(false, 5), Ok(3));
    assert!(Reader::new(&claim).array_count(false, 6).is_err());
}

#[test]
fn a_variable_length_integer_must_end() {
    assert_eq!(
        Reader::new(&[0xff; 12]).unsigned_varint(),
        Err(WireError::BadVarint { at: 0 })
    );
    assert_eq!(
        Reader::new(&[0xff; 12]).varlong(),
        Err(WireError::BadVarint { at: 0 })
    );
    // Five bytes can hold more than 32 bits.
    assert_eq!(
        Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint(),
        Err(WireError::BadVarint { at: 0 })
    );
}

#[test]
fn a_string_that_is_not_text_is_refused_only_when_read_as_text() {
    let bytes = [0, 2, 0xc3, 0x28];
    assert_eq!(
        Reader::new(&bytes).string(false),
        Err(WireError::NotUtf8 { at: 2 })
    );
    assert_eq!(Reader::new(&bytes).nullable_string_range(false), Ok(Some(2..4)));
}

#[test]
fn shared_slices_point_into_their_source() {
    let source = Bytes::from_static(&[0, 0, 0, 3, 7, 8, 9]);
    let slice = Reader::new(&source)
        .nullable_shared(&source, false)
        .expect("well-formed")
        .expect("not null");
    assert_eq!(slice, [7, 8, 9].as_slice());
    assert_eq!(slice.as_ptr(), source.slice(4..).as_ptr());
}

#[test]
fn variable_length_integers_are_read_at_their_limits() {
    assert_eq!(Reader::new(&[0xac, 0x02]).unsigned_varint(), Ok(300));
    assert_eq!(
        Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(),
        Ok(u32::MAX)
    );
    assert_eq!(Reader::new(&[0x01]).varint(), Ok(-1));
    assert_eq!(
        Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(),
        Ok(i32::MIN)
    );
    assert_eq!(
        Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0x0f]).varint(),
        Ok(i32::MAX)
    );
    let mut bytes = [0xff; 10];
    bytes[9] = 0x01;
    assert_eq!(Reader::new(&bytes).varlong(), Ok(i64::MIN));
    bytes[0] = 0xfe;
    assert_eq!(Reader::new(&bytes).varlong(), Ok(i64::MAX));
}

proptest! {
    #[test]
    fn our_own_integers_are_read_back_and_as_long_as_said(value: u32) {
        let mut out = bytes::BytesMut::new();
        crate::write::put_unsigned_varint(&mut out, value);
        prop_assert_eq!(out.len(), crate::write::unsigned_varint_bytes(value));
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.unsigned_varint(), Ok(value));
        prop_assert_eq!(reader.expect_end(), Ok(()));
    }
}
