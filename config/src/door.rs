//! How clients come in: TLS, names and ports that brokers are told apart by, load balancers in front.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// What a listener shows to clients, and what it asks of them. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// The certificate, PEM, followed by its intermediate ones.
    pub cert_file: PathBuf,
    /// Its private key, PEM, not encrypted.
    pub key_file: PathBuf,
    /// What clients have to show (mTLS).
    pub clients: ClientCertificates,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    NotAsked,
    /// They may; one that is shown has to be of an authority in this file.
    Optional(PathBuf),
    /// They have to, of an authority in this file.
    Required(PathBuf),
}

impl ClientCertificates {
    /// The authorities whose certificates count.
    pub fn authorities(&self) -> Option<&PathBuf> {
        match self {
            Self::NotAsked => None,
            Self::Optional(file) | Self::Required(file) => Some(file),
        }
    }
}

/// A host name, perhaps with the broker's id in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    before: String,
    /// What follows the id; none in a name without one.
    after: Option<String>,
}

/// Why a text is not a host name with an id in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    /// Something that no host name or address has.
    #[error("is not a plain host name or address")]
    NotAHost,
    /// `{id}` more than once.
    #[error("has {{id}} more than once")]
    Twice,
}

impl HostPattern {
    /// Where the broker's id stands.
    pub const PLACEHOLDER: &'static str = "{id}";

    /// Whether brokers have different names by it.
    pub fn has_id(&self) -> bool {
        self.after.is_some()
    }

    /// The name of a broker.
    pub fn of(&self, node_id: i32) -> String {
        match &self.after {
            Some(after) => format!("{}{node_id}{after}", self.before),
            None => self.before.clone(),
        }
    }

    /// The broker of a name; none if it is another name, or one that is written otherwise (`broker-01`).
    pub fn node_of(&self, name: &str) -> Option<i32> {
        let after = self.after.as_deref()?;
        let id = strip_end(strip_start(name, &self.before)?, after)?;
        let node_id: i32 = id.parse().ok()?;
        (node_id >= 0 && node_id.to_string() == id).then_some(node_id)
    }
}

/// Names of hosts do not distinguish cases.
fn strip_start<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

fn strip_end<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let (rest, tail) = text.split_at_checked(text.len().checked_sub(end.len())?)?;
    tail.eq_ignore_ascii_case(end).then_some(rest)
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let text = text.trim();
        let (before, after) = match text.split_once(Self::PLACEHOLDER) {
            Some((_, after)) if after.contains(Self::PLACEHOLDER) => return Err(HostPatternError::Twice),
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (text, None),
        };
        let plain = |part: &str| {
            part.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        // An IPv6 address is the one host that has colons.
        let address = after.is_none() && before.parse::<Ipv6Addr>().is_ok();
        if text.is_empty() || !(address || plain(before) && after.as_deref().is_none_or(plain)) {
            return Err(HostPatternError::NotAHost);
        }
        Ok(Self {
            before: before.to_owned(),
            after,
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        match &self.after {
            Some(after) => write!(f, "{}{after}", Self::PLACEHOLDER),
            None => Ok(()),
        }
    }
}

/// How brokers are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressing {
    /// By the port.
    Ports(Ports),
    /// By the name that the client asks for in its TLS greeting; all on the listener's own port.
    Names(Names),
    /// By the address that the client wanted to reach: the network redirects its connections to the listener.
    Intercept(Intercept),
}

impl Addressing {
    /// The ports, if that is how.
    pub fn ports(&self) -> Option<&Ports> {
        match self {
            Self::Ports(ports) => Some(ports),
            Self::Names(_) | Self::Intercept(_) => None,
        }
    }
}

/// A port per broker id: `node_port_start + (id - node_id_start)`, so that restarts and replicas of the
/// proxy agree without talking to each other; ids outside the range are listed in `nodes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// The port of the broker `node_id_start`.
    pub node_port_start: u16,
    /// The lowest broker id of the range.
    pub node_id_start: i32,
    /// How many ids, and so ports, the range has.
    pub node_port_count: u16,
    /// Ports of brokers whose ids lie elsewhere; wins over the range.
    pub nodes: BTreeMap<i32, u16>,
    /// Where clients find the range, if not at the same ports: behind a load balancer that shifts it.
    pub advertised_port_start: Option<u16>,
    /// Where clients find single brokers; wins over everything else. Without a host it is that of all.
    pub advertised_nodes: BTreeMap<i32, (Option<String>, u16)>,
}

