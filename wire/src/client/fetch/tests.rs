#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::BytesMut;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction as TheirAborted, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

use super::message::{
    Asked, Exchange, NEWEST, NEWEST_BY_NAME, OLDEST, SessionStep, WireTopic, key_of, parse_response,
};
use super::*;
use crate::WireError;
use crate::client::TopicKey;

fn id(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn query(number: u8, partition: i32, offset: i64) -> FetchQuery {
    let topic = TopicKey::with_id(format!("topic-{number}"), id(number));
    FetchQuery {
        partition: TopicPartition { topic, partition },
        offset,
        max_bytes: 1000,
    }
}

fn wire_topic(version: i16, number: u8) -> WireTopic {
    match version > NEWEST_BY_NAME {
        true => WireTopic::Id(id(number)),
        false => WireTopic::Name(format!("topic-{number}").into()),
    }
}

prop_compose! {
    fn partition()(
        number in 0i32..5, error in prop_oneof![Just(0i16), any::<i16>()], offsets: [i64; 3], preferred in -1i32..3,
        aborted in proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..4)),
        records in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
    ) -> PartitionData {
        let theirs = |(producer_id, first_offset)| {
            TheirAborted::default().with_producer_id(ProducerId(producer_id)).with_first_offset(first_offset)
        };
        PartitionData::default()
            .with_partition_index(number)
            .with_error_code(error)
            .with_high_watermark(offsets[0])
            .with_last_stable_offset(offsets[1])
            .with_log_start_offset(offsets[2])
            .with_preferred_read_replica(kafka_protocol::messages::BrokerId(preferred))
            .with_aborted_transactions(aborted.map(|list| list.into_iter().map(theirs).collect()))
            .with_records(records.map(Bytes::from))
    }
}

proptest! {
    #[test]
    fn responses_are_read_as_kafka_protocol_wrote_them(
        version in OLDEST..=NEWEST, topics in proptest::collection::vec(proptest::collection::vec(partition(), 0..4), 0..4), session_id: i32,
    ) {
        let theirs = |(number, partitions): (usize, &Vec<PartitionData>)| {
            FetchableTopicResponse::default()
                .with_topic(TopicName(StrBytes::from_string(format!("topic-{number}"))))
                .with_topic_id(id(number as u8))
                .with_partitions(partitions.clone())
        };
        let response = FetchResponse::default().with_responses(topics.iter().enumerate().map(theirs).collect()).with_session_id(session_id);
        let mut body = BytesMut::new();
        response.encode(&mut body, version).unwrap();
        let body = body.freeze();
        let mut parsed = parse_response(version, &body).unwrap();
        for (number, partitions) in topics.iter().enumerate() {
            // A partition named twice: the last one counts, as for kafka-protocol's users.
            let last: HashMap<_, _> = partitions.iter().map(|part| (part.partition_index, part)).collect();
            for (index, part) in last {
                let found = parsed.partitions.remove(&(wire_topic(version, number as u8), index)).unwrap();
                prop_assert_eq!(found.error.0, part.error_code);
                prop_assert_eq!(found.preferred.unwrap_or(-1), part.preferred_read_replica.0);
                let found = found.partition;
                prop_assert_eq!(found.high_watermark, part.high_watermark);
                prop_assert_eq!(found.last_stable_offset, part.last_stable_offset);
                prop_assert_eq!(found.log_start_offset, part.log_start_offset);
                prop_assert_eq!(found.records, part.records.clone().unwrap_or_default());
                let aborted: Vec<_> = found.aborted.iter().map(|one| (one.producer_id, one.first_offset)).collect();
                let theirs: Vec<_> = part.aborted_transactions.iter().flatten()
                    .map(|one| (one.producer_id.0, one.first_offset)).collect();
                prop_assert_eq!(aborted, theirs);
            }
        }
        prop_assert!(parsed.partitions.is_empty());
        prop_assert_eq!(parsed.session_id, response.session_id);
        for cut in 0..body.len() {
            prop_assert!(parse_response(version, &body.slice(..cut)).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn noise_never_panics(version in OLDEST..=NEWEST, noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_response(version, &noise.into());
    }
}

fn response_of(name: &str, partitions: i32) -> Bytes {
    let partition = |number| PartitionData::default().with_partition_index(number);
    let topic = FetchableTopicResponse::default()
        .with_topic(TopicName(StrBytes::from_string(name.to_owned())))
        .with_partitions((0..partitions).map(partition).collect());
    let response = FetchResponse::default().with_responses(vec![topic]);
    let mut body = BytesMut::new();
    response.encode(&mut body, NEWEST_BY_NAME).unwrap();
    body.freeze()
}

#[test]
fn the_partitions_of_a_topic_share_its_name() {
    let parsed = parse_response(NEWEST_BY_NAME, &response_of("orders", 3)).unwrap();
    let names: Vec<_> = parsed
        .partitions
        .keys()
        .map(|(topic, _)| match topic {
            WireTopic::Name(name) => Arc::as_ptr(name),
            WireTopic::Id(id) => panic!("{id} in a version of names"),
        })
        .collect();
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| std::ptr::addr_eq(*name, names[0])));
}

#[test]
fn names_that_no_topic_can_have_are_refused() {
    let parsed = |length| parse_response(NEWEST_BY_NAME, &response_of(&"n".repeat(length), 1));
    assert_eq!(parsed(249).unwrap().partitions.len(), 1);
    let refused = parsed(250).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, WireError::BadLength { length: 250, .. }),
        "{refused}"
    );
}

