//! Connections to brokers, for sessions of clients: which broker, TCP, TLS, and SASL where the proxy speaks for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use teeline_config::{HostPort, KafkaEndpoint};
use teeline_wire::client::{ClientError, TlsClient, introduce};
use tokio::net::TcpStream;

use crate::intercept::{Destination, OwnConnection};
use crate::openness::Openness;
use crate::stream::Stream;
use crate::tcp;
use crate::topology::{Route, Topology};

/// How sessions reach the brokers of a cluster.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) endpoint: KafkaEndpoint,
    pub(crate) tls: Option<Arc<TlsClient>>,
    /// Whether it serves clients without SASL.
    pub(crate) openness: Arc<Openness>,
    next_bootstrap: AtomicUsize,
}

/// A connection that is ready for a client's requests.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Stream,
    /// How long it is good for, where the proxy has authenticated and the broker sets a limit.
    pub(crate) lifetime: Option<Duration>,
    /// By which it is known when the network leads it back to the proxy.
    pub(crate) own: Option<OwnConnection>,
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
    /// It does not let the proxy in.
    #[error("{}", teeline_runtime::exit::error_chain(.0))]
    Sasl(ClientError),
}

impl UpstreamError {
    /// The broker is not there, as far as TCP can tell; and not just slow, or unwilling.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            UpstreamError::Unknown => true,
            UpstreamError::Failed { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }
}

impl Upstream {
    pub(crate) fn new(endpoint: &KafkaEndpoint) -> Upstream {
        Upstream {
            endpoint: endpoint.clone(),
            tls: endpoint.security.tls.clone().map(TlsClient::new).map(Arc::new),
            openness: Arc::default(),
            next_bootstrap: AtomicUsize::new(0),
        }
    }

    /// Connects to the broker that a listener leads to.
    pub(crate) async fn connect(
        &self,
        route: Route,
        topology: &Topology,
        socket_buffer_bytes: u32,
    ) -> Result<Connected, UpstreamError> {
        match route {
            Route::Node(node_id) => match topology.upstream_of(node_id) {
                Some(address) => self.dial(&address, socket_buffer_bytes).await,
                None => Err(UpstreamError::Unknown),
            },
            Route::Destination(destination) => {
                self.dial_destination(destination, topology, socket_buffer_bytes)
                    .await
            }
            Route::Bootstrap => {
                let mut last = Err(UpstreamError::NoServers);
                for address in self.bootstrap_addresses(topology) {
                    last = self.dial(&address, socket_buffer_bytes).await;
                    // What one broker says to our credentials all of them say: each more would be one more failed login.
                    if matches!(last, Ok(_) | Err(UpstreamError::Sasl(_))) {
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

    async fn dial(&self, address: &HostPort, socket_buffer_bytes: u32) -> Result<Connected, UpstreamError> {
        let to = (address.host.as_str(), address.port);
        let connecting = tcp::connect(to, UNACKNOWLEDGED_MAX, socket_buffer_bytes);
        let stream = self.reach(address, connecting).await?;
        self.introduced(stream, address).await
    }

    /// To the very address that the client wanted, under the name that the cluster has for it.
    async fn dial_destination(
        &self,
        destination: Destination,
        topology: &Topology,
        socket_buffer_bytes: u32,
    ) -> Result<Connected, UpstreamError> {
        let Destination { address, .. } = destination;
        let name = topology.destinations.name_of(address);
        let name = name.unwrap_or_else(|| HostPort::new(address.ip().to_string(), address.port()));
        let connecting = tcp::connect(address, UNACKNOWLEDGED_MAX, socket_buffer_bytes);
        let stream = self.reach(&name, connecting).await?;
        // Before anything else: it may be on its way back to us.
        let own = topology.destinations.own(&stream);
        let own = own.map_err(|source| UpstreamError::Failed {
            address: name.clone(),
            source,
        })?;
        let mut connected = self.introduced(stream, &name).await?;
        connected.own = Some(own);
        Ok(connected)
    }

    async fn reach(
        &self,
        address: &HostPort,
        connecting: impl Future<Output = io::Result<TcpStream>>,
    ) -> Result<TcpStream, UpstreamError> {
        let connected = tokio::time::timeout(self.endpoint.connect_timeout, connecting)
            .await
            .map_err(|_elapsed| UpstreamError::NoAnswer(address.clone()))?;
        connected.map_err(|source| UpstreamError::Failed {
            address: address.clone(),
            source,
        })
    }

    /// TLS and SASL, where the proxy speaks them.
    async fn introduced(&self, stream: TcpStream, address: &HostPort) -> Result<Connected, UpstreamError> {
        let limit = self.endpoint.connect_timeout;
        let mut stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => Box::pin(tls.secure_as_loaded(stream, address, limit))
                .await
                .map(Stream::secured)
                .map_err(UpstreamError::Tls)?,
        };
        let lifetime = match &self.endpoint.security.sasl {
            None => None,
            Some(sasl) => {
                let (reader, writer) = stream.split();
                let mut both = tokio::io::join(reader, writer);
                Box::pin(introduce(&mut both, address, &self.endpoint, sasl))
                    .await
                    .map_err(UpstreamError::Sasl)?
            }
        };
        Ok(Connected {
            stream,
            lifetime,
            own: None,
        })
    }

    /// The brokers know the proxy, and not its clients.
    pub(crate) fn speaks_for_clients(&self) -> bool {
        self.endpoint.security.sasl.is_some()
    }
}

/// How long a broker may leave what it was sent unacknowledged, or unread. Clients give up long before.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(5 * 60);
/// A client gives up long before more than this were tried.
const BOOTSTRAP_ATTEMPTS_MAX: usize = 8;
