//! Clients that keep the brokers' own addresses, on a network that leads them to the proxy: three hosts made of network
//! namespaces, brokers on one, clients on another, and between them the gateway with the proxy and the rules that
//! `deploy/intercept` has for it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::json;
use teeline_tests::archived::Archived;
use teeline_tests::comparison::{await_equal, compare};
use teeline_tests::driver::{Driver, Family, Isolation};
use teeline_tests::kafka::Kafka;
use teeline_tests::namespace::{End, Namespace, alone};
use teeline_tests::notes::note;
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::read_back::{ReadBack, assert_identical};
use teeline_tests::record::Record;
use teeline_tests::source_log::SourceLog;
use teeline_tests::stage::Told;
use teeline_tests::wait::seconds;
use teeline_tests::workdir::WorkDir;

const BROKERS: &str = "10.77.2.2";
const BROKERS_6: &str = "fd77:2::2";
/// The gateway as brokers and clients see it.
const GATEWAY: &str = "10.77.2.1";
const CLIENTS_GATEWAY: &str = "10.77.1.1";
const TOPIC: &str = "intercepted";
const PARTITIONS: i32 = 4;
/// A Metadata request of version 1 for no topics, which any broker answers in plain text.
const METADATA: &[u8] = b"\0\0\0\x12\0\x03\0\x01\0\0\0\x07\0\x04wait\0\0\0\0";

#[test]
fn clients_that_keep_the_brokers_addresses_reach_them_through_the_proxy_and_nothing_else() {
    if !alone("clients_that_keep_the_brokers_addresses_reach_them_through_the_proxy_and_nothing_else") {
        return;
    }
    let site = Site::build();
    let mut told = Told::default();

    site.load("redirect.nft");
    let mut settings = site.settings("intercept");
    let mut proxy = site.start(&settings);
    site.assert_answers_are_the_brokers_own();
    site.produce_and_consume(&mut told, "redirected");
    site.assert_nothing_else_is_reached(&proxy);
    proxy.stop();

    site.load("tproxy.nft");
    settings.document["clusters"][0]["listen"]["addressing"]["transparent"] = json!(true);
    let mut proxy = site.start(&settings);
    site.assert_answers_are_the_brokers_own();
    site.produce_and_consume(&mut told, "by tproxy");
    site.assert_nothing_else_is_reached(&proxy);
    proxy.stop();

    site.assert_archived(&settings, &told);
    site.assert_the_proxy_takes_no_connection_of_its_own();
    site.assert_a_way_past_the_proxy_would_have_been_seen();
}

/// Three hosts.
struct Site {
    gateway: Namespace,
    clients: Namespace,
    kafka: Kafka,
    java: Driver,
    go: Driver,
    /// On the brokers' own host: sees what they have.
    beside: Driver,
    /// Something on the brokers' host that is no broker, and that the rules redirect all the same.
    other: TcpListener,
    work: WorkDir,
}

