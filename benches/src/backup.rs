//! `bench backup`: a backup by Fetch from a source that costs nothing, and beside Kafka's own performance consumer.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use teeline_tests::kafka::Kafka;
use teeline_tests::workdir::WorkDir;

use crate::both_ways::{
    BACKUP_ID, Case, Line, Place, Rounds, TOPIC, back_up, beside_tool, bytes_of, null_broker,
    source_arguments, table,
};
use crate::lean::in_turn;
use crate::producer::{self, RECORD_BYTES};
use crate::report;
use crate::timed::{self, Timed};

/// What is measured, and how much of it.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// How many rounds, beside one that warms up; of an even number both sides go first in half.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Megabytes of records in each run.
    #[arg(long, default_value_t = 600)]
    megabytes: u64,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Codecs of producers.
    #[arg(long, value_delimiter = ',', default_value = "none,lz4,zstd")]
    producers: Vec<String>,
    /// Codecs of segments; the first one goes with every codec of producers.
    #[arg(long, value_delimiter = ',', default_value = "zstd,lz4,none")]
    archives: Vec<String>,
    /// Not from a null source.
    #[arg(long)]
    no_null: bool,
    /// Not with real Kafka.
    #[arg(long)]
    no_kafka: bool,
    /// Not into S3.
    #[arg(long)]
    no_s3: bool,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// Runs it and prints the table.
pub fn run(arguments: &BackupArguments) {
    let mut lines = Vec::new();
    if !arguments.no_null {
        from_null(arguments, &mut lines);
    }
    if !arguments.no_kafka {
        from_kafka(arguments, &mut lines);
    }
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "megabytes": arguments.megabytes, "partitions": arguments.partitions,
            "record_bytes": RECORD_BYTES, "batch_bytes": 65_536, "backup_id": BACKUP_ID,
        });
        report::keep(directory, "backup", &[], json!({"run": run, "lines": lines}));
    }
}

fn records(arguments: &BackupArguments) -> u64 {
    arguments.megabytes * 1_000_000 / RECORD_BYTES
}

fn from_null(arguments: &BackupArguments, lines: &mut Vec<Line>) {
    let work = WorkDir::create("backup");
    let cases = Case::all(&arguments.producers, &arguments.archives, !arguments.no_s3);
    let mut all: Vec<Rounds> = cases.iter().map(|_| Rounds::default()).collect();
    for round in 0..=arguments.rounds {
        for at in in_turn(round, cases.len()) {
            let (case, rounds) = (&cases[at], &mut all[at]);
            eprintln!(
                "round {round} of {}: null source, {}",
                arguments.rounds,
                case.label()
            );
            let sources = source_arguments(arguments.partitions, records(arguments), &case.producers);
            let source = null_broker(&sources, &work);
            let place = Place::new(case, &work);
            let (timed, found) = back_up(&source.address, case, &place, &work);
            // The first round only warms up.
            if round > 0 {
                rounds.note(bytes_of(found), timed.seconds, &timed);
            }
            place.clear();
        }
    }
    lines.extend(
        cases
            .iter()
            .zip(&all)
            .map(|(case, rounds)| Line::of("teeline backup", "null", case, rounds, None)),
    );
}

fn from_kafka(arguments: &BackupArguments, lines: &mut Vec<Line>) {
    for codec in &arguments.producers {
        let work = WorkDir::create("backup");
        let kafka = Kafka::start_one();
        let payloads = producer::write_payloads(work.path());
        create_topic(&kafka, TOPIC, arguments.partitions);
        let count = records(arguments);
        producer::run_timed(&kafka.bootstrap(), TOPIC, &payloads, count, codec, work.path());
        for case in &Case::beside_tools(codec, &arguments.archives, !arguments.no_s3) {
            let place = Place::new(case, &work);
            let (theirs, ours) = beside_tool(
                arguments.rounds,
                case,
                bytes_of(count),
                |_| consume(&kafka.bootstrap(), count, &work),
                |_| {
                    let (timed, found) = back_up(&kafka.bootstrap(), case, &place, &work);
                    assert_eq!(found, count, "a backup holds what was produced");
                    place.clear();
                    timed
                },
            );
            lines.push(Line::of("consumer performance", "kafka", case, &theirs, None));
            lines.push(Line::of("teeline backup", "kafka", case, &ours, Some(&theirs)));
        }
    }
}

/// Kafka's own performance consumer: what it used, and megabytes a second while it fetched, its joining of the group and
/// the start of its JVM left out.
pub(crate) fn consume(bootstrap: &str, records: u64, work: &WorkDir) -> (Timed, f64) {
    let mut command = Kafka::tool_command("org.apache.kafka.tools.ConsumerPerformance");
    command
        .args([
            "--bootstrap-server",
            bootstrap,
            "--topic",
            TOPIC,
            "--timeout",
            "60000",
        ])
        .args(["--num-records", &records.to_string()]);
    let timed = timed::run(command, work.path());
    let rate = read_summary(&timed.stdout);
    let rate = rate.unwrap_or_else(|| {
        panic!(
            "the performance consumer's summary is not understood: {}",
            timed.stdout
        )
    });
    (timed, rate)
}

/// The value under `fetch.MB.sec`, whose megabytes are 2^20 bytes.
fn read_summary(text: &str) -> Option<f64> {
    let mut lines = text.lines().skip_while(|line| !line.contains("fetch.MB.sec"));
    let at = lines
        .next()?
        .split(',')
        .position(|name| name.trim() == "fetch.MB.sec")?;
    let mebibytes: f64 = lines.next()?.split(',').nth(at)?.trim().parse().ok()?;
    Some(mebibytes * 1.048_576)
}

/// A topic that is kept whole.
pub(crate) fn create_topic(kafka: &Kafka, topic: &str, partitions: i32) {
    topic_command(
        kafka,
        &[
            "--create",
            "--topic",
            topic,
            "--partitions",
            &partitions.to_string(),
        ],
    );
}

/// Runs Kafka's topic tool, which must succeed.
pub(crate) fn topic_command(kafka: &Kafka, arguments: &[&str]) {
    let bootstrap = kafka.bootstrap();
    let all: Vec<&str> = ["--bootstrap-server", &bootstrap]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    let output = Kafka::tool("org.apache.kafka.tools.TopicCommand", &all);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumers_summary_is_understood() {
        let text = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, \
                    fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n2026-11-21 21:00:00:000, 2026-11-21 21:00:05:000, 572.0, \
                    114.4, 585937, 117187.4, 3000, 2000, 286.0, 292968.5\n";
        assert!((read_summary(text).expect("a rate") - 299.89).abs() < 0.01);
        assert!(read_summary("nothing").is_none());
    }
}
