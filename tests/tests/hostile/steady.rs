//! Many, slow, silent and stopped: each may suffer for itself, and the load of an innocent neighbour never does. Every record of
//! it is counted.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use teeline_tests::driver::{Isolation, ProducerConfig};
use teeline_tests::notes::note;
use teeline_tests::programs::Proxy;
use teeline_tests::raw::{
    RawClient, fetch, produce, produce_batch, produce_unanswered, raise_open_files_limit, request,
};
use teeline_tests::read_back::assert_acknowledged;
use teeline_tests::record::read_load_log;
use teeline_tests::wait::{seconds, wait_until};
use teeline_wire::produce::parse_response;
use teeline_wire::records::BatchBuilder;

use super::STAGE;

/// What is promised in docs/OPERATIONS.md for a connection that rests.
const IDLE_CONNECTION_BYTES: u64 = 15 * 1024;
const IDLE_CONNECTIONS: usize = 5_000;
const LARGE_ANSWER_BYTES: i32 = 50_000_000;

/// A load by a proper client that must not notice anything.
struct Neighbour {
    name: &'static str,
    log: PathBuf,
}

impl Neighbour {
    fn start(name: &'static str, bootstrap: &str) -> Self {
        STAGE.create_topic(name, 2);
        let load = json!({"partitions": 2, "rate": 500, "value_bytes": 200});
        let config = ProducerConfig::of(&[("linger.ms", "5")]);
        let log = STAGE.java.start_load(name, bootstrap, name, &config, load);
        let neighbour = Self { name, log };
        neighbour.assert_moving();
        neighbour
    }

    fn acknowledged(&self) -> u64 {
        STAGE.java.acknowledged(self.name)
    }

    fn assert_moving(&self) {
        let before = self.acknowledged();
        wait_until("the neighbour's load to get on", seconds(30), || {
            self.acknowledged() > before + 200
        });
    }

    /// Every record that it was told of is in the source, and it was never in doubt about one.
    fn stop(self) {
        let counts = STAGE.java.stop_load(self.name, 60);
        assert_eq!(counts["unknown"], 0, "the neighbour noticed: {counts}");
        let read = STAGE.read_source(&[self.name], Isolation::Committed);
        assert_acknowledged(&read, self.name, &read_load_log(&self.log));
    }
}

/// A topic of which one answer can hold fifty megabytes.
fn large_topic() -> &'static str {
    const TOPIC: &str = "large-answers";
    STAGE.create_topic(TOPIC, 1);
    let load = json!({"partitions": 1, "value_bytes": 900_000});
    let config = ProducerConfig::of(&[("batch.size", "1000000"), ("buffer.memory", "67108864")]);
    STAGE
        .java
        .start_load(TOPIC, &STAGE.source.bootstrap(), TOPIC, &config, load);
    let bytes = || STAGE.java.acknowledged(TOPIC) * 900_000;
    wait_until("a large topic", seconds(60), || {
        bytes() > LARGE_ANSWER_BYTES as u64 + 5_000_000
    });
    STAGE.java.stop_load(TOPIC, 60);
    TOPIC
}

