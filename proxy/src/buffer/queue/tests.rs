//! When what waits is taken.
#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use teeline_archive::buffer::{EndTxn, Intent, Outcome, TopicRef};
use teeline_archive::ids::WriterId;
use uuid::Uuid;

use super::*;

const INTERVAL: Duration = Duration::from_millis(3);

fn shared(mode: SyncMode, pending_bytes_max: usize) -> Shared {
    let identity = BufferIdentity {
        buffer_id: Uuid::nil(),
        writer: WriterId(1),
    };
    let settings = WriterSettings {
        dir: "unused".into(),
        max_bytes: 64 << 20,
        file_bytes: 4 << 20,
        mode,
        pending_bytes_max,
    };
    Shared::new(identity, settings, SessionId(1))
}

fn intent(bytes: usize) -> Frame {
    Frame::Intent(Intent {
        connection_id: 1,
        acks: -1,
        sent_at_ms: 5,
        topic: TopicRef::by_name("orders"),
        partition: 0,
        transactional_id: None,
        records: Bytes::from(vec![7; bytes]),
    })
}

fn outcome() -> Frame {
    Frame::Outcome(Outcome {
        intent: Lsn(1),
        received_at_ms: 6,
        error_code: 0,
        base_offset: 0,
        log_append_time_ms: -1,
        log_start_offset: 0,
        leader_epoch: -1,
    })
}

fn transaction_end() -> Frame {
    Frame::EndTxn(EndTxn {
        transactional_id: "t".to_owned(),
        producer_id: 1,
        producer_epoch: 0,
        committed: true,
        at_ms: 7,
    })
}

async fn append(shared: &Shared, frame: Frame) {
    shared.append(None, vec![frame]).await.unwrap();
}

/// How long after the first of what waits all of it is taken.
fn patience(shared: &Shared) -> Option<Duration> {
    let queue = lock(&shared.queue);
    let due = queue.due(shared.gathering)?;
    Some(due.duration_since(queue.since.unwrap()))
}

#[tokio::test]
async fn a_durable_batch_is_taken_at_once_and_its_outcome_with_what_comes_next() {
    let shared = shared(SyncMode::OnAppend, 8 << 20);
    assert_eq!(patience(&shared), None);
    append(&shared, outcome()).await;
    assert_eq!(patience(&shared), Some(PATIENCE));
    append(&shared, intent(100)).await;
    assert_eq!(patience(&shared), Some(Duration::ZERO));
    let later = Instant::now() + Duration::from_secs(60);
    assert_eq!(shared.take(later).items.len(), 2);
    assert_eq!(patience(&shared), None);
    append(&shared, transaction_end()).await;
    assert_eq!(patience(&shared), Some(Duration::ZERO));
}

#[tokio::test]
async fn an_outcome_that_nothing_follows_is_taken_too() {
    let shared = shared(SyncMode::OnAppend, 8 << 20);
    append(&shared, outcome()).await;
    let since = Instant::now();
    let taken = shared.take(since + Duration::from_secs(60));
    assert_eq!(taken.items.len(), 1);
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn without_waiters_much_is_gathered_or_for_as_long_as_may_be_lost() {
    let shared = shared(SyncMode::Every(INTERVAL), 8 << 20);
    append(&shared, intent(64 << 10)).await;
    assert_eq!(patience(&shared), Some(INTERVAL));
    append(&shared, intent(GATHERED_BYTES_MAX)).await;
    assert_eq!(patience(&shared), Some(Duration::ZERO));
}

#[tokio::test]
async fn what_is_synced_seldom_is_written_soon_all_the_same() {
    let shared = shared(SyncMode::Every(Duration::from_secs(1)), 8 << 20);
    append(&shared, intent(100)).await;
    assert_eq!(patience(&shared), Some(PATIENCE));
}

#[tokio::test]
async fn who_waits_for_room_does_not_wait_for_more_to_come() {
    let shared = shared(SyncMode::Every(INTERVAL), 10_000);
    append(&shared, intent(1_000)).await;
    assert_eq!(patience(&shared), Some(INTERVAL));
    let mut blocked = pin!(shared.append(None, vec![intent(9_000)]));
    let mut context = Context::from_waker(Waker::noop());
    assert!(blocked.as_mut().poll(&mut context).is_pending());
    let since = Instant::now();
    let taken = shared.take(since + Duration::from_secs(60));
    assert!(since.elapsed() < Duration::from_secs(20));
    assert!(taken.hurried, "what was written before has to be synced, too");
    drop(taken);
    assert!(blocked.as_mut().poll(&mut context).is_ready());
}

#[tokio::test]
async fn an_appender_waits_for_room_instead_of_growing_the_queue() {
    let shared = shared(SyncMode::OnAppend, 10_000);
    append(&shared, intent(9_000)).await;
    {
        let mut second = pin!(shared.append(None, vec![intent(9_000)]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(
        shared.last_assigned().lsn,
        Lsn(1),
        "a dropped append has appended nothing"
    );
}
