//! The writer together with the reader that it exists for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use teeline_archive::buffer::{ConnectionLost, FileHeader, Intent, Outcome, TopicRef, encode_frame};
use teeline_segmenter::buffer::{Directory, Event, ReadFrame, Reader, ReaderOptions};

use super::*;

mod room;

const DEADLINE: Duration = Duration::from_secs(20);

fn settings(dir: &Path) -> WriterSettings {
    WriterSettings {
        dir: dir.to_owned(),
        max_bytes: 64 << 20,
        file_bytes: 4 << 20,
        mode: SyncMode::OnAppend,
        pending_bytes_max: 8 << 20,
    }
}

fn open(settings: WriterSettings) -> Writer {
    Writer::open(settings, || 1_700_000_000_000).unwrap().0
}

fn intent(n: usize, bytes: usize) -> Frame {
    Frame::Intent(Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: 5,
        topic: TopicRef::by_name("orders"),
        partition: n as i32,
        transactional_id: None,
        records: Bytes::from(vec![n as u8; bytes]),
    })
}

fn outcome(intent: Lsn) -> Frame {
    Frame::Outcome(Outcome {
        intent,
        received_at_ms: 6,
        error_code: 0,
        base_offset: 0,
        log_append_time_ms: -1,
        log_start_offset: 0,
        leader_epoch: -1,
    })
}

fn reader(dir: &Path) -> Reader {
    Reader::open(
        Directory::new(dir),
        ReaderOptions {
            poll: Duration::from_millis(1),
            adopted: false,
        },
    )
}

/// Reads until the end of the buffer, or until `frames` frames came.
async fn read(reader: &mut Reader, frames: usize) -> (Vec<ReadFrame>, Vec<Event>) {
    let (mut found, mut other) = (Vec::new(), Vec::new());
    let until = Instant::now() + DEADLINE;
    while found.len() < frames {
        match reader.next().await.unwrap() {
            Event::Frame(frame) => found.push(frame),
            Event::Idle => {}
            end @ Event::End { .. } => {
                other.push(end);
                break;
            }
            event => other.push(event),
        }
        assert!(
            Instant::now() < until,
            "{} of {frames} frames within {DEADLINE:?}",
            found.len()
        );
    }
    (found, other)
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn frames_come_back_in_order_across_files_and_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let small_files = WriterSettings {
        file_bytes: 10_000,
        ..settings(dir.path())
    };
    let mut written = Vec::new();
    for session in 1..=3u64 {
        let writer = open(small_files.clone());
        for n in 0..40 {
            let frames = vec![
                intent(n, n * 37),
                Frame::ConnectionLost(ConnectionLost {
                    connection_id: 9,
                    at_ms: 7,
                }),
            ];
            let appended = writer.append(frames.clone()).await.unwrap();
            assert_eq!(appended.session, SessionId(session));
            assert_eq!(
                (appended.first.0, appended.last.0),
                (2 * n as u64 + 1, 2 * n as u64 + 2)
            );
            written.extend(frames);
            if n % 7 == 0 {
                writer.wait_synced(appended.end()).await.unwrap();
            }
        }
        writer.close().await.unwrap();
    }
    let (frames, other) = read(&mut reader(dir.path()), usize::MAX).await;
    let starts: Vec<_> = (1..=3).map(|n| Event::SessionStart(SessionId(n))).collect();
    assert_eq!(other, [starts, vec![Event::End { clean: true }]].concat());
    let (closed, data): (Vec<_>, Vec<_>) = frames
        .into_iter()
        .partition(|read| matches!(read.frame, Frame::SessionClosed { .. }));
    assert_eq!(closed.len(), 3);
    assert_eq!(
        data.iter().map(|read| read.frame.clone()).collect::<Vec<_>>(),
        written
    );
    let files = reader(dir.path()).files();
    for read in data {
        assert_eq!(files.read_at(&read.location).unwrap(), read.frame);
    }
    assert!(
        Directory::new(dir.path()).files().unwrap().len() > 6,
        "files were ended and begun"
    );
}

