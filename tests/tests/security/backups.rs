//! Backups, and what is asked about them, where the cluster wants to know who asks.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use teeline_tests::backups::Backup;
use teeline_tests::driver::{Driver, Family, ProducerConfig};
use teeline_tests::programs::{Archive, ProxySettings, Restorer, RestorerRun, binary};
use teeline_tests::wait::{seconds, wait_for};
use teeline_tests::workdir::WorkDir;

use crate::programs::{credentials, records, says_records};
use crate::secured::{PASSWORD, SECURED, USER, certificate};

/// Makes topics past all protection, with so many records each.
fn topics(java: &Driver, names: &[&str], count: usize) {
    let plain = SECURED.kafka.bootstrap();
    let new: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "partitions": 2}))
        .collect();
    java.create_topics(&plain, &Value::from(new));
    java.open_producer("anybody", &plain, &ProducerConfig::default());
    for name in names {
        java.send_all("anybody", name, &records(0, count));
    }
}

/// Access by PLAIN over TLS, with the password in place.
fn by_password() -> Value {
    json!({
        "bootstrap_servers": SECURED.sasl_ssl(),
        "security_protocol": "SASL_SSL",
        "tls": {"ca_file": certificate("authority.pem")},
        "sasl": {"mechanism": "PLAIN", "username": USER, "password": PASSWORD},
    })
}

/// Access by a certificate.
fn by_certificate() -> Value {
    json!({
        "bootstrap_servers": SECURED.mutual_tls(),
        "security_protocol": "SSL",
        "tls": {
            "ca_file": certificate("authority.pem"),
            "cert_file": certificate("client.pem"),
            "key_file": certificate("client.key"),
            "server_name": "kafka.test",
        },
    })
}

fn file(path: PathBuf, document: &Value) -> String {
    std::fs::write(&path, document.to_string()).unwrap();
    path.display().to_string()
}

fn coverage(arguments: &[&str]) -> RestorerRun {
    let mut command = Command::new(binary("teeline-restorer"));
    command
        .args(["coverage", "--json", "--grace", "0"])
        .args(arguments);
    RestorerRun::from(command.output().unwrap())
}

fn is_whole(run: &RestorerRun) -> bool {
    let says: Value = serde_json::from_str(&run.stdout).unwrap_or_default();
    assert!(!says.is_null(), "{}{}", run.stdout, run.stderr);
    run.code == 0
}

fn holds(restorer: &Restorer, count: u64) -> Result<(), String> {
    let run = restorer.run(&["describe", restorer.backup_id(), "--json"]);
    match serde_json::from_str(&run.stdout) {
        Ok(described) if says_records(&described, count) => Ok(()),
        _ => Err(format!("{}{}", run.stdout, run.stderr)),
    }
}

#[test]
fn one_run_makes_several_backups_each_by_its_own_credentials_and_coverage_uses_them_too() {
    let work = WorkDir::create("several");
    let java = Driver::start(Family::Java);
    topics(&java, &["several-one", "several-two"], 200);
    let backup = |name: &str, source: Value| {
        let directory = work.subdirectory(name);
        let archive = Archive::Directory(work.join("archive"));
        let topic = format!("several-{name}");
        let mut backup = Backup::into_archive(&directory, "unused:1", &[&topic], archive);
        backup.document["source"] = source;
        backup.document["backup_id"] = json!(name);
        backup
    };
    let first = backup("one", credentials(work.path()));
    let second = backup("two", by_certificate());
    let second_file = file(work.join("two.yaml"), &second.document);
    let run = first.run(&["--config", &second_file]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for backup in [&first, &second] {
        holds(&backup.restorer(), 200).unwrap();
    }

    // What the file of a backup says serves coverage too: the cluster it names, or another address of the same.
    let first_file = file(work.join("one.yaml"), &first.document);
    let live = ["one", "--config", &first_file, "--live", "--topic", "several-one"];
    let run = coverage(&live);
    assert!(is_whole(&run), "{}{}", run.stdout, run.stderr);
    let live = [
        "two",
        "--config",
        &second_file,
        "--live",
        "--topic",
        "several-two",
    ];
    assert!(is_whole(&coverage(&live)));
    topics_go_on(&java);
    let address = SECURED.sasl_ssl();
    let source = ["--source", &address, "--topic", "several-one"];
    let run = coverage(&[&["one", "--config", &first_file], &source[..]].concat());
    let says: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(says["offsets"]["not_yet"], 10, "{}{}", run.stdout, run.stderr);
    // Without credentials nothing can be asked.
    let archive = work.join("archive").display().to_string();
    let run = coverage(&[&["one", "--archive", &archive], &source[..]].concat());
    assert!(run.code != 0 && run.code != 3, "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains("connect to the source"), "{}", run.stderr);

    let mut wrong = by_password();
    wrong["sasl"]["password"] = json!("wrong");
    let third_file = file(work.join("three.yaml"), &backup("three", wrong).document);
    let run = first.run(&["--config", &third_file]);
    assert_ne!(run.code, 0, "one of the two cannot get in: {}", run.stderr);
    assert!(run.stderr.contains("PLAIN"), "{}", run.stderr);
    holds(&first.restorer(), 210).unwrap();
}

fn topics_go_on(java: &Driver) {
    java.send_all("anybody", "several-one", &records(200, 210));
}

fn metric_active(settings: &ProxySettings) -> Result<(), String> {
    match teeline_tests::admin_port::metric(&settings.admin(), "teeline_audit_active") {
        Ok(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn guarded_proxy(work: &Path, topic: &str) -> ProxySettings {
    let archive = Archive::Directory(work.join("archive"));
    let mut settings = ProxySettings::new(work, &SECURED.kafka.bootstrap(), &archive);
    settings.document["clusters"][0]["upstream"]["capture_credentials"] = credentials(work);
    settings.document["clusters"][0]["capture"]["include"] = json!([topic]);
    settings.document["audit"] = json!({"interval": "500ms", "grace": "2s", "lease_ttl": "8s"});
    settings
}

#[test]
fn an_auditor_with_credentials_gives_way_to_a_backup_run_and_takes_its_place_again() {
    const TOPIC: &str = "giving-way";
    let work = WorkDir::create("giving-way");
    let java = Driver::start(Family::Java);
    let settings = guarded_proxy(work.path(), TOPIC);
    let mut proxy = settings.start();
    wait_for("the proxy to audit", seconds(60), || metric_active(&settings));
    topics(&java, &[TOPIC], 100);
    let directory = work.subdirectory("run");
    let archive = Archive::Directory(work.join("archive"));
    let mut backup = Backup::into_archive(&directory, "unused:1", &[TOPIC], archive);
    backup.document["source"] = by_password();
    backup.document["backup_id"] = json!(settings.backup_id());
    let run = backup.run(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let restorer = Restorer::for_archive_of(&settings);
    holds(&restorer, 100).unwrap();
    wait_for("the proxy to have given way", seconds(60), || {
        let log = proxy.process.log();
        match log.contains("another process audits now") || log.contains("giving way") {
            true => Ok(()),
            false => Err(proxy.process.log_tail()),
        }
    });
    java.send_all("anybody", TOPIC, &records(100, 130));
    wait_for("the proxy to audit again", seconds(120), || {
        metric_active(&settings)
    });
    wait_for(
        "the auditor to fetch what went past the proxy",
        seconds(120),
        || holds(&restorer, 130),
    );
    proxy.stop();
}
