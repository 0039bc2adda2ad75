//! The client families, and how the program of each is started.

use std::path::Path;
use std::process::Command;

use crate::components;
use crate::kafka::log_configuration;
use crate::matrix::component;
use crate::programs::binary;

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// What the command line calls it.
    pub id: &'static str,
    /// Its name and version, as pinned.
    pub title: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A version of Kafka's own libraries, Streams and Connect included.
    Java(&'static str),
    /// Only the libraries that every test has anyway.
    JavaClientOnly,
    /// A script.
    Python(&'static str),
    Node,
    /// A program of the module.
    Go(&'static str),
    Rust,
}

/// Every client of the full matrix.
pub const CLIENTS: [Client; 10] = [
    column("java-4", "Java 4.3.1", Kind::Java("4.3.1")),
    column("java-3", "Java 3.9.2", Kind::Java("3.9.2")),
    column(
        "librdkafka",
        "librdkafka 2.16.0 (confluent-kafka 2.16.1)",
        Kind::Python("librdkafka_client.py"),
    ),
    column("rdkafka", "rdkafka 0.39 (Rust)", Kind::Rust),
    column(
        "kafka-python",
        "kafka-python 3.0.12",
        Kind::Python("kafka_python_client.py"),
    ),
    column("aiokafka", "aiokafka 0.14.0", Kind::Python("aiokafka_client.py")),
    column("kafkajs", "kafkajs 2.2.4", Kind::Node),
    column("franz-go", "franz-go 1.22.2", Kind::Go("franz")),
    column("sarama", "sarama 1.61.1", Kind::Go("sarama")),
    column("kafka-go", "kafka-go 0.4.51", Kind::Go("segmentio")),
];

/// Java without Streams and Connect, which take long to fetch.
pub const JAVA_CLIENT_ONLY: Client = column("java-4", "Java 4.3.1", Kind::JavaClientOnly);

const fn column(id: &'static str, title: &'static str, kind: Kind) -> Client {
    Client { id, title, kind }
}

/// A client by its name on the command line.
pub fn by_id(id: &str) -> Option<Client> {
    CLIENTS.into_iter().find(|client| client.id == id)
}

/// Clients that are quickly fetched, one of each language, as far as this machine has their languages; and those that
/// it lacks.
pub fn sample() -> (Vec<Client>, Vec<Client>) {
    let others = ["librdkafka", "kafkajs", "franz-go"]
        .into_iter()
        .filter_map(by_id);
    std::iter::once(JAVA_CLIENT_ONLY)
        .chain(others)
        .partition(Client::is_possible)
}

impl Client {
    /// Whether what fetches it is on the PATH. Every test needs Java and Go.
    pub fn is_possible(&self) -> bool {
        let program: &[&str] = match self.kind {
            Kind::Python(_) => &["python3", "-m", "pip", "--version"],
            Kind::Node => &["npm", "--version"],
            Kind::Java(_) | Kind::JavaClientOnly | Kind::Go(_) | Kind::Rust => return true,
        };
        let found = Command::new(program[0]).args(&program[1..]).output();
        found.is_ok_and(|output| output.status.success())
    }

    /// Its program, installed first if need be. It may write into `scratch`.
    pub fn command(&self, scratch: &Path, kafka_version: &str) -> Command {
        let mut command = match self.kind {
            Kind::Java(version) => java(&component::java_class_path(version), scratch),
            Kind::JavaClientOnly => java(&component::java_client_class_path(), scratch),
            Kind::Python(script) => {
                let mut python = Command::new("python3");
                // The sources are in the repository, where nothing may be written.
                python
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .env("PYTHONPATH", component::python_packages())
                    .arg(components::source("clients/matrix/python").join(script));
                python
            }
            Kind::Node => {
                let mut node = Command::new("node");
                node.env("NODE_PATH", component::node_modules())
                    .arg(components::source("clients/matrix/node/kafkajs.js"));
                node
            }
            Kind::Go(program) => Command::new(component::go_programs().join(program)),
            Kind::Rust => Command::new(binary("examples/matrix_rdkafka")),
        };
        // Sarama must be told what it speaks to.
        command.env("MATRIX_KAFKA_VERSION", kafka_version);
        command
    }
}

fn java(class_path: &str, scratch: &Path) -> Command {
    let mut command = Command::new("java");
    command.args([
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        &format!("-Djava.io.tmpdir={}", scratch.display()),
    ]);
    command
        .arg(log_configuration("log4j2-tools.properties"))
        .args(["-cp", class_path, "Matrix"]);
    command
}
