//! Which broker stands behind which listener.
//!
//! A broker's port follows from its id alone (`listen.addressing`), so restarts and replicas of the proxy agree without
//! talking to each other. [`Topology::advertise`] is the only way an address reaches a client: it answers once the
//! listener for that broker is bound, never before, and with nothing when the broker does not fit. Then the response
//! is refused: a client must not learn the broker's own address instead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{PoisonError, RwLock};

use socket2::{Domain, Protocol, Socket, Type};
use teeline_config::cluster::Listen;
use teeline_config::endpoint::HostPort;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::quiet::Quiet;

/// What a listener leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Any broker: clients ask here first.
    Bootstrap,
    /// This broker and no other.
    Node(i32),
}

impl Route {
    /// The broker, if it is a certain one.
    pub(crate) fn node_id(self) -> Option<i32> {
        match self {
            Route::Bootstrap => None,
            Route::Node(node_id) => Some(node_id),
        }
    }
}

/// A bound listener on its way to whoever accepts from it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) route: Route,
    pub(crate) listener: TcpListener,
}

/// How far a source may be believed about a broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    /// Metadata: lists brokers by the listener that the client came in on, so it replaces what was known.
    Metadata,
    /// Anything else (coordinators, leader hints, controllers): only fills in what was not known.
    Hint,
}

/// Why a broker cannot be presented to clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdvertiseError {
    /// The id lies outside `listen.addressing`.
    #[error(
        "broker {0} has no port: widen listen.addressing (node_id_start, node_port_count) or list it in nodes"
    )]
    NoPort(i32),
    /// The address that the cluster reports for the broker cannot be connected to.
    #[error("the cluster reports no usable address for broker {0}")]
    NoAddress(i32),
    /// The listener's port cannot be bound.
    #[error("the listener {address} of broker {node_id} cannot be bound: {source}")]
    Bind {
        node_id: i32,
        address: SocketAddr,
        source: io::Error,
    },
    /// The process is stopping.
    #[error("no listeners are opened any more")]
    Closed,
}

/// The brokers of one virtual cluster and their listeners.
#[derive(Debug)]
pub(crate) struct Topology {
    cluster: String,
    listen: Listen,
    /// The address that all listeners bind.
    ip: IpAddr,
    nodes: RwLock<BTreeMap<i32, Node>>,
    bound: mpsc::Sender<Bound>,
    refusals: Quiet,
}

#[derive(Debug, Clone)]
struct Node {
    upstream: HostPort,
    port: u16,
}

impl Topology {
    /// Resolves the listen address and binds the bootstrap listener. What gets bound now and later comes out of the
    /// receiver, in order. Needs the runtime's context.
    ///
    /// # Errors
    /// When the address cannot be resolved or bound.
    pub(crate) fn open(cluster: &str, listen: &Listen) -> io::Result<(Topology, mpsc::Receiver<Bound>)> {
        let wanted = (listen.address.host.as_str(), listen.address.port);
        let none = || io::Error::new(io::ErrorKind::NotFound, "the listen address resolves to nothing");
        let address = wanted.to_socket_addrs()?.next().ok_or_else(none)?;
        let (sender, receiver) = mpsc::channel(LISTENERS_WAITING_MAX);
        let bootstrap = Bound {
            route: Route::Bootstrap,
            listener: bind(address)?,
        };
        sender.try_send(bootstrap).map_err(|_| none())?;
        let topology = Topology {
            cluster: cluster.to_owned(),
            listen: listen.clone(),
            ip: address.ip(),
            nodes: RwLock::default(),
            bound: sender,
            refusals: Quiet::default(),
        };
        Ok((topology, receiver))
    }

    /// The address that clients are given for a broker, once its listener is bound. `None` was logged here; the
    /// response that names the broker must not reach the client.
    pub(crate) fn advertise(
        &self,
        node_id: i32,
        host: &str,
        port: i32,
        authority: Authority,
    ) -> Option<(String, u16)> {
        match self.try_advertise(node_id, host, port, authority) {
            Ok(_) => self.listen.advertised(node_id),
            // While the process stops this is no surprise.
            Err(AdvertiseError::Closed) => None,
            Err(error) => {
                if let Some(suppressed) = self.refusals.admit() {
                    tracing::warn!(
                        cluster = self.cluster,
                        node_id,
                        suppressed,
                        "broker cannot be presented: {error}"
                    );
                }
                None
            }
        }
    }

