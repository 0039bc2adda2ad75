#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::Compression;
use crate::records::{BatchBuilder, timestamp_range};

fn sample(compression: Compression, records: usize) -> BatchView {
    let mut builder = BatchBuilder::new(compression);
    for number in 0..records {
        let value = format!("value {number}");
        builder
            .push(1_000 + number as i64, Some(b"key"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.build().unwrap().unwrap()
}

/// The same batch with other header fields and a checksum that fits them.
fn with_header(batch: &BatchView, change: impl FnOnce(&mut BatchHeader)) -> BatchView {
    let mut header = *batch.header();
    change(&mut header);
    header.crc = crc32c::crc32c_append(header.content_crc(), &batch.payload());
    let bytes = [&header.to_bytes()[..], &batch.payload()[..]].concat();
    BatchView::parse(&bytes.into()).unwrap()
}

fn recomputed(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[21..])
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        let noise = Bytes::from(noise);
        let _ = BatchHeader::parse(&noise);
        for batch in batches(&noise).chain(fetched_batches(&noise)) {
            let _ = batch;
        }
        let mut copy = noise.to_vec();
        let _ = set_base_offset_and_epoch(&mut copy, 1, 1);
        let _ = as_log_append_time(&mut copy, 1);
        let _ = reset_for_replay(&mut copy, Producer::NONE);
    }

    #[test]
    fn a_batch_with_any_header_never_panics(mut head in proptest::array::uniform32(any::<u8>()), tail in any::<[u8; 29]>()) {
        head[16] = 2;
        head[8..12].copy_from_slice(&49i32.to_be_bytes());
        let bytes = Bytes::from([&head[..], &tail[..]].concat());
        for batch in batches(&bytes).flatten() {
            let _ = control_marker(&batch);
            let _ = timestamp_range(&batch, 1 << 16);
            let _ = batch.header().last_sequence();
            let _ = batch.header().next_offset();
            let _ = split_for_replay(&batch, Producer::NONE);
        }
    }

    #[test]
    fn a_header_survives_writing_and_reading(
        base_offset in 0..i64::MAX / 2, epoch: i32, crc: u32, attributes: i16, delta in 0..i32::MAX,
        base_timestamp: i64, max_timestamp: i64, producer_id: i64, producer_epoch: i16, sequence: i32,
        count in 0..i32::MAX, length in 49..i32::MAX,
    ) {
        let header = BatchHeader {
            base_offset, batch_length: length, partition_leader_epoch: epoch, crc, attributes,
            last_offset_delta: delta, base_timestamp, max_timestamp, producer_id, producer_epoch,
            base_sequence: sequence, record_count: count,
        };
        prop_assert_eq!(BatchHeader::parse(&header.to_bytes()), Ok(header));
    }

    #[test]
    fn checksums_by_difference_are_those_of_the_bytes(
        records in 1usize..50, pid in 0i64.., epoch in 0i16.., sequence in 0i32.., time: i64,
    ) {
        for compression in Compression::ALL {
            let batch = sample(compression, records);
            let mut bytes = batch.bytes().to_vec();
            as_log_append_time(&mut bytes, time).unwrap();
            let stored = BatchView::parse(&bytes.clone().into()).unwrap();
            prop_assert!(stored.verify_crc().is_ok());
            prop_assert_eq!(stored.header().crc, recomputed(&bytes));
            prop_assert!(stored.header().is_log_append_time());
            prop_assert_eq!(stored.header().max_timestamp, time);

            let producer = Producer { id: pid, epoch, base_sequence: sequence };
            reset_for_replay(&mut bytes, producer).unwrap();
            let replayed = BatchView::parse(&bytes.clone().into()).unwrap();
            prop_assert!(replayed.verify_crc().is_ok());
            prop_assert_eq!(replayed.header().attributes, compression.id());
            prop_assert_eq!(split_for_replay(&stored, producer).unwrap().to_bytes(), bytes);
        }
    }
}

#[test]
fn a_run_is_walked_to_its_end() {
    let one = sample(Compression::None, 3);
    let two = sample(Compression::Zstd, 5);
    let run = Bytes::from([&one.bytes()[..], &two.bytes()[..]].concat());
    let found: Vec<_> = batches(&run).collect::<Result<_, _>>().unwrap();
    assert_eq!(found, [one, two]);
}

#[test]
fn a_partial_tail_is_tolerated_only_where_asked() {
    let batch = sample(Compression::Lz4, 5);
    let length = batch.bytes().len();
    for cut in [1, 12, 16, 17, 60, 61, length - 1] {
        let run = Bytes::from([&batch.bytes()[..], &batch.bytes()[..cut]].concat());
        let strict: Vec<_> = batches(&run).collect();
        assert_eq!(strict.len(), 2, "cut at {cut}");
        assert!(
            matches!(strict[1], Err(BatchError::Incomplete { .. })),
            "cut at {cut}"
        );
        let lenient: Vec<_> = fetched_batches(&run).collect::<Result<_, _>>().unwrap();
        assert_eq!(lenient, std::slice::from_ref(&batch), "cut at {cut}");
    }
}

#[test]
fn old_message_formats_are_named_not_guessed() {
    // An old message may be shorter than a batch header; the magic byte stands at the same place.
    let mut old = vec![0u8; 30];
    old[16] = 1;
    assert_eq!(
        BatchHeader::parse(&old),
        Err(BatchError::UnsupportedMagic { magic: 1 })
    );
    let lenient: Vec<_> = fetched_batches(&old.into()).collect();
    assert_eq!(lenient, [Err(BatchError::UnsupportedMagic { magic: 1 })]);
}

#[test]
fn impossible_headers_are_refused() {
    let good = *sample(Compression::None, 1).header();
    let refused = |change: fn(&mut BatchHeader)| {
        let mut header = good;
        change(&mut header);
        matches!(
            BatchHeader::parse(&header.to_bytes()),
            Err(BatchError::InvalidField { .. })
        )
    };
    assert!(refused(|header| header.batch_length = 48));
    assert!(refused(|header| header.batch_length = -1));
    assert!(refused(|header| header.base_offset = -1));
    assert!(refused(|header| header.last_offset_delta = -1));
    assert!(refused(|header| header.record_count = -1));
    assert!(refused(|header| header.base_offset = i64::MAX));
    assert!(!refused(|header| header.base_offset = i64::MAX - 1));
}

#[test]
fn what_the_broker_sets_is_outside_the_checksum() {
    let batch = sample(Compression::Gzip, 4);
    let mut bytes = batch.bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, 1_234_567, 42).unwrap();
    let stored = BatchView::parse(&bytes.into()).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.header().base_offset, 1_234_567);
    assert_eq!(stored.header().last_offset(), 1_234_570);
    assert_eq!(stored.header().partition_leader_epoch, 42);
    assert_eq!(stored.payload(), batch.payload());
}

