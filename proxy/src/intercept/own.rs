//! The proxy's own connections to brokers: one that the network leads back to it must not go round and round.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::canonical;

/// All of them that last. By both ends: the kernel gives one local port to several connections of a host, as long as
/// they go to different places, so a client beside the proxy may have the same.
#[derive(Debug, Default)]
pub(super) struct OwnConnections(Arc<Mutex<HashSet<Ends>>>);

/// Where a connection comes from and where it was going.
type Ends = (SocketAddr, SocketAddr);

/// A connection of the proxy to a broker, while it lasts.
#[derive(Debug)]
pub(crate) struct OwnConnection {
    ends: Ends,
    all: Arc<Mutex<HashSet<Ends>>>,
}

impl OwnConnections {
    /// Notes one for as long as the result lives.
    pub(super) fn note(&self, local: SocketAddr, remote: SocketAddr) -> OwnConnection {
        let ends = (canonical(local), canonical(remote));
        lock(&self.0).insert(ends);
        OwnConnection {
            ends,
            all: Arc::clone(&self.0),
        }
    }

    /// Whether a connection that came from `peer` and was going to `destination` is one of them.
    pub(super) fn contains(&self, peer: SocketAddr, destination: SocketAddr) -> bool {
        lock(&self.0).contains(&(canonical(peer), canonical(destination)))
    }
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        lock(&self.all).remove(&self.ends);
    }
}

pub(super) fn lock<T>(entries: &Mutex<T>) -> MutexGuard<'_, T> {
    // Entries come and go whole, so a poisoned lock still guards a sound collection.
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_with_the_same_port_is_not_taken_for_the_proxy() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (port, one, two) = (at("10.0.0.9:40000"), at("10.0.0.1:9092"), at("10.0.0.2:9092"));
        let own = OwnConnections::default();
        let (first, second) = (own.note(port, one), own.note(port, two));
        assert!(!own.contains(port, at("10.0.0.3:9092")));
        drop(first);
        assert!(!own.contains(port, one));
        assert!(own.contains(port, two), "the other one still lasts");
        drop(second);
        assert!(!own.contains(port, two));
    }
}
