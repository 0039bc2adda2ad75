//! A TCP load balancer: several proxies behind one address, a port of it for each of theirs.
//!
//! Connections go to the members in turn; one that refuses is passed over, as a balancer does that looks after its
//! members. Each direction ends by itself, so that what was answered last arrives; a reset is a reset on the other side,
//! as with a balancer of packets.

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

/// A running balancer. Dropping it stops it accepting; connections go on to their end.
#[derive(Debug)]
pub struct Balancer {
    ports: PortBlock,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    next: AtomicUsize,
}

impl Balancer {
    /// Stands before these proxies, whose ports it learns from their settings.
    pub fn start(members: &[&ProxySettings]) -> Self {
        let ports = PortBlock::reserve();
        let shared = Arc::new(Shared {
            stopping: AtomicBool::new(false),
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

fn accept(listener: &TcpListener, targets: &[u16], shared: &Shared) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let first = shared.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = targets.iter().cycle().skip(first % targets.len());
        let member = in_turn
            .take(targets.len())
            .find_map(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).ok());
        // Without a member the client's connection ends here.
        if let (Ok(client), Some(member)) = (client, member) {
            // A connection that fails at once is one that its peers have given up.
            let _ = join(client, member);
        }
    }
}

fn join(client: TcpStream, member: TcpStream) -> io::Result<()> {
    for stream in [&client, &member] {
        stream.set_nodelay(true)?;
    }
    let (client_end, member_end) = (client.try_clone()?, member.try_clone()?);
    let broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&broken);
    thread::spawn(move || copy(client, &member, &seen));
    thread::spawn(move || copy(member_end, &client_end, &broken));
    Ok(())
}

/// One direction to its end, which the other side is told of. A broken one breaks both.
fn copy(mut from: TcpStream, mut to: &TcpStream, broken: &AtomicBool) {
    if io::copy(&mut from, &mut to).is_err() {
        broken.store(true, Ordering::Relaxed);
        for stream in [&from, to] {
            // What fails here is closed already. The other direction wakes up, and the last of both to close resets.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    } else if !broken.load(Ordering::Relaxed) {
        // A peer that has gone meanwhile need not be told.
        let _ = to.shutdown(Shutdown::Write);
    }
}
