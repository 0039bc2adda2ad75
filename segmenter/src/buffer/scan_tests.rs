//! Files as a writer leaves them whose sync failed: what it was not sure of stands in the next file again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use bytes::BytesMut;
use teeline_archive::buffer::{
    ConnectionLost, FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FileHeader, Frame, encode_frame,
};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};

use super::Directory;
use super::scan::{Found, Horizon, Scanner};

fn frame(lsn: u64) -> Frame {
    Frame::ConnectionLost(ConnectionLost {
        connection_id: lsn,
        at_ms: 7,
    })
}

/// A file with these frames; 0 stands for bytes that the disk never took.
fn write(directory: &Directory, session: u64, file_number: u64, first: u64, lsns: &[u64]) {
    let header = FileHeader {
        buffer_id: directory.identity_or_create().unwrap().buffer_id,
        session: SessionId(session),
        file_number,
        first_lsn: Lsn(first),
        created_at_ms: 1,
    };
    let mut bytes = BytesMut::from(&header.encode()[..]);
    for lsn in lsns {
        match lsn {
            0 => bytes.extend_from_slice(&[0; 100]),
            lsn => {
                encode_frame(&frame(*lsn), SessionId(session), Lsn(*lsn), &mut bytes).unwrap();
            }
        }
    }
    fs::write(directory.file_path(file_number), bytes).unwrap();
}

fn synced(session: u64, lsn: u64) -> Horizon {
    Horizon::Synced(BufferPosition {
        session: SessionId(session),
        lsn: Lsn(lsn),
    })
}

/// What is found up to a horizon: frames of the first session with the number of their file, and how much damage.
fn found(scanner: &mut Scanner, horizon: Horizon) -> (Vec<(u64, u64)>, usize) {
    let (mut frames, mut damages) = (Vec::new(), 0);
    loop {
        match scanner.step(horizon).unwrap() {
            Found::Nothing => return (frames, damages),
            Found::Frame(read) if read.position.session == SessionId(1) => {
                frames.push((read.location.file_number, read.position.lsn.0));
            }
            Found::Damage(_) => damages += 1,
            _ => {}
        }
    }
}

#[test]
fn a_frame_is_taken_from_the_file_that_was_synced() {
    let work = tempfile::tempdir().unwrap();
    let directory = Directory::new(work.path());
    write(&directory, 1, 1, 1, &[1, 2, 3]);
    let mut scanner = Scanner::new(directory.clone());
    assert_eq!(found(&mut scanner, synced(1, 1)), (vec![(1, 1)], 0));
    write(&directory, 1, 2, 2, &[2, 3, 4]);
    let (frames, damages) = found(&mut scanner, synced(1, 4));
    assert_eq!((frames, damages), (vec![(2, 2), (2, 3), (2, 4)], 0));
    // The same when all of it is history.
    for horizon in [synced(2, 0), Horizon::End] {
        let (frames, damages) = found(&mut Scanner::new(directory.clone()), horizon);
        assert_eq!((frames, damages), (vec![(1, 1), (2, 2), (2, 3), (2, 4)], 0));
    }
}

#[test]
fn a_header_alone_does_not_say_that_what_is_missing_was_written_again() {
    for horizon in [Horizon::End, synced(2, 1)] {
        let work = tempfile::tempdir().unwrap();
        let directory = Directory::new(work.path());
        write(&directory, 1, 1, 1, &[1, 0, 3, 4]);
        write(&directory, 1, 2, 2, &[]);
        write(&directory, 2, 3, 1, &[1]);
        // The stretch, and the number that is missing.
        let (frames, damages) = found(&mut Scanner::new(directory), horizon);
        assert_eq!(
            (frames, damages),
            (vec![(1, 1), (1, 3), (1, 4)], 2),
            "{horizon:?}"
        );
    }
}

#[test]
fn behind_a_torn_second_writing_nothing_is_passed_in_silence() {
    for (second, expected, damage) in [
        // Read from the first file.
        (&[2, 3][..], vec![(1, 1), (1, 2), (2, 3)], 0),
        // The stretch, and the numbers that are missing.
        (&[3, 4], vec![(1, 1), (1, 2), (2, 4)], 2),
        (&[4, 5, 6], vec![(1, 1), (1, 2), (2, 5), (2, 6)], 2),
    ] {
        let work = tempfile::tempdir().unwrap();
        let directory = Directory::new(work.path());
        write(&directory, 1, 1, 1, &[1, 2]);
        write(&directory, 1, 2, 2, second);
        let path = directory.file_path(2);
        let mut bytes = fs::read(&path).unwrap();
        bytes[FILE_HEADER_BYTES + FRAME_HEADER_BYTES] ^= 1;
        fs::write(path, bytes).unwrap();
        let (frames, damages) = found(&mut Scanner::new(directory), Horizon::End);
        assert_eq!((frames, damages), (expected, damage), "{second:?}");
    }
}

#[test]
fn what_the_second_writing_has_no_more_is_taken_from_the_first() {
    for (first, second, expected, damage) in [
        (
            &[1, 0, 3, 4][..],
            &[2][..],
            vec![(1, 1), (2, 2), (1, 3), (1, 4)],
            0,
        ),
        (&[1, 2, 3, 4], &[2, 3], vec![(1, 1), (2, 2), (2, 3), (1, 4)], 0),
        (
            &[1, 0, 3, 0, 5],
            &[2, 0, 4],
            vec![(1, 1), (2, 2), (1, 3), (2, 4), (1, 5)],
            1,
        ),
        (&[1, 0, 0, 4], &[2], vec![(1, 1), (2, 2), (1, 4)], 1),
        (
            &[1, 3, 4],
            &[2, 0, 0, 5],
            vec![(1, 1), (2, 2), (1, 3), (1, 4), (2, 5)],
            1,
        ),
    ] {
        let work = tempfile::tempdir().unwrap();
        let directory = Directory::new(work.path());
        write(&directory, 1, 1, 1, first);
        write(&directory, 1, 2, 2, second);
        let (frames, damages) = found(&mut Scanner::new(directory), Horizon::End);
        assert_eq!((frames, damages), (expected, damage), "{first:?} {second:?}");
    }
}
