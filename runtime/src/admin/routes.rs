//! Pages of a program's own on the admin port.
//!
//! A handler is a future that runs on the admin thread: what takes long, or blocks, it hands to tasks of its program and
//! waits for the answer. It is dropped when the asker hangs up or [`ANSWER_MAX`] has passed, so whatever must not stop
//! half-way belongs into such a task, too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};

/// How long a handler may take before the asker is told that it did.
pub const ANSWER_MAX: Duration = Duration::from_secs(120);

type Handler = Arc<dyn Fn(Ask) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// One page: a method, a path, and who answers.
#[derive(Clone)]
pub struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    help: &'static str,
    handler: Handler,
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

impl Route {
    /// A page that tells something, and changes nothing.
    pub fn get<F, W>(path: &'static str, help: &'static str, handler: F) -> Self
    where
        F: Fn(Ask) -> W + Send + Sync + 'static,
        W: Future<Output = Answer> + Send + 'static,
    {
        Self::new(Method::GET, path, help, handler)
    }

    /// A page that does something.
    pub fn post<F, W>(path: &'static str, help: &'static str, handler: F) -> Self
    where
        F: Fn(Ask) -> W + Send + Sync + 'static,
        W: Future<Output = Answer> + Send + 'static,
    {
        Self::new(Method::POST, path, help, handler)
    }

    /// A page that takes back what a post to the same path began.
    pub fn delete<F, W>(path: &'static str, help: &'static str, handler: F) -> Self
    where
        F: Fn(Ask) -> W + Send + Sync + 'static,
        W: Future<Output = Answer> + Send + 'static,
    {
        Self::new(Method::DELETE, path, help, handler)
    }

    fn new<F, W>(method: Method, path: &'static str, help: &'static str, handler: F) -> Self
    where
        F: Fn(Ask) -> W + Send + Sync + 'static,
        W: Future<Output = Answer> + Send + 'static,
    {
        Self {
            method,
            path,
            help,
            handler: Arc::new(move |ask| Box::pin(handler(ask))),
        }
    }

    pub(super) async fn answer(&self, ask: Ask) -> Answer {
        let answer = tokio::time::timeout(ANSWER_MAX, (self.handler)(ask)).await;
        answer.unwrap_or_else(|_| {
            let text = format!("no answer within {} s; look at the log\n", ANSWER_MAX.as_secs());
            Answer::text(StatusCode::GATEWAY_TIMEOUT, text)
        })
    }

    /// A line of the page that lists them all.
    pub(super) fn line(&self) -> String {
        format!("{} {}: {}\n", self.method, self.path, self.help)
    }
}

/// What was asked of a page.
#[derive(Debug)]
pub struct Ask {
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) json: bool,
}

impl Ask {
    /// A value of the query (`?name=value`), decoded; the first if it is there more than once.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        self.pairs().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All of the query, so that a name that means nothing can be refused.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        form_urlencoded::parse(self.query.as_bytes()).into_owned()
    }

    /// What was sent with a post.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the asker would rather have JSON.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        self.json
    }
}

/// What a page answers.
#[derive(Debug)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    /// Text for people, lines that end with a newline.
    #[must_use]
    pub fn text(status: StatusCode, body: String) -> Self {
        Self {
            status,
            content_type: super::TEXT,
            body,
        }
    }

    /// The same for scripts.
    #[must_use]
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: super::JSON,
            body: format!("{body}\n"),
        }
    }

    /// Done, and this is how it went.
    #[must_use]
    pub fn ok(body: String) -> Self {
        Self::text(StatusCode::OK, body)
    }

    /// Nothing was done: the question has no meaning. The text says which one would have.
    #[must_use]
    pub fn refused(body: String) -> Self {
        Self::text(StatusCode::BAD_REQUEST, body)
    }
}
