//! A configuration changes under load: what can change does, what cannot is refused as a whole, and no connection drops
//! that need not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use teeline_tests::admin_port;
use teeline_tests::components;
use teeline_tests::driver::{Driver, Isolation, ProducerConfig};
use teeline_tests::programs::{Archive, Proxy, ProxySettings, Restorer};
use teeline_tests::raw::RawClient;
use teeline_tests::read_back::assert_acknowledged;
use teeline_tests::record::{Record, read_load_log};
use teeline_tests::stage::{Stage, Told};
use teeline_tests::wait::{seconds, wait_for, wait_until};

#[path = "reload/early.rs"]
mod early;

static STAGE: LazyLock<Stage> = LazyLock::new(Stage::set);

const LOADS: [&str; 2] = ["reload-java", "reload-go"];

/// Ports of the block beside admin, bootstrap and the ten of the brokers.
const MOVED: u16 = 12;
const SECOND: u16 = 13;
const SECOND_NODES: u16 = 14;
const TAKEN: u16 = 17;
/// The second cluster's, once it is gone.
const MOVED_NODES: u16 = 14;

#[test]
fn a_configuration_changes_under_load_as_a_whole_or_not_at_all() {
    let mut scene = Scene::set();
    scene.capture_rules_change_at_once();
    scene.limits_and_tls_change_for_those_that_come();
    scene.what_cannot_be_is_refused_and_changes_nothing();
    scene.a_cluster_comes_and_goes();
    scene.servers_change_and_another_cluster_is_refused();
    scene.the_bootstrap_address_moves();
    scene.end();
}

struct Scene {
    settings: ProxySettings,
    proxy: Proxy,
    loads: Vec<PathBuf>,
    told: Told,
    /// Records of the topic whose capture is switched on and off, and the last of them.
    captured: u64,
    last_captured: Option<u64>,
    reloads: f64,
}

impl Scene {
    fn set() -> Self {
        for (topic, partitions) in [(LOADS[0], 3), (LOADS[1], 3), ("toggled", 1), ("second", 1)] {
            STAGE.create_topic(topic, partitions);
        }
        let mut settings = STAGE.proxy("reload");
        let (port, main) = (settings.port(2), &mut settings.document["clusters"][0]);
        main["backup_id"] = json!("e2e");
        main["listen"]["addressing"]["node_port_start"] = json!(port);
        settings.announce("not reloaded");
        settings.announce("the configuration stays as it was");
        settings.announce("listen.max_connections are open");
        let proxy = settings.start();
        let config = ProducerConfig::of(&[("acks", "all"), ("linger.ms", "5")]);
        let shape = || json!({"partitions": 3, "rate": 200, "value_bytes": 300});
        let start = |(driver, name): (&Driver, &str)| {
            driver.start_load(name, &settings.bootstrap(), name, &config, shape())
        };
        let loads = drivers().into_iter().zip(LOADS).map(start).collect();
        // Connected before anything changes, and never again: it could not hide a lost connection.
        STAGE
            .java
            .open_producer("toggled", &settings.bootstrap(), &ProducerConfig::of(&[]));
        let mut scene = Self {
            settings,
            proxy,
            loads,
            told: Told::default(),
            captured: 0,
            last_captured: None,
            reloads: 0.0,
        };
        scene.toggle(10, true);
        // Only then have the loads all the connections that they will ever have.
        scene.await_progress();
        scene
    }

    fn capture_rules_change_at_once(&mut self) {
        let connections = self.connections();
        self.main("capture")["exclude"] = json!(["toggled"]);
        let text = self.reload();
        assert!(text.contains("clusters[main].capture.exclude"), "{text}");
        self.toggle(7, false);
        self.main("capture")["exclude"] = json!([]);
        self.hang_up();
        self.toggle(5, true);
        self.main("capture")["include"] = json!(["reload-*"]);
        self.main("capture")["on_failure"] = json!("closed");
        self.hang_up();
        self.toggle(3, false);
        self.await_progress();
        assert_eq!(
            self.connections(),
            connections,
            "a connection was lost and made again"
        );
    }

