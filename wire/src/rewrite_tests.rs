#![allow(clippy::indexing_slicing)]

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterResponse, FindCoordinatorResponse, MetadataResponse, describe_cluster_response,
};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;

use super::*;
use crate::specimens::{decode, encode, remap_by_decoding, response_body, response_with_addresses};

/// A mapper that makes hosts of all lengths, short and long ones.
fn proxy_address(node_id: i32) -> (String, u16) {
    let length = node_id.unsigned_abs() as usize % 300;
    ("p".repeat(length), node_id as u16)
}

fn rewrite_all(api_key: i16, version: i16, body: &Bytes) -> Result<Rewritten, WireError> {
    rewrite_response(api_key, version, body.clone(), &mut |node_id, _, _| {
        Some(proxy_address(node_id))
    })
}

proptest! {
    #[test]
    fn rewriting_bytes_agrees_with_decoding_and_encoding(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        let mut seen = Vec::new();
        let expected = remap_by_decoding(api_key, version, &body, &mut |node_id, host, port| {
            seen.push(NodeAddress { node_id, host: host.to_string(), port: *port });
            let (new_host, new_port) = proxy_address(node_id);
            *host = StrBytes::from_string(new_host);
            *port = i32::from(new_port);
        });
        let rewritten = rewrite_all(api_key, version, &body).expect("well-formed");
        prop_assert_eq!(rewritten.nodes, seen);
        prop_assert_eq!(rewritten.body, expected);
    }

    #[test]
    fn mapping_brokers_to_themselves_changes_no_byte(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        let mut itself = |_: i32, host: &str, port: i32| Some((host.to_owned(), port as u16));
        let rewritten = rewrite_response(api_key, version, body.clone(), &mut itself).expect("well-formed");
        prop_assert_eq!(rewritten.body, body);
    }

    #[test]
    fn one_unmappable_broker_stops_the_response(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        let nodes = rewrite_all(api_key, version, &body).expect("well-formed").nodes;
        for stranger in &nodes {
            let mut mapper = |node_id, _: &str, _| (node_id != stranger.node_id).then(|| proxy_address(node_id));
            let refused = rewrite_response(api_key, version, body.clone(), &mut mapper).expect_err("unmappable");
            let expected = WireError::UnmappableNode { api_key, node_id: stranger.node_id };
            prop_assert_eq!(refused, expected);
        }
    }

    #[test]
    fn no_broker_address_is_left_in_a_response(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        let rewritten = rewrite_all(api_key, version, &body).expect("well-formed");
        let needle = b".internal.example";
        prop_assert!(!rewritten.body.windows(needle.len()).any(|window| window == needle));
    }

    #[test]
    fn a_response_cut_anywhere_is_refused(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        prop_assume!(carries_addresses(api_key, version));
        for length in 0..body.len() {
            prop_assert!(rewrite_all(api_key, version, &body.slice(..length)).is_err());
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused(seed: u64) {
        let (api_key, version, body) = response_with_addresses(seed);
        prop_assume!(carries_addresses(api_key, version));
        let mut longer = body.to_vec();
        longer.push(0);
        prop_assert!(rewrite_all(api_key, version, &Bytes::from(longer)).is_err());
    }

    #[test]
    fn no_corruption_makes_rewriting_panic(
        seed: u64,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (api_key, version, body) = response_with_addresses(seed);
        let mut body = body.to_vec();
        for (index, value) in &flips {
            let at = index.index(body.len());
            body[at] = *value;
        }
        let _ = rewrite_all(api_key, version, &Bytes::from(body));
    }
}

#[test]
fn responses_without_addresses_pass_untouched() {
    let noise = Bytes::from_static(&[1, 2, 3]);
    for (api_key, version) in [
        (apis::PRODUCE, 9),
        (apis::FETCH, 15),
        (apis::LIST_OFFSETS, 3),
        (999, 0),
    ] {
        let rewritten = rewrite_all(api_key, version, &noise).expect("not looked at");
        assert_eq!((rewritten.body, rewritten.nodes), (noise.clone(), Vec::new()));
    }
}

#[test]
fn a_version_newer_than_understood_is_not_passed_on() {
    for api_key in apis::UNDERSTOOD_KEYS {
        let version = apis::newest_understood(api_key).expect("listed") + 1;
        let refused =
            rewrite_all(api_key, version, &Bytes::from_static(&[0; 64])).expect_err("unknown layout");
        assert_eq!(
            refused,
            WireError::UnknownLayout {
                api_key,
                api_version: version
            }
        );
    }
}

#[test]
fn a_coordinator_that_was_not_found_is_left_alone() {
    let mut missing = Coordinator::default();
    (missing.node_id, missing.port, missing.error_code) = (BrokerId(-1), -1, 15);
    for version in 0..=6 {
        let mut response = FindCoordinatorResponse::default();
        match version {
            0..=3 => (response.node_id, response.port, response.error_code) = (BrokerId(-1), -1, 15),
            _ => response.coordinators = vec![missing.clone()],
        }
        let body = encode(&response, version);
        let mut nobody = |_: i32, _: &str, _: i32| None;
        let rewritten = rewrite_response(apis::FIND_COORDINATOR, version, body.clone(), &mut nobody);
        assert_eq!(rewritten.map(|rewritten| rewritten.body), Ok(body));
    }
}

#[test]
fn a_coordinator_without_an_id_but_with_a_host_leads_past_the_proxy_and_is_refused() {
    let mut somewhere = Coordinator::default();
    (somewhere.node_id, somewhere.port) = (BrokerId(-1), 9092);
    somewhere.host = StrBytes::from_static_str("broker-1");
    for version in 0..=6 {
        let mut response = FindCoordinatorResponse::default();
        match version {
            0..=3 => {
                (response.node_id, response.port) = (BrokerId(-1), 9092);
                response.host = StrBytes::from_static_str("broker-1");
            }
            _ => response.coordinators = vec![somewhere.clone()],
        }
        let mut nobody = |_: i32, _: &str, _: i32| None;
        let body = encode(&response, version);
        let refused =
            rewrite_response(apis::FIND_COORDINATOR, version, body, &mut nobody).expect_err("shown");
        let (api_key, node_id) = (apis::FIND_COORDINATOR, -1);
        assert_eq!(refused, WireError::UnmappableNode { api_key, node_id });
    }
}

#[test]
fn controllers_are_never_mapped_to_brokers() {
    let mut controller = describe_cluster_response::DescribeClusterBroker::default();
    (controller.host, controller.port) = (StrBytes::from_static_str("controller-1"), 9093);
    for version in 1..=2 {
        let mut response = DescribeClusterResponse::default();
        response.endpoint_type = 2;
        // A broker asked for controllers answers with an error and lists nobody.
        assert!(rewrite_all(apis::DESCRIBE_CLUSTER, version, &encode(&response, version)).is_ok());
        response.brokers = vec![controller.clone()];
        let refused = rewrite_all(apis::DESCRIBE_CLUSTER, version, &encode(&response, version));
        assert_eq!(refused.expect_err("controllers"), WireError::ControllerEndpoints);
    }
}

#[test]
fn a_proxy_host_too_long_for_the_protocol_is_our_error() {
    let body = (0..)
        .map(|seed| response_body(seed, apis::METADATA, 12))
        .find(|body| !decode::<MetadataResponse>(body, 12).brokers.is_empty())
        .expect("some seed has brokers");
    let mut endless = |_: i32, _: &str, _: i32| Some(("x".repeat(40_000), 1));
    let refused = rewrite_response(apis::METADATA, 12, body, &mut endless).expect_err("too long");
    assert_eq!(refused.kind(), crate::ErrorKind::Ours);
}

/// Version 2 of the share responses, which kafka-protocol does not have: ShareFetch is the same on the
/// wire, ShareAcknowledge has four more bytes after its error message.
#[test]
fn share_responses_of_version_2_are_rewritten() {
    for seed in 0..200 {
        let fetch = response_body(seed, apis::SHARE_FETCH, 1);
        let same = rewrite_all(apis::SHARE_FETCH, 2, &fetch).expect("well-formed");
        assert_eq!(
            same,
            rewrite_all(apis::SHARE_FETCH, 1, &fetch).expect("well-formed")
        );

        let body = response_body(seed, apis::SHARE_ACKNOWLEDGE, 1);
        let old = rewrite_all(apis::SHARE_ACKNOWLEDGE, 1, &body).expect("well-formed");
        let widen = |body: &Bytes| {
            // Throttle time, error code, then a message of less than 127 bytes.
            let after_message = 4 + 2 + 1 + usize::from(body[6]).saturating_sub(1);
            let mut wide = body.to_vec();
            wide.splice(after_message..after_message, [0xde, 0xad, 0xbe, 0xef]);
            Bytes::from(wide)
        };
        let new = rewrite_all(apis::SHARE_ACKNOWLEDGE, 2, &widen(&body)).expect("well-formed");
        assert_eq!((new.body, new.nodes), (widen(&old.body), old.nodes));
    }
}
