//! The demonstration: capture under load, lose everything but the archive, give it back, compare record by record.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use teeline_tests::driver::{Driver, Family, Isolation};
use teeline_tests::kafka::Kafka;
use teeline_tests::programs::{Archive, ProxySettings, binary};
use teeline_tests::read_back::ReadBack;
use teeline_tests::verdict::Verdict;
use teeline_tests::wait::seconds;

use crate::display::{Display, grouped};
use crate::load::Produced;
use crate::report::relative;

/// How many acknowledged records there must be before everything is killed.
pub(crate) const RECORDS: u64 = 200_000;
pub(crate) const PARTITIONS: i32 = 3;
/// Topic, records per second, and what is special about it.
pub(crate) const TOPICS: [(&str, u32, &str); 3] = [
    ("clicks", 7_000, "lz4, some events arriving late"),
    ("payments", 4_000, "transactions, every fifth aborted"),
    ("customers", 4_000, "keys, headers, tombstones, zstd"),
];
const WINDOW_TOPIC: &str = "clicks-window";
/// One event stands for so many milliseconds of the story told: seconds of load become half a day of events.
pub(crate) const EVENT_STEP_MS: i64 = 400;

pub(crate) struct Lab {
    pub(crate) display: Display,
    pub(crate) directory: PathBuf,
    pub(crate) settings: ProxySettings,
    pub(crate) java: Driver,
    pub(crate) target: Kafka,
}

