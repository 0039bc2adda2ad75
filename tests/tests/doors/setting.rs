//! Proxies before the secured cluster, and clients that trust its authority.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, ProducerConfig};
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::record::Record;

use crate::secured::{PASSWORD, SECURED, SESSION, USER, certificate};

/// A proxy that captures nothing, before the listener at `upstream`.
pub(crate) fn forwarding(work: &Path, upstream: &str) -> ProxySettings {
    let mut settings = ProxySettings::new(work, upstream, &Archive::Directory(work.join("archive")));
    settings.document["clusters"][0]["capture"]["enabled"] = json!(false);
    settings
}

/// TLS towards clients, who are given `localhost`.
pub(crate) fn listen_tls(settings: &mut ProxySettings) {
    let listen = &mut settings.document["clusters"][0]["listen"];
    listen["advertised_host"] = json!("localhost");
    listen["tls"] = json!({"cert_file": certificate("proxy.pem"), "key_file": certificate("proxy.key")});
}

/// TLS to brokers, behind which clients authenticate themselves.
pub(crate) fn upstream_sasl_ssl(settings: &mut ProxySettings) {
    let upstream = &mut settings.document["clusters"][0]["upstream"];
    upstream["security_protocol"] = json!("SASL_SSL");
    upstream["tls"] = json!({"ca_file": certificate("authority.pem")});
}

/// What Teeline itself asks and fetches, by SCRAM over TLS.
pub(crate) fn own_credentials(settings: &mut ProxySettings, work: &Path) {
    let file = work.join("password");
    fs::write(&file, PASSWORD).unwrap();
    settings.document["clusters"][0]["upstream"]["capture_credentials"] = json!({
        "bootstrap_servers": SECURED.sasl_ssl(),
        "security_protocol": "SASL_SSL",
        "tls": {"ca_file": certificate("authority.pem")},
        "sasl": {"mechanism": "SCRAM-SHA-512", "username": USER, "password_file": file},
    });
}

/// Where clients find it by the name in its certificate.
pub(crate) fn by_name(settings: &ProxySettings) -> String {
    settings.bootstrap().replace("127.0.0.1", "localhost")
}

/// How a client authenticates.
pub(crate) fn jaas(mechanism: &str) -> String {
    match mechanism {
        "OAUTHBEARER" => format!(
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"{USER}\";"
        ),
        "PLAIN" => plain(USER, PASSWORD),
        _ => format!(
            "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{USER}\" \
             password=\"{PASSWORD}\";"
        ),
    }
}

pub(crate) fn plain(user: &str, password: &str) -> String {
    format!(
        "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"{user}\" password=\"{password}\";"
    )
}

/// Settings of a client over TLS that trusts the authority in a file.
pub(crate) fn over_tls(authority: &str, more: &[(&str, &str)]) -> ProducerConfig {
    let authority = certificate(authority).display().to_string();
    let mut config = ProducerConfig::of(&[
        ("security.protocol", "SSL"),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.location", &authority),
    ]);
    for (key, value) in more {
        config.0.retain(|(known, _)| known != key);
        config.0.push(((*key).to_owned(), (*value).to_owned()));
    }
    config
}

/// The same with a certificate of its own.
pub(crate) fn with_client_certificate() -> ProducerConfig {
    let chain = fs::read_to_string(certificate("client.pem")).unwrap();
    let key = fs::read_to_string(certificate("client.key")).unwrap();
    let own = [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.certificate.chain", chain.as_str()),
        ("ssl.keystore.key", key.as_str()),
    ];
    over_tls("authority.pem", &own)
}

/// The same with SASL.
pub(crate) fn over_sasl_ssl(mechanism: &str) -> ProducerConfig {
    let login = jaas(mechanism);
    let more = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", mechanism),
        ("sasl.jaas.config", login.as_str()),
    ];
    over_tls("authority.pem", &more)
}

pub(crate) fn records(from: usize, to: usize) -> Vec<Record> {
    (from..to)
        .map(|number| Record::new(0, &format!("key {number}"), format!("value {number}")))
        .collect()
}

/// Sends by a producer that is open for longer than a session lasts that is not renewed (KIP-368), after `sent` records:
/// how many there are then.
pub(crate) fn send_beyond_sessions(
    java: &Driver,
    proxy: &Proxy,
    producer: &str,
    topic: &str,
    mut sent: usize,
) -> usize {
    let connections = || proxy.metric("teeline_connections_total");
    let logins = || proxy.metric_with("teeline_requests_total", "api=\"SaslAuthenticate\"");
    let before = (connections(), logins());
    let since = Instant::now();
    while since.elapsed() < SESSION * 2 {
        java.send_all(producer, topic, &records(sent, sent + 10));
        sent += 10;
    }
    assert_eq!(
        connections(),
        before.0,
        "a renewed session stays on its connection"
    );
    assert!(logins() > before.1, "no session was renewed");
    sent
}

pub(crate) fn topic(name: &str) -> Value {
    json!([{"name": name, "partitions": 1}])
}

/// Copies of a certificate and its key, which a test may replace.
pub(crate) struct Replaceable {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Replaceable {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let files = Self {
            cert: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        };
        files.replace("proxy");
        files
    }

    pub(crate) fn replace(&self, name: &str) {
        fs::copy(certificate(&format!("{name}.pem")), &self.cert).unwrap();
        fs::copy(certificate(&format!("{name}.key")), &self.key).unwrap();
    }
}
