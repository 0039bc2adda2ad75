//! Which broker stands behind which listener.
//!
//! A broker's port follows from its id alone (`listen.addressing`), so restarts and replicas of the proxy agree without
//! talking to each other. The listeners of all ids of the range are bound at the start, before any broker is known: a
//! client that knows its address from before a restart of the proxy is accepted, and waits until the cluster has said
//! where the broker is. [`Topology::advertise`] is the only way an address reaches a client: it answers once the
//! listener for that broker is bound, never before, and with nothing when the broker does not fit. Then the response
//! is refused: a client must not learn the broker's own address instead.
//!
//! A reload replaces the [`Plan`]: which addresses there are and what clients are told. What is known of brokers stays.

mod plan;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwap;
use teeline_config::{Addressing, HostPort, Listen};
use teeline_runtime::health::ComponentHealth;
use tokio::sync::{Notify, mpsc};

use crate::intercept::{Destination, Destinations};
use crate::quiet::Quiet;
use crate::sockets::{Change, EnsureError, Prepared, Sockets, Stopped};
pub(crate) use plan::ListenError;
use plan::{NoPlace, Plan};

/// What a listener leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Any broker: clients ask here first.
    Bootstrap,
    /// This broker and no other.
    Node(i32),
    /// Where the client wanted to go itself.
    Destination(Destination),
}

impl Route {
    /// The broker, if it is a certain one.
    pub(crate) fn node_id(self) -> Option<i32> {
        match self {
            Route::Bootstrap => None,
            Route::Node(node_id) => Some(node_id),
            Route::Destination(destination) => destination.node_id,
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
    /// Nothing: the kernel knows where it was going before the network led it to this port.
    ByDestination { port: u16, transparent: bool },
}

/// How far a source may be believed about a broker's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authority {
    /// Metadata: lists brokers by the listener that the client came in on, so it replaces what was known.
    Metadata,
    /// Anything else (coordinators, leader hints, controllers): only fills in what was not known.
    Hint,
    /// Said on a connection that was made by a configuration no longer in force: teaches nothing.
    Former,
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
    /// The process, or the cluster, is stopping.
    #[error("no listeners are opened any more")]
    Closed,
}

/// A plan whose listeners are bound, and not in force yet.
#[derive(Debug)]
pub(crate) struct Move {
    plan: Plan,
    sockets: Prepared,
}

/// The brokers of one virtual cluster and their listeners.
#[derive(Debug)]
pub(crate) struct Topology {
    cluster: String,
    plan: ArcSwap<Plan>,
    sockets: Mutex<Sockets>,
    nodes: RwLock<BTreeMap<i32, Node>>,
    /// A broker became known, or the cluster was asked for all of them.
    news: Notify,
    /// How often the cluster was asked.
    surveys: AtomicU64,
    /// Where intercepted clients may go.
    pub(crate) destinations: Destinations,
    /// Brokers that clients cannot be told of, and why.
    unpresentable: Mutex<BTreeMap<i32, String>>,
    health: OnceLock<ComponentHealth>,
    refusals: Quiet,
}

#[derive(Debug, Clone)]
struct Node {
    upstream: HostPort,
}

impl Topology {
    /// Resolves the listen address and binds the bootstrap listener, and those of the brokers as far as they can be. What
    /// gets bound now and later comes out of the receiver, in order. Needs the runtime's context.
    ///
    /// # Errors
    /// When the address cannot be resolved, or the bootstrap listener not bound.
    pub(crate) fn open(
        cluster: &str,
        listen: &Listen,
    ) -> Result<(Topology, mpsc::Receiver<Change>), ListenError> {
        let plan = Plan::of(listen)?;
        let (mut sockets, changes) = Sockets::new();
        let prepared = sockets.prepare(plan.wanted(|_| false))?;
        // The receiver is here.
        let _ = sockets.apply(prepared);
        let topology = Topology {
            cluster: cluster.to_owned(),
            plan: ArcSwap::from_pointee(plan),
            sockets: Mutex::new(sockets),
            nodes: RwLock::default(),
            news: Notify::new(),
            surveys: AtomicU64::new(0),
            destinations: Destinations::default(),
            unpresentable: Mutex::default(),
            health: OnceLock::new(),
            refusals: Quiet::default(),
        };
        Ok((topology, changes))
    }

    /// Binds what a new configuration needs and has not; nothing changes yet. The listeners of brokers that are known
    /// are needed, since clients are told of them at once. May block on names. Needs the runtime's context.
    pub(crate) fn prepare(&self, listen: &Listen) -> Result<Move, ListenError> {
        let plan = Plan::of(listen)?;
        let nodes = self.read().clone();
        let wanted = plan.wanted(|node_id| nodes.contains_key(&node_id));
        let sockets = self.lock_sockets().prepare(wanted)?;
        Ok(Move { plan, sockets })
    }

    /// From here on clients come in as prepared, and are told so.
    pub(crate) fn apply(&self, prepared: Move) {
        let Move { plan, sockets } = prepared;
        let mut open = self.lock_sockets();
        self.plan.store(Arc::new(plan));
        if let Err(Stopped) = open.apply(sockets) {
            tracing::debug!(
                cluster = self.cluster,
                "listeners stay closed: the cluster is stopping"
            );
        }
        drop(open);
        self.destinations.named();
        // The next survey finds out anew.
        self.lock_unpresentable().clear();
        self.report();
    }

    /// How many listeners are open.
    pub(crate) fn listeners(&self) -> usize {
        self.lock_sockets().count()
    }

    /// The brokers are to be found elsewhere: what was known of their addresses counts no more.
    pub(crate) fn forget(&self) {
        self.write().clear();
        self.destinations.named();
    }

