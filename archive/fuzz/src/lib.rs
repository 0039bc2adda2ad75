//! What the fuzz targets do, one function each: no input may panic, and what is read is written as it was read.
//!
//! A normal test replays the committed corpus through the same functions, so they stay true without cargo-fuzz.

use bytes::{Bytes, BytesMut};
use teeline_archive::buffer::recovery::recover_bytes;
use teeline_archive::buffer::{
    Archived, BufferIdentity, FileHeader, Frame, Positions, SessionMark, decode_frame, encode_frame,
};
use teeline_archive::ledger::{Commit, LedgerState};
use teeline_archive::manifest::Manifest;
use teeline_archive::names::{buffer_files, parse_key};
use teeline_archive::segment::{Footer, SegmentReader, batches};
use teeline_archive::{Lsn, SessionId};

/// A payload behind checksums that are right: the first two bytes are the kind.
pub fn buffer_frame(data: &[u8]) {
    let Some((kind, payload)) = data.split_first_chunk::<2>() else {
        return;
    };
    let sealed = Frame::Unknown {
        kind: u16::from_le_bytes(*kind),
        payload: Bytes::copy_from_slice(payload),
    };
    let bytes = encoded(&sealed);
    if let Ok(decoded) = decode_frame(&bytes, 0) {
        // A newer writer's extra fields are dropped, so the second writing is compared with the first.
        let again = encoded(&decoded.frame);
        let twice = decode_frame(&again, 0).map(|decoded| decoded.frame);
        assert_eq!(twice.as_ref(), Ok(&decoded.frame));
        assert_eq!(encoded(&decoded.frame), again);
    }
}

fn encoded(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    let result = encode_frame(frame, SessionId(1), Lsn(1), &mut out);
    assert!(result.is_ok(), "what was read can be written");
    out.freeze()
}

/// A whole file.
pub fn buffer_file(data: &[u8]) {
    let report = recover_bytes(data);
    assert!(report.valid_bytes <= data.len() as u64);
    if let Some(cut) = &report.cut {
        assert_eq!(cut.at + cut.len, data.len() as u64);
    }
    // What was kept is kept again: recovering twice changes nothing.
    let kept = usize::try_from(report.valid_bytes)
        .ok()
        .and_then(|end| data.get(..end))
        .unwrap_or_default();
    let again = recover_bytes(kept);
    assert_eq!(
        (again.frames, again.last_lsn, &again.cut),
        (report.frames, report.last_lsn, &None)
    );
    if let Ok(header) = FileHeader::decode(data) {
        assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
    }
    let bytes = Bytes::copy_from_slice(data);
    let mut at = 0;
    while let Ok(decoded) = decode_frame(&bytes, at) {
        assert!(decoded.next > at && decoded.next <= data.len());
        at = decoded.next;
    }
}

/// The small files beside the data.
pub fn buffer_state(data: &[u8]) {
    let _ = BufferIdentity::decode(data);
    let _ = SessionMark::decode(data);
    let _ = Archived::decode(data);
    if let Ok(positions) = Positions::decode(data) {
        assert_eq!(Positions::decode(&positions.encode()), Ok(positions));
    }
}

/// A footer behind checksums that are right: the input is skippable frame and trailer without them.
pub fn segment_footer(data: &[u8]) {
    let mut footer = data.to_vec();
    let Some(body) = footer.len().checked_sub(32) else {
        return;
    };
    let crc = crc32c::crc32c(footer.get(..body).unwrap_or_default()).to_le_bytes();
    if let Some(field) = footer.get_mut(body + 16..body + 20) {
        field.copy_from_slice(&crc);
    }
    let crc = crc32c::crc32c(footer.get(body..body + 28).unwrap_or_default()).to_le_bytes();
    if let Some(field) = footer.last_chunk_mut::<4>() {
        *field = crc;
    }
    if let Ok(decoded) = Footer::decode(&footer) {
        let again = decoded.encode().and_then(|bytes| Footer::decode(&bytes));
        assert_eq!(again.ok(), Some(decoded));
    }
    segment_object(data);
}

/// A whole object, footer inside.
pub fn segment_object(data: &[u8]) {
    let object = Bytes::copy_from_slice(data);
    let Ok(reader) = SegmentReader::open(&object, None) else {
        return;
    };
    for block in &reader.footer().blocks {
        if let Ok(content) = reader.block_of(&object, block) {
            let whole: usize = batches(&content).map(|batch| batch.len()).sum();
            assert_eq!(whole, block.uncompressed_len as usize);
        }
    }
}

/// A commit, as it is and behind a checksum that is right.
pub fn ledger_commit(data: &[u8]) {
    fold(data);
    let mut object = data.to_vec();
    let Some((header, body)) = object.split_at_mut_checked(20) else {
        return;
    };
    let Some(length) = header.get_mut(12..16) else {
        return;
    };
    length.copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(header.get(..16).unwrap_or_default()), body).to_le_bytes();
    if let Some(field) = header.get_mut(16..) {
        field.copy_from_slice(&crc);
    }
    fold(&object);
}

fn fold(object: &[u8]) {
    let Ok(mut commit) = Commit::decode(object) else {
        return;
    };
    let again = commit.encode().and_then(|bytes| Commit::decode(&bytes));
    assert_eq!(again.as_ref(), Ok(&commit));
    commit.seq = 1;
    let mut state = LedgerState::new();
    if state.apply(&commit).is_ok() {
        let manifest = Manifest::from_ledger(&state, 0);
        assert!(manifest.to_json().is_ok());
    }
}

/// Keys and file names.
pub fn names(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = parse_key(text);
        let _ = buffer_files::parse_data_file(text);
    }
}
