use crate::samples::{batch, identity, meta, notes, sample_segment};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use teeline_archive::names::parse_segment_key;
use teeline_archive::segment::{
    BatchKind, BatchMeta, Codec, FOOTER_TRAILER_BYTES, Footer, Location, Marker, Origin, SegmentBuilder,
    SegmentError, SegmentNotes, SegmentReader, batches,
};
use teeline_archive::{OffsetRange, segment::MarkerEntry};

/// Opens and verifies every byte, as a restore does before the first record is produced.
fn verified(object: &Bytes, sidecar: Option<&[u8]>) -> Result<Vec<u8>, SegmentError> {
    let reader = SegmentReader::open(object, sidecar)?;
    let mut log = Vec::new();
    for block in &reader.footer().blocks {
        log.extend_from_slice(&reader.block_of(object, block)?);
    }
    Ok(log)
}

#[test]
fn every_codec_gives_back_the_same_kafka_log() {
    for codec in Codec::ALL {
        let (object, sidecar, info, log) = sample_segment(codec);
        assert_eq!(verified(&object, sidecar.as_deref()).unwrap(), log, "{codec}");
        assert_eq!(info.object_bytes, object.len() as u64);
        assert_eq!(sidecar.is_some(), codec == Codec::None);
        assert_eq!(
            parse_segment_key(&info.key).unwrap(),
            info.identity.name(100, codec)
        );
    }
}

#[test]
fn the_footer_says_what_the_segment_holds_and_rebuilds_its_ledger_entry() {
    for codec in Codec::ALL {
        let (object, sidecar, info, log) = sample_segment(codec);
        let holder = sidecar.as_ref().unwrap_or(&object);
        let Location::Located { range } = Footer::locate(holder, holder.len() as u64).unwrap() else {
            panic!("the whole object was given")
        };
        let footer = Footer::decode(&holder[range.clone()]).unwrap();
        assert_eq!((footer.start_offset, footer.end_offset), (100, 113));
        assert_eq!(
            footer.gaps,
            [OffsetRange {
                first: 106,
                last: 109
            }]
        );
        assert_eq!((footer.record_count, footer.batch_count), (9, 5));
        assert_eq!((footer.control_count, footer.transactional_count), (1, 2));
        assert_eq!(footer.epochs, [(5, 100), (6, 105)]);
        let marker = MarkerEntry {
            offset: 105,
            producer_id: 4000,
            producer_epoch: 1,
            commit: true,
        };
        assert_eq!(footer.markers, [marker]);
        assert!(footer.transactional() && footer.blocks.len() > 1);
        assert_eq!(footer.uncompressed_bytes, log.len() as u64);
        assert_eq!(footer.notes, notes());
        assert_eq!(footer.info(&holder[range]).unwrap(), info);
        assert_eq!(
            footer.encode().unwrap(),
            holder[holder.len() - footer.encode().unwrap().len()..]
        );
    }
}

/// Requirement A6: every stored byte is covered; flipping any bit of block, skippable header, footer or trailer is
/// noticed.
#[test]
fn any_flipped_bit_of_an_object_is_noticed() {
    for codec in Codec::ALL {
        let (object, sidecar, ..) = sample_segment(codec);
        for bit in 0..object.len() * 8 {
            let mut bad = object.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = verified(&bad.into(), sidecar.as_deref()).expect_err("noticed");
            assert!(
                error.is_damage() || matches!(error, SegmentError::Version { .. }),
                "{codec} bit {bit}: {error:?}"
            );
        }
        let Some(sidecar) = sidecar else { continue };
        for bit in 0..sidecar.len() * 8 {
            let mut bad = sidecar.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verified(&object, Some(&bad)).is_err(), "{codec} index bit {bit}");
        }
    }
}

