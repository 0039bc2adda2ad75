//! What `bench backup` and `bench restore` have in common: cases, programs, lines.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::{Value, json};
use teeline_tests::ports::PortBlock;
use teeline_tests::process::Process;
use teeline_tests::programs::{Archive, binary};
use teeline_tests::s3::{ACCESS_KEY, BUCKET, S3, SECRET_KEY};
use teeline_tests::wait::{seconds, wait_until};
use teeline_tests::workdir::WorkDir;

use crate::lean::in_turn;
use crate::producer::RECORD_BYTES;
use crate::report::{self, Interval, median};
use crate::timed::{self, Timed};

/// The topic that is backed up.
pub const TOPIC: &str = "bench";
/// The backup.
pub const BACKUP_ID: &str = "bench";

/// One combination of codecs and store.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// As producers compress.
    pub producers: String,
    /// As segments are compressed.
    pub archive: String,
    /// `filesystem` or `s3`.
    pub store: &'static str,
}

impl Case {
    /// Every producers' codec with the archive's own, and the archive's codecs for what producers do not compress: all of
    /// it in a directory, and in S3 if that is wanted.
    pub fn all(producers: &[String], archives: &[String], s3: bool) -> Vec<Case> {
        let case = |producers: &str, archive: &str, store| Case {
            producers: producers.to_owned(),
            archive: archive.to_owned(),
            store,
        };
        let first = archives.first().map_or("zstd", String::as_str);
        let stores = ["filesystem", "s3"];
        let mut all = Vec::new();
        for store in stores.into_iter().take(1 + usize::from(s3)) {
            all.extend(producers.iter().map(|codec| case(codec, first, store)));
            let rest = archives.iter().skip(1);
            all.extend(rest.map(|archive| case("none", archive, store)));
        }
        all
    }

    /// Those of them with this codec of producers and the archive's own codec, which Kafka's tools run beside.
    pub fn beside_tools(producers: &str, archives: &[String], s3: bool) -> Vec<Case> {
        let first = archives.get(..1).unwrap_or_default();
        Case::all(&[producers.to_owned()], first, s3)
    }

    /// For file names.
    pub fn label(&self) -> String {
        format!("{}-{}-{}", self.producers, self.archive, self.store)
    }
}

/// What one program did in all rounds of a case.
#[derive(Debug, Default, Clone)]
pub struct Rounds {
    /// Of records before compression.
    pub mb_per_second: Vec<f64>,
    /// For those bytes.
    pub cpu_per_gb: Vec<f64>,
    /// The largest of all rounds.
    pub peak_mib: f64,
}

impl Rounds {
    /// Notes a run that dealt with so many bytes of records in so many seconds.
    pub fn note(&mut self, bytes: u64, seconds: f64, timed: &Timed) {
        self.mb_per_second.push(bytes as f64 / 1e6 / seconds);
        self.cpu_per_gb.push(timed.cpu_seconds / (bytes as f64 / 1e9));
        self.peak_mib = self.peak_mib.max(timed.peak_mib);
    }
}

/// Rounds of so many bytes in which Kafka's tool (which tells its own megabytes a second) and Teeline take turns, each
/// first in half of an even number of them. The first round only warms up. Kafka's tool first, then Teeline.
pub fn beside_tool(
    count: usize,
    case: &Case,
    bytes: u64,
    tool: impl Fn(usize) -> (Timed, f64),
    teeline: impl Fn(usize) -> Timed,
) -> (Rounds, Rounds) {
    let (mut theirs, mut ours) = (Rounds::default(), Rounds::default());
    for round in 0..=count {
        eprintln!("round {round} of {count}: Kafka, {}", case.label());
        for who in in_turn(round, 2) {
            let (rounds, seconds, timed) = if who == 0 {
                let (timed, mb_per_second) = tool(round);
                (&mut theirs, bytes as f64 / 1e6 / mb_per_second, timed)
            } else {
                let timed = teeline(round);
                (&mut ours, timed.seconds, timed)
            };
            if round > 0 {
                rounds.note(bytes, seconds, &timed);
            }
        }
    }
    (theirs, ours)
}

/// One line of the report: medians.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Who did it: `teeline`, or the name of Kafka's tool.
    pub who: &'static str,
    /// Where from or where to: `null` or `kafka`.
    pub cluster: &'static str,
    /// Which codecs and store.
    #[serde(flatten)]
    pub case: Case,
    /// Megabytes of records a second, by the clock.
    pub mb_per_second: f64,
    /// Megabytes of records per second of one core.
    pub mb_per_core_second: f64,
    /// CPU seconds per gigabyte of records.
    pub cpu_seconds_per_gb: f64,
    /// The same per gibibyte.
    pub cpu_seconds_per_gib: f64,
    /// Largest resident memory.
    pub peak_mib: f64,
    /// Megabytes a second to those of Kafka's tool in the same round.
    pub rate_to_tool: Option<Interval>,
    /// CPU per gigabyte to that of Kafka's tool in the same round.
    pub cpu_to_tool: Option<Interval>,
}

