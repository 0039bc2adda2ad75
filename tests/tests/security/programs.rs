//! The programs in front of, behind and into a cluster that wants TLS and SASL.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::programs::{Archive, ProxySettings, Restorer, RestorerRun, binary};
use teeline_tests::read_back::{ReadBack, assert_identical};
use teeline_tests::record::Record;
use teeline_tests::wait::{seconds, wait_for};
use teeline_tests::workdir::WorkDir;

use crate::secured::{PASSWORD, SECURED, USER, certificate};

const TOPIC: &str = "guarded";

pub(crate) fn records(from: usize, to: usize) -> Vec<Record> {
    (from..to)
        .map(|number| {
            Record::new(
                (number % 2) as i32,
                &format!("key {number}"),
                format!("value {number}"),
            )
        })
        .collect()
}

/// Access by SCRAM over TLS, with the password in a file.
pub(crate) fn credentials(work: &Path) -> Value {
    let password = work.join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    json!({
        "bootstrap_servers": SECURED.sasl_ssl(),
        "security_protocol": "SASL_SSL",
        "tls": {"ca_file": certificate("authority.pem")},
        "sasl": {"mechanism": "SCRAM-SHA-512", "username": USER, "password_file": password},
    })
}

/// What a producer needs where sessions have to authenticate themselves.
fn producer() -> ProducerConfig {
    let login = format!(
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{USER}\" password=\"{PASSWORD}\";"
    );
    ProducerConfig::of(&[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.jaas.config", &login),
    ])
}

/// Whether some object in it says so many records.
pub(crate) fn says_records(value: &Value, wanted: u64) -> bool {
    match value {
        Value::Object(fields) => {
            fields.get("records").and_then(Value::as_u64) == Some(wanted)
                || fields.values().any(|value| says_records(value, wanted))
        }
        Value::Array(items) => items.iter().any(|value| says_records(value, wanted)),
        _ => false,
    }
}

#[test]
fn sessions_authenticate_themselves_and_teeline_captures_fetches_and_restores_by_its_own_credentials() {
    let work = WorkDir::create("guarded");
    let plain = SECURED.kafka.bootstrap();
    let java = Driver::start(Family::Java);
    let topics: Vec<Value> = [TOPIC, "guarded-again"]
        .iter()
        .map(|name| json!({"name": name, "partitions": 2}))
        .collect();
    java.create_topics(&plain, &Value::from(topics));
    let archive = Archive::Directory(work.join("archive"));
    let mut settings = ProxySettings::new(work.path(), &SECURED.sasl_plaintext(), &archive);
    settings.document["clusters"][0]["upstream"]["capture_credentials"] = credentials(work.path());
    let mut proxy = settings.start();

    java.open_producer("through", &settings.bootstrap(), &producer());
    java.send_all("through", TOPIC, &records(0, 500));
    // Past the proxy: a hole, which the credentials fill.
    java.open_producer("past", &plain, &ProducerConfig::default());
    java.send_all("past", TOPIC, &records(500, 550));
    java.send_all("through", TOPIC, &records(550, 650));
    let restorer = Restorer::for_archive_of(&settings);
    wait_for(
        "the archive to hold what went past the proxy too",
        seconds(120),
        || {
            let run = restorer.run(&["describe", settings.backup_id(), "--json"]);
            match serde_json::from_str(&run.stdout) {
                Ok(described) if says_records(&described, 650) => Ok(()),
                _ => Err(format!("{}{}", run.stdout, run.stderr)),
            }
        },
    );
    proxy.stop();

    let job = work.join("restore.yaml");
    let document = json!({
        "mode": "restore",
        "backup_id": settings.backup_id(),
        "storage": settings.document["storage"],
        "target": credentials(work.path()),
        "restore": {
            "topics": [TOPIC],
            "topic_mapping": {TOPIC: "guarded-again"},
            "allow_source": true,
        },
    });
    std::fs::write(&job, document.to_string()).unwrap();
    let mut command = Command::new(binary("teeline-restorer"));
    command.args(["restore", "--quiet", "--config"]).arg(&job);
    let run = RestorerRun::from(command.output().unwrap());
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    let read = |topic| ReadBack::load(&java.read_into(&plain, &[topic], Isolation::Committed, true));
    let source = read(TOPIC);
    assert_eq!(source.count(), 650);
    assert_identical(&source.renamed(TOPIC, "guarded-again"), &read("guarded-again"));
    for text in [proxy.process.log(), run.stdout, run.stderr] {
        assert!(!text.contains(PASSWORD), "the password was written");
    }
}
