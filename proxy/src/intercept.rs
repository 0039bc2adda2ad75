//! Connections that the network redirects to the proxy on their way to a broker.
//!
//! Clients keep the brokers' own addresses (`listen.addressing.scheme: intercept`). Where a connection was going the
//! kernel still knows: REDIRECT and DNAT leave it with the connection's tracking (`SO_ORIGINAL_DST`), TPROXY and
//! addresses that were made local leave it as the socket's own address. The proxy then goes there, and nowhere else
//! than to addresses that lead to brokers of the cluster: those of the bootstrap servers, and those under which the
//! cluster presents its brokers. An open relay it must never become, and a connection that comes back to the proxy from
//! itself is refused, too.
//!
//! Names are resolved apart from all connections, again and again, as clients do, too; an address that is not known
//! makes the cluster be asked and the names be looked up at once, before the connection is refused.

mod own;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use socket2::{Domain, SockRef};
use teeline_config::HostPort;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::quiet::Quiet;
use crate::topology::Entrance;
pub(crate) use own::OwnConnection;
use own::{OwnConnections, lock};

/// Where a redirected connection was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    /// The broker there, if it is a certain one.
    pub(crate) node_id: Option<i32>,
}

/// Why a connection is not taken where it was going.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestinationError {
    /// Nothing of the cluster is there.
    #[error(
        "it was going to {0}, which is no broker (hint: redirect the brokers' addresses only; the proxy knows those \
         that upstream.bootstrap_servers resolve to, and those that the cluster names there)"
    )]
    NoBroker(SocketAddr),
    /// It was made to the listener's own address.
    #[error(
        "it was made to the proxy itself at {0} (hint: with the scheme intercept clients keep the brokers' addresses)"
    )]
    NotRedirected(SocketAddr),
    /// The proxy made it.
    #[error(
        "it is the proxy's own connection to {0}, redirected (hint: rules for local traffic must leave out the user \
         that the proxy runs as)"
    )]
    Ours(SocketAddr),
    /// The kernel does not say. The connection is gone, mostly.
    #[error("ask where it was going: {0}")]
    Unknown(#[from] io::Error),
}

/// The addresses behind which there are brokers.
#[derive(Debug)]
pub(crate) struct Destinations {
    table: watch::Sender<Table>,
    /// How often somebody asked for an address that is not in the table.
    asked: AtomicU64,
    /// There is something to look up.
    wake: Notify,
    /// Counts what the cluster said of its brokers.
    polls: watch::Sender<u64>,
    /// Since when the cluster does not name a broker any more.
    absent: Mutex<HashMap<i32, Instant>>,
    own: OwnConnections,
    failures: Quiet,
}

#[derive(Debug, Default)]
struct Table {
    brokers: HashMap<SocketAddr, Broker>,
    /// Everything asked for until here was looked for.
    answered: u64,
}

/// What is behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broker {
    /// What it is called: the name that its certificate has to bear.
    name: HostPort,
    node_id: Option<i32>,
}

impl Default for Destinations {
    fn default() -> Self {
        Destinations {
            table: watch::Sender::new(Table::default()),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            polls: watch::Sender::new(0),
            absent: Mutex::default(),
            own: OwnConnections::default(),
            failures: Quiet::default(),
        }
    }
}

impl Destinations {
    /// Where a connection to the listener's `port` was going, if a broker is there. Waits for what is not known yet, for
    /// `patience` at most.
    pub(crate) async fn of(
        &self,
        client: &TcpStream,
        peer: SocketAddr,
        port: u16,
        patience: Duration,
    ) -> Result<Destination, DestinationError> {
        let local = canonical(client.local_addr()?);
        let address = original_destination(client).map_or(local, canonical);
        if self.own.contains(peer, address) {
            return Err(DestinationError::Ours(address));
        }
        let found = tokio::time::timeout(patience, self.find(address)).await;
        match found.ok().flatten() {
            Some(broker) => Ok(Destination {
                address,
                node_id: broker.node_id,
            }),
            None if address == local && address.port() == port => {
                Err(DestinationError::NotRedirected(address))
            }
            None => Err(DestinationError::NoBroker(address)),
        }
    }

