//! TLS that ends at the proxy and begins again, certificates that are renewed, brokers told apart by name.

use std::fs;

use serde_json::{Value, json};
use teeline_config::{Security, Tls};
use teeline_tests::driver::{Driver, Family, Isolation};
use teeline_tests::programs::{Archive, Proxy, ProxySettings, Restorer};
use teeline_tests::read_back::ReadBack;
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;
use teeline_wire::client::{ClientError, Cluster};

use crate::secured::{PASSWORD, SECURED, certificate, impatient, mutual};
use crate::setting::{
    Replaceable, by_name, forwarding, listen_tls, over_sasl_ssl, over_tls, own_credentials, records,
    send_beyond_sessions, topic, upstream_sasl_ssl, with_client_certificate,
};

#[test]
fn clients_authenticate_to_brokers_through_tls_that_ends_at_the_proxy_and_are_captured() {
    const TOPIC: &str = "through-two-tls";
    let work = WorkDir::create("two-tls");
    let plain = SECURED.kafka.bootstrap();
    let java = Driver::start(Family::Java);
    java.create_topics(&plain, &topic(TOPIC));
    let archive = Archive::Directory(work.join("archive"));
    let mut settings = ProxySettings::new(work.path(), &SECURED.sasl_ssl(), &archive);
    listen_tls(&mut settings);
    upstream_sasl_ssl(&mut settings);
    own_credentials(&mut settings, work.path());
    let mut proxy = settings.start();
    for (index, mechanism) in ["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"].iter().enumerate() {
        java.open_producer(mechanism, &by_name(&settings), &over_sasl_ssl(mechanism));
        java.send_all(mechanism, TOPIC, &records(index * 100, index * 100 + 100));
    }
    // Sessions by SCRAM end after two seconds unless they are renewed on their connection (KIP-368).
    let sent = send_beyond_sessions(&java, &proxy, "SCRAM-SHA-512", TOPIC, 300);
    assert_eq!(proxy.metric("teeline_missed_batches_total"), 0.0);
    let read = ReadBack::load(&java.read_into(&plain, &[TOPIC], Isolation::Committed, true));
    assert_eq!(read.count(), sent);
    // What is large comes in many TLS records, in both directions.
    let large = vec![teeline_tests::record::Record::new(
        0,
        "large",
        "x".repeat(900_000),
    )];
    java.send_all("PLAIN", TOPIC, &large);
    let out = java.file("read-through");
    let config: serde_json::Map<String, Value> = over_sasl_ssl("PLAIN")
        .0
        .into_iter()
        .map(|(key, value)| (key, Value::from(value)))
        .collect();
    java.ask(
        &json!({"op": "read", "bootstrap": by_name(&settings), "topics": [TOPIC], "out": out,
        "full": true, "seconds": 60, "config": config}),
    );
    assert_eq!(ReadBack::load(&out).count(), sent + 1);
    proxy.stop();
    let described = Restorer::for_archive_of(&settings).run(&["describe", settings.backup_id(), "--json"]);
    assert!(
        described.stdout.contains(&format!("\"records\":{}", sent + 1))
            || described.stdout.contains(&format!("\"records\": {}", sent + 1)),
        "{}{}",
        described.stdout,
        described.stderr
    );
    assert!(
        !proxy.process.log().contains(PASSWORD),
        "the password was written"
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn trusting(authority: &str) -> Security {
    Security {
        tls: Some(Tls {
            ca_file: Some(certificate(authority)),
            ..Tls::default()
        }),
        sasl: None,
    }
}

#[test]
fn renewed_certificates_are_shown_to_the_next_client_and_broken_ones_to_nobody() {
    const TOPIC: &str = "renewed-at-the-door";
    let work = WorkDir::create("renewed");
    let java = Driver::start(Family::Java);
    java.create_topics(&SECURED.kafka.bootstrap(), &topic(TOPIC));
    let mut settings = forwarding(work.path(), &SECURED.kafka.bootstrap());
    listen_tls(&mut settings);
    let files = Replaceable::in_directory(work.path());
    settings.document["clusters"][0]["listen"]["tls"] =
        json!({"cert_file": files.cert, "key_file": files.key});
    settings.announce("certificates stay as they were");
    settings.announce("connection refused: TLS handshake");
    let mut proxy = settings.start();
    let address = by_name(&settings);
    let runtime = runtime();
    let connect =
        |authority: &str| runtime.block_on(Cluster::connect(impatient(&address, trusting(authority))));
    connect("authority.pem").unwrap();
    java.open_producer("old", &address, &over_tls("authority.pem", &[]));
    java.send_all("old", TOPIC, &records(0, 10));
    let connections = proxy.metric("teeline_connections_total");

    files.replace("proxy-by-stranger");
    wait_for("the new certificate to be shown", seconds(30), || {
        connect("stranger.pem").map(|_| ())
    });
    let error = connect("authority.pem").unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    java.send_all("old", TOPIC, &records(10, 20));
    assert!(proxy.metric("teeline_tls_failures_total") >= 1.0);

    fs::write(&files.cert, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    wait_until("the broken file to be noticed", seconds(30), || {
        proxy.process.log().contains("certificates stay as they were")
    });
    connect("stranger.pem").unwrap();
    // Two files are never replaced at one moment: a key that is not the certificate's is not taken either.
    fs::copy(certificate("proxy.pem"), &files.cert).unwrap();
    wait_until("the wrong pair to be noticed", seconds(30), || {
        proxy.process.log().contains("cannot be used together")
    });
    connect("stranger.pem").unwrap();
    files.replace("proxy");
    wait_for("the first certificate to be back", seconds(30), || {
        connect("authority.pem").map(|_| ())
    });
    java.send_all("old", TOPIC, &records(20, 30));
    let after = proxy.metric("teeline_connections_total");
    assert!(after > connections, "{after}");
    proxy.stop();
}

#[test]
fn a_renewed_certificate_is_shown_to_brokers_by_the_next_connection() {
    const TOPIC: &str = "renewed-to-brokers";
    let work = WorkDir::create("renewed-to-brokers");
    let java = Driver::start(Family::Java);
    java.create_topics(&SECURED.kafka.bootstrap(), &topic(TOPIC));
    let mut settings = forwarding(work.path(), &SECURED.mutual_tls());
    let files = Replaceable::in_directory(work.path());
    files.replace("client");
    let upstream = &mut settings.document["clusters"][0]["upstream"];
    upstream["security_protocol"] = json!("SSL");
    upstream["tls"] = json!({
        "ca_file": certificate("authority.pem"), "server_name": "kafka.test",
        "cert_file": files.cert, "key_file": files.key,
    });
    // Clients without certificates would be the proxy to the brokers.
    listen_tls(&mut settings);
    settings.document["clusters"][0]["listen"]["tls"]["client_ca_file"] = json!(certificate("authority.pem"));
    // Two files are never replaced at one moment.
    settings.announce("certificates stay as they were");
    let mut proxy = settings.start();
    let runtime = runtime();
    let certified = || Security {
        tls: Some(Tls {
            server_name: None,
            ..mutual()
        }),
        sasl: None,
    };
    let connect = || runtime.block_on(Cluster::connect(impatient(&by_name(&settings), certified())));
    let renewed = |proxy: &Proxy| proxy.metric_with("teeline_tls_reloads_total", "result=\"done\"");
    java.open_producer("old", &by_name(&settings), &with_client_certificate());
    java.send_all("old", TOPIC, &records(0, 10));
    connect().unwrap();

    let before = renewed(&proxy);
    files.replace("proxy-by-stranger");
    wait_until("the new certificate to be read", seconds(30), || {
        renewed(&proxy) > before
    });
    for _ in 0..3 {
        connect().expect_err("brokers do not know who has signed it");
    }
    java.send_all("old", TOPIC, &records(10, 20));
    let before = renewed(&proxy);
    files.replace("client");
    wait_until("the first certificate to be read", seconds(30), || {
        renewed(&proxy) > before
    });
    connect().unwrap();
    java.send_all("old", TOPIC, &records(20, 30));
    proxy.stop();
}

#[test]
fn two_clusters_in_one_process_one_by_name_and_one_by_port_with_client_certificates() {
    const TOPIC: &str = "two-clusters";
    let work = WorkDir::create("names");
    let plain = SECURED.kafka.bootstrap();
    let hosts = work.join("hosts");
    fs::write(
        &hosts,
        "127.0.0.1 kafka.test broker-1.kafka.test nobody.kafka.test localhost\n",
    )
    .unwrap();
    let java = Driver::start_java(&[&format!("-Djdk.net.hosts.file={}", hosts.display())]);
    java.create_topics(&plain, &topic(TOPIC));
    // The first cluster by ports, for clients that have certificates; the brokers see the proxy's.
    let mut settings = forwarding(work.path(), &SECURED.mutual_tls());
    listen_tls(&mut settings);
    settings.announce("connection refused: ");
    let first = &mut settings.document["clusters"][0];
    first["listen"]["tls"]["client_ca_file"] = json!(certificate("authority.pem"));
    first["upstream"]["security_protocol"] = json!("SSL");
    first["upstream"]["tls"] = json!({
        "ca_file": certificate("authority.pem"), "server_name": "kafka.test",
        "cert_file": certificate("client.pem"), "key_file": certificate("client.key"),
    });
    // The second by names.
    let port = settings.port(15);
    let second = json!({
        "name": "named",
        "upstream": {
            "bootstrap_servers": SECURED.sasl_ssl(), "security_protocol": "SASL_SSL",
            "tls": {"ca_file": certificate("authority.pem")},
            "capture_credentials": {"bootstrap_servers": plain},
        },
        "listen": {
            "address": format!("127.0.0.1:{port}"),
            "tls": {"cert_file": certificate("proxy.pem"), "key_file": certificate("proxy.key")},
            "addressing": {"scheme": "sni", "bootstrap_host": "kafka.test", "node_host": "broker-{id}.kafka.test"},
        },
        "capture": {"enabled": false},
    });
    settings.document["clusters"].as_array_mut().unwrap().push(second);
    let mut proxy = settings.start();

    let with_certificate = with_client_certificate();
    java.open_producer("certified", &by_name(&settings), &with_certificate);
    java.send_all("certified", TOPIC, &records(0, 50));
    let anybody = over_tls("authority.pem", &[("max.block.ms", "4000")]);
    java.open_producer("anybody", &by_name(&settings), &anybody);
    let refused = java.send("anybody", TOPIC, &records(0, 1));
    assert!(refused[0].is_err(), "{refused:?}");
    assert!(
        proxy.metric_with("teeline_tls_failures_total", "reason=\"no_certificate\"") >= 1.0,
        "the reason is counted"
    );

    let address = format!("kafka.test:{port}");
    java.open_producer("named", &address, &over_sasl_ssl("SCRAM-SHA-512"));
    java.send_all("named", TOPIC, &records(50, 100));
    let elsewhere = over_sasl_ssl("PLAIN");
    let mut impatient = elsewhere;
    impatient.0.push(("max.block.ms".to_owned(), "3000".to_owned()));
    java.open_producer("nobody", &format!("nobody.kafka.test:{port}"), &impatient);
    let refused = java.send("nobody", TOPIC, &records(0, 1));
    assert!(refused[0].is_err(), "{refused:?}");
    assert!(proxy.metric_with("teeline_tls_failures_total", "reason=\"unknown_name\"") >= 1.0);
    let read = ReadBack::load(&java.read_into(&plain, &[TOPIC], Isolation::Committed, true));
    assert_eq!(read.count(), 100);
    proxy.stop();
}

#[test]
fn four_hundred_greetings_at_once_all_succeed() {
    let work = WorkDir::create("storm");
    let mut settings = forwarding(work.path(), &SECURED.kafka.bootstrap());
    listen_tls(&mut settings);
    let mut proxy = settings.start();
    teeline_tests::raw::raise_open_files_limit();
    let address = by_name(&settings);
    let connecting = (0..400).map(|_| Cluster::connect(impatient(&address, trusting("authority.pem"))));
    let connected = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(futures_util::future::join_all(connecting));
    let failed: Vec<_> = connected
        .iter()
        .filter_map(|connected| connected.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "{} of 400: {failed:?}", failed.len());
    drop(connected);
    proxy.stop();
}