#[tokio::test]
async fn a_reader_follows_a_live_writer_and_stops_at_what_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let never = SyncMode::Every(Duration::from_secs(3600));
    let writer = open(WriterSettings {
        mode: never,
        ..settings(dir.path())
    });
    let mut reader = reader(dir.path());
    let appended = writer.append(vec![intent(1, 100)]).await.unwrap();
    let unsynced = tokio::time::timeout(Duration::from_millis(60), writer.wait_synced(appended.end())).await;
    assert!(unsynced.is_err(), "nothing may claim durability before a sync");
    for _ in 0..30 {
        assert!(
            !matches!(reader.next().await.unwrap(), Event::Frame(_)),
            "read before it was synced"
        );
    }
    writer.close().await.unwrap();
    writer.wait_synced(appended.end()).await.unwrap();
    assert_eq!(read(&mut reader, 2).await.0.len(), 2);
}

#[tokio::test]
async fn an_async_buffer_syncs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let soon = SyncMode::Every(Duration::from_millis(5));
    let writer = open(WriterSettings {
        mode: soon,
        ..settings(dir.path())
    });
    let appended = writer.append(vec![intent(1, 100)]).await.unwrap();
    tokio::time::timeout(DEADLINE, writer.wait_synced(appended.end()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_is_not_synced_is_bounded_in_bytes_and_not_in_time_alone() {
    let dir = tempfile::tempdir().unwrap();
    let never = SyncMode::Every(Duration::from_secs(3600));
    let writer = open(WriterSettings {
        mode: never,
        file_bytes: 64 << 20,
        ..settings(dir.path())
    });
    let first = writer.append(vec![intent(1, 1 << 20)]).await.unwrap();
    for n in 2..8 {
        writer.append(vec![intent(n, 1 << 20)]).await.unwrap();
    }
    tokio::time::timeout(DEADLINE, writer.wait_synced(first.end()))
        .await
        .expect("megabytes wait for no interval")
        .unwrap();
}

#[tokio::test]
async fn a_full_buffer_refuses_intents_takes_outcomes_and_recovers_when_archived() {
    let dir = tempfile::tempdir().unwrap();
    let tight = WriterSettings {
        max_bytes: 60_000,
        file_bytes: 20_000,
        ..settings(dir.path())
    };
    let writer = open(tight);
    let mut last = None;
    let until = Instant::now() + DEADLINE;
    let refused = loop {
        match writer.append(vec![intent(1, 5_000)]).await {
            Ok(appended) => {
                writer.wait_synced(appended.end()).await.unwrap();
                last = Some(appended);
            }
            Err(error) => break error,
        }
        assert!(Instant::now() < until, "never full: {:?}", writer.state());
    };
    assert_eq!(refused, AppendError::Full);
    let last = last.unwrap();
    writer
        .append_outcomes(last.session, vec![outcome(last.last)])
        .await
        .unwrap();
    assert!(writer.state().full);
    Directory::new(dir.path()).publish_archived(last.end()).unwrap();
    eventually("room after the archive has everything", || !writer.state().full).await;
    writer.append(vec![intent(2, 5_000)]).await.unwrap();
    writer.close().await.unwrap();
    // What was released is exactly what was archived: everything later is still read.
    let (frames, _) = read(&mut reader(dir.path()), usize::MAX).await;
    assert!(frames.iter().any(|read| read.position > last.end()));
    assert!(frames.iter().all(|read| read.position.session == last.session));
}

#[tokio::test]
async fn a_disk_that_fails_loses_its_session_tells_who_waits_and_begins_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buffer");
    let writer = open(WriterSettings {
        file_bytes: 1_000,
        ..settings(&path)
    });
    let first = writer.append(vec![intent(1, 100)]).await.unwrap();
    writer.wait_synced(first.end()).await.unwrap();
    // Without its directory no further file can be made.
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    let lost = writer
        .append(vec![intent(2, 2_000), intent(3, 2_000)])
        .await
        .unwrap();
    assert_eq!(writer.wait_synced(lost.end()).await, Err(SyncLost));
    assert_eq!(
        writer.wait_synced(first.end()).await,
        Ok(()),
        "what was durable stays durable"
    );
    assert_eq!(writer.append(vec![intent(4, 10)]).await, Err(AppendError::Broken));
    assert!(writer.state().broken.is_some());
    fs::rename(&away, &path).unwrap();
    eventually("a new session", || writer.state().broken.is_none()).await;
    let stale = writer
        .append_outcomes(lost.session, vec![outcome(lost.first)])
        .await;
    assert_eq!(stale, Err(AppendError::StaleSession));
    let again = writer.append(vec![intent(5, 10)]).await.unwrap();
    assert!(again.session > lost.session);
    writer.wait_synced(again.end()).await.unwrap();
    writer.close().await.unwrap();
    let (frames, _) = read(&mut reader(&path), usize::MAX).await;
    let positions: Vec<_> = frames.iter().map(|read| read.position).collect();
    assert!(
        positions.contains(&first.end()) && positions.contains(&again.end()),
        "{positions:?}"
    );
}

#[tokio::test]
async fn a_broken_buffer_keeps_what_is_not_archived_and_releases_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new(dir.path());
    let writer = open(WriterSettings {
        file_bytes: 1_000,
        ..settings(dir.path())
    });
    let first = writer.append(vec![intent(1, 100)]).await.unwrap();
    writer.wait_synced(first.end()).await.unwrap();
    // The next two files cannot be made: no file follows the first, for about a second.
    for number in [2, 3] {
        fs::write(directory.file_path(number), b"in the way").unwrap();
    }
    let second = writer.append(vec![intent(2, 2_000)]).await.unwrap();
    writer.wait_synced(second.end()).await.unwrap();
    let lost = writer.append(vec![intent(3, 10)]).await.unwrap();
    assert_eq!(writer.wait_synced(lost.end()).await, Err(SyncLost));
    assert_eq!(directory.archived().unwrap(), None);
    let mark = fs::metadata(dir.path().join("archived")).unwrap();
    assert!(mark.len() > 0, "it has its room although nothing is archived yet");
    directory.publish_archived(first.end()).unwrap();
    eventually("a look at what is archived", || {
        writer.state().archived == Some(first.end())
    })
    .await;
    assert!(
        directory.file_path(1).exists(),
        "the second frame is not archived"
    );
    directory.publish_archived(second.end()).unwrap();
    eventually("the release of the first file", || {
        !directory.file_path(1).exists()
    })
    .await;
    assert!(
        writer.state().broken.is_some(),
        "the release makes the room that may be missing"
    );
    writer.close().await.unwrap_err();
}

