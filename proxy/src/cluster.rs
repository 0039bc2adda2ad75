//! One virtual cluster: what its listeners, sessions and poller share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use teeline_archive::ids::BufferPosition;
use teeline_config::Addressing;
use teeline_config::cluster::{ConnectionAge, Listen, VirtualCluster};
use teeline_config::endpoint::KafkaEndpoint;
use teeline_config::process::Process as ProcessSettings;
use tokio::sync::Notify;

use crate::budget::{Budgets, Parties, ProcessBudget};
use crate::capture::Capture;
use crate::catalog;
use crate::door::Door;
use crate::metrics::ClusterMetrics;
use crate::observe::Observatory;
use crate::places::{Guests, Places};
use crate::quiet::Quiet;
use crate::stop::Stop;
use crate::topology::Topology;
use crate::upstream::Upstream;

/// What is shared by everything that serves one virtual cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// What a reload replaces. In one piece: nobody sees parts of two configurations.
    pub(crate) live: ArcSwap<Live>,
    pub(crate) topology: Topology,
    /// None when nothing is captured.
    pub(crate) capture: Option<Capture>,
    pub(crate) metrics: Arc<ClusterMetrics>,
    /// Places for connections.
    pub(crate) guests: Arc<Guests>,
    /// Ends this cluster, with the process or alone.
    pub(crate) stop: Stop,
    /// Lines about refused connections.
    pub(crate) refusals: Quiet,
    /// Lines about brokers that cannot be reached.
    pub(crate) unreachable: Quiet,
    /// The cluster's own id, as it was first told.
    pub(crate) identity: OnceLock<String>,
    /// A client found no broker: the poller looks at once.
    pub(crate) trouble: Notify,
    budget: ProcessBudget,
    parties: Parties,
    /// Who is there.
    pub(crate) observatory: Arc<Observatory>,
}

/// What of a cluster's configuration can change while it runs. A connection keeps what it began with, except where it
/// looks at [`Cluster::live`] again.
#[derive(Debug)]
pub(crate) struct Live {
    /// What clients go through before.
    pub(crate) door: Arc<Door>,
    /// How sessions reach the brokers.
    pub(crate) upstream: Arc<Upstream>,
    /// How the proxy's own questions reach them, if not as sessions do.
    pub(crate) capture_credentials: Option<KafkaEndpoint>,
    pub(crate) request_bytes_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) connection_age: Option<ConnectionAge>,
    pub(crate) catalog_poll_interval: Duration,
    /// Clients keep the brokers' own addresses: answers that name them pass as they are.
    pub(crate) intercepts: bool,
    /// How long connections of a listener that goes may finish what is in flight.
    pub(crate) drain_patience: Duration,
    connection_bytes_max: usize,
    /// What the kernel may keep for each socket, in each direction.
    pub(crate) socket_buffer_bytes: u32,
}

impl Live {
    /// What the settings say, behind this door and before these brokers.
    pub(crate) fn new(
        settings: &VirtualCluster,
        process: &ProcessSettings,
        door: Arc<Door>,
        upstream: Arc<Upstream>,
    ) -> Live {
        let listen = &settings.listen;
        Live {
            door,
            upstream,
            capture_credentials: settings.capture_credentials.clone(),
            request_bytes_max: to_usize(listen.max_request_bytes),
            idle_timeout: listen.idle_timeout,
            connection_age: listen.connection_age,
            catalog_poll_interval: settings.capture.catalog_poll_interval,
            intercepts: matches!(listen.addressing, Addressing::Intercept(_)),
            // The other half belongs to the archiving, when the process stops.
            drain_patience: process.drain_timeout / 2,
            connection_bytes_max: to_usize(settings.limits.connection_in_flight_bytes),
            socket_buffer_bytes: settings.limits.socket_buffer_bytes,
        }
    }

    /// How the proxy's own questions reach the brokers.
    pub(crate) fn own_endpoint(&self) -> &KafkaEndpoint {
        let own = self.capture_credentials.as_ref();
        own.unwrap_or(&self.upstream.endpoint)
    }
}

/// What a connection begins with.
#[derive(Debug, Clone)]
pub(crate) struct Footing {
    pub(crate) cluster: Arc<Cluster>,
    /// The configuration of that moment.
    pub(crate) live: Arc<Live>,
    /// Ends the listener that it came in by.
    pub(crate) stop: Stop,
}

/// What all clusters of a process share.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) budget: ProcessBudget,
    pub(crate) places: Arc<Places>,
    pub(crate) observatory: Arc<Observatory>,
    pub(crate) stop: Stop,
}

impl Cluster {
    /// Puts a cluster together; nothing runs yet.
    pub(crate) fn new(
        settings: &VirtualCluster,
        live: Live,
        topology: Topology,
        capture: Option<Capture>,
        metrics: Arc<ClusterMetrics>,
        process: &Process,
    ) -> Cluster {
        Cluster {
            name: settings.name.clone(),
            live: ArcSwap::from_pointee(live),
            topology,
            capture,
            metrics,
            guests: Guests::new(Arc::clone(&process.places), &settings.listen),
            stop: process.stop.child(),
            refusals: Quiet::default(),
            unreachable: Quiet::default(),
            identity: OnceLock::new(),
            trouble: Notify::new(),
            budget: process.budget.clone(),
            parties: Parties::default(),
            observatory: Arc::clone(&process.observatory),
        }
    }

    /// Changes how many connections there may be. Those that are open stay.
    pub(crate) fn set_places(&self, listen: &Listen) {
        self.guests.set_most(listen);
    }

    /// What one connection to a broker may hold.
    pub(crate) fn budgets(&self, live: &Live, node_id: Option<i32>) -> Budgets {
        self.budget
            .connection(self.parties.of(node_id), live.connection_bytes_max)
    }

    /// Bytes of requests in memory, all connections of this cluster together.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.parties.bytes_used()
    }

    /// Bytes of answers and of large read buffers in memory, all connections of the process together.
    #[cfg(test)]
    pub(crate) fn answer_bytes(&self) -> usize {
        self.budget.answer_bytes_used()
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

/// A size of the configuration; what cannot be addressed is no limit.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
