//! `bench restore`: a restore into a target that costs nothing, and beside Kafka's own performance producer.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use teeline_tests::kafka::Kafka;
use teeline_tests::workdir::WorkDir;

use crate::backup::{create_topic, topic_command};
use crate::both_ways::{
    Case, Line, Place, Rounds, back_up, beside_tool, bytes_of, null_broker, restore, source_arguments, table,
};
use crate::lean::in_turn;
use crate::producer::{self, RECORD_BYTES};
use crate::report;

/// What is measured, and how much of it.
#[derive(Debug, Args)]
pub struct RestoreArguments {
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
    /// Not into a null target.
    #[arg(long)]
    no_null: bool,
    /// Not with real Kafka.
    #[arg(long)]
    no_kafka: bool,
    /// Not out of S3.
    #[arg(long)]
    no_s3: bool,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// An archive to be restored again and again.
struct Stored {
    case: Case,
    place: Place,
    records: u64,
}

/// Runs it and prints the table.
pub fn run(arguments: &RestoreArguments) {
    let work = WorkDir::create("restore");
    let mut lines = Vec::new();
    if !arguments.no_null {
        into_null(arguments, &work, &mut lines);
    }
    if !arguments.no_kafka {
        into_kafka(arguments, &work, &mut lines);
    }
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "megabytes": arguments.megabytes, "partitions": arguments.partitions,
            "record_bytes": RECORD_BYTES, "batch_bytes": 65_536,
        });
        report::keep(directory, "restore", &[], json!({"run": run, "lines": lines}));
    }
}

/// Backs a null source up, so that there is something to restore.
fn store(case: Case, arguments: &RestoreArguments, work: &WorkDir) -> Stored {
    eprintln!("making an archive: {}", case.label());
    let records = arguments.megabytes * 1_000_000 / RECORD_BYTES;
    let sources = source_arguments(arguments.partitions, records, &case.producers);
    let source = null_broker(&sources, work);
    let place = Place::new(&case, work);
    let (_, records) = back_up(&source.address, &case, &place, work);
    Stored { case, place, records }
}

fn into_null(arguments: &RestoreArguments, work: &WorkDir, lines: &mut Vec<Line>) {
    let cases = Case::all(&arguments.producers, &arguments.archives, !arguments.no_s3);
    let archives: Vec<Stored> = cases
        .into_iter()
        .map(|case| store(case, arguments, work))
        .collect();
    let mut all: Vec<Rounds> = archives.iter().map(|_| Rounds::default()).collect();
    let partitions = ["--partitions".to_owned(), arguments.partitions.to_string()];
    for round in 0..=arguments.rounds {
        for at in in_turn(round, archives.len()) {
            let (stored, rounds) = (&archives[at], &mut all[at]);
            eprintln!(
                "round {round} of {}: null target, {}",
                arguments.rounds,
                stored.case.label()
            );
            let target = null_broker(&partitions, work);
            let timed = restore(&target.address, "restored", stored.records, &stored.place, work);
            // The first round only warms up.
            if round > 0 {
                rounds.note(bytes_of(stored.records), timed.seconds, &timed);
            }
        }
    }
    lines.extend(
        archives
            .iter()
            .zip(&all)
            .map(|(stored, rounds)| Line::of("teeline restore", "null", &stored.case, rounds, None)),
    );
    for stored in &archives {
        stored.place.clear();
    }
}

fn into_kafka(arguments: &RestoreArguments, work: &WorkDir, lines: &mut Vec<Line>) {
    let payloads = producer::write_payloads(work.path());
    let cases = arguments
        .producers
        .iter()
        .flat_map(|codec| Case::beside_tools(codec, &arguments.archives, !arguments.no_s3));
    for case in cases {
        let codec = &case.producers.clone();
        let stored = store(case, arguments, work);
        // What is deleted is to leave the disk at once, so that no round finds it fuller than another.
        let mut kafka = Kafka::prepare(1, "log.segment.delete.delay.ms=1000\n");
        kafka.start_all();
        let bootstrap = kafka.bootstrap();
        let (bytes, records) = (bytes_of(stored.records), stored.records);
        let delete = |topic: &str| topic_command(&kafka, &["--delete", "--topic", topic]);
        let (theirs, ours) = beside_tool(
            arguments.rounds,
            &stored.case,
            bytes,
            |round| {
                let topic = format!("produced-{round}");
                create_topic(&kafka, &topic, arguments.partitions);
                let (tool, measured) =
                    producer::run_timed(&bootstrap, &topic, &payloads, records, codec, work.path());
                delete(&topic);
                (tool, measured.mb_per_second)
            },
            |round| {
                let topic = format!("restored-{round}");
                let timed = restore(&bootstrap, &topic, records, &stored.place, work);
                delete(&topic);
                timed
            },
        );
        stored.place.clear();
        lines.push(Line::of(
            "producer performance",
            "kafka",
            &stored.case,
            &theirs,
            None,
        ));
        lines.push(Line::of(
            "teeline restore",
            "kafka",
            &stored.case,
            &ours,
            Some(&theirs),
        ));
    }
}
