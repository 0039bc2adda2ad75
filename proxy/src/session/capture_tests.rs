//! What sessions capture: intents, outcomes, ends of transactions, and what happens when that cannot be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};
use kafka_protocol::protocol::{Encodable, StrBytes};
use teeline_archive::buffer::Frame;
use teeline_archive::ids::Lsn;
use teeline_config::cluster::OnFailure;
use teeline_config::pattern::TopicPattern;
use teeline_wire::apis;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::testing::{Choices, NODE_ID, Stage, batch, correlation_of, produce, produced, request, response};
use crate::buffer::SyncMode;
use crate::leaders::Leader;

pub(super) fn kinds(frames: &[Frame]) -> Vec<&'static str> {
    let kind = |frame: &Frame| match frame {
        Frame::Intent(_) => "intent",
        Frame::Outcome(_) => "outcome",
        Frame::ConnectionLost(_) => "lost",
        Frame::EndTxn(_) => "end",
        Frame::Catalog(_) => "catalog",
        Frame::SessionClosed { .. } => "closed",
        _ => "other",
    };
    frames.iter().map(kind).collect()
}

#[tokio::test]
async fn an_answer_reaches_the_client_once_its_batch_is_durable() {
    // Syncs come late, so that an answer that were not held would come first.
    let sync = SyncMode::Every(Duration::from_millis(300));
    let mut stage = Stage::with(Choices {
        sync,
        ..Choices::default()
    })
    .await;
    let sent = produce(9, 1, -1, &[("t", 3, batch(1))]);
    stage.client.send(&sent).await;
    assert_eq!(stage.broker.receive().await, sent, "forwarded as received");
    let answer = produced(9, 1, &[("t", 3, 0, 42)]);
    stage.broker.send(&answer).await;
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.capture().writer().state().synced.lsn >= Lsn(1));
    let frames = stage.frames().await;
    assert_eq!(kinds(&frames), ["intent", "outcome", "closed"]);
    let (Frame::Intent(intent), Frame::Outcome(outcome)) = (&frames[0], &frames[1]) else {
        panic!()
    };
    assert_eq!(
        (intent.records.clone(), intent.partition, intent.connection_id),
        (batch(1), 3, 7)
    );
    assert_eq!(intent.topic.name.as_deref(), Some("t"));
    assert_eq!(
        (outcome.intent, outcome.base_offset, outcome.error_code),
        (Lsn(1), 42, 0)
    );
}

#[tokio::test]
async fn an_outcome_tells_the_epoch_of_the_broker_that_answered_if_it_leads() {
    let mut stage = Stage::set().await;
    let leader = |partition, node_id| Leader {
        partition,
        node_id,
        epoch: 5,
    };
    let leaders = [leader(0, NODE_ID), leader(1, NODE_ID + 1)];
    let known = &stage.capture().topics.leaders;
    known.learn(&"t".into(), Uuid::from_u128(7), leaders.into_iter());
    let batches: Vec<_> = (0..3).map(|partition| ("t", partition, batch(1))).collect();
    stage.client.send(&produce(9, 1, -1, &batches)).await;
    stage.broker.receive().await;
    let answer = produced(9, 1, &[("t", 0, 0, 42), ("t", 1, 0, 42), ("t", 2, 0, 42)]);
    stage.broker.send(&answer).await;
    stage.client.receive().await;
    let frames = stage.frames().await;
    let epochs = frames.iter().filter_map(|frame| match frame {
        Frame::Outcome(outcome) => Some(outcome.leader_epoch),
        _ => None,
    });
    assert_eq!(epochs.collect::<Vec<_>>(), [5, -1, -1]);
}

#[tokio::test]
async fn requests_without_acknowledgement_have_no_answer_and_stay_unresolved() {
    let mut stage = Stage::set().await;
    stage.client.send(&produce(9, 1, 0, &[("t", 0, batch(1))])).await;
    stage
        .client
        .send(&request(apis::LIST_OFFSETS, 1, 2, b"body"))
        .await;
    stage.broker.receive().await;
    assert_eq!(correlation_of(&stage.broker.receive().await, true), 2);
    let answer = response(apis::LIST_OFFSETS, 1, 2, b"answer");
    stage.broker.send(&answer).await;
    assert_eq!(stage.client.receive().await, answer);
    assert_eq!(kinds(&stage.frames().await), ["intent", "lost", "closed"]);
}

#[tokio::test]
async fn after_the_client_hung_up_the_outcome_is_still_recorded() {
    let mut stage = Stage::set().await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    stage.client.0.set_zero_linger().unwrap();
    let (elsewhere, _kept) = tokio::io::duplex(1);
    drop((
        std::mem::replace(&mut stage.client.0, unconnected().await),
        elsewhere,
    ));
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.broker.send(&produced(9, 1, &[("t", 0, 0, 5)])).await;
    assert!(stage.broker.rest().await.is_empty());
    assert_eq!(kinds(&stage.frames().await), ["intent", "outcome", "closed"]);
}