/// Runs it; anything not identical is a failure.
pub(crate) fn run(keep: bool) -> ExitCode {
    let mut display = Display::new();
    println!("Teeline demo: two real Kafka clusters, a disaster, and everything back.");
    let directory = fresh_directory();

    display.step("Start the proxy, then the source cluster behind it, and a target cluster");
    let mut source = Kafka::prepare(1, "");
    let mut settings = ProxySettings::new(
        &directory,
        &source.bootstrap(),
        &Archive::Directory(directory.join("archive")),
    );
    settings.document["backup_id"] = json!("demo");
    settings.document["segmenter"]["segment_max_interval_ms"] = json!(4_000);
    let mut proxy = settings.launch();
    let (java, target) = std::thread::scope(|scope| {
        let target = scope.spawn(Kafka::start_one);
        source.start_all();
        (
            Driver::start(Family::Java),
            target.join().expect("start the target cluster"),
        )
    });
    proxy.wait_ready(seconds(60));
    display.note(&format!(
        "source {}   proxy {}   target {}",
        source.bootstrap(),
        settings.bootstrap(),
        target.bootstrap()
    ));
    display.note(&format!(
        "teeline-proxy run --config {}",
        relative(&directory.join("teeline.yaml"))
    ));
    let mut lab = Lab {
        display,
        directory,
        settings,
        java,
        target,
    };

    let produced = lab.produce(&mut proxy, &mut source);
    let unconfirmed = lab.archive_what_the_buffer_holds();
    lab.list();
    let restored = lab.restore(&produced);
    let identical = lab.report(&produced, &restored, unconfirmed);
    if keep && identical {
        lab.keep_running();
    }
    if identical {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

pub(crate) struct Restored {
    pub(crate) whole: Verdict,
    pub(crate) window: Verdict,
    pub(crate) records_per_second: f64,
}

impl Lab {
    /// The buffer outlived the proxy; a segmenter archives it, told that the cluster can no longer be asked.
    fn archive_what_the_buffer_holds(&mut self) -> u64 {
        self.display
            .step("Archive what the dead proxy's buffer still holds");
        self.display
            .note("teeline-segmenter run --config … --source-lost --until-drained");
        let mut segmenter = self
            .settings
            .launch_segmenter(&["--source-lost", "--until-drained"]);
        let status = segmenter.wait_exit(seconds(60));
        // 3 says that something stays unconfirmed, which is the truth after such an end.
        assert!(
            matches!(status.code(), Some(0 | 3)),
            "the segmenter failed ({status}):\n{}",
            segmenter.log_tail()
        );
        let described = self.restorer(&["describe", "demo", "--json"]);
        let described: Value = serde_json::from_str(&described).expect("JSON from describe");
        sum_of(&described, "records_unconfirmed")
    }

    fn list(&mut self) {
        self.display.step("List what the archive has");
        self.display.note("teeline-restorer list --archive …");
        for line in self.restorer(&["list"]).lines() {
            println!("   {line}");
        }
    }

    fn restore(&mut self, produced: &Produced) -> Restored {
        self.display
            .step("Restore into the target cluster: the topics whole, and a window of one");
        let (from, to) = self.window(produced);
        let archive = self.directory.join("archive");
        let started = Instant::now();
        self.run_restore(
            &archive,
            &["--topic", "payments", "--topic", "customers", "--topic", "clicks"],
        );
        let elapsed = started.elapsed();
        let (from_text, to_text) = (from.to_string(), to.to_string());
        let map = format!("clicks={WINDOW_TOPIC}");
        self.run_restore(
            &archive,
            &[
                "--topic",
                "clicks",
                "--map",
                &map,
                "--from-timestamp",
                &from_text,
                "--to-timestamp",
                &to_text,
            ],
        );

        self.display
            .step("Read back with a real consumer, and compare with what the producers were told");
        let mut names: Vec<&str> = TOPICS.iter().map(|(name, ..)| *name).collect();
        names.push(WINDOW_TOPIC);
        let file = self
            .java
            .read_into(&self.target.bootstrap(), &names, Isolation::Uncommitted, false);
        let read = ReadBack::load(&file);
        let (mut whole, mut window) = (Verdict::default(), Verdict::default());
        for (topic, sent) in &produced.sent {
            whole.compare(&read, topic, PARTITIONS, sent, None);
        }
        window.compare(
            &read,
            WINDOW_TOPIC,
            PARTITIONS,
            &produced.sent["clicks"],
            Some((from, to)),
        );
        let records_per_second = whole.restored as f64 / elapsed.as_secs_f64();
        self.display.note(&format!(
            "{} records read and compared",
            grouped(read.count() as u64)
        ));
        Restored {
            whole,
            window,
            records_per_second,
        }
    }

    /// From a third to two thirds of the clicks' story.
    fn window(&self, produced: &Produced) -> (i64, i64) {
        let length = EVENT_STEP_MS * i64::try_from(produced.sent["clicks"].len()).expect("a count");
        (
            produced.first_timestamp + length / 3,
            produced.first_timestamp + 2 * length / 3,
        )
    }

    fn run_restore(&self, archive: &Path, flags: &[&str]) {
        let mut command = Command::new(binary("teeline-restorer"));
        command
            .args(["restore", "demo", "--archive"])
            .arg(archive)
            .args(["--target", &self.target.bootstrap()])
            .args(flags);
        self.display.note(&format!(
            "teeline-restorer restore demo --archive … --target … {}",
            flags.join(" ")
        ));
        if !self.display.is_terminal() {
            command.arg("--quiet");
        }
        let output = command
            .stderr(Stdio::inherit())
            .stdout(Stdio::piped())
            .output()
            .expect("run the restorer");
        let text = String::from_utf8_lossy(&output.stdout);
        // 3 says that it is incomplete: the comparison will say whether anything acknowledged is missing.
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "the restore failed ({}):\n{text}",
            output.status
        );
    }

    fn restorer(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binary("teeline-restorer"));
        command
            .args(arguments)
            .arg("--archive")
            .arg(self.directory.join("archive"));
        let output = command.output().expect("run the restorer");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{command:?} failed:\n{}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

/// The sum of a field wherever it stands in a document.
fn sum_of(value: &Value, field: &str) -> u64 {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                if name == field {
                    value.as_u64().unwrap_or(0)
                } else {
                    sum_of(value, field)
                }
            })
            .sum(),
        Value::Array(values) => values.iter().map(|value| sum_of(value, field)).sum(),
        _ => 0,
    }
}

fn fresh_directory() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .join("target");
    let directory = target.join("demo");
    if directory.exists() {
        std::fs::remove_dir_all(&directory).expect("remove what the last demo left");
    }
    std::fs::create_dir_all(&directory).expect("create the demo's directory");
    directory
}
