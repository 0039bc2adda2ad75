//! What does an archive cost in requests? Several sidecars before many partitions; their traffic trickles, is busy, and
//! ends.
//!
//! Everything runs with the defaults of the programs, in real time: what an hour costs follows from rates per minute and
//! from ages of ten minutes, and a clock that ran faster would change the one and not the other. Requests are counted
//! by the programs and, where there is one, by the server.
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use teeline_tests::economy::{Objects, Place, Scene, Settings, Spent, Traffic};

use crate::report;

/// How large, how long, and where.
#[derive(Debug, Args)]
pub struct EconomyArguments {
    /// Proxies, each with a buffer of its own, into one backup.
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Partitions; every writer writes to each.
    #[arg(long, default_value_t = 2_000)]
    partitions: u32,
    /// Where the archive lies.
    #[arg(long, value_enum, default_value_t = Where::S3)]
    place: Where,
    /// Seconds of a record per partition and writer every minute.
    #[arg(long, default_value_t = 1_200)]
    trickle_seconds: u64,
    /// Seconds of `--busy-rate`.
    #[arg(long, default_value_t = 600)]
    busy_seconds: u64,
    /// Records of 1 KiB per second and writer while it is busy.
    #[arg(long, default_value_t = 2_000.0)]
    busy_rate: f64,
    /// Seconds without traffic, once everything is archived.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// Settings of `segmenter` in place of the defaults, as JSON.
    #[arg(long, default_value = "{}")]
    segmenter: String,
    /// Settings of `audit` in place of the defaults, as JSON.
    #[arg(long, default_value = "{}")]
    audit: String,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// Where the archive lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    /// Behind a real S3 server.
    S3,
    /// In a directory.
    Directory,
    /// One after the other.
    Both,
}

/// One kind of traffic.
struct Phase {
    name: &'static str,
    spent: Spent,
    objects: Objects,
    records: u64,
}

/// Runs it and prints what was counted.
///
/// # Panics
/// At the first thing that is not as it should be.
pub fn run(arguments: &EconomyArguments) {
    let places: &[Place] = match arguments.place {
        Where::S3 => &[Place::S3],
        Where::Directory => &[Place::Directory],
        Where::Both => &[Place::S3, Place::Directory],
    };
    let mut results = Vec::new();
    for place in places {
        let phases = measure(arguments, *place);
        if !arguments.json {
            println!("{}", table(*place, &phases));
        }
        results.push(
            json!({"place": name_of(*place), "phases": phases.iter().map(Phase::json).collect::<Vec<_>>()}),
        );
    }
    let document = json!({"run": {"writers": arguments.writers, "partitions": arguments.partitions,
        "busy_records_per_second_and_writer": arguments.busy_rate, "segmenter": arguments.segmenter,
        "audit": arguments.audit}, "places": results});
    if arguments.json {
        println!("{document:#}");
    }
    if let Some(directory) = &arguments.save {
        report::keep(directory, "economy", &[], document);
    }
}

fn measure(arguments: &EconomyArguments, place: Place) -> Vec<Phase> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("a JSON object");
    let mut scene = Scene::set(Settings {
        place,
        writers: arguments.writers,
        partitions: arguments.partitions,
        segmenter: parse(&arguments.segmenter),
        audit: parse(&arguments.audit),
    });
    scene.await_auditor();
    let per_minute = f64::from(arguments.partitions) / 60.0;
    let trickle = Traffic {
        rate: per_minute,
        value_bytes: 200,
    };
    let busy = Traffic {
        rate: arguments.busy_rate,
        value_bytes: 1_000,
    };
    let mut phases = Vec::new();
    for (name, traffic, length) in [
        ("trickle", Some(trickle), arguments.trickle_seconds),
        ("busy", Some(busy), arguments.busy_seconds),
        ("idle", None, arguments.idle_seconds),
    ] {
        if traffic.is_none() {
            eprintln!("economy: waiting until everything is archived");
            scene.await_archived(ARCHIVED_LIMIT);
        }
        eprintln!("economy, {}: {name} for {length} s", name_of(place));
        let before = scene.counts();
        if let Some(traffic) = traffic {
            scene.start_traffic(traffic);
        }
        // Time passing is what is measured here.
        thread::sleep(Duration::from_secs(length));
        let spent = scene.counts().since(&before);
        let records = if traffic.is_some() {
            scene.stop_traffic()
        } else {
            0
        };
        let phase = Phase {
            name,
            spent,
            objects: scene.objects(),
            records,
        };
        eprintln!("{}", phase.row());
        phases.push(phase);
    }
    phases
}

