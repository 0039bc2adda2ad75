//! What stands between a client and the broker: nothing, HAProxy, Shotover, Teeline in each mode.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use teeline_tests::components::KAFKA_VERSION;
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;

use crate::cost::{self, Cost};
use crate::lean::TOPIC;

/// The names of all of them, in the order of the report.
pub const NAMES: [&str; 5] = [DIRECT, HAPROXY, NO_CAPTURE, ASYNC, DURABLE];
/// No proxy at all.
pub const DIRECT: &str = "direct";
/// HAProxy in TCP mode.
pub const HAPROXY: &str = "haproxy";
/// The same with buffers as large as Teeline's, and leave to splice; only where it is asked for.
pub const HAPROXY_TUNED: &str = "haproxy tuned";
/// Shotover, where it is installed.
pub const SHOTOVER: &str = "shotover";
/// Teeline, captures switched off.
pub const NO_CAPTURE: &str = "no capture";
/// Teeline, no answer waiting for a sync.
pub const ASYNC: &str = "async";
/// Teeline, each answer waiting for a sync.
pub const DURABLE: &str = "durable";

/// Those that were asked for, or else the usual ones.
pub fn wanted(asked: &[String], usual: &[&str]) -> Vec<String> {
    match asked {
        [] => usual.iter().map(|name| (*name).to_owned()).collect(),
        _ => asked.to_vec(),
    }
}

/// One way to the broker.
pub struct Contender {
    /// What the report calls it.
    pub name: &'static str,
    /// Where a lean load connects: the address of the one broker, as this way shows it.
    pub address: String,
    /// Where an ordinary client bootstraps.
    pub bootstrap: String,
    middle: Middle,
}

enum Middle {
    Nothing,
    /// A program that needs no more than its command line.
    Other {
        process: Process,
        arguments: Vec<String>,
        log: PathBuf,
    },
    Teeline {
        proxy: Box<Proxy>,
        segmenter: Option<Process>,
        settings: Box<ProxySettings>,
    },
}