    async fn find(&self, address: SocketAddr) -> Option<Broker> {
        let known = self.broker_at(address);
        if known.is_some() {
            return known;
        }
        let mut table = self.table.subscribe();
        let question = self.asked.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.wake.notify_one();
        let decided = |table: &Table| table.brokers.contains_key(&address) || table.answered >= question;
        // The sender lives as long as we do.
        let table = table.wait_for(decided).await.ok()?;
        table.brokers.get(&address).cloned()
    }

    fn broker_at(&self, address: SocketAddr) -> Option<Broker> {
        self.table.borrow().brokers.get(&address).cloned()
    }

    /// What the broker at an address is called.
    pub(crate) fn name_of(&self, address: SocketAddr) -> Option<HostPort> {
        self.broker_at(address).map(|broker| broker.name)
    }

    /// Notes a connection to a broker as the proxy's own, for as long as the result lives.
    pub(crate) fn own(&self, connection: &TcpStream) -> io::Result<OwnConnection> {
        let (local, remote) = (connection.local_addr()?, connection.peer_addr()?);
        Ok(self.own.note(local, remote))
    }

    /// Brokers are named otherwise than before.
    pub(crate) fn named(&self) {
        self.wake.notify_one();
    }

    /// The cluster said who its brokers are, and did not name these.
    pub(crate) fn polled(&self, missing: &[i32]) {
        let mut absent = lock(&self.absent);
        absent.retain(|node_id, _| missing.contains(node_id));
        for node_id in missing {
            absent.entry(*node_id).or_insert_with(Instant::now);
        }
        drop(absent);
        self.polls.send_modify(|polls| *polls = polls.wrapping_add(1));
    }

    /// Whether a broker has gone for good, as far as that can be told: its address may be somebody else's by then.
    fn has_gone(&self, node_id: i32, now: Instant) -> bool {
        let since = lock(&self.absent).get(&node_id).copied();
        since.is_some_and(|since| now.saturating_duration_since(since) >= GONE_AFTER)
    }

    fn publish(&self, brokers: HashMap<SocketAddr, Broker>, answered: u64) {
        self.table.send_replace(Table { brokers, answered });
    }

    /// Every name with its addresses, as far as they can be had. Those of a name that cannot be resolved now stay as
    /// they were: clients have them, too.
    async fn look_up(&self, names: Vec<Name>) -> HashMap<SocketAddr, Broker> {
        let lookups = names.into_iter().map(|name| async move {
            let found = resolve(&name.address).await;
            (name, found)
        });
        let found: Vec<_> = stream::iter(lookups).buffered(LOOKUPS_AT_ONCE).collect().await;
        let former = self.table.borrow();
        let mut brokers = Brokers::default();
        for (name, found) in found {
            let addresses = match found {
                Ok(addresses) => addresses,
                Err(error) => {
                    if let Some(suppressed) = self.failures.admit() {
                        tracing::warn!(
                            address = %name.address,
                            suppressed,
                            "clients cannot be let through to this broker: its name is not resolved: {error}"
                        );
                    }
                    former.addresses_of(&name.address)
                }
            };
            brokers.add(&name, addresses);
        }
        brokers.0
    }
}

impl Table {
    fn addresses_of(&self, name: &HostPort) -> Vec<SocketAddr> {
        let named = self.brokers.iter().filter(|(_, broker)| broker.name == *name);
        named.map(|(address, _)| *address).collect()
    }
}

/// A name to look up.
#[derive(Debug)]
struct Name {
    address: HostPort,
    node_id: Option<i32>,
}

/// Puts together what is behind which address.
#[derive(Debug, Default)]
struct Brokers(HashMap<SocketAddr, Broker>);

impl Brokers {
    /// Names of brokers come before those of bootstrap servers: who is behind an address is worth more than that
    /// somebody is.
    fn add(&mut self, name: &Name, addresses: Vec<SocketAddr>) {
        for address in addresses {
            let broker = Broker {
                name: name.address.clone(),
                node_id: name.node_id,
            };
            let known = self.0.entry(canonical(address)).or_insert(broker);
            if name.node_id.is_some() && known.node_id != name.node_id {
                // Several are behind it, as behind a load balancer: either may answer.
                known.node_id = None;
            }
        }
    }
}