    fn try_advertise(
        &self,
        node_id: i32,
        host: &str,
        port: i32,
        authority: Authority,
    ) -> Result<u16, AdvertiseError> {
        let upstream_port = u16::try_from(port).ok().filter(|port| *port > 0);
        let upstream = upstream_port
            .filter(|_| !host.is_empty())
            .map(|port| HostPort::new(host, port));
        if let Some(node) = self.read().get(&node_id) {
            let unchanged = upstream
                .as_ref()
                .is_none_or(|upstream| *upstream == node.upstream);
            if unchanged || authority == Authority::Hint {
                return Ok(node.port);
            }
        }
        let upstream = upstream.ok_or(AdvertiseError::NoAddress(node_id))?;
        self.admit(node_id, upstream)
    }

    fn admit(&self, node_id: i32, upstream: HostPort) -> Result<u16, AdvertiseError> {
        let port = self
            .listen
            .addressing
            .ports()
            .and_then(|ports| ports.port_of(node_id))
            .ok_or(AdvertiseError::NoPort(node_id))?;
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get_mut(&node_id) {
            if node.upstream != upstream {
                tracing::info!(cluster = self.cluster, node_id, from = %node.upstream, to = %upstream, "broker moved");
                node.upstream = upstream;
            }
            return Ok(node.port);
        }
        let address = SocketAddr::new(self.ip, port);
        let listener = bind(address).map_err(|source| AdvertiseError::Bind {
            node_id,
            address,
            source,
        })?;
        let bound = Bound {
            route: Route::Node(node_id),
            listener,
        };
        self.bound.try_send(bound).map_err(|_| AdvertiseError::Closed)?;
        tracing::info!(cluster = self.cluster, node_id, listen = %address, %upstream, "broker listener opened");
        nodes.insert(node_id, Node { upstream, port });
        Ok(port)
    }

    /// Where a broker is, as the cluster last said.
    pub(crate) fn upstream_of(&self, node_id: i32) -> Option<HostPort> {
        self.read().get(&node_id).map(|node| node.upstream.clone())
    }

    /// Every broker seen so far.
    pub(crate) fn upstreams(&self) -> Vec<HostPort> {
        self.read().values().map(|node| node.upstream.clone()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<i32, Node>> {
        // Writers only insert whole entries, so a poisoned lock still guards a sound map.
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must get its port back although connections of the former process linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A whole fleet reconnects at once after a restart; the kernel cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Listeners wait here only until the acceptor's next turn; a cluster has fewer brokers than this.
const LISTENERS_WAITING_MAX: usize = 4096;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::testing::own_address;
    use teeline_config::{Addressing, Ports};

    fn listen() -> Listen {
        let addressing = Addressing::Ports(Ports {
            node_port_count: 3,
            ..Ports::after(9091)
        });
        Listen {
            address: HostPort::new(own_address(), 0),
            addressing,
            ..Listen::default()
        }
    }

    #[tokio::test]
    async fn a_broker_is_advertised_only_once_its_listener_is_bound() {
        let (topology, mut bound) = Topology::open("test", &listen()).unwrap();
        assert_eq!(bound.recv().await.unwrap().route, Route::Bootstrap);
        let port = topology
            .advertise(1, "broker-1", 9092, Authority::Metadata)
            .unwrap()
            .1;
        assert_eq!(port, 9093);
        let listener = bound.recv().await.unwrap();
        assert_eq!(listener.route, Route::Node(1));
        assert_eq!(listener.listener.local_addr().unwrap().port(), 9093);
        assert_eq!(topology.upstream_of(1), Some(HostPort::new("broker-1", 9092)));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_hints_move_nothing() {
        let listen = listen();
        let (topology, _bound) = Topology::open("test", &listen).unwrap();
        assert!(topology.advertise(3, "b", 9092, Authority::Metadata).is_none());
        assert!(topology.advertise(-1, "b", 9092, Authority::Metadata).is_none());
        assert!(topology.advertise(0, "", -1, Authority::Metadata).is_none());
        let taken = std::net::TcpListener::bind((listen.address.host.as_str(), 9094)).unwrap();
        assert!(topology.advertise(2, "b", 9092, Authority::Metadata).is_none());
        drop(taken);
        assert!(topology.advertise(2, "b", 9092, Authority::Hint).is_some());
        assert!(
            topology
                .advertise(2, "controller", 9093, Authority::Hint)
                .is_some()
        );
        assert_eq!(topology.upstream_of(2), Some(HostPort::new("b", 9092)));
        assert!(
            topology
                .advertise(2, "moved", 9092, Authority::Metadata)
                .is_some()
        );
        assert_eq!(topology.upstream_of(2), Some(HostPort::new("moved", 9092)));
    }
}