impl Contender {
    /// The version of Kafka's tools whose clients it can serve.
    pub fn client_version(&self) -> &'static str {
        if self.name == SHOTOVER {
            "3.9.2"
        } else {
            KAFKA_VERSION
        }
    }

    /// The process in the middle.
    pub fn pid(&self) -> Option<u32> {
        match &self.middle {
            Middle::Nothing => None,
            Middle::Other { process, .. } => Some(process.pid()),
            Middle::Teeline { proxy, .. } => Some(proxy.process.pid()),
        }
    }

    /// The segmenter behind a capture.
    pub fn segmenter_pid(&self) -> Option<u32> {
        match &self.middle {
            Middle::Teeline { segmenter, .. } => segmenter.as_ref().map(Process::pid),
            _ => None,
        }
    }

    /// What the process in the middle has used so far; the segmenter is not counted.
    pub fn cost(&self) -> Cost {
        self.pid().map(cost::of_process).unwrap_or_default()
    }

    /// What the segmenter behind a capture has used so far.
    pub fn segmenter_cost(&self) -> Cost {
        self.segmenter_pid().map(cost::of_process).unwrap_or_default()
    }

    /// Begins to count what a run costs.
    pub fn bill(&self) -> Bill<'_> {
        Bill {
            contender: self,
            before: (self.cost(), self.segmenter_cost()),
        }
    }

    /// The largest resident memory so far, in MiB, of the process in the middle and of a segmenter behind it.
    pub fn capture_peak_mib(&self) -> f64 {
        self.cost().peak_mib + self.segmenter_cost().peak_mib
    }

    /// The mean of a metric of Teeline's own that is in seconds, in milliseconds; `None` when nothing was observed.
    pub fn mean_ms(&self, histogram: &str) -> Option<f64> {
        let Middle::Teeline { proxy, .. } = &self.middle else {
            return None;
        };
        let count = proxy.metric(&format!("{histogram}_count"));
        let sum = proxy.metric(&format!("{histogram}_sum"));
        (count > 0.0).then(|| sum / count * 1e3)
    }

    /// Forgets the largest resident memory so far, so that the next look tells that of what comes from now on.
    pub fn forget_peak(&self) {
        for pid in [self.pid(), self.segmenter_pid()].into_iter().flatten() {
            cost::forget_peak(pid);
        }
    }

    /// Waits until what was captured is archived, so that it is counted, and no later run pays for it: until the buffer is
    /// nearly empty and the segmenter has had nothing to do for longer than any segment stays open.
    pub fn settle(&self) {
        let (Middle::Teeline { proxy, .. }, Some(segmenter)) = (&self.middle, self.segmenter_pid()) else {
            return;
        };
        let (mut before, mut idle_looks) = (f64::NAN, 0);
        wait_until("the buffer to be archived", seconds(180), || {
            let now = cost::of_process(segmenter).cpu_seconds;
            let is_idle = now - before < IDLE_CPU_SECONDS;
            before = now;
            // Asked only once it may be so: the answer is a part of what the proxy has to pay for.
            let is_settled = is_idle && proxy.metric("teeline_buffer_used_bytes") < BUFFER_REST_BYTES;
            idle_looks = if is_settled { idle_looks + 1 } else { 0 };
            if idle_looks < IDLE_LOOKS {
                thread::sleep(IDLE_LOOK);
            }
            idle_looks >= IDLE_LOOKS
        });
    }

    /// Ends the process in the middle by SIGTERM and starts it again: seconds until it had gone, and from there until it
    /// took a connection.
    pub fn restart(&mut self) -> Option<(f64, f64)> {
        let begun = Instant::now();
        match &mut self.middle {
            Middle::Nothing => return None,
            Middle::Other { process, .. } => {
                process.terminate();
                process.wait_exit(seconds(60));
            }
            Middle::Teeline { proxy, .. } => proxy.stop(),
        }
        let stopped = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        match &mut self.middle {
            Middle::Nothing => {}
            Middle::Other {
                process,
                arguments,
                log,
            } => *process = other(arguments, log),
            Middle::Teeline { proxy, settings, .. } => **proxy = settings.launch(),
        }
        // A look each millisecond: `wait_until` looks too rarely for this.
        while TcpStream::connect(&self.bootstrap).is_err() {
            assert!(
                begun.elapsed() < seconds(60),
                "{} does not listen again",
                self.name
            );
            thread::sleep(Duration::from_millis(1));
        }
        Some((stopped, begun.elapsed().as_secs_f64()))
    }
}

/// What a run costs a contender.
pub struct Bill<'a> {
    contender: &'a Contender,
    before: (Cost, Cost),
}

impl Bill<'_> {
    /// What the process in the middle has used since, and what the segmenter has; first what was captured and is not written
    /// or archived yet is waited for, as it has to be paid for, too.
    pub fn settled(self) -> (Cost, Cost) {
        self.contender.settle();
        let used = self.contender.cost() - self.before.0;
        (used, self.contender.segmenter_cost() - self.before.1)
    }
}

/// Where the broker is, and where other proxies are put before it.
///
/// Other proxies pass addresses on as they are, so that each of them needs a listener of the broker's that is advertised
/// at the proxy's address.
#[derive(Debug, Clone)]
pub struct Ways {
    /// The broker's own listener.
    pub direct: String,
    /// The broker's listener behind HAProxy, and where HAProxy listens.
    pub haproxy: (String, String),
    /// The same for the one with other settings.
    pub haproxy_tuned: (String, String),
    /// The same for Shotover, and its program.
    pub shotover: Option<(String, String, PathBuf)>,
}

