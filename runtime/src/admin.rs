//! The admin port: `/metrics`, `/livez`, `/readyz`, and what a program adds ([`Route`]).
//!
//! It has an operating-system thread and a small runtime of its own, so that it answers even when the data
//! path is stuck. It reads from peers a request line, headers and, for a post, a small body, within limits. A page that does
//! something is refused to browsers: a web page that somebody opens on the same machine could post to it, too.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use teeline_config::Admin;
use tokio::sync::Semaphore;

use crate::health::{Health, State};
use crate::metrics::MetricsHandle;
use crate::shutdown::Shutdown;

mod routes;

pub use hyper::StatusCode;
pub use routes::{ANSWER_MAX, Answer, Ask, Route};

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
/// A few names and numbers.
const BODY_BYTES_MAX: usize = 16 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl AdminServer {
    /// Listens and answers from a thread of its own; `None` when the configuration has it disabled.
    pub fn start(
        admin: &Admin,
        health: Health,
        metrics: MetricsHandle,
        routes: Vec<Route>,
    ) -> Result<Option<Self>, AdminError> {
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
        let site = Arc::new(Site {
            health,
            metrics,
            routes,
        });
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
                let site = Arc::clone(&site);
                async move { Ok::<_, Infallible>(site.answer(request).await) }
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
    routes: Vec<Route>,
}

impl Site {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let here: Vec<&Route> = self.routes.iter().filter(|route| route.path == path).collect();
        let method = match request.method() {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        if let Some(route) = here.iter().find(|route| route.method == *method) {
            return self.ask(route, request).await;
        }
        let own = matches!(path.as_str(), "/" | "/metrics" | "/livez" | "/readyz");
        if *method == Method::GET && own {
            return self.own(&request, &path);
        }
        if own || !here.is_empty() {
            return not_allowed(own, &here);
        }
        text(
            StatusCode::NOT_FOUND,
            format!("not here; there are\n{}", self.list()),
        )
    }

    fn own<B>(&self, request: &Request<B>, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/metrics" => typed(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.render(),
            ),
            "/livez" => self.report(request, self.health.is_alive(), |state| {
                matches!(state, State::Failed(_))
            }),
            "/readyz" => self.report(request, self.health.is_ready(), |state| *state != State::Ready),
            _ => text(StatusCode::OK, format!("teeline:\n{}", self.list())),
        }
    }

    /// All pages, one a line.
    fn list(&self) -> String {
        let mut list = "GET /metrics: what is measured\nGET /livez: whether to restart it\nGET /readyz: whether to send clients here\n".to_owned();
        for route in &self.routes {
            list.push_str(&route.line());
        }
        list
    }

    async fn ask(&self, route: &Route, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // Browsers add this to every post, and let no page take it away.
        if route.method != Method::GET && request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "not from a browser; use curl\n".to_owned());
        }
        let too_large = || {
            let most = format!("the body must have at most {BODY_BYTES_MAX} bytes\n");
            text(StatusCode::PAYLOAD_TOO_LARGE, most)
        };
        if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
            return too_large();
        }
        let json = wants_json(&request);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
        let body = match tokio::time::timeout(HEADER_READ_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return too_large(),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "no body came\n".to_owned()),
        };
        let answer = route.answer(Ask { query, body, json }).await;
        typed(answer.status, answer.content_type, answer.body)
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
        if wants_json(request) {
            let components: Vec<_> = states
                .iter()
                .map(|(name, state)| {
                    let (ready, reason) = describe(state);
                    json!({ "component": name, "ready": ready, "reason": reason })
                })
                .collect();
            let body = json!({ "ok": good, "components": components });
            return typed(status, JSON, format!("{body}\n"));
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

fn wants_json<B>(request: &Request<B>) -> bool {
    let accept = request.headers().get(ACCEPT);
    accept
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains(JSON))
}

fn not_allowed(own: bool, here: &[&Route]) -> Response<Full<Bytes>> {
    let mut allowed: Vec<&str> = here.iter().map(|route| route.method.as_str()).collect();
    if own || allowed.contains(&"GET") {
        allowed.retain(|method| *method != "GET");
        allowed.extend(["GET", "HEAD"]);
    }
    let allowed = allowed.join(", ");
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A probe that is answered from a cache proves nothing.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
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
        start_with(health, Vec::new())
    }

    fn start_with(health: &Health, routes: Vec<Route>) -> AdminServer {
        let admin = Admin {
            enabled: true,
            listen: HostPort::new("127.0.0.1", 0),
        };
        AdminServer::start(&admin, health.clone(), crate::metrics::install().unwrap(), routes)
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

    fn lights() -> Vec<Route> {
        let post = |ask: Ask| async move {
            match ask.value("colour") {
                Some(colour) => Answer::ok(format!("{colour} {}\n", String::from_utf8_lossy(ask.body()))),
                None => Answer::refused("which colour?\n".to_owned()),
            }
        };
        vec![
            Route::get("/light", "which light is on", |_| async {
                Answer::ok("none\n".to_owned())
            }),
            Route::post("/light", "switch it on", post),
            Route::delete("/dark", "ends it", |_| async { Answer::ok(String::new()) }),
        ]
    }

    #[test]
    fn a_program_adds_pages_and_they_take_their_methods_only() {
        let server = start_with(&Health::new(), lights());
        assert!(ask(&server, "GET /light HTTP/1.1").ends_with("\r\n\r\nnone\n"));
        assert!(ask(&server, "HEAD /light HTTP/1.1").starts_with("HTTP/1.1 200 "));
        let answer = ask(&server, "POST /light?colour=dark%20red HTTP/1.1");
        assert!(answer.ends_with("\r\n\r\ndark red \n"), "{answer}");
        assert!(ask(&server, "POST /light HTTP/1.1").starts_with("HTTP/1.1 400 "));
        let answer = ask(&server, "DELETE /light HTTP/1.1");
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("allow: POST, GET, HEAD\r\n"), "{answer}");
        assert!(ask(&server, "GET /dark HTTP/1.1").starts_with("HTTP/1.1 405 "));
        assert!(ask(&server, "GET / HTTP/1.1").contains("POST /light: switch it on\n"));
    }

    #[test]
    fn a_page_that_acts_takes_small_bodies_and_no_browsers() {
        let server = start_with(&Health::new(), lights());
        let answer = ask(
            &server,
            "POST /light?colour=red HTTP/1.1\r\nOrigin: http://elsewhere",
        );
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let declared = ask(
            &server,
            "POST /light?colour=red HTTP/1.1\r\nContent-Length: 1000000000",
        );
        assert!(declared.starts_with("HTTP/1.1 413 "), "{declared}");
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
        let error = AdminServer::start(&admin, Health::new(), metrics, Vec::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("listen on admin.listen = 127.0.0.1:"),
            "{error}"
        );
    }
}
