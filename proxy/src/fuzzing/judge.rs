//! What must hold of a session, whatever was sent.
//!
//! * What reached the broker is what the client sent, frame by frame, in order, byte for byte, up to where it stopped;
//!   only requests that the proxy answers itself are left out.
//! * Each answer that reached the client is the answer to the next request that has one, and nothing is left out.
//! * Answers that need not be understood are the broker's own, byte for byte.
//! * No answer names a broker by another address than the proxy's, as an independent decoder reads it.

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeClusterResponse, FetchResponse, FindCoordinatorResponse, MetadataResponse, ProduceResponse,
    ShareAcknowledgeResponse, ShareFetchResponse,
};
use kafka_protocol::protocol::Decodable;
use teeline_wire::read::Reader;
use teeline_wire::{api_versions, apis, header, schema};

use super::play::is_unanswered;
use crate::cluster::Cluster;
use crate::session::sasl::Mechanism;
use crate::topology::Authority;

/// What passed on both sides of a session.
pub(super) struct Seen {
    /// What the client's socket took.
    pub(super) sent: Vec<u8>,
    /// What the client got.
    pub(super) received: Vec<u8>,
    /// What the broker got.
    pub(super) forwarded: Vec<u8>,
    /// The broker's answers, in order.
    pub(super) answered: Vec<Bytes>,
    /// It also sent something else, or stopped reading.
    pub(super) misbehaved: bool,
}

/// An answer that a client has coming.
#[derive(Debug)]
enum Coming {
    /// From the broker, to a request with this head.
    Answer(i16, i16, i32),
    /// From the broker, to a token without a head.
    Raw,
    /// The proxy's own.
    Own(i32),
}

/// Key, version and correlation id.
pub(super) fn head(content: &[u8]) -> Option<(i16, i16, i32)> {
    let mut reader = Reader::new(content);
    Some((reader.i16().ok()?, reader.i16().ok()?, reader.i32().ok()?))
}

/// How many tokens without a head come after this frame.
pub(super) fn tokens_after(tokens: u8, content: &[u8]) -> u8 {
    if tokens > 0 {
        return tokens - 1;
    }
    let Some((apis::SASL_HANDSHAKE, 0, _)) = head(content) else {
        return 0;
    };
    let name = header::RequestHeader::parse(content)
        .ok()
        .and_then(|header| Reader::new(&content[header.header_len..]).string(false).ok());
    name.map_or(0, |name| Mechanism::named(name).rounds().unwrap_or(0))
}

/// Panics when something does not hold; says how many answers the client got.
pub(super) fn judge(cluster: &Cluster, seen: &Seen) -> u64 {
    let coming = forwarded(seen);
    received(cluster, seen, coming)
}

/// Holds what was forwarded against what was sent, and says which answers are due.
fn forwarded(seen: &Seen) -> VecDeque<Coming> {
    let (mut sent, mut forwarded) = (seen.sent.as_slice(), seen.forwarded.as_slice());
    let mut coming = VecDeque::new();
    let mut tokens = 0;
    while let Some((frame, rest)) = split_frame(sent) {
        let content = Bytes::copy_from_slice(&frame[4..]);
        let its_head = if tokens == 0 { head(&content) } else { None };
        if let Some((apis::API_VERSIONS, version, correlation_id)) = its_head
            && version > api_versions::NEWEST_VERSION
        {
            coming.push_back(Coming::Own(correlation_id));
        } else if forwarded.starts_with(frame) {
            forwarded = &forwarded[frame.len()..];
            if !(its_head.is_some() && is_unanswered(&content)) {
                coming.push_back(
                    its_head.map_or(Coming::Raw, |(key, version, id)| Coming::Answer(key, version, id)),
                );
            }
            tokens = tokens_after(tokens, &content);
        } else {
            break;
        }
        sent = rest;
    }
    // The last one may have got through in part, and nothing may follow it.
    assert!(
        sent.starts_with(forwarded),
        "the broker got what the client did not send: {forwarded:02x?}, where it sent {:02x?}",
        &sent[..sent.len().min(forwarded.len() + 16)]
    );
    coming
}