/// Keeps the addresses of a cluster's brokers in line with what they are called, for as long as it is polled.
pub(crate) async fn resolve_names(cluster: Arc<Cluster>) {
    let destinations = &cluster.topology.destinations;
    let mut answered = 0;
    loop {
        let woken = Instant::now();
        let asked = destinations.asked.load(Ordering::Relaxed);
        let brokers = destinations.look_up(names(&cluster)).await;
        destinations.publish(brokers, answered);
        if asked > answered {
            // Not only names may have changed, but who the brokers are.
            ask_cluster(&cluster).await;
            let brokers = destinations.look_up(names(&cluster)).await;
            answered = asked;
            destinations.publish(brokers, answered);
        }
        tokio::select! {
            () = destinations.wake.notified() => {}
            () = tokio::time::sleep(LOOK_UP_EVERY) => {}
        }
        // Who tries addresses at random must not keep the cluster busy.
        tokio::time::sleep_until(woken + LOOK_UP_PAUSE).await;
    }
}

async fn ask_cluster(cluster: &Cluster) {
    let mut polls = cluster.topology.destinations.polls.subscribe();
    polls.mark_unchanged();
    cluster.trouble.notify_one();
    // When it does not answer, what is known has to do.
    let _ = tokio::time::timeout(ANSWER_MAX, polls.changed()).await;
}

fn names(cluster: &Cluster) -> Vec<Name> {
    if !cluster.topology.intercepts() {
        return Vec::new();
    }
    let (now, topology) = (Instant::now(), &cluster.topology);
    let nodes = topology.nodes().into_iter();
    let nodes = nodes.filter(|(node_id, _)| !topology.destinations.has_gone(*node_id, now));
    let nodes = nodes.map(|(node_id, address)| Name {
        address,
        node_id: Some(node_id),
    });
    let live = cluster.live.load();
    let servers = live.upstream.endpoint.bootstrap_servers.iter();
    let servers = servers.map(|address| Name {
        address: address.clone(),
        node_id: None,
    });
    nodes.chain(servers).collect()
}

async fn resolve(name: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let looked_up = lookup_host((name.host.as_str(), name.port));
    let found = tokio::time::timeout(LOOKUP_MAX, looked_up).await;
    let addresses: Vec<_> = found.map_err(|_elapsed| io::ErrorKind::TimedOut)??.collect();
    match addresses.is_empty() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok(addresses),
    }
}

/// Where a connection was going before its destination was translated; an error where it was not, or nothing is
/// tracked.
fn original_destination(client: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(client);
    // An IPv4 connection to an IPv6 socket is tracked as what it is on the wire.
    let original = match canonical(client.local_addr()?) {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    original
        .as_socket()
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Readies a listening socket for what is led to it.
pub(crate) fn tune(socket: &SockRef<'_>, entrance: Entrance) -> io::Result<()> {
    if !matches!(
        entrance,
        Entrance::ByDestination {
            transparent: true,
            ..
        }
    ) {
        return Ok(());
    }
    let set = match socket.domain()? {
        Domain::IPV6 => socket.set_ip_transparent_v6(true),
        _ => socket.set_ip_transparent_v4(true),
    };
    set.map_err(|error| {
        let hint = "transparent needs CAP_NET_ADMIN or CAP_NET_RAW";
        io::Error::new(error.kind(), format!("{error} (hint: {hint})"))
    })
}

/// The form in which addresses are compared: IPv4 as such, without scopes and labels.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What names resolve to changes rarely, and a client that meets the change makes them be looked up at once.
const LOOK_UP_EVERY: Duration = Duration::from_secs(30);
const LOOK_UP_PAUSE: Duration = Duration::from_millis(500);
/// A resolver that does not answer tries its second server after five seconds.
const LOOKUP_MAX: Duration = Duration::from_secs(6);
const LOOKUPS_AT_ONCE: usize = 16;
/// A broker that is only being restarted is back by then.
const GONE_AFTER: Duration = Duration::from_secs(600);
/// A cluster answers in milliseconds, or has other troubles.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
