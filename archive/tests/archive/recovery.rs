use crate::samples::{EPOCH_MS, SESSION, encode_frames, frames, sample_frames};
use bytes::Bytes;
use proptest::prelude::*;
use std::ops::Range;
use teeline_archive::buffer::recovery::{
    DamageKind, RecoveryReport, Source, find_frame, recover, recover_bytes,
};
use teeline_archive::buffer::{FILE_HEADER_BYTES, FileHeader, FileHeaderError, Frame, Intent, TopicRef};
use teeline_archive::{Lsn, SessionId};
use uuid::Uuid;

fn header() -> FileHeader {
    FileHeader {
        buffer_id: Uuid::from_u128(0xb0ffe6),
        session: SESSION,
        file_number: 1,
        first_lsn: Lsn(1),
        created_at_ms: EPOCH_MS,
    }
}

/// A file of these frames, and where each of them lies.
fn file_of(frames: &[Frame]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut file = header().encode().to_vec();
    let mut places = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let bytes = encode_frames(std::slice::from_ref(frame), SESSION, Lsn(index as u64 + 1));
        places.push(file.len()..file.len() + bytes.len());
        file.extend_from_slice(&bytes);
    }
    (file, places)
}

fn intent(records: Vec<u8>) -> Frame {
    Frame::Intent(Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: EPOCH_MS,
        topic: TopicRef::by_name("t"),
        partition: 0,
        transactional_id: None,
        records: Bytes::from(records),
    })
}

fn closed(at_ms: i64) -> Frame {
    Frame::SessionClosed { at_ms }
}

#[test]
fn a_whole_file_is_kept_whole() {
    let (file, places) = file_of(&sample_frames());
    let report = recover_bytes(&file);
    let expected = RecoveryReport {
        header: Ok(header()),
        session: Some(SESSION),
        frames: places.len() as u64,
        last_lsn: Some(Lsn(places.len() as u64)),
        closed: true,
        valid_bytes: file.len() as u64,
        cut: None,
        damage: vec![],
    };
    assert_eq!(report, expected);
}

#[test]
fn a_file_cut_at_any_byte_keeps_every_frame_before_the_cut_and_reports_no_damage() {
    let (file, places) = file_of(&sample_frames());
    for len in 0..=file.len() {
        let report = recover_bytes(&file[..len]);
        let whole = places.iter().filter(|place| place.end <= len).count();
        assert_eq!(report.frames, whole as u64, "{len}");
        assert_eq!(report.damage, [], "{len}");
        let end = places[..whole]
            .last()
            .map_or(FILE_HEADER_BYTES, |place| place.end);
        let end = if len < FILE_HEADER_BYTES { 0 } else { end };
        assert_eq!(report.valid_bytes, end as u64, "{len}");
        assert_eq!(
            report.cut.as_ref().map(|cut| (cut.at, cut.len)),
            (len > end).then_some((end as u64, (len - end) as u64)),
            "{len}"
        );
    }
}

#[test]
fn zeros_behind_the_last_frame_are_space_and_no_tear() {
    let (mut file, _) = file_of(&sample_frames());
    let used = file.len();
    file.resize(used + 70_000, 0);
    let report = recover_bytes(&file);
    assert_eq!(
        (report.valid_bytes, report.cut, report.damage),
        (used as u64, None, vec![])
    );
    let report = recover_bytes(&[0; 5000]);
    assert_eq!(
        (report.header, report.frames, report.cut),
        (Err(FileHeaderError::NotThere), 0, None)
    );
}

