//! Transactions, by requests of which the client has no calls of its own.

use std::time::Duration;

use bytes::BytesMut;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest,
    ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use teeline_wire::batch::{Producer, fetched_batches, split_for_replay};
use teeline_wire::client::*;
use teeline_wire::codec::Compression;

use crate::support::{batch, cluster, topic, unique};

/// A request of which this crate has no call of its own, encoded by kafka-protocol.
async fn raw<R: Request>(connection: &Connection, version: i16, request: &R) -> R::Response {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    let timeout = Duration::from_secs(10);
    let raw = RawRequest {
        api_key: R::KEY,
        api_version: version,
        body: vec![body.freeze()],
        timeout,
    };
    let mut answer = connection.send(raw).await.unwrap().wait().await.unwrap();
    R::Response::decode(&mut answer, version).unwrap()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One transaction of one batch of ten records, under the first transaction protocol.
async fn transact(
    connection: &Connection,
    partition: &TopicPartition,
    id: &str,
    producer: Producer,
    commit: bool,
) {
    let transactional_id = TransactionalId(text(id));
    let topic = TopicName(text(&partition.topic.name));
    let added = AddPartitionsToTxnTopic::default()
        .with_name(topic.clone())
        .with_partitions(vec![partition.partition]);
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id.clone())
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![added]);
    // While the previous transaction is being ended, the coordinator says 51: concurrent transactions.
    loop {
        let answer = raw(connection, 3, &request).await;
        match answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code {
            0 => break,
            51 => tokio::time::sleep(Duration::from_millis(20)).await,
            code => panic!("{}", ErrorCode(code)),
        }
    }
    let plain = batch(Compression::None, 0, 10);
    let mut bytes = split_for_replay(&plain, producer).unwrap().to_bytes().to_vec();
    bytes[22] |= 0x10;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let data = PartitionProduceData::default()
        .with_index(partition.partition)
        .with_records(Some(bytes.into()));
    let request = ProduceRequest::default()
        .with_transactional_id(Some(transactional_id.clone()))
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![
            TopicProduceData::default()
                .with_name(topic)
                .with_partition_data(vec![data]),
        ]);
    let answer = raw(connection, 8, &request).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional_id)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commit);
    assert_eq!(raw(connection, 3, &request).await.error_code, 0);
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port of a cluster of one broker"]
async fn aborted_transactions_are_listed_and_markers_read() {
    let cluster = cluster().await;
    let key = topic(&cluster, "transactions", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    cluster.leader_for(&partition).await.unwrap();
    // With one broker whoever answers is coordinator and leader.
    let address = cluster.config().endpoint.bootstrap_servers[0].clone();
    let connection = Connection::open(&address, cluster.config()).await.unwrap();
    let id = unique("transactional-id");
    let find = FindCoordinatorRequest::default()
        .with_key(text(&id))
        .with_key_type(1);
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(&id))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let identity = loop {
        // Asking for the coordinator makes a fresh cluster create what it keeps transactions in.
        raw(&connection, 3, &find).await;
        let answer = raw(&connection, 4, &init).await;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => break answer,
            code => assert!(code.is_retriable() || code.0 == 16, "{code}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let outcomes = [true, false, true, false];
    for (number, commit) in outcomes.into_iter().enumerate() {
        let base_sequence = number as i32 * 10;
        let producer = Producer {
            id: identity.producer_id.0,
            epoch: identity.producer_epoch,
            base_sequence,
        };
        transact(&connection, &partition, &id, producer, commit).await;
    }
    while cluster
        .list_offset(&partition, OffsetAt::LastStable)
        .await
        .unwrap()
        .offset
        < 44
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let committed = FetchOptions {
        isolation: Isolation::ReadCommitted,
        ..FetchOptions::default()
    };
    let fetched = cluster.fetch(&partition, 0, &committed).await.unwrap();
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset), (44, 44));
    let aborted = |first_offset| AbortedTransaction {
        producer_id: identity.producer_id.0,
        first_offset,
    };
    assert_eq!(fetched.aborted, [aborted(11), aborted(33)]);
    let markers: Vec<_> = fetched_batches(&fetched.records)
        .filter_map(|batch| teeline_wire::batch::control_marker(&batch.unwrap()).unwrap())
        .collect();
    assert_eq!(
        markers
            .iter()
            .map(|marker| marker.is_commit())
            .collect::<Vec<_>>(),
        outcomes
    );
    assert_eq!(
        markers.iter().map(|marker| marker.offset).collect::<Vec<_>>(),
        [10, 21, 32, 43]
    );
    assert!(
        markers
            .iter()
            .all(|marker| marker.ends(identity.producer_id.0, identity.producer_epoch))
    );
    // The decision of one transaction, cheaply: any fetch inside it lists it.
    let inside = FetchOptions {
        max_bytes: 1,
        ..committed
    };
    let fetched = cluster.fetch(&partition, 35, &inside).await.unwrap();
    assert_eq!(fetched.aborted, [aborted(33)]);
}
