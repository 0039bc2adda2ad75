#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use proptest::prelude::*;

use super::*;
use crate::batch::{BatchView, as_log_append_time, set_base_offset_and_epoch};
use crate::codec::Compression;

const LIMIT: usize = DECOMPRESSED_BYTES_MAX;

/// A record with everything owned, for comparing.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Owned {
    fn of(record: &RecordView<'_>) -> Self {
        let header = |header: HeaderView<'_>| (header.key.to_vec(), header.value.map(<[u8]>::to_vec));
        Self {
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

fn build(compression: Compression, records: &[Owned]) -> BatchView {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect();
        builder
            .push(
                record.timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    builder.build().unwrap().unwrap()
}

fn read(batch: &BatchView) -> Vec<Owned> {
    let records = Records::decode(batch, LIMIT).unwrap();
    records.iter().map(|record| Owned::of(&record.unwrap())).collect()
}

fn stored(batch: &BatchView, base_offset: i64) -> BatchView {
    let mut bytes = batch.bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, base_offset, 3).unwrap();
    BatchView::parse(&bytes.into()).unwrap()
}

fn as_append_time(batch: &BatchView, time: i64) -> BatchView {
    let mut bytes = batch.bytes().to_vec();
    as_log_append_time(&mut bytes, time).unwrap();
    BatchView::parse(&bytes.into()).unwrap()
}

fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        4 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Some),
    ]
}

prop_compose! {
    fn record()(
        timestamp in prop_oneof![Just(-1), 0i64..2_000_000_000_000, any::<i64>()],
        key in some_bytes(),
        value in some_bytes(),
        // Few names, so that they repeat; bytes, so that they are no UTF-8.
        headers in proptest::collection::vec((proptest::collection::vec(0xfdu8.., 0..2), some_bytes()), 0..4),
    ) -> Owned {
        Owned { timestamp, key, value, headers }
    }
}

fn some_records() -> impl Strategy<Value = Vec<Owned>> {
    proptest::collection::vec(record(), 1..30)
}

fn some_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_built_is_read_back_whole(records in some_records(), compression in some_compression()) {
        let batch = build(compression, &records);
        prop_assert!(batch.verify_crc().is_ok());
        prop_assert!(batch.header().is_dense());
        prop_assert_eq!(batch.header().compression(), Ok(compression));
        prop_assert_eq!(read(&batch), records);
    }

    #[test]
    fn a_rebuild_keeps_exactly_what_it_is_told_to(
        records in some_records(), compression in some_compression(), mask: u32,
    ) {
        let batch = stored(&build(compression, &records), 5_000);
        let keep = |index: usize| mask & (1 << (index % 32)) != 0;
        let expected: Vec<_> =
            records.iter().enumerate().filter(|(index, _)| keep(*index)).map(|(_, record)| record.clone()).collect();
        let rebuilt = rebuild(&batch, LIMIT, |record| keep((record.offset - 5_000) as usize)).unwrap();
        match rebuilt {
            None => prop_assert!(expected.is_empty()),
            Some(rebuilt) => {
                prop_assert!(rebuilt.verify_crc().is_ok());
                prop_assert!(rebuilt.header().is_dense());
                prop_assert_eq!(rebuilt.header().base_offset, 0);
                prop_assert_eq!(rebuilt.header().partition_leader_epoch, -1);
                prop_assert_eq!(rebuilt.header().compression(), Ok(compression));
                prop_assert_eq!(rebuilt.header().max_timestamp, expected.iter().map(|record| record.timestamp).max().unwrap());
                prop_assert_eq!(read(&rebuilt), expected);
            }
        }
    }

    #[test]
    fn the_true_timestamp_range_is_found(records in some_records(), compression in some_compression()) {
        let batch = build(compression, &records);
        let range = timestamp_range(&batch, LIMIT).unwrap();
        prop_assert_eq!(range.min, records.iter().map(|record| record.timestamp).min().unwrap());
        prop_assert_eq!(range.max, records.iter().map(|record| record.timestamp).max().unwrap());
    }

    #[test]
    fn the_digest_sees_content_and_nothing_else(
        records in some_records(), left in some_compression(), right in some_compression(), at in any::<proptest::sample::Index>(),
    ) {
        use DigestScope::{WithTimestamps, WithoutTimestamps};
        let batch = build(left, &records);
        let other = stored(&build(right, &records), 77);
        prop_assert_eq!(content_digest(&batch, WithTimestamps, LIMIT), content_digest(&other, WithTimestamps, LIMIT));
        let restamped = as_append_time(&other, 12);
        prop_assert_eq!(
            content_digest(&batch, WithoutTimestamps, LIMIT),
            content_digest(&restamped, WithoutTimestamps, LIMIT)
        );
        let mut changed = records.clone();
        let record = &mut changed[at.index(records.len())];
        record.key = match record.key.take() {
            None => Some(Vec::new()),
            Some(key) if key.is_empty() => None,
            Some(mut key) => { key.pop(); Some(key) }
        };
        let changed = build(left, &changed);
        prop_assert_ne!(content_digest(&batch, WithTimestamps, LIMIT), content_digest(&changed, WithTimestamps, LIMIT));
    }

    #[test]
    fn kafka_protocol_reads_what_we_build(
        records in proptest::collection::vec(plain_record(), 1..20),
    ) {
        let batch = build(Compression::None, &records);
        let decoded = RecordBatchDecoder::decode(&mut batch.bytes().clone()).unwrap();
        let theirs: Vec<_> = decoded.records.iter().map(from_theirs).collect();
        prop_assert_eq!(theirs, records);
    }

    #[test]
    fn we_read_what_kafka_protocol_builds_and_build_the_same_bytes(
        mut records in proptest::collection::vec(plain_record(), 1..20),
    ) {
        // Theirs takes the smallest timestamp for the base, we and Java the first.
        records.sort_by_key(|record| record.timestamp);
        let theirs: Vec<_> = records.iter().enumerate().map(|(index, record)| to_theirs(index, record)).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: TheirCompression::None };
        RecordBatchEncoder::encode(&mut bytes, theirs.iter(), &options).unwrap();
        let batch = BatchView::parse(&bytes.freeze()).unwrap();
        prop_assert!(batch.verify_crc().is_ok());
        prop_assert_eq!(read(&batch), records.clone());
        prop_assert_eq!(build(Compression::None, &records), batch);
    }

    #[test]
    fn noise_as_records_never_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..200), count in 0i32.., codec in 0i16..8,
    ) {
        let mut header = *build(Compression::None, &[plain(1)]).header();
        header.record_count = count;
        header.attributes = codec;
        header.batch_length = 49 + noise.len() as i32;
        let bytes = Bytes::from([&header.to_bytes()[..], &noise].concat());
        let batch = BatchView::parse(&bytes).unwrap();
        let limit = 1 << 16;
        let _ = timestamp_range(&batch, limit);
        let _ = content_digest(&batch, DigestScope::WithTimestamps, limit);
        let _ = rebuild(&batch, limit, |_| true);
    }
}