#[test]
fn an_object_cut_at_any_byte_or_with_bytes_behind_it_is_refused() {
    for codec in Codec::ALL {
        let (object, sidecar, ..) = sample_segment(codec);
        for len in 0..object.len() {
            assert!(
                verified(&object.slice(..len), sidecar.as_deref()).is_err(),
                "{codec} {len}"
            );
        }
        let longer: Bytes = [&object[..], b"x"].concat().into();
        assert!(verified(&longer, sidecar.as_deref()).is_err());
        // Leading bytes would shift every block.
        let shifted: Bytes = [b"x", &object[..]].concat().into();
        assert!(verified(&shifted, sidecar.as_deref()).is_err());
        let Some(sidecar) = sidecar else { continue };
        for len in 0..sidecar.len() {
            assert!(verified(&object, Some(&sidecar[..len])).is_err(), "{codec} {len}");
        }
    }
}

#[test]
fn a_reader_with_only_the_tail_is_told_how_much_more_to_read() {
    let (object, ..) = sample_segment(Codec::Zstd);
    let len = object.len() as u64;
    let tail = |bytes: usize| &object[object.len() - bytes..];
    let least = FOOTER_TRAILER_BYTES as u64;
    assert_eq!(
        Footer::locate(tail(10), len).unwrap(),
        Location::NeedMore { bytes: least }
    );
    let Location::NeedMore { bytes } = Footer::locate(tail(FOOTER_TRAILER_BYTES), len).unwrap() else {
        panic!("the trailer is not the footer")
    };
    let more = tail(bytes as usize);
    assert_eq!(
        Footer::locate(more, len).unwrap(),
        Location::Located {
            range: 0..bytes as usize
        }
    );
    assert!(Footer::decode(more).is_ok());
    assert!(matches!(
        Footer::locate(tail(200), len - 1),
        Err(SegmentError::Corrupt { .. })
    ));
}

#[test]
fn blocks_are_found_by_offset_and_by_time() {
    let mut builder = SegmentBuilder::new(identity(Origin::Fetch), Codec::Lz4, 0, 1).unwrap();
    for (base, timestamp) in [(0, 500), (10, 100), (20, 300)] {
        let meta = BatchMeta {
            timestamp_min: timestamp,
            timestamp_max: timestamp + 50,
            ..meta(base, 5)
        };
        builder.push(&batch(base, 5, b"r"), meta).unwrap();
    }
    assert_eq!(builder.range(), OffsetRange::new(0, 24));
    let object = builder.finish().unwrap().tail;
    let reader = SegmentReader::open(&object, None).unwrap();
    let firsts = |first, last| -> Vec<i64> {
        reader
            .blocks_by_offset(first, last)
            .iter()
            .map(|block| block.first_offset)
            .collect()
    };
    assert_eq!(firsts(4, 10), [0, 10]);
    assert_eq!(firsts(5, 9), Vec::<i64>::new());
    assert_eq!(firsts(24, 99), [20]);
    let window = |from, until| -> Vec<i64> {
        reader
            .blocks_by_time(from, until)
            .map(|block| block.first_offset)
            .collect()
    };
    assert_eq!(window(150, 301), [10, 20]);
    assert_eq!(window(551, 900), Vec::<i64>::new());
    // The first batch is the latest: minimum and maximum are true, not those of the ends.
    assert_eq!(
        (reader.footer().timestamp_min, reader.footer().timestamp_max),
        (100, 550)
    );
    // A fetched segment vouches for what it spans.
    assert_eq!(reader.footer().gaps, []);
}

#[test]
fn a_record_without_a_timestamp_shows_in_the_minimum() {
    let mut builder = SegmentBuilder::new(identity(Origin::Tee), Codec::None, 0, 1 << 20).unwrap();
    builder.push(&batch(0, 1, b"a"), meta(0, 1)).unwrap();
    let bare = BatchMeta {
        timestamp_min: -1,
        timestamp_max: -1,
        ..meta(1, 1)
    };
    builder.push(&batch(1, 1, b"b"), bare).unwrap();
    assert_eq!(builder.finish().unwrap().info.timestamp_min, -1);
}

