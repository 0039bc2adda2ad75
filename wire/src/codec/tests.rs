#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

proptest! {
    #[test]
    fn every_codec_gives_back_what_it_took(content in proptest::collection::vec(any::<u8>(), 0..200_000)) {
        let content = Bytes::from(content);
        for codec in Compression::ALL {
            let compressed = compress(codec, &content).unwrap();
            prop_assert_eq!(&decompress(codec, &compressed, LIMIT).unwrap(), &content, "{:?}", codec);
        }
    }

    #[test]
    fn room_that_was_used_before_makes_no_difference(
        contents in proptest::collection::vec(proptest::collection::vec(0u8..9, 0..60_000), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut room = Vec::new();
        for content in contents {
            let content = Bytes::from(content);
            for codec in Compression::ALL {
                let compressed = compress(codec, &content).unwrap();
                let within = decompress_within(codec, &compressed, LIMIT, &mut room).unwrap();
                prop_assert_eq!(within, &content[..], "{:?}", codec);
                let damaged = compressed.slice(..cut.index(compressed.len() + 1));
                let alone = decompress(codec, &damaged, 50_000);
                let within = decompress_within(codec, &damaged, 50_000, &mut room);
                prop_assert_eq!(within.map(Bytes::copy_from_slice), alone, "{:?}", codec);
            }
        }
    }

    #[test]
    fn damaged_input_is_an_error_or_bounded_output_but_never_a_panic(
        content in proptest::collection::vec(0u8..4, 1..5_000),
        at in any::<proptest::sample::Index>(),
        flip in 1u8..,
    ) {
        let content = Bytes::from(content);
        for codec in Compression::ALL {
            let mut compressed = compress(codec, &content).unwrap().to_vec();
            let at = at.index(compressed.len());
            compressed[at] ^= flip;
            if let Ok(output) = decompress(codec, &compressed.into(), LIMIT) {
                prop_assert!(output.len() <= LIMIT);
            }
        }
    }

    #[test]
    fn noise_is_an_error_or_bounded_output_but_never_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let noise = Bytes::from(noise);
        for codec in Compression::ALL {
            if let Ok(output) = decompress(codec, &noise, LIMIT) {
                prop_assert!(output.len() <= LIMIT);
            }
        }
    }
}

#[test]
fn input_that_is_cut_short_is_an_error_for_every_codec_that_can_tell() {
    let content = Bytes::from((0..50_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let compressed = compress(codec, &content).unwrap();
        for cut in [
            1,
            2,
            compressed.len() / 2,
            compressed.len() - 5,
            compressed.len() - 1,
        ] {
            let outcome = decompress(codec, &compressed.slice(..cut), LIMIT);
            let length = outcome.as_ref().map(Bytes::len);
            assert!(
                matches!(outcome, Err(CodecError::Damaged { .. })),
                "{codec:?} cut to {cut} of {}: {length:?}",
                compressed.len()
            );
        }
    }
}

#[test]
fn a_decompression_bomb_is_refused_and_exactly_the_limit_is_not() {
    let content = Bytes::from(vec![0; 3 * LIMIT]);
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let compressed = compress(codec, &content).unwrap();
        assert_eq!(
            decompress(codec, &compressed, LIMIT),
            Err(CodecError::TooLarge { codec, limit: LIMIT }),
            "{codec:?}"
        );
        let one_short = content.len() - 1;
        assert!(matches!(
            decompress(codec, &compressed, one_short),
            Err(CodecError::TooLarge { .. })
        ));
        assert_eq!(
            decompress(codec, &compressed, content.len()).unwrap().len(),
            content.len()
        );
    }
}

#[test]
fn a_snappy_block_that_lies_about_its_length_allocates_nothing() {
    // A bare block that announces 4 GiB.
    let lie = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x01]);
    assert!(matches!(
        decompress(Compression::Snappy, &lie, LIMIT),
        Err(CodecError::TooLarge { .. })
    ));
}

#[test]
fn bare_snappy_and_concatenated_framings_are_read() {
    let content = b"some words, some words, some words".as_slice();
    let bare = Bytes::from(snap::raw::Encoder::new().compress_vec(content).unwrap());
    assert_eq!(decompress(Compression::Snappy, &bare, LIMIT).unwrap(), content);
    let framed = compress(Compression::Snappy, &Bytes::from_static(content)).unwrap();
    let twice = Bytes::from([&framed[..], &framed[..]].concat());
    assert_eq!(
        decompress(Compression::Snappy, &twice, LIMIT).unwrap(),
        content.repeat(2)
    );
}

#[test]
fn several_frames_in_a_row_are_one_content() {
    let content = Bytes::from_static(b"again and ");
    // Kafka's own LZ4 decoder stops after the first frame, so there it does not matter.
    for codec in [Compression::Gzip, Compression::Zstd] {
        let frame = compress(codec, &content).unwrap();
        let twice = Bytes::from([&frame[..], &frame[..]].concat());
        assert_eq!(
            decompress(codec, &twice, LIMIT).unwrap(),
            b"again and again and ".as_slice(),
            "{codec:?}"
        );
    }
}

#[test]
fn numbers_and_codecs_belong_together() {
    for codec in Compression::ALL {
        assert_eq!(Compression::from_id(codec.id()), Some(codec));
    }
    assert_eq!(Compression::from_id(5), None);
    assert_eq!(Compression::from_id(-1), None);
}
