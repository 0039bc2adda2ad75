//! Accepting connections: one task per listener, which owns the sessions it accepted.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use teeline_wire::client::ClientError;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::cluster::{Cluster, Footing, Live};
use crate::door::{NotLetIn, Visitor};
use crate::listening::{Listening, broker_is_back};
use crate::metrics::{Refusal, Side};
use crate::observe::TurnedAway;
use crate::places::Place;
use crate::session::{self, sasl::Mechanism};
use crate::sockets::{Bound, Change};
use crate::stop::Stop;
use crate::tcp::tune;
use crate::topology::{Entrance, Route};
use crate::upstream::UpstreamError;

/// Accepts from every listener of a cluster, those that are bound later included, until the cluster drains; then
/// returns when the last session has ended. A listener that a reload takes away, or gives to another broker, drains alone.
pub(crate) async fn serve(cluster: Arc<Cluster>, mut changes: mpsc::Receiver<Change>) {
    let mut acceptors = JoinSet::new();
    let mut stops: HashMap<SocketAddr, Stop> = HashMap::new();
    let mut look = tokio::time::interval(GAUGE_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let former = tokio::select! {
            () = cluster.stop.drain.triggered() => break,
            Some(change) = changes.recv() => match change {
                Change::Accept(Bound { address, entrance, listener }) => {
                    let stop = cluster.stop.child();
                    acceptors.spawn(accept(Arc::clone(&cluster), entrance, listener, stop.clone()));
                    stops.insert(address, stop)
                }
                Change::Close(address) => stops.remove(&address),
            },
            Some(ended) = acceptors.join_next() => {
                notice(&cluster, "listener", ended);
                continue;
            }
            _ = look.tick() => {
                cluster.metrics.in_flight_bytes.set(cluster.in_flight_bytes() as f64);
                continue;
            }
        };
        if let Some(former) = former {
            former.begin(cluster.live.load().drain_patience);
        }
    }
    // Listeners that were bound and never reached an acceptor close here.
    drop(changes);
    while let Some(ended) = acceptors.join_next().await {
        notice(&cluster, "listener", ended);
    }
}

async fn accept(cluster: Arc<Cluster>, entrance: Entrance, socket: Arc<std::net::TcpListener>, stop: Stop) {
    let mut sessions = JoinSet::new();
    let mut listening = match Listening::on(socket, cluster.live.load().socket_buffer_bytes) {
        Ok(listening) => listening,
        Err(error) => return tracing::error!(cluster = cluster.name, "a listener is lost: {error}"),
    };
    let broker_refused = Arc::new(Notify::new());
    loop {
        tokio::select! {
            // First: what comes after belongs to whoever accepts here from then on.
            biased;
            () = stop.drain.triggered() => break,
            accepted = listening.accept() => match accepted {
                Ok((client, peer)) => {
                    listening.bound_by(cluster.live.load().socket_buffer_bytes, &client);
                    admit(&cluster, &stop, entrance, client, peer, &broker_refused, &mut sessions);
                }
                Err(error) => pause(&cluster, &error).await,
            },
            () = broker_refused.notified() => refuse(&cluster, entrance, &mut listening),
            Some(ended) = sessions.join_next() => notice(&cluster, "connection", ended),
        }
    }
    drop(listening);
    while let Some(ended) = sessions.join_next().await {
        notice(&cluster, "connection", ended);
    }
}

/// What a client would see of the broker itself, the next one shall see of its listener.
fn refuse(cluster: &Arc<Cluster>, entrance: Entrance, listening: &mut Listening) {
    let Entrance::Route(Route::Node(node_id)) = entrance else {
        return;
    };
    if listening.refuses() {
        return;
    }
    let of = Arc::clone(cluster);
    let back = async move {
        broker_is_back(node_id, &of.topology).await;
        tracing::info!(
            cluster = of.name,
            node_id,
            "the broker takes connections, and so does its listener again"
        );
    };
    match listening.refuse(back) {
        Ok(()) => {
            let name = cluster.name.as_str();
            tracing::info!(
                cluster = name,
                node_id,
                "the broker takes no connections, or is not known: its listener refuses them, too, until that changes"
            );
        }
        // Clients are accepted and reset, then.
        Err(error) => tracing::debug!(
            cluster = cluster.name,
            node_id,
            "a listener cannot refuse here: {error}"
        ),
    }
}