#[test]
fn a_batch_that_is_not_what_is_said_about_it_is_refused_and_changes_nothing() {
    let mut builder = SegmentBuilder::new(identity(Origin::Tee), Codec::Zstd, 1, 1 << 20).unwrap();
    let good = batch(10, 2, b"xy");
    builder.push(&good, meta(10, 2)).unwrap();
    let mut refused = |bytes: &[u8], meta: BatchMeta| {
        let result = builder.push(bytes, meta);
        assert!(matches!(result, Err(SegmentError::Batch { .. })), "{result:?}");
    };
    refused(b"", meta(12, 1));
    refused(&good[..60], meta(12, 2));
    refused(&good, meta(12, 2));
    refused(&good, meta(10, 2));
    refused(&batch(12, 2, b"xy"), meta(12, 3));
    refused(&[&batch(12, 1, b"")[..], b"trailing"].concat(), meta(12, 1));
    let mut old = batch(12, 1, b"");
    old[16] = 1;
    refused(&old, meta(12, 1));
    let finished = builder.finish().unwrap();
    assert_eq!(verified(&finished.tail, None).unwrap(), good);
}

#[test]
fn a_fetched_segment_lists_the_gaps_that_it_leaves_to_others() {
    let fetched = |gaps: Vec<OffsetRange>| {
        let mut builder = SegmentBuilder::new(identity(Origin::Fetch), Codec::Zstd, 3, 64).unwrap();
        for base in [10, 20, 30] {
            builder.push(&batch(base, 2, b"content"), meta(base, 2)).unwrap();
        }
        builder.set_notes(SegmentNotes {
            gaps,
            ..SegmentNotes::default()
        });
        builder.finish()
    };
    let range = |first, last| OffsetRange { first, last };
    let none = fetched(vec![]).unwrap();
    assert_eq!(none.info.gaps, [], "what is missing in it was missing in the log");
    // In any order, touching or not.
    let finished = fetched(vec![range(22, 25), range(12, 19), range(26, 29)]).unwrap();
    assert_eq!(finished.info.gaps, [range(12, 19), range(22, 29)]);
    let footer = Footer::of_object(&finished.tail).unwrap();
    assert_eq!(footer.gaps, finished.info.gaps);
    for wrong in [
        range(0, 5),
        range(9, 12),
        range(12, 20),
        range(21, 22),
        range(32, 40),
        range(12, 29),
    ] {
        let refused = fetched(vec![wrong]);
        assert!(
            matches!(refused, Err(SegmentError::Gap { gap }) if gap == wrong),
            "{wrong}"
        );
    }
}

#[test]
fn names_that_cannot_be_keys_are_refused_before_any_byte_is_written() {
    for (backup, topic, partition) in [("../up", "t", 0), ("b", "a/b", 0), ("b", "t", -1)] {
        let mut identity = identity(Origin::Tee);
        (identity.backup_id, identity.topic, identity.partition) = (backup.into(), topic.into(), partition);
        assert!(matches!(
            SegmentBuilder::new(identity, Codec::Zstd, 3, 1),
            Err(SegmentError::Name(_))
        ));
    }
    let empty = SegmentBuilder::new(identity(Origin::Tee), Codec::Zstd, 3, 1).unwrap();
    assert!(empty.key().is_none());
    assert!(matches!(empty.finish(), Err(SegmentError::Empty)));
}

#[test]
fn output_is_ready_block_by_block() {
    let mut builder = SegmentBuilder::new(identity(Origin::Tee), Codec::None, 0, 1000).unwrap();
    builder.push(&batch(0, 1, &[1; 400]), meta(0, 1)).unwrap();
    assert!(builder.drain_output().is_empty());
    assert!(builder.key().is_some_and(|key| key.ends_with(".log")));
    builder.push(&batch(1, 1, &[2; 700]), meta(1, 1)).unwrap();
    assert_eq!(
        builder.drain_output().len(),
        461,
        "a batch that does not fit closes the block before it"
    );
    builder.push(&batch(2, 1, &[3; 5000]), meta(2, 1)).unwrap();
    assert_eq!(
        builder.drain_output().len(),
        761 + 5061,
        "a batch as long as a block is a block"
    );
    let finished = builder.finish().unwrap();
    assert!(finished.tail.is_empty());
    let footer = Footer::of_object(&finished.sidecar.unwrap()).unwrap();
    assert_eq!(footer.blocks.len(), 3);
}

