//! Real Apache Kafka: KRaft clusters of one or several combined nodes on loopback.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::components;
use crate::ports::PortBlock;
use crate::process::Process;
use crate::wait::{seconds, wait_for};
use crate::workdir::WorkDir;

const TOOL_FLAGS: [&str; 4] = [
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
];
/// The first node may be slow when the machine compiles beside it.
const START_LIMIT: Duration = seconds(120);

/// A cluster. Dropping it kills its nodes and removes its data.
#[derive(Debug)]
pub struct Kafka {
    cluster_id: String,
    nodes: Vec<Node>,
    class_path: String,
    jvm_options: Vec<String>,
    // Last, so that the nodes are gone before their directories and ports are.
    _work: WorkDir,
    ports: PortBlock,
}

#[derive(Debug)]
struct Node {
    id: i32,
    port: u16,
    directory: PathBuf,
    process: Option<Process>,
}

impl Kafka {
    /// One node that is broker and controller.
    pub fn start_one() -> Self {
        let mut kafka = Self::prepare(1, "");
        kafka.start_all();
        kafka
    }

    /// Three nodes, three replicas, two of which must be in sync.
    pub fn start_three() -> Self {
        let mut kafka = Self::prepare(3, "");
        kafka.start_all();
        kafka
    }

    /// A cluster formatted and with its ports known, but not running yet.
    pub fn prepare(node_count: u16, extra_properties: &str) -> Self {
        Self::prepare_with(node_count, extra_properties, &[])
    }

    /// The same, with further arguments for formatting. In the properties `{address N}` and `{port N}` stand for the
    /// cluster's addresses: 0 to 2 are the brokers', 10 to 12 the controllers', the others up to 19 free for further
    /// listeners; see [`Kafka::address`]. `{own port}` and `{own controller}` are the node's own port and its controller's
    /// address.
    pub fn prepare_with(node_count: u16, extra_properties: &str, format_arguments: &[&str]) -> Self {
        let class_path = components::broker_class_path();
        Self::prepare_from(class_path, node_count, extra_properties, format_arguments)
    }

    /// The same with the brokers of a class path, thus of any version that has KRaft.
    pub fn prepare_from(
        class_path: String,
        node_count: u16,
        extra_properties: &str,
        format_arguments: &[&str],
    ) -> Self {
        let work = WorkDir::create("kafka");
        let ports = PortBlock::reserve();
        let cluster_id = random_cluster_id();
        let voters: Vec<String> = (0..node_count)
            .map(|index| format!("{}@{}", index + 1, ports.address(10 + index)))
            .collect();
        let extra_properties = ports.fill_in(extra_properties);
        let nodes: Vec<Node> = (0..node_count)
            .map(|index| {
                let id = i32::from(index) + 1;
                let directory = work.subdirectory(&format!("node-{id}"));
                let properties = properties(id, node_count, &ports, index, &voters.join(","), &directory);
                let extra = extra_properties
                    .replace("{own port}", &ports.port(index).to_string())
                    .replace("{own controller}", &ports.address(10 + index));
                fs::write(directory.join("server.properties"), properties + &extra)
                    .expect("write a broker's configuration");
                Node {
                    id,
                    port: ports.port(index),
                    directory,
                    process: None,
                }
            })
            .collect();
        let kafka = Self {
            cluster_id,
            nodes,
            class_path,
            jvm_options: Vec::new(),
            _work: work,
            ports,
        };
        for node in &kafka.nodes {
            kafka.format(node, format_arguments);
        }
        kafka
    }

    /// Gives the nodes an option of the JVM; before they are started.
    pub fn jvm_option(&mut self, option: &str) {
        self.jvm_options.push(option.to_owned());
    }

