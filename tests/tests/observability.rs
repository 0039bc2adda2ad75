//! What can be seen of a running proxy: metrics that add up, a trace that is switched on, an access log.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;

use serde_json::{Value, json};
use teeline_tests::admin_port;
use teeline_tests::components;
use teeline_tests::driver::{Driver, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::record::Record;
use teeline_tests::wait::{seconds, wait_for};
use teeline_tests::workdir::WorkDir;

struct Stage {
    kafka: Kafka,
    java: Driver,
    work: WorkDir,
}

static STAGE: LazyLock<Stage> = LazyLock::new(|| {
    let work = WorkDir::create("observability");
    let hosts = work.join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost {WORD}.kafka.test\n")).unwrap();
    Stage {
        kafka: Kafka::start_one(),
        java: Driver::start_java(&[&format!("-Djdk.net.hosts.file={}", hosts.display())]),
        work,
    }
});

const VALUE_BYTES: usize = 1000;
/// A peer says it wherever it may choose a word.
const WORD: &str = "peers-word";

fn proxy(name: &str) -> ProxySettings {
    let directory = STAGE.work.subdirectory(name);
    let archive = Archive::Directory(directory.join("archive"));
    let mut settings = ProxySettings::new(&directory, &STAGE.kafka.bootstrap(), &archive);
    settings.document["log"] = json!({"format": "json"});
    settings
}

fn topic(name: &str) {
    let topics = json!([{"name": name, "partitions": 1}]);
    STAGE.java.create_topics(&STAGE.kafka.bootstrap(), &topics);
}

/// A producer under its own client id that sends each record in a request of its own.
fn open(settings: &ProxySettings, client_id: &str) {
    let config = ProducerConfig::of(&[("client.id", client_id), ("batch.size", "1")]);
    STAGE
        .java
        .open_producer(client_id, &settings.bootstrap(), &config);
}

fn send(client_id: &str, topic: &str, count: usize) {
    let records: Vec<Record> = (0..count)
        .map(|index| Record::new(0, &format!("{client_id} {index}"), "x".repeat(VALUE_BYTES)))
        .collect();
    STAGE.java.send_all(client_id, topic, &records);
}

/// Lines of the log with this target.
fn lines(proxy: &Proxy, target: &str) -> Vec<Value> {
    let log = proxy.process.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == target).collect()
}

