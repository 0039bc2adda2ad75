//! What a proxy takes while nothing happens: its memory at rest, a connection's, and how soon it listens again.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::workdir::WorkDir;

use crate::contenders::{Contender, NullKafka};
use crate::cost::memory_mib;
use crate::hop::{exchange, small};
use crate::load::Requests;
use crate::report::{self, median};

/// What is measured.
#[derive(Debug, Args)]
pub struct IdleArguments {
    /// Connections that are opened at once; each takes four files of the machine.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Bytes of the one batch that a connection sends before it is idle.
    #[arg(long, default_value_t = 16_384)]
    batch_bytes: usize,
    /// How often each is restarted.
    #[arg(long, default_value_t = 5)]
    restarts: usize,
    /// Only these contenders.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "haproxy,no capture,async,durable"
    )]
    only: Vec<String>,
    /// Keep the result under this directory, with date and commit.
    #[arg(long)]
    save: Option<PathBuf>,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Line {
    contender: &'static str,
    /// Before it ever had a client.
    rest_mib: f64,
    /// The segmenter's, which is a process of its own here.
    segmenter_rest_mib: f64,
    /// Of both.
    capture_rest_mib: f64,
    /// Of a connection that was opened and never used.
    new_connection_bytes: f64,
    /// Of a connection that has sent one batch, had its answer, and is idle.
    used_connection_bytes: f64,
    /// From SIGTERM until it had gone.
    stop_seconds: f64,
    /// From its start until it took a connection.
    start_seconds: f64,
    /// Both together.
    restart_seconds: f64,
}

/// Runs it and prints the table.
pub fn run(arguments: &IdleArguments) {
    let work = WorkDir::create("idle");
    let kafka = NullKafka::start(1, &[], &work);
    let mut contenders = kafka.ways.start(&work, &arguments.only);
    // What starting up took is given back, or never will be.
    thread::sleep(REST);
    let lines: Vec<Line> = contenders
        .iter_mut()
        .filter_map(|contender| {
            eprintln!("{}", contender.name);
            line(contender, arguments)
        })
        .collect();
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "connections": arguments.connections, "batch_bytes": arguments.batch_bytes, "restarts": arguments.restarts,
        });
        report::keep(directory, "idle", &[], json!({"run": run, "contenders": lines}));
    }
}

fn line(contender: &mut Contender, arguments: &IdleArguments) -> Option<Line> {
    let resident = |contender: &Contender| Some(memory_mib(contender.pid()?, "VmRSS"));
    let rest_mib = resident(contender)?;
    let segmenter_rest_mib = contender
        .segmenter_pid()
        .map_or(0.0, |pid| memory_mib(pid, "VmRSS"));
    // What the first connections make a proxy allocate once is not theirs.
    let first = used(contender, FIRST, arguments.batch_bytes);
    thread::sleep(REST);
    let before = resident(contender)?;
    let fresh: Vec<TcpStream> = (0..arguments.connections).map(|_| open(contender)).collect();
    thread::sleep(REST);
    let with_new = resident(contender)?;
    drop(fresh);
    thread::sleep(REST);
    let between = resident(contender)?;
    let busy_once = used(contender, arguments.connections, arguments.batch_bytes);
    thread::sleep(REST);
    let with_used = resident(contender)?;
    drop((first, busy_once));
    contender.settle();
    let bytes_each = |mib: f64| mib * 1024.0 * 1024.0 / arguments.connections as f64;
    let restarts: Vec<(f64, f64)> = (0..arguments.restarts)
        .filter_map(|_| contender.restart())
        .collect();
    let middle = |value: fn(&(f64, f64)) -> f64| median(restarts.iter().map(value));
    Some(Line {
        contender: contender.name,
        rest_mib,
        segmenter_rest_mib,
        capture_rest_mib: rest_mib + segmenter_rest_mib,
        new_connection_bytes: bytes_each(with_new - before),
        // A process may keep what earlier connections had, and give it to these.
        used_connection_bytes: bytes_each(with_used - between.min(before)),
        stop_seconds: middle(|(stop, _)| *stop),
        start_seconds: middle(|(_, start)| *start),
        restart_seconds: middle(|(stop, start)| stop + start),
    })
}

fn open(contender: &Contender) -> TcpStream {
    TcpStream::connect(&contender.address).expect("connect")
}

/// Connections that have sent a batch and had their answer.
fn used(contender: &Contender, count: usize, batch_bytes: usize) -> Vec<TcpStream> {
    let (pieces, _) = Requests::of(small(contender, batch_bytes)).make();
    let frame = pieces.concat();
    let connections = (0..count).map(|_| {
        let mut socket = open(contender);
        exchange(&mut socket, &frame).expect("an answer");
        socket
    });
    connections.collect()
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>9} {:>13} {:>16} {:>16} {:>7} {:>7} {:>9}\n",
        "contender",
        "rest MiB",
        "segmenter MiB",
        "new connection B",
        "used connection B",
        "stop s",
        "start s",
        "restart s"
    );
    for line in lines {
        text.push_str(&format!(
            "{:<12} {:>9.1} {:>13.1} {:>16.0} {:>17.0} {:>7.3} {:>7.3} {:>9.3}\n",
            line.contender,
            line.rest_mib,
            line.segmenter_rest_mib,
            line.new_connection_bytes,
            line.used_connection_bytes,
            line.stop_seconds,
            line.start_seconds,
            line.restart_seconds,
        ));
    }
    text
}

const FIRST: usize = 100;
const REST: Duration = Duration::from_millis(1_500);