    /// Says here whether every broker can be presented.
    pub(crate) fn report_to(&self, health: ComponentHealth) {
        health.ready();
        // Once: a cluster starts once.
        let _ = self.health.set(health);
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
        let advertised = self.try_advertise(node_id, host, port, authority);
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
    ) -> Result<(String, u16), AdvertiseError> {
        let no_port = || AdvertiseError::NoPort(node_id);
        let intercepts = self.intercepts();
        let upstream_port = u16::try_from(port).ok().filter(|port| *port > 0);
        let upstream = upstream_port
            .filter(|_| !host.is_empty())
            .map(|port| HostPort::new(host, port));
        let known = self.upstream_of(node_id);
        if intercepts {
            // Clients keep it as it is.
            let own = upstream.ok_or(AdvertiseError::NoAddress(node_id))?;
            self.note(node_id, known, Some(own.clone()), authority);
            return Ok((own.host, own.port));
        }
        if upstream.is_none() && known.is_none() {
            self.plan
                .load()
                .listener_of(node_id)
                .map_err(|NoPlace| no_port())?;
            return Err(AdvertiseError::NoAddress(node_id));
        }
        let advertised = {
            // Under this lock the plan does not change, so that nothing is bound that no longer belongs to it.
            let mut sockets = self.lock_sockets();
            let plan = self.plan.load();
            if let Some(address) = plan.listener_of(node_id).map_err(|NoPlace| no_port())? {
                let entrance = Entrance::Route(Route::Node(node_id));
                let bound = match sockets.ensure(address, entrance) {
                    Ok(bound) => bound,
                    // Clients were told of it before, and whoever takes over from us serves it: an answer that was asked
                    // for before the end may still be given.
                    Err(EnsureError::Stopped) if known.is_some() => false,
                    Err(EnsureError::Stopped) => return Err(AdvertiseError::Closed),
                    Err(EnsureError::Bind(source)) => {
                        return Err(AdvertiseError::Bind {
                            node_id,
                            address,
                            source,
                        });
                    }
                };
                if bound {
                    tracing::info!(cluster = self.cluster, node_id, listen = %address, "broker listener opened");
                }
            }
            plan.listen.advertised(node_id).ok_or_else(no_port)?
        };
        self.note(node_id, known, upstream, authority);
        Ok(advertised)
    }

    fn note(&self, node_id: i32, known: Option<HostPort>, upstream: Option<HostPort>, authority: Authority) {
        match (known, upstream) {
            _ if authority == Authority::Former => {}
            (Some(known), Some(upstream)) if known != upstream && authority == Authority::Metadata => {
                tracing::info!(cluster = self.cluster, node_id, from = %known, to = %upstream, "broker moved");
                self.learn(node_id, upstream, authority);
            }
            (None, Some(upstream)) => {
                tracing::info!(cluster = self.cluster, node_id, %upstream, "broker found");
                self.learn(node_id, upstream, authority);
            }
            _ => {}
        }
    }

    fn learn(&self, node_id: i32, upstream: HostPort, authority: Authority) {
        let mut nodes = self.write();
        if authority == Authority::Metadata {
            // A broker that left, and whose address another one has now: its listener must not lead to that one.
            nodes.retain(|_, other| other.upstream != upstream);
        }
        nodes.insert(node_id, Node { upstream });
        drop(nodes);
        self.news.notify_waiters();
        self.destinations.named();
    }

    /// Waits until it is known where a broker is, or the cluster has been asked and does not name it. `ask` is called
    /// whenever it should be asked soon.
    pub(crate) async fn find(&self, node_id: i32, ask: impl Fn()) {
        let began = self.surveys.load(Ordering::Acquire);
        loop {
            // Made before the look, so that nothing between the two is overlooked.
            let news = self.news.notified();
            // A survey that was under way may have been answered before the broker was there: the next one was not.
            let surveyed = self.surveys.load(Ordering::Acquire).saturating_sub(began) >= 2;
            if surveyed || self.upstream_of(node_id).is_some() {
                return;
            }
            ask();
            news.await;
        }
    }

    /// What a name leads to that a client greets. Brokers that are not known lead nowhere yet.
    pub(crate) fn route_of(&self, name: &str) -> Option<Route> {
        let plan = self.plan.load();
        let Addressing::Names(names) = &plan.listen.addressing else {
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

    /// The cluster was asked, and has these brokers and no others.
    pub(crate) fn keep(&self, is_there: impl Fn(i32) -> bool) {
        self.surveys.fetch_add(1, Ordering::AcqRel);
        self.news.notify_waiters();
        let nodes: Vec<i32> = self.read().keys().copied().collect();
        let missing: Vec<i32> = nodes.into_iter().filter(|node_id| !is_there(*node_id)).collect();
        self.destinations.polled(&missing);
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
        let Some(health) = self.health.get() else { return };
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

    /// Every broker seen so far, with its id.
    pub(crate) fn nodes(&self) -> Vec<(i32, HostPort)> {
        let nodes = self.read();
        nodes
            .iter()
            .map(|(id, node)| (*id, node.upstream.clone()))
            .collect()
    }

    /// Clients keep the brokers' own addresses.
    pub(crate) fn intercepts(&self) -> bool {
        matches!(self.plan.load().listen.addressing, Addressing::Intercept(_))
    }

    /// Every broker seen so far.
    pub(crate) fn upstreams(&self) -> Vec<HostPort> {
        self.read().values().map(|node| node.upstream.clone()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<i32, Node>> {
        // Writers only insert whole entries, so a poisoned lock still guards a sound map.
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<i32, Node>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
