//! What stands between the load and the null broker: nothing, HAProxy, Teeline in each mode.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::programs::{Archive, Proxy, ProxySettings};
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;

use crate::cost::{self, Cost};

/// The null broker's node id.
const NODE_PORT_INDEX: u16 = 3;

/// One way to the null broker.
pub struct Contender {
    /// What the report calls it.
    pub name: &'static str,
    /// Where the load connects: the address of the one broker, as this way shows it.
    pub address: String,
    middle: Middle,
}

enum Middle {
    Nothing,
    Haproxy(Process),
    Teeline {
        proxy: Proxy,
        segmenter: Option<Process>,
        _settings: Box<ProxySettings>,
    },
}

impl Contender {
    /// What the process in the middle has used so far; the segmenter is not counted.
    pub fn cost(&self) -> Cost {
        match &self.middle {
            Middle::Nothing => Cost::default(),
            Middle::Haproxy(process) => cost::of_process(process.pid()),
            Middle::Teeline { proxy, .. } => cost::of_process(proxy.process.pid()),
        }
    }

    /// What the segmenter behind a capture has used so far.
    pub fn segmenter_cost(&self) -> Cost {
        match &self.middle {
            Middle::Teeline {
                segmenter: Some(segmenter),
                ..
            } => cost::of_process(segmenter.pid()),
            _ => Cost::default(),
        }
    }

    /// Waits until what was captured is archived, so that no later run pays for it.
    pub fn settle(&self) {
        let Middle::Teeline {
            proxy,
            segmenter: Some(_),
            ..
        } = &self.middle
        else {
            return;
        };
        wait_until("the buffer to be archived", seconds(180), || {
            proxy.metric("teeline_buffer_used_bytes") < BUFFER_REST_BYTES
        });
    }
}

/// Addresses at which a null broker has to listen, and what it has to say there, for all contenders.
pub struct Places {
    ports: PortBlock,
}

impl Places {
    /// Reserves ports.
    pub fn reserve() -> Places {
        Places {
            ports: PortBlock::reserve(),
        }
    }

    /// The arguments of the null broker: `LISTEN=ADVERTISED` for the direct way and for HAProxy's.
    pub fn arguments(&self) -> Vec<String> {
        let (direct, behind, before) = (
            self.ports.address(0),
            self.ports.address(1),
            self.ports.address(2),
        );
        vec![format!("{direct}={direct}"), format!("{behind}={before}")]
    }

    /// Every contender that can run here, started and ready.
    pub fn start_all(&self, work: &WorkDir) -> Vec<Contender> {
        let direct = self.ports.address(0);
        let mut all = vec![Contender {
            name: "direct",
            address: direct.clone(),
            middle: Middle::Nothing,
        }];
        match self.haproxy(work.path()) {
            Some(haproxy) => all.push(haproxy),
            None => eprintln!("haproxy is not installed: without it nothing says what a proxy has to cost"),
        }
        for (name, capture) in [
            ("no capture", json!({"enabled": false})),
            ("async", json!({"enabled": true, "ack": "async"})),
            ("durable", json!({"enabled": true, "ack": "durable"})),
        ] {
            all.push(teeline(name, &direct, &capture, work));
        }
        all
    }

    fn haproxy(&self, directory: &Path) -> Option<Contender> {
        let version = Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
        version.ok().filter(std::process::ExitStatus::success)?;
        let (behind, before) = (self.ports.address(1), self.ports.address(2));
        let config = directory.join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread 2\n  maxconn 20000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\nlisten kafka\n  bind {before}\n  server broker {behind}\n"
        );
        fs::write(&config, text).expect("write HAProxy's configuration");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&config);
        let process = Process::start("haproxy", command, &directory.join("haproxy.log"));
        wait_until("HAProxy to listen", seconds(20), || {
            std::net::TcpStream::connect(&before).is_ok()
        });
        Some(Contender {
            name: "haproxy",
            address: before,
            middle: Middle::Haproxy(process),
        })
    }
}

fn teeline(name: &'static str, upstream: &str, capture: &Value, work: &WorkDir) -> Contender {
    let directory = work.subdirectory(name);
    let archive = Archive::Directory(work.join(format!("archive {name}")));
    let mut settings = ProxySettings::new(&directory, upstream, &archive);
    let document = &mut settings.document["clusters"][0]["capture"];
    for (key, value) in capture.as_object().expect("an object") {
        document[key] = value.clone();
    }
    // Its own process, so that its cost is known by itself.
    settings.document["segmenter"] = json!({"embedded": false});
    settings.document["audit"] = json!({"enabled": false});
    let captures = capture["enabled"] == json!(true);
    let proxy = settings.start();
    let segmenter = captures.then(|| settings.launch_segmenter(&["--admin", "127.0.0.1:0"]));
    Contender {
        name,
        address: format!("127.0.0.1:{}", settings.port(NODE_PORT_INDEX)),
        middle: Middle::Teeline {
            proxy,
            segmenter,
            _settings: Box::new(settings),
        },
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

/// A file or two of the buffer are kept until the next one is begun.
const BUFFER_REST_BYTES: f64 = 300e6;
