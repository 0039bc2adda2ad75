//! Reads how to reach a Kafka cluster.

use crate::endpoint::{HostPort, KafkaEndpoint, SecurityProtocol};
use crate::pattern::TopicFilter;
use crate::section::Section;

/// An hour: beyond it a limit is none.
pub(super) const HOUR_MS: u64 = 3_600_000;

/// Settings of TLS and SASL, by the names people try.
const SECURITY_KEYS: [&str; 15] = [
    "tls",
    "ssl",
    "sasl",
    "ssl_ca",
    "ssl_ca_file",
    "ssl_ca_location",
    "ssl_certificate_file",
    "ssl_key_file",
    "sasl_mechanism",
    "sasl_username",
    "sasl_password",
    "sasl_password_file",
    "username",
    "password",
    "capture_credentials",
];

const HOST_PORT_HINT: &str = "write host:port, as broker-1.example.com:9092 or [2001:db8::1]:9092";

/// An endpoint that chooses topics too, as `source` and `target` may.
pub(super) fn with_topics(section: Option<Section<'_>>) -> (Option<KafkaEndpoint>, Option<TopicFilter>) {
    let Some(mut section) = section else {
        return (None, None);
    };
    let topics = section.topics("topics");
    (endpoint(section), topics)
}

/// `None` when its servers are missing or wrong, which is then a problem already noted.
pub(super) fn endpoint(mut section: Section<'_>) -> Option<KafkaEndpoint> {
    section.not_yet(&SECURITY_KEYS);
    let servers = servers(&mut section);
    let protocol = section.choice(
        "security_protocol",
        &[("PLAINTEXT", SecurityProtocol::Plaintext)],
        &["SSL", "SASL_PLAINTEXT", "SASL_SSL"],
    );
    let client_id = section.text("client_id");
    let connect_timeout = section.duration("connect_timeout", "connect_timeout_ms", 10, HOUR_MS);
    let request_timeout = section.duration("request_timeout", "request_timeout_ms", 10, HOUR_MS);
    section.finish();
    let default = KafkaEndpoint::plaintext(servers?);
    Some(KafkaEndpoint {
        security_protocol: protocol.unwrap_or_default(),
        client_id: client_id.unwrap_or(default.client_id),
        connect_timeout: connect_timeout.unwrap_or(default.connect_timeout),
        request_timeout: request_timeout.unwrap_or(default.request_timeout),
        bootstrap_servers: default.bootstrap_servers,
    })
}

fn servers(section: &mut Section<'_>) -> Option<Vec<HostPort>> {
    const KEY: &str = "bootstrap_servers";
    if !section.has(KEY) {
        let _ = section.texts(KEY); // asked for, so that "did you mean" knows it
        section.problem(
            KEY,
            "is missing",
            format!("say where the cluster is: {HOST_PORT_HINT}"),
        );
        return None;
    }
    match bootstrap_servers(&section.texts(KEY)?.join(",")) {
        Ok(servers) => Some(servers),
        Err(message) => {
            section.problem(KEY, message, HOST_PORT_HINT);
            None
        }
    }
}

/// Reads `host:port`, several separated by commas. The error is a message for a problem.
pub(crate) fn bootstrap_servers(text: &str) -> Result<Vec<HostPort>, String> {
    let mut servers = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let server = item
            .parse::<HostPort>()
            .map_err(|error| format!("{item:?} {error}"))?;
        if server.port == 0 {
            return Err(format!("{item:?} has port 0, on which nobody can be reached"));
        }
        servers.push(server);
    }
    if servers.is_empty() {
        Err("names no server".to_owned())
    } else {
        Ok(servers)
    }
}

/// A `host:port` to listen on.
pub(super) fn listen_address(section: &mut Section<'_>, key: &'static str) -> Option<HostPort> {
    section.parsed(key, |text| text.parse::<HostPort>(), HOST_PORT_HINT)
}
