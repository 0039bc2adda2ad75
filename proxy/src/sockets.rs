//! The listening sockets of a virtual cluster, by address.
//!
//! A socket belongs to whoever accepts from it; here it is only known, so that it closes when nobody accepts any more. A
//! reload says which sockets there are to be: those that are open already stay as they are, with the connections that
//! wait in them; new ones are bound before anything else changes, so that a port that cannot be had changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::intercept;
use crate::topology::Entrance;

/// The sockets of one cluster.
#[derive(Debug)]
pub(crate) struct Sockets {
    open: BTreeMap<SocketAddr, Open>,
    changes: mpsc::Sender<Change>,
}

#[derive(Debug)]
struct Open {
    entrance: Entrance,
    listener: Weak<TcpListener>,
}

/// What whoever accepts has to do.
#[derive(Debug)]
pub(crate) enum Change {
    /// Accept here, and no longer as before if it was another entrance.
    Accept(Bound),
    /// Accept here no more, and let the connections end.
    Close(SocketAddr),
}

/// A bound listener on its way to whoever accepts from it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    pub(crate) entrance: Entrance,
    pub(crate) listener: Arc<TcpListener>,
}

/// A socket that is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) address: SocketAddr,
    pub(crate) entrance: Entrance,
    /// Without it there is no point; others are bound if they can be, and tried again when they are needed.
    pub(crate) needed: bool,
}

/// Sockets that are bound, and not in use yet. Dropping it closes what is new.
#[derive(Debug)]
pub(crate) struct Prepared {
    wanted: BTreeMap<SocketAddr, Entrance>,
    fresh: BTreeMap<SocketAddr, Arc<TcpListener>>,
}

/// A socket that is needed cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub(crate) struct BindError {
    pub(crate) address: SocketAddr,
    pub(crate) source: io::Error,
}

/// Nobody accepts any more.
#[derive(Debug)]
pub(crate) struct Stopped;

impl Sockets {
    /// None yet. What changes comes out of the receiver, in order.
    pub(crate) fn new() -> (Sockets, mpsc::Receiver<Change>) {
        let (changes, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let open = BTreeMap::new();
        (Sockets { open, changes }, receiver)
    }

    /// Binds what is wanted and not open; nothing changes yet.
    pub(crate) fn prepare(&self, wanted: impl IntoIterator<Item = Wanted>) -> Result<Prepared, BindError> {
        let mut prepared = Prepared {
            wanted: BTreeMap::new(),
            fresh: BTreeMap::new(),
        };
        for Wanted {
            address,
            entrance,
            needed,
        } in wanted
        {
            if !self.is_open(address) {
                match bind(address, entrance) {
                    Ok(listener) => {
                        prepared.fresh.insert(address, Arc::new(listener));
                    }
                    Err(source) if needed => return Err(BindError { address, source }),
                    Err(error) => tracing::debug!(%address, "not bound yet: {error}"),
                }
            } else if let Some(listener) = self.open.get(&address).and_then(|open| open.listener.upgrade()) {
                // Without effect on what it is used for now.
                intercept::tune(&SockRef::from(&*listener), entrance)
                    .map_err(|source| BindError { address, source })?;
            }
            prepared.wanted.insert(address, entrance);
        }
        Ok(prepared)
    }

    /// From here on the sockets are those that were prepared, and no others.
    pub(crate) fn apply(&mut self, prepared: Prepared) -> Result<(), Stopped> {
        let Prepared { wanted, fresh } = prepared;
        for (address, listener) in fresh {
            if let Some(entrance) = wanted.get(&address) {
                self.accept(address, *entrance, listener)?;
            }
        }
        let gone: Vec<SocketAddr> = self
            .open
            .keys()
            .filter(|address| !wanted.contains_key(address))
            .copied()
            .collect();
        for address in gone {
            self.open.remove(&address);
            self.changes
                .try_send(Change::Close(address))
                .map_err(|_| Stopped)?;
        }
        for (address, entrance) in wanted {
            let moved = self.open.get(&address).filter(|open| open.entrance != entrance);
            if let Some(listener) = moved.and_then(|open| open.listener.upgrade()) {
                self.accept(address, entrance, listener)?;
            }
        }
        Ok(())
    }

    /// Makes sure that a socket is open; true when it had to be bound.
    pub(crate) fn ensure(&mut self, address: SocketAddr, entrance: Entrance) -> Result<bool, EnsureError> {
        if self.is_open(address) {
            return Ok(false);
        }
        // Clients would be taken in by nobody, for as long as it takes to notice.
        if self.changes.is_closed() {
            return Err(EnsureError::Stopped);
        }
        let listener = bind(address, entrance)?;
        self.accept(address, entrance, Arc::new(listener))
            .map_err(|Stopped| EnsureError::Stopped)?;
        Ok(true)
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.keys().filter(|address| self.is_open(**address)).count()
    }

    fn is_open(&self, address: SocketAddr) -> bool {
        self.open
            .get(&address)
            .is_some_and(|open| open.listener.strong_count() > 0)
    }

    fn accept(
        &mut self,
        address: SocketAddr,
        entrance: Entrance,
        listener: Arc<TcpListener>,
    ) -> Result<(), Stopped> {
        let open = Open {
            entrance,
            listener: Arc::downgrade(&listener),
        };
        let bound = Bound {
            address,
            entrance,
            listener,
        };
        self.changes
            .try_send(Change::Accept(bound))
            .map_err(|_| Stopped)?;
        self.open.insert(address, open);
        Ok(())
    }
}

/// Why a socket is not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnsureError {
    /// It cannot be bound.
    #[error(transparent)]
    Bind(#[from] io::Error),
    /// Nobody accepts any more.
    #[error("no listeners are opened any more")]
    Stopped,
}

fn bind(address: SocketAddr, entrance: Entrance) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must get its port back although connections of the former process linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    intercept::tune(&SockRef::from(&socket), entrance)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A whole fleet reconnects at once after a restart; the kernel cuts this to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;
/// Changes wait here only until the acceptor's next turn; a reload makes two for each socket at most.
const CHANGES_WAITING_MAX: usize = 16 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{IpAddr, TcpStream};

