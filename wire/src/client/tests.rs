#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

//! The client against a scripted broker at the other end of a pipe. The client against a real cluster is in
//! `tests/real_kafka.rs`.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::protocol::Encodable;
use teeline_config::{HostPort, KafkaEndpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::apis;
use crate::header::{RequestHeader, response_frame};

fn config() -> ClientConfig {
    let mut config = ClientConfig::new(KafkaEndpoint {
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(5),
        ..KafkaEndpoint::plaintext(vec![HostPort::new("127.0.0.1", 1)])
    });
    config.response_bytes_max = 10_000;
    config
}

/// The broker's end of a pipe.
struct Broker(DuplexStream);

struct Asked {
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    body: Bytes,
}

impl Broker {
    async fn asked(&mut self) -> Asked {
        let length = self.0.read_i32().await.unwrap();
        let mut frame = vec![0; length as usize];
        self.0.read_exact(&mut frame).await.unwrap();
        let header = RequestHeader::parse(&frame).unwrap();
        assert_eq!(header.client_id, Some("test"));
        Asked {
            api_key: header.api_key,
            api_version: header.api_version,
            correlation_id: header.correlation_id,
            body: Bytes::copy_from_slice(&frame[header.header_len..]),
        }
    }

    async fn answer(&mut self, asked: &Asked, body: &[u8]) {
        let frame = response_frame(asked.api_key, asked.api_version, asked.correlation_id, body).unwrap();
        self.0.write_all(&frame).await.unwrap();
    }

    async fn answer_versions(&mut self) {
        let asked = self.asked().await;
        assert_eq!((asked.api_key, asked.api_version), (apis::API_VERSIONS, 3));
        self.answer(&asked, &versions(3)).await;
    }
}

fn versions(version: i16) -> Bytes {
    let api = |key, max| {
        ApiVersion::default()
            .with_api_key(key)
            .with_min_version(0)
            .with_max_version(max)
    };
    let response = ApiVersionsResponse::default().with_api_keys(vec![
        api(apis::FETCH, 12),
        api(apis::API_VERSIONS, version),
        api(apis::METADATA, 3),
        api(apis::SASL_HANDSHAKE, 1),
        api(apis::SASL_AUTHENTICATE, 2),
    ]);
    let mut body = BytesMut::new();
    response.encode(&mut body, version).unwrap();
    body.freeze()
}

async fn connected_with(config: ClientConfig) -> (Connection, Broker) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut broker = Broker(theirs);
    let address = HostPort::new("broker", 9092);
    let (connection, ()) = tokio::join!(
        Connection::over(ours, &address, &config),
        broker.answer_versions()
    );
    (connection.unwrap(), broker)
}

async fn connected() -> (Connection, Broker) {
    connected_with(config()).await
}

/// A request in a version without tagged fields in its header.
fn request(body: &'static [u8]) -> RawRequest {
    RawRequest {
        api_key: apis::FETCH,
        api_version: 11,
        body: vec![Bytes::from_static(body)],
        timeout: Duration::from_secs(5),
    }
}

mod authentication;