fn admit(
    cluster: &Arc<Cluster>,
    stop: &Stop,
    entrance: Entrance,
    client: TcpStream,
    peer: SocketAddr,
    broker_refused: &Arc<Notify>,
    sessions: &mut JoinSet<()>,
) {
    let live = cluster.live.load_full();
    let place = cluster.guests.enter().and_then(|mut place| {
        // Behind a load balancer the address comes later.
        if !live.door.is_load_balancer(peer.ip()) {
            cluster.guests.count(&mut place, peer.ip())?;
        }
        Ok(place)
    });
    let place = match place {
        Ok(place) => place,
        Err(refusal) => return no_place(cluster, peer, refusal),
    };
    let footing = Footing {
        cluster: Arc::clone(cluster),
        live,
        stop: stop.clone(),
    };
    let broker_refused = Arc::clone(broker_refused);
    sessions.spawn(connect(footing, entrance, client, peer, broker_refused, place));
}

/// Counts a connection that is turned away, and tells those who want to know.
fn refused(cluster: &Cluster, peer: SocketAddr, refusal: Refusal) {
    cluster.metrics.refused(refusal);
    let line = TurnedAway {
        cluster: &cluster.name,
        peer,
        refused: refusal.as_str(),
    };
    line.write(&cluster.observatory);
}

fn no_place(cluster: &Cluster, peer: SocketAddr, refusal: Refusal) {
    refused(cluster, peer, refusal);
    let limit = match refusal {
        Refusal::AddressLimit => {
            "as many are open from its address as listen.max_connections_per_address allows"
        }
        Refusal::ProcessLimit => {
            "as many are open in this process as its limit of open files allows (hint: raise it; see LimitNOFILE, ulimit -n)"
        }
        _ => "listen.max_connections are open",
    };
    if let Some(suppressed) = cluster.refusals.admit() {
        tracing::warn!(cluster = cluster.name, %peer, suppressed, "connection refused: {limit}");
    }
}

async fn connect(
    footing: Footing,
    entrance: Entrance,
    client: TcpStream,
    peer: SocketAddr,
    broker_refused: Arc<Notify>,
    mut place: Place,
) {
    let Footing { cluster, live, stop } = &footing;
    // A client whose socket takes no options is gone already.
    if tune(&client, live.idle_timeout, live.socket_buffer_bytes).is_err() {
        return;
    }
    let came_from = peer;
    let entering = Box::pin(live.door.admit(client, peer, entrance, &cluster.topology));
    let no_time = async {
        stop.drain.triggered().await;
        // Who is about to come in is to be told as clearly as the others.
        tokio::time::sleep(GREETING_REST).await;
    };
    let Visitor {
        stream: client,
        peer,
        route,
    } = tokio::select! {
        entered = entering => match entered {
            Ok(visitor) => visitor,
            Err(error) => return turned_away(cluster, peer, &error),
        },
        () = no_time => return,
    };
    if peer.ip() != came_from.ip()
        && let Err(refusal) = cluster.guests.count(&mut place, peer.ip())
    {
        return no_place(cluster, peer, refusal);
    }
    let reach = async {
        find(cluster, live, route).await;
        live.upstream
            .connect(route, &cluster.topology, live.socket_buffer_bytes)
            .await
    };
    let upstream = tokio::select! {
        biased;
        () = stop.drain.triggered() => return client.reset(),
        upstream = Box::pin(reach) => upstream,
    };
    let upstream = match upstream {
        Ok(upstream) => upstream,
        Err(error) => {
            no_broker(cluster, peer, route, &error);
            if error.is_refusal() {
                broker_refused.notify_one();
            }
            return client.reset();
        }
    };
    let connection_id = cluster.observatory.next_connection_id();
    tracing::debug!(cluster = cluster.name, %peer, ?route, connection = connection_id, "connection opened");
    cluster.metrics.connections.increment(1);
    let cluster = Arc::clone(cluster);
    let open = Open::count(&cluster, connection_id);
    // On the heap: the task's own future stays small until there is a broker.
    Box::pin(session::serve(
        footing,
        connection_id,
        route.node_id(),
        peer,
        client,
        upstream,
    ))
    .await;
    drop((open, place));
}