impl Phase {
    fn per_hour(&self, count: f64) -> f64 {
        count * 3_600.0 / self.spent.seconds
    }

    fn row(&self) -> String {
        let (spent, requests) = (&self.spent, self.spent.requests());
        let hour = |count: f64| self.per_hour(count);
        let served = spent.served.as_ref().map(|served| served.requests.puts);
        format!(
            "{:<8} {:>9.0} {:>9.0} {:>9} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>8.0} {:>8.0} {:>8.0} {:>9} {:>10}",
            self.name,
            hour(self.records as f64),
            hour(requests.puts),
            served.map_or_else(|| "-".to_owned(), |puts| format!("{:.0}", hour(puts))),
            hour(spent.sum(|said| said.segments)),
            hour(spent.sum(|said| said.audit_segments)),
            hour(spent.sum(|said| said.commits)),
            hour(spent.sum(|said| said.manifests)),
            hour(requests.gets),
            hour(requests.lists),
            hour(requests.deletes),
            self.objects.count,
            self.objects.median_bytes,
        )
    }

    fn json(&self) -> Value {
        let hour = |count: f64| self.per_hour(count).round();
        let by = |of: fn(&teeline_tests::requests::Said) -> f64| hour(self.spent.sum(of));
        let factor = 3_600.0 / self.spent.seconds;
        let writers: Vec<Value> = self
            .spent
            .said
            .iter()
            .map(|said| said.requests.times(factor).json())
            .collect();
        let served = self.spent.served.as_ref().map(|served| {
            let kinds: serde_json::Map<String, Value> =
                served.puts.iter().map(|(what, count)| ((*what).to_owned(), json!(hour(*count)))).collect();
            json!({"requests": served.requests.times(factor).json(), "puts": kinds, "unanswered": hour(served.unanswered)})
        });
        json!({
            "phase": self.name, "seconds": self.spent.seconds.round(), "records": self.records,
            "per_hour": {
                "requests": self.spent.requests().times(factor).json(), "by_writer": writers, "server": served,
                "segments": by(|said| said.segments), "auditor_segments": by(|said| said.audit_segments),
                "joined": by(|said| said.joined), "replaced": by(|said| said.replaced),
                "commits": by(|said| said.commits), "manifests": by(|said| said.manifests),
                "written_bytes": by(|said| said.written_bytes), "fetched_bytes": by(|said| said.fetched_bytes),
                "fetch_requests": by(|said| said.broker_requests),
            },
            "segments_in_store": {"count": self.objects.count, "bytes": self.objects.bytes,
                                  "median_bytes": self.objects.median_bytes},
        })
    }
}

fn table(place: Place, phases: &[Phase]) -> String {
    let mut text = format!("per hour, all writers together; archive: {}\n", name_of(place));
    let _ = writeln!(
        text,
        "{:<8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>9} {:>10}",
        "phase",
        "records",
        "puts",
        "at server",
        "segments",
        "auditor's",
        "commits",
        "manifests",
        "gets",
        "lists",
        "deletes",
        "in store",
        "median B"
    );
    for phase in phases {
        let _ = writeln!(text, "{}", phase.row());
    }
    text
}

fn name_of(place: Place) -> &'static str {
    match place {
        Place::S3 => "s3",
        Place::Directory => "directory",
    }
}

/// Longer than the oldest small segment waits.
const ARCHIVED_LIMIT: Duration = Duration::from_secs(1_200);