/// A record that kafka-protocol can express: unique UTF-8 header names, reasonable times.
fn plain_record() -> impl Strategy<Value = Owned> {
    let headers = proptest::collection::btree_map("[a-z]{0,5}", some_bytes(), 0..4);
    (0i64..2_000_000_000_000, some_bytes(), some_bytes(), headers).prop_map(
        |(timestamp, key, value, headers)| {
            let headers = headers
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value))
                .collect();
            Owned {
                timestamp,
                key,
                value,
                headers,
            }
        },
    )
}

fn plain(timestamp: i64) -> Owned {
    Owned {
        timestamp,
        key: None,
        value: Some(b"value".to_vec()),
        headers: Vec::new(),
    }
}

fn to_theirs(index: usize, record: &Owned) -> Record {
    let header = |(name, value): &(Vec<u8>, Option<Vec<u8>>)| {
        (
            StrBytes::from_utf8(name.clone().into()).unwrap(),
            value.clone().map(Bytes::from),
        )
    };
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: index as i64,
        // The crate groups records by offset minus sequence.
        sequence: index as i32 - 1,
        timestamp: record.timestamp,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record.headers.iter().map(header).collect::<IndexMap<_, _>>(),
    }
}

fn from_theirs(record: &Record) -> Owned {
    let header = |(name, value): (&StrBytes, &Option<Bytes>)| {
        (
            name.as_bytes().to_vec(),
            value.as_ref().map(|value| value.to_vec()),
        )
    };
    Owned {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record.headers.iter().map(header).collect(),
    }
}

#[test]
fn log_append_time_is_what_readers_see_and_what_a_rebuild_keeps() {
    let records: Vec<_> = [50, 10, 90].into_iter().map(plain).collect();
    for compression in Compression::ALL {
        let batch = as_append_time(&build(compression, &records), 1_000);
        assert_eq!(
            timestamp_range(&batch, LIMIT),
            Ok(TimestampRange {
                min: 1_000,
                max: 1_000
            })
        );
        assert!(read(&batch).iter().all(|record| record.timestamp == 1_000));
        let rebuilt = rebuild(&batch, LIMIT, |_| true).unwrap().unwrap();
        assert!(!rebuilt.header().is_log_append_time());
        assert_eq!(
            (rebuilt.header().base_timestamp, rebuilt.header().max_timestamp),
            (1_000, 1_000)
        );
        assert_eq!(read(&rebuilt), read(&batch));
        let deltas: Vec<_> = Records::decode(&rebuilt, LIMIT)
            .unwrap()
            .iter()
            .map(|record| record.unwrap().timestamp_delta)
            .collect();
        assert_eq!(deltas, [0, 0, 0]);
    }
}