async fn unconnected() -> tokio::net::TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn when_the_broker_goes_the_client_is_closed_and_the_batch_is_unresolved() {
    let mut stage = Stage::set().await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    stage.broker.0.shutdown().await.unwrap();
    assert!(stage.client.rest().await.is_empty());
    assert_eq!(kinds(&stage.frames().await), ["intent", "lost", "closed"]);
}

#[tokio::test]
async fn an_error_with_a_base_offset_is_recorded_and_stays_unresolved() {
    let mut stage = Stage::set().await;
    stage
        .client
        .send(&produce(9, 1, -1, &[("t", 0, batch(1)), ("t", 1, batch(2))]))
        .await;
    stage.broker.receive().await;
    stage
        .broker
        .send(&produced(9, 1, &[("t", 1, 7, 90), ("t", 0, 19, -1)]))
        .await;
    stage.client.receive().await;
    let frames = stage.frames().await;
    assert_eq!(
        kinds(&frames),
        ["intent", "intent", "outcome", "outcome", "lost", "closed"]
    );
    let (Frame::Outcome(first), Frame::Outcome(second)) = (&frames[2], &frames[3]) else {
        panic!()
    };
    assert_eq!(
        (first.intent, first.error_code, first.base_offset),
        (Lsn(2), 7, 90)
    );
    assert_eq!(
        (second.intent, second.error_code, second.base_offset),
        (Lsn(1), 19, -1)
    );
}

#[tokio::test]
async fn only_the_last_entry_of_a_partition_and_only_wanted_topics_are_captured() {
    let mut choices = Choices::default();
    choices.capture.exclude = vec![TopicPattern::parse("hidden").unwrap()];
    let mut stage = Stage::with(choices).await;
    let mut old = batch(9).to_vec();
    old[16] = 1;
    let entries = [
        ("t", 0, batch(1)),
        ("hidden", 0, batch(2)),
        ("t", 1, Bytes::from(old)),
        ("t", 2, Bytes::from_static(b"no batch")),
        ("t", 0, batch(3)),
        ("t", 3, Bytes::from([batch(4).as_ref(), b"trailing"].concat())),
    ];
    let sent = produce(9, 1, -1, &entries);
    stage.client.send(&sent).await;
    assert_eq!(stage.broker.receive().await, sent);
    stage
        .broker
        .send(&produced(
            9,
            1,
            &[("t", 0, 0, 1), ("hidden", 0, 0, 1), ("t", 3, 0, 1)],
        ))
        .await;
    stage.client.receive().await;
    let frames = stage.frames().await;
    assert_eq!(
        kinds(&frames),
        ["intent", "intent", "outcome", "outcome", "closed"]
    );
    let records: Vec<Bytes> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Intent(intent) => Some(intent.records.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(records, [batch(3), batch(4)]);
}

#[tokio::test]
async fn nothing_is_captured_before_authentication_succeeded() {
    let mut choices = Choices {
        open: false,
        ..Choices::default()
    };
    choices.capture.hold_max_ms = 100;
    let mut stage = Stage::with(choices).await;
    let tell = |correlation_id| produce(9, correlation_id, 0, &[("t", 0, batch(correlation_id as u8))]);
    stage.client.send(&tell(1)).await;
    stage.broker.receive().await;
    for (version, error) in [(1, 58_i16), (2, 0)] {
        let mut name = BytesMut::new();
        name.put_i16(5);
        name.put_slice(b"PLAIN");
        stage
            .client
            .send(&request(apis::SASL_HANDSHAKE, 1, 10, &name))
            .await;
        stage.broker.receive().await;
        stage
            .broker
            .send(&response(apis::SASL_HANDSHAKE, 1, 10, &[0, 0, 0, 0, 0, 0]))
            .await;
        stage.client.receive().await;
        stage.client.send(&tell(2)).await;
        stage.broker.receive().await;
        stage
            .client
            .send(&request(apis::SASL_AUTHENTICATE, version, 11, b"secret"))
            .await;
        stage.broker.receive().await;
        stage
            .broker
            .send(&response(
                apis::SASL_AUTHENTICATE,
                version,
                11,
                &error.to_be_bytes(),
            ))
            .await;
        stage.client.receive().await;
        stage.client.send(&tell(3)).await;
        stage.broker.receive().await;
    }
    let frames = stage.frames().await;
    assert_eq!(kinds(&frames), ["intent", "lost", "closed"]);
    let Frame::Intent(intent) = &frames[0] else {
        panic!()
    };
    assert_eq!(intent.records, batch(3));
}

#[tokio::test]
async fn a_producer_that_comes_before_the_first_poll_is_captured_after_it() {
    let mut stage = Stage::with(Choices {
        open: false,
        ..Choices::default()
    })
    .await;
    stage.client.send(&produce(9, 1, 0, &[("t", 0, batch(1))])).await;
    let early = tokio::time::timeout(Duration::from_millis(100), stage.broker.receive()).await;
    assert!(early.is_err(), "held until it is known whether to capture");
    stage.cluster.live.load().upstream.openness.seen_open();
    stage.broker.receive().await;
    assert_eq!(kinds(&stage.frames().await), ["intent", "lost", "closed"]);
}

#[tokio::test]
async fn without_any_poll_the_policy_decides_about_an_early_producer() {
    for on_failure in [OnFailure::Closed, OnFailure::Open] {
        let mut choices = Choices {
            open: false,
            ..Choices::default()
        };
        choices.capture.on_failure = on_failure;
        choices.capture.hold_max_ms = 100;
        let mut stage = Stage::with(choices).await;
        let began = Instant::now();
        stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
        if on_failure == OnFailure::Open {
            stage.broker.receive().await;
            stage.broker.send(&produced(9, 1, &[("t", 0, 0, 8)])).await;
        }
        let answer = stage.client.receive().await;
        assert!(began.elapsed() >= Duration::from_millis(100));
        let outcomes = teeline_wire::produce::parse_response(9, &answer.slice(9..)).unwrap();
        let expected = if on_failure == OnFailure::Open { 0 } else { 19 };
        assert_eq!(outcomes[0].error_code, expected);
        assert_eq!(kinds(&stage.frames().await), ["closed"]);
    }
}

#[tokio::test]
async fn names_that_no_broker_can_have_pass_and_leave_no_trace() {
    let mut stage = Stage::set().await;
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "ü", long.as_str()] {
        let sent = produce(9, 1, 0, &[(name, 0, batch(1))]);
        stage.client.send(&sent).await;
        assert_eq!(stage.broker.receive().await, sent);
    }
    assert!(stage.capture().topics.take_traffic().is_empty());
    assert_eq!(kinds(&stage.frames().await), ["closed"]);
}