#[test]
fn damage_done_before_an_edit_still_shows_after_it() {
    let mut bytes = sample(Compression::None, 4).bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    as_log_append_time(&mut bytes, 5).unwrap();
    reset_for_replay(
        &mut bytes,
        Producer {
            id: 1,
            epoch: 0,
            base_sequence: 0,
        },
    )
    .unwrap();
    let batch = BatchView::parse(&bytes.into()).unwrap();
    assert!(matches!(
        batch.verify_crc(),
        Err(BatchError::ChecksumMismatch { .. })
    ));
}

#[test]
fn attributes_are_normalised_as_a_broker_does() {
    let batch = with_header(&sample(Compression::Zstd, 2), |header| {
        header.attributes |= 0x4090
    });
    let mut bytes = batch.bytes().to_vec();
    as_log_append_time(&mut bytes, 77).unwrap();
    let stored = BatchView::parse(&bytes.clone().into()).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.header().attributes, 0x10 | 0x08 | 4);
    // And back: the other topic type clears the bit and corrects the maximum.
    as_create_time(&mut bytes, 1_001).unwrap();
    let stored = BatchView::parse(&bytes.into()).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(
        (stored.header().attributes, stored.header().max_timestamp),
        (0x10 | 4, 1_001)
    );
    // Nothing to correct: unknown bits stay, as they do on the broker.
    let mut bytes = batch.bytes().to_vec();
    as_create_time(&mut bytes, batch.header().max_timestamp).unwrap();
    assert_eq!(bytes, *batch.bytes());
}

