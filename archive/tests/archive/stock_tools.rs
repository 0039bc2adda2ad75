//! Nothing proprietary in the bucket: the stock tool of the codec unpacks a segment to a Kafka log.

use crate::samples::{batch, identity, meta, sample_segment};
use bytes::BytesMut;
use std::io::Write;
use std::process::Command;
use teeline_archive::segment::{Codec, Origin, SegmentBuilder};

/// Runs a tool on an object; `None` when it is not installed.
fn unpack(tool: &str, extension: &str, object: &[u8]) -> Option<(bool, Vec<u8>)> {
    if Command::new(tool).arg("--version").output().is_err() {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {tool} is not installed, so nothing was compared with it"
        );
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(format!("segment{extension}"));
    std::fs::write(&path, object).unwrap();
    let test = Command::new(tool).arg("-t").arg(&path).output().unwrap();
    let output = Command::new(tool).args(["-d", "-c"]).arg(&path).output().unwrap();
    Some((test.status.success() && output.status.success(), output.stdout))
}

#[test]
fn the_stock_tools_unpack_a_segment_to_a_kafka_log() {
    for (codec, tool) in [(Codec::Zstd, "zstd"), (Codec::Lz4, "lz4")] {
        let (object, _, _, log) = sample_segment(codec);
        if let Some((success, content)) = unpack(tool, codec.extension(), &object) {
            assert!(success && content == log, "{tool}");
        }
    }
    let (object, _, _, log) = sample_segment(Codec::None);
    assert_eq!(object, log);
}

#[test]
fn the_stock_tools_unpack_blocks_of_megabytes_and_those_that_do_not_shrink() {
    for (codec, tool) in [(Codec::Zstd, "zstd"), (Codec::Lz4, "lz4")] {
        let mut builder = SegmentBuilder::new(identity(Origin::Tee), codec, 1, 1 << 20).unwrap();
        let (mut object, mut log, mut noise) = (BytesMut::new(), Vec::new(), 1u64);
        for base in 0..6 {
            let content: Vec<u8> = (0..700_000)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if base % 2 == 0 { (noise >> 56) as u8 } else { b'x' }
                })
                .collect();
            let bytes = batch(base, 1, &content);
            builder.push(&bytes, meta(base, 1)).unwrap();
            object.extend_from_slice(&builder.drain_output());
            log.extend_from_slice(&bytes);
        }
        object.extend_from_slice(&builder.finish().unwrap().tail);
        if let Some((success, content)) = unpack(tool, codec.extension(), &object) {
            assert!(success && content == log, "{tool}");
        }
    }
}

#[test]
fn the_stock_tools_notice_a_changed_block_without_our_footer() {
    for (codec, tool) in [(Codec::Zstd, "zstd"), (Codec::Lz4, "lz4")] {
        let (object, ..) = sample_segment(codec);
        let mut bad = object.to_vec();
        bad[60] ^= 1;
        if let Some((success, _)) = unpack(tool, codec.extension(), &bad) {
            assert!(!success, "{tool}");
        }
    }
}
