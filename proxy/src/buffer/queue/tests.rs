//! When what waits is taken.
#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use teeline_archive::buffer::{EndTxn, Intent, Outcome, TopicRef};
use teeline_archive::ids::WriterId;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
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

/// Whether the thread, asleep until then and at rest for as long, is woken by a frame.
async fn wakes(shared: &Shared, until: Instant, frame: Frame) -> bool {
    {
        let mut queue = lock(&shared.queue);
        (queue.rests_until, queue.sleeps_until) = (Some(until), Some(until));
    }
    append(shared, frame).await;
    lock(&shared.queue).sleeps_until != Some(until)
}

#[tokio::test]
async fn who_needs_it_sooner_wakes_the_thread_that_another_was_to_wake() {
    let shared = shared(SyncMode::OnAppend, 8 << 20);
    let asleep = Instant::now() + Duration::from_secs(60);
    lock(&shared.queue).sleeps_until = Some(asleep);
    append(&shared, outcome()).await;
    let outcome_due = lock(&shared.queue).sleeps_until;
    assert!(outcome_due < Some(asleep));
    append(&shared, intent(100)).await;
    assert!(lock(&shared.queue).sleeps_until < outcome_due);
}

#[tokio::test]
async fn what_came_while_the_disk_was_slow_does_not_wait_any_longer() {
    let shared = shared(SyncMode::Every(INTERVAL), 8 << 20);
    append(&shared, intent(100)).await;
    let mut queue = lock(&shared.queue);
    let rested = queue.since.unwrap() + Duration::from_nanos(1);
    queue.rests_until = Some(rested);
    assert_eq!(queue.due(shared.gathering), Some(rested));
}

#[tokio::test]
async fn a_thread_at_rest_is_woken_only_for_much() {
    let until = Instant::now() + Duration::from_secs(60);
    let shared = shared(SyncMode::Every(INTERVAL), 8 << 20);
    assert!(!wakes(&shared, until, intent(100)).await);
    assert!(wakes(&shared, until, intent(GATHERED_BYTES_MAX)).await);
}

#[tokio::test]
async fn an_outcome_waits_its_whole_time_for_the_next_intent() {
    let shared = shared(SyncMode::OnAppend, 8 << 20);
    append(&shared, intent(100)).await;
    let far = Instant::now() + Duration::from_secs(60);
    assert_eq!(shared.take(far).items.len(), 1);
    append(&shared, outcome()).await;
    assert_eq!(patience(&shared), Some(PATIENCE));
}

/// Takes until the buffer is closed. Tells what it took, and `None` where it was hurried.
fn thread(shared: &Arc<Shared>) -> (std::thread::JoinHandle<()>, UnboundedReceiver<Option<Lsn>>) {
    let (sender, taken) = unbounded_channel();
    let shared = shared.clone();
    let thread = std::thread::spawn(move || {
        loop {
            let taken = shared.take(Instant::now() + Duration::from_secs(600));
            for item in &taken.items {
                sender.send(Some(item.lsn)).unwrap();
            }
            if taken.hurried {
                sender.send(None).unwrap();
            }
            if taken.closing {
                break;
            }
        }
    });
    (thread, taken)
}

async fn next(taken: &mut UnboundedReceiver<Option<Lsn>>) -> Option<Lsn> {
    let next = tokio::time::timeout(Duration::from_secs(20), taken.recv()).await;
    next.expect("the thread was not woken").expect("the thread ended")
}

fn close(shared: &Shared, thread: std::thread::JoinHandle<()>) {
    lock(&shared.queue).phase = Phase::Closing;
    shared.wake.notify_one();
    thread.join().unwrap();
}

/// Waits until the thread is where it is wanted.
async fn until(is_there: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_there() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "the thread does not come to rest"
        );
        tokio::task::yield_now().await;
    }
}

/// A wake that is lost would leave a frame until the thread's deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_comes_is_taken_soon_at_work_at_rest_and_asleep() {
    for mode in [SyncMode::OnAppend, SyncMode::Every(INTERVAL)] {
        let shared = Arc::new(shared(mode, 8 << 20));
        let (thread, mut taken) = thread(&shared);
        let mut received = 0;
        for round in 0..300 {
            let reached = |least: Duration| {
                lock(&shared.queue)
                    .sleeps_until
                    .is_some_and(|until| until >= Instant::now() + least)
            };
            match round % 3 {
                0 => {}
                1 => until(|| reached(Duration::ZERO)).await,
                _ => until(|| reached(Duration::from_secs(60))).await,
            }
            append(&shared, outcome()).await;
            if round % 2 > 0 {
                append(&shared, intent(100)).await;
            }
            while received < shared.last_assigned().lsn.0 {
                received += u64::from(next(&mut taken).await.is_some());
            }
            if round % 4 == 2 {
                until(|| reached(Duration::from_secs(60))).await;
                shared.hurry();
                assert_eq!(next(&mut taken).await, None);
            }
        }
        close(&shared, thread);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_durable_batch_behind_an_outcome_is_taken_at_once() {
    let mut shared = shared(SyncMode::OnAppend, 8 << 20);
    // The outcome alone would not wake the thread before its deadline.
    shared.gathering.patience = Duration::from_secs(900);
    let shared = Arc::new(shared);
    let (thread, mut taken) = thread(&shared);
    until(|| lock(&shared.queue).sleeps_until.is_some()).await;
    append(&shared, outcome()).await;
    append(&shared, intent(100)).await;
    assert_eq!(next(&mut taken).await, Some(Lsn(1)));
    assert_eq!(next(&mut taken).await, Some(Lsn(2)));
    close(&shared, thread);
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
