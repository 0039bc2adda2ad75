//! Golden files: what a released version wrote is read by every later one.
//!
//! The files are added to, never edited. The ignored test writes those that are missing:
//! `cargo test -p teeline-archive --test archive golden::write -- --ignored`.

use crate::samples::{
    EPOCH_MS, SESSION, WRITER, encode_frames, identity, sample_audit_commit, sample_commit, sample_frames,
    sample_segment,
};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use teeline_archive::buffer::recovery::recover_bytes;
use teeline_archive::buffer::{
    Archived, BufferIdentity, FILE_HEADER_BYTES, FileHeader, Positions, SessionMark, decode_frame,
};
use teeline_archive::ledger::{Commit, LedgerState};
use teeline_archive::manifest::Manifest;
use teeline_archive::segment::{BlockEntry, Codec, Footer, Origin, SegmentReader};
use teeline_archive::{BufferPosition, Lsn};
use uuid::Uuid;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

pub(crate) fn golden(name: &str) -> Bytes {
    let path = directory().join(name);
    Bytes::from(std::fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())))
}

fn header() -> FileHeader {
    FileHeader {
        buffer_id: Uuid::from_u128(0xb0ffe6),
        session: SESSION,
        file_number: 1,
        first_lsn: Lsn(1),
        created_at_ms: EPOCH_MS,
    }
}

fn positions() -> Positions {
    let at = |lsn| BufferPosition::new(SESSION, Lsn(lsn));
    Positions {
        written: at(9),
        synced: at(8),
        file_number: 1,
        file_bytes: 900,
        closed: false,
    }
}

fn buffer_identity() -> BufferIdentity {
    BufferIdentity {
        buffer_id: header().buffer_id,
        writer: WRITER,
    }
}

fn manifest() -> Manifest {
    let mut state = LedgerState::new();
    state.apply(&sample_commit()).unwrap();
    Manifest::from_ledger(&state, EPOCH_MS + 90_000)
}

/// What today's code writes.
fn today() -> Vec<(&'static str, Vec<u8>)> {
    let mut buffer = header().encode().to_vec();
    buffer.extend_from_slice(&encode_frames(&sample_frames(), SESSION, Lsn(1)));
    let (zstd, _, _, _) = sample_segment(Codec::Zstd);
    let (lz4, _, _, _) = sample_segment(Codec::Lz4);
    let (none, index, _, _) = sample_segment(Codec::None);
    vec![
        ("00000000000000000001.wal", buffer),
        ("buffer.id", buffer_identity().encode().to_vec()),
        ("session", SessionMark { session: SESSION }.encode().to_vec()),
        ("positions", positions().encode().to_vec()),
        (
            "archived",
            Archived {
                position: positions().synced,
            }
            .encode()
            .to_vec(),
        ),
        ("segment.zst", zstd.to_vec()),
        ("segment.lz4", lz4.to_vec()),
        ("segment.log", none.to_vec()),
        ("segment.log.idx", index.unwrap().to_vec()),
        (
            "00000000000000000001.commit",
            sample_commit().encode().unwrap().to_vec(),
        ),
        ("audit.commit", sample_audit_commit().encode().unwrap().to_vec()),
        ("manifest.json", manifest().to_json().unwrap().into_bytes()),
    ]
}

#[test]
#[ignore = "writes the golden files that are missing; existing ones are never touched"]
fn write() {
    std::fs::create_dir_all(directory()).unwrap();
    for (name, bytes) in today() {
        let path = directory().join(name);
        if !path.exists() {
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn todays_code_writes_the_golden_bytes() {
    for (name, bytes) in today() {
        // A compression library may choose other bytes tomorrow; what they unpack to is compared below.
        if !matches!(name, "segment.zst" | "segment.lz4") {
            assert!(golden(name) == bytes, "{name} is written differently than before");
        }
    }
}

#[test]
fn the_golden_buffer_is_read_and_written_again() {
    let file = golden("00000000000000000001.wal");
    assert_eq!(FileHeader::decode(&file).unwrap(), header());
    let report = recover_bytes(&file);
    assert_eq!(
        (report.frames, report.closed, report.cut),
        (sample_frames().len() as u64, true, None)
    );
    let (mut at, mut frames) = (FILE_HEADER_BYTES, Vec::new());
    while at < file.len() {
        let decoded = decode_frame(&file, at).unwrap();
        at = decoded.next;
        frames.push(decoded.frame);
    }
    assert_eq!(frames, sample_frames());
    assert_eq!(encode_frames(&frames, SESSION, Lsn(1)), file[FILE_HEADER_BYTES..]);
    assert_eq!(
        BufferIdentity::decode(&golden("buffer.id")),
        Ok(buffer_identity())
    );
    assert_eq!(
        SessionMark::decode(&golden("session")),
        Ok(SessionMark { session: SESSION })
    );
    assert_eq!(Positions::decode(&golden("positions")), Ok(positions()));
    assert_eq!(
        Archived::decode(&golden("archived")),
        Ok(Archived {
            position: positions().synced
        })
    );
}

#[test]
fn the_golden_segments_are_read_and_their_footers_written_again() {
    for (codec, name) in [
        (Codec::Zstd, "segment.zst"),
        (Codec::Lz4, "segment.lz4"),
        (Codec::None, "segment.log"),
    ] {
        let object = golden(name);
        let index = codec.has_sidecar().then(|| golden("segment.log.idx"));
        let reader = SegmentReader::open(&object, index.as_deref()).unwrap();
        reader.verify(&object).unwrap();
        let (today, today_index, _, log) = sample_segment(codec);
        let content: Vec<u8> = reader
            .footer()
            .blocks
            .iter()
            .flat_map(|block| reader.block_of(&object, block).unwrap())
            .collect();
        assert_eq!(content, log, "{name}");
        assert_eq!(reader.footer().identity, identity(Origin::Tee));
        let encoded = reader.footer().encode().unwrap();
        let holder = index.as_ref().unwrap_or(&object);
        assert!(
            holder.ends_with(&encoded),
            "{name}: the footer is written as it was read"
        );
        let today = SegmentReader::open(&today, today_index.as_deref()).unwrap();
        assert_eq!(
            without_compressed_bytes(reader.footer()),
            without_compressed_bytes(today.footer())
        );
    }
}

/// What does not depend on the compression library.
fn without_compressed_bytes(footer: &Footer) -> Footer {
    let blocks = footer.blocks.iter().map(|block| BlockEntry {
        file_offset: 0,
        compressed_len: 0,
        crc32c: 0,
        ..block.clone()
    });
    Footer {
        blocks: blocks.collect(),
        data_bytes: 0,
        ..footer.clone()
    }
}

#[test]
fn the_golden_commit_and_manifest_are_read_and_written_again() {
    let object = golden("00000000000000000001.commit");
    let commit = Commit::decode(&object).unwrap();
    assert_eq!(commit, sample_commit());
    assert_eq!(commit.encode().unwrap(), object);
    let object = golden("audit.commit");
    let commit = Commit::decode(&object).unwrap();
    assert_eq!(commit, sample_audit_commit());
    assert_eq!(commit.encode().unwrap(), object);
    let text = String::from_utf8(golden("manifest.json").to_vec()).unwrap();
    let read = Manifest::from_json(&text).unwrap();
    assert_eq!(read, manifest());
    assert_eq!(read.to_json().unwrap(), text);
}
