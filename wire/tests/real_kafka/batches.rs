//! Batches as we make them, and what a broker makes of them.

use std::time::Duration;

use teeline_wire::batch::{BatchView, Producer, fetched_batches, split_for_replay};
use teeline_wire::client::*;
use teeline_wire::codec::Compression;
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, rebuild, timestamp_range};

use crate::support::{batch, cluster, fetch_all, now_ms, replicated_topic, topic, values};

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn every_codec_is_taken_by_the_broker_and_comes_back_byte_for_byte() {
    let cluster = cluster().await;
    let key = topic(&cluster, "codecs", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    let mut sent = Vec::new();
    let mut end = 0;
    for compression in Compression::ALL {
        let batch = batch(compression, end, 100);
        let entry = PartitionBatch::whole(partition.clone(), &batch);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        assert_eq!(produced.base_offset, end, "{compression:?}");
        assert_eq!(produced.log_append_time_ms, -1);
        end += 100;
        sent.push(batch);
    }
    let stored = fetch_all(&cluster, &partition, end).await;
    assert_eq!(stored.len(), sent.len());
    for (stored, sent) in stored.iter().zip(&sent) {
        assert_eq!(stored.payload(), sent.payload());
        assert_eq!(stored.header().crc, sent.header().crc);
        assert_eq!(stored.header().partition_leader_epoch, 0);
        let mut rewritten = sent.bytes().to_vec();
        teeline_wire::batch::set_base_offset_and_epoch(&mut rewritten, stored.header().base_offset, 0)
            .unwrap();
        assert_eq!(stored.bytes(), &rewritten);
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn idempotent_replay_is_pipelined_in_order_and_repeats_are_recognised() {
    let cluster = cluster().await;
    let key = topic(&cluster, "replay", 2, &[]).await;
    let partitions = [0, 1].map(|partition| TopicPartition::new(key.clone(), partition));
    let leader = cluster.leader_for(&partitions[0]).await.unwrap();
    let identity = cluster.init_producer_id().await.unwrap();
    let requests: Vec<Vec<PartitionBatch>> = (0..20)
        .map(|round: i32| {
            let entry = |partition: &TopicPartition| {
                let batch = batch(Compression::Lz4, i64::from(round) * 10, 10);
                let producer = Producer {
                    id: identity.id,
                    epoch: identity.epoch,
                    base_sequence: round * 10,
                };
                PartitionBatch::replay(partition.clone(), split_for_replay(&batch, producer).unwrap())
            };
            partitions.iter().map(entry).collect()
        })
        .collect();
    let options = ProduceOptions::default();
    let mut pending = std::collections::VecDeque::new();
    for (round, request) in requests.iter().enumerate() {
        pending.push_back((
            round,
            cluster.send_produce(leader, request, &options).await.unwrap(),
        ));
        if pending.len() == 5 {
            check(pending.pop_front().unwrap()).await;
        }
    }
    for one in pending {
        check(one).await;
    }
    // The last request again: the broker knows its sequences and names the first offsets.
    let again = cluster
        .send_produce(leader, &requests[19], &options)
        .await
        .unwrap();
    check((19, again)).await;
    // One far too late is out of order, and says so.
    let stale = cluster
        .send_produce(leader, &requests[3], &options)
        .await
        .unwrap();
    for outcome in stale.wait().await.unwrap() {
        let code = outcome.result.unwrap_err().code;
        assert!(
            matches!(
                code,
                ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::DUPLICATE_SEQUENCE_NUMBER
            ),
            "{code}"
        );
    }
    for partition in &partitions {
        let end = cluster
            .list_offset(partition, OffsetAt::Latest)
            .await
            .unwrap()
            .offset;
        assert_eq!(end, 200);
        assert_eq!(fetch_all(&cluster, partition, end).await.len(), 20);
    }

    async fn check((round, pending): (usize, PendingProduce)) {
        for outcome in pending.wait().await.unwrap() {
            assert_eq!(outcome.result.unwrap().base_offset, round as i64 * 10);
        }
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn the_broker_stores_log_append_time_as_we_rebuild_it() {
    let cluster = cluster().await;
    let key = topic(
        &cluster,
        "append",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    )
    .await;
    let partition = TopicPartition::new(key, 0);
    let mut end = 0;
    let mut rebuilt = Vec::new();
    for compression in Compression::ALL {
        let batch = batch(compression, 0, 10);
        let entry = PartitionBatch::whole(partition.clone(), &batch);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        assert!(produced.log_append_time_ms > 0);
        let mut bytes = batch.bytes().to_vec();
        teeline_wire::batch::as_log_append_time(&mut bytes, produced.log_append_time_ms).unwrap();
        teeline_wire::batch::set_base_offset_and_epoch(&mut bytes, produced.base_offset, 0).unwrap();
        rebuilt.push(BatchView::parse(&bytes.into()).unwrap());
        end += 10;
    }
    let stored = fetch_all(&cluster, &partition, end).await;
    assert_eq!(stored, rebuilt);
    for batch in &stored {
        let range = timestamp_range(batch, DECOMPRESSED_BYTES_MAX).unwrap();
        assert_eq!(
            (range.min, range.max),
            (batch.header().max_timestamp, batch.header().max_timestamp)
        );
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn a_wrong_maximum_timestamp_is_corrected_as_we_correct_it() {
    let cluster = cluster().await;
    let key = topic(&cluster, "maximum", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    for compression in [Compression::None, Compression::Zstd] {
        let honest = batch(compression, 0, 5);
        let mut claimed = honest.bytes().to_vec();
        teeline_wire::batch::as_create_time(&mut claimed, honest.header().max_timestamp + 7).unwrap();
        let claimed = BatchView::parse(&claimed.into()).unwrap();
        assert_ne!(claimed, honest);
        let entry = PartitionBatch::whole(partition.clone(), &claimed);
        let produced = cluster
            .produce(&[entry], &ProduceOptions::default())
            .await
            .remove(0)
            .unwrap();
        let fetched = cluster
            .fetch(&partition, produced.base_offset, &FetchOptions::default())
            .await
            .unwrap();
        let stored = fetched_batches(&fetched.records).next().unwrap().unwrap();
        assert_eq!(stored.header().crc, honest.header().crc);
        assert_eq!(stored.payload(), honest.payload());
    }
}

#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn filtered_and_restamped_batches_are_taken() {
    let cluster = cluster().await;
    let key = topic(&cluster, "rebuild", 1, &[]).await;
    let partition = TopicPartition::new(key, 0);
    let mut end = 0;
    for compression in Compression::ALL {
        let whole = batch(compression, 0, 10);
        let some = rebuild(&whole, DECOMPRESSED_BYTES_MAX, |record| record.offset % 2 == 1)
            .unwrap()
            .unwrap();
        let mut late = whole.bytes().to_vec();
        teeline_wire::batch::as_log_append_time(&mut late, now_ms() - 5_000).unwrap();
        let late = BatchView::parse(&late.into()).unwrap();
        let late = rebuild(&late, DECOMPRESSED_BYTES_MAX, |_| true).unwrap().unwrap();
        for (batch, count) in [(some, 5), (late, 10)] {
            let entry = PartitionBatch::whole(partition.clone(), &batch);
            let produced = cluster
                .produce(&[entry], &ProduceOptions::default())
                .await
                .remove(0)
                .unwrap();
            assert_eq!(produced.base_offset, end);
            let expected = values(std::slice::from_ref(&batch));
            assert_eq!(expected.len(), count);
            end += count as i64;
            let stored = fetch_all(&cluster, &partition, end).await;
            assert_eq!(values(stored.last().map(std::slice::from_ref).unwrap()), expected);
        }
    }
}

/// Kill brokers or move leaders meanwhile; `TEELINE_TEST_SECONDS` says how long.
#[tokio::test]
#[ignore = "needs TEELINE_TEST_KAFKA=host:port"]
async fn idempotent_batches_arrive_once_and_in_order_while_leaders_move() {
    let cluster = cluster().await;
    let brokers = cluster
        .metadata(TopicSelection::None)
        .await
        .unwrap()
        .brokers
        .len();
    let key = replicated_topic(&cluster, "moving", 3, brokers.min(3) as i16, &[]).await;
    let partitions = [0, 1, 2].map(|number| TopicPartition::new(key.clone(), number));
    let identity = cluster.init_producer_id().await.unwrap();
    let seconds = std::env::var("TEELINE_TEST_SECONDS").map_or(1, |text| text.parse().unwrap());
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    while tokio::time::Instant::now() < end {
        let entry = |partition: &TopicPartition| {
            let batch = batch(Compression::Lz4, i64::from(round) * 10, 10);
            let producer = Producer {
                id: identity.id,
                epoch: identity.epoch,
                base_sequence: round * 10,
            };
            PartitionBatch::replay(partition.clone(), split_for_replay(&batch, producer).unwrap())
        };
        let entries: Vec<_> = partitions.iter().map(entry).collect();
        for produced in cluster.produce(&entries, &ProduceOptions::default()).await {
            assert_eq!(produced.unwrap().base_offset, i64::from(round) * 10);
        }
        round += 1;
    }
    for partition in &partitions {
        let stored = fetch_all(&cluster, partition, i64::from(round) * 10).await;
        let expected: Vec<_> = (0..round).map(|round| i64::from(round) * 10).collect();
        assert_eq!(
            stored
                .iter()
                .map(|batch| batch.header().base_offset)
                .collect::<Vec<_>>(),
            expected
        );
        let epochs: std::collections::BTreeSet<_> = stored
            .iter()
            .map(|batch| batch.header().partition_leader_epoch)
            .collect();
        eprintln!("{partition}: {round} batches under leader epochs {epochs:?}");
    }
}