impl Ways {
    /// Those contenders that are wanted and can run here, started and ready. Nothing wanted is all of them.
    pub fn start(&self, work: &WorkDir, wanted: &[String]) -> Vec<Contender> {
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);
        for name in wanted {
            let is_known =
                NAMES.contains(&name.as_str()) || [SHOTOVER, HAPROXY_TUNED].contains(&name.as_str());
            assert!(
                is_known,
                "{name} is none of {NAMES:?}, {SHOTOVER} and {HAPROXY_TUNED}"
            );
        }
        let mut all = Vec::new();
        if is_wanted(DIRECT) {
            all.push(Contender {
                name: DIRECT,
                address: self.direct.clone(),
                bootstrap: self.direct.clone(),
                middle: Middle::Nothing,
            });
        }
        if is_wanted(HAPROXY) {
            match haproxy(HAPROXY, &self.haproxy, ("", ""), work.path()) {
                Some(haproxy) => all.push(haproxy),
                None => {
                    eprintln!("haproxy is not installed: without it nothing says what a proxy has to cost")
                }
            }
        }
        if wanted.iter().any(|name| name == HAPROXY_TUNED) {
            let settings = (
                "  tune.bufsize 262144\n  maxpipes 256\n",
                "  option splice-auto\n",
            );
            all.extend(haproxy(HAPROXY_TUNED, &self.haproxy_tuned, settings, work.path()));
        }
        if is_wanted(SHOTOVER) {
            all.extend(self.shotover(work.path()));
        }
        for (name, capture) in [
            (NO_CAPTURE, json!({"enabled": false})),
            (ASYNC, json!({"enabled": true, "ack": "async"})),
            (DURABLE, json!({"enabled": true, "ack": "durable"})),
        ] {
            if is_wanted(name) {
                all.push(teeline(name, &self.direct, &capture, work));
            }
        }
        all
    }

    fn shotover(&self, directory: &Path) -> Option<Contender> {
        let (behind, before, program) = self.shotover.as_ref()?;
        let port = behind.rsplit(':').next().unwrap_or_default();
        let (topology, config) = (directory.join("topology.yaml"), directory.join("shotover.yaml"));
        let text = format!(
            "sources:\n  - Kafka:\n      name: kafka\n      listen_addr: \"{before}\"\n      chain:\n        - \
             KafkaSinkSingle:\n            destination_port: {port}\n            connect_timeout_ms: 3000\n"
        );
        fs::write(&topology, text).expect("write Shotover's topology");
        fs::write(&config, "main_log_level: \"info\"\n").expect("write Shotover's configuration");
        let arguments = vec![
            path_text(program),
            "--topology-file".into(),
            path_text(&topology),
            "--config-file".into(),
            path_text(&config),
            "--core-threads".into(),
            "2".into(),
        ];
        Some(contender(
            SHOTOVER,
            before,
            arguments,
            directory.join("shotover.log"),
        ))
    }
}

/// In TCP mode; further settings, global ones and defaults, are whole lines. `None` where it is not installed.
fn haproxy(
    name: &'static str,
    (behind, before): &(String, String),
    (global, defaults): (&str, &str),
    directory: &Path,
) -> Option<Contender> {
    let version = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    version.ok().filter(std::process::ExitStatus::success)?;
    let config = directory.join(format!("{name}.cfg"));
    let text = format!(
        "global\n  nbthread 2\n  maxconn 9000\n{global}defaults\n  mode tcp\n{defaults}  timeout connect 5s\n  timeout \
         client 1h\n  timeout server 1h\nlisten kafka\n  bind {before}\n  server broker {behind}\n"
    );
    fs::write(&config, text).expect("write HAProxy's configuration");
    let arguments = vec!["haproxy".into(), "-db".into(), "-f".into(), path_text(&config)];
    let log = directory.join(format!("{name}.log"));
    Some(contender(name, before, arguments, log))
}

