//! Brokers of any version: with KRaft since 3.x, one with ZooKeeper before.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::kafka::{Kafka, broker_count};
use crate::matrix::component;
use crate::ports::PortBlock;
use crate::process::Process;
use crate::wait::{seconds, wait_for};
use crate::workdir::WorkDir;

/// Everybody may do everything, but there are ACLs to be written and read.
const AUTHORIZED: &str =
    "super.users=User:ANONYMOUS\nallow.everyone.if.no.acl.found=true\nnum.io.threads=4\n";

/// Nobody dies here, but machines are busy: what is short elsewhere, so that failures are soon seen, would have leaders
/// and controllers move for nothing.
const PATIENT: &str = "broker.session.timeout.ms=18000\ncontroller.quorum.fetch.timeout.ms=10000\n\
    controller.quorum.request.timeout.ms=10000\n";

/// What clients of the matrix speak to.
#[derive(Debug)]
pub enum Broker {
    /// With controllers inside.
    Kraft(Kafka),
    /// With ZooKeeper beside it.
    Old(OldKafka),
}

impl Broker {
    /// Starts a version. Several nodes and arguments for formatting are KRaft's only.
    pub fn start(version: &str, nodes: u16, properties: &str, format_arguments: &[&str]) -> Self {
        if needs_zookeeper(version) {
            return Self::Old(OldKafka::start(version, properties));
        }
        let mut all = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n{AUTHORIZED}{PATIENT}{properties}"
        );
        if version.starts_with("3.") {
            // Early there, and off by default.
            all += "group.coordinator.rebalance.protocols=classic,consumer\n";
        }
        let mut kafka = Kafka::prepare_from(
            component::broker_class_path(version),
            nodes,
            &all,
            format_arguments,
        );
        kafka.start_all();
        Self::Kraft(kafka)
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        match self {
            Self::Kraft(kafka) => kafka.node_ids().len(),
            Self::Old(_) => 1,
        }
    }

    /// `host:port,…`
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Kraft(kafka) => kafka.bootstrap(),
            Self::Old(kafka) => kafka.ports.address(0),
        }
    }

    /// An address of a listener of its own, see [`Kafka::address`].
    pub fn address(&self, index: u16) -> String {
        match self {
            Self::Kraft(kafka) => kafka.address(index),
            Self::Old(kafka) => kafka.ports.address(index),
        }
    }
}

/// Whether a version has no KRaft to rely on.
pub fn needs_zookeeper(version: &str) -> bool {
    version.starts_with("2.")
}

/// A broker with ZooKeeper. Dropping it kills both and removes their data.
#[derive(Debug)]
pub struct OldKafka {
    // In this order: the broker, then what it needs, then where both have their files.
    _broker: Process,
    _zookeeper: Process,
    _work: WorkDir,
    ports: PortBlock,
    class_path: String,
}

impl OldKafka {
    fn start(version: &str, extra_properties: &str) -> Self {
        let (work, ports) = (WorkDir::create("old-kafka"), PortBlock::reserve());
        let class_path = component::old_broker_class_path(version);
        fs::write(work.join("log4j.properties"), LOG4J).expect("write a log configuration");
        fs::write(
            work.join("zookeeper.properties"),
            format!(
                "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n",
                work.join("zookeeper").display(),
                ports.port(10)
            ),
        )
        .expect("write ZooKeeper's configuration");
        fs::write(
            work.join("server.properties"),
            properties(&ports, &work.join("data")) + &ports.fill_in(extra_properties),
        )
        .expect("write a broker's configuration");
        let launch = |name: &str, class: &str, file: &str| {
            let mut java = Command::new("java");
            java.args(["-Xms128m", "-Xmx640m", "-XX:+UseSerialGC", "-cp", &class_path]);
            java.arg(format!(
                "-Dlog4j.configuration=file:{}",
                work.join("log4j.properties").display()
            ));
            java.arg(class).arg(work.join(file));
            Process::start(name, java, &work.join(format!("{name}.log")))
        };
        let zookeeper = launch(
            "zookeeper",
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            "zookeeper.properties",
        );
        let mut broker = launch("broker", "kafka.Kafka", "server.properties");
        wait_for("the old broker to list itself", seconds(120), || {
            broker.assert_running();
            match broker_count(ports.port(0)) {
                Ok(count) if count >= 1 => Ok(()),
                Ok(_) => Err("it lists nobody".to_owned()),
                Err(error) => Err(format!("{error}; its log ends with\n{}", broker.log_tail())),
            }
        });
        Self {
            _broker: broker,
            _zookeeper: zookeeper,
            _work: work,
            ports,
            class_path,
        }
    }

    /// Makes a user of SCRAM known. Old brokers keep them in ZooKeeper, and take them while they run.
    pub fn add_scram(&self, user: &str, credentials: &str) {
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp", &self.class_path]);
        java.args([
            "kafka.admin.ConfigCommand",
            "--bootstrap-server",
            &self.ports.address(0),
        ]);
        java.args(["--alter", "--entity-type", "users", "--entity-name", user]);
        java.args(["--add-config", credentials]);
        let output = java.output().expect("run Kafka's configuration tool");
        assert!(
            output.status.success(),
            "add a user of SCRAM: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn properties(ports: &PortBlock, data: &Path) -> String {
    format!(
        "broker.id=1\n\
         zookeeper.connect={}\n\
         listeners=PLAINTEXT://{address}\n\
         advertised.listeners=PLAINTEXT://{address}\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=3\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=3\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         log.cleaner.dedupe.buffer.size=16777216\n\
         authorizer.class.name=kafka.security.authorizer.AclAuthorizer\n\
         {AUTHORIZED}",
        ports.address(10),
        data.display(),
        address = ports.address(0),
    )
}

const LOG4J: &str = "log4j.rootLogger=WARN, C\n\
    log4j.appender.C=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.C.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.C.layout.ConversionPattern=[%d] %p %m (%c)%n\n";
