//! What valid frames the files of a buffer hold, each file by itself and without the reader: none of them may be passed
//! in silence.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use teeline_archive::buffer::{
    Corruption, FILE_HEADER_BYTES, FrameError, decode_frame, find_frame, recover_bytes,
};
use teeline_archive::ids::{BufferPosition, Lsn};
use teeline_segmenter::buffer::Event;

/// Every frame that is found in any file was read, or stands where damage is reported: between the frame read last
/// before the report and the one read first after it.
pub(crate) fn nothing_is_passed_silently(buffer: &Path, events: &[Event]) -> Result<(), String> {
    let mut read = BTreeSet::new();
    let mut damaged = Vec::new();
    let (mut last, mut is_damaged) = (None, false);
    for event in events {
        match event {
            Event::Frame(frame) => {
                if std::mem::take(&mut is_damaged) {
                    damaged.push((last, Some(frame.position)));
                }
                last = Some(frame.position);
                read.insert(frame.position);
            }
            Event::Damage(_) => is_damaged = true,
            _ => {}
        }
    }
    if is_damaged {
        damaged.push((last, None));
    }
    let is_named = |position: BufferPosition| {
        damaged
            .iter()
            .any(|(after, before)| Some(position) > *after && before.is_none_or(|before| position < before))
    };
    let Ok(entries) = std::fs::read_dir(buffer) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "wal") {
            continue;
        }
        for position in frames(std::fs::read(&path).unwrap().into()) {
            if !read.contains(&position) && !is_named(position) {
                return Err(format!(
                    "{position} stands in {} and is passed in silence",
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// The frames of one file.
fn frames(file: Bytes) -> Vec<BufferPosition> {
    let Some(session) = recover_bytes(&file).session else {
        return Vec::new();
    };
    let (mut found, mut at, mut next) = (Vec::new(), FILE_HEADER_BYTES, Lsn::FIRST);
    while at < file.len() {
        match decode_frame(&file, at) {
            Ok(decoded) if decoded.header.session == session && decoded.header.lsn >= next => {
                let lsn = decoded.header.lsn;
                found.push(BufferPosition { session, lsn });
                (at, next) = (at + decoded.header.frame_bytes(), lsn.next());
            }
            Err(FrameError::Corrupt(
                Corruption::PayloadChecksum { frame_bytes } | Corruption::Payload { frame_bytes, .. },
            )) => at += frame_bytes,
            _ => match find_frame(&mut &file[..], at as u64 + 1, session, next).unwrap() {
                Some(found) => at = usize::try_from(found).unwrap(),
                None => break,
            },
        }
    }
    found
}
