//! Which broker stands behind which listener.
//!
//! A broker's port follows from its id alone (`listen.addressing`), so restarts and replicas of the proxy agree without
//! talking to each other. [`Topology::advertise`] is the only way an address reaches a client: it answers once the
//! listener for that broker is bound, never before, and with nothing when the broker does not fit. Then the response
//! is refused: a client must not learn the broker's own address instead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use socket2::{Domain, Protocol, Socket, Type};
use teeline_config::{Addressing, HostPort, Listen};
use teeline_runtime::health::ComponentHealth;
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

/// What is known of a connection by the listener it came in at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Where it wants to go.
    Route(Route),
    /// Nothing: the name in its TLS greeting says it.
    ByName,
}

/// A bound listener on its way to whoever accepts from it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) entrance: Entrance,
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
    /// Brokers that clients cannot be told of, and why.
    unpresentable: Mutex<BTreeMap<i32, String>>,
    health: Option<ComponentHealth>,
    bound: mpsc::Sender<Bound>,
    refusals: Quiet,
}

#[derive(Debug, Clone)]
struct Node {
    upstream: HostPort,
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
            entrance: match listen.addressing {
                Addressing::Ports(_) => Entrance::Route(Route::Bootstrap),
                Addressing::Names(_) => Entrance::ByName,
            },
            listener: bind(address)?,
        };
        sender.try_send(bootstrap).map_err(|_| none())?;
        let topology = Topology {
            cluster: cluster.to_owned(),
            listen: listen.clone(),
            ip: address.ip(),
            nodes: RwLock::default(),
            unpresentable: Mutex::default(),
            health: None,
            bound: sender,
            refusals: Quiet::default(),
        };
        Ok((topology, receiver))
    }

    /// Says here whether every broker can be presented.
    pub(crate) fn reporting_to(mut self, health: ComponentHealth) -> Topology {
        health.ready();
        self.health = Some(health);
        self
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
        let advertised = self.try_advertise(node_id, host, port, authority).and_then(|()| {
            let advertised = self.listen.advertised(node_id);
            advertised.ok_or(AdvertiseError::NoPort(node_id))
        });
        match advertised {
            Ok(advertised) => {
                self.presentable(node_id);
                Some(advertised)
            }
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
                // Only what the cluster itself says of its brokers counts for readiness.
                if authority == Authority::Metadata {
                    self.lock_unpresentable().insert(node_id, error.to_string());
                    self.report();
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
    ) -> Result<(), AdvertiseError> {
        let upstream_port = u16::try_from(port).ok().filter(|port| *port > 0);
        let upstream = upstream_port
            .filter(|_| !host.is_empty())
            .map(|port| HostPort::new(host, port));
        if let Some(node) = self.read().get(&node_id) {
            let unchanged = upstream
                .as_ref()
                .is_none_or(|upstream| *upstream == node.upstream);
            if unchanged || authority == Authority::Hint {
                return Ok(());
            }
        }
        let upstream = upstream.ok_or(AdvertiseError::NoAddress(node_id))?;
        self.admit(node_id, upstream)
    }

    fn admit(&self, node_id: i32, upstream: HostPort) -> Result<(), AdvertiseError> {
        let port = match &self.listen.addressing {
            Addressing::Ports(ports) => Some(ports.port_of(node_id).ok_or(AdvertiseError::NoPort(node_id))?),
            Addressing::Names(_) if node_id < 0 => return Err(AdvertiseError::NoPort(node_id)),
            // One listener serves all.
            Addressing::Names(_) => None,
        };
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get_mut(&node_id) {
            if node.upstream != upstream {
                tracing::info!(cluster = self.cluster, node_id, from = %node.upstream, to = %upstream, "broker moved");
                node.upstream = upstream;
            }
            return Ok(());
        }
        if let Some(port) = port {
            self.open_listener(node_id, port, &upstream)?;
        }
        nodes.insert(node_id, Node { upstream });
        Ok(())
    }

    fn open_listener(&self, node_id: i32, port: u16, upstream: &HostPort) -> Result<(), AdvertiseError> {
        let address = SocketAddr::new(self.ip, port);
        let listener = bind(address).map_err(|source| AdvertiseError::Bind {
            node_id,
            address,
            source,
        })?;
        let bound = Bound {
            entrance: Entrance::Route(Route::Node(node_id)),
            listener,
        };
        self.bound.try_send(bound).map_err(|_| AdvertiseError::Closed)?;
        tracing::info!(cluster = self.cluster, node_id, listen = %address, %upstream, "broker listener opened");
        Ok(())
    }

    /// What a name leads to that a client greets. Brokers that are not known lead nowhere yet.
    pub(crate) fn route_of(&self, name: &str) -> Option<Route> {
        let Addressing::Names(names) = &self.listen.addressing else {
            return None;
        };
        // With the dot at its end it is the same name.
        let name = name.strip_suffix('.').unwrap_or(name);
        if names
            .bootstrap_hosts
            .iter()
            .any(|host| host.eq_ignore_ascii_case(name))
        {
            return Some(Route::Bootstrap);
        }
        names.node_host.node_of(name).map(Route::Node)
    }

    /// The cluster has these brokers and no others.
    pub(crate) fn keep(&self, is_there: impl Fn(i32) -> bool) {
        let mut unpresentable = self.lock_unpresentable();
        let before = unpresentable.len();
        unpresentable.retain(|node_id, _| is_there(*node_id));
        if unpresentable.len() != before {
            drop(unpresentable);
            self.report();
        }
    }

    fn presentable(&self, node_id: i32) {
        let was_not = self.lock_unpresentable().remove(&node_id).is_some();
        if was_not {
            self.report();
        }
    }

    fn report(&self) {
        let Some(health) = &self.health else { return };
        let unpresentable = self.lock_unpresentable();
        match unpresentable.values().next() {
            None => health.ready(),
            Some(reason) if unpresentable.len() == 1 => health.not_ready(reason.clone()),
            Some(reason) => health.not_ready(format!("{reason}, and {} more", unpresentable.len() - 1)),
        }
    }

    fn lock_unpresentable(&self) -> MutexGuard<'_, BTreeMap<i32, String>> {
        self.unpresentable.lock().unwrap_or_else(PoisonError::into_inner)
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
    use teeline_config::{Names, Ports};
    use teeline_runtime::Health;

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
        let bootstrap = bound.recv().await.unwrap();
        assert_eq!(bootstrap.entrance, Entrance::Route(Route::Bootstrap));
        let port = topology
            .advertise(1, "broker-1", 9092, Authority::Metadata)
            .unwrap()
            .1;
        assert_eq!(port, 9093);
        let listener = bound.recv().await.unwrap();
        assert_eq!(listener.entrance, Entrance::Route(Route::Node(1)));
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

    #[tokio::test]
    async fn readiness_says_which_broker_cannot_be_presented_until_it_can_or_is_gone() {
        let listen = listen();
        let health = Health::new();
        let (topology, _bound) = Topology::open("test", &listen).unwrap();
        let topology = topology.reporting_to(health.component("listeners/test"));
        let present = |node_id| {
            topology
                .advertise(node_id, "b", 9092, Authority::Metadata)
                .is_some()
        };
        assert!(present(0) && health.is_ready());
        let taken = std::net::TcpListener::bind((listen.address.host.as_str(), 9093)).unwrap();
        assert!(!present(1) && !health.is_ready());
        let states = format!("{:?}", health.states());
        assert!(states.contains("of broker 1 cannot be bound"), "{states}");
        assert!(!present(7) && !health.is_ready());
        drop(taken);
        assert!(present(1) && !health.is_ready());
        topology.keep(|node_id| node_id != 7);
        assert!(health.is_ready());
        // A hint may be wrong, and nobody is kept from anything by it.
        assert!(topology.advertise(9, "b", 9092, Authority::Hint).is_none());
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn names_lead_to_brokers_without_listeners_of_their_own() {
        let listen = Listen {
            addressing: Addressing::Names(Names {
                bootstrap_hosts: vec!["kafka.test".to_owned()],
                node_host: "b-{id}.kafka.test".parse().unwrap(),
                advertised_port: 443,
            }),
            ..listen()
        };
        let (topology, mut bound) = Topology::open("test", &listen).unwrap();
        assert_eq!(bound.recv().await.unwrap().entrance, Entrance::ByName);
        let advertised = topology.advertise(7, "broker", 9092, Authority::Metadata);
        assert_eq!(advertised, Some(("b-7.kafka.test".to_owned(), 443)));
        assert!(bound.try_recv().is_err());
        assert!(
            topology
                .advertise(-1, "broker", 9092, Authority::Metadata)
                .is_none()
        );
        assert_eq!(topology.route_of("KAFKA.test."), Some(Route::Bootstrap));
        assert_eq!(topology.route_of("b-7.kafka.test"), Some(Route::Node(7)));
        assert_eq!(topology.route_of("b-x.kafka.test"), None);
    }
}