fn post(settings: &ProxySettings, path: &str) -> String {
    let answer = admin_port::post(&settings.admin(), path).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

/// A request header (version 1) with a client id and a body after it.
fn request(key: i16, version: i16, client_id: &[u8], body: &[u8]) -> Vec<u8> {
    let head = [
        &key.to_be_bytes()[..],
        &version.to_be_bytes(),
        &7_i32.to_be_bytes(),
        &i16::try_from(client_id.len()).unwrap().to_be_bytes(),
        client_id,
        body,
    ]
    .concat();
    [&u32::try_from(head.len()).unwrap().to_be_bytes()[..], &head].concat()
}

/// Sends bytes, and waits until the peer closes.
fn until_closed(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut rest = Vec::new();
    // A reset is an end, too.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn a_trace_tells_of_the_requests_that_it_was_asked_for_and_of_no_others() {
    let settings = proxy("trace");
    let mut proxy = settings.start();
    topic("traced");
    open(&settings, "watched");
    open(&settings, "other");
    send("watched", "traced", 5);
    send("other", "traced", 5);
    assert_eq!(lines(&proxy, "teeline_proxy::trace").len(), 0);
    // Switched on for connections that are open already.
    post(&settings, "/trace?client_id=watched&requests=20&seconds=600");
    send("other", "traced", 30);
    send("watched", "traced", 15);
    let traced = wait_for("fifteen requests in the log", seconds(10), || {
        let traced = lines(&proxy, "teeline_proxy::trace");
        let produced = traced.iter().filter(|line| line["api"] == "Produce");
        (produced.count() >= 15)
            .then_some(traced)
            .ok_or("not yet".to_owned())
    });
    let mut correlations = BTreeSet::new();
    for line in traced.iter().filter(|line| line["api"] == "Produce") {
        assert_eq!(line["client_id"], "watched", "{line}");
        assert_eq!(
            (&line["outcome"], &line["cluster"]),
            (&json!("answered"), &json!("main"))
        );
        assert!(
            line["request_bytes"].as_u64().unwrap() > VALUE_BYTES as u64,
            "{line}"
        );
        let time = |part: &str| line[part].as_u64().unwrap();
        let parts = ["forward_us", "broker_us", "read_us", "hold_us", "send_us"].map(time);
        let (sum, total) = (parts.iter().sum::<u64>(), time("total_us"));
        assert!(
            sum <= total && total - sum < 5_000,
            "the parts are the whole: {line}"
        );
        assert!(time("broker_us") > 0, "a broker takes time: {line}");
        correlations.insert(line["correlation"].as_i64().unwrap());
    }
    assert_eq!(correlations.len(), 15, "each request once: {traced:?}");
    // It ends by itself.
    send("watched", "traced", 15);
    let ended = || admin_port::get(&settings.admin(), "/trace").unwrap().body;
    assert_eq!(ended(), "no trace goes on\n");
    assert_eq!(lines(&proxy, "teeline_proxy::trace").len(), 20);
    one_connection_is_listed_and_traced(&settings, &proxy);
    STAGE.java.producer_op("close", "watched");
    STAGE.java.producer_op("close", "other");
    proxy.stop();
}

fn one_connection_is_listed_and_traced(settings: &ProxySettings, proxy: &Proxy) {
    let mut stream = TcpStream::connect(settings.bootstrap()).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    let mut versions = || {
        stream.write_all(&request(18, 0, b"by\nhand", &[])).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut rest).unwrap();
    };
    versions();
    let list = admin_port::get(&settings.admin(), "/connections?client_id=by%0Ahand").unwrap();
    assert_eq!(list.body.lines().count(), 1, "{}", list.body);
    assert!(list.body.contains(r#"client_id="by\nhand""#), "{}", list.body);
    assert!(list.body.contains(" requests=1 "), "{}", list.body);
    let id = list.body.split([' ', '=']).nth(1).unwrap();
    post(settings, &format!("/trace?connection={id}"));
    let before = lines(proxy, "teeline_proxy::trace").len();
    versions();
    let line = wait_for("the request in the log", seconds(10), || {
        let lines = lines(proxy, "teeline_proxy::trace");
        lines.get(before).cloned().ok_or("not yet".to_owned())
    });
    assert_eq!(
        (&line["api"], &line["client_id"]),
        (&json!("ApiVersions"), &json!(r"by\nhand"))
    );
    assert_eq!(line["connection"].to_string(), id);
    // What is never answered is told as well: brokers close on a key that they do not know.
    post(settings, "/trace?client_id=unanswered");
    until_closed(&settings.bootstrap(), &request(31_337, 0, b"unanswered", b"?"));
    wait_for("the lost request in the log", seconds(10), || {
        let lines = lines(proxy, "teeline_proxy::trace");
        let lost = |line: &&Value| line["client_id"] == "unanswered" && line["outcome"] == "lost";
        lines.iter().find(lost).map(drop).ok_or("not yet".to_owned())
    });
    let refused = admin_port::post(&settings.admin(), "/trace?conection=1").unwrap();
    assert_eq!(refused.status, 400, "{}", refused.body);
    let ended = admin_port::ask("DELETE", &settings.admin(), "/trace").unwrap();
    assert_eq!((ended.status, ended.body.as_str()), (200, "2 ended\n"));
}

#[test]
fn metrics_add_up_and_no_label_comes_from_a_peer() {
    let mut settings = proxy("metrics");
    settings.announce("connection closed:");
    settings.announce("connection refused:");
    listen_by_name(&mut settings);
    let mut proxy = settings.start();
    // Topic, client id and group.
    topic(WORD);
    open(&settings, WORD);
    send(WORD, WORD, 200);
    STAGE.java.producer_op("close", WORD);
    consume_as_a_group(&settings.bootstrap());
    let bytes = (200 * VALUE_BYTES) as f64;
    let produced = proxy.metric_with("teeline_requests_total", r#"api="Produce""#);
    assert!(produced >= 200.0, "{produced}");
    let sent = proxy.metric_with("teeline_request_bytes_total", r#"api="Produce""#);
    assert!((bytes..bytes * 1.3).contains(&sent), "{sent}");
    let got = proxy.metric_with("teeline_response_bytes_total", r#"api="Fetch""#);
    assert!((bytes..bytes * 1.5).contains(&got), "{got}");
    for direction in ["request", "response"] {
        let label = format!(r#"direction="{direction}""#);
        let count = proxy.metric_with("teeline_added_latency_seconds_count", &label);
        let sum = proxy.metric_with("teeline_added_latency_seconds_sum", &label);
        assert!(
            count > 0.0,
            "one wake-up in eight is timed, and there were more than 200"
        );
        assert!(sum / count < 5.0, "{direction}: {sum} s for {count}");
    }
    say_the_word(&settings, &proxy);
    hostile_bytes(&settings, &proxy);
    wait_for("every connection to be open or ended", seconds(10), || {
        let begun = proxy.metric("teeline_connections_total");
        let open = proxy.metric("teeline_connections_open");
        let ended = proxy.metric("teeline_connections_closed_total");
        (begun == open + ended)
            .then_some(())
            .ok_or(format!("{begun} = {open} + {ended}"))
    });
    proxy.stop();
}

/// One more cluster, whose clients say in their greeting whom they want.
fn listen_by_name(settings: &mut ProxySettings) {
    let certificate = |name: &str| components::source("certificates").join(name);
    let named = json!({
        "name": "named",
        "upstream": {"bootstrap_servers": STAGE.kafka.bootstrap()},
        "listen": {
            "address": by_name(settings, "127.0.0.1"),
            "tls": {"cert_file": certificate("proxy.pem"), "key_file": certificate("proxy.key")},
            "addressing": {"scheme": "sni", "bootstrap_host": "kafka.test", "node_host": "broker-{id}.kafka.test"},
        },
        "capture": {"enabled": false},
    });
    let clusters = settings.document["clusters"].as_array_mut().unwrap();
    clusters.push(named);
}

fn by_name(settings: &ProxySettings, host: &str) -> String {
    format!("{host}:{}", settings.port(15))
}

fn consume_as_a_group(bootstrap: &str) {
    let java = &STAGE.java;
    java.ask(&json!({"op": "group", "group": WORD, "bootstrap": bootstrap, "topic": WORD}));
    wait_for("the group to read everything", seconds(60), || {
        let read = java.ask(&json!({"op": "group_status", "group": WORD}));
        (read["records"] == 200).then_some(()).ok_or(read)
    });
    java.ask(&json!({"op": "group_stop", "group": WORD}));
}

/// Everywhere else: a transactional id, a server's name, a client's software, and more in [`hostile_bytes`].
fn say_the_word(settings: &ProxySettings, proxy: &Proxy) {
    let java = &STAGE.java;
    let config = ProducerConfig::of(&[("transactional.id", WORD)]);
    java.open_producer("transactional", &settings.bootstrap(), &config);
    java.producer_op("begin", "transactional");
    send("transactional", WORD, 1);
    java.producer_op("commit", "transactional");
    java.producer_op("close", "transactional");

    let config = ProducerConfig::of(&[("security.protocol", "SSL"), ("max.block.ms", "1500")]);
    let address = by_name(settings, &format!("{WORD}.kafka.test"));
    java.open_producer("named", &address, &config);
    let refused = java.send("named", WORD, &[Record::new(0, "key", "value")]);
    assert!(refused[0].is_err(), "{refused:?}");
    java.producer_op("close", "named");
    let unknown = || proxy.metric_with("teeline_tls_failures_total", r#"reason="unknown_name""#);
    wait_for("the unknown name to be counted", seconds(10), || {
        (unknown() >= 1.0).then_some(()).ok_or("not yet")
    });

    let length = u8::try_from(WORD.len() + 1).unwrap();
    let software = [&[0, length], WORD.as_bytes(), &[length], WORD.as_bytes(), &[0]].concat();
    let mut stream = TcpStream::connect(settings.bootstrap()).unwrap();
    stream
        .write_all(&request(18, 3, WORD.as_bytes(), &software))
        .unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
}

fn hostile_bytes(settings: &ProxySettings, proxy: &Proxy) {
    // A connection is counted when it has ended for the proxy, too: that may be after its client has seen the end.
    let counted = |name: &str, label: &str| {
        wait_for(&format!("{name} of {label}"), seconds(10), || {
            let count = proxy.metric_with(name, label);
            (count == 1.0).then_some(()).ok_or(count.to_string())
        });
    };
    let refused = "teeline_requests_refused_total";
    until_closed(&settings.bootstrap(), &request(0, 7, b"x", &[0xff; 40]));
    counted(refused, r#"api="Produce",reason="client_malformed""#);
    until_closed(
        &settings.bootstrap(),
        format!("GET /{WORD} HTTP/1.1\r\n\r\n").as_bytes(),
    );
    counted(refused, r#"api="Unknown""#);
    // Brokers close on a key that they do not know.
    until_closed(
        &settings.bootstrap(),
        &request(31_337, 0, WORD.as_bytes(), WORD.as_bytes()),
    );
    counted("teeline_requests_total", r#"api="Unknown""#);
    // The listener of this broker has no SASL, and says so.
    let mut stream = TcpStream::connect(settings.bootstrap()).unwrap();
    stream.write_all(&request(17, 1, b"x", b"\0\x05PLAIN")).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    let mut stream = TcpStream::connect(settings.bootstrap()).unwrap();
    let length = u16::try_from(WORD.len()).unwrap().to_be_bytes();
    let mechanism = [&length[..], WORD.as_bytes()].concat();
    stream.write_all(&request(17, 1, b"x", &mechanism)).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    for mechanism in ["PLAIN", "other"] {
        let label = format!(r#"mechanism="{mechanism}",reason="mechanism""#);
        counted("teeline_sasl_failures_total", &label);
    }
    let page = admin_port::get(&settings.admin(), "/metrics").unwrap().body;
    let own = |line: &&str| line.starts_with("teeline_") && line.contains(WORD);
    assert_eq!(page.lines().find(own), None, "a peer's words are no label");
    assert!(!page.contains("31337"));
}

#[test]
fn an_answer_that_cannot_be_rewritten_is_counted_and_not_passed_on() {
    let mut settings = proxy("closed");
    // The broker's id lies outside of what is presented.
    settings.document["clusters"][0]["listen"]["addressing"] =
        json!({"node_port_count": 1, "node_id_start": 900});
    for text in ["connection closed:", "broker"] {
        settings.announce(text);
    }
    let proxy = settings.launch();
    wait_for("the listener", seconds(30), || {
        TcpStream::connect(settings.bootstrap())
            .map(drop)
            .map_err(|error| error.to_string())
    });
    until_closed(
        &settings.bootstrap(),
        &request(3, 1, b"x", &(-1_i32).to_be_bytes()),
    );
    let label = r#"api="Metadata",reason="unmappable_broker""#;
    wait_for("the answer to be counted", seconds(10), || {
        let count = proxy.metric_with("teeline_responses_refused_total", label);
        (count == 1.0).then_some(()).ok_or(count.to_string())
    });
    assert_eq!(proxy.metric("teeline_requests_refused_total"), 0.0);
    drop(proxy);
}

#[test]
fn the_access_log_has_a_line_for_each_connection_and_on_demand_for_each_request() {
    let mut settings = proxy("access");
    settings.document["log"]["access"] = json!("connections");
    let mut proxy = settings.start();
    topic("logged");
    open(&settings, "logged");
    send("logged", "logged", 5);
    let access = |proxy: &Proxy, message: &str| -> Vec<Value> {
        let mut lines = lines(proxy, "teeline_proxy::access");
        lines.retain(|line| line["message"].as_str().unwrap().starts_with(message));
        lines
    };
    assert_eq!(access(&proxy, "request").len(), 0);
    post(&settings, "/access-log?level=requests");
    send("logged", "logged", 7);
    post(&settings, "/access-log?level=connections");
    send("logged", "logged", 5);
    STAGE.java.producer_op("close", "logged");
    let requests = access(&proxy, "request");
    let produced = requests.iter().filter(|line| line["api"] == "Produce").count();
    assert_eq!(produced, 7, "{requests:?}");
    let ended = wait_for("the producer's connections in the log", seconds(10), || {
        let ended = access(&proxy, "connection: ");
        let all: f64 = ended.iter().map(|line| line["requests"].as_f64().unwrap()).sum();
        let counted = proxy.metric("teeline_requests_total");
        let open = proxy.metric("teeline_connections_open");
        (open == 0.0 && all == counted)
            .then_some(ended)
            .ok_or(format!("{all} of {counted} requests, {open} open"))
    });
    let producer =
        |line: &&Value| line["client_id"] == "logged" && line["request_bytes"].as_u64() > Some(17_000);
    let line = ended.iter().find(producer).expect("the producer's own line");
    assert_eq!(
        (&line["ended"], &line["unanswered"]),
        (&json!("client"), &json!(0))
    );
    proxy.stop();
}
