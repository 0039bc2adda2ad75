//! What a real cluster sent (`testdata/responses`) is understood, rewritten and neutralised.

#![allow(clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use teeline_wire::fetch_response::TailScanner;
use teeline_wire::{api_versions, apis, produce, rewrite, schema};

struct Captured {
    api_key: i16,
    version: i16,
    special: String,
    body: Bytes,
}

fn captured() -> Vec<Captured> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/responses");
    let entries = std::fs::read_dir(&folder).expect("testdata is there");
    let paths = entries.map(|entry| entry.expect("readable").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "bin"));
    files.map(|path| parse_name(&path)).collect()
}

fn parse_name(path: &Path) -> Captured {
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("a plain name");
    let (api, rest) = stem.split_once("-v").expect("api-vN");
    let (version, special) = rest.split_once('-').unwrap_or((rest, ""));
    let api_key = (0..=apis::NEWEST_KNOWN_KEY)
        .find(|key| apis::name(*key) == api)
        .expect("a known api");
    let body = Bytes::from(std::fs::read(path).expect("readable"));
    Captured {
        api_key,
        version: version.parse().expect("a number"),
        special: special.to_owned(),
        body,
    }
}

fn names_a_broker(bytes: &[u8]) -> bool {
    let host = b"127.0.0.1";
    bytes.windows(host.len()).any(|window| window == host)
}

#[test]
fn every_response_has_the_layout_we_think_it_has() {
    for Captured {
        api_key,
        version,
        special,
        body,
    } in captured()
    {
        let as_version = if special == "refused" { 0 } else { version };
        let checked = schema::precheck(api_key, as_version, true, &body);
        assert_eq!(
            checked,
            Ok(()),
            "{} version {version} {special}",
            apis::name(api_key)
        );
    }
}

#[test]
fn every_address_is_found_and_replaced() {
    for Captured {
        api_key,
        version,
        special,
        body,
    } in captured()
    {
        let name = format!("{} version {version} {special}", apis::name(api_key));
        let mut ports = BTreeSet::new();
        let mut mapper = |node_id: i32, host: &str, port: i32| {
            assert_eq!((host, port), ("127.0.0.1", 20282 + 10 * node_id), "{name}");
            ports.insert(port);
            Some(("proxy.example".to_owned(), 9000 + node_id as u16))
        };
        let rewritten =
            rewrite::rewrite_response(api_key, version, body.clone(), &mut mapper).expect("understood");
        assert!(!names_a_broker(&rewritten.body), "{name}");
        let expected = match (api_key, version, special.as_str()) {
            (apis::METADATA, ..) | (apis::DESCRIBE_CLUSTER, _, "") => 3..=3,
            (apis::PRODUCE, 10.., _) | (apis::FETCH, 16.., _) | (apis::SHARE_FETCH, ..) => 2..=2,
            (apis::FIND_COORDINATOR, _, "") => 1..=2,
            _ => 0..=0,
        };
        assert!(
            expected.contains(&ports.len()),
            "{name}: {} addresses",
            ports.len()
        );
        assert_eq!(rewritten.body != body, !ports.is_empty(), "{name}");
    }
}

#[test]
fn streamed_responses_lose_their_hints() {
    let mut neutralised = 0;
    for Captured {
        api_key,
        version,
        body,
        ..
    } in captured()
    {
        let length = body.len() + 1;
        let Ok(Some(mut scanner)) = TailScanner::after_correlation_id(api_key, version, length) else {
            continue;
        };
        let mut bytes = [&[0], body.as_ref()].concat();
        for chunk in bytes.chunks_mut(5) {
            scanner.scan(chunk).expect("understood");
        }
        neutralised += usize::from(scanner.finish().expect("whole"));
        assert!(!names_a_broker(&bytes));
        let rest = Bytes::from(bytes).slice(1..);
        let mut nobody = |_: i32, _: &str, _: i32| None;
        let left =
            rewrite::rewrite_response(api_key, version, rest, &mut nobody).expect("no address is left");
        assert!(left.nodes.is_empty());
    }
    // Fetch 16 and 17, ShareFetch 1 and 2 carried addresses; Produce is small and never streamed.
    assert!(neutralised >= 4, "{neutralised}");
}

#[test]
fn what_the_broker_offers_is_understood_whole() {
    for Captured {
        api_key,
        version,
        body,
        ..
    } in captured()
    {
        if api_key == apis::API_VERSIONS {
            // 4.3.1 offers nothing newer than we understand, so nothing may change.
            assert_eq!(api_versions::narrow(version, &body), Ok(body));
        }
    }
}

#[test]
fn outcomes_of_real_produce_responses_are_read() {
    let mut seen = 0;
    for Captured { version, body, .. } in captured().into_iter().filter(|it| it.api_key == apis::PRODUCE) {
        let response = produce::parse_response_whole(version, &body).expect("understood");
        assert_eq!(response.has_node_endpoints, version >= 10);
        for outcome in &response.outcomes {
            assert_eq!(outcome.topic.id().is_some(), version >= 13);
            let is_ours = outcome.partition == 2;
            assert_eq!(outcome.error_code, if is_ours { 0 } else { 6 });
            assert_eq!(outcome.base_offset >= 0, is_ours);
            let led_by = outcome.current_leader.map(|leader| leader.leader_id);
            let expected = [Some(2), Some(3), None][outcome.partition as usize];
            assert_eq!(led_by, expected.filter(|_| version >= 10), "version {version}");
        }
        assert_eq!(response.outcomes.len(), 3);
        seen += 1;
    }
    assert_eq!(seen, 11);
}
