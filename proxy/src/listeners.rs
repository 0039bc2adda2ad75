//! Accepting connections: one task per listener, which owns the sessions it accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinError, JoinSet};

use crate::cluster::{Cluster, tune};
use crate::metrics::Refusal;
use crate::session;
use crate::topology::{Bound, Route};

/// Accepts from every listener of a cluster, those that are bound later included, until the cluster drains; then
/// returns when the last session has ended.
pub(crate) async fn serve(cluster: Arc<Cluster>, mut bound: mpsc::Receiver<Bound>) {
    let mut acceptors = JoinSet::new();
    loop {
        tokio::select! {
            () = cluster.drain.triggered() => break,
            Some(Bound { route, listener }) = bound.recv() => {
                acceptors.spawn(accept(Arc::clone(&cluster), route, listener));
            }
            Some(ended) = acceptors.join_next() => notice(&cluster, "listener", ended),
        }
    }
    // Listeners that were bound and never reached an acceptor close here.
    drop(bound);
    while let Some(ended) = acceptors.join_next().await {
        notice(&cluster, "listener", ended);
    }
}

async fn accept(cluster: Arc<Cluster>, route: Route, listener: TcpListener) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = cluster.drain.triggered() => break,
            accepted = listener.accept() => match accepted {
                Ok((client, peer)) => admit(&cluster, route, client, peer, &mut sessions),
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
    route: Route,
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
    sessions.spawn(connect(Arc::clone(cluster), route, client, peer, permit));
}

async fn connect(
    cluster: Arc<Cluster>,
    route: Route,
    client: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let upstream = tokio::select! {
        upstream = cluster.connect(route) => upstream,
        () = cluster.drain.triggered() => return,
    };
    let upstream = match upstream.and_then(|upstream| tune(&client).map(|()| upstream)) {
        Ok(upstream) => upstream,
        Err(error) => {
            cluster.metrics.refused(Refusal::Upstream);
            cluster.trouble.notify_one();
            if let Some(suppressed) = cluster.unreachable.admit() {
                tracing::info!(cluster = cluster.name, %peer, ?route, suppressed, "client refused, no broker: {error}");
            }
            return;
        }
    };
    let connection_id = cluster.next_connection_id();
    tracing::debug!(cluster = cluster.name, %peer, ?route, connection = connection_id, "connection opened");
    cluster.metrics.connections.increment(1);
    let open = Open::count(&cluster, connection_id);
    // On the heap: the task's own future stays small until there is a broker.
    Box::pin(session::serve(
        Arc::clone(&cluster),
        connection_id,
        route.node_id(),
        peer,
        client,
        upstream,
    ))
    .await;
    drop((open, permit));
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
