//! Messages for tests: made up from a seed, in every version, encoded by the kafka-protocol crate.

#![allow(clippy::indexing_slicing)]

mod messages;
mod source;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    DescribeClusterResponse, FetchResponse, FindCoordinatorResponse, MetadataResponse, ProduceResponse,
    ShareAcknowledgeResponse, ShareFetchResponse,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::apis;

pub(crate) use messages::*;
pub(crate) use source::Source;

/// Encodes with the crate that we compare ourselves to.
pub(crate) fn encode<M: Encodable>(message: &M, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("encode version {version}: {error}"));
    out.freeze()
}

/// Keys and versions of the responses that carry addresses, as far as kafka-protocol has them.
pub(crate) const WITH_ADDRESSES: [(i16, std::ops::RangeInclusive<i16>); 7] = [
    (apis::PRODUCE, 3..=13),
    (apis::FETCH, 4..=18),
    (apis::METADATA, 0..=13),
    (apis::FIND_COORDINATOR, 0..=6),
    (apis::DESCRIBE_CLUSTER, 0..=2),
    (apis::SHARE_FETCH, 1..=1),
    (apis::SHARE_ACKNOWLEDGE, 1..=1),
];

/// One of the responses that carry addresses, and its key and version.
pub(crate) fn response_with_addresses(seed: u64) -> (i16, i16, Bytes) {
    let mut choice = StdRng::seed_from_u64(seed);
    let (api_key, versions) = &WITH_ADDRESSES[choice.random_range(0..WITH_ADDRESSES.len())];
    let version = choice.random_range(versions.clone());
    (*api_key, version, response_body(seed, *api_key, version))
}

/// A response body made up from a seed.
pub(crate) fn response_body(seed: u64, api_key: i16, version: i16) -> Bytes {
    let source = &mut Source::new(seed, api_key, version);
    match api_key {
        apis::PRODUCE => encode(&produce_response(source), version),
        apis::FETCH => encode(&fetch_response(source), version),
        apis::METADATA => encode(&metadata_response(source), version),
        apis::FIND_COORDINATOR => encode(&find_coordinator_response(source), version),
        apis::DESCRIBE_CLUSTER => encode(&describe_cluster_response(source), version),
        apis::SHARE_FETCH => encode(&share_fetch_response(source), version),
        apis::SHARE_ACKNOWLEDGE => encode(&share_acknowledge_response(source), version),
        apis::API_VERSIONS => encode(&api_versions_response(source), version),
        _ => panic!("no specimen for key {api_key}"),
    }
}

/// Says where a broker is to be found: (node id, host, port), changed in place.
pub(crate) type Remap<'a> = dyn FnMut(i32, &mut StrBytes, &mut i32) + 'a;

/// Does with kafka-protocol what `rewrite` does on bytes: decode, change every address, encode.
pub(crate) fn remap_by_decoding(api_key: i16, version: i16, body: &Bytes, remap: &mut Remap<'_>) -> Bytes {
    macro_rules! nodes {
        ($message:ty, $nodes:ident, $id:ident) => {{
            let mut message: $message = decode(body, version);
            for node in &mut message.$nodes {
                remap(node.$id.0, &mut node.host, &mut node.port);
            }
            encode(&message, version)
        }};
    }
    match api_key {
        apis::PRODUCE => nodes!(ProduceResponse, node_endpoints, node_id),
        apis::FETCH => nodes!(FetchResponse, node_endpoints, node_id),
        apis::METADATA => nodes!(MetadataResponse, brokers, node_id),
        apis::DESCRIBE_CLUSTER => nodes!(DescribeClusterResponse, brokers, broker_id),
        apis::SHARE_FETCH => nodes!(ShareFetchResponse, node_endpoints, node_id),
        apis::SHARE_ACKNOWLEDGE => nodes!(ShareAcknowledgeResponse, node_endpoints, node_id),
        apis::FIND_COORDINATOR if version >= 4 => {
            let mut message: FindCoordinatorResponse = decode(body, version);
            for node in message.coordinators.iter_mut().filter(|node| node.node_id.0 >= 0) {
                remap(node.node_id.0, &mut node.host, &mut node.port);
            }
            encode(&message, version)
        }
        apis::FIND_COORDINATOR => {
            let mut message: FindCoordinatorResponse = decode(body, version);
            if message.node_id.0 >= 0 {
                remap(message.node_id.0, &mut message.host, &mut message.port);
            }
            encode(&message, version)
        }
        _ => panic!("no addresses in key {api_key}"),
    }
}

/// Decodes a whole body with kafka-protocol.
pub(crate) fn decode<M: kafka_protocol::protocol::Decodable>(body: &Bytes, version: i16) -> M {
    let mut bytes = body.clone();
    let message = M::decode(&mut bytes, version).unwrap_or_else(|error| panic!("decode: {error}"));
    assert!(bytes.is_empty(), "kafka-protocol left {} bytes", bytes.len());
    message
}
