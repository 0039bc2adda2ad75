//! Mechanisms by which clients authenticate to the brokers. Of the proxy they want no more than to pass, and that who the
//! broker has let in is captured.

use serde_json::json;
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kdc::{Maker, REALM};
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::read_back::ReadBack;
use teeline_tests::workdir::WorkDir;

use crate::realm::{CLIENT, Realm, jvm_option};
use crate::secured::SECURED;
use crate::setting::{by_name, jaas, records, send_beyond_sessions, topic};

/// Before a listener for SASL without TLS; what the proxy asks itself goes to `plain`.
fn before(work: &WorkDir, listener: &str, plain: &str) -> (ProxySettings, Proxy) {
    let archive = Archive::Directory(work.join("archive"));
    let mut settings = ProxySettings::new(work.path(), listener, &archive);
    let cluster = &mut settings.document["clusters"][0];
    cluster["upstream"]["security_protocol"] = json!("SASL_PLAINTEXT");
    cluster["upstream"]["capture_credentials"] = json!({"bootstrap_servers": plain});
    // Tickets are for a host by its name.
    cluster["listen"]["advertised_host"] = json!("localhost");
    let proxy = settings.start();
    (settings, proxy)
}

#[test]
fn passwords_pass_by_every_mechanism_that_has_them() {
    const TOPIC: &str = "by-password";
    let work = WorkDir::create("by-password");
    let plain = SECURED.kafka.bootstrap();
    let java = Driver::start(Family::Java);
    java.create_topics(&plain, &topic(TOPIC));
    let (settings, mut proxy) = before(&work, &SECURED.sasl_plaintext(), &plain);
    let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    for (index, mechanism) in mechanisms.iter().enumerate() {
        let login = jaas(mechanism);
        let config = ProducerConfig::of(&[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", mechanism),
            ("sasl.jaas.config", &login),
        ]);
        java.open_producer(mechanism, &by_name(&settings), &config);
        java.send_all(mechanism, TOPIC, &records(index * 10, index * 10 + 10));
    }
    assert_captured(&mut proxy, mechanisms.len() * 10);
    let read = ReadBack::load(&java.read_into(&plain, &[TOPIC], Isolation::Committed, true));
    assert_eq!(read.count(), mechanisms.len() * 10);
}

/// Every batch on its way, none by Fetch. The proxy has ended then.
fn assert_captured(proxy: &mut Proxy, records: usize) {
    assert_eq!(proxy.metric("teeline_missed_batches_total"), 0.0);
    let captured = proxy.metric("teeline_captured_batches_total");
    assert!(
        captured > 0.0 && captured <= records as f64,
        "{captured} batches of {records} records"
    );
    proxy.stop();
}

#[test]
fn tickets_pass_and_are_renewed_on_their_connection() {
    const TOPIC: &str = "by-ticket";
    let work = WorkDir::create("by-ticket");
    let realm = Realm::start(Maker::Kerby, &[]);
    let plain = realm.kafka.bootstrap();
    let java = Driver::start_java(&[&jvm_option(&realm.kdc)]);
    java.create_topics(&plain, &topic(TOPIC));
    let (settings, mut proxy) = before(&work, &realm.address(), &plain);
    let login = format!(
        "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true \
         keyTab=\"{}\" principal=\"{CLIENT}@{REALM}\";",
        realm.kdc.keytab(CLIENT).display()
    );
    let config = ProducerConfig::of(&[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "GSSAPI"),
        ("sasl.kerberos.service.name", "kafka"),
        ("sasl.jaas.config", &login),
    ]);
    java.open_producer("through", &by_name(&settings), &config);
    java.send_all("through", TOPIC, &records(0, 10));
    let sent = send_beyond_sessions(&java, &proxy, "through", TOPIC, 10);
    assert_captured(&mut proxy, sent);
    let read = ReadBack::load(&java.read_into(&plain, &[TOPIC], Isolation::Committed, true));
    assert_eq!(read.count(), sent);
}
