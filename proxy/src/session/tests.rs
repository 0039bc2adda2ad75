//! How sessions pass, rewrite and refuse, between a client and a broker that the tests play.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use teeline_archive::buffer::Frame;
use teeline_config::ConnectionAge;
use teeline_config::cluster::Capture as CaptureSettings;
use teeline_wire::apis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::capture_tests::kinds;
use super::testing::{
    Choices, Stage, batch, correlation_of, produce, produced, request, response, wait_until,
};
use super::{LINGER_UNCAPTURED, QUIET_LOOK_EVERY, QUIET_LOOKS};

#[tokio::test]
async fn answers_of_our_own_keep_their_place_among_the_brokers() {
    let mut stage = Stage::set().await;
    stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
    stage
        .client
        .send(&request(apis::API_VERSIONS, 99, 2, b"unread"))
        .await;
    stage.client.send(&request(apis::LIST_OFFSETS, 1, 3, b"b")).await;
    assert_eq!(correlation_of(&stage.broker.receive().await, true), 1);
    assert_eq!(correlation_of(&stage.broker.receive().await, true), 3);
    stage.broker.send(&response(apis::LIST_OFFSETS, 1, 1, b"a")).await;
    stage.broker.send(&response(apis::LIST_OFFSETS, 1, 3, b"b")).await;
    let mut order = Vec::new();
    for _ in 0..3 {
        order.push(correlation_of(&stage.client.receive().await, false));
    }
    assert_eq!(order, [1, 2, 3]);
}

#[tokio::test]
async fn an_answer_out_of_order_or_unasked_ends_the_connection_and_is_not_passed_on() {
    for asked in [true, false] {
        let mut stage = Stage::set().await;
        if asked {
            stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
            stage.broker.receive().await;
        }
        stage
            .broker
            .send(&response(apis::LIST_OFFSETS, 1, 2, b"secret"))
            .await;
        assert!(stage.client.rest().await.is_empty());
    }
}

fn metadata(node_id: i32) -> BytesMut {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(node_id))
        .with_host(StrBytes::from_static_str("broker-7.internal"))
        .with_port(9092);
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
        .with_topic_id(Uuid::from_u128(9));
    let message = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_topics(vec![topic]);
    let mut body = BytesMut::new();
    message.encode(&mut body, 12).unwrap();
    body
}

#[tokio::test]
async fn clients_learn_the_proxys_addresses_and_the_buffer_the_topics_before_them() {
    let mut stage = Stage::set().await;
    stage
        .client
        .send(&request(apis::METADATA, 12, 1, b"unread"))
        .await;
    stage.broker.receive().await;
    stage
        .broker
        .send(&response(apis::METADATA, 12, 1, &metadata(3)))
        .await;
    let answer = stage.client.receive().await;
    let message = MetadataResponse::decode(&mut answer.slice(9..), 12).unwrap();
    assert!(message.brokers[0].host.starts_with("127."));
    assert_eq!(message.brokers[0].port, 9095);
    assert_eq!(
        stage.cluster.topology.upstream_of(3).unwrap().host,
        "broker-7.internal"
    );
    let frames = stage.frames().await;
    assert_eq!(kinds(&frames), ["catalog", "closed"]);
    let Frame::Catalog(catalog) = &frames[0] else {
        panic!()
    };
    assert_eq!(
        (catalog.topics[0].name.as_str(), catalog.topics[0].id),
        ("t", Uuid::from_u128(9))
    );
}

#[tokio::test]
async fn a_broker_that_does_not_fit_is_never_shown() {
    let mut stage = Stage::set().await;
    stage
        .client
        .send(&request(apis::METADATA, 12, 1, b"unread"))
        .await;
    stage.broker.receive().await;
    stage
        .broker
        .send(&response(apis::METADATA, 12, 1, &metadata(77)))
        .await;
    assert!(stage.client.rest().await.is_empty());
}