#[test]
fn requests_are_understood_by_kafka_protocol() {
    let options = FetchOptions {
        isolation: Isolation::ReadCommitted,
        max_wait: Duration::from_millis(123),
        min_bytes: 7,
        max_bytes: 99_999,
        nearest: true,
    };
    let queries = [query(1, 3, 1_000), query(2, 0, 0), query(1, 4, 5)];
    let gone = [query(3, 7, 0), query(1, 9, 0)];
    let asked: Vec<Asked<'_>> = queries
        .iter()
        .map(|query| Asked {
            partition: &query.partition,
            leader_epoch: 6,
            offset: query.offset,
            max_bytes: query.max_bytes,
        })
        .collect();
    for version in OLDEST..=NEWEST {
        let by_id = version > NEWEST_BY_NAME;
        let forgotten = gone.each_ref().map(|query| key_of(&query.partition, by_id));
        let exchange = Exchange {
            version,
            options: &options,
            rack: "rack-1",
            session: SessionStep { id: 77, epoch: 3 },
            asked: &asked,
            forgotten: &forgotten,
        };
        let mut body = exchange.body().unwrap();
        let theirs = FetchRequest::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "version {version}");
        assert_eq!(
            (theirs.max_wait_ms, theirs.min_bytes, theirs.max_bytes),
            (123, 7, 99_999)
        );
        assert_eq!(
            (theirs.isolation_level, theirs.session_id, theirs.session_epoch),
            (1, 77, 3)
        );
        assert_eq!(theirs.forgotten_topics_data.len(), 2);
        for (topic, query) in theirs.forgotten_topics_data.iter().zip(&gone) {
            match by_id {
                true => assert_eq!(Some(topic.topic_id), query.partition.topic.id),
                false => assert_eq!(*topic.topic.0, *query.partition.topic.name),
            }
            assert_eq!(topic.partitions, [query.partition.partition]);
        }
        assert_eq!(theirs.replica_id.0, -1);
        assert_eq!(theirs.rack_id.as_str(), "rack-1");
        assert_eq!(theirs.topics.len(), 3);
        for (topic, query) in theirs.topics.iter().zip(&queries) {
            match version > NEWEST_BY_NAME {
                true => assert_eq!(Some(topic.topic_id), query.partition.topic.id),
                false => assert_eq!(*topic.topic.0, *query.partition.topic.name),
            }
            let [partition] = &topic.partitions[..] else {
                panic!("one partition per entry")
            };
            assert_eq!(partition.partition, query.partition.partition);
            assert_eq!(partition.current_leader_epoch, 6);
            assert_eq!(partition.fetch_offset, query.offset);
            assert_eq!(partition.partition_max_bytes, 1000);
        }
    }
}
