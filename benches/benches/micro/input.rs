//! What is measured with: batches of JSON records, the same in every run.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use teeline_benches::producer::{RECORD_BYTES, event};
use teeline_wire::batch::BatchView;
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

/// Bytes of the records of a full batch, before its producer compresses it.
pub(crate) const FULL_BATCH_BYTES: usize = 65_536;
/// The version of Produce that is parsed: topics by name, flexible.
pub(crate) const PRODUCE_VERSION: i16 = 9;

/// A batch as its producer sends it; `first` chooses its records.
pub(crate) fn batch(bytes: usize, compression: Compression, first: u64) -> BatchView {
    let mut builder = BatchBuilder::new(compression);
    let mut number = first;
    while number == first || builder.uncompressed_bytes() + RECORD_BYTES as usize <= bytes {
        let value = event(number);
        builder
            .push(
                1_700_000_000_000 + number as i64,
                None,
                Some(value.as_bytes()),
                &[],
            )
            .unwrap();
        number += 1;
    }
    builder.build().unwrap().unwrap()
}

/// The body of a Produce request with one batch for each of so many partitions.
pub(crate) fn produce_body(partitions: i32, batch: &BatchView) -> Bytes {
    let data = (0..partitions).map(|partition| {
        PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.bytes().clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("orders")))
        .with_partition_data(data.collect());
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    let mut body = BytesMut::new();
    request.encode(&mut body, PRODUCE_VERSION).unwrap();
    body.freeze()
}

/// The same as a stream sends it: length, header, body.
pub(crate) fn produce_frame(partitions: i32, batch: &BatchView) -> Bytes {
    let body = produce_body(partitions, batch);
    let mut frame = BytesMut::new();
    let header: &[u8] = b"\x00\x00\x00\x09\x00\x00\x00\x07\x00\x05bench\x00";
    frame.put_i32((header.len() + body.len()) as i32);
    frame.put_slice(header);
    frame.put_slice(&body);
    frame.freeze()
}
