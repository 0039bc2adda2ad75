//! Virtual clusters: one upstream cluster behind one set of listeners, and what is captured on the way.

use std::path::PathBuf;
use std::time::Duration;

use crate::door::{Addressing, HostPattern, ListenTls, Network, Ports};
use crate::endpoint::{HostPort, KafkaEndpoint};
use crate::pattern::{TopicFilter, TopicPattern};

/// One upstream cluster behind one set of listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualCluster {
    /// Names the cluster in logs and metrics.
    pub name: String,
    /// The backup that its capture goes into. Bound to one cluster, for ever.
    pub backup_id: String,
    /// The cluster behind.
    pub upstream: KafkaEndpoint,
    /// How Teeline's own questions reach it, if not as the sessions do: with credentials, perhaps by another listener.
    pub capture_credentials: Option<KafkaEndpoint>,
    /// What clients see.
    pub listen: Listen,
    /// What is captured, and how.
    pub capture: Capture,
    /// Limits of each connection.
    pub limits: Limits,
}

impl VirtualCluster {
    /// The name of the only cluster when none is given.
    pub const DEFAULT_NAME: &'static str = "main";
    /// The backup id of a quick start.
    pub const DEFAULT_BACKUP_ID: &'static str = "default";

    /// How Teeline itself reaches the cluster, for what it asks and fetches in its own name.
    pub fn own_endpoint(&self) -> &KafkaEndpoint {
        self.capture_credentials.as_ref().unwrap_or(&self.upstream)
    }
}

/// What clients see of a virtual cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The bootstrap address.
    pub address: HostPort,
    /// The host name that clients are given for brokers; `None` gives the address they listen on.
    pub advertised_host: Option<HostPattern>,
    /// How brokers are told apart.
    pub addressing: Addressing,
    /// TLS, if clients speak it.
    pub tls: Option<ListenTls>,
    /// Who has to say by the PROXY protocol for whom it connects: load balancers. Empty: nobody, and nobody may.
    pub proxy_protocol_from: Vec<Network>,
    /// How long a client may take until its first request can be read: the PROXY protocol's header, TLS.
    pub handshake_timeout: Duration,
    /// Connections of all clients of this cluster together.
    pub max_connections: u32,
    /// Connections of one client address, or of one IPv6 network of 64 bits. Zero for any number.
    pub max_connections_per_address: u32,
    /// The largest request frame; a larger one closes its connection.
    pub max_request_bytes: u64,
    /// A connection on which nothing moved for so long is closed. Zero never closes.
    pub idle_timeout: Duration,
    /// How old a connection may become; `None` for any age.
    pub connection_age: Option<ConnectionAge>,
}

/// How old connections may become before they are ended, between two requests, so that clients connect again and
/// spread over proxies that were added meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionAge {
    /// None becomes older.
    pub max: Duration,
    /// By how many percent of it some end earlier, so that those that came together do not go together.
    pub jitter_percent: u8,
}

impl ConnectionAge {
    /// Enough to spread a herd over minutes of an hour.
    pub const DEFAULT_JITTER_PERCENT: u8 = 20;

    /// The age of the connection with this number. Successive numbers spread evenly, better than chance would.
    pub fn of(self, connection: u64) -> Duration {
        // Weyl's sequence of the golden ratio: the fractional parts of its multiples leave no gaps.
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        let share = (connection.wrapping_mul(GOLDEN_RATIO) >> 32) as f64 / f64::from(u32::MAX);
        let earlier = share * f64::from(self.jitter_percent.min(100)) / 100.0;
        self.max.mul_f64((1.0 - earlier).max(0.0))
    }
}

impl Listen {
    /// Loopback, so that a first try shows nothing to a network.
    pub const DEFAULT_HOST: &'static str = "127.0.0.1";
    /// Looks like Kafka's 9092, below the ephemeral range (32768), so that no client socket takes it first.
    pub const DEFAULT_PORT: u16 = 19092;
    /// As many as one process can hold open with the usual hard limit of file descriptors (two per connection).
    pub const DEFAULT_MAX_CONNECTIONS: u32 = 10_000;
    /// Any number, as brokers have it (`max.connections.per.ip`): behind one address may be a whole network.
    pub const DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: u32 = 0;
    /// The brokers' own default (`socket.request.max.bytes`, 100 MiB) and 64 KiB more, so that it is the broker who refuses.
    pub const DEFAULT_MAX_REQUEST_BYTES: u64 = 100 * 1024 * 1024 + 64 * 1024;
    /// Longer than the brokers' own `connections.max.idle.ms` (10 min), so that brokers decide; only leftovers are closed by us.
    pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

