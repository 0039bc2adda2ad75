#![allow(clippy::indexing_slicing)]

use bytes::Bytes;
use kafka_protocol::messages::{FetchResponse, ShareAcknowledgeResponse, ShareFetchResponse};
use proptest::prelude::*;

use super::*;
use crate::apis;
use crate::specimens::{decode, response_body};

/// What follows the correlation id: a response header without tagged fields, or with one, and a body.
fn framed(header: &[u8], body: &[u8]) -> Vec<u8> {
    [header, body].concat()
}

const PLAIN_HEADER: &[u8] = &[0];
const TAGGED_HEADER: &[u8] = &[1, 0, 3, b'a', b'b', b'c'];

/// Scans in chunks whose sizes repeat `steps`.
fn scan(api_key: i16, version: i16, bytes: &mut [u8], steps: &[usize]) -> Result<bool, WireError> {
    let scanner = TailScanner::after_correlation_id(api_key, version, bytes.len())?;
    let mut scanner = scanner.expect("this version carries addresses");
    let mut rest = bytes;
    for step in steps.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, later) = rest.split_at_mut((*step).min(rest.len()));
        scanner.scan(chunk)?;
        rest = later;
    }
    scanner.finish()
}

fn leaks(bytes: &[u8]) -> bool {
    let needle = b".internal.example";
    bytes.windows(needle.len()).any(|window| window == needle)
}

fn steps() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![Just(1_usize), 1_usize..50, 1_usize..5000], 1..8)
}