#[tokio::test]
async fn a_second_writer_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(settings(dir.path()));
    let error = Writer::open(settings(dir.path()), || 0).err().unwrap();
    assert!(error.to_string().contains("is held by"), "{error}");
    writer.close().await.unwrap();
    open(settings(dir.path())).close().await.unwrap();
}

fn only_file(dir: &Path) -> std::path::PathBuf {
    let directory = Directory::new(dir);
    directory.file_path(directory.files().unwrap().last().unwrap().number)
}

async fn written_buffer(dir: &Path) -> usize {
    let writer = open(settings(dir));
    for n in 0..10 {
        writer.append(vec![intent(n, 1_000)]).await.unwrap();
    }
    writer.close().await.unwrap();
    fs::metadata(only_file(dir)).unwrap().len() as usize
}

#[tokio::test]
async fn damage_is_reported_and_what_follows_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written_buffer(dir.path()).await;
    let mut file = fs::read(only_file(dir.path())).unwrap();
    file[bytes / 2] ^= 0x40;
    fs::write(only_file(dir.path()), file).unwrap();
    let (frames, other) = read(&mut reader(dir.path()), usize::MAX).await;
    let damage: Vec<_> = other
        .iter()
        .filter(|event| matches!(event, Event::Damage(_)))
        .collect();
    assert!(!damage.is_empty(), "{other:?}");
    assert_eq!(
        frames.len(),
        10,
        "ten of eleven frames are whole: {other:?} {:?}",
        frames.iter().map(|read| read.position.lsn).collect::<Vec<_>>()
    );
    assert!(matches!(
        frames.last().unwrap().frame,
        Frame::SessionClosed { .. }
    ));
}

#[tokio::test]
async fn a_torn_tail_ends_the_session_wherever_it_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = written_buffer(dir.path()).await;
    let whole = fs::read(only_file(dir.path())).unwrap();
    for cut in (0..bytes).step_by(173) {
        fs::write(only_file(dir.path()), &whole[..cut]).unwrap();
        let (frames, other) = read(&mut reader(dir.path()), usize::MAX).await;
        assert!(frames.len() <= 10);
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(n, read)| read.position.lsn.0 == n as u64 + 1)
        );
        assert!(
            !other.iter().any(|event| matches!(event, Event::Damage(_))),
            "a tear is no damage: {other:?}"
        );
        assert!(matches!(other.last(), Some(Event::End { .. })));
    }
}