    /// Long enough for three lost packets, short enough that who says nothing does not hold a connection for long.
    pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

    /// The address that clients are given for a broker; `None` when `addressing` has no place for it.
    pub fn advertised(&self, node_id: i32) -> Option<(String, u16)> {
        match &self.addressing {
            Addressing::Names(names) => {
                (node_id >= 0).then(|| (names.node_host.of(node_id), names.advertised_port))
            }
            Addressing::Ports(ports) => {
                let host = || match &self.advertised_host {
                    Some(host) => host.of(node_id),
                    None => self.address.host.clone(),
                };
                ports.port_of(node_id)?;
                match ports.advertised_nodes.get(&node_id) {
                    Some((own, port)) => Some((own.clone().unwrap_or_else(host), *port)),
                    None => Some((host(), ports.advertised_port_of(node_id)?)),
                }
            }
            // They have the brokers' own addresses.
            Addressing::Intercept(_) => None,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let address = HostPort::new(Self::DEFAULT_HOST, Self::DEFAULT_PORT);
        let addressing = Addressing::Ports(Ports::after(address.port));
        Self {
            address,
            advertised_host: None,
            addressing,
            tls: None,
            proxy_protocol_from: Vec::new(),
            handshake_timeout: Self::DEFAULT_HANDSHAKE_TIMEOUT,
            max_connections: Self::DEFAULT_MAX_CONNECTIONS,
            max_connections_per_address: Self::DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
            max_request_bytes: Self::DEFAULT_MAX_REQUEST_BYTES,
            idle_timeout: Self::DEFAULT_IDLE_TIMEOUT,
            connection_age: None,
        }
    }
}

/// When a producer is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// Once what it wrote is on the proxy's disk.
    #[default]
    Durable,
    /// As soon as the broker answered; the disk follows within `buffer.sync_interval_ms`.
    Async,
}

/// What happens to producers when capture cannot keep up or fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// They go on; what is missed is counted and left to backfill.
    #[default]
    Open,
    /// They wait, then get a retriable error for requests not yet forwarded.
    Closed,
}

/// What is captured, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// Whether anything is; without it the proxy only forwards.
    pub enabled: bool,
    /// Topics to capture; empty captures all.
    pub include: Vec<TopicPattern>,
    /// Topics not to capture; wins over `include`.
    pub exclude: Vec<TopicPattern>,
    /// When a producer is answered.
    pub ack: Ack,
    /// What happens to producers when capture fails.
    pub on_failure: OnFailure,
    /// How long a response may be held for the disk before `on_failure` applies.
    pub hold_max_ms: u64,
    /// The write-ahead buffer.
    pub buffer: Buffer,
    /// How often topic ids are looked up while there is traffic.
    pub catalog_poll_interval: Duration,
}

impl Capture {
    /// Kafka's own state: meaningless in another cluster, and rewritten at a high rate.
    pub const DEFAULT_EXCLUDE: [&'static str; 2] = ["__consumer_offsets", "__transaction_state"];
    /// A tenth of the producers' default delivery timeout (120 s), within their request timeout (30 s).
    pub const DEFAULT_HOLD_MAX_MS: u64 = 10_000;
    /// Attribution of what was captured waits for it, the ack does not; one small Metadata request each time.
    pub const DEFAULT_CATALOG_POLL_INTERVAL: Duration = Duration::from_secs(5);

    /// The two lists as one filter.
    pub fn topics(&self) -> TopicFilter {
        TopicFilter::new(self.include.clone(), self.exclude.clone())
    }

    pub(crate) fn default_exclude() -> Vec<TopicPattern> {
        Self::DEFAULT_EXCLUDE
            .iter()
            .map(|name| TopicPattern::exact(name))
            .collect()
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            enabled: true,
            include: Vec::new(),
            exclude: Self::default_exclude(),
            ack: Ack::Durable,
            on_failure: OnFailure::Open,
            hold_max_ms: Self::DEFAULT_HOLD_MAX_MS,
            buffer: Buffer::default(),
            catalog_poll_interval: Self::DEFAULT_CATALOG_POLL_INTERVAL,
        }
    }
}