impl Site {
    fn build() -> Self {
        let (gateway, clients) = (Namespace::create(), Namespace::create());
        let end = |link, addresses, routers| End {
            link,
            addresses,
            routers,
        };
        gateway.link_to_own(
            &end("brokers", &["10.77.2.1/24", "fd77:2::1/64"], &[]),
            &end(
                "gateway",
                &["10.77.2.2/24", "fd77:2::2/64"],
                &["10.77.2.1", "fd77:2::1"],
            ),
        );
        gateway.link_to(
            &clients,
            &end("clients", &["10.77.1.1/24", "fd77:1::1/64"], &[]),
            &end(
                "gateway",
                &["10.77.1.2/24", "fd77:1::2/64"],
                &["10.77.1.1", "fd77:1::1"],
            ),
        );
        // There is a way past the proxy, and nobody may take it.
        gateway.run("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
        gateway.run(
            "ip rule add fwmark 0x7ee1 lookup 7661; ip route add local 0.0.0.0/0 dev lo table 7661
             ip -6 rule add fwmark 0x7ee1 lookup 7661; ip -6 route add local ::/0 dev lo table 7661",
        );
        let properties = format!(
            "listeners=PLAINTEXT://:{{own port}},CONTROLLER://{{own controller}}\n\
             advertised.listeners=PLAINTEXT://{BROKERS}:{{own port}}\n"
        );
        // Both at once: they wait more than they compute.
        let (kafka, java, go, beside) = thread::scope(|scope| {
            let kafka = scope.spawn(|| {
                let mut kafka = Kafka::prepare(2, &properties);
                kafka.start_all();
                kafka
            });
            let (java, go) = clients.enter(|| (Driver::start(Family::Java), Driver::start(Family::Go)));
            (kafka.join().unwrap(), java, go, Driver::start(Family::Go))
        });
        let site = Self {
            gateway,
            clients,
            kafka,
            java,
            go,
            beside,
            other: TcpListener::bind((BROKERS, 0)).unwrap(),
            work: WorkDir::create("intercept"),
        };
        let topic = json!([{"name": TOPIC, "partitions": PARTITIONS, "replication": 2}]);
        site.java.create_topics(&site.bootstrap(), &topic);
        site.watch_the_way_past_the_proxy();
        site
    }

    /// What clients are configured with: the brokers.
    fn bootstrap(&self) -> String {
        let [one, two] = self.ports();
        format!("{BROKERS}:{one},{BROKERS}:{two}")
    }

    fn ports(&self) -> [u16; 2] {
        [self.kafka.node_port(1), self.kafka.node_port(2)]
    }

    fn other_port(&self) -> u16 {
        self.other.local_addr().unwrap().port()
    }

    fn settings(&self, name: &str) -> ProxySettings {
        let directory = self.work.subdirectory(name);
        let archive = Archive::Directory(directory.join("archive"));
        // The second broker it has to learn of.
        let upstream = format!("{BROKERS}:{}", self.ports()[0]);
        let mut settings = ProxySettings::new(&directory, &upstream, &archive);
        settings.document["admin"]["listen"] = json!(format!("{GATEWAY}:{}", settings.port(0)));
        let cluster = &mut settings.document["clusters"][0];
        let servers = json!([upstream, format!("[{BROKERS_6}]:{}", self.ports()[0])]);
        cluster["upstream"]["bootstrap_servers"] = servers;
        cluster["listen"] = json!({
            "address": format!("[::]:{PROXY}"), "addressing": {"scheme": "intercept"},
        });
        settings.announce("connection refused: it was going to");
        settings.announce("connection refused: it was made to the proxy itself");
        settings
    }

    fn start(&self, settings: &ProxySettings) -> Proxy {
        let mut proxy = self.gateway.enter(|| settings.launch());
        proxy.wait_ready(seconds(30));
        proxy
    }

    /// Loads a file of `deploy/intercept` with what it has to know of this site.
    fn load(&self, file: &str) {
        let [one, two] = self.ports();
        let other = self.other_port();
        self.load_with(
            file,
            &[
                ("clients", "\"clients\"".to_owned()),
                ("brokers", BROKERS.to_owned()),
                ("brokers6", BROKERS_6.to_owned()),
                ("ports", format!("{{ {one}, {two}, {other} }}")),
                ("proxy", PROXY.to_string()),
            ],
        );
    }

    fn load_with(&self, file: &str, definitions: &[(&str, String)]) {
        let path = format!("{}/../deploy/intercept/{file}", env!("CARGO_MANIFEST_DIR"));
        let mut rules = fs::read_to_string(&path).unwrap();
        for (name, value) in definitions {
            let begin = format!("define {name} = ");
            let line = rules
                .lines()
                .find(|line| line.starts_with(&begin))
                .unwrap()
                .to_owned();
            rules = rules.replace(&line, &format!("{begin}{value}"));
        }
        self.gateway.load_rules(&rules);
    }

    /// Counts what is forwarded from clients to brokers, whatever other rules do with it afterwards.
    fn watch_the_way_past_the_proxy(&self) {
        let [one, two] = self.ports();
        self.gateway.load_rules(&format!(
            "table inet past {{
                chain past {{
                    type filter hook forward priority -300; policy accept;
                    iifname \"clients\" tcp dport {{ {one}, {two} }} counter
                }}
            }}"
        ));
    }

    /// What a client is told in plain text, in hexadecimal digits; empty when the connection is closed instead.
    fn ask_from_the_clients(&self, host: &str, port: u16, length: usize) -> String {
        let request: String = METADATA.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let output = self.clients.ask(&format!(
            "exec 3<>/dev/tcp/{host}/{port} && printf '{request}' >&3 && timeout 20 head -c {length} <&3 | od -An -v -tx1"
        ));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().collect()
    }

    /// Over IPv4 and IPv6, at either broker, byte for byte.
    fn assert_answers_are_the_brokers_own(&self) {
        for (host, port) in [
            (BROKERS, self.ports()[0]),
            (BROKERS, self.ports()[1]),
            (BROKERS_6, self.ports()[0]),
        ] {
            let mut direct = TcpStream::connect((host, port)).unwrap();
            direct.write_all(METADATA).unwrap();
            let mut length = [0; 4];
            direct.read_exact(&mut length).unwrap();
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            direct.read_exact(&mut answer).unwrap();
            assert!(
                answer
                    .windows(BROKERS.len())
                    .any(|part| part == BROKERS.as_bytes())
            );
            let answer = [length.to_vec(), answer].concat();
            // At the end comes a controller, any of them, and no topics.
            let answer = &answer[..answer.len() - 8];
            let expected: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
            let intercepted = self.ask_from_the_clients(host, port, answer.len());
            assert_eq!(intercepted, expected, "{host}:{port}");
        }
    }

    fn produce_and_consume(&self, told: &mut Told, how: &str) {
        let bootstrap = self.bootstrap();
        for (client, settings) in [
            (&self.java, &[("acks", "all"), ("compression.type", "lz4")][..]),
            (&self.go, &[("compression.type", "zstd")][..]),
        ] {
            let records: Vec<Record> = (0..200)
                .map(|index| Record::new(index % PARTITIONS, how, format!("{:?} {index}", client.family())))
                .collect();
            told.send_with(client, &bootstrap, settings, TOPIC, &records);
        }
        let source = self.source();
        for client in [&self.java, &self.go] {
            let path = client.read_into(&bootstrap, &[TOPIC], Isolation::Committed, true);
            assert_identical(&source, &ReadBack::load(&path));
        }
        assert_eq!(self.gateway.counted("past"), 0, "a client went past the proxy");
    }

    fn source(&self) -> ReadBack {
        let path = self
            .beside
            .read_into(&self.bootstrap(), &[TOPIC], Isolation::Committed, true);
        ReadBack::load(&path)
    }

    /// Neither what is no broker, nor the proxy itself.
    fn assert_nothing_else_is_reached(&self, proxy: &Proxy) {
        let refused = || proxy.metric_with("teeline_connections_refused_total", "reason=\"destination\"");
        assert_eq!(refused(), 0.0);
        for (host, port) in [(BROKERS, self.other_port()), (CLIENTS_GATEWAY, PROXY)] {
            assert_eq!(self.ask_from_the_clients(host, port, 4), "", "{host}:{port}");
        }
        assert_eq!(refused(), 2.0);
        self.other.set_nonblocking(true).unwrap();
        assert!(
            self.other.accept().is_err(),
            "the proxy connects to what is no broker"
        );
        let log = proxy.process.log();
        let no_broker = format!("going to {BROKERS}:{}, which is no broker", self.other_port());
        assert!(log.contains(&no_broker), "{log}");
        assert!(log.contains("made to the proxy itself"), "{log}");
    }

    /// Every acknowledged record is in the archive, and was captured: nothing had to be fetched.
    fn assert_archived(&self, settings: &ProxySettings, told: &Told) {
        told.assert_in(&self.source());
        let log = SourceLog::fetch(&self.beside, &self.bootstrap(), &[TOPIC]);
        let archive = self.work.join("intercept").join("archive");
        await_equal(&log, &archive, settings.backup_id(), seconds(10));
        let compared = compare(&log, &Archived::read(&archive, settings.backup_id()));
        note(&compared.figures());
        assert_eq!(compared.offsets, told.count() as u64);
        assert_eq!(
            compared.by_origin.get("tee"),
            Some(&compared.offsets),
            "{compared:?}"
        );
    }

    /// Rules for clients on the proxy's own host: without the line for its user it meets itself.
    fn assert_the_proxy_takes_no_connection_of_its_own(&self) {
        let mut settings = self.settings("own");
        let cluster = &mut settings.document["clusters"][0];
        cluster["capture"] = json!({"enabled": false});
        cluster["listen"]["address"] = json!(format!("0.0.0.0:{PROXY}"));
        settings.announce("connection refused: it is the proxy's own");
        self.load("redirect.nft");
        let proxy = self.start(&settings);
        let port = self.ports()[0];
        let rules = |user: &str| {
            let ports = format!("{{ {port} }}");
            let values = [BROKERS, BROKERS_6, &ports, &PROXY.to_string(), user].map(str::to_owned);
            let names = ["brokers", "brokers6", "ports", "proxy", "proxy_user"];
            let definitions: Vec<_> = names.into_iter().zip(values).collect();
            self.load_with("local.nft", &definitions);
        };
        // Nobody runs as this one.
        rules("4711");
        assert_eq!(self.ask_from_the_clients(BROKERS, port, 4), "");
        let log = proxy.process.log();
        assert!(log.contains("it is the proxy's own connection to"), "{log}");
        rules("0");
        assert_eq!(self.ask_from_the_clients(BROKERS, port, 4).len(), 8);
    }

    /// Without rules a client does reach a broker by the gateway, and it is counted.
    fn assert_a_way_past_the_proxy_would_have_been_seen(&self) {
        assert_eq!(self.gateway.counted("past"), 0, "a client went past the proxy");
        self.gateway.run("nft delete table inet teeline_intercept");
        let answer = self.ask_from_the_clients(BROKERS, self.ports()[0], 4);
        assert_eq!((answer.len(), self.gateway.counted("past") > 0), (8, true));
    }
}

/// Where the proxy listens, on a host where nobody else does.
const PROXY: u16 = 19092;
