//! Reads what clients see of a virtual cluster.

use crate::cluster::{ConnectionAge, Listen};
use crate::door::{Addressing, ClientCertificates, HostPattern, ListenTls, Network};
use crate::endpoint::HostPort;
use crate::section::Section;

use super::addressing::addressing;
use super::endpoint::{HOUR_MS, listen_address};

/// Kafka's frames carry their length in 31 bits.
const FRAME_BYTES_MAX: u64 = i32::MAX as u64;
/// Beyond it a client that says nothing holds its place for too long.
const HANDSHAKE_MS_MAX: u64 = 10 * 60 * 1000;

pub(super) fn listen(section: Option<Section<'_>>, alone: bool, cluster: &Section<'_>) -> Option<Listen> {
    let default = Listen::default();
    let Some(mut section) = section else {
        if !alone {
            cluster.problem(
                "listen",
                "is missing",
                "with several clusters each needs listen.address",
            );
            return None;
        }
        return Some(default);
    };
    section.elsewhere(&[("ssl", "tls")]);
    let address = if section.has("address") {
        listen_address(&mut section, "address")
    } else {
        let _ = listen_address(&mut section, "address");
        Some(default.address)
    };
    if address.as_ref().is_some_and(|address| address.port == 0) {
        let hint = "give a fixed port; clients keep it over restarts";
        section.problem("address", "port 0 would change with every start", hint);
    }
    let has_tls = section.has("tls");
    let tls = section.section("tls").map(tls);
    let addressing = addressing(section.section("addressing"), address.as_ref(), has_tls);
    let advertised_host = advertised_host(&mut section, address.as_ref(), addressing.as_ref());
    let intercepts = matches!(addressing, Some(Addressing::Intercept(_)));
    if intercepts && section.has("proxy_protocol") {
        let hint = "remove the key; the network redirects the clients themselves";
        section.problem("proxy_protocol", "is not for the scheme intercept", hint);
    }
    let proxy_protocol_from = section
        .section("proxy_protocol")
        .map(proxy_protocol)
        .unwrap_or_default();
    let handshake_timeout =
        section.duration("handshake_timeout", "handshake_timeout_ms", 10, HANDSHAKE_MS_MAX);
    let max_connections = section.number("max_connections", 1, 1_000_000);
    let of_one_address = section.number("max_connections_per_address", 0, 1_000_000);
    let max_request = section.size("max_request", "max_request_bytes", 1 << 10, FRAME_BYTES_MAX);
    let idle_timeout = section.duration("idle_timeout", "idle_timeout_ms", 0, 7 * 24 * HOUR_MS);
    let connection_age = connection_age(&mut section);
    section.finish();
    Some(Listen {
        address: address?,
        advertised_host,
        addressing: addressing?,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        proxy_protocol_from,
        handshake_timeout: handshake_timeout.unwrap_or(default.handshake_timeout),
        max_connections: max_connections.unwrap_or(default.max_connections),
        max_connections_per_address: of_one_address.unwrap_or(default.max_connections_per_address),
        max_request_bytes: max_request.unwrap_or(default.max_request_bytes),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
        connection_age,
    })
}

fn connection_age(section: &mut Section<'_>) -> Option<ConnectionAge> {
    const JITTER: &str = "connection_max_age_jitter_percent";
    let max = section.duration(
        "connection_max_age",
        "connection_max_age_ms",
        0,
        365 * 24 * HOUR_MS,
    );
    let max = max.filter(|max| !max.is_zero());
    let jitter_percent = section.number(JITTER, 0, 100);
    if max.is_none() && jitter_percent.is_some() {
        let hint = "give connection_max_age, or remove the key";
        section.problem(JITTER, "connections may become any age", hint);
    }
    Some(ConnectionAge {
        max: max?,
        jitter_percent: jitter_percent.unwrap_or(ConnectionAge::DEFAULT_JITTER_PERCENT),
    })
}

