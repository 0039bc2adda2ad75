//! The demonstration: capture under load, lose everything but the archive, give it back, compare record by record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use teeline_tests::admin_port;
use teeline_tests::driver::{Driver, Family, Isolation, ProducerConfig};
use teeline_tests::kafka::Kafka;
use teeline_tests::nasty::now_ms;
use teeline_tests::programs::{Archive, Proxy, ProxySettings, binary};
use teeline_tests::read_back::ReadBack;
use teeline_tests::record::{Sent, read_load_log};
use teeline_tests::verdict::Verdict;
use teeline_tests::wait::{seconds, wait_for};

use crate::display::{Display, directory_bytes, grouped, megabytes};

/// How many acknowledged records there must be before everything is killed.
const RECORDS: u64 = 200_000;
const PARTITIONS: i32 = 3;
/// Topic, records per second, and what is special about it.
const TOPICS: [(&str, u32, &str); 3] = [
    ("clicks", 7_000, "lz4, some events arriving late"),
    ("payments", 4_000, "transactions, every fifth aborted"),
    ("customers", 4_000, "keys, headers, tombstones, zstd"),
];
const WINDOW_TOPIC: &str = "clicks-window";
/// One event stands for so many milliseconds of the story told: seconds of load become half a day of events.
const EVENT_STEP_MS: i64 = 400;

struct Lab {
    display: Display,
    directory: PathBuf,
    settings: ProxySettings,
    java: Driver,
    target: Kafka,
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

/// What the producers did and were told.
struct Produced {
    sent: BTreeMap<&'static str, Vec<Sent>>,
    acknowledged: u64,
    bytes: u64,
    first_timestamp: i64,
    seconds: f64,
    unarchived_seconds: f64,
}

struct Restored {
    whole: Verdict,
    window: Verdict,
    records_per_second: f64,
}

impl Lab {
    fn produce(&mut self, proxy: &mut Proxy, source: &mut Kafka) -> Produced {
        self.display.step(&format!(
            "Produce {} JSON events through the proxy, and pull the plug",
            grouped(RECORDS)
        ));
        let bootstrap = self.settings.bootstrap();
        let topics: Vec<Value> = TOPICS
            .iter()
            .map(|(name, ..)| json!({"name": name, "partitions": PARTITIONS}))
            .collect();
        self.java.create_topics(&bootstrap, &Value::from(topics));
        for (topic, _, about) in TOPICS {
            self.display.note(&format!("{topic}: {about}"));
        }
        let first_timestamp = now_ms() - 12 * 3_600_000;
        let logs = TOPICS.map(|(topic, rate, _)| (topic, self.start_load(topic, rate, first_timestamp)));
        let started = Instant::now();
        let (acknowledged, unarchived_seconds) = self.watch_load(proxy, started);
        // In the middle of everything, without a word: first the proxy, then the cluster, for good.
        proxy.kill();
        source.kill();
        let seconds = started.elapsed().as_secs_f64();
        self.display
            .note("SIGKILL: the proxy is dead, the source cluster is dead, and it will not come back");
        let mut bytes = 0;
        for (topic, ..) in TOPICS {
            bytes += self.java.stop_load(topic, 0)["bytes"].as_u64().expect("a count");
        }
        let sent: BTreeMap<_, _> = logs
            .into_iter()
            .map(|(topic, log)| (topic, read_load_log(&log)))
            .collect();
        Produced {
            sent,
            acknowledged,
            bytes,
            first_timestamp,
            seconds,
            unarchived_seconds,
        }
    }

    fn start_load(&self, topic: &str, rate: u32, first_timestamp: i64) -> PathBuf {
        let mut config = vec![
            ("acks", "all"),
            ("linger.ms", "10"),
            ("delivery.timeout.ms", "120000"),
            ("max.block.ms", "5000"),
        ];
        let mut settings = json!({"shape": topic, "rate": rate, "partitions": PARTITIONS, "seed": 1,
            "first_timestamp": first_timestamp, "step_ms": EVENT_STEP_MS});
        match topic {
            "clicks" => config.push(("compression.type", "lz4")),
            "payments" => {
                config.push(("transactional.id", "payments"));
                settings["transaction_records"] = json!(100);
                settings["abort_every"] = json!(5);
            }
            _ => config.push(("compression.type", "zstd")),
        }
        self.java.start_load(
            topic,
            &self.settings.bootstrap(),
            topic,
            &ProducerConfig::of(&config),
            settings,
        )
    }

    /// Shows the live line until enough is acknowledged.
    fn watch_load(&mut self, proxy: &mut Proxy, started: Instant) -> (u64, f64) {
        let archive = self.directory.join("archive");
        let mut speed = Speed::default();
        let mut unarchived: f64 = 0.0;
        let admin = self.settings.admin();
        let (mut line, mut acknowledged) = (String::new(), 0);
        wait_for("the load to be acknowledged", seconds(100), || {
            proxy.process.assert_running();
            acknowledged = TOPICS
                .iter()
                .map(|(topic, ..)| count(&self.java.load_status(topic), "acknowledged"))
                .sum();
            let captured = admin_port::metric(&admin, "teeline_captured_bytes_total").unwrap_or(0.0);
            unarchived =
                unarchived.max(admin_port::metric(&admin, "teeline_unarchived_seconds").unwrap_or(0.0));
            line = format!(
                "{:5.1} s   {:>7} records/s   {:>8} acknowledged   {:>9} captured   {:>8} in the archive",
                started.elapsed().as_secs_f64(),
                grouped(speed.after(acknowledged)),
                grouped(acknowledged),
                megabytes(captured as u64),
                megabytes(directory_bytes(&archive))
            );
            self.display.live(&line);
            if acknowledged >= RECORDS {
                Ok(())
            } else {
                Err(format!("{acknowledged} so far"))
            }
        });
        self.display.end_live(&line);
        (acknowledged, unarchived)
    }

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
        sum_of(&described, "unconfirmed_records")
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