fn path_text(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn contender(name: &'static str, address: &str, arguments: Vec<String>, log: PathBuf) -> Contender {
    let process = other(&arguments, &log);
    wait_until(&format!("{name} to listen"), seconds(20), || {
        TcpStream::connect(address).is_ok()
    });
    Contender {
        name,
        address: address.to_owned(),
        bootstrap: address.to_owned(),
        middle: Middle::Other {
            process,
            arguments,
            log,
        },
    }
}

fn other(arguments: &[String], log: &Path) -> Process {
    let mut command = Command::new(&arguments[0]);
    command.args(&arguments[1..]);
    Process::start(&arguments[0], command, log)
}

fn teeline(name: &'static str, upstream: &str, capture: &Value, work: &WorkDir) -> Contender {
    let directory = work.subdirectory(name);
    let archive = Archive::Directory(work.join(format!("archive {name}")));
    let mut settings = ProxySettings::new(&directory, upstream, &archive);
    let document = &mut settings.document["clusters"][0]["capture"];
    for (key, value) in capture.as_object().expect("an object") {
        document[key] = value.clone();
    }
    // As an operator would have it, not as tests do.
    document
        .as_object_mut()
        .expect("an object")
        .remove("catalog_poll_interval");
    // Its own process, so that its cost is known by itself; and soon done, so that no later run pays for it.
    settings.document["segmenter"] = json!({"embedded": false, "segment_max_interval_ms": SEGMENT_MS,
        "small_segment_max_interval_ms": SEGMENT_MS});
    settings.document["audit"] = json!({"enabled": false});
    let captures = capture["enabled"] == json!(true);
    let proxy = Box::new(settings.start());
    let segmenter = captures.then(|| settings.launch_segmenter(&["--admin", "127.0.0.1:0"]));
    Contender {
        name,
        address: format!("127.0.0.1:{}", settings.port(NODE_PORT_INDEX)),
        bootstrap: settings.bootstrap(),
        middle: Middle::Teeline {
            proxy,
            segmenter,
            settings: Box::new(settings),
        },
    }
}

/// A null broker in a process of its own, and the ways to it.
pub struct NullKafka {
    /// For [`Ways::start`].
    pub ways: Ways,
    _process: Process,
    _ports: PortBlock,
}

impl NullKafka {
    /// Starts one; `more` are further arguments of `null-broker`.
    pub fn start(partitions: i32, more: &[String], work: &WorkDir) -> NullKafka {
        let ports = PortBlock::reserve();
        let direct = ports.address(0);
        let haproxy = (ports.address(1), ports.address(2));
        let haproxy_tuned = (ports.address(3), ports.address(4));
        let own = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(own);
        command
            .args(["null-broker", "--partitions", &partitions.to_string()])
            // A topic that is not listed is taken for deleted, and what was captured of it waits.
            .args(["--topic", TOPIC])
            .args(more)
            .arg(format!("{direct}={direct}"))
            .args([&haproxy, &haproxy_tuned].map(|(behind, before)| format!("{behind}={before}")));
        let log = work.join("null-broker.log");
        let process = Process::start("null broker", command, &log);
        for address in [&direct, &haproxy.0, &haproxy_tuned.0] {
            wait_until("the null broker to listen", seconds(60), || {
                TcpStream::connect(address).is_ok()
            });
        }
        let ways = Ways {
            direct,
            haproxy,
            haproxy_tuned,
            shotover: None,
        };
        NullKafka {
            ways,
            _process: process,
            _ports: ports,
        }
    }
}

/// Parses `LISTEN=ADVERTISED`.
///
/// # Errors
/// When one of them is no address.
pub fn place(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (listen, advertised) = text.split_once('=').unwrap_or((text, text));
    let address = |text: &str| {
        text.parse()
            .map_err(|error| format!("{text} is no address: {error}"))
    };
    Ok((address(listen)?, address(advertised)?))
}

/// The port of the node with id 1 in a proxy's block.
const NODE_PORT_INDEX: u16 = 3;
/// A file or two of the buffer are kept until the next one is begun.
const BUFFER_REST_BYTES: f64 = 300e6;
/// In so long a time a segmenter that has something to do uses more than this.
const IDLE_LOOK: Duration = Duration::from_millis(200);
const IDLE_CPU_SECONDS: f64 = 0.011;
/// The age at which segments are closed; most of what they cost comes then. A longer pause between runs would be another
/// measurement: memory that is free for two seconds goes back to a virtual machine's host (docs/adr/0010).
const SEGMENT_MS: u64 = 1_000;
const IDLE_LOOKS: u64 = SEGMENT_MS / IDLE_LOOK.as_millis() as u64 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_address_or_two() {
        let (listen, advertised) = place("127.0.0.1:1=127.0.0.1:2").expect("two addresses");
        assert_eq!((listen.port(), advertised.port()), (1, 2));
        let (listen, advertised) = place("127.0.0.1:1").expect("one address");
        assert_eq!(listen, advertised);
        assert!(place("nowhere").is_err());
    }
}
