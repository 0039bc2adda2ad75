//! Pipelined requests over one stream.
//!
//! A broker answers the requests of a connection in order, so requests wait for their answers in a queue and
//! the correlation ids only confirm it. One task writes and reads; when either direction fails, every waiting
//! request is told, and the connection is of no use any more.
//!
//! Where the cluster wants it, `authentication` says who we are before anything else is asked, and again before the
//! session ends.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use teeline_config::HostPort;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::tls::{self, TlsClient};
use super::{BrokerVersions, ClientConfig, ClientError, ErrorCode, Transport};
use crate::frame::{self, FrameError, FrameLimits};
use crate::{WireError, apis, header, schema, write};

mod authentication;
mod stream;

use authentication::Authentication;

/// A connection to one broker; clones share it. It closes when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    versions: Arc<BrokerVersions>,
    _tasks: Arc<OwnedTasks>,
}

/// A request whose body is encoded already.
pub struct RawRequest {
    /// Which API.
    pub api_key: i16,
    /// Which version of it; the caller has chosen one that the broker speaks.
    pub api_version: i16,
    /// The body, in pieces that are written one after the other without being copied together.
    pub body: Vec<Bytes>,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl fmt::Debug for RawRequest {
    // Without the body, which may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", apis::name(self.api_key), self.api_version)
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct PendingResponse {
    answer: oneshot::Receiver<Result<Bytes, ClientError>>,
    deadline: Instant,
    timeout: Duration,
    what: &'static str,
    shared: Arc<Shared>,
}

impl Connection {
    /// Connects, asks the broker what it speaks, and says who we are if the configuration says so.
    pub async fn open(address: &HostPort, config: &ClientConfig) -> Result<Self, ClientError> {
        let tls = config.endpoint.security.tls.clone().map(TlsClient::new);
        Self::open_with(address, config, tls.map(Arc::new).as_ref()).await
    }

    /// The same with what connections to the same cluster share.
    pub(super) async fn open_with(
        address: &HostPort,
        config: &ClientConfig,
        tls: Option<&Arc<TlsClient>>,
    ) -> Result<Self, ClientError> {
        let transport = Transport::connect(address, config, tls).await?;
        Self::over(transport, address, config).await
    }

    /// The same over a stream that exists already, encrypted or not.
    pub async fn over<S>(stream: S, address: &HostPort, config: &ClientConfig) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let in_flight_max = config.requests_in_flight_max.max(1);
        let (outgoing, queue) = mpsc::channel(in_flight_max);
        let shared = Arc::new(Shared {
            address: address.clone(),
            client_id: config.endpoint.client_id.clone(),
            gate: RwLock::new(()),
            room: Arc::new(Semaphore::new(in_flight_max)),
            state: Mutex::new(State {
                outgoing: Some(outgoing),
                ..State::default()
            }),
        });
        let limits = FrameLimits {
            max_bytes: config.response_bytes_max,
        };
        let task = tokio::spawn(stream::run(Arc::clone(&shared), stream, queue, limits));
        // Owned from here on, so that giving up in the middle stops it.
        let mut tasks = OwnedTasks(vec![task]);
        let timeout = config.endpoint.request_timeout;
        let versions = Arc::new(shared.negotiate(timeout).await?);
        if let Some(sasl) = config.endpoint.security.sasl.clone() {
            let authentication = Authentication {
                sasl,
                versions: Arc::clone(&versions),
                timeout,
            };
            if let Some(lifetime) = authentication.run(&shared).await? {
                let keeping = authentication.keep(Arc::clone(&shared), lifetime);
                tasks.0.push(tokio::spawn(keeping));
            }
        }
        Ok(Self {
            shared,
            versions,
            _tasks: Arc::new(tasks),
        })
    }

    /// The broker's address.
    pub fn address(&self) -> &HostPort {
        &self.shared.address
    }

    /// What the broker speaks.
    pub fn versions(&self) -> &BrokerVersions {
        &self.versions
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed.is_some()
    }

    /// Puts a request on its way, waiting for room first. Requests reach the broker in the order in which
    /// their `send` ends.
    pub async fn send(&self, request: RawRequest) -> Result<PendingResponse, ClientError> {
        let deadline = Instant::now() + request.timeout;
        let Ok(_open) = tokio::time::timeout_at(deadline, self.shared.gate.read()).await else {
            return Err(self
                .shared
                .timed_out(apis::name(request.api_key), request.timeout));
        };
        self.shared.send(request, deadline).await
    }

    /// A whole call by kafka-protocol: newest common version, request, checked response.
    pub(crate) async fn call<R: Request>(
        &self,
        ours: RangeInclusive<i16>,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let version = self.choose(R::KEY, &ours)?;
        self.call_version(version, request, timeout).await
    }

    /// The newest version that both sides speak.
    pub(crate) fn choose(&self, api_key: i16, ours: &RangeInclusive<i16>) -> Result<i16, ClientError> {
        self.versions.choose(self.address(), api_key, ours)
    }

    async fn call_version<R: Request>(
        &self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let raw = encoded(version, request, timeout)?;
        let body = self.send(raw).await?.wait().await?;
        decode::<R::Response>(self.address(), R::KEY, version, body)
    }
}

/// A request by kafka-protocol.
fn encoded<R: Request>(version: i16, request: &R, timeout: Duration) -> Result<RawRequest, ClientError> {
    let mut body = BytesMut::new();
    request
        .encode(&mut body, version)
        .map_err(|error| ClientError::Encode {
            what: apis::name(R::KEY),
            reason: format!("{error:#}"),
        })?;
    Ok(RawRequest {
        api_key: R::KEY,
        api_version: version,
        body: vec![body.freeze()],
        timeout,
    })
}

impl PendingResponse {
    /// The response body. When it does not come in time the connection is given up.
    pub async fn wait(self) -> Result<Bytes, ClientError> {
        match tokio::time::timeout_at(self.deadline, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(self.shared.lost()),
            Err(_elapsed) => {
                let error = self.shared.timed_out(self.what, self.timeout);
                self.shared.close(error.clone());
                Err(error)
            }
        }
    }
}

/// Decodes a response body by kafka-protocol, after the check that makes that safe.
pub(super) fn decode<M: Decodable>(
    address: &HostPort,
    api_key: i16,
    version: i16,
    mut body: Bytes,
) -> Result<M, ClientError> {
    schema::precheck(api_key, version, true, &body).map_err(|source| malformed(address, api_key, source))?;
    M::decode(&mut body, version).map_err(|error| ClientError::Unusable {
        address: address.to_string(),
        what: apis::name(api_key),
        reason: format!("{error:#}"),
    })
}

pub(super) fn malformed(address: &HostPort, api_key: i16, source: WireError) -> ClientError {
    ClientError::Malformed {
        address: address.to_string(),
        what: apis::name(api_key),
        source,
    }
}

/// What the handles and the task have in common.
#[derive(Debug)]
struct Shared {
    address: HostPort,
    client_id: String,
    /// Requests pass it for reading; an authentication holds it for writing.
    gate: RwLock<()>,
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_correlation_id: i32,
    waiting: VecDeque<Waiting>,
    /// `None` once closed, which ends the task.
    outgoing: Option<mpsc::Sender<Vec<Bytes>>>,
    closed: Option<ClientError>,
    /// Answers so far; counting ends somewhere.
    answers: u8,
}

/// A request that has not been answered.
#[derive(Debug)]
struct Waiting {
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    reply: oneshot::Sender<Result<Bytes, ClientError>>,
    _room: OwnedSemaphorePermit,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request on its way, past the gate.
    async fn send(
        self: &Arc<Self>,
        request: RawRequest,
        deadline: Instant,
    ) -> Result<PendingResponse, ClientError> {
        let RawRequest {
            api_key,
            api_version,
            body,
            timeout,
        } = request;
        let what = apis::name(api_key);
        let waiting = Arc::clone(&self.room).acquire_owned();
        let room = match tokio::time::timeout_at(deadline, waiting).await {
            // The semaphore is closed with the connection.
            Ok(Err(_closed)) => return Err(self.lost()),
            Ok(Ok(room)) => room,
            Err(_elapsed) => return Err(self.timed_out(what, timeout)),
        };
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            api_key,
            api_version,
            correlation_id: 0,
            reply,
            _room: room,
        };
        self.enqueue(waiting, body)?;
        Ok(PendingResponse {
            answer,
            deadline,
            timeout,
            what,
            shared: Arc::clone(self),
        })
    }

