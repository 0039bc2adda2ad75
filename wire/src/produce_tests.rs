#![allow(clippy::indexing_slicing)]

use bytes::Bytes;
use kafka_protocol::messages::{
    ProduceRequest as TheirRequest, ProduceResponse as TheirResponse, TopicName, produce_request,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::specimens::{self, Source, encode};

/// The versions the kafka-protocol crate has; older ones are tested with bytes written by hand.
const THEIR_VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

fn made_request(seed: u64, version: i16) -> (TheirRequest, Bytes) {
    let theirs = specimens::produce_request(&mut Source::new(seed, apis::PRODUCE, version));
    let body = encode(&theirs, version);
    (theirs, body)
}

fn made_response(seed: u64, version: i16) -> (TheirResponse, Bytes) {
    let theirs = specimens::produce_response(&mut Source::new(seed, apis::PRODUCE, version));
    let body = encode(&theirs, version);
    (theirs, body)
}

fn topic_of(version: i16, name: &TopicName, id: Uuid) -> TopicRef {
    if version >= 13 {
        TopicRef::Id(id)
    } else {
        TopicRef::Name(name.as_str().into())
    }
}

proptest! {
    #[test]
    fn requests_agree_with_kafka_protocol(seed: u64, version in THEIR_VERSIONS) {
        let (theirs, body) = made_request(seed, version);
        let ours = parse_request(version, &body).expect("well-formed");
        let transactional_id = theirs.transactional_id.as_ref().map(|id| id.as_str());
        prop_assert_eq!(ours.transactional_id.as_deref(), transactional_id);
        prop_assert_eq!((ours.acks, ours.timeout_ms), (theirs.acks, theirs.timeout_ms));
        let expected: Vec<(TopicRef, i32, Bytes)> = theirs
            .topic_data
            .iter()
            .flat_map(|topic| {
                topic.partition_data.iter().map(|partition| {
                    let topic = topic_of(version, &topic.name, topic.topic_id);
                    (topic, partition.index, partition.records.clone().unwrap_or_default())
                })
            })
            .collect();
        let entries: Vec<(TopicRef, i32, Bytes)> =
            ours.entries.iter().map(|entry| (entry.topic.clone(), entry.partition, entry.records.clone())).collect();
        prop_assert_eq!(entries, expected);
    }

    #[test]
    fn acks_are_known_as_soon_as_they_are_there_and_never_guessed(seed: u64, version in THEIR_VERSIONS) {
        let (theirs, body) = made_request(seed, version);
        let mut frame = vec![0, 0, 0, version as u8, 0, 0, 0, 9, 0, 2, b'm', b'e'];
        if apis::is_flexible(apis::PRODUCE, version) == Some(true) {
            frame.push(0);
        }
        let id_bytes = theirs.transactional_id.as_ref().map_or(0, |id| id.len());
        let id_length_bytes = match apis::is_flexible(apis::PRODUCE, version) {
            Some(true) => 1 + usize::from(id_bytes > 126),
            _ => 2,
        };
        let known_from = frame.len() + id_length_bytes + id_bytes + 2;
        frame.extend_from_slice(&body);
        for length in 0..=frame.len() {
            let found = parse_acks(version, &frame[..length]).ok();
            prop_assert_eq!(found, (length >= known_from).then_some(theirs.acks), "{} bytes", length);
        }
    }

    #[test]
    fn responses_agree_with_kafka_protocol(seed: u64, version in THEIR_VERSIONS) {
        let (theirs, body) = made_response(seed, version);
        let ours = parse_response_whole(version, &body).expect("well-formed");
        prop_assert_eq!(ours.throttle_time_ms, theirs.throttle_time_ms);
        prop_assert_eq!(ours.has_node_endpoints, !theirs.node_endpoints.is_empty());
        let expected: Vec<ProduceOutcome> = theirs
            .responses
            .iter()
            .flat_map(|topic| {
                topic.partition_responses.iter().map(|partition| ProduceOutcome {
                    topic: topic_of(version, &topic.name, topic.topic_id),
                    partition: partition.index,
                    error_code: partition.error_code,
                    base_offset: partition.base_offset,
                    log_append_time_ms: partition.log_append_time_ms,
                    log_start_offset: if version >= 5 { partition.log_start_offset } else { -1 },
                    current_leader: (partition.current_leader != Default::default()).then_some(CurrentLeader {
                        leader_id: partition.current_leader.leader_id.0,
                        leader_epoch: partition.current_leader.leader_epoch,
                    }),
                })
            })
            .collect();
        prop_assert_eq!(ours.outcomes, expected);
    }

    #[test]
    fn a_refusal_answers_every_partition_once(seed: u64, version in THEIR_VERSIONS, error_code: i16) {
        let (_, body) = made_request(seed, version);
        let ours = parse_request(version, &body).expect("well-formed");
        let mut refusal = error_response(version, &ours, error_code).expect("encodes");
        let outcomes = parse_response(version, &refusal).expect("well-formed");
        let theirs = TheirResponse::decode(&mut refusal, version).expect("decodes");
        prop_assert!(refusal.is_empty());
        prop_assert_eq!(theirs.throttle_time_ms, 0);
        let mut answered: Vec<(TopicRef, i32)> =
            outcomes.iter().map(|outcome| (outcome.topic.clone(), outcome.partition)).collect();
        answered.sort();
        let mut asked: Vec<(TopicRef, i32)> =
            ours.entries.iter().map(|entry| (entry.topic.clone(), entry.partition)).collect();
        asked.sort();
        asked.dedup();
        prop_assert_eq!(answered, asked);
        for outcome in outcomes {
            prop_assert_eq!((outcome.error_code, outcome.base_offset), (error_code, -1));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_refused(seed: u64, version in THEIR_VERSIONS) {
        let (_, body) = made_request(seed, version);
        for length in 0..body.len() {
            prop_assert!(parse_request(version, &body.slice(..length)).is_err());
        }
        let (_, body) = made_response(seed, version);
        for length in 0..body.len() {
            prop_assert!(parse_response(version, &body[..length]).is_err());
        }
    }

    #[test]
    fn no_corruption_makes_the_parsers_panic(
        seed: u64,
        version in 0_i16..=13,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (_, request) = made_request(seed, version.max(3));
        let (_, response) = made_response(seed, version.max(3));
        for body in [request, response] {
            let mut body = body.to_vec();
            for (index, value) in &flips {
                let at = index.index(body.len());
                body[at] = *value;
            }
            let body = Bytes::from(body);
            let _ = parse_request(version, &body);
            let _ = parse_acks(version, &body);
            let _ = parse_response(version, &body);
        }
    }

    #[test]
    fn the_last_entry_of_a_partition_stands(partitions in proptest::collection::vec(0_i32..20, 0..80)) {
        let (topic, other) = (TopicRef::Name("a".into()), TopicRef::Name("b".into()));
        let mut request = produce_request::TopicProduceData::default();
        request.name = TopicName(StrBytes::from_static_str("a"));
        request.partition_data = partitions
            .iter()
            .map(|index| produce_request::PartitionProduceData::default().with_index(*index))
            .collect();
        let again = request.clone().with_name(TopicName(StrBytes::from_static_str("b")));
        let whole = TheirRequest::default().with_topic_data(vec![request, again]);
        let ours = parse_request(9, &encode(&whole, 9)).expect("well-formed");
        for (at, entry) in ours.entries.iter().enumerate() {
            prop_assert!(entry.topic == topic || entry.topic == other);
            let later = ours.entries.iter().skip(at + 1);
            let named_again = later.clone().any(|next| (&next.topic, next.partition) == (&entry.topic, entry.partition));
            prop_assert_eq!(entry.superseded, named_again);
        }
    }
}

#[test]
fn records_are_slices_of_the_request() {
    let (_, body) = (0..50)
        .map(|seed| made_request(seed, 13))
        .max_by_key(|(_, body)| body.len())
        .expect("some");
    let request = parse_request(13, &body).expect("well-formed");
    let all = body.as_ptr_range();
    let mut seen = 0;
    for entry in request.entries.iter().filter(|entry| !entry.records.is_empty()) {
        assert!(all.contains(&entry.records.as_ptr()));
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn requests_before_version_3_have_no_transactional_id() {
    let body: &[u8] = &[
        0xff, 0xff, 0, 0, 0x75, 0x30, // acks -1, timeout 30 000
        0, 0, 0, 1, 0, 1, b't', // one topic "t"
        0, 0, 0, 1, 0, 0, 0, 7, // one partition, 7
        0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4, 1, // an old message set
    ];
    for version in 0..=2 {
        let request = parse_request(version, &Bytes::from_static(body)).expect("well-formed");
        assert_eq!(
            (
                request.acks,
                request.timeout_ms,
                request.transactional_id.as_deref()
            ),
            (-1, 30_000, None)
        );
        let [entry] = request.entries.as_slice() else {
            panic!("one entry")
        };
        assert_eq!(
            (entry.topic.name(), entry.partition, entry.magic()),
            (Some("t"), 7, Some(1))
        );
    }
}

#[test]
fn responses_before_version_3_are_read_and_written() {
    let entry = |partition| ProduceEntry {
        topic: TopicRef::Name("t".into()),
        partition,
        records: Bytes::new(),
        superseded: false,
    };
    let entries = vec![entry(1), entry(2)];
    let request = ProduceRequest {
        transactional_id: None,
        acks: 1,
        timeout_ms: 0,
        entries,
    };
    let lengths = [4 + 3 + 4 + 2 * 14, 4 + 3 + 4 + 2 * 14 + 4, 4 + 3 + 4 + 2 * 22 + 4];
    for (version, length) in lengths.into_iter().enumerate() {
        let body = error_response(version as i16, &request, 19).expect("encodes");
        assert_eq!(body.len(), length, "version {version}");
        let outcomes = parse_response(version as i16, &body).expect("well-formed");
        assert_eq!(outcomes.len(), 2);
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.error_code == 19 && outcome.base_offset == -1)
        );
    }
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    for version in [-1, NEWEST_VERSION + 1] {
        let refused = parse_request(version, &Bytes::from_static(&[0; 64])).expect_err("no layout");
        assert_eq!(
            refused,
            WireError::UnknownLayout {
                api_key: apis::PRODUCE,
                api_version: version
            }
        );
    }
}

#[test]
fn a_frame_of_twenty_bytes_cannot_claim_memory() {
    // Null transactional id, acks, timeout, then a topic array of two billion.
    let hostile: &[u8] = &[
        0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x77, 0x35, 0x94, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let refused = parse_request(3, &Bytes::from_static(hostile)).expect_err("hostile");
    assert!(matches!(refused, WireError::TooManyElements { .. }));
}
