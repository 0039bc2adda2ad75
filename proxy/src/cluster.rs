//! One virtual cluster: what its listeners, sessions and poller share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use teeline_archive::ids::BufferPosition;
use teeline_config::cluster::VirtualCluster;
use teeline_config::endpoint::{HostPort, KafkaEndpoint};
use teeline_runtime::shutdown::Shutdown;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::budget::{ConnectionBudget, ProcessBudget};
use crate::capture::Capture;
use crate::catalog;
use crate::metrics::ClusterMetrics;
use crate::quiet::Quiet;
use crate::topology::{Route, Topology};

/// What is shared by everything that serves one virtual cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) upstream: KafkaEndpoint,
    /// How the proxy's own questions reach it, if not as sessions do.
    pub(crate) capture_credentials: Option<KafkaEndpoint>,
    pub(crate) topology: Topology,
    /// None when nothing is captured.
    pub(crate) capture: Option<Capture>,
    pub(crate) metrics: Arc<ClusterMetrics>,
    pub(crate) request_bytes_max: usize,
    pub(crate) idle_timeout: Duration,
    /// One permit per connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    /// No further requests are taken.
    pub(crate) drain: Shutdown,
    /// Connections end at once.
    pub(crate) cut: Shutdown,
    /// Lines about refused connections.
    pub(crate) refusals: Quiet,
    /// Lines about brokers that cannot be reached.
    pub(crate) unreachable: Quiet,
    /// A client found no broker: the poller looks at once.
    pub(crate) trouble: Notify,
    budget: ProcessBudget,
    connection_bytes_max: usize,
    next_connection: AtomicU64,
    /// The broker serves clients without SASL: seen by an answer to one.
    open: AtomicBool,
    opened: Notify,
    /// Since when captured requests wait for the first sign of that.
    undecided_since: OnceLock<Instant>,
    next_bootstrap: AtomicUsize,
}

/// What all clusters of a process share.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) budget: ProcessBudget,
    pub(crate) drain: Shutdown,
    pub(crate) cut: Shutdown,
}

impl Cluster {
    /// Puts a cluster together; nothing runs yet.
    pub(crate) fn new(
        settings: &VirtualCluster,
        topology: Topology,
        capture: Option<Capture>,
        metrics: Arc<ClusterMetrics>,
        process: &Process,
    ) -> Cluster {
        Cluster {
            name: settings.name.clone(),
            upstream: settings.upstream.clone(),
            capture_credentials: settings.capture_credentials.clone(),
            topology,
            capture,
            metrics,
            request_bytes_max: to_usize(settings.listen.max_request_bytes),
            idle_timeout: settings.listen.idle_timeout,
            connections: Arc::new(Semaphore::new(settings.listen.max_connections as usize)),
            drain: process.drain.clone(),
            cut: process.cut.clone(),
            refusals: Quiet::default(),
            unreachable: Quiet::default(),
            trouble: Notify::new(),
            budget: process.budget.clone(),
            connection_bytes_max: to_usize(settings.limits.connection_in_flight_bytes),
            next_connection: AtomicU64::new(1),
            open: AtomicBool::new(false),
            opened: Notify::new(),
            undecided_since: OnceLock::new(),
            next_bootstrap: AtomicUsize::new(0),
        }
    }

    /// A number for a connection, unique within the process.
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// The budget of one connection.
    pub(crate) fn connection_budget(&self) -> ConnectionBudget {
        self.budget.connection(self.connection_bytes_max)
    }

    /// Whether brokers are known to serve clients without SASL.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A broker served a client without SASL.
    pub(crate) fn seen_open(&self) {
        if !self.is_open() {
            self.open.store(true, Ordering::Release);
            self.opened.notify_waiters();
        }
    }

    /// Waits until it is known that brokers serve clients without SASL; false when that takes too long. Soon after a
    /// start that is normal: a producer that knows its topics already asks for nothing before it sends.
    pub(crate) async fn wait_open(&self, capture: &Capture) -> bool {
        let since = *self.undecided_since.get_or_init(Instant::now);
        let deadline = capture.decision_deadline(since);
        // Made before the look, so that nothing between the two is overlooked.
        let opened = self.opened.notified();
        self.is_open() || tokio::time::timeout_at(deadline, opened).await.is_ok()
    }

    /// Takes topic names and ids from a Metadata answer that passes, so that a producer's first batch finds its topic
    /// in the buffer's catalog already.
    pub(crate) async fn observe_metadata(
        &self,
        version: i16,
        body: &Bytes,
        asked_after: Option<BufferPosition>,
    ) {
        if let (Some(capture), Some(asked_after)) = (&self.capture, asked_after) {
            catalog::observe(self, capture, version, body, asked_after, capture.now_ms()).await;
        }
    }

    /// Connects to the broker that a listener leads to.
    pub(crate) async fn connect(&self, route: Route) -> io::Result<TcpStream> {
        let not_found = |text: &str| Err(io::Error::new(io::ErrorKind::NotFound, text));
        match route {
            Route::Node(node_id) => match self.topology.upstream_of(node_id) {
                Some(address) => self.dial(&address).await,
                None => not_found("the broker's address is not known"),
            },
            Route::Bootstrap => {
                let mut last = not_found("no bootstrap server is configured");
                for address in self.bootstrap_addresses() {
                    last = self.dial(&address).await;
                    if last.is_ok() {
                        return last;
                    }
                }
                last
            }
        }
    }

    /// Bootstrap servers in turn, then the brokers seen so far: one that moved may be the only one left.
    fn bootstrap_addresses(&self) -> Vec<HostPort> {
        let servers = &self.upstream.bootstrap_servers;
        let first = self
            .next_bootstrap
            .fetch_add(1, Ordering::Relaxed)
            .checked_rem(servers.len())
            .unwrap_or(0);
        let mut addresses: Vec<HostPort> = servers
            .iter()
            .cycle()
            .skip(first)
            .take(servers.len())
            .cloned()
            .collect();
        for known in self.topology.upstreams() {
            if !addresses.contains(&known) && addresses.len() < BOOTSTRAP_ATTEMPTS_MAX {
                addresses.push(known);
            }
        }
        addresses
    }

    async fn dial(&self, address: &HostPort) -> io::Result<TcpStream> {
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let stream = match tokio::time::timeout(self.upstream.connect_timeout, connect).await {
            Ok(connected) => {
                connected.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?
            }
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{address}: no answer"),
                ));
            }
        };
        tune(&stream)?;
        Ok(stream)
    }
}

/// Small requests must not wait for each other's acknowledgements, and a peer that vanished must be noticed.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Before the usual five minutes after which firewalls forget a connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// A client gives up long before more than this were tried.
const BOOTSTRAP_ATTEMPTS_MAX: usize = 8;
