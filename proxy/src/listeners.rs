//! Accepting connections: one task per listener, which owns the sessions it accepted.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use teeline_wire::client::ClientError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinError, JoinSet};

use crate::cluster::{Cluster, Footing, Live};
use crate::door::{NotLetIn, Visitor};
use crate::metrics::{Refusal, Side};
use crate::session;
use crate::sockets::{Bound, Change};
use crate::stop::Stop;
use crate::topology::{Entrance, Route};
use crate::upstream::{UpstreamError, tune};

/// Accepts from every listener of a cluster, those that are bound later included, until the cluster drains; then
/// returns when the last session has ended. A listener that a reload takes away, or gives to another broker, drains alone.
pub(crate) async fn serve(cluster: Arc<Cluster>, mut changes: mpsc::Receiver<Change>) {
    let mut acceptors = JoinSet::new();
    let mut stops: HashMap<SocketAddr, Stop> = HashMap::new();
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

async fn accept(cluster: Arc<Cluster>, entrance: Entrance, listener: Arc<TcpListener>, stop: Stop) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            // First: what comes after belongs to whoever accepts here from then on.
            biased;
            () = stop.drain.triggered() => break,
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => admit(&cluster, &stop, entrance, client, peer, &mut sessions),
                Err(error) => pause(&cluster, &error).await,
            },
            Some(ended) = sessions.join_next() => notice(&cluster, "connection", ended),
        }
    }
    drop(listener);
    while let Some(ended) = sessions.join_next().await {
        notice(&cluster, "connection", ended);
    }
}

fn admit(
    cluster: &Arc<Cluster>,
    stop: &Stop,
    entrance: Entrance,
    client: TcpStream,
    peer: SocketAddr,
    sessions: &mut JoinSet<()>,
) {
    let Ok(permit) = Arc::clone(&cluster.connections).try_acquire_owned() else {
        cluster.metrics.refused(Refusal::Limit);
        if let Some(suppressed) = cluster.refusals.admit() {
            tracing::warn!(cluster = cluster.name, %peer, suppressed, "connection refused: listen.max_connections are open");
        }
        return;
    };
    let footing = Footing {
        cluster: Arc::clone(cluster),
        live: cluster.live.load_full(),
        stop: stop.clone(),
    };
    sessions.spawn(connect(footing, entrance, client, peer, permit));
}

async fn connect(
    footing: Footing,
    entrance: Entrance,
    client: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    // A client whose socket takes no options is gone already.
    if tune(&client).is_err() {
        return;
    }
    let Footing { cluster, live, stop } = &footing;
    let entering = Box::pin(live.door.admit(client, peer, entrance, &cluster.topology));
    let Visitor {
        stream: client,
        peer,
        route,
    } = tokio::select! {
        entered = entering => match entered {
            Ok(visitor) => visitor,
            Err(error) => return turned_away(cluster, peer, &error),
        },
        () = stop.drain.triggered() => return,
    };
    let reach = async {
        find(cluster, live, route).await;
        live.upstream.connect(route, &cluster.topology).await
    };
    let upstream = tokio::select! {
        upstream = Box::pin(reach) => upstream,
        () = stop.drain.triggered() => return,
    };
    let upstream = match upstream {
        Ok(upstream) => upstream,
        Err(error) => {
            no_broker(cluster, peer, route, &error);
            return client.close().await;
        }
    };
    let connection_id = cluster.next_connection_id();
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
    drop((open, permit));
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
        NotLetIn::Header(_) => cluster.metrics.refused(Refusal::ProxyProtocol),
        NotLetIn::Destination(_) => cluster.metrics.refused(Refusal::Destination),
        NotLetIn::Handshake(error) => {
            cluster.metrics.refused(Refusal::Tls);
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
    cluster.metrics.refused(Refusal::Upstream);
    if let UpstreamError::Tls(error) = error {
        cluster.metrics.tls_failure(Side::Broker, tls_failure(error));
    }
    cluster.trouble.notify_one();
    if let Some(suppressed) = cluster.unreachable.admit() {
        tracing::info!(cluster = cluster.name, %peer, ?route, suppressed, "client refused, no broker: {error}");
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

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
