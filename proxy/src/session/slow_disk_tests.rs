//! What becomes of answers, and of requests, while the disk is behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use teeline_archive::ids::{BufferPosition, Lsn};
use teeline_config::cluster::OnFailure;
use tokio::time::Instant;

use super::capture_tests::kinds;
use super::outbox::Gate;
use super::testing::{Choices, Stage, batch, produce, produced, wait_until};
use crate::buffer::SyncMode;

/// A disk that syncs so seldom, and how long an answer may wait for it.
fn behind(sync_seconds: u64, hold_max_ms: u64) -> Choices {
    let mut choices = Choices {
        sync: SyncMode::Every(Duration::from_secs(sync_seconds)),
        ..Choices::default()
    };
    choices.capture.hold_max_ms = hold_max_ms;
    choices
}

#[tokio::test]
async fn a_disk_that_is_too_slow_holds_nobody_for_long_when_the_policy_is_open() {
    let mut stage = Stage::with(behind(5, 300)).await;
    let began = Instant::now();
    for correlation_id in 0..4 {
        stage
            .client
            .send(&produce(9, correlation_id, -1, &[("t", 0, batch(1))]))
            .await;
        stage.broker.receive().await;
        stage
            .broker
            .send(&produced(9, correlation_id, &[("t", 0, 0, 8)]))
            .await;
        stage.client.receive().await;
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "the first answer is held");
    assert!(
        took < Duration::from_millis(1200),
        "the others are not, while the disk is behind: {took:?}"
    );
}

#[tokio::test]
async fn a_disk_that_is_back_holds_answers_again_whoever_was_let_out_meanwhile() {
    const HOLD_MAX: Duration = Duration::from_millis(200);
    let mut stage = Stage::with(behind(3, 200)).await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    let capture = stage.capture();
    let synced_next = capture.writer().last_assigned();
    let hold = async |position| {
        let since = Instant::now();
        capture.hold(Gate { position, since }).await;
        since.elapsed()
    };
    assert!(hold(synced_next).await >= HOLD_MAX, "the disk is behind");
    // It will not be durable within this test.
    let far = BufferPosition {
        lsn: Lsn(synced_next.lsn.0 + 100),
        ..synced_next
    };
    hold(far).await;
    capture.writer().wait_synced(synced_next).await.unwrap();
    assert!(hold(far).await >= HOLD_MAX, "the disk is no longer behind");
}

#[tokio::test]
async fn an_answer_that_waits_for_the_disk_leaves_before_a_proxy_that_drains() {
    let mut stage = Stage::with(Choices {
        // Longer than who waits for nothing is given.
        sync: SyncMode::Every(Duration::from_secs(4)),
        ..Choices::default()
    })
    .await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    let answer = produced(9, 1, &[("t", 0, 0, 8)]);
    stage.broker.send(&answer).await;
    wait_until("the outcome to be noted", || {
        stage.capture().writer().last_assigned().lsn >= Lsn(2)
    })
    .await;
    stage.cluster.stop.drain.trigger();
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.capture().writer().state().synced.lsn >= Lsn(1));
}

#[tokio::test]
async fn a_disk_that_is_too_slow_refuses_what_is_new_when_the_policy_is_closed() {
    let mut choices = behind(2, 200);
    choices.capture.on_failure = OnFailure::Closed;
    let mut stage = Stage::with(choices).await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    let answer = produced(9, 1, &[("t", 0, 0, 8)]);
    stage.broker.send(&answer).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    stage.client.send(&produce(9, 2, -1, &[("t", 0, batch(2))])).await;
    assert_eq!(
        stage.client.receive().await,
        answer,
        "what was forwarded gets the broker's own answer"
    );
    assert!(
        stage.capture().writer().state().synced.lsn >= Lsn(1),
        "and not before it is durable"
    );
    let refused = stage.client.receive().await;
    let outcomes = teeline_wire::produce::parse_response(9, &refused.slice(9..)).unwrap();
    assert_eq!(outcomes[0].error_code, 19);
    assert_eq!(kinds(&stage.frames().await), ["intent", "outcome", "closed"]);
}