    fn report(&self, produced: &Produced, restored: &Restored, unconfirmed: u64) -> bool {
        let stored = directory_bytes(&self.directory.join("archive"));
        let saved = 100.0 * (1.0 - stored as f64 / produced.bytes as f64);
        let (whole, window) = (&restored.whole, &restored.window);
        let identical = whole.is_identical() && window.is_identical() && whole.acknowledged >= RECORDS;
        let none_or = |count: u64| {
            if count == 0 {
                "none".to_owned()
            } else {
                grouped(count)
            }
        };
        let yes_no = |yes: bool| if yes { "yes" } else { "NO" }.to_owned();
        let rate = produced.acknowledged as f64 / produced.seconds;
        self.display.table(&[
            (
                "records acknowledged",
                format!(
                    "{}  ({} per second)",
                    grouped(whole.acknowledged),
                    grouped(rate as u64)
                ),
            ),
            ("bytes in (keys and values)", megabytes(produced.bytes)),
            ("bytes stored", megabytes(stored)),
            ("space saved", format!("{saved:.0} %")),
            (
                "capture lag",
                format!(
                    "0 records: on disk before each ack; archived within {:.1} s",
                    produced.unarchived_seconds
                ),
            ),
            (
                "restore rate",
                format!("{} records/s", grouped(restored.records_per_second as u64)),
            ),
            ("records restored whole", grouped(whole.restored)),
            (
                "records in the window",
                format!(
                    "{} restored, {} expected",
                    grouped(window.restored),
                    grouped(window.acknowledged)
                ),
            ),
            (
                "acknowledged records missing",
                none_or(whole.missing + window.missing),
            ),
            (
                "unconfirmed ones",
                format!(
                    "{}  ({} never acknowledged, yet restored)",
                    none_or(unconfirmed),
                    grouped(whole.unacknowledged_restored)
                ),
            ),
            (
                "aborted records restored",
                none_or(whole.aborted_restored + window.aborted_restored),
            ),
            ("identical, in order", yes_no(identical)),
            ("took", format!("{:.0} s", self.display.elapsed().as_secs_f64())),
        ]);
        if !identical {
            eprintln!("whole: {whole:?}\nwindow: {window:?}");
        }
        let archive = relative(&self.directory.join("archive"));
        println!(
            "\n   The archive lies in {archive}. Segments are ordinary Kafka logs, compressed. Try next:"
        );
        println!("     target/debug/teeline-restorer describe demo --archive {archive}");
        println!(
            "     target/debug/teeline-restorer restore demo --archive {archive} --target HOST:PORT --dry-run"
        );
        println!(
            "     target/debug/teeline-proxy run --upstream HOST:PORT      (before a cluster of your own)"
        );
        println!("     cargo xtask demo --keep                                  (leaves it running)");
        identical
    }

    /// Life goes on: the target becomes a source of its own behind a proxy, until Ctrl-C.
    fn keep_running(mut self) {
        self.display.step("Leave it running");
        let archive = Archive::Directory(self.directory.join("archive"));
        let mut settings =
            ProxySettings::new(&self.directory.join("after"), &self.target.bootstrap(), &archive);
        settings.document["backup_id"] = json!("after-the-disaster");
        let mut proxy = settings.start();
        self.display
            .note(&format!("restored cluster  {}", self.target.bootstrap()));
        self.display.note(&format!(
            "proxy before it   {}   (captures into backup after-the-disaster)",
            settings.bootstrap()
        ));
        self.display
            .note(&format!("metrics           http://{}/metrics", settings.admin()));
        self.display
            .note("press Ctrl-C to stop everything and clean up; the archive stays");
        // Ctrl-C ends this process, and the reaper then ends everything it started.
        proxy.process.wait_exit(Duration::MAX);
    }
}

/// Records per second over the last second or so.
#[derive(Default)]
struct Speed(Vec<(Instant, u64)>);

impl Speed {
    fn after(&mut self, count: u64) -> u64 {
        let now = Instant::now();
        self.0.push((now, count));
        self.0
            .retain(|(at, _)| now.duration_since(*at) < Duration::from_millis(1_500));
        let Some((first_at, first)) = self.0.first() else {
            return 0;
        };
        let elapsed = now.duration_since(*first_at).as_secs_f64();
        if elapsed > 0.1 {
            ((count - first) as f64 / elapsed) as u64
        } else {
            0
        }
    }
}

fn count(answer: &Value, field: &str) -> u64 {
    answer[field].as_u64().expect("a count")
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

/// As a person in the repository would type it.
fn relative(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