#[test]
fn any_flipped_bit_costs_one_frame_at_most_and_is_reported() {
    let (file, places) = file_of(&sample_frames());
    for bit in 0..file.len() * 8 {
        let mut bad = file.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let report = recover_bytes(&bad);
        if bit / 8 < FILE_HEADER_BYTES {
            assert!(report.header.is_err());
            assert_eq!(report.frames, places.len() as u64, "bit {bit}");
            assert_eq!(report.damage.len(), 1, "bit {bit}");
            continue;
        }
        assert_eq!(report.frames, places.len() as u64 - 1, "bit {bit}");
        let hit = places.iter().find(|place| place.contains(&(bit / 8))).unwrap();
        if hit.end == file.len() {
            assert_eq!(report.cut.map(|cut| cut.at), Some(hit.start as u64), "bit {bit}");
        } else {
            let [damage] = &report.damage[..] else {
                panic!("bit {bit}: {:?}", report.damage)
            };
            assert_eq!(
                (damage.at, damage.len, damage.missing),
                (hit.start as u64, hit.len() as u64, 1),
                "bit {bit}"
            );
        }
    }
}

#[test]
fn a_page_of_zeros_in_the_middle_is_damage() {
    let frames: Vec<_> = (0..200).map(|n| intent(vec![n; 300])).collect();
    let (mut file, places) = file_of(&frames);
    file[8192..12288].fill(0);
    let report = recover_bytes(&file);
    let lost = places
        .iter()
        .filter(|place| place.start < 12288 && place.end > 8192)
        .count();
    assert_eq!(report.frames, (frames.len() - lost) as u64);
    assert_eq!(report.last_lsn, Some(Lsn(200)));
    assert_eq!(report.cut, None);
    assert_eq!(
        report.damage.iter().map(|damage| damage.missing).sum::<u64>(),
        lost as u64
    );
}

#[test]
fn frames_inside_of_records_are_never_taken_for_frames() {
    // A producer sends bytes that look like frames of this very session, and its frame is torn or damaged.
    let forged = encode_frames(&vec![closed(6); 20], SESSION, Lsn(3)).to_vec();
    let (file, places) = file_of(&[closed(0), intent(forged), closed(1)]);
    for len in places[1].start + 36..places[1].end {
        let report = recover_bytes(&file[..len]);
        assert_eq!((report.frames, report.damage.len()), (1, 0), "torn at {len}");
        assert_eq!(report.cut.map(|cut| cut.at), Some(places[1].start as u64));
    }
    let mut bad = file.clone();
    bad[places[1].start + 40] ^= 1;
    let report = recover_bytes(&bad);
    assert_eq!((report.frames, report.last_lsn), (2, Some(Lsn(3))));
}

#[test]
fn frames_of_an_earlier_session_are_not_taken_for_this_one() {
    let (mut file, _) = file_of(&[closed(0)]);
    let used = file.len();
    file.extend_from_slice(&encode_frames(&vec![closed(1); 5], SessionId(2), Lsn(2)));
    let report = recover_bytes(&file);
    assert_eq!((report.frames, report.valid_bytes), (1, used as u64));
    assert_eq!(report.cut.map(|cut| cut.why), Some(DamageKind::Misplaced));
}

#[test]
fn missing_frames_are_reported_where_they_are_missing() {
    let (mut file, _) = file_of(&[closed(0)]);
    let at = file.len() as u64;
    file.extend_from_slice(&encode_frames(&[closed(1)], SESSION, Lsn(5)));
    let report = recover_bytes(&file);
    let [damage] = &report.damage[..] else {
        panic!("{:?}", report.damage)
    };
    assert_eq!(
        (damage.at, damage.len, damage.missing, damage.why),
        (at, 0, 3, DamageKind::Missing)
    );
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let (mut file, _) = file_of(&sample_frames());
    file[12] = 9;
    let crc = crc32c::crc32c(&file[12..64]).to_le_bytes();
    file[8..12].copy_from_slice(&crc);
    let report = recover_bytes(&file);
    assert_eq!(report.header, Err(FileHeaderError::Version { version: 9 }));
    assert_eq!((report.frames, report.cut, report.damage), (0, None, vec![]));
}

#[test]
fn a_reader_finds_its_way_behind_an_unreadable_header() {
    let (mut file, places) = file_of(&sample_frames());
    file[places[2].start + 9] ^= 1;
    let found = find_frame(&mut &file[..], places[2].start as u64 + 1, SESSION, Lsn(3));
    assert_eq!(found, Ok(Some(places[3].start as u64)));
    let found = find_frame(&mut &file[..], places[9].start as u64 + 1, SESSION, Lsn(10));
    assert_eq!(found, Ok(None));
}

