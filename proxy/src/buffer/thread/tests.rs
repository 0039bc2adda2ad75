//! A buffer whose disk was full once, and has room again.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use teeline_archive::buffer::{Intent, TopicRef};

use super::super::{AppendError, Appended, Writer, WriterSettings};
use super::*;

const DEADLINE: Duration = Duration::from_secs(20);
const FILE_BYTES: u64 = 4 << 20;
const CONFIGURED_BYTES: u64 = 64 << 20;

/// A writer whose disk was found full when its files held so many bytes.
fn writer_on_a_disk_that_was_full(dir: &std::path::Path, held_bytes: u64) -> Writer {
    let directory = Directory::new(dir);
    let lock = directory.lock().unwrap();
    let identity = directory.identity_or_create().unwrap();
    let session = directory.next_session(SessionId(0)).unwrap();
    let positions = directory.open_positions().unwrap();
    directory.reserve_archived().unwrap();
    let settings = WriterSettings {
        dir: dir.to_owned(),
        max_bytes: CONFIGURED_BYTES,
        file_bytes: FILE_BYTES,
        mode: SyncMode::OnAppend,
        pending_bytes_max: 8 << 20,
    };
    let shared = Arc::new(Shared::new(identity, settings, session));
    let now_ms: NowMs = Box::new(|| 0);
    let mut thread = Thread::start(
        shared.clone(),
        directory,
        lock,
        positions,
        session,
        2,
        Vec::new(),
        now_ms,
    )
    .unwrap();
    // What it held then besides its active file is archived and released since.
    let earlier = ClosedFile {
        number: 1,
        bytes: held_bytes.saturating_sub(thread.used_bytes()),
        session,
        first_lsn: Lsn(1),
    };
    thread.closed.push_back(earlier);
    thread.note_full_disk(&BufferError::Io {
        action: "write",
        path: dir.to_owned(),
        source: std::io::ErrorKind::StorageFull.into(),
    });
    thread.closed.clear();
    thread.publish_usage();
    std::thread::spawn(move || thread.run());
    Writer { shared }
}

async fn append(writer: &Writer) -> Result<Appended, AppendError> {
    let intent = Frame::Intent(Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: 5,
        topic: TopicRef::by_name("orders"),
        partition: 0,
        transactional_id: None,
        records: Bytes::from(vec![7; 64 << 10]),
    });
    let appended = writer.append(vec![intent]).await?;
    writer.wait_synced(appended.end()).await.unwrap();
    Ok(appended)
}

async fn fill(writer: &Writer) -> Appended {
    let mut last = None;
    loop {
        match append(writer).await {
            Ok(appended) => last = Some(appended),
            Err(error) => {
                assert_eq!(error, AppendError::Full);
                return last.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_buffer_at_a_learnt_limit_below_one_file_goes_on_when_all_is_archived() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::new(dir.path());
    let writer = writer_on_a_disk_that_was_full(dir.path(), 6 << 20);
    for _ in 0..2 {
        let last = fill(&writer).await;
        let state = writer.state();
        assert_eq!(
            (state.max_bytes, state.configured_bytes),
            (3 << 20, CONFIGURED_BYTES)
        );
        let trouble = state.trouble().unwrap();
        assert!(
            trouble.contains("of 3145728 bytes, a limit learnt from a full disk"),
            "{trouble}"
        );
        // One frame of it is not archived: it stays, whatever files there are.
        let before = BufferPosition {
            lsn: Lsn(last.last.0 - 1),
            ..last.end()
        };
        directory.publish_archived(before).unwrap();
        tokio::time::sleep(RELEASE_EVERY * 4).await;
        assert!(writer.state().full, "the last frame is not archived");
        directory.publish_archived(last.end()).unwrap();
        let until = Instant::now() + DEADLINE;
        while writer.state().full {
            assert!(Instant::now() < until, "full for ever: {:?}", writer.state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(writer.state().trouble(), None);
    }
    append(&writer).await.unwrap();
    writer.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_was_full_under_an_idle_buffer_does_not_keep_it_from_capture() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer_on_a_disk_that_was_full(dir.path(), 0);
    assert_eq!(writer.state().used_bytes, FILE_HEADER_BYTES as u64);
    append(&writer).await.unwrap();
    assert!(!writer.state().full);
    writer.close().await.unwrap();
}
