//! What the tests need beside this repository, fetched with the ordinary package clients and cached outside it.
//!
//! Every component has a directory of its own in the cache, named by its version or by a hash of its sources, and
//! appears there by a rename: what is there is whole. A lock lets one process fetch while others wait.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of Kafka's brokers, tools and Java client.
pub const KAFKA_VERSION: &str = "4.3.1";
const VERSITYGW: &str = "github.com/versity/versitygw/cmd/versitygw";
const VERSITYGW_VERSION: &str = "v1.8.0";
const COPY_DEPENDENCIES: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// The cache: `TEELINE_CACHE`, else `teeline` in the user's cache directory.
pub fn cache_directory() -> PathBuf {
    if let Some(path) = env::var_os("TEELINE_CACHE") {
        return PathBuf::from(path);
    }
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    base.expect("no home directory: set TEELINE_CACHE")
        .join("teeline")
}

/// The brokers' version: another one where `TEELINE_KAFKA_VERSION` asks for it.
pub fn broker_version() -> String {
    env::var("TEELINE_KAFKA_VERSION").unwrap_or_else(|_| KAFKA_VERSION.to_owned())
}

/// The class path of the brokers.
pub fn broker_class_path() -> String {
    kafka_jars(&broker_version())
}

/// The class path of Kafka's tools and clients.
pub fn kafka_class_path() -> String {
    kafka_jars(KAFKA_VERSION)
}

/// The class path of a version's brokers, 3.5 and later.
pub fn kafka_jars(version: &str) -> String {
    let pom = source("components/pom.xml");
    let directory = fetch(&format!("kafka-{version}"), "Kafka's jars by Maven", |into| {
        maven(&pom, version, into)
    });
    format!("{}/*", directory.display())
}

/// Copies what a project file names, and all that it needs, into a directory.
pub(crate) fn maven(pom: &Path, version: &str, into: &Path) -> Command {
    let mut maven = Command::new("mvn");
    maven
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .arg(COPY_DEPENDENCIES)
        .args(["-DincludeScope=runtime", &format!("-Dkafka.version={version}")]);
    maven.arg(format!("-DoutputDirectory={}", into.display()));
    maven
}

/// The S3 server versitygw.
pub fn versitygw() -> PathBuf {
    let directory = fetch(
        &format!("versitygw-{VERSITYGW_VERSION}"),
        "versitygw as a Go module",
        |into| {
            let mut go = Command::new("go");
            go.args([
                "install",
                "-trimpath",
                &format!("{VERSITYGW}@{VERSITYGW_VERSION}"),
            ]);
            go.env("GOBIN", into)
                .env("CGO_ENABLED", "0")
                .env_remove("GOFLAGS");
            go
        },
    );
    directory.join("versitygw")
}

/// The class path of the Java client program, Kafka's own included.
pub fn java_client_class_path() -> String {
    let kafka = kafka_class_path();
    let sources: Vec<PathBuf> = ["TeelineClient.java", "Load.java", "Group.java", "Events.java"]
        .iter()
        .map(|name| source("clients/java").join(name))
        .collect();
    let directory = fetch(
        &format!("java-client-{:016x}", hash(&sources)),
        "the Java client program",
        |into| {
            let mut javac = Command::new("javac");
            javac
                .args(["--release", "17", "-proc:none", "-cp", &kafka, "-d"])
                .arg(into)
                .args(&sources);
            javac
        },
    );
    format!("{}:{kafka}", directory.display())
}

/// The franz-go client program.
pub fn go_client() -> PathBuf {
    let module = source("clients/go");
    let sources: Vec<PathBuf> = fs::read_dir(&module)
        .expect("the Go client's directory")
        .map(|entry| entry.expect("list the Go client's directory").path())
        .filter(|path| path.is_file())
        .collect();
    let directory = fetch(
        &format!("go-client-{:016x}", hash(&sources)),
        "the franz-go client program",
        |into| {
            let mut go = Command::new("go");
            go.args(["build", "-trimpath", "-o"])
                .arg(into.join("client"))
                .arg(".");
            go.current_dir(&module)
                .env("CGO_ENABLED", "0")
                .env_remove("GOFLAGS");
            go
        },
    );
    directory.join("client")
}

/// The class path of the KDC program, Apache Kerby's own jars included.
pub fn kdc_class_path() -> String {
    let pom = source("components/kdc-pom.xml");
    let program = source("clients/kdc/Kdc.java");
    let jars = fetch(
        &format!("kerby-{:016x}", hash(std::slice::from_ref(&pom))),
        "a KDC's jars by Maven",
        |into| {
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", "-f"]).arg(&pom).arg(COPY_DEPENDENCIES);
            maven.arg("-DincludeScope=runtime");
            maven.arg(format!("-DoutputDirectory={}", into.display()));
            maven
        },
    );
    let jars = format!("{}/*", jars.display());
    let directory = fetch(
        &format!("kdc-{:016x}", hash(&[pom, program.clone()])),
        "the KDC program",
        |into| {
            let mut javac = Command::new("javac");
            javac.args(["--release", "17", "-proc:none", "-cp", &jars, "-d"]);
            javac.arg(into).arg(&program);
            javac
        },
    );
    format!("{}:{jars}", directory.display())
}

/// MIT Kerberos as Debian packs it, unpacked but not installed: the packages' root. Their lists have to be there
/// (`apt-get update`).
pub fn mit_kerberos() -> PathBuf {
    fetch("mit-kerberos", "MIT Kerberos from Debian's packages", |into| {
        let mut shell = Command::new("sh");
        shell.args(["-euc", UNPACK_MIT_KERBEROS]).current_dir(into);
        shell
    })
}

const UNPACK_MIT_KERBEROS: &str = "\
apt-get download krb5-kdc krb5-user krb5-admin-server libkdb5-10 libkadm5srv-mit12 libkadm5clnt-mit12 libgssrpc4 \
  libverto1 libverto-libev1 libev4 libgssapi-krb5-2 libkrb5-3 libkrb5support0 libk5crypto3
for package in *.deb; do dpkg -x \"$package\" .; rm \"$package\"; done";

/// A path inside the tests' own directory of the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn hash(sources: &[PathBuf]) -> u64 {
    let mut sorted = sources.to_vec();
    sorted.sort();
    let mut hasher = DefaultHasher::new();
    for path in sorted {
        hasher.write(&fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display())));
    }
    hasher.finish()
}

/// The directory of a component, made by `command` in a temporary place if it is not there yet.
pub(crate) fn fetch(name: &str, what: &str, command: impl FnOnce(&Path) -> Command) -> PathBuf {
    let cache = cache_directory();
    let directory = cache.join(name);
    if directory.exists() {
        return directory;
    }
    fs::create_dir_all(&cache).unwrap_or_else(|error| panic!("create {}: {error}", cache.display()));
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("create the lock of a component");
    lock.lock().expect("lock a component of the cache");
    if directory.exists() {
        return directory;
    }
    eprintln!("fetching {what} into {} ...", directory.display());
    let partial = cache.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial).expect("remove what an interrupted fetch left behind");
    }
    fs::create_dir_all(&partial).expect("create a directory in the cache");
    let mut command = command(&partial);
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("fetch {what}: run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "fetch {what}: {command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&partial, &directory).expect("publish a component in the cache");
    directory
}