    /// Starts every node and waits until the whole cluster answers.
    pub fn start_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.launch(index);
        }
        let count = self.nodes.len();
        for index in 0..count {
            self.wait_ready(index, count);
        }
    }

    /// Starts one node that was killed, and waits until it answers.
    pub fn restart_node(&mut self, id: i32) {
        let index = self.index_of(id);
        self.launch(index);
        self.wait_ready(index, 1);
    }

    /// The same without waiting: it joins while the test goes on.
    pub fn launch_node(&mut self, id: i32) {
        let index = self.index_of(id);
        self.launch(index);
    }

    /// SIGKILL to one node.
    pub fn kill_node(&mut self, id: i32) {
        let index = self.index_of(id);
        self.nodes[index].process = None;
    }

    /// SIGTERM to one node, and waits until it has gone.
    pub fn stop_node(&mut self, id: i32) {
        let index = self.index_of(id);
        if let Some(mut process) = self.nodes[index].process.take() {
            let code = process.stop(START_LIMIT);
            // 143: ended by the signal, once everything was shut down.
            assert!(matches!(code, 0 | 143), "a broker stopped with {code}");
        }
    }

    /// Has one node stand still: it keeps what it has, and does nothing.
    pub fn freeze_node(&self, id: i32) {
        self.running(id).freeze();
    }

    /// Has it go on.
    pub fn thaw_node(&self, id: i32) {
        self.running(id).thaw();
    }

    fn running(&self, id: i32) -> &Process {
        let process = self.nodes[self.index_of(id)].process.as_ref();
        process.unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// Gives a node that does not run another port of the block, 3 to 9, for when it is started again.
    pub fn move_node(&mut self, id: i32, port_index: u16) {
        let index = self.index_of(id);
        let address = self.ports.address(port_index);
        let node = &mut self.nodes[index];
        assert!(node.process.is_none(), "a node that runs cannot move");
        let file = node.directory.join("server.properties");
        let properties = fs::read_to_string(&file).expect("read a broker's configuration");
        let former = format!("127.0.0.1:{}", node.port);
        assert!(properties.contains(&former), "{properties}");
        fs::write(file, properties.replace(&former, &address)).expect("write a broker's configuration");
        node.port = self.ports.port(port_index);
    }

    /// SIGKILL to the whole cluster.
    pub fn kill(&mut self) {
        for node in &mut self.nodes {
            node.process = None;
        }
    }

    /// `host:port,…` of every node.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        addresses.join(",")
    }

    /// What `{address N}` stood for.
    pub fn address(&self, index: u16) -> String {
        self.ports.address(index)
    }

    /// The id in every answer of this cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The ids of its nodes.
    pub fn node_ids(&self) -> Vec<i32> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// The port of one node's own listener, which no client of a proxy may ever see.
    pub fn node_port(&self, id: i32) -> u16 {
        self.nodes[self.index_of(id)].port
    }

    /// The port of one node's controller.
    pub fn controller_port(&self, id: i32) -> u16 {
        let index = u16::try_from(self.index_of(id)).expect("few nodes");
        self.ports.port(10 + index)
    }

    /// The directory of a partition's log files on a node.
    pub fn partition_directory(&self, node: i32, topic: &str, partition: i32) -> PathBuf {
        self.nodes[self.index_of(node)]
            .directory
            .join("data")
            .join(format!("{topic}-{partition}"))
    }

    /// Runs one of Kafka's own command-line tools, given by its class.
    pub fn tool(class: &str, arguments: &[&str]) -> Output {
        Self::tool_command(class)
            .args(arguments)
            .output()
            .expect("run a Kafka tool")
    }

    /// The command that runs one of them.
    pub fn tool_command(class: &str) -> Command {
        Self::tool_command_of(components::KAFKA_VERSION, class)
    }

    /// The same as another version of Kafka has it, 3.5 or later.
    pub fn tool_command_of(version: &str, class: &str) -> Command {
        tool_command(&components::kafka_jars(version), class)
    }

    fn index_of(&self, id: i32) -> usize {
        self.nodes
            .iter()
            .position(|node| node.id == id)
            .unwrap_or_else(|| panic!("no node {id}"))
    }

    fn format(&self, node: &Node, arguments: &[&str]) {
        let mut command = tool_command(&self.class_path, "kafka.tools.StorageTool");
        command
            .args(["format", "-t", &self.cluster_id, "-c"])
            .arg(node.directory.join("server.properties"))
            .args(arguments);
        let output = command.output().expect("run Kafka's storage tool");
        assert!(
            output.status.success(),
            "format a Kafka node: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn launch(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let mut command = Command::new("java");
        command.args([
            "-Xms192m",
            "-Xmx640m",
            "-XX:+UseSerialGC",
            "-Xshare:auto",
            "-cp",
            &self.class_path,
        ]);
        command.arg(log_configuration("log4j2-server.properties"));
        command.args(&self.jvm_options);
        command
            .arg("kafka.Kafka")
            .arg(node.directory.join("server.properties"));
        let log = node.directory.join("server.log");
        node.process = Some(Process::start(&format!("Kafka node {}", node.id), command, &log));
    }

    fn wait_ready(&mut self, index: usize, brokers: usize) {
        let node = &mut self.nodes[index];
        let (port, process) = (node.port, node.process.as_mut().expect("launched before"));
        wait_for(
            &format!("Kafka node {} to list {brokers} brokers", node.id),
            START_LIMIT,
            || {
                process.assert_running();
                match broker_count(port) {
                    Ok(count) if count >= brokers => Ok(()),
                    Ok(count) => Err(format!("it lists {count}")),
                    Err(error) => Err(format!("{error}; its log ends with\n{}", process.log_tail())),
                }
            },
        );
    }
}