/// The write-ahead buffer on the proxy's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// Its directory; one buffer, one directory.
    pub dir: PathBuf,
    /// How much disk it may take; beyond it `on_failure` applies.
    pub max_bytes: u64,
    /// Size at which a file is closed and the next begun. Files are released whole.
    pub file_bytes: u64,
    /// With `ack: async`: the longest time between two syncs.
    pub sync_interval_ms: u64,
}

impl Buffer {
    /// Beside the archive of a quick start.
    pub const DEFAULT_DIR: &'static str = "./teeline-buffer";
    /// About 17 minutes of a store outage at 10 MB/s; a host that captures more needs a figure of its own.
    pub const DEFAULT_MAX_BYTES: u64 = 10 * 1024 * 1024 * 1024;
    /// As large as a segment: releases disk often enough, without many small files.
    pub const DEFAULT_FILE_BYTES: u64 = 128 * 1024 * 1024;
    /// What a crash of the host may lose in async mode: a few milliseconds.
    pub const DEFAULT_SYNC_INTERVAL_MS: u64 = 5;
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            dir: PathBuf::from(Self::DEFAULT_DIR),
            max_bytes: Self::DEFAULT_MAX_BYTES,
            file_bytes: Self::DEFAULT_FILE_BYTES,
            sync_interval_ms: Self::DEFAULT_SYNC_INTERVAL_MS,
        }
    }
}

/// Limits of each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of requests and responses held for one connection; beyond it the proxy stops reading from it.
    /// A single larger request still passes, alone.
    pub connection_in_flight_bytes: u64,
    /// Bytes that the kernel may keep for one socket of a connection in each direction: received and not read, and given to
    /// it and not sent. A connection has two sockets.
    pub socket_buffer_bytes: u32,
}

impl Limits {
    /// Five batches of the usual 1 MiB in flight (the producers' own limit), and as much again for responses.
    pub const DEFAULT_CONNECTION_IN_FLIGHT_BYTES: u64 = 16 * 1024 * 1024;
    /// More than brokers take for themselves (`socket.receive.buffer.bytes`: 100 KiB), so that the way is not the narrower for
    /// the proxy.
    pub const DEFAULT_SOCKET_BUFFER_BYTES: u32 = 256 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_in_flight_bytes: Self::DEFAULT_CONNECTION_IN_FLIGHT_BYTES,
            socket_buffer_bytes: Self::DEFAULT_SOCKET_BUFFER_BYTES,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::door::Names;

    #[test]
    fn clients_are_given_what_they_can_reach_and_nothing_for_a_broker_without_a_place() {
        let mut listen = Listen::default();
        assert_eq!(listen.advertised(0), Some(("127.0.0.1".to_owned(), 19093)));
        assert_eq!(listen.advertised(100), None);
        listen.advertised_host = Some("broker-{id}.example.com".parse().unwrap());
        let mut ports = Ports::after(19092);
        ports.advertised_port_start = Some(31000);
        ports.advertised_nodes.insert(2, (None, 32000));
        ports
            .advertised_nodes
            .insert(3, (Some("elsewhere".to_owned()), 9092));
        // Not in the range: what is advertised gives it no listener.
        ports.advertised_nodes.insert(1000, (None, 9092));
        listen.addressing = Addressing::Ports(ports);
        assert_eq!(
            listen.advertised(1),
            Some(("broker-1.example.com".to_owned(), 31001))
        );
        assert_eq!(
            listen.advertised(2),
            Some(("broker-2.example.com".to_owned(), 32000))
        );
        assert_eq!(listen.advertised(3), Some(("elsewhere".to_owned(), 9092)));
        assert_eq!(listen.advertised(1000), None);
        listen.addressing = Addressing::Names(Names {
            bootstrap_hosts: vec!["kafka.example.com".to_owned()],
            node_host: "b{id}.kafka.example.com".parse().unwrap(),
            advertised_port: 443,
        });
        assert_eq!(
            listen.advertised(1000),
            Some(("b1000.kafka.example.com".to_owned(), 443))
        );
        assert_eq!(listen.advertised(-1), None);
    }
}