#[tokio::test]
async fn requests_are_pipelined_and_each_gets_its_own_answer() {
    let (connection, mut broker) = connected().await;
    let mut pending = Vec::new();
    for body in [b"one".as_slice(), b"two", b"three"] {
        pending.push(connection.send(request(body)).await.unwrap());
    }
    let mut asked = Vec::new();
    for _ in 0..3 {
        asked.push(broker.asked().await);
    }
    assert_eq!(
        asked.iter().map(|asked| &asked.body[..]).collect::<Vec<_>>(),
        [&b"one"[..], b"two", b"three"]
    );
    for asked in &asked {
        broker.answer(asked, &asked.body).await;
    }
    for (pending, expected) in pending.into_iter().zip([&b"one"[..], b"two", b"three"]) {
        assert_eq!(pending.wait().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_shift_the_answers_of_others() {
    let (connection, mut broker) = connected().await;
    drop(connection.send(request(b"forgotten")).await.unwrap());
    let pending = connection.send(request(b"wanted")).await.unwrap();
    for _ in 0..2 {
        let asked = broker.asked().await;
        broker.answer(&asked, &asked.body).await;
    }
    assert_eq!(pending.wait().await.unwrap(), &b"wanted"[..]);
}

#[tokio::test]
async fn a_wrong_correlation_id_ends_the_connection() {
    let (connection, mut broker) = connected().await;
    let pending = connection.send(request(b"x")).await.unwrap();
    let mut asked = broker.asked().await;
    asked.correlation_id += 1;
    broker.answer(&asked, b"y").await;
    assert!(matches!(
        pending.wait().await,
        Err(ClientError::ConnectionLost { .. })
    ));
    assert!(connection.is_closed());
    assert!(connection.send(request(b"z")).await.is_err());
}

#[tokio::test]
async fn an_unasked_answer_ends_the_connection() {
    let (connection, mut broker) = connected().await;
    broker
        .0
        .write_all(&response_frame(apis::FETCH, 11, 0, b"").unwrap())
        .await
        .unwrap();
    while !connection.is_closed() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_connection_and_all_that_wait_behind_it() {
    let (connection, mut broker) = connected().await;
    let slow = RawRequest {
        timeout: Duration::from_millis(50),
        ..request(b"slow")
    };
    let slow = connection.send(slow).await.unwrap();
    let behind = connection.send(request(b"behind")).await.unwrap();
    broker.asked().await;
    assert!(matches!(
        slow.wait().await,
        Err(ClientError::Timeout { what: "Fetch", .. })
    ));
    assert!(matches!(behind.wait().await, Err(ClientError::Timeout { .. })));
    assert!(connection.is_closed());
}

#[tokio::test]
async fn a_response_beyond_the_limit_is_refused_unread() {
    let (connection, mut broker) = connected().await;
    let pending = connection.send(request(b"x")).await.unwrap();
    broker.asked().await;
    broker.0.write_all(&10_001i32.to_be_bytes()).await.unwrap();
    let error = pending.wait().await.unwrap_err();
    assert!(matches!(error, ClientError::Frame { .. }), "{error}");
    assert!(!error.is_retriable(), "asking again would be answered the same");
}

#[tokio::test]
async fn a_broker_that_hangs_up_fails_what_waits_as_retriable() {
    let (connection, mut broker) = connected().await;
    let pending = connection.send(request(b"x")).await.unwrap();
    broker.asked().await;
    drop(broker);
    let error = pending.wait().await.unwrap_err();
    assert!(matches!(error, ClientError::ConnectionLost { .. }) && error.is_retriable());
    assert!(connection.is_closed());
}

#[tokio::test]
async fn requests_beyond_the_window_wait_for_answers() {
    let (connection, mut broker) = connected_with(ClientConfig {
        requests_in_flight_max: 2,
        ..config()
    })
    .await;
    let first = connection.send(request(b"1")).await.unwrap();
    let _second = connection.send(request(b"2")).await.unwrap();
    let short = RawRequest {
        timeout: Duration::from_millis(30),
        ..request(b"3")
    };
    assert!(matches!(
        connection.send(short).await,
        Err(ClientError::Timeout { .. })
    ));
    assert!(!connection.is_closed(), "nothing was late but our own queue");
    let asked = broker.asked().await;
    broker.answer(&asked, b"").await;
    first.wait().await.unwrap();
    connection.send(request(b"4")).await.unwrap();
}

#[tokio::test]
async fn bodies_in_many_pieces_arrive_as_one() {
    let (connection, mut broker) = connected().await;
    let pieces: Vec<Bytes> = (0..500u32)
        .map(|number| Bytes::from(number.to_be_bytes().to_vec()))
        .collect();
    let expected: Vec<u8> = pieces.concat();
    let pending = connection
        .send(RawRequest {
            body: pieces,
            ..request(b"")
        })
        .await
        .unwrap();
    let asked = broker.asked().await;
    assert_eq!(asked.body, expected);
    broker.answer(&asked, b"done").await;
    assert_eq!(pending.wait().await.unwrap(), &b"done"[..]);
}

#[tokio::test]
async fn a_broker_that_knows_only_the_first_api_versions_is_asked_again() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut broker = Broker(theirs);
    let script = async {
        let asked = broker.asked().await;
        // Error 35 in version 0, with the one range that matters.
        let mut refusal = BytesMut::new();
        refusal.put_i16(35);
        refusal.put_i32(1);
        for value in [apis::API_VERSIONS, 0, 0] {
            refusal.put_i16(value);
        }
        broker.answer(&asked, &refusal).await;
        let asked = broker.asked().await;
        assert_eq!(asked.api_version, 0);
        broker.answer(&asked, &versions(0)).await;
    };
    let (config, address) = (config(), HostPort::new("broker", 9092));
    let (connection, ()) = tokio::join!(Connection::over(ours, &address, &config), script);
    let connection = connection.unwrap();
    assert_eq!(connection.versions().range(apis::FETCH), Some(0..=12));
    assert_eq!(
        connection.versions().newest_common(apis::FETCH, &(11..=13)),
        Some(12)
    );
    assert!(matches!(
        connection.choose(apis::METADATA, &(4..=13)),
        Err(ClientError::UnsupportedVersion { what: "Metadata", .. })
    ));
}

#[tokio::test]
async fn a_peer_that_speaks_no_kafka_is_named() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut broker = Broker(theirs);
    let script = async {
        broker.asked().await;
        broker
            .0
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    };
    let (config, address) = (config(), HostPort::new("broker", 9092));
    let (connection, ()) = tokio::join!(Connection::over(ours, &address, &config), script);
    let error = connection.unwrap_err();
    let ClientError::Frame { source, .. } = &error else {
        panic!("{error}")
    };
    assert!(source.to_string().contains("HTTP"), "{source}");
}

#[tokio::test]
async fn an_unreachable_cluster_says_which() {
    let mut config = config();
    config.retry = RetryPolicy::NONE;
    let error = Cluster::connect(config).await.unwrap_err();
    assert!(error.is_retriable());
    assert_eq!(error.to_string(), "no broker of 127.0.0.1:1 can be reached");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "connect to broker 127.0.0.1:1");
}

#[test]
fn error_codes_have_kafkas_names() {
    assert_eq!(
        ErrorCode::NOT_LEADER_OR_FOLLOWER.to_string(),
        "NOT_LEADER_OR_FOLLOWER (6)"
    );
    assert_eq!(ErrorCode(9999).to_string(), "ERROR_9999 (9999)");
    assert_eq!(ErrorCode::NONE.to_string(), "NONE (0)");
    assert!(ErrorCode::NOT_LEADER_OR_FOLLOWER.is_retriable());
    assert!(!ErrorCode::OFFSET_OUT_OF_RANGE.is_retriable());
    assert!(!ErrorCode::MESSAGE_TOO_LARGE.is_retriable());
}
