//! The table of docs/PROTOCOL.md that says what becomes of each key and version, made by asking the request loop itself.

use std::fmt::Write;
use std::path::Path;

use kafka_protocol::messages::ApiKey;
use teeline_wire::{apis, rewrite};

use super::super::Shared;
use super::super::in_flight::Expect;
use super::super::testing::{Stage, arrived, footing};
use super::{Head, Passage, Requests, RequestsEnd};

const BEGIN: &str = "<!-- made by proxy/src/session/protocol_tests.rs, from here -->\n";
const END: &str = "<!-- to here -->\n";
/// Versions that nobody has published yet are asked about, too.
const BEYOND: i16 = 3;

/// What becomes of a request and of its response: what is read of each, and what is changed.
type Treatment = [&'static str; 3];

#[tokio::test]
async fn the_page_says_of_every_key_and_version_what_becomes_of_it() {
    let stage = Stage::set().await;
    let shared = Shared::new(footing(&stage.cluster), arrived(&stage.cluster, 1));
    let table = table(&Requests::new(&shared));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page has the mark where the table begins");
    let (found, after) = rest
        .split_once(END)
        .expect("the page has the mark where the table ends");
    if found == table {
        return;
    }
    assert!(
        std::env::var_os("TEELINE_WRITE_DOCS").is_some(),
        "docs/PROTOCOL.md is not up to date: run this test with TEELINE_WRITE_DOCS=1, and read what changed"
    );
    std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
}

fn table(requests: &Requests<'_>) -> String {
    let mut text = String::from(
        "| key | API | versions | flexible from | read of the request | read of the response | changed in the response |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for api_key in 0..=apis::NEWEST_KNOWN_KEY {
        let flexible = (0..=i16::MAX).find(|version| apis::is_flexible(api_key, *version) == Some(true));
        let flexible = match flexible {
            Some(i16::MAX) | None => "never".to_owned(),
            Some(version) => version.to_string(),
        };
        for (versions, treatment) in by_version(requests, api_key) {
            let (name, [asked, answered, changed]) = (apis::name(api_key), treatment);
            writeln!(
                text,
                "| {api_key} | {name} | {versions} | {flexible} | {asked} | {answered} | {changed} |"
            )
            .unwrap();
        }
    }
    let unknown = by_version(requests, apis::NEWEST_KNOWN_KEY + 1);
    assert_eq!(unknown, by_version(requests, -1));
    for (versions, [asked, answered, changed]) in unknown {
        writeln!(
            text,
            "| others | unknown | {versions} | – | {asked} | {answered} | {changed} |"
        )
        .unwrap();
    }
    text
}

/// Successive versions that are treated the same.
fn by_version(requests: &Requests<'_>, api_key: i16) -> Vec<(String, Treatment)> {
    let published = ApiKey::try_from(api_key).map_or(0, |key| key.valid_versions().max);
    let newest = published.max(apis::newest_understood(api_key).unwrap_or(0)) + BEYOND;
    let mut groups: Vec<(i16, i16, Treatment)> = Vec::new();
    for version in 0..=newest {
        let treatment = treatment(requests, api_key, version);
        match groups.last_mut() {
            Some((_, last, same)) if *same == treatment => *last = version,
            _ => groups.push((version, version, treatment)),
        }
    }
    let range = |(first, last, treatment): (i16, i16, Treatment)| {
        let versions = match (first, last) {
            (0, last) if last == newest => "all".to_owned(),
            (first, last) if last == newest => format!("from {first}"),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}–{last}"),
        };
        (versions, treatment)
    };
    groups.into_iter().map(range).collect()
}

fn treatment(requests: &Requests<'_>, api_key: i16, api_version: i16) -> Treatment {
    let head = Head {
        api_key,
        api_version,
        correlation_id: 7,
    };
    match requests.passage(head) {
        Err(RequestsEnd::Refused(_)) => ["refused", "–", "–"],
        Err(other) => panic!("{other}"),
        Ok(Passage::Whole(_)) => whole(api_key, api_version),
        Ok(Passage::Stream(expect)) => streamed(api_key, &expect),
    }
}

fn whole(api_key: i16, api_version: i16) -> Treatment {
    match api_key {
        apis::PRODUCE => [
            "all of it",
            "error and offset of each partition",
            match rewrite::carries_addresses(api_key, api_version) {
                true => HINTS,
                false => "–",
            },
        ],
        apis::END_TXN => ["transaction and how it ends", "error", "–"],
        apis::SASL_HANDSHAKE => ["mechanism", "error", "–"],
        apis::API_VERSIONS => ["header", "–", "answered by the proxy: UNSUPPORTED_VERSION"],
        _ => panic!("key {api_key} is read whole, and this page does not know why"),
    }
}

fn streamed(api_key: i16, expect: &Expect) -> Treatment {
    match expect {
        Expect::Pass => ["header", "correlation id", "–"],
        Expect::Metadata { .. } => [
            "header",
            "brokers; topics, ids, leaders, epochs",
            "addresses of all brokers",
        ],
        Expect::ApiVersions => ["header", "all of it", "newest versions, `transaction.version`"],
        Expect::SaslAuthenticate => ["header", "error", "–"],
        Expect::Addresses => match api_key {
            apis::FETCH | apis::SHARE_FETCH => [
                "header",
                "structure, records jumped over",
                "addresses in NodeEndpoints; unreadable where the response is large",
            ],
            apis::SHARE_ACKNOWLEDGE => ["header", "structure", HINTS],
            _ => ["header", "all of it", "addresses of all brokers"],
        },
        other => panic!("key {api_key} streams with {other:?}"),
    }
}

const HINTS: &str = "addresses in NodeEndpoints";
