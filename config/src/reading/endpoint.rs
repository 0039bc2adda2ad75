//! Reads how to reach a Kafka cluster.

use crate::endpoint::{HostPort, KafkaEndpoint};
use crate::pattern::TopicFilter;
use crate::section::Section;

use super::security::{security, sessions};

/// An hour: beyond it a limit is none.
pub(super) const HOUR_MS: u64 = 3_600_000;

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
    section.not_yet(&["capture_credentials"]);
    let security = security(&mut section);
    let endpoint = unprotected(&mut section);
    section.finish();
    Some(KafkaEndpoint {
        security,
        ..endpoint?
    })
}

/// The cluster behind the proxy.
pub(super) struct Upstream {
    /// How the sessions of clients reach it.
    pub(super) sessions: KafkaEndpoint,
    /// How Teeline's own questions do, if that is another way.
    pub(super) own: Option<KafkaEndpoint>,
    /// The brokers are told who the proxy is, instead of who the client is.
    pub(super) speaks_for_clients: bool,
}

pub(super) fn upstream(mut section: Section<'_>) -> Option<Upstream> {
    section.refused(
        "client_rack",
        "is not for the sessions of clients",
        "write it under capture_credentials",
    );
    let (protocol, security) = sessions(&mut section);
    let endpoint = unprotected(&mut section);
    let own = section.section("capture_credentials");
    section.finish();
    // Where clients authenticate themselves by SASL, a certificate only opens the connection.
    let certified = security.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let speaks_for_clients = security.sasl.is_some() || (certified && !protocol.has_sasl());
    let sessions = KafkaEndpoint {
        security,
        ..endpoint?
    };
    let own = own.map(|own| capture_credentials(own, &sessions));
    Some(Upstream {
        sessions,
        own,
        speaks_for_clients,
    })
}

/// Where it says nothing, it is as for the sessions.
fn capture_credentials(mut section: Section<'_>, upstream: &KafkaEndpoint) -> KafkaEndpoint {
    let own_tls = section.has("tls");
    let mut security = security(&mut section);
    if let (Some(tls), Some(theirs), false) = (&mut security.tls, &upstream.security.tls, own_tls) {
        *tls = theirs.clone();
    }
    let servers = match section.has("bootstrap_servers") {
        true => servers(&mut section),
        false => {
            let _ = section.texts("bootstrap_servers");
            None
        }
    };
    let client_rack = section.text("client_rack");
    section.finish();
    KafkaEndpoint {
        bootstrap_servers: servers.unwrap_or_else(|| upstream.bootstrap_servers.clone()),
        security,
        client_rack,
        ..upstream.clone()
    }
}

/// Everything but its protection.
fn unprotected(section: &mut Section<'_>) -> Option<KafkaEndpoint> {
    let servers = servers(section);
    let client_id = section.text("client_id");
    let connect_timeout = section.duration("connect_timeout", "connect_timeout_ms", 10, HOUR_MS);
    let request_timeout = section.duration("request_timeout", "request_timeout_ms", 10, HOUR_MS);
    let client_rack = section.text("client_rack");
    let default = KafkaEndpoint::plaintext(servers?);
    Some(KafkaEndpoint {
        client_id: client_id.unwrap_or(default.client_id),
        connect_timeout: connect_timeout.unwrap_or(default.connect_timeout),
        request_timeout: request_timeout.unwrap_or(default.request_timeout),
        client_rack,
        bootstrap_servers: default.bootstrap_servers,
        security: default.security,
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
