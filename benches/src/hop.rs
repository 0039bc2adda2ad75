//! What a proxy adds to the round trip of a small request, with everything on one CPU.
//!
//! On several CPUs a round trip takes one of two times, as threads happen to lie; on one there is nothing to happen.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use teeline_tests::workdir::WorkDir;
use teeline_wire::codec::Compression;

use crate::contenders::{Contender, DIRECT, HAPROXY, NullKafka};
use crate::lean::{Plan, TOPIC, in_turn, position};
use crate::load::{self, Requests, Stream};
use crate::report::{self, Interval, median};

/// What is measured, and how often.
#[derive(Debug, Args)]
pub struct HopArguments {
    /// How many rounds.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Round trips of each contender in each round.
    #[arg(long, default_value_t = 300)]
    round_trips: usize,
    /// Bytes of the one record in each request.
    #[arg(long, default_value_t = 100)]
    batch_bytes: usize,
    /// The CPU.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// It runs on that CPU already.
    #[arg(long, hide = true)]
    pinned: bool,
    /// Only these contenders.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "direct,haproxy,no capture,async"
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
    /// Of the rounds' medians, the median.
    round_trip_us: f64,
    /// Over the direct way's in the same round.
    added_us: Option<Interval>,
    /// Over HAProxy's in the same round.
    over_haproxy_us: Option<Interval>,
}

/// Runs it and prints the table.
pub fn run(arguments: &HopArguments) {
    if !arguments.pinned {
        process::exit(again_on_one_cpu(arguments.cpu));
    }
    let work = WorkDir::create("hop");
    let kafka = NullKafka::start(1, &[], &work);
    let contenders = kafka.ways.start(&work, &arguments.only);
    let mut clients: Vec<Client> = contenders
        .iter()
        .map(|contender| Client::connect(contender, arguments.batch_bytes))
        .collect();
    let mut medians: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for round in 0..=arguments.rounds {
        for at in in_turn(round, contenders.len()) {
            let times = (0..arguments.round_trips).map(|_| clients[at].round_trip_us());
            let middle = median(times.collect::<Vec<_>>().into_iter());
            // The first round only warms up.
            if round > 0 {
                medians[at].push(middle);
            }
        }
    }
    let of = |name| position(&contenders, name).map(|at| medians[at].as_slice());
    let lines: Vec<Line> = contenders
        .iter()
        .zip(&medians)
        .map(|(contender, own)| Line {
            contender: contender.name,
            round_trip_us: median(own.iter().copied()),
            added_us: over(own, of(DIRECT)),
            over_haproxy_us: over(own, of(HAPROXY)),
        })
        .collect();
    print!("{}", table(&lines));
    if let Some(directory) = &arguments.save {
        let run = json!({
            "rounds": arguments.rounds, "round_trips": arguments.round_trips, "record_bytes": arguments.batch_bytes,
            "cpus": 1,
        });
        report::keep(directory, "hop", &[], json!({"run": run, "contenders": lines}));
    }
}

fn over(own: &[f64], base: Option<&[f64]>) -> Option<Interval> {
    let differences: Vec<f64> = own.iter().zip(base?).map(|(own, base)| own - base).collect();
    Some(Interval::of(&differences))
}

/// Runs this program once more, with all that it starts, on one CPU: its exit code.
fn again_on_one_cpu(cpu: usize) -> i32 {
    let own = std::env::current_exe().expect("the path of this program");
    let status = Command::new("taskset")
        .args(["-c", &cpu.to_string()])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .arg("--pinned")
        .status()
        .expect("run taskset, of util-linux");
    status.code().unwrap_or(1)
}

/// A connection with one request at a time, and no runtime that would add to its times.
struct Client {
    socket: TcpStream,
    requests: Requests,
    correlation_id: i32,
    name: &'static str,
}

impl Client {
    fn connect(contender: &Contender, batch_bytes: usize) -> Client {
        let socket = TcpStream::connect(&contender.address).expect("connect");
        socket.set_nodelay(true).expect("send at once");
        Client {
            socket,
            requests: Requests::of(small(contender, batch_bytes)),
            correlation_id: 0,
            name: contender.name,
        }
    }

    fn round_trip_us(&mut self) -> f64 {
        let (pieces, _) = self.requests.make();
        let frame = pieces.concat();
        let begun = Instant::now();
        let answer = exchange(&mut self.socket, &frame);
        let elapsed = begun.elapsed();
        answer
            .and_then(|answer| load::check(&answer, self.correlation_id))
            .unwrap_or_else(|error| panic!("a request through {}: {error}", self.name));
        self.correlation_id += 1;
        elapsed.as_secs_f64() * 1e6
    }
}

/// Requests with one small batch each.
pub fn small(contender: &Contender, batch_bytes: usize) -> Stream {
    let plan = Plan {
        seconds: 0.0,
        connections: 1,
        partitions: 1,
        batch_bytes,
        batches: 1,
        codec: Compression::None,
        in_flight: 1,
        rate: None,
    };
    let batches: Arc<[Bytes]> = plan.batches();
    Stream {
        address: contender.address.clone(),
        topic: TOPIC.to_owned(),
        partitions: vec![0],
        batches,
        first: 0,
        batches_per_request: 1,
    }
}

/// Sends a frame and waits for the next one, which is given without its length.
///
/// # Errors
/// When the connection fails.
pub fn exchange(socket: &mut TcpStream, frame: &[u8]) -> io::Result<Bytes> {
    socket.write_all(frame)?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut answer = BytesMut::zeroed(length);
    socket.read_exact(&mut answer)?;
    Ok(answer.freeze())
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<12} {:>13} {:>22} {:>22}\n",
        "contender", "round trip us", "added us (95 %)", "over HAProxy us"
    );
    for line in lines {
        let interval = |interval: &Option<Interval>| {
            interval.as_ref().map_or_else(String::new, |it| {
                format!("{:.1} ({:.1}–{:.1})", it.median, it.low, it.high)
            })
        };
        text.push_str(&format!(
            "{:<12} {:>13.1} {:>22} {:>22}\n",
            line.contender,
            line.round_trip_us,
            interval(&line.added_us),
            interval(&line.over_haproxy_us),
        ));
    }
    text
}