fn advertised_host(
    section: &mut Section<'_>,
    address: Option<&HostPort>,
    addressing: Option<&Addressing>,
) -> Option<HostPattern> {
    const KEY: &str = "advertised_host";
    let hint = "give the name or address at which clients reach this host, without a port";
    let host = section.parsed(KEY, str::parse::<HostPattern>, hint);
    // Names and intercepted clients have what they are given elsewhere.
    let by_port = !matches!(addressing, Some(Addressing::Names(_) | Addressing::Intercept(_)));
    match &host {
        Some(_) if matches!(addressing, Some(Addressing::Names(_))) => {
            let hint = "remove the key; addressing.node_host says what clients are given";
            section.problem(KEY, "is not for the scheme sni", hint);
        }
        Some(_) if !by_port => {
            let hint = "remove the key; clients keep the brokers' own addresses";
            section.problem(KEY, "is not for the scheme intercept", hint);
        }
        Some(host) if HostPort::new(host.of(0), 0).is_unspecified() => {
            section.problem(
                KEY,
                "stands for every interface; no client can connect to it",
                hint,
            );
        }
        None if address.is_some_and(HostPort::is_unspecified) && !section.has(KEY) && by_port => {
            section.problem(
                KEY,
                "is missing: listen.address stands for every interface, and no client can connect to that",
                hint,
            );
        }
        _ => {}
    }
    host
}

/// `None` when a file is missing or wrong, which is then a problem already noted.
fn tls(mut section: Section<'_>) -> Option<ListenTls> {
    section.elsewhere(&[
        ("certificate_file", "cert_file"),
        ("ca_file", "client_ca_file"),
        ("client_authentication", "client_auth"),
    ]);
    let mut needed = |key: &'static str, hint: &str| {
        let file = section.readable_file(key);
        if !section.has(key) {
            section.problem(key, "is missing", hint);
        }
        file
    };
    let cert_file = needed(
        "cert_file",
        "name the PEM file of the certificate that clients see",
    );
    let key_file = needed("key_file", "name the PEM file of its private key");
    let authorities = section.readable_file("client_ca_file");
    let choices = [("required", true), ("optional", false)];
    let required = section.choice("client_auth", &choices, &[]);
    if section.has("client_auth") && !section.has("client_ca_file") {
        let hint = "name in client_ca_file the authorities whose certificates count, or remove the key";
        section.problem("client_auth", "nobody's certificate would count", hint);
    }
    section.finish();
    let clients = match (authorities, required.unwrap_or(true)) {
        (None, _) => ClientCertificates::NotAsked,
        (Some(file), true) => ClientCertificates::Required(file),
        (Some(file), false) => ClientCertificates::Optional(file),
    };
    Some(ListenTls {
        cert_file: cert_file?,
        key_file: key_file?,
        clients,
    })
}

