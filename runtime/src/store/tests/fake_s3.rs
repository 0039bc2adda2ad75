//! An S3 server in memory that misbehaves on demand. It checks no signatures.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Right,
    IgnoresConditions,
    RefusesConditions,
    /// Looks, waits, writes.
    NotAtomic,
    /// The first put is done, but answered with an error.
    WritesThenFails,
    /// The first put is done, and never answered.
    WritesThenHangsUp,
    /// The first put is refused with a conflict although there is no object.
    ConflictOnce,
    /// Whatever the question.
    Answers(u16),
    EchoesCredentials,
    FailsParts,
}

pub(super) struct FakeS3 {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    behaviour: Behaviour,
    objects: Mutex<HashMap<String, Bytes>>,
    puts: AtomicUsize,
}

impl Drop for FakeS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeS3 {
    pub(super) async fn start(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            behaviour,
            objects: Mutex::default(),
            puts: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { state.answer(request).await }
                    });
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, state, task }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn puts(&self) -> usize {
        self.state.puts.load(Ordering::SeqCst)
    }

    pub(super) fn objects(&self) -> usize {
        self.state.objects.lock().unwrap().len()
    }
}

type Answer = Result<Response<Full<Bytes>>, Cut>;

/// Hyper closes the connection when a service fails.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
pub(super) struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let only_if_absent = request.headers().contains_key("if-none-match");
        let range = request
            .headers()
            .get("range")
            .map(|value| value.to_str().unwrap().to_owned());
        let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
        if let Behaviour::Answers(code) = self.behaviour {
            return Ok(status(code, "<Error><Message>as told</Message></Error>"));
        }
        if self.behaviour == Behaviour::EchoesCredentials {
            return Ok(status(
                403,
                "<Error><AWSAccessKeyId>key-id-hidden</AWSAccessKeyId></Error>",
            ));
        }
        match method {
            Method::POST if query.contains("uploads") => Ok(status(
                200,
                "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
            )),
            Method::PUT if query.contains("partNumber") => Ok(status(400, "no parts here")),
            Method::PUT => self.put(path, body, only_if_absent).await,
            Method::DELETE => {
                self.objects.lock().unwrap().remove(&path);
                Ok(status(204, ""))
            }
            Method::GET | Method::HEAD => Ok(self.get(&path, range.as_deref())),
            _ => Ok(status(405, "")),
        }
    }

    async fn put(&self, path: String, body: Bytes, only_if_absent: bool) -> Answer {
        let first = self.puts.fetch_add(1, Ordering::SeqCst) == 0;
        if only_if_absent && self.behaviour == Behaviour::RefusesConditions {
            return Ok(status(
                501,
                "A header you provided implies functionality that is not implemented",
            ));
        }
        if first && self.behaviour == Behaviour::ConflictOnce {
            return Ok(status(409, "ConditionalRequestConflict"));
        }
        if self.behaviour == Behaviour::NotAtomic {
            let there = self.objects.lock().unwrap().contains_key(&path);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if there && only_if_absent {
                return Ok(status(412, "PreconditionFailed"));
            }
            self.objects.lock().unwrap().insert(path, body);
            return Ok(status(200, ""));
        }
        let mut objects = self.objects.lock().unwrap();
        if only_if_absent && objects.contains_key(&path) && self.behaviour != Behaviour::IgnoresConditions {
            return Ok(status(412, "PreconditionFailed"));
        }
        objects.insert(path, body);
        match self.behaviour {
            Behaviour::WritesThenFails if first => Ok(status(500, "InternalError")),
            Behaviour::WritesThenHangsUp if first => Err(Cut),
            _ => Ok(status(200, "")),
        }
    }

    fn get(&self, path: &str, range: Option<&str>) -> Response<Full<Bytes>> {
        assert!(range.is_none(), "the fake serves whole objects only");
        match self.objects.lock().unwrap().get(path) {
            Some(bytes) => {
                let response = Response::builder().header("ETag", "\"tag\"");
                let response = response.header("Last-Modified", "Sat, 21 Nov 2026 08:00:00 GMT");
                response.body(Full::new(bytes.clone())).unwrap()
            }
            None => status(404, "NoSuchKey"),
        }
    }
}

fn status(code: u16, body: &str) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header("ETag", "\"tag\"");
    response
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}
