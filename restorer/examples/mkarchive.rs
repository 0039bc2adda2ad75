//! scratch
#![allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]
use teeline_archive::ledger::*;
use teeline_archive::segment::*;
use teeline_archive::*;
use teeline_config::*;
use teeline_runtime::Store;
use teeline_wire::batch::*;
use teeline_wire::client::*;
use teeline_wire::records::*;
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dir = &a[2];
    let cluster = Cluster::connect(ClientConfig::new(KafkaEndpoint::plaintext(vec![
        a[1].parse().unwrap(),
    ])))
    .await
    .unwrap();
    let md = cluster.metadata(TopicSelection::All).await.unwrap();
    let store = Store::open(&Storage::filesystem(dir)).unwrap();
    let cid = md.cluster_id.clone().unwrap();
    let mut entries = vec![];
    let mut counter = 0;
    let seg_max: u64 = std::env::var("SEG")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(64 << 20);
    for t in &md.topics {
        if t.name.starts_with("__") {
            continue;
        }
        let cfg = cluster
            .describe_configs(&[ConfigResource::Topic(t.name.clone())])
            .await
            .pop()
            .unwrap()
            .unwrap();
        let configs = cfg
            .into_iter()
            .filter(|c| c.is_own)
            .map(|c| (c.name, c.value))
            .collect();
        entries.push(Entry::Topic(TopicSnapshot {
            name: t.name.to_string(),
            incarnation: t.id,
            at_ms: 1,
            partition_count: t.partitions.len() as i32,
            replication_factor: 3,
            configs,
        }));
        for p in &t.partitions {
            let tp = TopicPartition::new(t.key(), p.partition);
            let end = cluster.list_offset(&tp, OffsetAt::Latest).await.unwrap().offset;
            let mut off = cluster.list_offset(&tp, OffsetAt::Earliest).await.unwrap().offset;
            let mut builder: Option<(SegmentBuilder, Vec<bytes::Bytes>)> = None;
            while off < end {
                let f = cluster
                    .fetch(
                        &tp,
                        off,
                        &FetchOptions {
                            max_bytes: 8 << 20,
                            ..Default::default()
                        },
                    )
                    .await
                    .unwrap();
                for b in fetched_batches(&f.records) {
                    let b = b.unwrap();
                    let h = b.header();
                    if h.base_offset < off {
                        continue;
                    }
                    let r = timestamp_range(&b, DECOMPRESSED_BYTES_MAX).unwrap();
                    let kind = if h.is_control() {
                        BatchKind::Control(Marker {
                            commit: control_marker(&b).unwrap().unwrap().is_commit(),
                        })
                    } else if h.is_transactional() {
                        BatchKind::TransactionalData
                    } else {
                        BatchKind::Data
                    };
                    let meta = BatchMeta {
                        base_offset: h.base_offset,
                        last_offset: h.last_offset(),
                        record_count: h.records(),
                        timestamp_min: r.min,
                        timestamp_max: r.max,
                        leader_epoch: h.partition_leader_epoch,
                        producer: h.has_producer().then_some(teeline_archive::segment::Producer {
                            id: h.producer_id,
                            epoch: h.producer_epoch,
                            base_sequence: h.base_sequence,
                        }),
                        kind,
                    };
                    if builder.is_none() {
                        counter += 1;
                        let id = SegmentIdentity {
                            backup_id: "default".into(),
                            cluster_id: cid.clone(),
                            topic: t.name.to_string(),
                            incarnation: t.id,
                            partition: p.partition,
                            writer: WriterId(1),
                            session: SessionId(1),
                            counter,
                            origin: Origin::Fetch,
                            created_at_ms: 1,
                        };
                        builder = Some((SegmentBuilder::new(id, Codec::Zstd, 3, 1 << 20).unwrap(), vec![]));
                    }
                    let (sb, out) = builder.as_mut().unwrap();
                    sb.push(b.bytes(), meta).unwrap();
                    out.push(sb.drain_output());
                    off = h.next_offset();
                    if sb.uncompressed_bytes() > seg_max {
                        finish(&store, builder.take().unwrap(), &mut entries).await;
                    }
                }
            }
            if let Some(b) = builder.take() {
                finish(&store, b, &mut entries).await;
            }
        }
    }
    let c = Commit {
        backup_id: "default".into(),
        cluster_id: cid,
        writer: WriterId(1),
        seq: 1,
        nonce: 1,
        created_at_ms: 1,
        program: "x".into(),
        entries,
    };
    store.put(&c.key().unwrap(), c.encode().unwrap()).await.unwrap();
}
async fn finish(store: &Store, b: (SegmentBuilder, Vec<bytes::Bytes>), entries: &mut Vec<Entry>) {
    let (sb, mut out) = b;
    let f = sb.finish().unwrap();
    out.push(f.tail);
    store.put(&f.info.key, out.concat().into()).await.unwrap();
    entries.push(Entry::Segment(f.info));
}