    /// A whole call, past the gate: for what must be said before others may speak.
    async fn call<R: Request>(
        self: &Arc<Self>,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let body = self.call_for_body(version, request, timeout).await?;
        decode::<R::Response>(&self.address, R::KEY, version, body)
    }

    async fn call_for_body<R: Request>(
        self: &Arc<Self>,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let raw = encoded(version, request, timeout)?;
        self.send(raw, Instant::now() + timeout).await?.wait().await
    }

    async fn negotiate(self: &Arc<Self>, timeout: Duration) -> Result<BrokerVersions, ClientError> {
        // Version 3 tells the broker who we are, and every broker since 2.4 knows it.
        const NEWEST: i16 = 3;
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("teeline"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = NEWEST;
        let mut body = self.call_for_body(version, &request, timeout).await?;
        // A broker that does not know the version says so in version 0.
        if body.first_chunk() == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes()) {
            version = 0;
            body = self.call_for_body(version, &request, timeout).await?;
        }
        let response = decode::<ApiVersionsResponse>(&self.address, apis::API_VERSIONS, version, body)?;
        ErrorCode(response.error_code)
            .check(|| format!("ask broker {} for its versions", self.address), None)?;
        Ok(BrokerVersions::from_response(&response))
    }

    /// Numbers a request and queues it for writing and for its answer, in one step, so that both queues
    /// have the same order.
    fn enqueue(&self, mut waiting: Waiting, body: Vec<Bytes>) -> Result<(), ClientError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        let correlation_id = state.next_correlation_id;
        state.next_correlation_id = correlation_id.wrapping_add(1);
        waiting.correlation_id = correlation_id;
        let head = self.request_head(&waiting, &body)?;
        let pieces = std::iter::once(head).chain(body).collect();
        let queued = state
            .outgoing
            .as_ref()
            .is_some_and(|outgoing| outgoing.try_send(pieces).is_ok());
        if !queued {
            // The queue has room for every permit, so only an ended task can refuse.
            drop(state);
            return Err(self.lost());
        }
        state.waiting.push_back(waiting);
        Ok(())
    }

    /// Frame length and request header.
    fn request_head(&self, waiting: &Waiting, body: &[Bytes]) -> Result<Bytes, ClientError> {
        let encode = |error: WireError| ClientError::Encode {
            what: apis::name(waiting.api_key),
            reason: error.to_string(),
        };
        let flexible = apis::is_flexible(waiting.api_key, waiting.api_version) == Some(true);
        let mut head = BytesMut::with_capacity(32 + self.client_id.len());
        head.put_i32(0);
        head.put_i16(waiting.api_key);
        head.put_i16(waiting.api_version);
        head.put_i32(waiting.correlation_id);
        // The client id is never compact.
        write::put_string(&mut head, &self.client_id, false).map_err(encode)?;
        write::put_no_tagged_fields(&mut head, flexible);
        let length = head.len() - frame::LENGTH_BYTES + body.iter().map(Bytes::len).sum::<usize>();
        let length = i32::try_from(length).map_err(|_| encode(WireError::TooLong { length }))?;
        head.iter_mut()
            .zip(length.to_be_bytes())
            .for_each(|(target, byte)| *target = byte);
        Ok(head.freeze())
    }

    /// Hands a frame to the request it answers.
    fn answer(&self, frame: Bytes) -> Result<(), ClientError> {
        let waiting = {
            let mut state = self.lock();
            state.answers = state.answers.saturating_add(1);
            state.waiting.pop_front()
        };
        let Some(waiting) = waiting else {
            return Err(self.failed("a response came that nothing was asked for"));
        };
        let (correlation_id, body_at) =
            header::parse_response_header(waiting.api_key, waiting.api_version, &frame)
                .map_err(|source| malformed(&self.address, waiting.api_key, source))?;
        if correlation_id != waiting.correlation_id {
            return Err(self.failed("responses came out of order"));
        }
        // Nobody listens any more when the caller gave up; then the answer is of no interest.
        let _ = waiting.reply.send(Ok(frame.slice(body_at..)));
        Ok(())
    }

    /// Ends the connection: everything that waits, and everything later, gets `reason`.
    fn close(&self, reason: ClientError) {
        let waiting = {
            let mut state = self.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(reason.clone());
            state.outgoing = None;
            std::mem::take(&mut state.waiting)
        };
        self.room.close();
        for request in waiting {
            let _ = request.reply.send(Err(reason.clone()));
        }
    }

    fn lost(&self) -> ClientError {
        let closed = self.lock().closed.clone();
        closed.unwrap_or_else(|| self.failed("it was closed"))
    }

    /// The stream failed. With TLS 1.3 a broker refuses a certificate only after the handshake.
    fn broken(&self, error: std::io::Error) -> ClientError {
        tls::refusal(&self.address, error).unwrap_or_else(|error| self.failed(&error.to_string()))
    }

    /// A broker that wants SASL answers nothing but the question for its versions.
    fn why_closed(&self) -> &'static str {
        match self.lock().answers {
            1 => "the broker closed it after telling its versions (hint: the listener may want SASL)",
            _ => "the broker closed it",
        }
    }

    fn failed(&self, reason: &str) -> ClientError {
        ClientError::ConnectionLost {
            address: self.address.to_string(),
            reason: reason.to_owned(),
        }
    }

    fn timed_out(&self, what: &'static str, after: Duration) -> ClientError {
        ClientError::Timeout {
            address: self.address.to_string(),
            what,
            after,
        }
    }
}

/// Stops the tasks when the last handle goes.
#[derive(Debug)]
struct OwnedTasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for OwnedTasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
