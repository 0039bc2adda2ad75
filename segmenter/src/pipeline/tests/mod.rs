//! The whole segmenter on a real directory, a store in memory and a cluster that answers from a table.
//!
//! [`history`]: random histories of producers, crashes and stops, and what the archive must hold afterwards;
//! [`scenarios`]: one named situation each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod history;
mod scenarios;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use teeline_archive::OffsetRange;
use teeline_archive::buffer::{
    Catalog, CatalogTopic, ConnectionLost, EndTxn, Frame, Intent, Outcome, TopicConfig, TopicRef,
};
use teeline_archive::ids::{BufferPosition, Lsn};
use teeline_archive::ledger::LedgerState;
use teeline_archive::segment::{SegmentReader, batches};
use teeline_runtime::{Health, ManualClock, Shutdown, Store, SystemClock};
use teeline_wire::batch::{BatchHeader, as_log_append_time, set_base_offset_and_epoch};
use uuid::Uuid;

use super::*;
use crate::chain::Ledger;
use crate::testing::{CLUSTER, TestBuffer, TestCluster, labelled_batch, marker};

const TOPIC: Uuid = Uuid::from_u128(7);
const NAME: &str = "orders";
const PARTITIONS: i32 = 2;

fn options(buffer: &TestBuffer, store: &Store) -> Options {
    let settings = teeline_config::Segmenter {
        hole_grace_ms: 0,
        ..Default::default()
    };
    Options {
        name: "test".to_owned(),
        backup_id: "backup".to_owned(),
        buffer_dir: buffer.path(),
        buffer_max_bytes: 1 << 30,
        store: store.clone(),
        topics: teeline_config::TopicFilter::default(),
        upstream: None,
        settings,
        source_lost: false,
        until_drained: true,
        audited: false,
        audit: None,
    }
}

fn run(
    options: Options,
    cluster: Option<Arc<TestCluster>>,
) -> BoxFuture<'static, Result<DrainReport, SegmenterError>> {
    run_until(options, cluster, Shutdown::new())
}

fn run_until(
    options: Options,
    cluster: Option<Arc<TestCluster>>,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<DrainReport, SegmenterError>> {
    Box::pin(async move {
        let source = cluster.map(|cluster| cluster as Arc<dyn Source>);
        match start(options, source, Arc::new(SystemClock), &Health::new(), shutdown).await? {
            Some(pipeline) => pipeline.run().await,
            None => Ok(DrainReport::default()),
        }
    })
}

async fn ledger(store: &Store, buffer: &TestBuffer) -> LedgerState {
    let directory = crate::buffer::Directory::new(buffer.path());
    let writer = directory.identity().unwrap().unwrap().writer;
    Ledger::load(store.clone(), "backup", writer)
        .await
        .unwrap()
        .state()
        .clone()
}

/// Every batch of the archive by partition and base offset, with its leader epoch taken out.
async fn archived(store: &Store, state: &LedgerState, unconfirmed: bool) -> BTreeMap<(i32, i64), Vec<Bytes>> {
    let mut found: BTreeMap<(i32, i64), Vec<Bytes>> = BTreeMap::new();
    for segment in state
        .segments()
        .filter(|segment| segment.unconfirmed() == unconfirmed)
    {
        let object = store.get(&segment.key).await.unwrap();
        let reader = SegmentReader::open(&object, None).unwrap();
        for block in &reader.footer().blocks {
            for batch in batches(&reader.block_of(&object, block).unwrap()) {
                let base = BatchHeader::parse(&batch).unwrap().base_offset;
                found
                    .entry((segment.identity.partition, base))
                    .or_default()
                    .push(without_epoch(&batch));
            }
        }
    }
    found
}

fn without_epoch(batch: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    let base = BatchHeader::parse(&bytes).unwrap().base_offset;
    set_base_offset_and_epoch(&mut bytes, base, -1).unwrap();
    Bytes::from(bytes)
}

fn catalog(requested_after: Lsn, id: Uuid) -> Frame {
    Frame::Catalog(Catalog {
        requested_after,
        at_ms: 1,
        cluster_id: CLUSTER.to_owned(),
        topics: vec![CatalogTopic {
            name: NAME.to_owned(),
            id,
            error_code: 0,
            partitions: (0..PARTITIONS).map(|partition| (partition, 3)).collect(),
            replication_factor: 1,
        }],
    })
}

fn config(timestamp_type: &str) -> Frame {
    Frame::TopicConfig(TopicConfig {
        name: NAME.to_owned(),
        id: TOPIC,
        at_ms: 1,
        configs: vec![(
            "message.timestamp.type".to_owned(),
            Some(timestamp_type.to_owned()),
        )],
    })
}

fn intent(connection_id: u64, acks: i16, topic: TopicRef, partition: i32, records: &[u8]) -> Frame {
    Frame::Intent(Intent {
        connection_id,
        acks,
        sent_at_ms: 1,
        topic,
        partition,
        transactional_id: None,
        records: Bytes::copy_from_slice(records),
    })
}

fn outcome(intent: BufferPosition, error_code: i16, base_offset: i64) -> Frame {
    Frame::Outcome(Outcome {
        intent: intent.lsn,
        received_at_ms: 1,
        error_code,
        base_offset,
        log_append_time_ms: -1,
        log_start_offset: 0,
        leader_epoch: -1,
    })
}

fn by_name() -> TopicRef {
    TopicRef::by_name(NAME)
}
