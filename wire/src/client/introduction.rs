//! Saying who we are on a connection that somebody else uses afterwards: a proxy that speaks for its clients.
//!
//! One message after the other, and not a byte more is read than the broker's answers have.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, RequestHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use teeline_config::{HostPort, KafkaEndpoint, Sasl};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::sasl::{Exchange, SaslError};
use super::{ClientError, ErrorCode};
use crate::frame::{self, FrameLimits};
use crate::schema;

/// Authenticates as `endpoint` says, which has to say how. Says how long the session lasts, if that is limited: the
/// broker then takes nothing more, until somebody authenticates on the connection again.
pub async fn introduce<S>(
    stream: &mut S,
    address: &HostPort,
    endpoint: &KafkaEndpoint,
    sasl: &Sasl,
) -> Result<Option<Duration>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limit = endpoint.request_timeout;
    let introduction = Introduction {
        address,
        client_id: &endpoint.client_id,
        sasl,
        until: Instant::now() + limit,
    };
    match tokio::time::timeout(limit, introduction.run(stream)).await {
        Ok(done) => done,
        Err(_elapsed) => {
            let text = format!("no authentication within {} ms", limit.as_millis());
            Err(introduction.failed(io::Error::new(io::ErrorKind::TimedOut, text)))
        }
    }
}

struct Introduction<'a> {
    address: &'a HostPort,
    client_id: &'a str,
    sasl: &'a Sasl,
    until: Instant,
}

impl Introduction<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
    ) -> Result<Option<Duration>, ClientError> {
        let mechanism = self.sasl.mechanism();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer: SaslHandshakeResponse = self.call(stream, ApiKey::SaslHandshake, &request).await?;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.to_string()).collect();
                return Err(self.refused(&format!("it offers {} instead", offered.join(", "))));
            }
            code => return Err(self.refused(&code.to_string())),
        }
        let begun = Exchange::begin(self.sasl, &self.address.host, self.until).await;
        let mut exchange = begun.map_err(|error| self.not_made(&error))?;
        let mut message = exchange.first();
        for _ in 0..ROUNDS_MAX {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
            let answer: SaslAuthenticateResponse =
                self.call(stream, ApiKey::SaslAuthenticate, &request).await?;
            let code = ErrorCode(answer.error_code);
            if !code.is_ok() {
                let said = answer.error_message.filter(|message| !message.is_empty());
                let reason = said.map_or_else(
                    || code.to_string(),
                    |message| message.chars().take(REASON_CHARS_MAX).collect(),
                );
                return Err(self.refused(&reason));
            }
            let said = answer.auth_bytes;
            // Computes for a while.
            let step = tokio::task::spawn_blocking(move || exchange.next(&said).map(|next| (exchange, next)));
            let step = step.await.unwrap_or(Err(SaslError::Stopping));
            let (same, next) = step.map_err(|error| self.not_made(&error))?;
            exchange = same;
            match next {
                Some(next) => message = next,
                None => {
                    let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                    return Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)));
                }
            }
        }
        Err(self.refused("it does not come to an end"))
    }

    /// What we have to say could not be made.
    fn not_made(&self, error: &SaslError) -> ClientError {
        use std::error::Error as _;
        let cause = error.source().map(|cause| format!(": {cause}"));
        let reason = format!("{error}{}", cause.unwrap_or_default());
        match error {
            SaslError::Stopping => self.failed(io::Error::other(reason)),
            _ => self.refused(&reason),
        }
    }

    async fn call<S, Q, A>(&self, stream: &mut S, key: ApiKey, request: &Q) -> Result<A, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        Q: Encodable,
        A: Decodable,
    {
        stream
            .write_all(&self.encoded(key, request)?)
            .await
            .map_err(|error| self.failed(error))?;
        stream.flush().await.map_err(|error| self.failed(error))?;
        let limits = FrameLimits {
            max_bytes: ANSWER_BYTES_MAX,
        };
        let frame = frame::read_frame(stream, limits)
            .await
            .map_err(|source| ClientError::Frame {
                address: self.address.to_string(),
                source: Arc::new(source),
            })?;
        let Some(mut body) = frame else {
            let text = "the broker closed the connection (hint: its listener may take no SASL)";
            return Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        };
        if body.try_get_i32() != Ok(CORRELATION_ID) {
            return Err(self.refused("the broker answered something else"));
        }
        schema::precheck(key as i16, VERSION, true, &body)
            .map_err(|error| self.refused(&format!("a malformed answer: {error}")))?;
        A::decode(&mut body, VERSION).map_err(|error| self.refused(&format!("a malformed answer: {error:#}")))
    }

    fn encoded(&self, key: ApiKey, request: &impl Encodable) -> Result<BytesMut, ClientError> {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(VERSION)
            .with_correlation_id(CORRELATION_ID)
            .with_client_id(Some(StrBytes::from_string(self.client_id.to_owned())));
        let mut content = BytesMut::new();
        // Neither request is flexible in this version.
        let encoded = header
            .encode(&mut content, 1)
            .and_then(|()| request.encode(&mut content, VERSION));
        encoded.map_err(|error| ClientError::Encode {
            what: "SASL",
            reason: format!("{error:#}"),
        })?;
        let length = u32::try_from(content.len()).map_err(|_| ClientError::Encode {
            what: "SASL",
            reason: "a credential of more than 4 GiB".to_owned(),
        })?;
        let mut framed = BytesMut::from(length.to_be_bytes().as_slice());
        framed.extend_from_slice(&content);
        Ok(framed)
    }

    fn refused(&self, reason: &str) -> ClientError {
        ClientError::Authentication {
            address: self.address.to_string(),
            mechanism: self.sasl.mechanism(),
            reason: reason.to_owned(),
        }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Connect {
            address: self.address.to_string(),
            source: Arc::new(source),
        }
    }
}

/// Of both requests; brokers since 2.2 know it, and say by it how long a session lasts.
const VERSION: i16 = 1;
const CORRELATION_ID: i32 = 0;
/// More than any mechanism has.
const ROUNDS_MAX: usize = 8;
/// Messages of Kerberos are the largest, with some tens of KiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Of what a broker says for a refusal.
const REASON_CHARS_MAX: usize = 1_000;