#[tokio::test]
async fn the_old_sasl_exchange_passes_and_kafka_goes_on_behind_it() {
    let mut stage = Stage::with(Choices {
        open: false,
        ..Choices::default()
    })
    .await;
    stage
        .client
        .send(&request(
            apis::SASL_HANDSHAKE,
            0,
            1,
            &[0, 5, b'P', b'L', b'A', b'I', b'N'],
        ))
        .await;
    stage.broker.receive().await;
    stage
        .broker
        .send(&response(apis::SASL_HANDSHAKE, 0, 1, &[0, 0, 0, 0, 0, 0]))
        .await;
    stage.client.receive().await;
    let token = Bytes::from_static(b"\0\0\0\x06\0user\0");
    stage.client.send(&token).await;
    assert_eq!(stage.broker.receive().await, token);
    stage.broker.send(&[0, 0, 0, 0]).await;
    assert_eq!(stage.client.receive().await, Bytes::from_static(&[0, 0, 0, 0]));
    stage.client.send(&produce(3, 2, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    stage.broker.send(&produced(3, 2, &[("t", 0, 0, 1)])).await;
    stage.client.receive().await;
    assert_eq!(kinds(&stage.frames().await), ["intent", "outcome", "closed"]);
}

#[tokio::test]
async fn what_is_no_request_closes_the_connection() {
    let malformed = [
        Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
        Bytes::from_static(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        Bytes::from_static(b"\x7f\xff\xff\xff\0\0\0\0"),
        Bytes::from_static(b"\xff\xff\xff\xff\0\0\0\0"),
        Bytes::from_static(b"\0\0\0\x03abc"),
        request(apis::PRODUCE, 99, 1, b""),
        request(apis::FETCH, 19, 1, b""),
        request(apis::PRODUCE, 9, 1, b"\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
    ];
    for bytes in malformed {
        let mut stage = Stage::set().await;
        stage.client.send(&bytes).await;
        assert!(stage.client.rest().await.is_empty());
        assert!(stage.broker.rest().await.is_empty(), "nothing of it is forwarded");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let idle_timeout = Duration::from_millis(400);
    let mut stage = Stage::with(Choices {
        idle_timeout,
        ..Choices::default()
    })
    .await;
    for correlation_id in 0..8 {
        stage
            .client
            .send(&request(apis::LIST_OFFSETS, 1, correlation_id, b"a"))
            .await;
        stage.broker.receive().await;
        stage
            .broker
            .send(&response(apis::LIST_OFFSETS, 1, correlation_id, b"a"))
            .await;
        stage.client.receive().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(stage.client.rest().await.is_empty());
}

async fn without_capture() -> Stage {
    Stage::with(Choices {
        capture: CaptureSettings {
            enabled: false,
            ..CaptureSettings::default()
        },
        ..Choices::default()
    })
    .await
}

#[tokio::test]
async fn where_nothing_is_captured_produce_passes_while_it_arrives_once_it_is_known_to_have_an_answer() {
    let mut stage = without_capture().await;
    for (version, acks) in [(3, 1), (3, -1), (9, -1), (12, 0), (7, 0), (13, 1)] {
        let asked = produce(version, 1, acks, &[("t", 0, vec![7; 300_000].into())]);
        for cut in [13, 17, 19, 21, 100, 200_000] {
            stage.client.send(&asked[..cut]).await;
            if acks != 0 && cut >= 100 {
                let mut first = vec![0; cut];
                stage.broker.0.read_exact(&mut first).await.unwrap();
                assert!(first == asked[..cut], "what is there is passed on at once");
                assert_eq!(stage.cluster.in_flight_bytes(), 0, "nothing is gathered");
                stage.client.send(&asked[cut..]).await;
                let mut rest = vec![0; asked.len() - cut];
                stage.broker.0.read_exact(&mut rest).await.unwrap();
                assert!(rest == asked[cut..]);
            } else {
                wait_until("its beginning to be read", || stage.cluster.in_flight_bytes() > 0).await;
                stage.client.send(&asked[cut..]).await;
                assert!(stage.broker.receive().await == asked);
                wait_until("the room to be given back", || {
                    stage.cluster.in_flight_bytes() == 0
                })
                .await;
            }
            if acks != 0 {
                let answer = produced(version, 1, &[("t", 0, 0, 5)]);
                stage.broker.send(&answer).await;
                assert_eq!(stage.client.receive().await, answer);
            }
        }
        // What has no answer left nothing behind that the next answer could be taken for.
        stage.client.send(&request(apis::LIST_OFFSETS, 1, 2, b"a")).await;
        stage.broker.receive().await;
        let answer = response(apis::LIST_OFFSETS, 1, 2, b"a");
        stage.broker.send(&answer).await;
        assert_eq!(stage.client.receive().await, answer);
    }
}

#[tokio::test]
async fn produce_whose_acks_cannot_be_found_is_refused_and_not_passed_on() {
    for wrong in [
        // Transactional ids that are longer than the request, and of a length that there is not.
        request(apis::PRODUCE, 3, 1, &[0x10, 0, 1, 2, 3]),
        request(apis::PRODUCE, 9, 1, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1]),
        request(apis::PRODUCE, 3, 1, &[0xFF, 0xFE, 0, 1, 0, 0]),
        request(apis::PRODUCE, 3, 1, &[]),
    ] {
        let mut stage = without_capture().await;
        stage.client.send(&wrong).await;
        assert!(stage.client.rest().await.is_empty());
        assert!(stage.broker.rest().await.is_empty());
    }
}

#[tokio::test]
async fn stopping_lets_a_produce_request_that_is_half_passed_on_finish() {
    let mut stage = without_capture().await;
    let asked = produce(9, 1, -1, &[("t", 0, vec![7; 100_000].into())]);
    stage.client.send(&asked[..50_000]).await;
    let mut first = vec![0; 50_000];
    stage.broker.0.read_exact(&mut first).await.unwrap();
    stage.cluster.stop.drain.trigger();
    stage.client.send(&asked[50_000..]).await;
    let mut rest = vec![0; asked.len() - 50_000];
    stage.broker.0.read_exact(&mut rest).await.unwrap();
    assert!([first, rest].concat() == asked);
    let answer = produced(9, 1, &[("t", 0, 0, 5)]);
    stage.broker.send(&answer).await;
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.client.rest().await.is_empty());
}

/// Of two Produce requests on a connection that ends, of which the broker has the first.
async fn assert_first_answered_and_second_not_forwarded(mut stage: Stage) {
    stage.client.send(&produce(9, 2, -1, &[("t", 0, batch(2))])).await;
    let answer = produced(9, 1, &[("t", 0, 0, 5)]);
    stage.broker.send(&answer).await;
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.client.rest().await.is_empty());
    assert!(stage.broker.rest().await.is_empty());
    assert_eq!(kinds(&stage.frames().await), ["intent", "outcome", "closed"]);
}

#[tokio::test]
async fn stopping_lets_what_is_in_flight_finish_and_takes_nothing_new() {
    let mut stage = Stage::set().await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    stage.cluster.stop.drain.trigger();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_first_answered_and_second_not_forwarded(stage).await;
}

#[tokio::test]
async fn who_waits_for_a_slow_answer_gets_it_although_the_proxy_stops() {
    let mut stage = Stage::set().await;
    stage.client.send(&request(apis::LIST_OFFSETS, 1, 1, b"a")).await;
    stage.broker.receive().await;
    stage.cluster.stop.drain.trigger();
    // Nothing moves for longer than those are waited for who hung up.
    tokio::time::sleep(LINGER_UNCAPTURED * 2 + Duration::from_millis(300)).await;
    let answer = response(apis::LIST_OFFSETS, 1, 1, b"a");
    stage.broker.send(&answer).await;
    assert_eq!(stage.client.receive().await, answer);
    assert!(stage.client.rest().await.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_old_ends_once_what_it_asked_is_answered() {
    let age = ConnectionAge {
        max: Duration::from_millis(200),
        jitter_percent: 0,
    };
    let mut stage = Stage::with(Choices {
        connection_age: Some(age),
        ..Choices::default()
    })
    .await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    // Old enough, and longer in flight than a quiet moment is waited for: the next request is not forwarded.
    tokio::time::sleep(Duration::from_millis(200) + QUIET_LOOK_EVERY * (QUIET_LOOKS + 20)).await;
    assert_first_answered_and_second_not_forwarded(stage).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the sizes of frames and of the pieces they arrive in, what is not understood passes unchanged.
    #[test]
    fn unknown_requests_and_answers_pass_byte_for_byte(
        sizes in proptest::collection::vec(0_usize..200_000, 1..12),
        piece in 1_usize..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::set().await;
            let Stage { client, broker, session, cluster, .. } = stage;
            let body = |size: usize| (0..size).map(|n| (n % 253) as u8).collect::<Vec<u8>>();
            let frames = |make: &dyn Fn(i32, &[u8]) -> Bytes| {
                sizes.iter().enumerate().map(|(n, size)| make(n as i32, &body(*size))).collect::<Vec<_>>().concat()
            };
            let requests = frames(&|n, body| request(900, 3, n, body));
            let responses = frames(&|n, body| response(900, 3, n, body));
            let (mut from_client, mut to_client) = client.0.into_split();
            let (mut from_proxy, mut to_proxy) = broker.0.into_split();
            let (asked, answered) = (requests.clone(), responses.clone());
            let client = tokio::spawn(async move {
                for piece in requests.chunks(piece) {
                    to_client.write_all(piece).await.unwrap();
                }
                let mut got = vec![0; responses.len()];
                tokio::io::AsyncReadExt::read_exact(&mut from_client, &mut got).await.unwrap();
                got
            });
            let mut got = vec![0; asked.len()];
            tokio::io::AsyncReadExt::read_exact(&mut from_proxy, &mut got).await.unwrap();
            assert_eq!(got, asked);
            for piece in answered.chunks(piece) {
                to_proxy.write_all(piece).await.unwrap();
            }
            assert_eq!(client.await.unwrap(), answered);
            drop((from_proxy, to_proxy));
            session.await.unwrap();
            cluster.capture.as_ref().unwrap().writer().close().await.unwrap();
        });
    }
}

fn own_login() -> teeline_config::Sasl {
    teeline_config::Sasl::Plain(teeline_config::Login {
        username: "proxy".to_owned(),
        password: teeline_config::Credential::Given(teeline_config::Secret::new("p")),
    })
}

#[tokio::test]
async fn where_the_proxy_speaks_for_its_clients_they_are_told_that_there_is_no_sasl() {
    let choices = Choices {
        sasl: Some(own_login()),
        open: false,
        ..Choices::default()
    };
    let mut stage = Stage::with(choices).await;
    let name = b"\0\x05PLAIN";
    let handshake = request(apis::SASL_HANDSHAKE, 1, 1, name);
    stage.client.send(&handshake).await;
    let answer = stage.client.receive().await;
    assert_eq!(correlation_of(&answer, false), 1);
    assert_eq!(answer.get(8..).unwrap(), [0, 34, 0, 0, 0, 0]);
    // Its batches are let in, and so they are captured at once.
    stage.client.send(&produce(9, 2, -1, &[("t", 0, batch(1))])).await;
    assert_eq!(correlation_of(&stage.broker.receive().await, true), 2);
    stage.broker.send(&produced(9, 2, &[("t", 0, 0, 5)])).await;
    stage.client.receive().await;
    // Another attempt ends the connection, and the broker never hears of it.
    stage
        .client
        .send(&request(apis::SASL_AUTHENTICATE, 1, 3, &[0, 0, 0, 0]))
        .await;
    assert!(stage.client.rest().await.is_empty());
    assert!(stage.broker.rest().await.is_empty());
    let frames = stage.frames().await;
    assert!(
        frames.iter().any(|frame| matches!(frame, Frame::Intent(_))),
        "{frames:?}"
    );
}

#[tokio::test]
async fn a_session_that_the_broker_limits_ends_between_two_requests_and_before_its_time() {
    let choices = Choices {
        sasl: Some(own_login()),
        lifetime: Some(Duration::from_secs(3)),
        ..Choices::default()
    };
    let mut stage = Stage::with(choices).await;
    stage.client.send(&produce(9, 1, -1, &[("t", 0, batch(1))])).await;
    stage.broker.receive().await;
    let began = std::time::Instant::now();
    stage.broker.send(&produced(9, 1, &[("t", 0, 0, 5)])).await;
    assert_eq!(correlation_of(&stage.client.receive().await, false), 1);
    assert!(stage.client.rest().await.is_empty());
    let took = began.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(3),
        "{took:?}"
    );
    stage.frames().await;
}
