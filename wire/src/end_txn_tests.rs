#![allow(clippy::indexing_slicing)]

use kafka_protocol::messages::{
    EndTxnRequest as TheirRequest, EndTxnResponse as TheirResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::specimens::encode;

#[test]
fn requests_of_every_version_are_read() {
    for version in 0..=NEWEST_VERSION {
        for committed in [false, true] {
            let mut theirs = TheirRequest::default();
            theirs.transactional_id = TransactionalId(StrBytes::from_static_str("orders-1"));
            theirs.producer_id = ProducerId(4711);
            theirs.producer_epoch = 3;
            theirs.committed = committed;
            let body = encode(&theirs, version);
            let expected = EndTxnRequest {
                transactional_id: "orders-1".to_owned(),
                producer_id: 4711,
                producer_epoch: 3,
                committed,
            };
            assert_eq!(parse_request(version, &body), Ok(expected));
            for length in 0..body.len() {
                assert!(parse_request(version, &body[..length]).is_err());
            }
        }
    }
}

#[test]
fn responses_of_every_version_are_read() {
    for version in 0..=NEWEST_VERSION {
        let mut theirs = TheirResponse::default();
        (theirs.throttle_time_ms, theirs.error_code) = (5, 51);
        if version >= 5 {
            (theirs.producer_id, theirs.producer_epoch) = (ProducerId(4711), 4);
        }
        let body = encode(&theirs, version);
        let response = parse_response(version, &body).expect("well-formed");
        assert_eq!((response.throttle_time_ms, response.error_code), (5, 51));
        let bumped = if version >= 5 { (4711, 4) } else { (-1, -1) };
        assert_eq!((response.producer_id, response.producer_epoch), bumped);
        for length in 0..body.len() {
            assert!(parse_response(version, &body[..length]).is_err());
        }
    }
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    for version in [-1, NEWEST_VERSION + 1] {
        let refused = parse_request(version, &[0; 64]).expect_err("no layout");
        assert_eq!(refused.kind(), crate::ErrorKind::NotUnderstood);
    }
}