impl Line {
    /// Medians of the rounds.
    pub fn of(
        who: &'static str,
        cluster: &'static str,
        case: &Case,
        rounds: &Rounds,
        tool: Option<&Rounds>,
    ) -> Line {
        let cpu = median(rounds.cpu_per_gb.iter().copied());
        Line {
            who,
            cluster,
            case: case.clone(),
            mb_per_second: median(rounds.mb_per_second.iter().copied()),
            mb_per_core_second: 1e3 / cpu,
            cpu_seconds_per_gb: cpu,
            cpu_seconds_per_gib: cpu * GIB / 1e9,
            peak_mib: rounds.peak_mib,
            rate_to_tool: tool.map(|tool| Interval::of_ratio(&rounds.mb_per_second, &tool.mb_per_second)),
            cpu_to_tool: tool.map(|tool| Interval::of_ratio(&rounds.cpu_per_gb, &tool.cpu_per_gb)),
        }
    }
}

/// The table for people.
pub fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<20} {:<6} {:<9} {:<7} {:<10} {:>8} {:>10} {:>9} {:>10} {:>9} {:>22} {:>22}\n",
        "who",
        "with",
        "producers",
        "archive",
        "store",
        "MB/s",
        "MB/core-s",
        "CPU-s/GB",
        "CPU-s/GiB",
        "peak MiB",
        "rate to Kafka's tool",
        "CPU to Kafka's tool"
    );
    for line in lines {
        text.push_str(&format!(
            "{:<20} {:<6} {:<9} {:<7} {:<10} {:>8.1} {:>10.0} {:>9.2} {:>10.2} {:>9.1} {:>22} {:>22}\n",
            line.who,
            line.cluster,
            line.case.producers,
            line.case.archive,
            line.case.store,
            line.mb_per_second,
            line.mb_per_core_second,
            line.cpu_seconds_per_gb,
            line.cpu_seconds_per_gib,
            line.peak_mib,
            report::ratio_text(line.rate_to_tool.as_ref()),
            report::ratio_text(line.cpu_to_tool.as_ref()),
        ));
    }
    text
}

/// Where the archive of a case lies; the server, where there is one, runs as long as this lives.
pub struct Place {
    s3: Option<S3>,
    directory: PathBuf,
    prefix: String,
}

impl Place {
    /// A place for an archive; nothing is in it.
    pub fn new(case: &Case, work: &WorkDir) -> Place {
        Place {
            s3: (case.store == "s3").then(S3::start),
            directory: work.join(format!("archive-{}", case.label())),
            prefix: "bench".to_owned(),
        }
    }

    /// As test programs name it.
    pub fn archive(&self) -> Archive {
        match &self.s3 {
            Some(s3) => Archive::S3 {
                endpoint: s3.endpoint(),
                prefix: self.prefix.clone(),
            },
            None => Archive::Directory(self.directory.clone()),
        }
    }

    /// As a configuration names it.
    pub fn storage(&self) -> Value {
        match &self.s3 {
            Some(s3) => json!({
                "backend": "s3", "bucket": BUCKET, "prefix": self.prefix, "endpoint": s3.endpoint(),
                "region": "us-east-1", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY,
            }),
            None => json!({"backend": "filesystem", "path": self.directory}),
        }
    }

    /// Everything away: the next run begins anew.
    pub fn clear(&self) {
        let directory = match &self.s3 {
            Some(s3) => s3.bucket_directory().join(&self.prefix),
            None => self.directory.clone(),
        };
        if directory.exists() {
            fs::remove_dir_all(&directory).expect("remove an archive");
        }
        fs::create_dir_all(&directory).expect("create the place of an archive");
    }
}

/// A null broker that runs as long as this lives.
pub struct NullBroker {
    /// Where it is reached.
    pub address: String,
    _process: Process,
    _ports: PortBlock,
}

/// Starts a null broker with more arguments.
pub fn null_broker(arguments: &[String], work: &WorkDir) -> NullBroker {
    let ports = PortBlock::reserve();
    let address = ports.address(0);
    let own = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(own);
    command
        .arg("null-broker")
        .args(arguments)
        .arg(format!("{address}={address}"));
    let log = work.join("null-broker.log");
    let broker = Process::start_with("null broker", command, &log, Stdio::null(), None);
    wait_until("the null broker to listen", seconds(60), || {
        std::net::TcpStream::connect(&address).is_ok()
    });
    NullBroker {
        address,
        _process: broker,
        _ports: ports,
    }
}

