//! The clients of the matrix, pinned, fetched with the package clients of their languages into the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::components::{fetch, hash, kafka_class_path, kafka_jars, maven, source};

/// The module whose own tests are run against the proxy, and its version.
pub const KGO: (&str, &str) = ("github.com/twmb/franz-go", "v1.22.2");

/// The class path of the Java program with the clients, Streams and Connect of a version.
pub fn java_class_path(version: &str) -> String {
    let pom = source("components/matrix-java.xml");
    let name = format!("matrix-java-{version}-{:016x}", hash(std::slice::from_ref(&pom)));
    let jars = fetch(&name, "Java clients by Maven", |into| maven(&pom, version, into));
    // Share groups came with version 4.
    let omitted: &[&str] = if version.starts_with('3') {
        &["Sharing.java"]
    } else {
        &[]
    };
    compiled(&format!("{}/*", jars.display()), version, omitted)
}

/// The class path of the Java program with the client libraries that every test has, without Streams and Connect.
pub fn java_client_class_path() -> String {
    let omitted = ["Counting.java", "Connecting.java"];
    compiled(&kafka_class_path(), "client-only", &omitted)
}

fn compiled(libraries: &str, name: &str, omitted: &[&str]) -> String {
    let sources: Vec<PathBuf> = files(&source("clients/matrix/java"))
        .into_iter()
        .filter(|path| !omitted.iter().any(|name| path.ends_with(name)))
        .collect();
    let name = format!("matrix-classes-{name}-{:016x}", hash(&sources));
    let classes = fetch(&name, "the Java program of the matrix", |into| {
        let mut javac = Command::new("javac");
        // Both versions have what the older one does not warn of yet.
        javac.args([
            "--release",
            "17",
            "-proc:none",
            "-Xlint:-removal",
            "-cp",
            libraries,
            "-d",
        ]);
        javac.arg(into).args(&sources);
        javac
    });
    format!("{}:{libraries}", classes.display())
}

/// The packages of the Python programs.
pub fn python_packages() -> PathBuf {
    let requirements = source("clients/matrix/python/requirements.txt");
    let version = Command::new("python3")
        .arg("--version")
        .output()
        .expect("run python3");
    // Compiled packages are for one version of Python.
    let version = String::from_utf8_lossy(&version.stdout).trim().replace(' ', "-");
    let name = format!(
        "matrix-{version}-{:016x}",
        hash(std::slice::from_ref(&requirements))
    );
    fetch(&name, "Python clients by pip", |into| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "-q", "--no-deps", "--target"])
            .arg(into)
            .arg("-r")
            .arg(&requirements);
        pip
    })
}

/// The packages of the Node program.
pub fn node_modules() -> PathBuf {
    let lock = [
        source("clients/matrix/node/package.json"),
        source("clients/matrix/node/package-lock.json"),
    ];
    let directory = fetch(
        &format!("matrix-node-{:016x}", hash(&lock)),
        "kafkajs by npm",
        |into| {
            for path in &lock {
                let name = path.file_name().expect("a file has a name");
                fs::copy(path, into.join(name)).expect("copy a file of packages");
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(into);
            npm
        },
    );
    directory.join("node_modules")
}

/// The directory of the Go programs.
pub fn go_programs() -> PathBuf {
    let module = source("clients/matrix/go");
    let mut sources = files(&module);
    for package in ["contract", "franz", "sarama", "segmentio"] {
        sources.extend(files(&module.join(package)));
    }
    fetch(
        &format!("matrix-go-{:016x}", hash(&sources)),
        "the Go programs of the matrix",
        |into| {
            let mut go = Command::new("go");
            go.args(["build", "-trimpath", "-o"])
                .arg(into)
                .args(["./franz", "./sarama", "./segmentio"]);
            go.current_dir(&module)
                .env("CGO_ENABLED", "0")
                .env_remove("GOFLAGS");
            go
        },
    )
}

/// The test binary of franz-go's `kgo` package, which nobody here wrote, and the directory of its sources.
pub fn kgo_tests() -> (PathBuf, PathBuf) {
    let (module, version) = KGO;
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{module}@{version}")])
        .output()
        .expect("run go");
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("download {module}: {error}"));
    let root = PathBuf::from(answer["Dir"].as_str().expect("where Go has put the module"));
    let directory = fetch(
        &format!("kgo-tests-{version}"),
        "franz-go's own tests as a Go module",
        |into| {
            let mut go = Command::new("go");
            go.args(["test", "-c", "-o"])
                .arg(into.join("kgo.test"))
                .arg("./pkg/kgo")
                .current_dir(&root)
                .env("CGO_ENABLED", "0")
                .env("GOFLAGS", "-mod=mod");
            go
        },
    );
    (directory.join("kgo.test"), root.join("pkg/kgo"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("list {}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("list a directory of sources").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// The class path of a broker with KRaft.
pub fn broker_class_path(version: &str) -> String {
    kafka_jars(version)
}

/// The class path of a broker that needs ZooKeeper, and of ZooKeeper.
pub fn old_broker_class_path(version: &str) -> String {
    let pom = source("components/old-kafka.xml");
    let name = format!("old-kafka-{version}-{:016x}", hash(std::slice::from_ref(&pom)));
    let jars = fetch(&name, "Kafka's jars by Maven", |into| maven(&pom, version, into));
    format!("{}/*", jars.display())
}