#[tokio::test]
async fn the_end_of_a_connection_that_panicked_is_written_by_the_poller() {
    let stage = Stage::set().await;
    stage.capture().connection_panicked(5);
    stage.capture().write_lost().await;
    stage.capture().write_lost().await;
    let frames = stage.frames().await;
    assert_eq!(kinds(&frames), ["lost", "closed"]);
    let Frame::ConnectionLost(lost) = &frames[0] else {
        panic!()
    };
    assert_eq!(lost.connection_id, 5);
}

#[tokio::test]
async fn a_full_buffer_refuses_or_lets_pass_as_the_policy_says() {
    for on_failure in [OnFailure::Closed, OnFailure::Open] {
        let mut choices = Choices {
            buffer_bytes_max: 1,
            ..Choices::default()
        };
        choices.capture.on_failure = on_failure;
        choices.capture.hold_max_ms = 100;
        let mut stage = Stage::with(choices).await;
        stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
        stage.client.send(&produce(9, 2, -1, &[("t", 0, batch(1))])).await;
        stage.broker.receive().await;
        stage.broker.send(&response(apis::LIST_OFFSETS, 1, 1, b"a")).await;
        stage.client.receive().await;
        if on_failure == OnFailure::Open {
            stage.broker.receive().await;
            stage.broker.send(&produced(9, 2, &[("t", 0, 0, 8)])).await;
        }
        let answer = stage.client.receive().await;
        let outcomes = teeline_wire::produce::parse_response(9, &answer.slice(9..)).unwrap();
        let expected = if on_failure == OnFailure::Open { 0 } else { 19 };
        assert_eq!(outcomes[0].error_code, expected);
        assert_eq!(kinds(&stage.frames().await), ["closed"]);
    }
}

#[tokio::test]
async fn the_end_of_a_transaction_is_recorded_when_it_succeeded() {
    let mut stage = Stage::set().await;
    for (correlation_id, error_code) in [(1, 51), (2, 0)] {
        let message = EndTxnRequest::default()
            .with_transactional_id(StrBytes::from_static_str("tx").into())
            .with_producer_id(ProducerId(5))
            .with_producer_epoch(6)
            .with_committed(true);
        let mut body = BytesMut::new();
        message.encode(&mut body, 3).unwrap();
        stage
            .client
            .send(&request(apis::END_TXN, 3, correlation_id, &body))
            .await;
        stage.broker.receive().await;
        let mut body = BytesMut::new();
        EndTxnResponse::default()
            .with_error_code(error_code)
            .encode(&mut body, 3)
            .unwrap();
        stage
            .broker
            .send(&response(apis::END_TXN, 3, correlation_id, &body))
            .await;
        assert_eq!(stage.client.receive().await.slice(13..).get_i16(), error_code);
    }
    let frames = stage.frames().await;
    assert_eq!(kinds(&frames), ["end", "closed"]);
    let Frame::EndTxn(end) = &frames[0] else { panic!() };
    assert_eq!(
        (end.transactional_id.as_str(), end.producer_id, end.committed),
        ("tx", 5, true)
    );
}