impl Ports {
    /// Broker ids start at 0 or 1 nearly everywhere.
    pub const DEFAULT_NODE_ID_START: i32 = 0;
    /// More brokers than most clusters have; a port costs nothing until its broker is seen.
    pub const DEFAULT_NODE_PORT_COUNT: u16 = 100;

    /// The default range: right after the bootstrap port.
    pub fn after(bootstrap_port: u16) -> Self {
        Self {
            node_port_start: bootstrap_port.saturating_add(1),
            node_id_start: Self::DEFAULT_NODE_ID_START,
            node_port_count: Self::DEFAULT_NODE_PORT_COUNT,
            nodes: BTreeMap::new(),
            advertised_port_start: None,
            advertised_nodes: BTreeMap::new(),
        }
    }

    /// The default range, shorter near the end of all ports; whoever needs more says where.
    pub(crate) fn fitting_after(bootstrap_port: u16) -> Self {
        let mut ports = Self::after(bootstrap_port);
        let room = u16::MAX.saturating_sub(ports.node_port_start).saturating_add(1);
        ports.node_port_count = ports.node_port_count.min(room);
        ports
    }

    /// The port of a broker; `None` when its id is neither listed nor in the range.
    pub fn port_of(&self, node_id: i32) -> Option<u16> {
        match self.nodes.get(&node_id) {
            Some(port) => Some(*port),
            None => self.node_port_start.checked_add(self.index_of(node_id)?),
        }
    }

    /// The port that clients are given for a broker.
    pub(crate) fn advertised_port_of(&self, node_id: i32) -> Option<u16> {
        match self.advertised_port_start {
            Some(start) if !self.nodes.contains_key(&node_id) => start.checked_add(self.index_of(node_id)?),
            _ => self.port_of(node_id),
        }
    }

    fn index_of(&self, node_id: i32) -> Option<u16> {
        let index = i64::from(node_id) - i64::from(self.node_id_start);
        u16::try_from(index)
            .ok()
            .filter(|index| *index < self.node_port_count)
    }

    /// Every broker id with a port of its own, and that port.
    pub fn all_nodes(&self) -> impl Iterator<Item = (i32, u16)> + '_ {
        let id_of = |index: u16| self.node_id_start.checked_add(i32::from(index));
        let range = (0..self.node_port_count).filter_map(id_of);
        let others = range.filter(|node_id| !self.nodes.contains_key(node_id));
        let listed = self.nodes.keys().copied();
        listed
            .chain(others)
            .filter_map(|node_id| Some((node_id, self.port_of(node_id)?)))
    }

    /// Every port that may come to be listened on, in no particular order.
    pub fn all_ports(&self) -> impl Iterator<Item = u16> + '_ {
        (0..self.node_port_count)
            .filter_map(|index| self.node_port_start.checked_add(index))
            .chain(self.nodes.values().copied())
    }
}

/// A name per broker id, on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// What clients ask for first.
    pub bootstrap_hosts: Vec<String>,
    /// What they ask for once they know the brokers; has the id in it.
    pub node_host: HostPattern,
    /// The port that clients are given; the listener's own, unless somebody in front of it has another.
    pub advertised_port: u16,
}

/// Clients keep the brokers' own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Intercept {
    /// Takes connections to addresses that this host does not have, as TPROXY brings them. Needs a privilege;
    /// REDIRECT and DNAT do without.
    pub transparent: bool,
}

/// A range of addresses, as `10.0.0.0/8` or `2001:db8::/32`; a single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no range of addresses")]
pub struct NetworkError;

impl Network {
    /// Whether an address lies within. IPv4 addresses are the same in their IPv6 form.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_start(network.to_bits().into(), address.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_start(network.to_bits(), address.to_bits(), 128, self.bits)
            }
            _ => false,
        }
    }
}

