//! One function per target: any bytes in, no panic, and the stated properties hold.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;
use teeline_wire::fetch_response::TailScanner;
use teeline_wire::header::RequestHeader;
use teeline_wire::{api_versions, apis, end_txn, header, metadata_head, produce, rewrite, schema};

use super::{client, records, streams};

/// A target: any bytes in, no panic.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: [(&str, Target); 17] = [
    ("request_header", request_header),
    ("produce_request", produce_request),
    ("produce_response", produce_response),
    ("end_txn", end_txn),
    ("api_versions", api_versions),
    ("rewrite", rewrite),
    ("tail_scanner", tail_scanner),
    ("precheck", precheck),
    ("requests", requests),
    ("metadata_head", metadata_head),
    ("frame", streams::frame),
    ("group_record", records::group_record),
    ("journal", records::journal),
    ("batches", records::batches),
    ("codec", records::codec),
    ("introduction", streams::introduction),
    ("client", client::client),
];

/// What a target may hold besides a multiple of its input: those that unfold, compress or talk need buffers for it.
pub fn bytes_base(name: &str) -> usize {
    match name {
        "batches" | "codec" => 4 * 1024 * 1024,
        // A batch there may unfold to 64 MiB, and snappy says beforehand to how much.
        "journal" => 72 * 1024 * 1024,
        "introduction" | "client" => 8 * 1024 * 1024,
        _ => 256 * 1024,
    }
}

/// A frame. The header ends inside it.
pub fn request_header(data: &[u8]) {
    if let Ok(header) = RequestHeader::parse(data) {
        assert!(header.header_len <= data.len());
        assert!(!apis::name(header.api_key).is_empty());
    }
}

/// A version and a body. Records lie inside the body; a refusal answers what stands, once; who looks at the beginning only
/// finds the same acks.
pub fn produce_request(data: &[u8]) {
    let Some((version, body)) = version_and_body(data) else {
        return;
    };
    let Ok(request) = produce::parse_request(version, &body) else {
        return;
    };
    let mut frame = [[0, 0], version.to_be_bytes(), [0, 0], [0, 9], [0xFF, 0xFF]].concat();
    if apis::is_flexible(apis::PRODUCE, version) == Some(true) {
        frame.push(0);
    }
    frame.extend_from_slice(&body);
    assert_eq!(produce::parse_acks(version, &frame).ok(), Some(request.acks));
    let within = body.as_ptr_range();
    for entry in &request.entries {
        assert!(entry.records.is_empty() || within.contains(&entry.records.as_ptr()));
    }
    let refusal = produce::error_response(version, &request, 19).expect("every request can be refused");
    let outcomes = produce::parse_response(version, &refusal).expect("our own response");
    let standing = request.entries.iter().filter(|entry| !entry.superseded).count();
    assert_eq!(outcomes.len(), standing);
}

/// A version and a body.
pub fn produce_response(data: &[u8]) {
    let Some((version, body)) = version_and_body(data) else {
        return;
    };
    let _ = produce::parse_response_whole(version, &body);
}

/// A version and a body.
pub fn end_txn(data: &[u8]) {
    let Some((version, body)) = version_and_body(data) else {
        return;
    };
    let _ = end_txn::parse_request(version, &body);
    let _ = end_txn::parse_response(version, &body);
}

/// A version and a body. Narrowing twice is narrowing once.
pub fn api_versions(data: &[u8]) {
    let Some((version, body)) = version_and_body(data) else {
        return;
    };
    let Ok(narrowed) = api_versions::narrow(version, &body) else {
        return;
    };
    assert_eq!(api_versions::narrow(version, &narrowed), Ok(narrowed));
}

/// A key, a version and a body. Afterwards every address is the proxy's.
pub fn rewrite(data: &[u8]) {
    let Some((api_key, version, body)) = key_version_and_body(data) else {
        return;
    };
    let mut to_proxy = |node_id: i32, _: &str, _: i32| Some(("proxy".to_owned(), node_id as u16));
    let Ok(rewritten) = rewrite::rewrite_response(api_key, version, body.clone(), &mut to_proxy) else {
        return;
    };
    let again = rewrite::rewrite_response(api_key, version, rewritten.body.clone(), &mut to_proxy);
    let again = again.expect("our own response");
    assert_eq!(again.nodes.len(), rewritten.nodes.len());
    for node in again.nodes {
        assert_eq!(
            (node.host.as_str(), node.port),
            ("proxy", i32::from(node.node_id as u16))
        );
    }
    assert_eq!(again.body, rewritten.body);
}

/// A key, a version, a chunk size and a body. However it is cut, the scanner does the same; what it
/// lets through has no addresses; and where rewriting finds addresses, the scanner does.
pub fn tail_scanner(data: &[u8]) {
    let Some((api_key, version, rest)) = key_version_and_body(data) else {
        return;
    };
    let Some((step, body)) = rest.split_first() else {
        return;
    };
    let framed = [&[0_u8], body].concat();
    let whole = scan(api_key, version, framed.clone(), usize::MAX);
    assert_eq!(whole, scan(api_key, version, framed, usize::from(*step).max(1)));

    let mut nobody = |_: i32, _: &str, _: i32| None;
    let mut anybody = |_: i32, _: &str, _: i32| Some(("proxy".to_owned(), 1));
    let body = Bytes::copy_from_slice(body);
    match whole {
        Some(Some(scanned)) => {
            let scanned = Bytes::from(scanned).slice(1..);
            if let Err(error) = rewrite::rewrite_response(api_key, version, scanned, &mut nobody) {
                let unmappable = matches!(error, teeline_wire::WireError::UnmappableNode { .. });
                assert!(!unmappable, "the scanner left an address: {error}");
            }
        }
        Some(None) => {
            // An empty array with a padded count is refused by the scanner alone. Nobody writes that.
            let rewritten = rewrite::rewrite_response(api_key, version, body, &mut anybody);
            assert!(rewritten.map_or(0, |rewritten| rewritten.nodes.len()) == 0);
        }
        None => {}
    }
}