proptest! {
    #[test]
    fn a_fetch_response_loses_its_hints_and_nothing_else(
        seed: u64, version in 16_i16..=18, steps in steps(), tagged: bool,
    ) {
        let body = response_body(seed, apis::FETCH, version);
        let header = if tagged { TAGGED_HEADER } else { PLAIN_HEADER };
        let mut bytes = framed(header, &body);
        let length = bytes.len();
        let changed = scan(apis::FETCH, version, &mut bytes, &steps).expect("well-formed");
        prop_assert_eq!(bytes.len(), length);
        prop_assert!(!leaks(&bytes));
        prop_assert_eq!(&bytes[..header.len()], header);

        let mut expected: FetchResponse = decode(&body, version);
        prop_assert_eq!(changed, !expected.node_endpoints.is_empty());
        expected.node_endpoints.clear();
        let mut seen: FetchResponse = decode(&Bytes::copy_from_slice(&bytes[header.len()..]), version);
        prop_assert_eq!(seen.unknown_tagged_fields.remove(&i32::from(NEUTRAL_TAG)).is_some(), changed);
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_share_fetch_response_loses_its_hints(seed: u64, version in 1_i16..=2, steps in steps()) {
        let body = response_body(seed, apis::SHARE_FETCH, 1);
        let mut bytes = framed(PLAIN_HEADER, &body);
        let changed = scan(apis::SHARE_FETCH, version, &mut bytes, &steps).expect("well-formed");
        prop_assert!(!leaks(&bytes));
        let mut expected: ShareFetchResponse = decode(&body, 1);
        let mut seen: ShareFetchResponse = decode(&Bytes::copy_from_slice(&bytes[1..]), 1);
        prop_assert_eq!(changed, !expected.node_endpoints.is_empty());
        if changed {
            // Tagged fields behind the hints go with them.
            expected.node_endpoints.clear();
            expected.unknown_tagged_fields.clear();
            seen.unknown_tagged_fields.clear();
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_share_acknowledge_response_loses_its_hints(seed: u64, steps in steps()) {
        let body = response_body(seed, apis::SHARE_ACKNOWLEDGE, 1);
        let mut bytes = framed(PLAIN_HEADER, &body);
        scan(apis::SHARE_ACKNOWLEDGE, 1, &mut bytes, &steps).expect("well-formed");
        prop_assert!(!leaks(&bytes));
        let seen: ShareAcknowledgeResponse = decode(&Bytes::copy_from_slice(&bytes[1..]), 1);
        prop_assert!(seen.node_endpoints.is_empty());
        prop_assert_eq!(seen.responses, decode::<ShareAcknowledgeResponse>(&body, 1).responses);
    }

    #[test]
    fn chunks_make_no_difference(seed: u64, version in 16_i16..=18, steps in steps()) {
        let bytes = framed(PLAIN_HEADER, &response_body(seed, apis::FETCH, version));
        let (mut whole, mut chunked) = (bytes.clone(), bytes.clone());
        let (at_once, by_steps) = (bytes.len().max(1), steps);
        prop_assert_eq!(
            scan(apis::FETCH, version, &mut whole, &[at_once]),
            scan(apis::FETCH, version, &mut chunked, &by_steps)
        );
        prop_assert_eq!(whole, chunked);
    }

    #[test]
    fn a_response_that_ends_early_is_refused(seed: u64, version in 16_i16..=18) {
        let bytes = framed(PLAIN_HEADER, &response_body(seed, apis::FETCH, version));
        for length in 0..bytes.len() {
            // Announced whole, broken off.
            let scanner = TailScanner::after_correlation_id(apis::FETCH, version, bytes.len());
            let mut scanner = scanner.expect("known").expect("carries addresses");
            scanner.scan(&mut bytes.clone()[..length]).expect("nothing wrong so far");
            prop_assert!(scanner.finish().is_err());
            // Announced as short as it is.
            prop_assert!(scan(apis::FETCH, version, &mut bytes.clone()[..length], &[7]).is_err());
        }
    }

    #[test]
    fn no_corruption_makes_the_scanner_panic_or_leak(
        seed: u64,
        share: bool,
        steps in steps(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (api_key, version) = if share { (apis::SHARE_FETCH, 1) } else { (apis::FETCH, 17) };
        let mut bytes = framed(PLAIN_HEADER, &response_body(seed, api_key, version));
        for (index, value) in &flips {
            let at = index.index(bytes.len());
            bytes[at] = *value;
        }
        let _ = scan(api_key, version, &mut bytes, &steps);
    }

    #[test]
    fn the_overlay_comes_out_even(total in prop_oneof![4_usize..70_000, 2_097_000_usize..2_097_300]) {
        let mut bytes = vec![0xaa; total];
        let (prefix, payload) = Prefix::filling(total).expect("four bytes are enough");
        let mut pending = prefix.onto(&mut bytes[0], payload);
        let mut at = 1;
        while let Pending::Overlay { prefix, payload } = pending {
            pending = prefix.onto(&mut bytes[at], payload);
            at += 1;
        }
        let mut reader = crate::read::Reader::new(&bytes);
        prop_assert_eq!(reader.array_count(true, 1), Ok(0));
        prop_assert_eq!(reader.unsigned_varint(), Ok(1));
        let (tag, content) = reader.tagged_field().expect("fills the rest");
        prop_assert_eq!((tag, content.len()), (u32::from(NEUTRAL_TAG), payload));
        prop_assert_eq!(reader.expect_end(), Ok(()));
    }
}

#[test]
fn responses_without_addresses_need_no_scanner() {
    for (api_key, version) in [
        (apis::FETCH, 15),
        (apis::PRODUCE, 9),
        (apis::LIST_OFFSETS, 7),
        (999, 0),
    ] {
        assert!(matches!(
            TailScanner::after_correlation_id(api_key, version, 10),
            Ok(None)
        ));
    }
}

#[test]
fn what_cannot_be_neutralised_is_refused() {
    for (api_key, version) in [
        (apis::FETCH, 19),
        (apis::METADATA, 12),
        (apis::DESCRIBE_CLUSTER, 0),
    ] {
        assert!(TailScanner::after_correlation_id(api_key, version, 10).is_err());
    }
}

#[test]
fn a_tag_in_a_longer_encoding_is_still_recognised() {
    let body = (0..)
        .map(|seed| response_body(seed, apis::FETCH, 16))
        .find(|body| {
            let response: FetchResponse = decode(body, 16);
            !response.node_endpoints.is_empty() && response.unknown_tagged_fields.is_empty()
        })
        .expect("some seed has hints");
    // The tagged fields of the whole response begin at the same place without the hints.
    let mut bare: FetchResponse = decode(&body, 16);
    bare.node_endpoints.clear();
    let tags_at = crate::specimens::encode(&bare, 16).len() - 1;
    assert_eq!(&body[tags_at..tags_at + 2], [1, 0]);
    let mut longer = framed(PLAIN_HEADER, &body);
    longer.splice(tags_at + 2..tags_at + 3, [0x80, 0x80, 0x00]);
    assert_eq!(scan(apis::FETCH, 16, &mut longer, &[3]), Ok(true));
    assert!(!leaks(&longer));
}

#[test]
fn the_hints_are_the_last_field_or_tagged() {
    for api_key in apis::UNDERSTOOD_KEYS {
        let newest = apis::newest_understood(api_key).expect("listed");
        let layout = Layout::of_response(api_key, newest).expect("known");
        let hints = layout
            .fields
            .iter()
            .position(|field| field.role == Role::NodeHints);
        let Some(at) = hints else { continue };
        let last = layout.fields.len() == at + 1;
        assert!(
            last,
            "key {api_key}: what follows the hints would be overlaid with them"
        );
    }
}