#[tokio::test]
async fn a_file_whose_header_is_lost_is_kept_until_its_frames_are_archived() {
    let dir = tempfile::tempdir().unwrap();
    written_buffer(dir.path()).await;
    let path = only_file(dir.path());
    let mut file = fs::read(&path).unwrap();
    file[10] ^= 0x40;
    fs::write(&path, file).unwrap();
    Directory::new(dir.path())
        .publish_archived(BufferPosition {
            session: SessionId(1),
            lsn: Lsn(3),
        })
        .unwrap();
    let writer = open(settings(dir.path()));
    let appended = writer.append(vec![intent(1, 10)]).await.unwrap();
    writer.wait_synced(appended.end()).await.unwrap();
    writer.close().await.unwrap();
    assert!(path.exists(), "frames 4 to 11 are not archived");
    let (frames, _) = read(&mut reader(dir.path()), usize::MAX).await;
    assert!(frames.iter().any(|read| read.position.session == SessionId(1)));
}

/// Of a writer that dies between the creation of a file and the sync of its header, an empty file stays.
#[tokio::test]
async fn a_file_that_was_made_and_never_written_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    written_buffer(dir.path()).await;
    fs::write(Directory::new(dir.path()).file_path(2), b"").unwrap();
    written_buffer(dir.path()).await;
    let adopted = ReaderOptions {
        poll: Duration::from_millis(1),
        adopted: true,
    };
    let mut reader = Reader::open(Directory::new(dir.path()), adopted);
    let (frames, other) = read(&mut reader, usize::MAX).await;
    assert_eq!(
        frames.len(),
        22,
        "the end was told with a session unread: {other:?}"
    );
}

#[tokio::test]
async fn a_file_that_was_made_and_never_written_releases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    written_buffer(dir.path()).await;
    let directory = Directory::new(dir.path());
    fs::write(directory.file_path(2), b"").unwrap();
    directory
        .publish_archived(BufferPosition {
            session: SessionId(1),
            lsn: Lsn(3),
        })
        .unwrap();
    open(settings(dir.path())).close().await.unwrap();
    assert!(directory.file_path(1).exists(), "frames 4 to 11 are not archived");
}

/// Files as the writer leaves them when a sync failed and the disk kept only a part of what was written before.
#[tokio::test]
async fn a_hole_in_a_file_whose_sync_failed_hides_nothing_that_was_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new(dir.path());
    let identity = directory.identity_or_create().unwrap();
    let write = |file_number: u64, first: u64, lsns: &[u64]| {
        let header = FileHeader {
            buffer_id: identity.buffer_id,
            session: SessionId(1),
            file_number,
            first_lsn: Lsn(first),
            created_at_ms: 1,
        };
        let mut bytes = BytesMut::from(&header.encode()[..]);
        for lsn in lsns {
            match lsn {
                0 => bytes.extend_from_slice(&[0; 400]),
                lsn => {
                    encode_frame(&intent(*lsn as usize, 300), SessionId(1), Lsn(*lsn), &mut bytes).unwrap()
                }
            }
        }
        fs::write(directory.file_path(file_number), bytes).unwrap();
    };
    for first_try in [&[1, 0, 3][..], &[1, 3], &[1, 0]] {
        write(1, 1, first_try);
        write(2, 2, &[2, 3, 4]);
        let (frames, other) = read(&mut reader(dir.path()), usize::MAX).await;
        let lsns: Vec<u64> = frames.iter().map(|read| read.position.lsn.0).collect();
        assert_eq!(lsns, [1, 2, 3, 4], "{first_try:?}: {other:?}");
        assert!(
            !other.iter().any(|event| matches!(event, Event::Damage(_))),
            "{other:?}"
        );
    }
    // What nobody wrote again is damage.
    write(1, 1, &[1, 0, 3]);
    write(2, 4, &[4]);
    let (frames, other) = read(&mut reader(dir.path()), usize::MAX).await;
    assert_eq!(frames.len(), 3);
    assert!(
        other.iter().any(|event| matches!(event, Event::Damage(_))),
        "{other:?}"
    );
}