fn tool_command(class_path: &str, class: &str) -> Command {
    let mut command = Command::new("java");
    command
        .args(TOOL_FLAGS)
        .arg(log_configuration("log4j2-tools.properties"))
        .args(["-cp", class_path, class]);
    command
}

/// The option that gives a JVM its log configuration.
pub(crate) fn log_configuration(file: &str) -> String {
    format!(
        "-Dlog4j2.configurationFile={}",
        components::source("components").join(file).display()
    )
}

fn random_cluster_id() -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    // Sixteen bytes in base64 without padding: the last character holds only two bits, so it must end in zeros.
    let mut id: String = (0..21)
        .map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]))
        .collect();
    id.push('A');
    id
}

fn properties(id: i32, nodes: u16, ports: &PortBlock, index: u16, voters: &str, directory: &Path) -> String {
    let (broker, controller) = (ports.address(index), ports.address(10 + index));
    let in_sync = if nodes > 1 { 2 } else { 1 };
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         broker.rack=rack-{id}\n\
         replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{broker}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         inter.broker.listener.name=PLAINTEXT\n\
         controller.listener.names=CONTROLLER\n\
         log.dirs={data}\n\
         num.partitions=1\n\
         default.replication.factor={nodes}\n\
         min.insync.replicas={in_sync}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=3\n\
         offsets.topic.replication.factor={nodes}\n\
         transaction.state.log.num.partitions=3\n\
         transaction.state.log.replication.factor={nodes}\n\
         transaction.state.log.min.isr={in_sync}\n\
         share.coordinator.state.topic.num.partitions=3\n\
         share.coordinator.state.topic.replication.factor={nodes}\n\
         share.coordinator.state.topic.min.isr={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         num.network.threads=2\n\
         num.io.threads=4\n\
         log.cleaner.dedupe.buffer.size=16777216\n\
         log.cleaner.backoff.ms=500\n\
         broker.session.timeout.ms=3000\n\
         broker.heartbeat.interval.ms=500\n\
         controlled.shutdown.enable=false\n",
        data = directory.join("data").display(),
    )
}

/// How many brokers a Metadata request (version 1, no topics) is told of: the cheapest sign that a node serves.
pub fn broker_count(port: u16) -> io::Result<usize> {
    const REQUEST: [u8; 22] = [
        0, 0, 0, 18, 0, 3, 0, 1, 0, 0, 0, 7, 0, 4, b'w', b'a', b'i', b't', 0, 0, 0, 0,
    ];
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(seconds(5)))?;
    stream.write_all(&REQUEST)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize)
}
