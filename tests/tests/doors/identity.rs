//! Who clients are to the brokers: themselves, or the proxy where it speaks for them.

use std::process::Command;
use std::time::Instant;

use serde_json::json;
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, ProxySettings, binary};
use teeline_tests::read_back::ReadBack;
use teeline_tests::record::Record;
use teeline_tests::wait::seconds;
use teeline_tests::workdir::WorkDir;

use crate::secured::{PASSWORD, SECURED, SESSION, USER, certificate};
use crate::setting::{
    by_name, forwarding, listen_tls, plain, records, topic, upstream_sasl_ssl, with_client_certificate,
};

fn tool(class: &str, arguments: &[&str]) {
    let output = Kafka::tool(class, arguments);
    assert!(
        output.status.success(),
        "{class} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Somebody with few rights, without retries that would hide a refusal.
fn nobody() -> ProducerConfig {
    let login = plain("nobody", "nothing");
    ProducerConfig::of(&[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.jaas.config", &login),
        ("enable.idempotence", "false"),
        ("max.block.ms", "20000"),
    ])
}

#[test]
fn rights_and_quotas_are_those_that_the_brokers_give_to_the_client() {
    let plain = SECURED.kafka.bootstrap();
    let java = Driver::start(Family::Java);
    for name in ["allowed", "forbidden"] {
        java.create_topics(&plain, &topic(name));
    }
    tool(
        "org.apache.kafka.tools.AclCommand",
        &[
            "--bootstrap-server",
            &plain,
            "--add",
            "--allow-principal",
            "User:nobody",
            "--operation",
            "Write",
            "--operation",
            "Describe",
            "--topic",
            "allowed",
        ],
    );
    tool(
        "kafka.admin.ConfigCommand",
        &[
            "--bootstrap-server",
            &plain,
            "--alter",
            "--entity-type",
            "users",
            "--entity-name",
            "nobody",
            "--add-config",
            "producer_byte_rate=10000",
        ],
    );
    let work = WorkDir::create("rights");
    let mut settings = forwarding(work.path(), &SECURED.sasl_plaintext());
    settings.document["clusters"][0]["upstream"]["security_protocol"] = json!("SASL_PLAINTEXT");
    settings.document["clusters"][0]["upstream"]["capture_credentials"] = json!({"bootstrap_servers": plain});
    let mut proxy = settings.start();
    java.open_producer("direct", &SECURED.sasl_plaintext(), &nobody());
    java.open_producer("through", &settings.bootstrap(), &nobody());
    let denied = |producer: &str| {
        java.send(producer, "forbidden", &records(0, 1))[0]
            .clone()
            .unwrap_err()
    };
    assert_eq!(denied("through"), denied("direct"));
    assert!(
        denied("through").contains("TopicAuthorizationException"),
        "{}",
        denied("through")
    );
    // 13 seconds' worth at once: more than the window of eleven takes, so the broker makes it wait for the rest.
    let large = [Record::new(0, "large", "x".repeat(130_000))];
    java.send_all("through", "allowed", &large);
    let since = Instant::now();
    java.send_all("through", "allowed", &records(0, 1));
    let took = since.elapsed();
    assert!(
        took >= seconds(1),
        "the quota of User:nobody does not hold: {took:?}"
    );
    proxy.stop();
}

#[test]
fn where_the_proxy_speaks_for_its_clients_they_show_certificates_and_sessions_end_in_time() {
    const TOPIC: &str = "spoken-for";
    let plain = SECURED.kafka.bootstrap();
    let work = WorkDir::create("spoken-for");
    let java = Driver::start(Family::Java);
    java.create_topics(&plain, &topic(TOPIC));
    let archive = Archive::Directory(work.join("archive"));
    let mut settings = ProxySettings::new(work.path(), &SECURED.sasl_ssl(), &archive);
    listen_tls(&mut settings);
    upstream_sasl_ssl(&mut settings);
    let password = work.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let cluster = &mut settings.document["clusters"][0];
    cluster["upstream"]["sasl"] =
        json!({"mechanism": "SCRAM-SHA-512", "username": USER, "password_file": password});
    // Anybody would be the proxy: refused before it starts.
    let refused = Command::new(binary("teeline-proxy"))
        .arg("check")
        .arg("--config")
        .arg(settings.write())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("clients that it does not know"), "{said}");

    settings.document["clusters"][0]["listen"]["tls"]["client_ca_file"] = json!(certificate("authority.pem"));
    let mut proxy = settings.start();
    java.open_producer("through", &by_name(&settings), &with_client_certificate());
    let since = Instant::now();
    let mut sent = 0;
    // Brokers end sessions of this mechanism after two seconds; nobody loses a record by it, or sends one twice.
    while since.elapsed() < SESSION * 3 {
        java.send_all("through", TOPIC, &records(sent, sent + 5));
        sent += 5;
    }
    let read = ReadBack::load(&java.read_into(&plain, &[TOPIC], Isolation::Committed, true));
    assert_eq!(read.count(), sent);
    assert_eq!(proxy.metric("teeline_missed_batches_total"), 0.0);
    proxy.stop();
    assert!(
        !proxy.process.log().contains(PASSWORD),
        "the password was written"
    );
}