#[test]
fn content_longer_or_shorter_than_its_index_says_is_refused() {
    for codec in Codec::ALL {
        let (object, sidecar, ..) = sample_segment(codec);
        let reader = SegmentReader::open(&object, sidecar.as_deref()).unwrap();
        for wrong in [-1i64, 1] {
            let mut block = reader.footer().blocks[0].clone();
            block.uncompressed_len = (i64::from(block.uncompressed_len) + wrong) as u32;
            assert!(reader.block_of(&object, &block).is_err(), "{codec} {wrong}");
        }
        let mut block = reader.footer().blocks[0].clone();
        block.last_offset += 1;
        assert!(matches!(
            reader.block_of(&object, &block),
            Err(SegmentError::Corrupt { .. })
        ));
    }
}

#[derive(Clone, Debug)]
struct Push {
    skip: u8,
    records: u32,
    content: Vec<u8>,
    kind: BatchKind,
}

fn pushes() -> impl Strategy<Value = Vec<Push>> {
    let kind = prop_oneof![
        Just(BatchKind::Data),
        Just(BatchKind::TransactionalData),
        any::<bool>().prop_map(|commit| BatchKind::Control(Marker { commit })),
    ];
    let push = (0u8..3, 1u32..5, prop::collection::vec(any::<u8>(), 0..300), kind).prop_map(
        |(skip, records, content, kind)| Push {
            skip,
            records,
            content,
            kind,
        },
    );
    prop::collection::vec(push, 1..30)
}

proptest! {
    #[test]
    fn whatever_is_pushed_comes_back(
        pushes in pushes(),
        codec in prop::sample::select(Codec::ALL.to_vec()),
        block_bytes in 1usize..2000,
        level in -3i32..6,
    ) {
        let mut builder = SegmentBuilder::new(identity(Origin::Tee), codec, level, block_bytes).unwrap();
        let (mut object, mut log, mut next) = (BytesMut::new(), Vec::new(), 50i64);
        let mut sent = Vec::new();
        for push in &pushes {
            let base = next + i64::from(push.skip);
            let bytes = batch(base, push.records, &push.content);
            builder.push(&bytes, BatchMeta { kind: push.kind, ..meta(base, push.records) }).unwrap();
            object.extend_from_slice(&builder.drain_output());
            log.extend_from_slice(&bytes);
            sent.push(bytes);
            next = base + i64::from(push.records);
        }
        let finished = builder.finish().unwrap();
        object.extend_from_slice(&finished.tail);
        let object = object.freeze();
        prop_assert_eq!(&verified(&object, finished.sidecar.as_deref()).unwrap(), &log);
        let cut: Vec<Bytes> = batches(&log.into()).collect();
        prop_assert_eq!(cut, sent);
        let skipped: u64 = pushes.iter().skip(1).map(|push| u64::from(push.skip)).sum();
        prop_assert_eq!(finished.info.gaps.iter().map(OffsetRange::span).sum::<u64>(), skipped);
        prop_assert_eq!(finished.info.end_offset, next - 1);
    }

    #[test]
    fn random_damage_is_noticed_and_never_panics(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (object, sidecar, _, log) = sample_segment(codec);
        let mut bad = object.to_vec();
        for (index, byte) in hits {
            let at = index.index(bad.len());
            bad[at] = byte;
        }
        let result = verified(&Bytes::from(bad.clone()), sidecar.as_deref());
        if bad == object { prop_assert_eq!(result.unwrap(), log); } else { prop_assert!(result.is_err()); }
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), len: u64) {
        let _ = Footer::locate(&bytes, len);
        let _ = Footer::decode(&bytes);
        let _ = Footer::of_object(&bytes);
    }
}
