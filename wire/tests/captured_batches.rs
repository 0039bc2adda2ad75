//! Batches as real producers wrote them and a real broker stored them; see `testdata/batches/README.md`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use teeline_wire::batch::{BatchView, Producer, batches, control_marker, split_for_replay};
use teeline_wire::records::{
    DECOMPRESSED_BYTES_MAX, DigestScope, Records, content_digest, rebuild, timestamp_range,
};

const LIMIT: usize = DECOMPRESSED_BYTES_MAX;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[derive(Debug, Clone, PartialEq)]
struct Plain {
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn load(name: &str) -> Vec<BatchView> {
    let path = format!("{}/testdata/batches/{name}.log", env!("CARGO_MANIFEST_DIR"));
    let found: Vec<_> = batches(&Bytes::from(std::fs::read(path).unwrap()))
        .collect::<Result<_, _>>()
        .unwrap();
    for batch in &found {
        batch.verify_crc().unwrap();
    }
    found
}

fn read(batch: &BatchView) -> Vec<Plain> {
    let records = Records::decode(batch, LIMIT).unwrap();
    let plain = |record: teeline_wire::records::RecordView<'_>| Plain {
        offset: record.offset,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record
            .headers
            .iter()
            .map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)))
            .collect(),
    };
    records.iter().map(|record| plain(record.unwrap())).collect()
}

fn bytes(text: impl Into<String>) -> Option<Vec<u8>> {
    Some(text.into().into_bytes())
}

fn header(name: &str, value: Option<Vec<u8>>) -> (Vec<u8>, Option<Vec<u8>>) {
    (name.as_bytes().to_vec(), value)
}

fn of_java(number: i64) -> Plain {
    Plain {
        offset: number - 1,
        key: bytes(format!("key-{number}")),
        value: bytes(format!("value of {number} of {number} of {number}")),
        headers: vec![
            header("h", bytes(format!("v{number}"))),
            header("h", bytes("w")),
            header("k", bytes("")),
        ],
    }
}

fn of_librdkafka(number: i64) -> Plain {
    let key = [None, bytes(""), bytes(format!("key-{number}"))][number as usize % 3].clone();
    let values = [
        bytes(format!("value {number} ").repeat(5)),
        bytes(""),
        None,
        Some((0..=255u8).collect()),
    ];
    let value = values[number as usize % 4].clone();
    let headers = match number % 5 {
        0 => Vec::new(),
        _ => vec![
            header("h", None),
            header("h", bytes("")),
            header("h", bytes(format!("v{number}"))),
        ],
    };
    let value = if key.is_none() && value.is_none() {
        bytes("x")
    } else {
        value
    };
    Plain {
        offset: number,
        key,
        value,
        headers,
    }
}

fn timestamp_of_librdkafka(number: i64) -> i64 {
    1_700_000_000_000 + number * 7919 % 1000 - 500
}

#[test]
fn batches_of_the_java_client_are_read_in_every_codec() {
    for codec in CODECS {
        let found = load(&format!("java-{codec}"));
        let records: Vec<_> = found.iter().flat_map(read).collect();
        assert_eq!(records, (1..=60).map(of_java).collect::<Vec<_>>(), "{codec}");
        assert!(
            found
                .iter()
                .all(|batch| batch.header().compression().unwrap().name() == codec)
        );
        assert!(found.iter().all(|batch| batch.header().has_producer()));
    }
}

#[test]
fn batches_of_librdkafka_are_read_in_every_codec() {
    for codec in CODECS {
        let found = load(&format!("librdkafka-{codec}"));
        let records: Vec<_> = found.iter().flat_map(read).collect();
        assert_eq!(records, (0..80).map(of_librdkafka).collect::<Vec<_>>(), "{codec}");
        assert_eq!(found.len(), 2);
        for batch in &found {
            let header = batch.header();
            assert!(!header.has_producer());
            let times = (header.base_offset..=header.last_offset()).map(timestamp_of_librdkafka);
            let range = timestamp_range(batch, LIMIT).unwrap();
            assert_eq!(
                (range.min, range.max),
                (times.clone().min().unwrap(), times.max().unwrap())
            );
            assert_eq!(range.max, header.max_timestamp, "the broker corrects the maximum");
        }
    }
}

