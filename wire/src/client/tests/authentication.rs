//! SASL on a connection, against a scripted broker.

use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use teeline_config::{Credential, Login, Sasl, Secret};

use super::*;

fn config_with_plain() -> ClientConfig {
    let mut config = config();
    config.endpoint.security.sasl = Some(Sasl::Plain(Login {
        username: "me".to_owned(),
        password: Credential::Given(Secret::new("hunter2")),
    }));
    config
}

impl Broker {
    async fn reply<M: Encodable>(&mut self, asked: &Asked, message: &M) {
        let mut body = BytesMut::new();
        message.encode(&mut body, asked.api_version).unwrap();
        self.answer(asked, &body).await;
    }

    async fn answer_handshake(&mut self) {
        let asked = self.asked().await;
        assert_eq!((asked.api_key, asked.api_version), (apis::SASL_HANDSHAKE, 1));
        let request = SaslHandshakeRequest::decode(&mut asked.body.clone(), 1).unwrap();
        assert_eq!(request.mechanism.as_str(), "PLAIN");
        self.reply(&asked, &SaslHandshakeResponse::default()).await;
    }

    async fn answer_token(&mut self, session: Duration) {
        let asked = self.asked().await;
        assert_eq!((asked.api_key, asked.api_version), (apis::SASL_AUTHENTICATE, 2));
        let request = SaslAuthenticateRequest::decode(&mut asked.body.clone(), 2).unwrap();
        assert_eq!(&request.auth_bytes[..], b"\0me\0hunter2");
        let lifetime = session.as_millis() as i64;
        let response = SaslAuthenticateResponse::default().with_session_lifetime_ms(lifetime);
        self.reply(&asked, &response).await;
    }
}

async fn open(
    config: &ClientConfig,
    script: impl AsyncFnOnce(&mut Broker),
) -> (Result<Connection, ClientError>, Broker) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut broker = Broker(theirs);
    let address = HostPort::new("broker", 9092);
    let (connection, ()) = tokio::join!(Connection::over(ours, &address, config), async {
        broker.answer_versions().await;
        script(&mut broker).await;
    });
    (connection, broker)
}

#[tokio::test]
async fn who_we_are_is_said_before_anything_is_asked() {
    let (connection, mut broker) = open(&config_with_plain(), async |broker| {
        broker.answer_handshake().await;
        broker.answer_token(Duration::ZERO).await;
    })
    .await;
    let connection = connection.unwrap();
    let pending = connection.send(request(b"x")).await.unwrap();
    let asked = broker.asked().await;
    broker.answer(&asked, b"y").await;
    assert_eq!(pending.wait().await.unwrap(), &b"y"[..]);
}

#[tokio::test]
async fn a_session_is_renewed_in_time_and_requests_wait_for_it() {
    const SESSION: Duration = Duration::from_millis(800);
    let (connection, mut broker) = open(&config_with_plain(), async |broker| {
        broker.answer_handshake().await;
        broker.answer_token(SESSION).await;
    })
    .await;
    let connection = connection.unwrap();
    let began = tokio::time::Instant::now();
    let before = connection.send(request(b"before")).await.unwrap();
    let asked = broker.asked().await;
    broker.answer(&asked, b"").await;
    before.wait().await.unwrap();
    // Nothing is sent any more: the client itself comes in time.
    let handshake = broker.asked().await;
    assert_eq!(handshake.api_key, apis::SASL_HANDSHAKE);
    let after = began.elapsed();
    assert!(after >= SESSION.mul_f64(0.8), "after {after:?} of {SESSION:?}");
    let sending = tokio::spawn({
        let connection = connection.clone();
        async move { connection.send(request(b"meanwhile")).await?.wait().await }
    });
    tokio::task::yield_now().await;
    broker.reply(&handshake, &SaslHandshakeResponse::default()).await;
    // What comes next is the token, not the request.
    broker.answer_token(SESSION).await;
    let asked = broker.asked().await;
    assert_eq!(asked.body, b"meanwhile"[..]);
    broker.answer(&asked, b"").await;
    sending.await.unwrap().unwrap();
    assert_eq!(broker.asked().await.api_key, apis::SASL_HANDSHAKE);
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_session_that_is_not_renewed_ends_the_connection_with_the_reason() {
    let (connection, mut broker) = open(&config_with_plain(), async |broker| {
        broker.answer_handshake().await;
        broker.answer_token(Duration::from_millis(100)).await;
    })
    .await;
    let connection = connection.unwrap();
    broker.answer_handshake().await;
    let asked = broker.asked().await;
    let refusal = SaslAuthenticateResponse::default()
        .with_error_code(58)
        .with_error_message(Some(StrBytes::from_static_str("no such user any more")));
    broker.reply(&asked, &refusal).await;
    while !connection.is_closed() {
        tokio::task::yield_now().await;
    }
    let error = connection.send(request(b"x")).await.unwrap_err();
    assert!(error.to_string().contains("no such user any more"), "{error}");
}

#[tokio::test]
async fn refusals_tell_the_brokers_reason_and_never_the_password() {
    let (refused, _) = open(&config_with_plain(), async |broker| {
        broker.answer_handshake().await;
        let asked = broker.asked().await;
        let refusal = SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(StrBytes::from_static_str("Invalid username or password")));
        broker.reply(&asked, &refusal).await;
    })
    .await;
    let error = refused.unwrap_err();
    assert_eq!(
        error.to_string(),
        "authenticate to broker broker:9092 by PLAIN: Invalid username or password"
    );
    assert!(!error.is_retriable());
    let (refused, _) = open(&config_with_plain(), async |broker| {
        let asked = broker.asked().await;
        let refusal = SaslHandshakeResponse::default()
            .with_error_code(33)
            .with_mechanisms(vec![StrBytes::from_static_str("SCRAM-SHA-512")]);
        broker.reply(&asked, &refusal).await;
    })
    .await;
    let text = refused.unwrap_err().to_string();
    assert!(text.ends_with("it offers SCRAM-SHA-512 instead"), "{text}");
    let (refused, _) = open(&config_with_plain(), async |broker| {
        let asked = broker.asked().await;
        broker
            .reply(&asked, &SaslHandshakeResponse::default().with_error_code(34))
            .await;
    })
    .await;
    assert!(refused.unwrap_err().to_string().contains("takes no SASL"));
    assert!(!format!("{:?}", config_with_plain()).contains("hunter2"));
}

#[tokio::test]
async fn a_password_that_cannot_be_read_is_said_before_the_broker_is_asked_for_more() {
    let mut config = config_with_plain();
    config.endpoint.security.sasl = Some(Sasl::Plain(Login {
        username: "me".to_owned(),
        password: Credential::File("/nowhere/password".into()),
    }));
    let (refused, _) = open(&config, async |broker| broker.answer_handshake().await).await;
    let error = refused.unwrap_err();
    assert!(
        matches!(error, ClientError::Security { what: "SASL", .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("read /nowhere/password: No such file"),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_that_answers_nothing_but_its_versions_may_want_sasl() {
    let (connection, mut broker) = open(&config(), async |_| {}).await;
    let connection = connection.unwrap();
    let pending = connection.send(request(b"x")).await.unwrap();
    broker.asked().await;
    drop(broker);
    let error = pending.wait().await.unwrap_err();
    assert!(error.to_string().contains("may want SASL"), "{error}");
}
