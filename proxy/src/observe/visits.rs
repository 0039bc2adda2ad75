//! Open connections, as others see them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Observatory;

/// What is known of a connection from its beginning.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    /// The virtual cluster.
    pub(crate) cluster: Arc<str>,
    pub(crate) peer: SocketAddr,
    /// The broker behind it; `None` where any may be.
    pub(crate) node_id: Option<i32>,
    pub(crate) tls: bool,
    /// What its certificate says who it is.
    pub(crate) subject: Option<Box<str>>,
}

/// One open connection. Its own task counts; everybody may look.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) id: u64,
    pub(crate) visitor: Visitor,
    began: Instant,
    client_id: OnceLock<Box<str>>,
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    served: AtomicBool,
}

impl Visit {
    /// It begins now.
    pub(crate) fn new(id: u64, visitor: Visitor) -> Visit {
        Visit {
            id,
            visitor,
            began: Instant::now(),
            client_id: OnceLock::new(),
            requests: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            served: AtomicBool::new(false),
        }
    }

    /// What the client calls itself, in the form of [`shown`]: the first name it gives counts.
    pub(crate) fn introduce(&self, client_id: Box<str>) {
        let _ = self.client_id.set(client_id);
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        self.client_id.get().map(|id| &**id)
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Requests were forwarded.
    pub(crate) fn asked(&self, requests: u64, bytes: u64) {
        add(&self.requests, requests);
        add(&self.request_bytes, bytes);
    }

    /// Answers were passed on, which a client asked for to be served, or only to get to know the broker.
    pub(crate) fn answered(&self, bytes: u64, serves: bool) {
        add(&self.response_bytes, bytes);
        if serves {
            self.served.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it got any answer beyond the greeting.
    pub(crate) fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn response_bytes(&self) -> u64 {
        self.response_bytes.load(Ordering::Relaxed)
    }
}

/// Adds to a counter that only one task writes: a load and a store do, which cost less than one step that others may see.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(more);
    counter.store(sum, Ordering::Relaxed);
}

/// Keeps a connection among the open ones.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) visit: Arc<Visit>,
    pub(crate) observatory: Arc<Observatory>,
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.observatory.visits().remove(&self.visit.id);
    }
}

/// A text of a client's as it may stand in a log: short, and without control characters.
pub(crate) fn shown(bytes: &[u8]) -> Box<str> {
    let cut = bytes.get(..SHOWN_BYTES_MAX.min(bytes.len())).unwrap_or_default();
    let mut text: String = String::from_utf8_lossy(cut).escape_debug().collect();
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text.into_boxed_str()
}

/// Client ids are a few words; brokers accept 32 KiB.
const SHOWN_BYTES_MAX: usize = 80;