    use super::*;
    use crate::session::testing::own_address;
    use crate::topology::Route;

    fn wanted(ip: IpAddr, port: u16, node_id: i32, needed: bool) -> Wanted {
        Wanted {
            address: SocketAddr::new(ip, port),
            entrance: Entrance::Route(Route::Node(node_id)),
            needed,
        }
    }

    #[tokio::test]
    async fn what_stays_is_left_alone_what_moves_is_told_and_what_goes_closes() {
        let ip: IpAddr = own_address().parse().unwrap();
        let (mut sockets, mut changes) = Sockets::new();
        let first = [
            wanted(ip, 9001, 1, true),
            wanted(ip, 9002, 2, true),
            wanted(ip, 9003, 3, true),
        ];
        sockets.apply(sockets.prepare(first).unwrap()).unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(changes.recv().await.unwrap());
        }
        // 9001 stays, 9002 becomes another broker's, 9003 goes, 9004 is new.
        let second = [
            wanted(ip, 9001, 1, true),
            wanted(ip, 9002, 7, true),
            wanted(ip, 9004, 4, true),
        ];
        let prepared = sockets.prepare(second).unwrap();
        assert!(
            changes.try_recv().is_err(),
            "nothing changes before it is applied"
        );
        TcpStream::connect((ip, 9003)).unwrap();
        sockets.apply(prepared).unwrap();
        let mut told = Vec::new();
        while let Ok(change) = changes.try_recv() {
            told.push(match &change {
                Change::Accept(bound) => (bound.address.port(), Some(bound.entrance)),
                Change::Close(address) => (address.port(), None),
            });
            held.push(change);
        }
        let node = |node_id| Some(Entrance::Route(Route::Node(node_id)));
        assert_eq!(told, [(9004, node(4)), (9003, None), (9002, node(7))]);
        assert_eq!(sockets.count(), 3);
    }

    #[tokio::test]
    async fn a_port_that_is_needed_and_taken_leaves_everything_as_it_was() {
        let ip: IpAddr = own_address().parse().unwrap();
        let (mut sockets, mut changes) = Sockets::new();
        let taken = std::net::TcpListener::bind((ip, 9002)).unwrap();
        let prepared = sockets.prepare([wanted(ip, 9001, 1, true), wanted(ip, 9002, 2, false)]);
        sockets.apply(prepared.unwrap()).unwrap();
        let _held = changes.recv().await.unwrap();
        let refused = sockets.prepare([wanted(ip, 9003, 3, true), wanted(ip, 9002, 2, true)]);
        assert_eq!(refused.unwrap_err().address.port(), 9002);
        assert!(
            TcpStream::connect((ip, 9003)).is_err(),
            "what was bound for it is closed"
        );
        drop(taken);
        assert!(
            sockets
                .ensure(SocketAddr::new(ip, 9002), Entrance::ByName)
                .unwrap()
        );
        drop(changes);
        assert!(
            !sockets.is_open(SocketAddr::new(ip, 9002)),
            "nobody accepts from it"
        );
    }
}
