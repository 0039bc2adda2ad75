//! One virtual cluster: what its listeners, sessions and poller share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use teeline_archive::ids::BufferPosition;
use teeline_config::cluster::VirtualCluster;
use teeline_config::endpoint::KafkaEndpoint;
use teeline_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::budget::{ConnectionBudget, ProcessBudget};
use crate::capture::Capture;
use crate::catalog;
use crate::door::Door;
use crate::metrics::ClusterMetrics;
use crate::quiet::Quiet;
use crate::topology::Topology;
use crate::upstream::Upstream;

/// What is shared by everything that serves one virtual cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// How sessions reach the brokers.
    pub(crate) endpoint: KafkaEndpoint,
    pub(crate) upstream: Upstream,
    /// What clients go through before.
    pub(crate) door: Door,
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
        door: Door,
        capture: Option<Capture>,
        metrics: Arc<ClusterMetrics>,
        process: &Process,
    ) -> Cluster {
        Cluster {
            name: settings.name.clone(),
            endpoint: settings.upstream.clone(),
            upstream: Upstream::new(&settings.upstream),
            door,
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
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
