//! Connections to brokers, for sessions of clients: which broker, TCP, TLS.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use teeline_config::{HostPort, KafkaEndpoint};
use teeline_wire::client::{ClientError, TlsClient};
use tokio::net::TcpStream;

use crate::stream::Stream;
use crate::topology::{Route, Topology};

/// How sessions reach the brokers of a cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    endpoint: KafkaEndpoint,
    pub(crate) tls: Option<Arc<TlsClient>>,
    next_bootstrap: AtomicUsize,
}

/// Why no broker could be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Nobody has said where it is.
    #[error("the broker's address is not known")]
    Unknown,
    /// There is nobody to ask.
    #[error("no bootstrap server is configured")]
    NoServers,
    /// It did not answer in time.
    #[error("{0}: no answer")]
    NoAnswer(HostPort),
    /// The connection failed.
    #[error("{address}: {source}")]
    Failed { address: HostPort, source: io::Error },
    /// TLS with it failed.
    #[error("{}", teeline_runtime::exit::error_chain(.0))]
    Tls(ClientError),
}

impl Upstream {
    pub(crate) fn new(endpoint: &KafkaEndpoint) -> Upstream {
        Upstream {
            endpoint: endpoint.clone(),
            tls: endpoint.security.tls.clone().map(TlsClient::new).map(Arc::new),
            next_bootstrap: AtomicUsize::new(0),
        }
    }

    /// Connects to the broker that a listener leads to.
    pub(crate) async fn connect(&self, route: Route, topology: &Topology) -> Result<Stream, UpstreamError> {
        match route {
            Route::Node(node_id) => match topology.upstream_of(node_id) {
                Some(address) => self.dial(&address).await,
                None => Err(UpstreamError::Unknown),
            },
            Route::Bootstrap => {
                let mut last = Err(UpstreamError::NoServers);
                for address in self.bootstrap_addresses(topology) {
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
    fn bootstrap_addresses(&self, topology: &Topology) -> Vec<HostPort> {
        let servers = &self.endpoint.bootstrap_servers;
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
        for known in topology.upstreams() {
            if !addresses.contains(&known) && addresses.len() < BOOTSTRAP_ATTEMPTS_MAX {
                addresses.push(known);
            }
        }
        addresses
    }

    async fn dial(&self, address: &HostPort) -> Result<Stream, UpstreamError> {
        let limit = self.endpoint.connect_timeout;
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let connected = tokio::time::timeout(limit, connect)
            .await
            .map_err(|_elapsed| UpstreamError::NoAnswer(address.clone()))?;
        let stream = connected.and_then(|stream| tune(&stream).map(|()| stream));
        let stream = stream.map_err(|source| UpstreamError::Failed {
            address: address.clone(),
            source,
        })?;
        match &self.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => Box::pin(tls.secure_as_loaded(stream, address, limit))
                .await
                .map(Stream::secured)
                .map_err(UpstreamError::Tls),
        }
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

/// Before the usual five minutes after which firewalls forget a connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// A client gives up long before more than this were tried.
const BOOTSTRAP_ATTEMPTS_MAX: usize = 8;
