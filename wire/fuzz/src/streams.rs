//! Targets for what is read from a stream: frames, and the broker's side of an authentication.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};
use kafka_protocol::protocol::{Encodable, StrBytes};
use teeline_config::{Bearer, Credential, HostPort, KafkaEndpoint, Login, Sasl, Secret};
use teeline_wire::apis;
use teeline_wire::client::introduce;
use teeline_wire::frame::{self, FrameLimits};
use teeline_wire::header::{self, RequestHeader};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::runtime::Runtime;

thread_local! {
    pub(super) static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

/// A limit, a chunk size, and a stream. Frames are what the stream has, however it is cut.
pub fn frame(data: &[u8]) {
    let [limit, step, stream @ ..] = data else {
        return;
    };
    let limits = FrameLimits {
        max_bytes: usize::from(*limit) * 64,
    };
    let read = |step: usize| {
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                let mut stream = Chunks { left: stream, step };
                let (mut frames, mut bytes) = (Vec::new(), 0);
                while let Ok(Some(frame)) = frame::read_frame(&mut stream, limits).await {
                    assert!(frame.len() <= limits.max_bytes);
                    bytes += 4 + frame.len();
                    frames.push(frame);
                }
                assert!(bytes <= data.len() - 2);
                frames
            })
        })
    };
    assert_eq!(read(usize::MAX), read(usize::from(*step).max(1)));
}

struct Chunks<'a> {
    left: &'a [u8],
    step: usize,
}

impl AsyncRead for Chunks<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.left.len().min(self.step).min(into.remaining());
        let (now, later) = self.left.split_at(count);
        into.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

/// A mechanism, and what the broker says in each round, each behind its length. `%` stands for our nonce, without which
/// nothing of SCRAM is looked at twice.
pub fn introduction(data: &[u8]) {
    let Some((mechanism, said)) = data.split_first() else {
        return;
    };
    let login = || Login {
        username: "user".to_owned(),
        password: Credential::Given(Secret::new("password")),
    };
    let sasl = match mechanism % 4 {
        0 => Sasl::ScramSha256(login()),
        1 => Sasl::ScramSha512(login()),
        2 => Sasl::Plain(login()),
        _ => Sasl::OauthBearer(Bearer {
            token: Credential::Given(Secret::new("token")),
            extensions: Default::default(),
        }),
    };
    let endpoint = KafkaEndpoint {
        request_timeout: Duration::from_secs(20),
        ..KafkaEndpoint::plaintext(Vec::new())
    };
    let address = HostPort::new("broker", 9092);
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
            let introducing = async {
                let _ = introduce(&mut ours, &address, &endpoint, &sasl).await;
                drop(ours);
            };
            tokio::join!(introducing, broker(theirs, said, mechanism & 0x80 != 0));
        })
    });
}

/// Answers one request after the other. Raw: the bytes are the whole answer, and not a token in it.
async fn broker(mut stream: DuplexStream, mut said: &[u8], raw: bool) {
    let mut nonce = Vec::new();
    let limits = FrameLimits { max_bytes: 64 * 1024 };
    while let Ok(Some(frame)) = frame::read_frame(&mut stream, limits).await {
        let asked = RequestHeader::parse(&frame).expect("our own request");
        if let Some(at) = find(&frame, b"r=").filter(|_| nonce.is_empty()) {
            nonce = frame[at + 2..]
                .iter()
                .copied()
                .take_while(|byte| byte.is_ascii_graphic() && *byte != b',')
                .collect();
        }
        let mut body = BytesMut::new();
        if asked.api_key == apis::SASL_HANDSHAKE && !raw {
            SaslHandshakeResponse::default()
                .encode(&mut body, asked.api_version)
                .expect("it can be written");
        } else {
            let Some((length, rest)) = said.split_first() else {
                return;
            };
            let (token, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            said = rest;
            let token: Vec<u8> = token
                .iter()
                .flat_map(|byte| if *byte == b'%' { nonce.clone() } else { vec![*byte] })
                .collect();
            if raw {
                body.extend_from_slice(&token);
            } else {
                let answer = SaslAuthenticateResponse::default()
                    .with_error_code(i16::from(token.first() == Some(&b'!')) * 58)
                    .with_error_message(Some(StrBytes::from_static_str("no")))
                    .with_auth_bytes(Bytes::from(token));
                answer
                    .encode(&mut body, asked.api_version)
                    .expect("it can be written");
            }
        }
        let answer = header::response_frame(asked.api_key, asked.api_version, asked.correlation_id, &body);
        if stream
            .write_all(&answer.expect("it can be written"))
            .await
            .is_err()
        {
            return;
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
