//! Who the brokers are and whom they serve, as sessions of clients meet them.
//!
//! Without credentials of its own the poller asks as any client would, and its answers hold for sessions too. With
//! credentials they say nothing about clients that have none; and when they are shown to another listener, its
//! addresses are not those that sessions are to reach.

use std::sync::Arc;
use std::time::Duration;

use teeline_config::KafkaEndpoint;
use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster as Client, ClusterMetadata, RetryPolicy, TopicSelection,
};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::topology::Authority;

/// What the poller tells the proxy about brokers.
pub(crate) struct Brokers {
    cluster: Arc<Cluster>,
    /// As sessions without credentials, on the sessions' listener.
    client: Option<Client>,
    ask_again: Option<Instant>,
}

impl Brokers {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Brokers {
        Brokers {
            cluster,
            client: None,
            ask_again: None,
        }
    }

    /// How the poller itself reaches the cluster.
    pub(crate) fn own_endpoint(&self) -> &KafkaEndpoint {
        let own = self.cluster.capture_credentials.as_ref();
        own.unwrap_or(&self.cluster.endpoint)
    }

    /// Takes the answer to a question of the poller.
    pub(crate) fn learn(&self, answer: &ClusterMetadata) {
        self.cluster.metrics.brokers.set(answer.brokers.len() as f64);
        if self.cluster.capture_credentials.is_none() {
            self.cluster.seen_open();
        }
        if !self.has_own_listener() {
            self.advertise(answer);
        }
    }

    /// With a listener of our own, asks the sessions' one too. If that wants SASL it does not answer; then the addresses
    /// are learnt from what sessions ask.
    pub(crate) async fn ask_as_sessions(&mut self) {
        let now = Instant::now();
        if !self.has_own_listener() || self.ask_again.is_some_and(|then| now < then) {
            return;
        }
        match self.metadata().await {
            Ok(answer) => {
                self.cluster.seen_open();
                self.advertise(&answer);
            }
            Err(error) => {
                tracing::debug!(
                    cluster = self.cluster.name,
                    "the sessions' listener does not answer without credentials: {}",
                    error_chain(&error)
                );
                self.ask_again = Some(now + REFUSED_PAUSE);
            }
        }
    }

    async fn metadata(&mut self) -> Result<ClusterMetadata, ClientError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let config = ClientConfig {
                    retry: RetryPolicy::NONE,
                    ..ClientConfig::from(&self.cluster.endpoint)
                };
                self.client.insert(Client::connect(config).await?).clone()
            }
        };
        client.metadata(TopicSelection::None).await
    }

    fn has_own_listener(&self) -> bool {
        let own = self.cluster.capture_credentials.as_ref();
        own.is_some_and(|own| own.bootstrap_servers != self.cluster.endpoint.bootstrap_servers)
    }

    fn advertise(&self, answer: &ClusterMetadata) {
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

/// A listener that wants SASL logs each refusal.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
