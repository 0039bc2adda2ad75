//! A realm of Kerberos with its KDC, on loopback.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::components;
use crate::ports::PortBlock;
use crate::process::Process;
use crate::wait::{seconds, wait_for};
use crate::workdir::WorkDir;

/// The realm's name.
pub const REALM: &str = "TEELINE.TEST";

/// Whose KDC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// Apache Kerby, which Maven has.
    Kerby,
    /// MIT Kerberos, which Debian has.
    Mit,
}

/// A KDC with its principals.
#[derive(Debug)]
pub struct Kdc {
    maker: Maker,
    process: Option<Process>,
    work: WorkDir,
    ports: PortBlock,
    principals: Vec<String>,
}

impl Kdc {
    /// A realm with these principals, each with a keytab and tickets.
    pub fn start(maker: Maker, principals: &[&str]) -> Self {
        let mut kdc = Self {
            maker,
            process: None,
            work: WorkDir::create("kdc"),
            ports: PortBlock::reserve(),
            principals: principals.iter().map(ToString::to_string).collect(),
        };
        kdc.write_configuration();
        match maker {
            Maker::Kerby => kdc.start_kerby(),
            Maker::Mit => {
                kdc.make_mit_realm();
                kdc.start_mit();
            }
        }
        kdc
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// `krb5.conf` for clients and servers of the realm.
    pub fn configuration(&self) -> PathBuf {
        self.work.join("realm.conf")
    }

    /// The keys of a principal.
    pub fn keytab(&self, principal: &str) -> PathBuf {
        self.file(principal, "keytab")
    }

    /// A ticket of a principal that grants others, in a file.
    pub fn tickets(&self, principal: &str) -> PathBuf {
        self.file(principal, "tickets")
    }

    fn file(&self, principal: &str, kind: &str) -> PathBuf {
        self.work.join(format!("{}.{kind}", principal.replace('/', "-")))
    }

    fn write_configuration(&self) {
        let database = self.work.join("principals").display().to_string();
        let stash = self.work.join("stash").display().to_string();
        let address = self.ports.address(0);
        let port = self.ports.port(0);
        let modules = match self.maker {
            Maker::Kerby => String::new(),
            Maker::Mit => library_directory().join("krb5/plugins/kdb").display().to_string(),
        };
        // Clients and servers read the first part, MIT's KDC all of it.
        let text = format!(
            "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n \
             rdns = false\n dns_canonicalize_hostname = false\n udp_preference_limit = 1\n\
             [realms]\n {REALM} = {{\n  kdc = {address}\n  database_name = {database}\n  key_stash_file = {stash}\n  \
             acl_file = /dev/null\n  kdc_listen = \"\"\n  kdc_tcp_listen = 127.0.0.1:{port}\n  \
             supported_enctypes = aes256-cts-hmac-sha384-192:normal aes256-cts-hmac-sha1-96:normal \
             aes128-cts-hmac-sha256-128:normal aes128-cts-hmac-sha1-96:normal\n  \
             default_principal_flags = +preauth\n }}\n\
             [dbmodules]\n db_module_dir = {modules}\n"
        );
        fs::write(self.configuration(), text).expect("write krb5.conf");
    }

    fn start_kerby(&mut self) {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.args([&components::kdc_class_path(), "Kdc", REALM]);
        command.arg(self.ports.port(0).to_string()).arg(self.work.path());
        command.args(&self.principals);
        let log = self.work.join("kdc.log");
        let process = Process::start_with("KDC", command, &log, Stdio::piped(), None);
        let process = self.process.insert(process);
        wait_for("the KDC to have its principals", seconds(60), || {
            process.assert_running();
            match process.log().contains("ready") {
                true => Ok(()),
                false => Err(process.log_tail()),
            }
        });
    }

    /// A command of MIT's, in the realm's surroundings.
    fn mit(&self, program: &str) -> Command {
        let mut command = Command::new(components::mit_kerberos().join(program));
        command
            .env("LD_LIBRARY_PATH", library_directory())
            .env("KRB5_CONFIG", self.configuration())
            .env("KRB5_KDC_PROFILE", self.configuration());
        command
    }

    fn make_mit_realm(&self) {
        let run = |command: &mut Command| {
            let output = command.output().expect("run MIT's Kerberos");
            assert!(
                output.status.success(),
                "{command:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(self
            .mit("usr/sbin/kdb5_util")
            .args(["create", "-s", "-W", "-r", REALM, "-P", "master"]));
        for principal in &self.principals {
            let add = format!("addprinc -randkey {principal}");
            let write = format!("ktadd -k {} {principal}", self.keytab(principal).display());
            for query in [add, write] {
                run(self
                    .mit("usr/sbin/kadmin.local")
                    .args(["-r", REALM, "-q", &query]));
            }
        }
    }

    fn start_mit(&mut self) {
        let mut command = self.mit("usr/sbin/krb5kdc");
        command
            .args(["-n", "-r", REALM, "-P"])
            .arg(self.work.join("kdc.pid"));
        let process = Process::start("krb5kdc", command, &self.work.join("kdc.log"));
        let address = self.ports.address(0);
        let process = self.process.insert(process);
        wait_for("the KDC to listen", seconds(30), || {
            process.assert_running();
            TcpStream::connect(&address)
        });
        for principal in &self.principals {
            let mut command = self.mit("usr/bin/kinit");
            command.arg("-k").arg("-t").arg(self.keytab(principal));
            command.arg("-c").arg(self.tickets(principal)).arg(principal);
            let output = command.output().expect("run kinit");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// Where Debian has the libraries of this architecture.
fn library_directory() -> PathBuf {
    let root: &Path = &components::mit_kerberos().join("usr/lib");
    root.join(format!("{}-linux-gnu", std::env::consts::ARCH))
}