/// None: needs no scanner. Some(None): refused.
fn scan(api_key: i16, version: i16, mut bytes: Vec<u8>, step: usize) -> Option<Option<Vec<u8>>> {
    let scanner = TailScanner::after_correlation_id(api_key, version, bytes.len()).ok()??;
    Some(scan_with(scanner, &mut bytes, step).ok().map(|_| bytes))
}

fn scan_with(
    mut scanner: TailScanner,
    bytes: &mut [u8],
    step: usize,
) -> Result<bool, teeline_wire::WireError> {
    for chunk in bytes.chunks_mut(step) {
        scanner.scan(chunk)?;
    }
    scanner.finish()
}

/// A key, a version and a body. What passes the check can be decoded by kafka-protocol: perhaps with an
/// error, never with a panic or an allocation out of proportion.
pub fn precheck(data: &[u8]) {
    let Some((api_key, version, body)) = key_version_and_body(data) else {
        return;
    };
    if schema::precheck(api_key, version, true, &body).is_ok() {
        decode_response(api_key, version, body);
    }
}

/// The same for requests, which are only looked at.
pub fn requests(data: &[u8]) {
    let Some((api_key, version, body)) = key_version_and_body(data) else {
        return;
    };
    let _ = schema::precheck(api_key, version, false, &body);
}

/// A version, where the frame is cut, and a body. The head alone is rewritten as the whole is, however much of it has
/// arrived.
pub fn metadata_head(data: &[u8]) {
    let [version, cut, body @ ..] = data else {
        return;
    };
    let version = i16::from(*version as i8);
    let Ok(frame) = header::response_frame(apis::METADATA, version, 7, body) else {
        return;
    };
    let content = &frame[4..];
    let mut to_proxy = |node_id: i32, _: &str, _: i32| Some(("proxy".to_owned(), node_id as u16));
    let part = &content[..usize::from(*cut).min(content.len())];
    let of_part = metadata_head::rewrite_head(version, content.len(), part, &mut to_proxy);
    let of_all = metadata_head::rewrite_head(version, content.len(), content, &mut to_proxy);
    if let Ok(Some(head)) = &of_part {
        assert_eq!(Ok(Some(head)), of_all.as_ref().map(Option::as_ref));
    }
    let whole = rewrite::rewrite_response(
        apis::METADATA,
        version,
        Bytes::copy_from_slice(body),
        &mut to_proxy,
    );
    // An array that is null has no brokers, and is refused by the head alone. Nobody writes that.
    if let Some(whole) = whole.ok().filter(|whole| !whole.nodes.is_empty()) {
        let expected = header::response_frame(apis::METADATA, version, 7, &whole.body).expect("it was one");
        let head = of_all
            .expect("the whole can be rewritten")
            .expect("all of it is there");
        assert_eq!([&head.bytes, &content[head.replaced..]].concat(), expected);
        assert!(of_part.is_ok(), "a part of what is right is not wrong");
    }
}

fn decode_response(api_key: i16, version: i16, body: Bytes) {
    macro_rules! decode {
        ($($key:ident => $message:ty),* $(,)?) => {
            match api_key {
                $(apis::$key => drop(<$message>::decode(&mut body.clone(), version)),)*
                _ => {}
            }
        };
    }
    decode! {
        PRODUCE => ProduceResponse,
        FETCH => FetchResponse,
        LIST_OFFSETS => ListOffsetsResponse,
        METADATA => MetadataResponse,
        FIND_COORDINATOR => FindCoordinatorResponse,
        SASL_HANDSHAKE => SaslHandshakeResponse,
        API_VERSIONS => ApiVersionsResponse,
        CREATE_TOPICS => CreateTopicsResponse,
        DELETE_TOPICS => DeleteTopicsResponse,
        DELETE_RECORDS => DeleteRecordsResponse,
        INIT_PRODUCER_ID => InitProducerIdResponse,
        OFFSET_FOR_LEADER_EPOCH => OffsetForLeaderEpochResponse,
        ADD_PARTITIONS_TO_TXN => AddPartitionsToTxnResponse,
        END_TXN => EndTxnResponse,
        DESCRIBE_CONFIGS => DescribeConfigsResponse,
        SASL_AUTHENTICATE => SaslAuthenticateResponse,
        INCREMENTAL_ALTER_CONFIGS => IncrementalAlterConfigsResponse,
        DESCRIBE_CLUSTER => DescribeClusterResponse,
        SHARE_FETCH => ShareFetchResponse,
        SHARE_ACKNOWLEDGE => ShareAcknowledgeResponse,
    }
}

/// The first byte is a version.
fn version_and_body(data: &[u8]) -> Option<(i16, Bytes)> {
    let (version, body) = data.split_first()?;
    Some((i16::from(*version as i8), Bytes::copy_from_slice(body)))
}

/// The first byte is a key, the second a version.
fn key_version_and_body(data: &[u8]) -> Option<(i16, i16, Bytes)> {
    let (api_key, rest) = data.split_first()?;
    let (version, body) = version_and_body(rest)?;
    Some((i16::from(*api_key), version, body))
}
