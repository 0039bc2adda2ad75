#![allow(clippy::unwrap_used)]

use super::*;
use crate::environment::NoEnv;

const FILE: &str = r#"
backup_id: prod
clusters:
  - name: orders
    upstream:
      bootstrap_servers: kafka-1:9092
      security_protocol: SASL_PLAINTEXT
      capture_credentials: {security_protocol: SASL_PLAINTEXT, sasl: {mechanism: PLAIN, username: teeline, password: hunter2}}
    listen: {address: "127.0.0.1:19092", max_connections: 100}
    capture: {include: ["orders-*"], buffer: {dir: /tmp/one}}
storage: {backend: filesystem, path: /tmp/archive}
"#;

fn read(text: &str) -> Config {
    Config::parse(text, &NoEnv).unwrap()
}

fn after(replacements: &[(&str, &str)]) -> Vec<Change> {
    let mut text = FILE.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    changes(&read(FILE), &read(&text))
}

fn told(changes: &[Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(after(&[]), []);
}

#[test]
fn each_key_is_named_with_both_values_and_its_effect() {
    let found = after(&[
        ("127.0.0.1:19092", "127.0.0.1:29092"),
        ("max_connections: 100", "max_connections: 5"),
        ("[\"orders-*\"]", "[\"orders-*\", payments]"),
        ("kafka-1:9092", "kafka-2:9092"),
    ]);
    assert_eq!(
        told(&found),
        [
            "clusters[orders].upstream.bootstrap_servers: [kafka-1:9092] -> [kafka-2:9092] (for new connections)",
            "clusters[orders].upstream.capture_credentials.bootstrap_servers: [kafka-1:9092] -> [kafka-2:9092] (for new connections)",
            "clusters[orders].listen.address: 127.0.0.1:19092 -> 127.0.0.1:29092 (at once)",
            "clusters[orders].listen.addressing: changed (at once)",
            "clusters[orders].listen.max_connections: 100 -> 5 (at once)",
            "clusters[orders].capture.include: [orders-*] -> [orders-*, payments] (at once)",
        ]
    );
}

#[test]
fn a_secret_that_changes_is_named_and_not_shown() {
    let found = after(&[("hunter2", "correct horse")]);
    assert_eq!(
        told(&found),
        ["clusters[orders].upstream.capture_credentials.sasl: changed (for new connections)"]
    );
    assert!(!format!("{found:?}").contains("horse") && !format!("{found:?}").contains("hunter2"));
}

#[test]
fn what_only_a_restart_can_change_says_why() {
    let found = after(&[("/tmp/one", "/tmp/two"), ("/tmp/archive", "/srv/archive")]);
    let told = told(&found);
    assert!(
        told.first().unwrap().starts_with(
            "clusters[orders].capture.buffer.dir: /tmp/one -> /tmp/two (needs a restart: the write-ahead buffer"
        ),
        "{told:?}"
    );
    assert!(
        told.last()
            .unwrap()
            .starts_with("storage.path: /tmp/archive -> /srv/archive (needs a restart"),
        "{told:?}"
    );
}

#[test]
fn clusters_come_and_go_by_their_names_whatever_their_order() {
    let two = |names: [&str; 2]| {
        let clusters = names.map(|name| {
            let port = 19092 + u32::from(name.as_bytes().first().copied().unwrap()) * 200;
            format!("  - {{name: {name}, upstream: {{bootstrap_servers: \"k:1\"}}, listen: {{address: \"127.0.0.1:{port}\"}}}}\n")
        });
        read(&format!(
            "clusters:\n{}{}storage: {{backend: filesystem, path: /tmp/a}}\n",
            clusters[0], clusters[1]
        ))
    };
    assert_eq!(changes(&two(["a", "b"]), &two(["b", "a"])), []);
    let found = changes(&two(["a", "b"]), &two(["b", "c"]));
    assert_eq!(
        told(&found),
        [
            "clusters[a]: there -> not there",
            "clusters[c]: not there -> there"
        ]
    );
    assert!(found.iter().all(|change| change.effect == Effect::Cluster));
}