    fn limits_and_tls_change_for_those_that_come(&mut self) {
        let connections = self.connections();
        let certificate = |name: &str| components::source("certificates").join(name);
        self.settings.document["clusters"][0]["limits"] = json!({"connection_in_flight": "1MiB"});
        self.settings.document["process"] = json!({"in_flight": "64MiB", "drain_timeout": "20s"});
        self.settings.document["log"] = json!({"level": "debug"});
        let listen = self.main("listen");
        listen["idle_timeout"] = json!("5m");
        listen["max_connections"] = json!(200);
        listen["max_request"] = json!("2MiB");
        listen["tls"] = json!({"cert_file": certificate("proxy.pem"), "key_file": certificate("proxy.key")});
        let text = self.reload();
        assert!(
            text.contains("clusters[main].listen.tls: changed (for new connections)"),
            "{text}"
        );
        self.await_progress();
        assert_eq!(
            self.connections(),
            connections,
            "a connection was lost and made again"
        );
        let authority = certificate("authority.pem").display().to_string();
        let over_tls = [
            ("security.protocol", "SSL"),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", authority.as_str()),
            ("ssl.endpoint.identification.algorithm", ""),
        ];
        let bootstrap = self.settings.bootstrap();
        let records = some_records(4);
        self.told
            .send_with(&STAGE.java, &bootstrap, &over_tls, "toggled", &records);
        // That was a new connection, and each one has such a line.
        assert!(
            self.proxy.process.log().contains(" DEBUG "),
            "log.level is not in force"
        );
        self.main("listen")["tls"] = Value::Null;
        self.hang_up();
        self.told
            .send_with(&STAGE.java, &bootstrap, &[], "toggled", &records);
        self.fewer_and_shorter_are_let_in();
    }

    /// Limits are in force for the next client.
    fn fewer_and_shorter_are_let_in(&mut self) {
        const MOST: usize = 40;
        let refused =
            |proxy: &Proxy| proxy.metric_with("teeline_connections_refused_total", "reason=\"limit\"");
        assert_eq!(refused(&self.proxy), 0.0, "two hundred were allowed");
        let listen = self.main("listen");
        listen["max_connections"] = json!(MOST);
        listen["idle_timeout"] = json!("2s");
        self.hang_up();
        let bootstrap = self.settings.bootstrap();
        let mut guests: Vec<RawClient> = (0..MOST + 10)
            .map(|_| RawClient::connect(&bootstrap).unwrap())
            .collect();
        let began = Instant::now();
        guests.retain_mut(|guest| guest.ask().is_ok());
        assert!((10..MOST).contains(&guests.len()), "{} were let in", guests.len());
        assert!(self.proxy.metric("teeline_connections_open") <= MOST as f64);
        assert!(
            refused(&self.proxy) >= 10.0,
            "{} were refused",
            refused(&self.proxy)
        );
        // By the five minutes of before none of them would end here.
        for mut guest in guests {
            guest.wait_closed();
        }
        assert!(began.elapsed() >= seconds(2), "{:?}", began.elapsed());
        let listen = self.main("listen");
        listen["max_connections"] = json!(200);
        listen["idle_timeout"] = json!("5m");
        self.hang_up();
        self.await_progress();
    }

    fn what_cannot_be_is_refused_and_changes_nothing(&mut self) {
        let in_force = self.settings.document.clone();
        let taken = TcpListener::bind(("127.0.0.1", self.settings.port(TAKEN))).unwrap();
        type Spoil = fn(&mut Value, u16);
        let cases: [(Spoil, &str); 4] = [
            (
                |document, _| document["clusters"][0]["capture"]["exlcude"] = json!([]),
                "exlcude",
            ),
            (
                |document, _| document["clusters"][0]["capture"]["buffer"]["dir"] = json!("/elsewhere"),
                "clusters[main].capture.buffer.dir",
            ),
            (
                |document, port| {
                    document["clusters"][0]["listen"]["address"] = json!(format!("127.0.0.1:{port}"))
                },
                "listen on 127.0.0.1:",
            ),
            (
                |document, _| {
                    document["clusters"][0]["listen"]["tls"] =
                        json!({"cert_file": "/dev/null", "key_file": "/dev/null"})
                },
                "read the certificates of cluster main",
            ),
        ];
        for (index, (spoil, named)) in cases.into_iter().enumerate() {
            spoil(&mut self.settings.document, taken.local_addr().unwrap().port());
            // What could change must not, either.
            self.settings.document["clusters"][0]["capture"]["include"] = json!([]);
            self.settings.write();
            let answer = admin_port::post(&self.settings.admin(), "/reload").unwrap();
            assert_eq!(answer.status, 409, "{}", answer.body);
            let told = answer.body.contains(named) && answer.body.contains("nothing was changed");
            assert!(told, "{}", answer.body);
            let refused = self.proxy.metric_with("teeline_config_reloads_total", "refused");
            assert_eq!(refused, (index + 1) as f64);
            self.settings.document = in_force.clone();
        }
        assert_eq!(self.proxy.metric("teeline_config_last_reload_successful"), 0.0);
        self.toggle(2, false);
        let text = self.reload();
        assert!(text.contains("in force already"), "{text}");
        assert_eq!(self.proxy.metric("teeline_config_last_reload_successful"), 1.0);
    }

