#![allow(clippy::indexing_slicing)]

use kafka_protocol::messages::{ApiKey, RequestHeader as TheirHeader, ResponseHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;

fn theirs(api_key: i16, version: i16, correlation_id: i32, client_id: Option<&str>) -> Option<Bytes> {
    let known = ApiKey::try_from(api_key).ok()?;
    let mut header = TheirHeader::default();
    header.request_api_key = api_key;
    header.request_api_version = version;
    header.correlation_id = correlation_id;
    header.client_id = client_id.map(|text| StrBytes::from_string(text.to_owned()));
    let header_version = known.request_header_version(version);
    if header_version >= 2 {
        header.unknown_tagged_fields.insert(3, Bytes::from_static(b"abc"));
    }
    let mut out = BytesMut::new();
    header.encode(&mut out, header_version).ok()?;
    Some(out.freeze())
}

#[test]
fn headers_of_every_known_key_and_version_are_read() {
    for api_key in 0..=apis::NEWEST_KNOWN_KEY {
        let Ok(known) = ApiKey::try_from(api_key) else {
            continue;
        };
        for version in known.valid_versions().min..=known.valid_versions().max {
            for client_id in [None, Some(""), Some("a client")] {
                let bytes = theirs(api_key, version, -77, client_id).expect("encodes");
                let mut frame = bytes.to_vec();
                frame.extend_from_slice(b"body");
                let header = RequestHeader::parse(&frame).expect("well-formed");
                let expected = RequestHeader {
                    api_key,
                    api_version: version,
                    correlation_id: -77,
                    client_id,
                    header_len: bytes.len(),
                };
                assert_eq!(header, expected);
            }
        }
    }
}

#[test]
fn response_headers_agree_with_kafka_protocol() {
    for api_key in 0..=apis::NEWEST_KNOWN_KEY {
        let Ok(known) = ApiKey::try_from(api_key) else {
            continue;
        };
        for version in known.valid_versions().min..=known.valid_versions().max {
            let header_version = known.response_header_version(version);
            assert_eq!(
                response_header_is_flexible(api_key, version),
                header_version == 1,
                "{known:?} {version}"
            );
            let mut out = BytesMut::new();
            let header = ResponseHeader::default().with_correlation_id(99);
            header.encode(&mut out, header_version).expect("encodes");
            let length = out.len();
            out.extend_from_slice(b"body");
            assert_eq!(parse_response_header(api_key, version, &out), Ok((99, length)));
            let frame = response_frame(api_key, version, 99, b"body").expect("short");
            assert_eq!(frame.get(..4), Some((out.len() as u32).to_be_bytes().as_slice()));
            assert_eq!(frame.get(4..), Some(out.as_ref()));
        }
    }
}

#[test]
fn a_changed_body_keeps_the_header_with_its_tagged_fields() {
    let content = [0, 0, 0, 9, 1, 5, 2, b'a', b'b', b'o', b'l', b'd'];
    let (correlation_id, body_at) = parse_response_header(apis::METADATA, 12, &content).expect("well-formed");
    assert_eq!((correlation_id, body_at), (9, 9));
    let frame = replace_body(&content, body_at, b"newer").expect("short");
    assert_eq!(
        frame.as_ref(),
        [
            0, 0, 0, 14, 0, 0, 0, 9, 1, 5, 2, b'a', b'b', b'n', b'e', b'w', b'e', b'r'
        ]
    );
}

#[test]
fn a_header_of_an_unknown_key_is_read_as_far_as_possible() {
    let frame = [0x7f, 0xff, 0, 9, 0, 0, 0, 5, 0, 1, b'x', 0xff, 0xff, 0xff];
    let header = RequestHeader::parse(&frame).expect("well-formed");
    assert_eq!(
        (header.api_key, header.api_version, header.client_id),
        (i16::MAX, 9, Some("x"))
    );
    assert_eq!(header.header_len, 11);
}

#[test]
fn a_client_id_that_is_not_text_does_not_break_the_client() {
    let frame = [0, 3, 0, 1, 0, 0, 0, 5, 0, 1, 0xff];
    let header = RequestHeader::parse(&frame).expect("well-formed");
    assert_eq!((header.client_id, header.header_len), (None, 11));
}

#[test]
fn controlled_shutdown_version_0_has_no_client_id() {
    let frame = [0, 7, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1];
    assert_eq!(
        RequestHeader::parse(&frame).map(|header| header.header_len),
        Ok(8)
    );
}

#[test]
fn a_header_cut_anywhere_is_refused() {
    let whole = theirs(apis::PRODUCE, 9, 1, Some("client")).expect("encodes");
    for length in 0..whole.len() {
        assert!(RequestHeader::parse(&whole[..length]).is_err(), "cut at {length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_header_parser_panic(frame: Vec<u8>) {
        if let Ok(header) = RequestHeader::parse(&frame) {
            prop_assert!(header.header_len <= frame.len());
        }
    }
}