fn all_at_once<T: Send>(count: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (barrier, job) = (&Barrier::new(count), &job);
    thread::scope(|scope| {
        let spawned: Vec<_> = (0..count)
            .map(|index| {
                scope.spawn(move || {
                    barrier.wait();
                    job(index)
                })
            })
            .collect();
        spawned.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn connected(address: &str, count: usize) -> Vec<RawClient> {
    let threads = 8;
    all_at_once(threads, |index| {
        let share = count / threads + usize::from(index < count % threads);
        (0..share)
            .map(|_| {
                let mut client = RawClient::connect(address).unwrap();
                client.ask().unwrap();
                client
            })
            .collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect()
}

/// As many producers at once, each waiting for every answer, one in ten of them with large batches; the source has every
/// batch.
fn produce_from_many(address: &str, producers: usize, batches: usize) {
    const TOPICS: [&str; 2] = ["busy", "busy-large"];
    const LARGE: usize = 256 * 1024;
    let prepared = [4096, LARGE].map(|bytes| {
        BatchBuilder::single(1_700_000_000_000, None, Some(&vec![b'x'; bytes])).expect("a batch")
    });
    let requests: Vec<Vec<u8>> = TOPICS
        .iter()
        .zip(&prepared)
        .map(|(topic, batch)| {
            STAGE.create_topic(topic, 1);
            produce_batch(topic, batch.bytes())
        })
        .collect();
    let sent = all_at_once(producers, |index| {
        let mut client = RawClient::connect(address).unwrap();
        let large = index % 10 == 0;
        let batches = if large { batches / 5 } else { batches };
        for _ in 0..batches {
            client.send(&requests[usize::from(large)]).unwrap();
            let answer = client.receive().unwrap();
            let outcomes = parse_response(3, &answer[4..]).unwrap();
            assert_eq!(outcomes[0].error_code, 0);
        }
        if large { [0, batches] } else { [batches, 0] }
    });
    let read = STAGE.read_source(&TOPICS, Isolation::Committed);
    for (index, topic) in TOPICS.into_iter().enumerate() {
        let sent: usize = sent.iter().map(|each| each[index]).sum();
        assert_eq!(read.partition(topic, 0).len(), sent, "{topic}");
    }
}

fn resident(proxy: &Proxy) -> u64 {
    proxy.process.memory_kib("VmRSS") * 1024
}

#[test]
fn thousands_of_idle_connections_hundreds_of_producers_and_of_slow_readers_hold_within_the_stated_memory() {
    let count = IDLE_CONNECTIONS;
    // A client's socket here, two of the proxy, one of the broker, in a process each: two are what one of them needs most.
    let (limit, needed) = (raise_open_files_limit(), 2 * count as u64 + 2_000);
    assert!(
        limit >= needed,
        "{count} connections need {needed} open files, and {limit} are allowed (see `ulimit -Hn`)"
    );
    let mut settings = STAGE.proxy("many");
    settings.document["process"] = json!({"in_flight_bytes": 64 << 20});
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();
    let large = large_topic();
    let neighbour = Neighbour::start("many", &bootstrap);

    let (before, began) = (resident(&proxy), Instant::now());
    let idle = connected(&bootstrap, count);
    let took = began.elapsed().as_secs_f64();
    neighbour.assert_moving();
    let after = resident(&proxy);
    let each = after.saturating_sub(before) / count as u64;
    note(&format!(
        "{count} idle connections in {took:.1} s: {each} bytes each, {} KiB in all",
        after / 1024
    ));
    assert!(
        each < IDLE_CONNECTION_BYTES,
        "{each} bytes for each idle connection"
    );

    let began = Instant::now();
    produce_from_many(&bootstrap, 200, 50);
    let took = began.elapsed().as_secs_f64();
    let busy = (proxy.process.memory_kib("VmHWM") * 1024).saturating_sub(after);
    note(&format!(
        "200 busy producers beside them, 9,000 batches of 4 KiB and 200 of 256 KiB in {took:.1} s: {} KiB more at the peak",
        busy / 1024
    ));
    assert!(busy < 64 << 20, "{busy} bytes more");

    // Two hundred ask for fifty megabytes, look at the beginning, and pause.
    let mut readers = connected(&bootstrap, 200);
    for reader in &mut readers {
        reader.send(&fetch(large, LARGE_ANSWER_BYTES)).unwrap();
    }
    let mut lengths = Vec::new();
    for reader in &mut readers {
        lengths.push(reader.length().unwrap());
        reader.pass_over(10_000).unwrap();
    }
    assert!(lengths.iter().all(|length| *length > 40_000_000), "{lengths:?}");
    neighbour.assert_moving();
    // The kernel has little for those that do not read, or it would soon have nothing for anybody.
    let passed = proxy.metric_with("teeline_response_bytes_total", "api=\"Fetch\"");
    let each = passed / readers.len() as f64;
    note(&format!(
        "200 readers that pause took {:.0} KiB each",
        each / 1024.0
    ));
    assert!(each < f64::from(1 << 20), "{each} bytes each");
    // Some go on to the end and get all of it, past those that do not.
    let began = Instant::now();
    for (reader, length) in readers.iter_mut().zip(&lengths).take(20) {
        reader.pass_over(length - 10_000).unwrap();
        reader.ask().unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    let peak = proxy.process.memory_kib("VmHWM") * 1024;
    let more = peak.saturating_sub(after);
    note(&format!(
        "200 readers of {LARGE_ANSWER_BYTES} bytes: {} KiB more at the peak; 20 of them read in {took:.1} s",
        more / 1024
    ));
    // Half of what is lent, small buffers for the others, and what the allocator makes of it.
    assert!(more < 100 << 20, "{more} bytes more");
    neighbour.assert_moving();
    drop((idle, readers));
    wait_until("all of them to be gone", seconds(30), || {
        proxy.metric("teeline_connections_open") < 20.0
    });
    wait_until("what was lent to be given back", seconds(30), || {
        proxy.metric("teeline_answer_bytes") < f64::from(1 << 20)
    });
    neighbour.stop();
    proxy.stop();
}

#[test]
fn four_hundred_connections_at_once_all_succeed() {
    raise_open_files_limit();
    let settings = STAGE.proxy("storm");
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();
    let began = Instant::now();
    let answered = all_at_once(400, |_| {
        RawClient::connect(&bootstrap).and_then(|mut client| client.ask().map(|_| client))
    });
    let failed: Vec<_> = answered
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    assert!(failed.is_empty(), "{} of 400: {failed:?}", failed.len());
    note(&format!("400 at once in {:.2} s", began.elapsed().as_secs_f64()));
    drop(answered);
    proxy.stop();
}

#[test]
fn what_is_stuck_before_a_stopped_broker_leaves_the_others_alone() {
    // A broker that was stopped: its kernel takes connections, and nobody reads from them.
    let stopped = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = STAGE.proxy("stuck");
    // One thread: whoever waits must let all others run.
    settings.document["process"] = json!({"in_flight_bytes": 32 << 20, "worker_threads": 1});
    let address = format!("127.0.0.1:{}", settings.port(15));
    let clusters = settings.document["clusters"].as_array_mut().unwrap();
    clusters.push(json!({
        "name": "stopped",
        "backup_id": "stopped",
        "upstream": {"bootstrap_servers": stopped.local_addr().unwrap().to_string()},
        "listen": {"address": address, "addressing": {"node_port_count": 1}},
        "capture": {"enabled": false},
    }));
    let mut proxy = settings.launch();
    wait_until("the listeners", seconds(30), || {
        RawClient::connect(&address).is_ok()
    });
    // Where nothing is captured, what has an answer passes while it arrives, and what has none is read whole.
    let frames = [produce_unanswered("any", 1 << 20), produce("any", 1 << 20)];
    let mut stuck: Vec<RawClient> = (0..60).map(|_| RawClient::connect(&address).unwrap()).collect();
    thread::scope(|scope| {
        for (client, frame) in stuck.iter_mut().zip(frames.iter().cycle()) {
            scope.spawn(move || {
                client.0.set_write_timeout(Some(seconds(1))).unwrap();
                // At last nobody takes any more, and that is as it should be.
                while client.send(frame).is_ok() {}
            });
        }
    });
    wait_until("much to be stuck", seconds(30), || {
        proxy.metric("teeline_in_flight_bytes") > f64::from(16 << 20)
    });
    let held = proxy.metric("teeline_in_flight_bytes");
    let lent = proxy.metric("teeline_answer_bytes");
    assert!(
        lent <= f64::from(16 << 20),
        "{lent} bytes of read buffers are stuck"
    );
    let neighbour = Neighbour::start("stuck", &settings.bootstrap());
    neighbour.assert_moving();
    note(&format!("{held} of {} bytes are stuck", 32 << 20));
    drop(stuck);
    neighbour.stop();
    // What a stopped broker owes is nothing to wait for.
    proxy.kill();
}

#[test]
fn accepting_goes_on_after_descriptors_ran_out() {
    let most = raise_open_files_limit();
    let mut settings = STAGE.proxy("descriptors");
    settings.announce("accept failed");
    settings.announce("Too many open files");
    let mut proxy = settings.start();
    let pid = Pid::from_raw(i32::try_from(proxy.process.pid()).unwrap());
    let allow = |files: u64| {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(most),
        };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    // What is open stays so, and nothing more can be opened.
    allow(3);
    let mut crowd: Vec<RawClient> = (0..20)
        .map(|_| RawClient::connect(&settings.bootstrap()).unwrap())
        .collect();
    wait_until("descriptors to run out", seconds(20), || {
        proxy.process.log().contains("accept failed")
    });
    allow(most);
    for client in &mut crowd {
        client.ask().unwrap();
    }
    drop(crowd);
    proxy.stop();
}

/// Whether a read ended because the connection did, and not because nothing came for a while.
fn is_closed<T>(read: std::io::Result<T>) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    read.is_err_and(|error| !matches!(error.kind(), WouldBlock | TimedOut))
}

#[test]
fn whoever_stops_in_the_middle_is_closed_and_so_is_who_speaks_no_kafka_or_comes_too_often() {
    let mut settings = STAGE.proxy("middle");
    settings.document["clusters"][0]["listen"]["idle_timeout"] = json!("2s");
    settings.document["clusters"][0]["listen"]["max_connections_per_address"] = json!(60);
    settings.announce("connection closed:");
    settings.announce("connection refused:");
    let mut proxy = settings.start();
    let bootstrap = settings.bootstrap();
    let neighbour = Neighbour::start("middle", &bootstrap);
    let (passing, whole) = (request(3, 1, &[0; 3_000]), produce("any", 3_000));
    let begun = [
        (&passing, 2),
        (&passing, 10),
        (&passing, 500),
        (&whole, 10),
        (&whole, 500),
    ];
    thread::scope(|scope| {
        for (frame, begun) in begun {
            let bootstrap = &bootstrap;
            scope.spawn(move || {
                let mut client = RawClient::connect(bootstrap).unwrap();
                client.send(&frame[..begun]).unwrap();
                client.0.set_read_timeout(Some(seconds(1))).unwrap();
                let (began, mut rest) = (Instant::now(), frame[begun..].iter());
                while !is_closed(client.length()) {
                    // A byte now and then does not help.
                    let _ = client.send(&[*rest.next().unwrap()]);
                    assert!(began.elapsed() < seconds(30), "after {begun} bytes");
                }
            });
        }
    });
    wait_until("all five to be counted", seconds(10), || {
        proxy.metric_with("teeline_connections_closed_total", "reason=\"stuck\"") >= 5.0
    });
    for foreign in [
        "GET / HTTP/1.1\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "\x16\x03\x01\x02\x00\x01",
    ] {
        let mut client = RawClient::connect(&bootstrap).unwrap();
        client.send(foreign.as_bytes()).unwrap();
        client.wait_closed();
    }
    wait_until("all three to be counted", seconds(10), || {
        proxy.metric_with("teeline_connections_closed_total", "reason=\"not_kafka\"") == 3.0
    });
    assert!(
        proxy
            .process
            .log()
            .contains("an HTTP request (hint: metrics and health are on the admin port)")
    );

    let mut guests: Vec<RawClient> = (0..70).map(|_| RawClient::connect(&bootstrap).unwrap()).collect();
    let served = guests.iter_mut().filter_map(|guest| guest.ask().ok()).count();
    assert!((40..=60).contains(&served), "{served} of 70 are served");
    assert!(proxy.metric_with("teeline_connections_refused_total", "reason=\"address_limit\"") >= 10.0);
    drop(guests);
    neighbour.assert_moving();
    neighbour.stop();
    proxy.stop();
}