    fn a_cluster_comes_and_goes(&mut self) {
        let connections = self.connections();
        let (bootstrap, nodes) = (self.settings.port(SECOND), self.settings.port(SECOND_NODES));
        let buffer = STAGE.directory("reload-second");
        let second = json!({
            "name": "second",
            "backup_id": "second",
            "upstream": {"bootstrap_servers": STAGE.source.bootstrap()},
            "listen": {
                "address": format!("127.0.0.1:{bootstrap}"),
                "addressing": {"node_port_start": nodes, "node_port_count": 3},
            },
            "capture": {"include": ["second"], "buffer": {"dir": buffer}, "catalog_poll_interval": "1s"},
        });
        // Refused together with one whose port is taken: the corrected file must find its buffer free.
        let taken = TcpListener::bind(("127.0.0.1", self.settings.port(TAKEN))).unwrap();
        let mut third = second.clone();
        third["name"] = json!("third");
        third["backup_id"] = json!("third");
        third["capture"]["buffer"]["dir"] = json!(STAGE.directory("reload-third"));
        third["listen"]["address"] = json!(taken.local_addr().unwrap().to_string());
        third["listen"]["addressing"] =
            json!({"node_port_start": taken.local_addr().unwrap().port() + 1, "node_port_count": 1});
        self.clusters().extend([second, third]);
        self.settings.write();
        let answer = admin_port::post(&self.settings.admin(), "/reload").unwrap();
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(answer.body.contains("for cluster third"), "{}", answer.body);
        self.clusters().pop();
        let text = self.reload();
        assert!(text.contains("clusters[second]"), "{text}");
        let address = format!("127.0.0.1:{bootstrap}");
        self.told
            .send_with(&STAGE.java, &address, &[], "second", &some_records(20));
        self.clusters().pop();
        self.hang_up();
        wait_until("the second cluster to be gone", seconds(30), || {
            self.proxy
                .process
                .log()
                .contains("it is no longer part of the process")
        });
        assert!(TcpStream::connect(&address).is_err());
        let health = admin_port::get(&self.settings.admin(), "/readyz").unwrap();
        assert_eq!(health.status, 200, "{}", health.body);
        let restorer = Restorer::at(
            &STAGE.directory("reload-restore"),
            &Archive::Directory(PathBuf::from(
                self.settings.document["storage"]["path"].as_str().unwrap(),
            )),
            "second",
        );
        restorer.restore_all(&STAGE.target.bootstrap(), &["--topic", "second"]);
        assert_eq!(STAGE.read_target(&["second"]).count(), 20);
        self.await_progress();
        let only_main = self
            .proxy
            .metric_with("teeline_connections_total", "cluster=\"main\"");
        assert_eq!(only_main, connections, "a connection was lost and made again");
    }

    fn servers_change_and_another_cluster_is_refused(&mut self) {
        let connections = self.connections();
        let in_force = self.settings.document.clone();
        self.main("upstream")["bootstrap_servers"] = json!(STAGE.target.bootstrap());
        self.settings.write();
        let answer = admin_port::post(&self.settings.admin(), "/reload").unwrap();
        assert_eq!(answer.status, 409, "{}", answer.body);
        assert!(answer.body.contains("are another cluster"), "{}", answer.body);
        self.settings.document = in_force;
        // The same servers by another name: what is known of the brokers' addresses is forgotten, and learnt again.
        let by_name = STAGE.source.bootstrap().replace("127.0.0.1", "localhost");
        self.main("upstream")["bootstrap_servers"] = json!(by_name);
        self.reload();
        self.await_progress();
        assert_eq!(
            self.connections(),
            connections,
            "a connection was lost and made again"
        );
        let bootstrap = self.settings.bootstrap();
        self.told
            .send_with(&STAGE.java, &bootstrap, &[], "toggled", &some_records(2));
    }

    /// Once the loads are over: their clients know neither the new ports nor the new bootstrap address.
    fn the_ports_of_brokers_move(&mut self) {
        let (moved, bootstrap) = (self.settings.port(MOVED_NODES), self.settings.port(MOVED));
        self.main("listen")["addressing"] = json!({"node_port_start": moved, "node_port_count": 3});
        self.hang_up();
        let former = ("127.0.0.1", self.settings.port(2 + 1));
        wait_until("the former port to be closed", seconds(10), || {
            TcpStream::connect(former).is_err()
        });
        let address = format!("127.0.0.1:{bootstrap}");
        self.told
            .send_with(&STAGE.java, &address, &[], "toggled", &some_records(2));
    }

