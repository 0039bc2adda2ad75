//! Tests of whole files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::time::Duration;

mod examples;

use proptest::prelude::*;

use super::*;
use crate::NoEnv;
use crate::storage::Backend;

fn problems(text: &str) -> Vec<String> {
    Config::parse(text, &NoEnv)
        .unwrap_err()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Asserts that the text has exactly one problem, which contains all of `parts`.
fn one_problem(text: &str, parts: &[&str]) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

const CLUSTER: &str = "clusters: [{upstream: {bootstrap_servers: 'a:1'}";

#[test]
fn every_problem_of_a_file_is_reported_at_once_with_key_value_and_a_way_out() {
    let text = "
clusters:
  - name: main
    upstream: {boostrap_servers: 'a:1'}
    listen: {address: nowhere}
    capture: {ack: fast, hold_max_ms: soon, buffer: {max_bytes: 10Gi}}
storage: {backend: s3, prefix: a//b}
segmentr: {}
";
    let found = problems(text);
    let expected = [
        "clusters[0].upstream.bootstrap_servers: is missing; say where the cluster is",
        "clusters[0].upstream.boostrap_servers: unknown key; did you mean bootstrap_servers?",
        "clusters[0].listen.address = \"nowhere\": has no port; write host:port",
        "clusters[0].capture.ack = \"fast\": is not one of the choices; choose from durable, async",
        "clusters[0].capture.hold_max_ms = \"soon\": not a whole number with a unit; write a duration",
        "clusters[0].capture.buffer.max_bytes = \"10Gi\": unknown unit \"gi\"; write a size",
        "storage.prefix = \"a//b\": has an empty part",
        "storage.bucket: is missing; backend s3 needs it",
        "segmentr: unknown key; did you mean segmenter?",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for part in expected {
        assert!(
            found.iter().any(|problem| problem.starts_with(part)),
            "{part:?} is not in {found:#?}"
        );
    }
}

#[test]
fn a_level_is_chosen_by_content_unless_it_is_set() {
    let level = |text: &str| Config::parse(text, &NoEnv).unwrap().segmenter.level;
    assert_eq!(level("segmenter: {compression: zstd}"), None);
    assert_eq!(level("segmenter: {compression_level: 3}"), Some(3));
    for wrong in [0, 20] {
        one_problem(
            &format!("segmenter: {{compression_level: {wrong}}}"),
            &["segmenter.compression_level", "1 to 19"],
        );
    }
}

#[test]
fn what_is_planned_but_not_honoured_yet_is_refused_by_name() {
    one_problem(
        "segmenter: {compression: snappy}",
        &["segmenter.compression", "is not supported yet", "zstd, lz4, none"],
    );
    one_problem(
        "backup: {retention: 30d}",
        &["backup.retention", "is not supported yet"],
    );
    one_problem(
        "restore: {consumer_group_strategy: x}",
        &["restore.consumer_group_strategy", "is not supported yet"],
    );
}

#[test]
fn no_credential_appears_in_problems_or_debug_output() {
    let storage = "storage: {backend: s3, bucket: b, access_key: AKIA-hidden, secret_key: s3cr3t-hidden";
    let config = Config::parse(&format!("{storage}}}"), &NoEnv).unwrap();
    assert!(!format!("{config:?}").contains("hidden"));
    for wrong in [", secret_kye: hidden}", ", secret_key_file: /f}", ", path: x}"] {
        let found = problems(&format!("{storage}{wrong}")).join("\n");
        assert!(!found.contains("hidden"), "{found}");
    }
    one_problem(
        "storage: {backend: s3, bucket: b, secret_key: [hidden], access_key: a}",
        &["storage.secret_key: must be text"],
    );
    one_problem(
        "storage: {backend: s3, bucket: b, access_key: a}",
        &["storage.secret_key: is missing"],
    );
}

#[test]
fn a_missing_variable_is_named() {
    one_problem(
        "storage: {backend: s3, bucket: '${BUCKET}'}",
        &["storage.bucket = \"${BUCKET}\"", "BUCKET is not set"],
    );
    let config = Config::parse(
        "storage: {backend: s3, bucket: '${BUCKET:-b}', prefix: ''}",
        &NoEnv,
    )
    .unwrap();
    assert_eq!(config.storage.unwrap().bucket.as_deref(), Some("b"));
}

#[test]
fn sizes_and_times_are_taken_with_units_and_as_plain_numbers() {
    let read = |text: &str| {
        Config::parse(&format!("segmenter: {{{text}}}"), &NoEnv)
            .unwrap()
            .segmenter
    };
    assert_eq!(read("segment_max_bytes: 1048576").segment_max_bytes, 1 << 20);
    assert_eq!(read("segment_max_bytes: 2MiB").segment_max_bytes, 2 << 20);
    assert_eq!(read("segment_max: 2MiB").segment_max_bytes, 2 << 20);
    assert_eq!(
        read("segment_max_interval_ms: 5000").segment_max_interval_ms,
        5_000
    );
    assert_eq!(
        read("segment_max_interval: 1m30s").segment_max_interval_ms,
        90_000
    );
    one_problem(
        "segmenter: {segment_max_interval: 60}",
        &["segment_max_interval = 60", "a number without a unit"],
    );
    one_problem(
        "segmenter: {segment_max: 1MiB, segment_max_bytes: 1}",
        &["is given twice, also as segment_max_bytes"],
    );
    one_problem("segmenter: {segment_max_bytes: 1}", &["is too small", "bytes"]);
    let small = read("segment_max_bytes: 100KiB");
    assert!(small.block_bytes <= small.segment_max_bytes);
}

#[test]
fn clusters_must_not_share_what_belongs_to_one() {
    let two = |a: &str, b: &str| {
        let cluster = |name: &str, rest: &str| {
            format!("  - {{name: {name}, upstream: {{bootstrap_servers: 'a:1'}}, {rest}}}\n")
        };
        format!("clusters:\n{}{}", cluster("one", a), cluster("two", b))
    };
    let config = Config::parse(
        &two("listen: {address: 'h:19092'}", "listen: {address: 'h:20092'}"),
        &NoEnv,
    )
    .unwrap();
    assert_eq!(
        config.clusters[1].capture.buffer.dir,
        PathBuf::from("./teeline-buffer/two")
    );
    assert_eq!(config.clusters[1].backup_id, "two");
    one_problem(
        &two("listen: {address: 'h:19092'}", "listen: {address: 'h:19150'}"),
        &[
            "clusters[0].listen.addressing",
            "19150",
            "taken by clusters[1].listen.address",
        ],
    );
    let same = "backup_id: x, listen: {address: ";
    let found = problems(&two(&format!("{same}'h:19092'}}"), &format!("{same}'h:20092'}}"))).join("\n");
    assert!(
        found.contains("clusters[1].backup_id: is \"x\", as in clusters[0]; a backup holds one cluster only"),
        "{found}"
    );
    one_problem(
        &two("listen: {address: 'h:19092'}", ""),
        &["clusters[1].listen: is missing"],
    );
}

#[test]
fn an_address_that_no_client_can_reach_is_not_advertised() {
    one_problem(
        &format!("{CLUSTER}, listen: {{address: '0.0.0.0:19092'}}}}]"),
        &["advertised_host: is missing", "every interface"],
    );
    one_problem(
        &format!("{CLUSTER}, listen: {{address: '127.0.0.1:0'}}}}]"),
        &["port 0 would change"],
    );
    one_problem(
        &format!("{CLUSTER}, listen: {{advertised_host: '0.0.0.0'}}}}]"),
        &["advertised_host", "no client can connect"],
    );
    let near_the_end =
        Config::parse(&format!("{CLUSTER}, listen: {{address: 'h:65530'}}}}]"), &NoEnv).unwrap();
    let ports = near_the_end.clusters[0].listen.addressing.ports().unwrap();
    assert_eq!((ports.port_of(4), ports.port_of(5)), (Some(65535), None));
}

#[test]
fn each_program_says_what_it_misses_and_refuses_a_file_for_another() {
    let missing = |text: &str, program| {
        let errors = Config::parse_for(text, &NoEnv, program).unwrap_err();
        errors
            .problems
            .into_iter()
            .map(|problem| problem.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        missing("mode: restore", Program::Restorer),
        ["backup_id", "target", "storage"]
    );
    assert_eq!(missing("mode: restore", Program::Proxy), ["clusters", "mode"]);
    assert_eq!(missing("clusters: []", Program::Proxy), ["clusters"]);
    assert_eq!(missing(&format!("{CLUSTER}}}]"), Program::Proxy), ["storage"]);
    // What is there but wrong is not missing as well.
    assert_eq!(
        missing(
            "clusters: [{upstream: {}}]\nstorage: {backend: s4}",
            Program::Proxy
        ),
        ["clusters[0].upstream.bootstrap_servers", "storage.backend"]
    );
    let forwarding_only = format!("{CLUSTER}, capture: {{enabled: false}}}}]");
    assert!(Config::parse_for(&forwarding_only, &NoEnv, Program::Proxy).is_ok());
}

#[test]
fn restores_that_mean_nothing_are_refused() {
    one_problem(
        "restore: {time_window_start: -1h, time_window_end: -2h}",
        &["time_window_end", "no record is meant"],
    );
    one_problem(
        "restore: {time_window_start: '2026-11-21T08:00:00'}",
        &["has no UTC offset"],
    );
    one_problem(
        "restore: {topic_mapping: {a: c, b: c}}",
        &["a and b would both be restored into c"],
    );
    one_problem(
        "restore: {topic_mapping: {'a*': c}}",
        &["\"a*\" cannot be the name of a topic"],
    );
}

#[test]
fn files_that_are_no_configuration_say_so() {
    one_problem("", &["is empty"]);
    one_problem("[a]", &["is not a mapping"]);
    one_problem("a: b: c", &["is not valid YAML", "line 1"]);
    one_problem("mode: backup\nmode: backup", &["is not valid YAML", "mode"]);
    one_problem("backup_id: 12", &["backup_id", "must be text", "quotes"]);
    let missing = Config::load(Path::new("/nonexistent/teeline.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("/nonexistent/teeline.yaml: 1 problem\n  - cannot be read"),
        "{missing}"
    );
}

#[test]
fn wrong_flags_of_a_quick_start_are_all_reported() {
    let flags = ProxyFlags {
        upstream: "http://x".to_owned(),
        listen: Some("0.0.0.0:19092".to_owned()),
        archive: Some("s3:bucket".to_owned()),
        backup_id: Some("a/b".to_owned()),
        buffer: None,
        ack: Some("sync".to_owned()),
        admin: Some("x".to_owned()),
    };
    let keys = Config::for_proxy_flags(&flags)
        .unwrap_err()
        .problems
        .into_iter()
        .map(|problem| problem.key);
    assert_eq!(
        keys.collect::<Vec<_>>(),
        [
            "--upstream",
            "--admin",
            "--listen",
            "--archive",
            "--backup-id",
            "--ack"
        ]
    );
}

#[test]
fn archives_are_named_by_url() {
    let s3 = Storage::from_url("s3://b/x/y/?endpoint=http://127.0.0.1:9000&single_writer=true").unwrap();
    assert_eq!(
        (s3.backend, s3.bucket.as_deref(), s3.prefix.as_str()),
        (Backend::S3, Some("b"), "x/y")
    );
    assert!(s3.single_writer && s3.address() == "s3://b/x/y");
    assert_eq!(Storage::from_url("./a b").unwrap(), Storage::filesystem("./a b"));
    assert_eq!(Storage::from_url("file:///a").unwrap(), Storage::filesystem("/a"));
    assert_eq!(Storage::from_url("gs://b").unwrap().backend, Backend::Gcs);
    for wrong in [
        "",
        "s3:b",
        "s3:/b",
        "s3://",
        "ftp://x/y",
        "file://host/x",
        "s3://k:s@b/p",
        "s3://b?x=y",
        "s3://b?endpoint=http://elsewhere:9000",
    ] {
        assert!(Storage::from_url(wrong).is_err(), "{wrong}");
    }
    one_problem(
        "storage: {backend: filesystem, path: 's3://b/p'}",
        &["storage.path", "looks like a URL"],
    );
    one_problem(
        "storage: {backend: ceph, bucket: b, endpoint: 'http://far:80'}",
        &["plaintext HTTP", "allow_http"],
    );
}

#[test]
fn durations_reach_the_types() {
    let config = Config::parse(
        &format!("{CLUSTER}, listen: {{idle_timeout: 0s}}}}]\nprocess: {{drain_timeout_ms: 5}}"),
        &NoEnv,
    )
    .unwrap();
    assert_eq!(config.clusters[0].listen.idle_timeout, Duration::ZERO);
    assert_eq!(config.process.drain_timeout, Duration::from_millis(5));
}

#[test]
fn a_drain_is_longer_than_its_delay() {
    let with = |process: &str| Config::parse(&format!("{CLUSTER}}}]\nprocess: {{{process}}}"), &NoEnv);
    let config = with("drain_delay: 5s").unwrap();
    assert_eq!(config.process.drain_delay, Duration::from_secs(5));
    let error = with("drain_delay: 25s").unwrap_err().to_string();
    assert!(
        error.contains("process.drain_delay") && error.contains("drain_timeout"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = Config::parse(&text, &NoEnv);
    }

    #[test]
    fn no_value_anywhere_makes_it_panic(line in 0_usize..80, value in "[\\PC]{0,12}|-?[0-9]{1,25}|\\[\\]|\\{\\}|~") {
        let text = examples::example("proxy.yaml");
        let mut lines: Vec<String> = text.lines().filter(|line| line.contains(": ") && !line.trim_start().starts_with('#')).map(str::to_owned).collect();
        let index = line % lines.len();
        let key = lines[index].split(": ").next().unwrap().to_owned();
        lines[index] = format!("{key}: {value}");
        let _ = Config::parse(&lines.join("\n"), &examples::FullEnv);
    }
}
