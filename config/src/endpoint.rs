//! How to reach a Kafka cluster.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::security::Security;

/// A host name or address, and a port. IPv6 addresses are written in brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a text is not `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// There is no `:port` at the end.
    #[error("has no port")]
    NoPort,
    /// What follows the colon is not a number from 0 to 65535.
    #[error("has no port number from 0 to 65535 after the colon")]
    BadPort,
    /// Nothing stands before the colon.
    #[error("has no host before the colon")]
    NoHost,
    /// A URL, spaces, a list, or an IPv6 address without brackets.
    #[error("is not one plain host name or address")]
    BadHost,
}

impl HostPort {
    /// Puts the two together.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Whether the host is this machine's loopback, by name or by address.
    pub fn is_loopback(&self) -> bool {
        host_is_loopback(&self.host)
    }

    /// Whether the host stands for every interface (`0.0.0.0` or `::`), and so cannot be advertised.
    pub fn is_unspecified(&self) -> bool {
        self.host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_unspecified())
    }
}

pub(crate) fn host_is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let text = text.trim();
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::NoPort)?;
        if host.is_empty() {
            return Err(HostPortError::NoHost);
        }
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(HostPortError::BadHost),
            None => host,
        };
        let bracketed = text.starts_with('[');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bracketed && !host.chars().all(plain) {
            return Err(HostPortError::BadHost);
        }
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostPortError::BadPort);
        }
        let port = port.parse().map_err(|_| HostPortError::BadPort)?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// One Kafka cluster, as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaEndpoint {
    /// Where to ask first; the other brokers are found by Metadata.
    pub bootstrap_servers: Vec<HostPort>,
    /// How connections are protected.
    pub security: Security,
    /// The client id of Teeline's own requests, for the broker's logs and quotas.
    pub client_id: String,
    /// How long one TCP connect may take.
    pub connect_timeout: Duration,
    /// How long one request of Teeline's own may take before the connection is given up.
    pub request_timeout: Duration,
    /// Where we are, as brokers call their racks or zones: reads that may be answered by a follower are answered by
    /// one there, if there is one and the brokers choose so (KIP-392).
    pub client_rack: Option<String>,
}

impl KafkaEndpoint {
    /// Tells the broker's operator who is asking.
    pub const DEFAULT_CLIENT_ID: &'static str = "teeline";
    /// Long enough for two lost SYNs (1 s + 2 s, then 4 s), short enough to try the next broker soon.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
    /// Kafka clients' own default, so that brokers are tuned for it.
    pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

    /// A plaintext cluster with the default limits.
    pub fn plaintext(bootstrap_servers: Vec<HostPort>) -> Self {
        Self {
            bootstrap_servers,
            security: Security::default(),
            client_id: Self::DEFAULT_CLIENT_ID.to_owned(),
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            request_timeout: Self::DEFAULT_REQUEST_TIMEOUT,
            client_rack: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in [
            "broker-1.example.com:9092",
            "127.0.0.1:1",
            "[::1]:65535",
            "[2001:db8::1]:9092",
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_host_and_port_says_why() {
        let error = |text: &str| text.parse::<HostPort>().unwrap_err();
        assert_eq!(error("broker"), HostPortError::NoPort);
        assert_eq!(error(":9092"), HostPortError::NoHost);
        assert_eq!(error("a:99999"), HostPortError::BadPort);
        assert_eq!(error("a:+1"), HostPortError::BadPort);
        assert_eq!(error("http://a:1"), HostPortError::BadHost);
        assert_eq!(error("a:1,b:2"), HostPortError::BadHost);
        assert_eq!(error("::1:9092"), HostPortError::BadHost);
        assert_eq!(error("[a]:1"), HostPortError::BadHost);
    }

    #[test]
    fn loopback_and_every_interface_are_recognised() {
        let host = |text: &str| text.parse::<HostPort>().unwrap();
        assert!(
            host("localhost:1").is_loopback()
                && host("127.3.4.5:1").is_loopback()
                && host("[::1]:1").is_loopback()
        );
        assert!(host("0.0.0.0:1").is_unspecified() && host("[::]:1").is_unspecified());
        assert!(!host("10.0.0.1:1").is_loopback() && !host("10.0.0.1:1").is_unspecified());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = text.parse::<HostPort>();
        }
    }
}