    fn the_bootstrap_address_moves(&mut self) {
        let (before, moved) = (self.settings.bootstrap(), self.settings.port(MOVED));
        self.main("listen")["address"] = json!(format!("127.0.0.1:{moved}"));
        self.reload();
        wait_until("the former address to be closed", seconds(10), || {
            TcpStream::connect(&before).is_err()
        });
        let records = some_records(6);
        let address = format!("127.0.0.1:{moved}");
        self.told
            .send_with(&STAGE.java, &address, &[], "toggled", &records);
        self.await_progress();
        self.toggle(1, false);
    }

    fn end(mut self) {
        for (driver, name) in drivers().into_iter().zip(LOADS) {
            let counts = driver.stop_load(name, 60);
            assert_eq!(counts["unknown"], 0, "{name}: {counts}");
        }
        self.the_ports_of_brokers_move();
        assert_eq!(self.proxy.metric("teeline_missed_batches_total"), 0.0);
        // A stop that comes while the file is read wins.
        self.main("listen")["idle_timeout"] = json!("6m");
        self.settings.write();
        self.signal(Signal::HUP);
        self.proxy.stop();
        let source = STAGE.read_source(&[LOADS[0], LOADS[1], "toggled", "second"], Isolation::Committed);
        self.told.assert_in(&source);
        for (topic, log) in LOADS.into_iter().zip(&self.loads) {
            assert_acknowledged(&source, topic, &read_load_log(log));
        }
        STAGE.assert_round_trip(&self.settings, &LOADS);
        let described = Restorer::for_archive_of(&self.settings).run(&["describe", "e2e", "--json"]);
        let described: Value = serde_json::from_str(&described.stdout).unwrap();
        let lives = described["topic_lives"].as_array().unwrap();
        let toggled = lives.iter().find(|life| life["name"] == "toggled").unwrap();
        let partition = &toggled["partitions"][0];
        let (records, last) = (partition["records"].as_u64(), partition["last_offset"].as_u64());
        // What was left out between two times of capture may be filled in from the log while it counts again; of what was
        // left out at last nothing is there.
        let through = self.last_captured.unwrap();
        assert_eq!(last, Some(through), "{toggled}");
        assert!(
            records >= Some(self.captured) && records <= Some(through + 1),
            "{toggled}"
        );
    }

    fn clusters(&mut self) -> &mut Vec<Value> {
        self.settings.document["clusters"].as_array_mut().unwrap()
    }

    fn main(&mut self, section: &str) -> &mut Value {
        &mut self.settings.document["clusters"][0][section]
    }

    /// By the admin port; it must be taken.
    fn reload(&mut self) -> String {
        self.settings.write();
        let answer = admin_port::post(&self.settings.admin(), "/reload").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.reloads += 1.0;
        answer.body
    }

    /// By signal; it must be taken.
    fn hang_up(&mut self) {
        self.settings.write();
        self.signal(Signal::HUP);
        self.reloads += 1.0;
        let wanted = self.reloads;
        wait_for("the reload by SIGHUP", seconds(20), || {
            self.proxy.process.assert_running();
            let done = self
                .proxy
                .metric_with("teeline_config_reloads_total", "result=\"done\"");
            let unchanged = self
                .proxy
                .metric_with("teeline_config_reloads_total", "result=\"unchanged\"");
            match done + unchanged >= wanted {
                true => Ok(()),
                false => Err(self.proxy.process.log_tail()),
            }
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.proxy.process.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Sends records one by one to the topic whose capture is switched on and off.
    fn toggle(&mut self, count: usize, captured: bool) {
        let skipped = || {
            self.proxy
                .metric_with("teeline_skipped_batches_total", "excluded")
        };
        let before = skipped();
        let mut last = 0;
        for record in some_records(count) {
            last = self.told.send(&STAGE.java, "toggled", "toggled", &[record])[0].offset;
        }
        let after = before + if captured { 0.0 } else { count as f64 };
        assert_eq!(skipped(), after, "captured: {captured}");
        if captured {
            self.captured += count as u64;
            self.last_captured = u64::try_from(last).ok();
        }
    }

    fn connections(&self) -> f64 {
        self.proxy.metric("teeline_connections_total")
    }

    fn await_progress(&self) {
        for (driver, name) in drivers().into_iter().zip(LOADS) {
            let acknowledged = || driver.acknowledged(name);
            let before = acknowledged();
            wait_until("the load to go on", seconds(30), || acknowledged() > before + 50);
        }
    }
}

fn drivers() -> [&'static Driver; 2] {
    [&STAGE.java, STAGE.go()]
}

fn some_records(count: usize) -> Vec<Record> {
    (0..count)
        .map(|index| Record::new(0, &format!("key {index}"), format!("value {index}")))
        .collect()
}