fn same_start(one: u128, other: u128, width: u32, bits: u8) -> bool {
    // A shift by the whole width leaves nothing to differ.
    let rest = width.saturating_sub(u32::from(bits));
    (one ^ other).checked_shr(rest).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| NetworkError)?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width {
            return Err(NetworkError);
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn broker_ids_keep_their_ports_and_ids_outside_have_none() {
        let nodes = BTreeMap::from([(1001, 19301), (3, 19400)]);
        let mut ports = Ports {
            node_port_start: 19093,
            node_id_start: 1,
            node_port_count: 3,
            nodes,
            ..Ports::after(19092)
        };
        assert_eq!((ports.port_of(1), ports.port_of(2)), (Some(19093), Some(19094)));
        assert_eq!(
            (ports.port_of(3), ports.port_of(1001)),
            (Some(19400), Some(19301))
        );
        assert_eq!((ports.port_of(0), ports.port_of(4)), (None, None));
        let all: Vec<_> = ports.all_nodes().collect();
        assert_eq!(all, [(3, 19400), (1001, 19301), (1, 19093), (2, 19094)]);
        assert_eq!(
            (
                ports.port_of(-1),
                ports.port_of(i32::MIN),
                ports.port_of(i32::MAX)
            ),
            (None, None, None)
        );
        assert_eq!(ports.advertised_port_of(2), Some(19094));
        ports.advertised_port_start = Some(30000);
        assert_eq!(ports.advertised_port_of(2), Some(30001));
        // A listed port is somewhere of its own, and so not shifted with the range.
        assert_eq!(ports.advertised_port_of(3), Some(19400));
        assert_eq!(ports.advertised_port_of(0), None);
    }

    #[test]
    fn a_name_with_an_id_is_made_and_read_alike() {
        let pattern: HostPattern = "broker-{id}.Kafka.example.com".parse().unwrap();
        assert_eq!(pattern.to_string(), "broker-{id}.Kafka.example.com");
        assert_eq!(pattern.of(7), "broker-7.Kafka.example.com");
        assert_eq!(pattern.node_of("BROKER-7.kafka.EXAMPLE.com"), Some(7));
        for other in [
            "broker-.kafka.example.com",
            "broker-07.kafka.example.com",
            "broker--7.kafka.example.com",
            "broker-+7.kafka.example.com",
            "broker-99999999999.kafka.example.com",
            "broker-7.kafka.example.org",
            "xbroker-7.kafka.example.com",
            "broker-",
            "",
            "bröker-7.kafka.example.com",
        ] {
            assert_eq!(pattern.node_of(other), None, "{other}");
        }
        assert!(!"kafka.example.com".parse::<HostPattern>().unwrap().has_id());
        assert_eq!("::1".parse::<HostPattern>().unwrap().of(3), "::1");
        assert_eq!("{id}{id}".parse::<HostPattern>(), Err(HostPatternError::Twice));
        for text in ["", "a b", "a:9092", "https://a", "a{id}/b"] {
            assert_eq!(
                text.parse::<HostPattern>(),
                Err(HostPatternError::NotAHost),
                "{text}"
            );
        }
    }

    #[test]
    fn a_range_of_addresses_holds_what_starts_alike() {
        let holds = |network: &str, address: &str| {
            network
                .parse::<Network>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.0.0.1", "10.0.0.1") && !holds("10.0.0.1", "10.0.0.2"));
        assert!(holds("0.0.0.0/0", "192.0.2.1") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1"));
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/-1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_anything_panic(text in "\\PC*", id in any::<i32>()) {
            let _ = text.parse::<Network>();
            if let Ok(pattern) = text.parse::<HostPattern>() {
                let expected = (pattern.has_id() && id >= 0).then_some(id);
                prop_assert_eq!(pattern.node_of(&pattern.of(id)), expected);
            }
            let pattern: HostPattern = "broker-{id}.example.com".parse().unwrap();
            let _ = pattern.node_of(&text);
        }
    }
}