#[test]
fn what_no_broker_would_take_is_not_replayed() {
    let batch = sample(Compression::None, 3);
    let producer = Producer {
        id: 9,
        epoch: 0,
        base_sequence: 0,
    };
    let refused = |batch: &BatchView| {
        matches!(
            split_for_replay(batch, producer),
            Err(BatchError::NotReplayable { .. })
        )
    };
    assert!(!refused(&batch));
    assert!(refused(&with_header(&batch, |header| header.attributes |= 0x20)));
    assert!(refused(
        &with_header(&batch, |header| header.last_offset_delta = 3)
    ));
    assert!(refused(&with_header(&batch, |header| header.record_count = 0)));
    let without_sequence = Producer {
        base_sequence: -1,
        ..producer
    };
    assert!(split_for_replay(&batch, without_sequence).is_err());
    assert!(split_for_replay(&batch, Producer::NONE).is_ok());
}

#[test]
fn an_edit_needs_exactly_one_batch() {
    let batch = sample(Compression::None, 1);
    let mut short = batch.bytes()[..batch.bytes().len() - 1].to_vec();
    assert!(matches!(
        as_log_append_time(&mut short, 1),
        Err(BatchError::Incomplete { .. })
    ));
    let mut long = [&batch.bytes()[..], b"x"].concat();
    assert!(reset_for_replay(&mut long, Producer::NONE).is_err());
}

#[test]
fn sequences_wrap_as_kafkas_do() {
    let mut header = *sample(Compression::None, 3).header();
    header.base_sequence = i32::MAX - 1;
    assert_eq!(header.last_sequence(), 0);
    header.base_sequence = 5;
    assert_eq!(header.last_sequence(), 7);
    header.base_sequence = -1;
    assert_eq!(header.last_sequence(), -1);
}

/// A marker as a coordinator writes it: key (version, type), value (version, coordinator epoch).
fn marker(kind: i16, producer_epoch: i16) -> BatchView {
    let key = [0i16.to_be_bytes(), kind.to_be_bytes()].concat();
    let batch = BatchBuilder::single(99, Some(&key), Some(&[0, 0, 0, 0, 0, 1])).unwrap();
    with_header(&batch, |header| {
        header.base_offset = 7;
        header.attributes = 0x30;
        header.producer_id = 1000;
        header.producer_epoch = producer_epoch;
    })
}

#[test]
fn markers_are_read() {
    let found = control_marker(&marker(1, 3)).unwrap().unwrap();
    let expected = ControlMarker {
        offset: 7,
        producer_id: 1000,
        producer_epoch: 3,
        kind: ControlKind::Commit,
        timestamp: 99,
    };
    assert_eq!(found, expected);
    assert_eq!(
        control_marker(&marker(0, 3)).unwrap().unwrap().kind,
        ControlKind::Abort
    );
    assert_eq!(
        control_marker(&marker(2, 3)).unwrap().unwrap().kind,
        ControlKind::Other(2)
    );
    assert_eq!(control_marker(&sample(Compression::None, 1)).unwrap(), None);
}

#[test]
fn a_control_batch_without_a_proper_key_is_malformed() {
    let batch = BatchBuilder::single(1, Some(&[0, 0, 0]), None).unwrap();
    let batch = with_header(&batch, |header| header.attributes = 0x20);
    assert!(matches!(
        control_marker(&batch),
        Err(BatchError::MalformedRecord { .. })
    ));
}

#[test]
fn a_marker_ends_transactions_of_its_epoch_and_of_the_one_before() {
    let commit = control_marker(&marker(1, 3)).unwrap().unwrap();
    assert!(commit.ends(1000, 3), "the first protocol repeats the epoch");
    assert!(commit.ends(1000, 2), "the second counts it up");
    assert!(!commit.ends(1000, 4), "a later epoch has its own marker");
    assert!(!commit.ends(1001, 3));
    assert!(!control_marker(&marker(5, 3)).unwrap().unwrap().ends(1000, 3));
}