/// Counts what is read, so that work can be bounded by it.
struct Counting<'a> {
    file: &'a [u8],
    bytes: u64,
}

impl Source for Counting<'_> {
    type Error = std::convert::Infallible;

    fn len(&self) -> u64 {
        self.file.len() as u64
    }

    fn read_at(&mut self, at: u64, window: &mut [u8]) -> Result<(), Self::Error> {
        self.bytes += window.len() as u64;
        let mut file = self.file;
        file.read_at(at, window)
    }
}

#[test]
fn searching_takes_bounded_work_even_where_bytes_were_made_to_mislead() {
    // Behind an unreadable header, thousands of whole frame headers, each claiming all the rest as its payload.
    let total = 400_000;
    let (mut file, _) = file_of(&[closed(0)]);
    let start = file.len();
    file.push(1);
    while file.len() < total {
        let claim = total - file.len() - 36;
        let frame = encode_frames(
            &[Frame::Unknown {
                kind: 77,
                payload: vec![0; claim].into(),
            }],
            SESSION,
            Lsn(3),
        );
        file.extend_from_slice(&frame[..36]);
        if file.len() - start > 200 * 36 {
            break;
        }
    }
    file.resize(total, 7);
    let mut source = Counting {
        file: &file,
        bytes: 0,
    };
    let report = recover(&mut source).unwrap();
    assert!(
        source.bytes < 10 * total as u64,
        "read {} bytes of a file of {total}",
        source.bytes
    );
    assert_eq!(report.frames, 1);
    let [damage] = &report.damage[..] else {
        panic!("{:?}", report.damage)
    };
    assert_eq!(
        (damage.why, damage.at, report.cut),
        (DamageKind::SearchLimit, start as u64, None)
    );
}

#[test]
fn a_file_full_of_frame_magics_is_searched_once() {
    let (mut file, _) = file_of(&[closed(0)]);
    file.push(1);
    file.extend_from_slice(&b"TLfr".repeat(500_000));
    let mut source = Counting {
        file: &file,
        bytes: 0,
    };
    let report = recover(&mut source).unwrap();
    assert_eq!((report.frames, report.damage.len()), (1, 0));
    assert!(
        source.bytes < 2 * file.len() as u64 + 300_000,
        "read {}",
        source.bytes
    );
}

#[test]
fn a_long_frame_is_checked_in_windows() {
    let (file, _) = file_of(&[intent(vec![7; 3_000_000]), closed(0)]);
    let mut source = Counting {
        file: &file,
        bytes: 0,
    };
    assert_eq!(recover(&mut source).unwrap().frames, 2);
    assert!(source.bytes < 4_000_000);
}

proptest! {
    #[test]
    fn random_damage_never_panics_and_never_loses_what_lies_outside_of_it(
        frames in prop::collection::vec(frames(), 1..30),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1usize..40), 0..4),
    ) {
        let (mut file, places) = file_of(&frames);
        let body = file.len() - FILE_HEADER_BYTES;
        let mut hurt = vec![false; places.len()];
        for (index, byte, len) in hits {
            let at = FILE_HEADER_BYTES + index.index(body);
            let end = (at + len).min(file.len());
            for place in at..end {
                if file[place] != byte {
                    file[place] = byte;
                    hurt[places.iter().position(|range| range.contains(&place)).unwrap()] = true;
                }
            }
        }
        let report = recover_bytes(&file);
        let whole = hurt.iter().filter(|hurt| !**hurt).count() as u64;
        prop_assert_eq!(report.frames, whole);
        let lost: u64 = report.damage.iter().map(|damage| damage.missing).sum();
        let tail = hurt.iter().rev().take_while(|hurt| **hurt).count() as u64;
        prop_assert_eq!(lost + tail, places.len() as u64 - whole);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = header().encode().to_vec();
        file.extend_from_slice(&bytes);
        let report = recover_bytes(&file);
        prop_assert_eq!(report.frames, 0);
        let _ = recover_bytes(&bytes);
    }
}
