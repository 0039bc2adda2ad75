//! Which processes are connected to which ports, as the kernel has it.
//!
//! For the promise that no client reaches a broker past the proxy: a client's sockets are looked at again and again
//! while leaders move, and none of them may ever lead to a broker's own port.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Kafka's clients keep their connections for minutes. Short beside that, and cheap enough beside a load.
const INTERVAL: Duration = Duration::from_millis(25);

/// Looks at the sockets of some processes until it is asked.
#[derive(Debug)]
pub struct ConnectionWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<u32, BTreeSet<u16>>>>,
}

impl ConnectionWatch {
    /// Starts to watch.
    pub fn start(pids: &[u32]) -> Self {
        let (stop, pids) = (Arc::new(AtomicBool::new(false)), pids.to_vec());
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen: BTreeMap<u32, BTreeSet<u16>> = BTreeMap::new();
            while !stopped.load(Ordering::Relaxed) {
                for pid in &pids {
                    seen.entry(*pid).or_default().extend(remote_ports(*pid));
                }
                thread::park_timeout(INTERVAL);
            }
            seen
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Every port that each process was seen connected to.
    pub fn stop(mut self) -> BTreeMap<u32, BTreeSet<u16>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("watch connections")
    }
}

impl Drop for ConnectionWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The remote ports of a process's TCP connections; none if it is gone.
pub fn remote_ports(pid: u32) -> BTreeSet<u16> {
    let sockets = sockets(pid);
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .flat_map(|table| {
            let rows: Vec<(u16, String)> = table.lines().skip(1).filter_map(row).collect();
            rows
        })
        .filter(|(port, inode)| *port != 0 && sockets.contains(inode))
        .map(|(port, _)| port)
        .collect()
}

/// The inodes of a process's sockets.
fn sockets(pid: u32) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// Remote port and inode of a line of the kernel's table.
fn row(line: &str) -> Option<(u16, String)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(2)?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, (*fields.get(9)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_seen_at_the_process_that_made_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("its address");
        let own = std::process::id();
        assert!(!remote_ports(own).contains(&address.port()));
        let connection = TcpStream::connect(address).expect("connect");
        let watch = ConnectionWatch::start(&[own]);
        crate::wait::wait_until("the connection to be seen", crate::wait::seconds(5), || {
            remote_ports(own).contains(&address.port())
        });
        drop(connection);
        assert!(watch.stop()[&own].contains(&address.port()));
    }
}
