//! Which processes are connected to which ports, as the kernel has it.
//!
//! For the promise that no client reaches a broker past the proxy: a client's sockets are looked at again and again
//! while leaders move, and none of them may ever lead to a broker's own port.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Kafka's clients keep their connections for minutes. Short beside that, and cheap enough beside a load.
const INTERVAL: Duration = Duration::from_millis(25);

/// Every port that each process was seen connected to.
type Seen = BTreeMap<u32, BTreeSet<u16>>;

/// Looks at the sockets of some processes until it is asked.
#[derive(Debug)]
pub struct ConnectionWatch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl ConnectionWatch {
    /// Starts to watch.
    pub fn start(pids: &[u32]) -> Self {
        let (stop, pids) = (Arc::new(AtomicBool::new(false)), pids.to_vec());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (stopped, shared) = (stop.clone(), seen.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for pid in &pids {
                    let ports = remote_ports(*pid);
                    let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(*pid).or_default().extend(ports);
                }
                thread::park_timeout(INTERVAL);
            }
        });
        Self {
            stop,
            seen,
            thread: Some(thread),
        }
    }

    /// What was seen until now.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was seen in all.
    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("watch connections");
        self.seen()
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
    fn a_connection_is_seen_at_the_process_that_made_it_and_not_forgotten() {
        let own = std::process::id();
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("listen"));
        let [first, second] = listeners
            .each_ref()
            .map(|listener| listener.local_addr().expect("its address"));
        assert!(!remote_ports(own).contains(&first.port()));
        let watch = ConnectionWatch::start(&[own]);
        let wait_until_seen = |port| {
            crate::wait::wait_until("the connection to be seen", crate::wait::seconds(5), || {
                watch.seen().get(&own).is_some_and(|ports| ports.contains(&port))
            });
        };
        let connection = TcpStream::connect(first).expect("connect");
        wait_until_seen(first.port());
        drop(connection);
        let _connection = TcpStream::connect(second).expect("connect");
        wait_until_seen(second.port());
        assert!(watch.stop()[&own].contains(&first.port()));
    }
}