/// The arguments of a null broker that serves `records` in all, as producers with this codec would have left them.
pub fn source_arguments(partitions: i32, records: u64, codec: &str) -> Vec<String> {
    let each = records / u64::from(partitions.unsigned_abs().max(1));
    [
        "--partitions",
        &partitions.to_string(),
        "--topic",
        TOPIC,
        "--serve-records",
        &each.to_string(),
    ]
    .into_iter()
    .chain(["--serve-codec", codec])
    .map(str::to_owned)
    .collect()
}

/// Backs the topic up into an empty place: how long it took, what it used, and how many records it found.
pub fn back_up(source: &str, case: &Case, place: &Place, work: &WorkDir) -> (Timed, u64) {
    let timed = timed::run(backup_command(source, case, place, work), work.path());
    let report = last_line(&timed);
    assert_eq!(report["outcome"], "complete", "{report}");
    let records = report["records"].as_u64().expect("a number of records");
    (timed, records)
}

/// What backs the topic up into the place, which is emptied for it.
pub fn backup_command(source: &str, case: &Case, place: &Place, work: &WorkDir) -> Command {
    place.clear();
    let path = work.join("backup.yaml");
    let document = json!({
        "mode": "backup", "backup_id": BACKUP_ID, "source": {"bootstrap_servers": source},
        "storage": place.storage(),
        "backup": {"topics": [TOPIC], "compression": case.archive, "include_metadata": false},
    });
    fs::write(&path, document.to_string()).expect("write a configuration");
    let mut command = Command::new(binary("teeline-segmenter"));
    command.args(["backup", "--json", "--config"]).arg(&path);
    command
}

/// Restores the topic under another name: how long it took and what it used.
pub fn restore(target: &str, topic: &str, records: u64, place: &Place, work: &WorkDir) -> Timed {
    let path = work.join("restore.yaml");
    let document = json!({"storage": place.storage()});
    fs::write(&path, document.to_string()).expect("write a configuration");
    let mut command = Command::new(binary("teeline-restorer"));
    command
        .args([
            "restore",
            BACKUP_ID,
            "--target",
            target,
            "--allow-source",
            "--quiet",
            "--json",
        ])
        .args(["--map", &format!("{TOPIC}={topic}")])
        .arg("--config")
        .arg(&path);
    let timed = timed::run(command, work.path());
    let report = last_line(&timed);
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["total"]["records"].as_u64(), Some(records), "{report}");
    timed
}

fn last_line(timed: &Timed) -> Value {
    let last = timed.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|_| panic!("no report: {}", timed.stdout))
}

/// Bytes of so many records.
pub fn bytes_of(records: u64) -> u64 {
    records * RECORD_BYTES
}

const GIB: f64 = 1_073_741_824.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_differ_in_one_thing_at_a_time() {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = Case::all(&text(&["none", "lz4"]), &text(&["zstd", "none"]), true);
        let labels: Vec<String> = all.iter().map(Case::label).collect();
        assert_eq!(
            labels,
            [
                "none-zstd-filesystem",
                "lz4-zstd-filesystem",
                "none-none-filesystem",
                "none-zstd-s3",
                "lz4-zstd-s3",
                "none-none-s3"
            ]
        );
        let beside = Case::beside_tools("lz4", &text(&["zstd", "none"]), true);
        let labels: Vec<String> = beside.iter().map(Case::label).collect();
        assert_eq!(labels, ["lz4-zstd-filesystem", "lz4-zstd-s3"]);
    }

    #[test]
    fn a_line_tells_medians_and_ratios_to_the_tool() {
        let mut rounds = Rounds::default();
        let timed = |cpu_seconds, peak_mib| Timed {
            seconds: 1.0,
            cpu_seconds,
            peak_mib,
            stdout: String::new(),
        };
        rounds.note(1_000_000_000, 2.0, &timed(2.0, 10.0));
        rounds.note(1_000_000_000, 4.0, &timed(3.0, 30.0));
        let case = Case {
            producers: "none".into(),
            archive: "zstd".into(),
            store: "filesystem",
        };
        let line = Line::of("teeline", "null", &case, &rounds, Some(&rounds));
        assert_eq!(
            (line.mb_per_second, line.cpu_seconds_per_gb, line.peak_mib),
            (375.0, 2.5, 30.0)
        );
        assert_eq!(line.mb_per_core_second, 400.0);
        assert_eq!(line.rate_to_tool.as_ref().expect("a ratio").median, 1.0);
        assert!(table(&[line]).contains("teeline"));
    }
}