fn proxy_protocol(mut section: Section<'_>) -> Vec<Network> {
    const KEY: &str = "from";
    let hint =
        "name the load balancers, and no others, as 10.0.0.0/8: whom the header comes from is believed";
    if !section.has(KEY) {
        section.problem(KEY, "is missing", hint);
    }
    let mut networks = Vec::new();
    for text in section.texts(KEY).unwrap_or_default() {
        match text.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(error) => section.problem(KEY, format!("{text:?} {error}"), hint),
        }
    }
    section.finish();
    networks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io;
    use std::path::Path;

    use crate::environment::Env;
    use crate::{Addressing, ClientCertificates, Config, Intercept};

    struct Files;

    impl Env for Files {
        fn var(&self, _name: &str) -> Option<String> {
            None
        }

        fn read_file(&self, path: &Path) -> io::Result<String> {
            match path.starts_with("/there") {
                true => Ok("PEM".to_owned()),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    fn cluster(upstream: &str, listen: &str) -> Result<Config, String> {
        let text = format!(
            "clusters: [{{upstream: {{bootstrap_servers: 'a:1'{upstream}}}, listen: {{{listen}}}}}]\n\
             storage: {{backend: filesystem, path: /a}}"
        );
        Config::parse(&text, &Files).map_err(|errors| errors.to_string())
    }

    fn refused(upstream: &str, listen: &str, expected: &[&str]) {
        let error = cluster(upstream, listen).unwrap_err();
        for text in expected {
            assert!(error.contains(text), "{error}\nlacks {text}");
        }
        let problems = error.lines().count() - 1;
        assert_eq!(problems, expected.len(), "{error}");
    }

    const TLS: &str = "tls: {cert_file: /there/c, key_file: /there/k}";
    const MUTUAL: &str = "tls: {cert_file: /there/c, key_file: /there/k, client_ca_file: /there/ca}";

    #[test]
    fn a_certificate_needs_its_key_and_asking_clients_needs_authorities() {
        let clients = |listen: &str| {
            let config = cluster("", listen).unwrap();
            config.clusters[0].listen.tls.clone().unwrap().clients
        };
        assert_eq!(clients(TLS), ClientCertificates::NotAsked);
        let file = "/there/ca".into();
        assert_eq!(clients(MUTUAL), ClientCertificates::Required(file));
        let optional = MUTUAL.replace('}', ", client_auth: optional}");
        assert!(matches!(clients(&optional), ClientCertificates::Optional(_)));
        refused(
            "",
            "tls: {key_file: /nowhere}",
            &[
                "listen.tls.cert_file: is missing",
                "listen.tls.key_file = \"/nowhere\": cannot be read",
            ],
        );
        refused(
            "",
            &TLS.replace('}', ", client_auth: required}"),
            &["client_auth = \"required\": nobody's certificate would count"],
        );
        refused(
            "",
            &TLS.replace('}', ", ca_file: /there/ca}"),
            &["write it as client_ca_file"],
        );
    }

    #[test]
    fn names_need_tls_and_tell_brokers_apart() {
        let sni = |rest: &str| format!("{TLS}, addressing: {{scheme: sni{rest}}}");
        let good = sni(", bootstrap_host: k.example, node_host: 'b{id}.k.example', advertised_port: 443");
        let config = cluster("", &good).unwrap();
        let listen = &config.clusters[0].listen;
        assert_eq!(listen.advertised(7), Some(("b7.k.example".to_owned(), 443)));
        assert!(listen.addressing.ports().is_none());
        refused(
            "",
            &sni(""),
            &["bootstrap_host: is missing", "node_host: is missing"],
        );
        refused(
            "",
            &sni(", bootstrap_host: [b7.k, 10.0.0.1], node_host: 'b{id}.k'"),
            &[
                "\"b7.k\" is a broker's name",
                "\"10.0.0.1\" is not a plain host name",
            ],
        );
        refused(
            "",
            &sni(", bootstrap_host: k, node_host: b.k"),
            &["is the same for all brokers"],
        );
        refused(
            "",
            &good.replace(TLS, "max_connections: 7"),
            &["scheme = \"sni\": needs TLS"],
        );
        refused(
            "",
            &format!("{good}, advertised_host: k"),
            &["advertised_host = \"k\": is not for"],
        );
        // With names, nothing but the pattern is given to clients: the address may be every interface.
        cluster("", &format!("{good}, address: '0.0.0.0:9092'")).unwrap();
    }

    #[test]
    fn connections_become_any_age_unless_told_otherwise() {
        let age = |listen: &str| cluster("", listen).unwrap().clusters[0].listen.connection_age;
        assert_eq!(age(""), None);
        assert_eq!(age("connection_max_age: 0s"), None);
        let hour = age("connection_max_age: 1h").unwrap();
        assert_eq!((hour.max.as_secs(), hour.jitter_percent), (3600, 20));
        let spread = age("connection_max_age: 100s, connection_max_age_jitter_percent: 50").unwrap();
        let mut ages: Vec<u64> = (0..10)
            .map(|connection| spread.of(connection).as_secs())
            .collect();
        ages.sort_unstable();
        assert!(ages[0] >= 50 && ages[9] <= 100, "{ages:?}");
        assert!(ages.windows(2).all(|pair| pair[1] - pair[0] <= 9), "{ages:?}");
        refused(
            "",
            "connection_max_age_jitter_percent: 10",
            &["connections may become any age"],
        );
    }

    #[test]
    fn intercepted_clients_are_given_nothing_and_so_nothing_says_what() {
        let config = cluster("", "address: '0.0.0.0:9092', addressing: {scheme: intercept}").unwrap();
        let listen = &config.clusters[0].listen;
        let expected = Addressing::Intercept(Intercept { transparent: false });
        assert_eq!(listen.addressing, expected);
        assert_eq!(listen.advertised(1), None);
        cluster("", "addressing: {scheme: intercept, transparent: true}").unwrap();
        refused(
            "",
            "advertised_host: k, proxy_protocol: {from: 10.0.0.1}, \
             addressing: {scheme: intercept, node_port_start: 7, bootstrap_host: k, transparent: yes}",
            &[
                "listen.advertised_host = \"k\": is not for the scheme intercept",
                "listen.proxy_protocol: is not for the scheme intercept",
                "addressing.node_port_start: is not for the scheme intercept",
                "addressing.bootstrap_host: is not for the scheme intercept",
                "transparent = \"yes\": must be true or false",
            ],
        );
        refused(
            "",
            "addressing: {scheme: ports, transparent: true}",
            &["transparent: unknown key"],
        );
    }

    #[test]
    fn what_is_advertised_may_lie_elsewhere() {
        let listen = "advertised_host: 'b{id}.example', addressing: {node_port_count: 5, \
                      advertised_port_start: 31000, advertised_nodes: {3: 'x:1', 4: 32000}}";
        let config = cluster("", listen).unwrap();
        let listen = &config.clusters[0].listen;
        assert_eq!(listen.advertised(0), Some(("b0.example".to_owned(), 31000)));
        assert_eq!(listen.advertised(3), Some(("x".to_owned(), 1)));
        assert_eq!(listen.advertised(4), Some(("b4.example".to_owned(), 32000)));
        refused(
            "",
            "addressing: {advertised_port_start: 65530, advertised_nodes: {a: 1, 2: b}}",
            &[
                "the range goes beyond the last port",
                "\"2\": \"b\" is not a broker id and an address",
                "\"a\": \"1\" is not a broker id and an address",
            ],
        );
    }

    #[test]
    fn the_proxy_protocol_is_believed_from_named_networks_only() {
        let config = cluster("", "proxy_protocol: {from: [10.0.0.0/8, '::1']}").unwrap();
        let from = &config.clusters[0].listen.proxy_protocol_from;
        assert!(from[0].contains("10.1.1.1".parse().unwrap()) && from[1].contains("::1".parse().unwrap()));
        refused("", "proxy_protocol: {}", &["proxy_protocol.from: is missing"]);
        refused(
            "",
            "proxy_protocol: {from: anybody}",
            &["\"anybody\" is no range of addresses"],
        );
    }

    #[test]
    fn the_proxy_speaks_for_clients_only_where_they_have_shown_who_they_are() {
        let own = ", security_protocol: SASL_SSL, sasl: {mechanism: PLAIN, username: u, password: hidden}";
        let certificate = ", tls: {cert_file: /there/c, key_file: /there/k}";
        let ssl = format!(", security_protocol: SSL{certificate}");
        for upstream in [own, ssl.as_str()] {
            let expected = ["upstream: the proxy would speak for clients that it does not know"];
            refused(upstream, TLS, &expected);
            refused(upstream, "max_connections: 7", &expected);
            refused(
                upstream,
                &MUTUAL.replace('}', ", client_auth: optional}"),
                &expected,
            );
            cluster(upstream, MUTUAL).unwrap();
        }
        // There the certificate only opens the door; who the client is it says by SASL.
        cluster(&format!(", security_protocol: SASL_SSL{certificate}"), TLS).unwrap();
        refused(
            ", sasl: {mechanism: PLAIN, username: u, password: p}",
            TLS,
            &["PLAINTEXT does not use it"],
        );
    }

    #[test]
    fn sessions_pass_sasl_through_and_teeline_takes_its_tls_from_them() {
        let upstream = ", security_protocol: SASL_SSL, tls: {ca_file: /there/ca}, capture_credentials: \
                        {security_protocol: SASL_SSL, sasl: {mechanism: PLAIN, username: u, password: p}}";
        let config = cluster(upstream, TLS).unwrap();
        let cluster = &config.clusters[0];
        let sessions = &cluster.upstream.security;
        assert!(sessions.tls.is_some() && sessions.sasl.is_none());
        assert_eq!(cluster.own_endpoint().security.tls, sessions.tls);
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }

    #[test]
    fn plaintext_before_tls_is_worth_a_warning_beyond_this_machine() {
        let upstream = ", security_protocol: SSL";
        assert!(
            cluster(upstream, "address: '127.0.0.1:9092'")
                .unwrap()
                .warnings()
                .is_empty()
        );
        let warnings = cluster(upstream, "address: '10.0.0.1:9092'").unwrap().warnings();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].key, "clusters[0].listen.tls");
    }
}
