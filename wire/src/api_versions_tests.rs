#![allow(clippy::indexing_slicing)]

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::protocol::Decodable;
use proptest::prelude::*;

use super::*;
use crate::specimens::{Source, api_versions_response, decode, encode};

/// kafka-protocol ends at version 4; version 5 has the same response.
const THEIR_NEWEST: i16 = 4;

fn offered(seed: u64, version: i16) -> ApiVersionsResponse {
    api_versions_response(&mut Source::new(seed, apis::API_VERSIONS, version))
}

/// What narrowing means, said on decoded messages.
fn narrowed(mut response: ApiVersionsResponse, newest: &dyn Fn(i16) -> Option<i16>) -> ApiVersionsResponse {
    let mut too_old_for_new_transactions = false;
    response.api_keys.retain_mut(|api| {
        let offered = api.max_version;
        let limit = newest(api.api_key).unwrap_or(i16::MAX);
        api.max_version = offered.min(limit);
        let needed = [(0, 12), (25, 4), (26, 5), (28, 5)]
            .into_iter()
            .find(|(key, _)| *key == api.api_key);
        too_old_for_new_transactions |=
            needed.is_some_and(|(_, needed)| offered >= needed && api.max_version < needed);
        api.max_version >= api.min_version
    });
    for feature in &mut response.finalized_features {
        if too_old_for_new_transactions && feature.name.as_str() == "transaction.version" {
            feature.max_version_level = feature.max_version_level.min(1);
            feature.min_version_level = feature.min_version_level.min(1);
        }
    }
    response
}

proptest! {
    #[test]
    fn narrowing_bytes_agrees_with_decoding_and_encoding(seed: u64, version in 0..=THEIR_NEWEST) {
        let theirs = offered(seed, version);
        let body = encode(&theirs, version);
        let ours = narrow(version, &body).expect("well-formed");
        prop_assert_eq!(ours, encode(&narrowed(theirs, &apis::newest_understood), version));
    }

    #[test]
    fn any_limit_is_kept_and_transactions_with_it(seed: u64, version in 0..=THEIR_NEWEST, limit in 0_i16..14) {
        let newest = move |api_key: i16| (api_key % 13 == 0).then_some(limit);
        let theirs = offered(seed, version);
        let body = encode(&theirs, version);
        let ours = narrow_to(version, &body, &newest).expect("well-formed");
        prop_assert_eq!(ours, encode(&narrowed(theirs, &newest), version));
    }

    #[test]
    fn a_response_within_what_is_understood_keeps_every_byte(seed: u64, version in 0..=THEIR_NEWEST) {
        let mut theirs = offered(seed, version);
        for api in &mut theirs.api_keys {
            api.max_version = apis::newest_understood(api.api_key).unwrap_or(api.max_version).min(api.max_version);
            api.min_version = api.min_version.min(api.max_version);
        }
        let body = encode(&theirs, version);
        prop_assert_eq!(narrow(version, &body), Ok(body));
    }

    #[test]
    fn a_response_cut_anywhere_is_refused(seed: u64, version in 0..=NEWEST_VERSION) {
        let body = encode(&offered(seed, version.min(THEIR_NEWEST)), version.min(THEIR_NEWEST));
        for length in 0..body.len() {
            prop_assert!(narrow(version, &body.slice(..length)).is_err());
        }
    }

    #[test]
    fn no_bytes_make_narrowing_panic(body: Vec<u8>, version in -1_i16..=6) {
        let _ = narrow(version, &Bytes::from(body));
    }
}

#[test]
fn version_5_is_narrowed_like_version_4() {
    let body = encode(&offered(7, 4), 4);
    assert_eq!(narrow(5, &body), narrow(4, &body));
    assert!(narrow(6, &body).is_err());
}

#[test]
fn clamping_produce_below_version_12_lowers_the_transaction_protocol() {
    let mut theirs = offered(1, 4);
    for api in theirs.api_keys.iter_mut().filter(|api| api.api_key == 0) {
        (api.min_version, api.max_version) = (0, 13);
    }
    let body = encode(&theirs, 4);
    let old_produce = |api_key: i16| (api_key == 0).then_some(11);
    let level = |limit: &dyn Fn(i16) -> Option<i16>| {
        let response: ApiVersionsResponse = decode(&narrow_to(4, &body, limit).expect("well-formed"), 4);
        let features = response.finalized_features.iter();
        features
            .filter(|feature| feature.name.as_str() == "transaction.version")
            .map(|f| f.max_version_level)
            .max()
    };
    assert_eq!(level(&old_produce), Some(1));
    assert_eq!(level(&|_| None), Some(2));
}

#[test]
fn the_answer_to_a_version_that_is_too_new_passes() {
    // Whatever version was asked for, brokers answer in version 0.
    let refusal = unsupported_version_response();
    for version in 0..=NEWEST_VERSION {
        assert_eq!(narrow(version, &refusal), Ok(refusal.clone()));
    }
    let decoded = ApiVersionsResponse::decode(&mut refusal.clone(), 0).expect("decodes");
    assert_eq!(decoded.error_code, 35);
    let ranges: Vec<_> = decoded
        .api_keys
        .iter()
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect();
    assert_eq!(ranges, [(18, 0, NEWEST_VERSION)]);
}
