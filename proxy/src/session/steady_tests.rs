//! What peers can make a session hold, and for how long.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use teeline_config::cluster::Capture as CaptureSettings;
use teeline_wire::apis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::{Choices, Stage, request, response, wait_until};

/// A Metadata answer of so many topics, each of about a hundred bytes.
fn metadata(topics: usize) -> Bytes {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(3))
        .with_host(StrBytes::from_static_str("broker-3.internal"))
        .with_port(9092);
    let topics = (0..topics).map(|number| {
        let name = StrBytes::from_string(format!("a-topic-with-a-long-name-{number:080}"));
        MetadataResponseTopic::default().with_name(Some(TopicName(name)))
    });
    let message = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_topics(topics.collect());
    let mut body = BytesMut::new();
    message.encode(&mut body, 12).unwrap();
    response(apis::METADATA, 12, 1, &body)
}

async fn asked_for_metadata(choices: Choices) -> Stage {
    let mut stage = Stage::with(choices).await;
    let ask = request(apis::METADATA, 12, 1, b"unread");
    stage.client.send(&ask).await;
    stage.broker.receive().await;
    stage
}

#[tokio::test]
async fn a_large_metadata_answer_passes_while_it_arrives_and_is_rewritten_all_the_same() {
    let mut stage = asked_for_metadata(Choices {
        in_flight_bytes: 1 << 20,
        ..Choices::default()
    })
    .await;
    let answer = metadata(150_000);
    let (first, rest) = answer.split_at(64 * 1024);
    stage.broker.send(first).await;
    let mut start = vec![0; 32 * 1024];
    let reading = stage.client.0.read_exact(&mut start);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("the beginning passes before the end has come")
        .unwrap();
    let rest = rest.to_vec();
    let sending = tokio::spawn(async move {
        stage.broker.send(&rest).await;
        stage.broker
    });
    let length = i32::from_be_bytes(*start.first_chunk().unwrap()) as usize;
    let mut frame = start;
    frame.resize(length + 4, 0);
    let reading = stage.client.0.read_exact(&mut frame[32 * 1024..]);
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("all of it passes")
        .unwrap();
    let message = MetadataResponse::decode(&mut &frame[9..], 12).unwrap();
    assert!(message.brokers[0].host.starts_with("127."));
    assert_eq!(message.topics.len(), 150_000);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn an_answer_that_is_read_whole_takes_room_until_the_client_has_it() {
    let mut stage = asked_for_metadata(Choices::default()).await;
    let answer = metadata(7_000);
    assert!((512 << 10..1 << 20).contains(&answer.len()), "{}", answer.len());
    let used = || stage.cluster.answer_bytes();
    stage.broker.send(&answer[..answer.len() - 1]).await;
    wait_until("most of it to be there", || used() > answer.len() / 2).await;
    assert!(used() <= answer.len() + (512 << 10), "{} bytes", used());
    stage.broker.send(&answer[answer.len() - 1..]).await;
    stage.client.receive().await;
    wait_until("the room to be given back", || used() == 0).await;
}

#[tokio::test]
async fn announcing_much_and_sending_little_holds_little() {
    let mut stage = Stage::set().await;
    let mut head = super::testing::produce(9, 1, -1, &[("t", 0, Bytes::from(vec![0; 100]))]).to_vec();
    head[..4].copy_from_slice(&(90_i32 << 20).to_be_bytes());
    stage.client.send(&head[..40]).await;
    wait_until("it to be read", || stage.cluster.in_flight_bytes() > 0).await;
    assert!(
        stage.cluster.in_flight_bytes() <= 8 * 1024,
        "{}",
        stage.cluster.in_flight_bytes()
    );
}

#[tokio::test]
async fn whatever_of_a_request_drips_its_connection_is_closed() {
    let passing = request(apis::LIST_OFFSETS, 1, 1, &[0; 2_000]);
    let whole = super::testing::produce(9, 1, -1, &[("t", 0, Bytes::from(vec![0; 2_000]))]);
    for (what, begun, enabled) in [
        ("half a length", &passing[..2], true),
        ("half a header", &passing[..9], true),
        ("a request that passes", &passing[..100], true),
        ("a request that is read whole", &whole[..100], true),
        ("Produce that passes", &whole[..100], false),
    ] {
        let mut stage = Stage::with(Choices {
            idle_timeout: Duration::from_millis(1_200),
            capture: CaptureSettings {
                enabled,
                ..CaptureSettings::default()
            },
            ..Choices::default()
        })
        .await;
        stage.client.send(begun).await;
        let began = Instant::now();
        // A byte now and then: the connection is not idle. Nothing may come of it.
        let mut rest = [0; 1];
        loop {
            let _ = stage.client.0.write_all(&[1]).await;
            let read = stage.client.0.read(&mut rest);
            match tokio::time::timeout(Duration::from_millis(250), read).await {
                Ok(_closed) => break,
                Err(_nothing) => assert!(began.elapsed() < Duration::from_secs(10), "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_only_ended_its_own_side_gets_all_of_its_answers() {
    let mut stage = Stage::set().await;
    stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
    stage.broker.receive().await;
    stage.client.0.shutdown().await.unwrap();
    // Longer than an end is waited for when nothing moves.
    let answer = response(apis::LIST_OFFSETS, 1, 1, &[7; 80]);
    for piece in answer.chunks(20) {
        stage.broker.send(piece).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.client.rest().await.is_empty());
}

#[tokio::test]
async fn an_answer_that_has_begun_comes_to_its_end_while_the_proxy_drains() {
    let mut stage = Stage::set().await;
    stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
    stage.broker.receive().await;
    let answer = response(apis::LIST_OFFSETS, 1, 1, &[7; 80]);
    let mut pieces = answer.chunks(20);
    stage.broker.send(pieces.next().unwrap()).await;
    stage.cluster.stop.drain.trigger();
    for piece in pieces {
        tokio::time::sleep(Duration::from_millis(900)).await;
        stage.broker.send(piece).await;
    }
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.client.rest().await.is_empty());
}

/// Clients that see an orderly end instead of a first answer take it for a refusal of their security set-up, and give up.
#[tokio::test]
async fn who_never_got_beyond_the_greeting_is_reset_as_if_there_were_no_broker_and_who_did_is_not() {
    for asked in [None, Some(apis::API_VERSIONS), Some(apis::LIST_OFFSETS)] {
        for broker_fails in [false, true] {
            let mut stage = Stage::set().await;
            if let Some(api_key) = asked {
                stage.client.send(&request(api_key, 1, 1, b"a")).await;
                stage.broker.receive().await;
                stage.broker.send(&response(api_key, 1, 1, &[0; 10])).await;
                stage.client.receive().await;
            }
            if broker_fails {
                stage.broker.0.set_zero_linger().unwrap();
                drop(stage.broker);
            } else {
                stage.cluster.stop.drain.trigger();
            }
            let end = stage.client.0.read(&mut [0; 16]).await;
            let served = asked == Some(apis::LIST_OFFSETS);
            let expected = if served {
                Ok(0)
            } else {
                Err(ErrorKind::ConnectionReset)
            };
            let context = format!("asked {asked:?}, the broker fails {broker_fails}");
            assert_eq!(end.map_err(|error| error.kind()), expected, "{context}");
        }
    }
}

#[tokio::test]
async fn answers_of_our_own_wait_like_others_for_a_client_that_reads() {
    let mut stage = Stage::set().await;
    let asks: Vec<u8> = (0..900)
        .flat_map(|number| request(apis::API_VERSIONS, 99, number, b"unread"))
        .collect();
    stage.client.send(&asks).await;
    for number in 0..900 {
        assert_eq!(
            super::testing::correlation_of(&stage.client.receive().await, false),
            number
        );
    }
}

#[tokio::test]
async fn what_a_broker_said_before_it_ended_its_side_reaches_the_client() {
    let mut stage = Stage::set().await;
    let ask = request(apis::LIST_OFFSETS, 1, 1, b"a");
    stage.client.send(&ask).await;
    stage.client.send(&ask).await;
    stage.broker.receive().await;
    let answer = response(apis::LIST_OFFSETS, 1, 1, &[7; 200_000]);
    let both = [&answer[..], &answer[..1_000]].concat();
    let broker = &mut stage.broker.0;
    broker.write_all(&both).await.unwrap();
    broker.shutdown().await.unwrap();
    let got = stage.client.rest().await;
    assert_eq!(got.len(), both.len());
    assert_eq!(got, both);
}
