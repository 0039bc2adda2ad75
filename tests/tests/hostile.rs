//! Bad input and bad neighbours: one connection may suffer, never the others, and never memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::json;
use teeline_tests::admin_port;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::notes::note;
use teeline_tests::programs::{Archive, ProxySettings};
use teeline_tests::raw::{frame, request};
use teeline_tests::read_back::assert_acknowledged;
use teeline_tests::record::{Record, read_load_log};
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_for, wait_until};
use teeline_tests::workdir::WorkDir;

#[path = "hostile/refused.rs"]
mod refused;
#[path = "hostile/steady.rs"]
mod steady;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);
/// A proxy that held what peers announce, not what they send, would need gigabytes.
const MEMORY_LIMIT_KIB: u64 = 256 * 1024;

/// Sends bytes and returns when the peer has closed the connection, with what it sent before.
fn until_closed(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    // The peer may close while we still write.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("the connection was not closed: {error}"),
    }
}

#[test]
fn malformed_and_oversized_frames_close_only_their_own_connection() {
    let mut settings = STAGE.proxy("hostile");
    settings.announce("connection closed:");
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();
    STAGE.create_topic("hostile", 2);
    let load = json!({"partitions": 2, "rate": 500, "value_bytes": 200});
    let log = STAGE.java.start_load(
        "hostile",
        &bootstrap,
        "hostile",
        &ProducerConfig::of(&[("linger.ms", "5")]),
        load,
    );
    let acknowledged = || STAGE.java.acknowledged("hostile");
    wait_until("the load to begin", seconds(60), || acknowledged() > 100);

    let huge_array = [
        &0_i16.to_be_bytes()[..],
        &1_i16.to_be_bytes(),
        &30_000_i32.to_be_bytes(),
        &i32::MAX.to_be_bytes(),
    ]
    .concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a length of 2 GiB",
            [&i32::MAX.to_be_bytes()[..], &[0; 64]].concat(),
        ),
        (
            "a negative length",
            [&(-5_i32).to_be_bytes()[..], &[0; 64]].concat(),
        ),
        ("HTTP", b"GET /metrics HTTP/1.1\r\nHost: kafka\r\n\r\n".to_vec()),
        (
            "a TLS hello",
            [
                &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..],
                &[7; 500],
            ]
            .concat(),
        ),
        ("a frame of one byte", frame(&[0])),
        (
            "a Produce request whose array would take gigabytes",
            request(0, 7, &huge_array),
        ),
        ("a Produce request cut short", request(0, 9, &[0, 0, 1])),
        ("an unknown key", request(9_999, 0, &[0; 16])),
    ];
    for (what, bytes) in cases {
        let before = acknowledged();
        until_closed(&bootstrap, &bytes);
        proxy.process.assert_running();
        wait_until(&format!("the load to get on after {what}"), seconds(30), || {
            acknowledged() > before + 100
        });
    }
    let seed: u64 = rand::random();
    note(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let mut garbage = vec![0; rng.random_range(1..2_000)];
        rng.fill_bytes(&mut garbage);
        let mut stream = TcpStream::connect(&bootstrap).unwrap();
        let _ = stream.write_all(&garbage);
    }
    let counts = STAGE.java.stop_load("hostile", 60);
    assert_eq!(counts["unknown"], 0, "the well-behaved client noticed: {counts}");
    let peak = proxy.process.memory_kib("VmHWM");
    assert!(peak < MEMORY_LIMIT_KIB, "{peak} KiB of memory");
    proxy.stop();
    assert_acknowledged(
        &STAGE.read_source(&["hostile"], Isolation::Committed),
        "hostile",
        &read_load_log(&log),
    );
    STAGE.assert_round_trip(&settings, &["hostile"]);
}

#[test]
fn memory_stays_bounded_when_many_clients_announce_much_and_send_slowly() {
    let mut settings = STAGE.proxy("drip");
    settings.announce("connection closed:");
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();
    // Ninety megabytes each, announced by a hundred clients; what comes is half a megabyte, then silence.
    let mut head = request(0, 9, &[0; 64]);
    head[..4].copy_from_slice(&(90_i32 << 20).to_be_bytes());
    let mut clients: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&bootstrap).unwrap())
        .collect();
    for client in &mut clients {
        client.set_write_timeout(Some(seconds(1))).unwrap();
        // A proxy that stops reading makes this fail: just what it should do.
        let _ = client.write_all(&head);
        let _ = client.write_all(&vec![0; 512 * 1024]);
    }
    let peak = proxy.process.memory_kib("VmHWM");
    assert!(peak < MEMORY_LIMIT_KIB, "{peak} KiB of memory");
    // Others are served all the while.
    STAGE.create_topic("drip", 1);
    Told::default().send_with(&STAGE.java, &bootstrap, &[], "drip", &[Record::new(0, "k", "v")]);
    drop(clients);
    proxy.stop();
    STAGE.assert_round_trip(&settings, &["drip"]);
}

#[test]
fn an_unreachable_cluster_refuses_clients_cleanly_until_it_is_there() {
    let mut kafka = Kafka::prepare(1, "");
    let work = WorkDir::create("unreachable");
    let archive = Archive::Directory(work.join("archive"));
    let settings = ProxySettings::new(work.path(), &kafka.bootstrap(), &archive);
    let mut proxy = settings.launch();
    let not_ready = wait_for("readiness to be answered", seconds(30), || {
        admin_port::get(&settings.admin(), "/readyz")
    });
    assert_eq!(not_ready.status, 503, "{not_ready:?}");
    assert!(
        not_ready.body.contains("upstream"),
        "the reason is said: {not_ready:?}"
    );
    assert_eq!(admin_port::get(&settings.admin(), "/livez").unwrap().status, 200);
    // Its ports are bound from the start; who comes is refused and never left waiting.
    let mut early = wait_for("the bootstrap port to be bound", seconds(20), || {
        TcpStream::connect(settings.bootstrap())
    });
    early.set_read_timeout(Some(seconds(20))).unwrap();
    // Nothing was asked yet, and still it is no orderly end: there is no broker, and clients shall try another.
    let end = early.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    proxy.process.assert_running();

    kafka.start_all();
    proxy.wait_ready(seconds(60));
    STAGE
        .java
        .create_topics(&kafka.bootstrap(), &json!([{"name": "late"}]));
    Told::default().send_with(
        &STAGE.java,
        &settings.bootstrap(),
        &[],
        "late",
        &[Record::new(0, "k", "v")],
    );
    proxy.stop();
    STAGE.restore(&settings, &["late"], &[]);
    assert_eq!(STAGE.read_target(&["late"]).count(), 1);
}
