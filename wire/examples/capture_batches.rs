//! Writes the raw batches of a partition to a file: how `testdata/batches` was made.
//!
//! `cargo run -p teeline-wire --example capture_batches -- 127.0.0.1:9092 topic partition file`

use std::error::Error;

use teeline_config::KafkaEndpoint;
use teeline_wire::batch::fetched_batches;
use teeline_wire::client::{ClientConfig, Cluster, FetchOptions, OffsetAt, TopicPartition};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, topic, partition, file] = arguments.as_slice() else {
        return Err("usage: capture_batches HOST:PORT TOPIC PARTITION FILE".into());
    };
    let cluster = Cluster::connect(ClientConfig::new(KafkaEndpoint {
        client_id: "teeline-capture-batches".to_owned(),
        ..KafkaEndpoint::plaintext(vec![address.parse()?])
    }))
    .await?;
    let partition = TopicPartition::new(topic.as_str(), partition.parse()?);
    let end = cluster.list_offset(&partition, OffsetAt::Latest).await?.offset;
    let mut offset = cluster.list_offset(&partition, OffsetAt::Earliest).await?.offset;
    let mut log = Vec::new();
    while offset < end {
        let fetched = cluster
            .fetch(&partition, offset, &FetchOptions::default())
            .await?;
        for batch in fetched_batches(&fetched.records) {
            let batch = batch?;
            if batch.header().next_offset() > offset {
                offset = batch.header().next_offset();
                log.extend_from_slice(batch.bytes());
            }
        }
    }
    std::fs::write(file, log)?;
    Ok(())
}
