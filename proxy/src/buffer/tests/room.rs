//! Room comes back by a sync, whenever that is due.

use super::*;
use crate::session::testing::wait_until;

/// Little room, and no sync that is due.
fn open_small(dir: &Path) -> Writer {
    open(WriterSettings {
        mode: SyncMode::Every(Duration::from_secs(3600)),
        pending_bytes_max: 10_000,
        ..settings(dir)
    })
}

async fn in_time(append: impl Future<Output = Result<Appended, AppendError>>) {
    let appended = tokio::time::timeout(DEADLINE, append).await;
    appended.expect("room").unwrap();
}

#[tokio::test]
async fn what_waits_for_its_time_to_be_synced_does_not_keep_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open_small(dir.path());
    for n in 0..20 {
        in_time(writer.append(vec![intent(n, 9_000)])).await;
        assert!(writer.state().pending_bytes <= 10_000);
    }
    // Small frames take more of the room than of the disk.
    for _ in 0..200 {
        let session = writer.last_assigned().session;
        in_time(writer.append_outcomes(session, vec![outcome(Lsn(1))])).await;
    }
}

#[tokio::test]
async fn who_needs_the_whole_room_does_not_wait_for_the_time_of_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open_small(dir.path());
    let bytes = || -> u64 {
        let files = fs::read_dir(dir.path()).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let (before, session) = (bytes(), writer.last_assigned().session);
    let outcomes = vec![outcome(Lsn(1))];
    writer.append_outcomes(session, outcomes).await.unwrap();
    // It is written after a while, and then only the sync to come keeps the room.
    wait_until("the outcome to be written", || bytes() > before).await;
    in_time(writer.append(vec![intent(1, 10_000)])).await;
}
