//! Orders for traces: whose requests, how many, for how long.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Visit, shown};

/// Whose requests are wanted. What is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) cluster: Option<String>,
    pub(crate) connection: Option<u64>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// As the client writes it.
    pub(crate) client_id: Option<String>,
}

impl Filter {
    /// Whether requests of this connection may be wanted: what each calls itself is seen when it comes.
    pub(crate) fn concerns(&self, visit: &Visit) -> bool {
        let peer = visit.visitor.peer;
        self.cluster
            .as_ref()
            .is_none_or(|cluster| **cluster == *visit.visitor.cluster)
            && self.connection.is_none_or(|id| id == visit.id)
            && self
                .address
                .is_none_or(|address| address.to_canonical() == peer.ip().to_canonical())
            && self.port.is_none_or(|port| port == peer.port())
    }

    /// Whether a request is wanted that calls itself so, in the form of [`shown`].
    pub(crate) fn wants(&self, client_id: Option<&str>) -> bool {
        self.client_id
            .as_ref()
            .is_none_or(|wanted| client_id == Some(&*shown(wanted.as_bytes())))
    }

    /// In the words of the query that it came from.
    pub(crate) fn text(&self) -> String {
        let parts = [
            self.cluster.as_ref().map(|cluster| format!("cluster={cluster}")),
            self.connection.map(|id| format!("connection={id}")),
            self.address.map(|address| match self.port {
                Some(port) => format!("peer={}", std::net::SocketAddr::new(address, port)),
                None => format!("peer={address}"),
            }),
            self.client_id
                .as_ref()
                .map(|id| format!("client_id={}", shown(id.as_bytes()))),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// One trace.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) filter: Filter,
    left: AtomicU64,
    until: Instant,
}

impl Order {
    pub(super) fn new(id: u64, filter: Filter, requests: u64, seconds: u64) -> Order {
        let until = Instant::now() + Duration::from_secs(seconds.min(SECONDS_MAX));
        Order {
            id,
            filter,
            left: AtomicU64::new(requests.min(REQUESTS_MAX)),
            until,
        }
    }

    /// Takes one of the requests that it is good for.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let less = |left: u64| left.checked_sub(1);
        now < self.until
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.left() == 0 || Instant::now() >= self.until
    }

    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// What a log can take of it.
pub(crate) const REQUESTS_MAX: u64 = 100_000;
/// A trace that is forgotten ends.
pub(crate) const SECONDS_MAX: u64 = 3600;