fn received(cluster: &Cluster, seen: &Seen, mut coming: VecDeque<Coming>) -> u64 {
    let mut count = 0;
    let mut answers = seen.answered.iter();
    let mut left = seen.received.as_slice();
    while let Some((frame, rest)) = split_frame(left) {
        left = rest;
        count += 1;
        let next = coming.pop_front();
        let content = Bytes::copy_from_slice(&frame[4..]);
        let its_id = content.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
        match next {
            Some(Coming::Own(id)) => {
                assert_eq!(its_id, Some(id), "an answer of the proxy's own is out of place");
                continue;
            }
            Some(Coming::Answer(key, version, id)) => {
                assert_eq!(its_id, Some(id), "{} answered out of place", apis::name(key));
                shows_no_broker(cluster, key, version, &content);
                if !seen.misbehaved && passes_unread(key) {
                    assert_eq!(
                        answers.next().map(|answer| &answer[..]),
                        Some(frame),
                        "{}",
                        apis::name(key)
                    );
                } else {
                    answers.next();
                }
            }
            Some(Coming::Raw) => {
                let answer = answers.next();
                assert!(seen.misbehaved || answer.is_some_and(|answer| answer == frame));
            }
            // A request that got through in part may be answered early.
            None => assert!(seen.misbehaved, "an answer to nothing: {frame:02x?}"),
        }
    }
    if let (Some(Coming::Answer(key, ..)), false) = (coming.front(), seen.misbehaved)
        && passes_unread(*key)
        && !left.is_empty()
    {
        let begun = answers.next().is_some_and(|answer| answer.starts_with(left));
        assert!(begun, "half an answer that is not the broker's: {left:02x?}");
    }
    count
}

fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(i32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    bytes.split_at_checked(length.checked_add(4)?)
}

fn passes_unread(api_key: i16) -> bool {
    apis::newest_understood(api_key).is_none() && api_key != apis::API_VERSIONS
}

/// KIP-951: before, no address can be in a Fetch response, and it streams without being looked at.
const FETCH_WITH_ENDPOINTS: i16 = 16;

/// Decodes the answer with kafka-protocol, and looks at every address.
fn shows_no_broker(cluster: &Cluster, api_key: i16, version: i16, content: &Bytes) {
    if apis::newest_understood(api_key).is_none() {
        return;
    }
    let body_at = match header::parse_response_header(api_key, version, content) {
        Ok((_, body_at)) => body_at,
        Err(error) => {
            let may_stream = api_key == apis::FETCH && version < FETCH_WITH_ENDPOINTS;
            assert!(
                may_stream,
                "{} {version} was passed on: {error}",
                apis::name(api_key)
            );
            return;
        }
    };
    let mut body = content.slice(body_at..);
    if schema::precheck(api_key, version, true, &body).is_err() {
        // A Fetch response that streams is looked at only where addresses can be; Produce is captured, not checked whole.
        return;
    }
    let ours = |node_id: i32, host: &str, port: i32| {
        // With an address, as a later answer may have made the proxy forget this broker.
        let advertised = cluster
            .topology
            .advertise(node_id, "broker.internal", 9092, Authority::Hint);
        let shown = advertised.is_some_and(|(name, number)| name == host && i32::from(number) == port);
        assert!(
            shown,
            "{}: broker {node_id} is shown as {host}:{port}",
            apis::name(api_key)
        );
    };
    macro_rules! each {
        ($message:ty, $nodes:ident, $id:ident) => {
            if let Ok(message) = <$message>::decode(&mut body, version) {
                for node in &message.$nodes {
                    ours(node.$id.0, &node.host, node.port);
                }
            }
        };
    }
    match api_key {
        apis::METADATA => each!(MetadataResponse, brokers, node_id),
        apis::DESCRIBE_CLUSTER => each!(DescribeClusterResponse, brokers, broker_id),
        apis::PRODUCE => each!(ProduceResponse, node_endpoints, node_id),
        apis::FETCH => each!(FetchResponse, node_endpoints, node_id),
        apis::SHARE_FETCH => each!(ShareFetchResponse, node_endpoints, node_id),
        apis::SHARE_ACKNOWLEDGE => each!(ShareAcknowledgeResponse, node_endpoints, node_id),
        apis::FIND_COORDINATOR => {
            let Ok(message) = FindCoordinatorResponse::decode(&mut body, version) else {
                return;
            };
            for found in message.coordinators.iter().filter(|found| !found.host.is_empty()) {
                ours(found.node_id.0, &found.host, found.port);
            }
            if version < 4 && !message.host.is_empty() {
                ours(message.node_id.0, &message.host, message.port);
            }
        }
        _ => {}
    }
}
