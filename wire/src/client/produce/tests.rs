#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::protocol::Decodable;

use super::*;
use crate::batch::{Producer, split_for_replay};
use crate::codec::Compression;
use crate::records::BatchBuilder;

fn batch() -> BatchView {
    let mut builder = BatchBuilder::new(Compression::Snappy);
    builder.push(1, Some(b"key"), Some(&[7; 5_000]), &[]).unwrap();
    builder.build().unwrap().unwrap()
}

#[test]
fn requests_are_understood_by_kafka_protocol_and_by_our_own_parser() {
    let producer = Producer {
        id: 5,
        epoch: 1,
        base_sequence: 9,
    };
    let replay = split_for_replay(&batch(), producer).unwrap();
    let entries = [
        PartitionBatch::whole(TopicPartition::new("plain", 1), &batch()),
        PartitionBatch::replay(TopicPartition::new("replayed", 2), replay.clone()),
    ];
    let expected = [batch().into_bytes(), replay.to_bytes()];
    assert!(!entries[0].is_idempotent && entries[1].is_idempotent);
    let options = ProduceOptions {
        acks: Acks::Leader,
        timeout: Duration::from_millis(321),
    };
    for version in VERSIONS {
        let pieces = encode_request(version, &entries.iter().collect::<Vec<_>>(), &options).unwrap();
        let payload = pieces
            .iter()
            .find(|piece| piece.as_ptr() == replay.payload.as_ptr());
        assert!(payload.is_some(), "records are handed on, not copied");
        let body = Bytes::from(pieces.concat());
        let mut rest = body.clone();
        let theirs = ProduceRequest::decode(&mut rest, version).unwrap();
        assert!(rest.is_empty(), "version {version}");
        assert_eq!(
            (theirs.acks, theirs.timeout_ms, theirs.transactional_id),
            (1, 321, None)
        );
        assert_eq!(theirs.topic_data.len(), 2);
        let ours = crate::produce::parse_request(version, &body).unwrap();
        for index in 0..2 {
            let topic = &theirs.topic_data[index];
            assert_eq!(*topic.name.0, *entries[index].partition.topic.name);
            let [partition] = &topic.partition_data[..] else {
                panic!("one partition per entry")
            };
            assert_eq!(partition.index, entries[index].partition.partition);
            assert_eq!(partition.records.as_ref(), Some(&expected[index]));
            assert_eq!(ours.entries[index].records, expected[index]);
            assert_eq!(ours.entries[index].partition, entries[index].partition.partition);
        }
    }
}

#[test]
fn a_failure_tells_whether_the_batch_may_stand() {
    let failure = |code, base_offset| ProduceFailure {
        code,
        message: None,
        base_offset,
    };
    assert!(!failure(ErrorCode::NOT_LEADER_OR_FOLLOWER, -1).may_be_appended());
    assert!(failure(ErrorCode::NOT_LEADER_OR_FOLLOWER, 4).may_be_appended());
    assert!(failure(ErrorCode::REQUEST_TIMED_OUT, -1).may_be_appended());
    assert!(failure(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, -1).may_be_appended());
    assert!(!failure(ErrorCode::NOT_ENOUGH_REPLICAS, -1).may_be_appended());
}