#[test]
fn the_same_records_have_the_same_digest_in_every_codec() {
    let digests = |codec: &str| -> Vec<_> {
        let found = load(&format!("librdkafka-{codec}"));
        found
            .iter()
            .map(|batch| content_digest(batch, DigestScope::WithTimestamps, LIMIT).unwrap())
            .collect()
    };
    let plain = digests("none");
    assert_ne!(plain[0], plain[1]);
    for codec in CODECS {
        assert_eq!(digests(codec), plain, "{codec}");
    }
}

#[test]
fn what_others_encoded_is_encoded_by_us_to_the_same_bytes() {
    for writer in ["java", "librdkafka"] {
        for codec in CODECS {
            for batch in load(&format!("{writer}-{codec}")) {
                let rebuilt = rebuild(&batch, LIMIT, |_| true).unwrap().unwrap();
                rebuilt.verify_crc().unwrap();
                let (theirs, ours) = (
                    Records::decode(&batch, LIMIT).unwrap(),
                    Records::decode(&rebuilt, LIMIT).unwrap(),
                );
                assert_eq!(theirs.payload(), ours.payload(), "{writer} {codec}");
                if codec == "none" {
                    let replayed = split_for_replay(&batch, Producer::NONE).unwrap();
                    assert_eq!(replayed.to_bytes(), rebuilt.bytes());
                }
            }
        }
    }
}

#[test]
fn markers_end_the_transactions_before_them() {
    let found = load("transactions");
    let mut open: Option<&BatchView> = None;
    let mut outcomes = Vec::new();
    for batch in &found {
        match control_marker(batch).unwrap() {
            Some(marker) => {
                let data = open.take().unwrap();
                assert!(marker.ends(data.header().producer_id, data.header().producer_epoch));
                assert_eq!(marker.offset, data.header().next_offset());
                outcomes.push(marker.is_commit());
            }
            None => {
                assert!(batch.header().is_transactional() && open.is_none());
                open = Some(batch);
            }
        }
    }
    assert_eq!(outcomes, [true, false, true, false]);
    let data: Vec<_> = found
        .iter()
        .filter(|batch| !batch.header().is_control())
        .flat_map(read)
        .collect();
    let expected = |number: i64| Plain {
        offset: number + number / 5,
        ..of_librdkafka(number)
    };
    assert_eq!(data, (0..20).map(expected).collect::<Vec<_>>());
}

#[test]
fn what_compaction_left_is_read_and_becomes_dense() {
    let found = load("compacted");
    let counts: Vec<_> = found.iter().map(|batch| batch.header().record_count).collect();
    assert_eq!(counts, [20, 9, 1, 1]);
    assert!(!found[0].header().is_dense());
    assert!(split_for_replay(&found[0], Producer::NONE).is_err());
    assert_eq!(
        read(&found[0])
            .iter()
            .map(|record| record.offset)
            .collect::<Vec<_>>(),
        (10..30).collect::<Vec<_>>()
    );
    let rebuilt = rebuild(&found[0], LIMIT, |_| true).unwrap().unwrap();
    assert!(split_for_replay(&rebuilt, Producer::NONE).is_ok());
    assert_eq!(read(&rebuilt).len(), 20);
    assert_eq!(
        timestamp_range(&rebuilt, LIMIT),
        timestamp_range(&found[0], LIMIT)
    );
    // The tombstone: where others have the base timestamp stands the delete horizon, and the delta makes up for it.
    let tombstone = &found[2];
    assert!(tombstone.header().has_delete_horizon());
    assert_eq!(read(tombstone)[0].value, None);
    let range = timestamp_range(tombstone, LIMIT).unwrap();
    assert_eq!(range.max, tombstone.header().max_timestamp);
    assert!(tombstone.header().base_timestamp > range.max);
    let replayed = split_for_replay(tombstone, Producer::NONE).unwrap().to_bytes();
    let replayed = BatchView::parse(&replayed).unwrap();
    assert!(!replayed.header().has_delete_horizon());
    assert_eq!(timestamp_range(&replayed, LIMIT), Ok(range));
}
