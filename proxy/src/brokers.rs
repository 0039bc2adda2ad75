//! Who the brokers are and whom they serve, as sessions of clients meet them.
//!
//! Without credentials of its own the poller asks as any client would, and its answers hold for sessions too. With
//! credentials they say nothing about clients that have none; and when they are shown to another listener, its
//! addresses are not those that sessions are to reach.

use std::sync::Arc;
use std::time::Duration;

use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster as Client, ClusterMetadata, RetryPolicy, TopicSelection,
};
use tokio::time::Instant;

use crate::cluster::{Cluster, Live};
use crate::topology::Authority;

/// What the poller tells the proxy about brokers.
pub(crate) struct Brokers {
    cluster: Arc<Cluster>,
    /// As sessions without credentials, on the sessions' listener; and by which configuration.
    client: Option<(Arc<Live>, Client)>,
    /// Until then it is left in peace, unless a reload has changed how it is asked.
    ask_again: Option<(Arc<Live>, Instant)>,
}

impl Brokers {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Brokers {
        Brokers {
            cluster,
            client: None,
            ask_again: None,
        }
    }

    /// Takes the answer to a question that the poller asked by this configuration.
    pub(crate) fn learn(&self, live: &Live, answer: &ClusterMetadata) {
        self.cluster.metrics.brokers.set(answer.brokers.len() as f64);
        if let Some(id) = &answer.cluster_id {
            self.cluster.identity.get_or_init(|| id.clone());
        }
        if live.capture_credentials.is_none() {
            live.upstream.openness.seen_open();
        }
        if !has_own_listener(live) {
            self.advertise(live, answer);
        }
    }

    /// With a listener of our own, asks the sessions' one too. If that wants SASL it does not answer; then the addresses
    /// are learnt from what sessions ask.
    pub(crate) async fn ask_as_sessions(&mut self, live: &Arc<Live>) {
        let now = Instant::now();
        let refused = self.ask_again.as_ref();
        let in_peace = refused.is_some_and(|(by, then)| Arc::ptr_eq(by, live) && now < *then);
        if in_peace || !has_own_listener(live) {
            return;
        }
        match self.metadata(live).await {
            Ok(answer) => {
                live.upstream.openness.seen_open();
                self.advertise(live, &answer);
            }
            Err(error) => {
                tracing::debug!(
                    cluster = self.cluster.name,
                    "the sessions' listener does not answer without credentials: {}",
                    error_chain(&error)
                );
                self.ask_again = Some((Arc::clone(live), now + REFUSED_PAUSE));
            }
        }
    }

    async fn metadata(&mut self, live: &Arc<Live>) -> Result<ClusterMetadata, ClientError> {
        let known = self.client.take().filter(|(by, _)| Arc::ptr_eq(by, live));
        let client = match known {
            Some((_, client)) => client,
            None => {
                let config = ClientConfig {
                    retry: RetryPolicy::NONE,
                    ..ClientConfig::from(&live.upstream.endpoint)
                };
                Client::connect(config).await?
            }
        };
        self.client = Some((Arc::clone(live), client.clone()));
        client.metadata(TopicSelection::None).await
    }

    /// What was asked by a configuration that a reload has replaced meanwhile says nothing any more.
    fn advertise(&self, live: &Live, answer: &ClusterMetadata) {
        if !std::ptr::eq(&**self.cluster.live.load(), live) {
            return;
        }
        for broker in &answer.brokers {
            let (host, port) = (broker.address.host.as_str(), i32::from(broker.address.port));
            // A broker that does not fit is logged there; the answers that name it are refused.
            let _ = self
                .cluster
                .topology
                .advertise(broker.node_id, host, port, Authority::Metadata);
        }
        let is_there = |node_id| answer.brokers.iter().any(|broker| broker.node_id == node_id);
        self.cluster.topology.keep(is_there);
    }
}

fn has_own_listener(live: &Live) -> bool {
    let own = live.capture_credentials.as_ref();
    own.is_some_and(|own| own.bootstrap_servers != live.upstream.endpoint.bootstrap_servers)
}

/// A listener that wants SASL logs each refusal.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
