//! A TCP load balancer: several proxies behind one address, a port of it for each of theirs.
//!
//! Connections go to the members in turn; one that refuses is passed over, as a balancer does that looks after its
//! members. Each direction ends by itself, so that what was answered last arrives. What clients see of resets and refusals
//! depends on the kind of balancer: [`Resets`].

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;

use crate::ports::PortBlock;
use crate::programs::ProxySettings;

/// Ports of a member that are balanced: bootstrap first, those of brokers follow. Index 0 is a member's admin port.
const BALANCED: std::ops::RangeInclusive<u16> = 1..=6;

/// How long a port that no member serves waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 128;

/// What clients see when a member resets a connection or no member takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// The same: a reset, and a port that refuses. So do balancers of packets (IPVS, NLB, kube-proxy).
    Passed,
    /// An orderly end, as of HAProxy in `mode tcp`.
    AsEnds,
}

/// A running balancer. Dropping it stops it accepting; connections go on to their end.
#[derive(Debug)]
pub struct Balancer {
    ports: PortBlock,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    orderly: AtomicBool,
    next: AtomicUsize,
}

impl Balancer {
    /// Stands before these proxies, whose ports it learns from their settings. Resets are passed on at first.
    pub fn start(members: &[&ProxySettings]) -> Self {
        let ports = PortBlock::reserve();
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
            orderly: AtomicBool::new(false),
            next: AtomicUsize::new(0),
        });
        for index in BALANCED {
            let listener =
                TcpListener::bind((Ipv4Addr::LOCALHOST, ports.port(index))).expect("bind a balanced port");
            let targets: Vec<u16> = members.iter().map(|member| member.port(index)).collect();
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &targets, &shared));
        }
        Self { ports, shared }
    }

    /// Becomes the other kind of balancer, for connections that are open as well.
    pub fn set_resets(&self, resets: Resets) {
        self.shared
            .orderly
            .store(resets == Resets::AsEnds, Ordering::Relaxed);
    }

    /// What clients bootstrap from.
    pub fn bootstrap(&self) -> String {
        self.ports.address(1)
    }

    /// The port where clients find a broker, whose id is counted from 0.
    pub fn node_port(&self, node_id: u16) -> u16 {
        self.ports.port(2 + node_id)
    }

    /// Has a proxy tell clients of this address instead of its own.
    pub fn advertise(&self, document: &mut Value) {
        let addressing = &mut document["clusters"][0]["listen"]["addressing"];
        addressing["advertised_port_start"] = json!(self.ports.port(2));
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for index in BALANCED {
            // Wakes the one who accepts there; if it has ended, that is as well.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.port(index)));
        }
    }
}

fn accept(listener: &TcpListener, targets: &[u16], shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        if let Some(member) = connect(targets, shared) {
            // A connection that fails at once is one that its peers have given up.
            let _ = join(client, member, shared);
        } else if !shared.orderly.load(Ordering::Relaxed) {
            // The first one finds out; whoever comes after it is refused.
            let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            drop(client);
            refuse_until_served(listener, targets, shared);
        }
    }
}

/// The next in turn that takes a connection.
fn connect(targets: &[u16], shared: &Shared) -> Option<TcpStream> {
    let first = shared.next.fetch_add(1, Ordering::Relaxed);
    let in_turn = targets.iter().cycle().skip(first % targets.len());
    in_turn
        .take(targets.len())
        .find_map(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).ok())
}

/// A listener that is shut down keeps its port and refuses, until it listens again.
fn refuse_until_served(listener: &TcpListener, targets: &[u16], shared: &Shared) {
    let socket = SockRef::from(listener);
    socket.shutdown(Shutdown::Read).expect("pause a balanced port");
    while connect(targets, shared).is_none() && !shared.stopping.load(Ordering::Relaxed) {
        thread::sleep(LOOK_AGAIN);
    }
    socket.listen(BACKLOG).expect("resume a balanced port");
}

fn join(client: TcpStream, member: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    for stream in [&client, &member] {
        stream.set_nodelay(true)?;
    }
    let (client_end, member_end) = (client.try_clone()?, member.try_clone()?);
    let broken = Arc::new(AtomicBool::new(false));
    let (seen, shared_too) = (Arc::clone(&broken), Arc::clone(shared));
    let orderly = Arc::clone(shared);
    thread::spawn(move || copy(client, &member, &seen, &shared_too));
    thread::spawn(move || copy(member_end, &client_end, &broken, &orderly));
    Ok(())
}

/// One direction to its end, which the other side is told of. A broken one breaks both.
fn copy(mut from: TcpStream, mut to: &TcpStream, broken: &AtomicBool, shared: &Shared) {
    let failed = io::copy(&mut from, &mut to).is_err();
    if failed && !shared.orderly.load(Ordering::Relaxed) {
        broken.store(true, Ordering::Relaxed);
        for stream in [&from, to] {
            // What fails here is closed already. The other direction wakes up, and the last of both to close resets.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    } else if failed {
        // The other direction ends as well, and both peers see an end like any other.
        for stream in [&from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    } else if !broken.load(Ordering::Relaxed) {
        // A peer that has gone meanwhile need not be told.
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};

    use super::*;
    use crate::wait::{seconds, wait_until};

    fn shared(resets: Resets) -> Arc<Shared> {
        Arc::new(Shared {
            stopping: AtomicBool::new(false),
            orderly: AtomicBool::new(resets == Resets::AsEnds),
            next: AtomicUsize::new(0),
        })
    }

    /// Before a member. A port that the kernel chose is lost by a pause, so both have ports of a block.
    fn balanced(ports: &PortBlock, member: &TcpListener, resets: Resets) -> std::net::SocketAddr {
        let listener = TcpListener::bind(ports.address(1)).expect("listen");
        let address = listener.local_addr().expect("its address");
        let target = member.local_addr().expect("its address").port();
        let shared = shared(resets);
        thread::spawn(move || accept(&listener, &[target], &shared));
        address
    }

    #[test]
    fn a_reset_of_a_member_is_a_reset_or_an_end_as_asked() {
        for (resets, expected) in [
            (Resets::Passed, Err(ErrorKind::ConnectionReset)),
            (Resets::AsEnds, Ok(0)),
        ] {
            let ports = PortBlock::reserve();
            let member = TcpListener::bind(ports.address(0)).expect("listen");
            let mut client = TcpStream::connect(balanced(&ports, &member, resets)).expect("connect");
            let (taken, _) = member.accept().expect("accept");
            SockRef::from(&taken)
                .set_linger(Some(Duration::ZERO))
                .expect("linger");
            drop(taken);
            client.set_read_timeout(Some(seconds(10))).expect("a time-out");
            let end = client.read(&mut [0; 1]).map_err(|error| error.kind());
            assert_eq!(end, expected, "{resets:?}");
        }
    }

    #[test]
    fn a_port_that_no_member_serves_refuses_until_one_does() {
        let ports = PortBlock::reserve();
        let member = TcpListener::bind(ports.address(0)).expect("listen");
        let address = balanced(&ports, &member, Resets::Passed);
        SockRef::from(&member).shutdown(Shutdown::Read).expect("pause");
        wait_until("connections to be refused", seconds(10), || {
            TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        SockRef::from(&member).listen(BACKLOG).expect("resume");
        wait_until("connections to be taken", seconds(10), || {
            TcpStream::connect(address).is_ok()
        });
    }
}
