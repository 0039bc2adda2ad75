//! The admin port: `/metrics`, `/livez`, `/readyz`.
//!
//! It has an operating-system thread and a small runtime of its own, so that it answers even when the data
//! path is stuck. It reads from peers nothing but a request line and headers, within limits.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use teeline_config::Admin;
use tokio::sync::Semaphore;

use crate::health::{Health, State};
use crate::metrics::MetricsHandle;
use crate::shutdown::Shutdown;

/// The running admin port; stops when dropped.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error(
        "listen on admin.listen = {address}; free that port, or give another with admin.listen or --admin"
    )]
    Listen {
        /// The address of the configuration.
        address: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// No thread or runtime for it.
    #[error("start the admin thread")]
    Thread(#[source] std::io::Error),
}

/// A scraper, a few probes and a person or two.
const CONNECTIONS_MAX: usize = 64;
/// Who connects and says nothing must not keep a place.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A pause after a failed accept, as when file descriptors run out, lest it become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl AdminServer {
    /// Listens and answers from a thread of its own; `None` when the configuration has it disabled.
    pub fn start(admin: &Admin, health: Health, metrics: MetricsHandle) -> Result<Option<Self>, AdminError> {
        if !admin.enabled {
            return Ok(None);
        }
        let failed = |source| AdminError::Listen {
            address: admin.listen.to_string(),
            source,
        };
        let listener = bind(admin).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(AdminError::Thread)?;
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let site = Arc::new(Site { health, metrics });
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(serve(listener, site, stop)))
            .map_err(AdminError::Thread)?;
        tracing::info!(%address, "admin port listens");
        Ok(Some(Self {
            address,
            shutdown,
            thread: Some(thread),
        }))
    }

    /// Where it listens; with port 0 in the configuration this tells the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        // Connections are cut: an answer takes no time, and whoever asks will ask again.
        self.shutdown.trigger();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

fn bind(admin: &Admin) -> std::io::Result<TcpListener> {
    let addresses: Vec<SocketAddr> = (admin.listen.host.as_str(), admin.listen.port)
        .to_socket_addrs()?
        .collect();
    let listener = TcpListener::bind(addresses.as_slice())?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: TcpListener, site: Arc<Site>, stop: Shutdown) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "admin port gives up");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            // The semaphore is never closed, so a place always comes.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = stop.run_until(accepted).await else {
            return;
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin port: accept connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (site, stop) = (Arc::clone(&site), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let response = site.answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Some(Err(error)) = stop.run_until(connection).await {
                tracing::debug!(%error, "admin port: connection ended early");
            }
        });
    }
}

struct Site {
    health: Health,
    metrics: MetricsHandle,
}

impl Site {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            response
                .headers_mut()
                .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => typed(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.render(),
            ),
            "/livez" => self.report(request, self.health.is_alive(), |state| {
                matches!(state, State::Failed(_))
            }),
            "/readyz" => self.report(request, self.health.is_ready(), |state| *state != State::Ready),
            "/" => text(StatusCode::OK, "teeline: /metrics /livez /readyz\n".to_owned()),
            _ => text(
                StatusCode::NOT_FOUND,
                "not here; there are /metrics /livez /readyz\n".to_owned(),
            ),
        }
    }

    /// 200, or 503 with the reasons; JSON for those who ask for it.
    fn report<B>(
        &self,
        request: &Request<B>,
        good: bool,
        is_bad: impl Fn(&State) -> bool,
    ) -> Response<Full<Bytes>> {
        let status = if good {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let states = self.health.states();
        let accept = request
            .headers()
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if accept.contains("application/json") {
            let components: Vec<_> = states
                .iter()
                .map(|(name, state)| {
                    let (ready, reason) = describe(state);
                    json!({ "component": name, "ready": ready, "reason": reason })
                })
                .collect();
            let body = json!({ "ok": good, "components": components });
            return typed(status, "application/json", format!("{body}\n"));
        }
        let mut body = if good { "ok\n".to_owned() } else { String::new() };
        for (name, state) in states.iter().filter(|(_, state)| is_bad(state)) {
            let (_, reason) = describe(state);
            body.push_str(&format!("{name}: {}\n", reason.unwrap_or_default()));
        }
        text(status, body)
    }
}

fn describe(state: &State) -> (bool, Option<&str>) {
    match state {
        State::Ready => (true, None),
        State::NotReady(reason) | State::Failed(reason) => (false, Some(reason)),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    // A probe that is answered from a cache proves nothing.
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use teeline_config::HostPort;

    use super::*;

    fn start(health: &Health) -> AdminServer {
        let admin = Admin {
            enabled: true,
            listen: HostPort::new("127.0.0.1", 0),
        };
        AdminServer::start(&admin, health.clone(), crate::metrics::install().unwrap())
            .unwrap()
            .unwrap()
    }

    fn ask(server: &AdminServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
            .write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn readiness_answers_503_with_the_reasons_and_200_when_all_are_ready() {
        let health = Health::new();
        let server = start(&health);
        let upstream = health.component("upstream/main");
        upstream.not_ready("no broker answers");
        let answer = ask(&server, "GET /readyz HTTP/1.1");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("upstream/main: no broker answers\n"));
        let answer = ask(&server, "GET /readyz HTTP/1.1\r\nAccept: application/json");
        assert!(answer.contains(r#""reason":"no broker answers""#), "{answer}");
        assert!(ask(&server, "GET /livez HTTP/1.1").starts_with("HTTP/1.1 200 "));
        upstream.ready();
        assert!(ask(&server, "GET /readyz HTTP/1.1").starts_with("HTTP/1.1 200 "));
        upstream.failed("buffer lost");
        assert!(ask(&server, "GET /livez HTTP/1.1").starts_with("HTTP/1.1 503 "));
    }

    #[test]
    fn metrics_are_served_and_other_paths_and_methods_are_refused() {
        let server = start(&Health::new());
        assert!(ask(&server, "GET /metrics HTTP/1.1").contains("teeline_process_cpu_seconds_total"));
        assert!(ask(&server, "GET /etc/passwd HTTP/1.1").starts_with("HTTP/1.1 404 "));
        assert!(ask(&server, "POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn it_stops_when_dropped_even_with_an_idle_connection_open() {
        let server = start(&Health::new());
        let address = server.local_addr();
        let idle = TcpStream::connect(address).unwrap();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
        drop(idle);
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_that_names_the_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = HostPort::new("127.0.0.1", taken.local_addr().unwrap().port());
        let admin = Admin {
            enabled: true,
            listen,
        };
        let metrics = crate::metrics::install().unwrap();
        let error = AdminServer::start(&admin, Health::new(), metrics)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("listen on admin.listen = 127.0.0.1:"),
            "{error}"
        );
    }
}