#[test]
fn a_compacted_batch_keeps_its_offsets_and_becomes_dense_when_rebuilt() {
    let whole = stored(
        &build(Compression::None, &[plain(1), plain(2), plain(3), plain(4)]),
        100,
    );
    // As the cleaner leaves it: the second and the last record are gone, offsets and last offset delta stay.
    let records = Records::decode(&whole, LIMIT).unwrap();
    let mut payload = records.payload().to_vec();
    let length = payload.len() / 4;
    payload.drain(3 * length..);
    payload.drain(length..2 * length);
    let mut header = *whole.header();
    header.record_count = 2;
    header.batch_length = 49 + payload.len() as i32;
    header.crc = crc32c::crc32c_append(header.content_crc(), &payload);
    let compacted = BatchView::parse(&Bytes::from([&header.to_bytes()[..], &payload].concat())).unwrap();
    compacted.verify_crc().unwrap();
    assert!(!compacted.header().is_dense());
    assert_eq!(compacted.header().last_offset(), 103);
    let offsets = |batch: &BatchView| -> Vec<_> {
        Records::decode(batch, LIMIT)
            .unwrap()
            .iter()
            .map(|record| record.unwrap().offset)
            .collect()
    };
    assert_eq!(offsets(&compacted), [100, 102]);
    let rebuilt = rebuild(&compacted, LIMIT, |_| true).unwrap().unwrap();
    assert!(rebuilt.header().is_dense());
    assert_eq!(offsets(&rebuilt), [0, 1]);
    assert_eq!(read(&rebuilt), [plain(1), plain(3)]);
}

#[test]
fn a_record_count_that_lies_is_an_error() {
    let batch = build(Compression::None, &[plain(1), plain(2)]);
    let mut header = *batch.header();
    header.record_count = i32::MAX;
    let bytes = Bytes::from([&header.to_bytes()[..], &batch.payload()].concat());
    let liar = BatchView::parse(&bytes).unwrap();
    let expected = BatchError::RecordCount {
        announced: i32::MAX as u32,
        found: 2,
    };
    let records = Records::decode(&liar, LIMIT).unwrap();
    let outcome: Result<Vec<_>, _> = records.iter().collect();
    assert_eq!(outcome, Err(expected.clone()));
    assert_eq!(timestamp_range(&liar, LIMIT), Err(expected));
}

#[test]
fn a_batch_that_unfolds_beyond_the_limit_is_refused() {
    let large = Owned {
        value: Some(vec![0; 1 << 20]),
        ..plain(1)
    };
    for compression in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let batch = build(compression, std::slice::from_ref(&large));
        let outcome = Records::decode(&batch, 1 << 19).map(drop);
        assert!(matches!(
            outcome,
            Err(BatchError::Codec(codec::CodecError::TooLarge { .. }))
        ));
    }
}

#[test]
fn a_rebuild_that_grew_too_large_is_split_in_order() {
    let records: Vec<_> = (0..100).map(plain).collect();
    let batch = stored(&build(Compression::None, &records), 40);
    let parts = rebuild_within(&batch, LIMIT, 400, |record| record.timestamp != 50).unwrap();
    assert!(parts.len() > 2);
    assert!(
        parts
            .iter()
            .all(|part| part.bytes().len() <= 400 && part.header().is_dense())
    );
    let together: Vec<_> = parts.iter().flat_map(read).collect();
    let expected: Vec<_> = records
        .iter()
        .filter(|record| record.timestamp != 50)
        .cloned()
        .collect();
    assert_eq!(together, expected);
    // One record alone is never split further.
    let parts = rebuild_within(&batch, LIMIT, 1, |_| true).unwrap();
    assert_eq!(parts.len(), 100);
    assert!(rebuild_within(&batch, LIMIT, 400, |_| false).unwrap().is_empty());
}

#[test]
fn nothing_is_not_a_batch() {
    assert!(BatchBuilder::new(Compression::Zstd).build().unwrap().is_none());
}

#[test]
fn ranges_overlap_half_open_windows() {
    let range = TimestampRange { min: 10, max: 20 };
    assert!(range.overlaps(20, 21) && range.overlaps(0, 11) && range.overlaps(12, 13));
    assert!(!range.overlaps(21, 30) && !range.overlaps(0, 10));
}