/// A client that knows a broker's listener from before a restart may come before the cluster has said where that broker is.
async fn find(cluster: &Cluster, live: &Live, route: Route) {
    if let Route::Node(node_id) = route
        && cluster.topology.upstream_of(node_id).is_none()
    {
        let found = cluster.topology.find(node_id, || cluster.trouble.notify_one());
        // What follows tells what is still missing.
        let _ = tokio::time::timeout(live.upstream.endpoint.connect_timeout, found).await;
    }
}

fn turned_away(cluster: &Cluster, peer: SocketAddr, error: &NotLetIn) {
    let (name, probe) = (cluster.name.as_str(), error.is_probe());
    match error {
        NotLetIn::Header(_) => refused(cluster, peer, Refusal::ProxyProtocol),
        NotLetIn::Destination(_) => refused(cluster, peer, Refusal::Destination),
        NotLetIn::Handshake(error) => {
            refused(cluster, peer, Refusal::Tls);
            cluster.metrics.tls_failure(Side::Client, error.failure.as_str());
        }
    }
    if probe {
        tracing::debug!(cluster = name, %peer, "connection refused: {error}");
    } else if let Some(suppressed) = cluster.refusals.admit() {
        tracing::warn!(cluster = name, %peer, suppressed, "connection refused: {error}");
    }
}

fn no_broker(cluster: &Cluster, peer: SocketAddr, route: Route, error: &UpstreamError) {
    refused(cluster, peer, Refusal::Upstream);
    match error {
        UpstreamError::Tls(error) => cluster.metrics.tls_failure(Side::Broker, tls_failure(error)),
        UpstreamError::Sasl(_) => {
            if let Some(sasl) = &cluster.live.load().upstream.endpoint.security.sasl {
                let mechanism = Mechanism::of(sasl).as_str();
                cluster.metrics.sasl_failure(Side::Broker, mechanism, "refused");
            }
        }
        _ => {}
    }
    cluster.trouble.notify_one();
    let Some(suppressed) = cluster.unreachable.admit() else {
        return;
    };
    let name = cluster.name.as_str();
    // A broker that is away comes back; one that does not let the proxy in waits for somebody to do something.
    if matches!(error, UpstreamError::Tls(_) | UpstreamError::Sasl(_)) {
        tracing::warn!(cluster = name, %peer, ?route, suppressed, "client refused, no broker: {error}");
    } else {
        tracing::info!(cluster = name, %peer, ?route, suppressed, "client refused, no broker: {error}");
    }
}

/// In the words of the other side.
fn tls_failure(error: &ClientError) -> &'static str {
    match error {
        ClientError::Tls { .. } => "refused",
        ClientError::Security { .. } => "unusable_files",
        _ => "broken",
    }
}

/// Counts a connection as open, also when its session panics; then its batches must become known as unresolved, too.
struct Open<'a> {
    cluster: &'a Cluster,
    connection_id: u64,
}

impl<'a> Open<'a> {
    fn count(cluster: &'a Cluster, connection_id: u64) -> Open<'a> {
        cluster.metrics.connections_open.increment(1.0);
        Open {
            cluster,
            connection_id,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.cluster.metrics.connections_open.decrement(1.0);
        if std::thread::panicking()
            && let Some(capture) = &self.cluster.capture
        {
            capture.connection_panicked(self.connection_id);
        }
    }
}

/// Out of file descriptors, mostly: accepting again at once would only spin.
async fn pause(cluster: &Cluster, error: &io::Error) {
    if let Some(suppressed) = cluster.refusals.admit() {
        tracing::warn!(
            cluster = cluster.name,
            suppressed,
            "accept failed: {error} (hint: raise the limit of open files)"
        );
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A panic ends one task and not the process; it is a bug all the same, and must be seen.
fn notice(cluster: &Cluster, what: &str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(
            cluster = cluster.name,
            task = what,
            "a task panicked; this is a bug: {error}"
        );
    }
}

/// Greetings take milliseconds.
const GREETING_REST: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const GAUGE_INTERVAL: Duration = Duration::from_secs(1);
