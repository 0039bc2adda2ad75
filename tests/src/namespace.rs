//! Network namespaces: hosts of a test's own, with links, routes and packet filter rules that are gone with it.
//!
//! A test that wants them runs once more in a process whose network is empty ([`alone`]): as root by itself, otherwise
//! as the root of a user namespace. That process then makes further namespaces and links between them. What is missing
//! on the machine fails the test with its name; nothing is skipped.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::components;
use crate::process::Process;
use crate::wait::{seconds, wait_until};
use crate::workdir::WorkDir;

/// Set in the process whose network is its own.
const MARK: &str = "TEELINE_TEST_NAMESPACE";
/// What has to be installed.
const TOOLS: [(&str, &str); 4] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];

thread_local! {
    /// Where children of this thread are started, by a process that lives there.
    static ENTERED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Whether this process has an empty network for itself. If not, the test `name` is run by one that has, to its end:
/// then there is nothing more to do.
pub fn alone(name: &str) -> bool {
    if env::var_os(MARK).is_some() {
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        return true;
    }
    for (tool, package) in TOOLS {
        let found = Command::new(tool).arg("--version").output();
        // Some know no such flag; that they are there is what matters.
        assert!(
            found.is_ok(),
            "{tool} is missing (Debian, Ubuntu: apt install {package}; Fedora: dnf install {package})"
        );
    }
    // What such a test starts, while there still is a network to fetch with.
    let _ = (
        components::broker_class_path(),
        components::java_client_class_path(),
        components::go_client(),
    );
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .arg(env::current_exe().expect("the path of the running test"))
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::piped());
    let child = command.spawn().expect("run unshare");
    let output = child.wait_with_output().expect("wait for unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    eprint!("{said}");
    let status = output.status;
    assert!(
        status.success(),
        "{name} failed in a network of its own, or may not have one ({command:?}: {status})"
    );
    // To run no test at all is a success, too.
    assert!(said.contains("1 passed"), "there is no test called {name}");
    false
}

/// A network that is empty but for its loopback.
#[derive(Debug)]
pub struct Namespace {
    /// Keeps it alive.
    holder: Process,
    _work: WorkDir,
}

impl Namespace {
    /// Makes one.
    pub fn create() -> Self {
        let work = WorkDir::create("namespace");
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]);
        let holder = Process::start("the holder of a namespace", command, &work.join("log"));
        let own = fs::read_link("/proc/self/ns/net").expect("read the own namespace");
        wait_until("another namespace", seconds(10), || {
            let path = format!("/proc/{}/ns/net", holder.pid());
            fs::read_link(path).is_ok_and(|other| other != own)
        });
        let namespace = Self { holder, _work: work };
        namespace.run("ip link set lo up");
        namespace
    }

    /// Starts what `start` starts by [`Process`] in here.
    pub fn enter<T>(&self, start: impl FnOnce() -> T) -> T {
        ENTERED.set(Some(self.holder.pid()));
        let started = start();
        ENTERED.set(None);
        started
    }

    /// A command that runs in here.
    pub fn command(&self, program: &str) -> Command {
        nsenter(self.holder.pid(), OsStr::new(program))
    }

    /// Runs a line of `sh` in here, which must succeed.
    pub fn run(&self, line: &str) {
        run(self.command("sh").args(["-ec", line]));
    }

    /// What a line of `bash` says in here.
    pub fn ask(&self, line: &str) -> Output {
        self.command("bash")
            .args(["-c", line])
            .output()
            .expect("run bash in a namespace")
    }

    /// Loads rules into the packet filter.
    pub fn load_rules(&self, rules: &str) {
        let mut command = self.command("nft");
        command
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("run nft");
        let mut input = child.stdin.take().expect("its standard input is piped");
        input.write_all(rules.as_bytes()).expect("give nft its rules");
        drop(input);
        let output = child.wait_with_output().expect("wait for nft");
        assert!(
            output.status.success(),
            "nft refuses: {}\n{rules}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// How many packets the counters of a table have counted.
    pub fn counted(&self, table: &str) -> u64 {
        let output = self.ask(&format!("nft list table inet {table}"));
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counts = text.split("packets ").skip(1).filter_map(|rest| {
            let (count, _) = rest.split_once(' ')?;
            count.parse::<u64>().ok()
        });
        counts.sum()
    }

    /// Links this process's own network, where the link is called `there`, with this one.
    pub fn link_to_own(&self, here: &End<'_>, there: &End<'_>) {
        let (link, pid) = (there.link, self.holder.pid());
        shell(&format!(
            "ip link add {link} type veth peer name {} netns {pid}",
            here.link
        ));
        self.run(&here.raise());
        shell(&there.raise());
    }

    /// Links this one with another one.
    pub fn link_to(&self, other: &Self, here: &End<'_>, there: &End<'_>) {
        let (link, pid) = (here.link, other.holder.pid());
        self.run(&format!(
            "ip link add {link} type veth peer name {} netns {pid}",
            there.link
        ));
        self.run(&here.raise());
        other.run(&there.raise());
    }
}

/// An end of a link.
#[derive(Debug)]
pub struct End<'a> {
    /// What it is called where it is.
    pub link: &'a str,
    /// Its addresses, each with the length of its network, as `10.0.0.1/24`.
    pub addresses: &'a [&'a str],
    /// Who knows the way to everywhere else.
    pub routers: &'a [&'a str],
}

impl End<'_> {
    fn raise(&self) -> String {
        let link = self.link;
        let mut lines: Vec<String> = self
            .addresses
            .iter()
            .map(|address| format!("ip address add {address} dev {link} {}", at_once(address)))
            .collect();
        lines.push(format!("ip link set {link} up"));
        lines.extend(
            self.routers
                .iter()
                .map(|router| format!("ip route add default via {router}")),
        );
        lines.join("\n")
    }
}

/// IPv6 would first look whether somebody has the address.
fn at_once(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

/// Runs a line of `sh` in this process's own network, which must succeed.
pub fn shell(line: &str) {
    run(Command::new("sh").args(["-ec", line]));
}

/// The command as it is, or as it runs where this thread has [entered](Namespace::enter).
pub(crate) fn entered(command: Command) -> Command {
    let Some(pid) = ENTERED.get() else {
        return command;
    };
    let mut inside = nsenter(pid, command.get_program());
    inside.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        inside.current_dir(directory);
    }
    inside
}

fn nsenter(pid: u32, program: &OsStr) -> Command {
    let mut command = Command::new("nsenter");
    // It becomes the program: the process id stays.
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("run a command");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
