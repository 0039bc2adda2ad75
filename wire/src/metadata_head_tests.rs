#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::header::{replace_body, response_frame};
use crate::rewrite::rewrite_response;

fn frame(version: i16, brokers: i32, topics: usize) -> Bytes {
    let brokers = (0..brokers).map(|id| {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_string(format!("broker-{id}.internal")))
            .with_port(9092 + id);
        match version {
            0 => broker,
            _ => broker.with_rack((id % 2 == 0).then(|| StrBytes::from_static_str("a"))),
        }
    });
    let topics = (0..topics).map(|n| {
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_string(format!("t{n}")))))
            .with_partitions(vec![MetadataResponsePartition::default(); 3])
    });
    let message = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_topics(topics.collect());
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    response_frame(apis::METADATA, version, 7, &body).unwrap()
}

fn proxied(node_id: i32, host: &str, port: i32) -> Option<(String, u16)> {
    (host.ends_with(".internal") && port > 0).then(|| (format!("p{node_id}"), 19_000))
}

#[test]
fn the_head_with_the_rest_is_what_a_whole_rewriting_gives() {
    for version in 0..=apis::newest_understood(apis::METADATA).unwrap() {
        for brokers in [0, 1, 5, 200] {
            let frame = frame(version, brokers, 20);
            let content = frame.slice(4..);
            let (_, body_at) = parse_response_header(apis::METADATA, version, &content).unwrap();
            let whole =
                rewrite_response(apis::METADATA, version, content.slice(body_at..), &mut proxied).unwrap();
            let expected = replace_body(&content, body_at, &whole.body).unwrap();
            let mut needed = None;
            for arrived in 0..=content.len() {
                let start = &content[..arrived];
                let Some(head) = rewrite_head(version, content.len(), start, &mut proxied).unwrap() else {
                    assert!(needed.is_none());
                    continue;
                };
                needed.get_or_insert(arrived);
                let streamed = [&head.bytes[..], &content[head.replaced..]].concat();
                assert_eq!(streamed, expected, "version {version}, {brokers} brokers");
                if arrived > needed.unwrap() + 8 {
                    break;
                }
            }
            assert!(needed.unwrap() < content.len(), "the topics are not waited for");
        }
    }
}

#[test]
fn a_broker_without_a_place_is_refused_and_so_is_a_head_that_cannot_end() {
    let frame = frame(12, 3, 1);
    let nobody = &mut |_: i32, _: &str, _: i32| None;
    let refused = rewrite_head(12, frame.len() - 4, &frame[4..], nobody);
    assert!(matches!(
        refused,
        Err(WireError::UnmappableNode { node_id: 0, .. })
    ));
    assert!(rewrite_head(12, 20, &frame[4..24], &mut proxied).is_err());
    assert!(rewrite_head(99, 20, &frame[4..24], &mut proxied).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in -1_i16..20, length in 0_usize..400) {
        let _ = rewrite_head(version, length, &bytes, &mut proxied);
    }
}
