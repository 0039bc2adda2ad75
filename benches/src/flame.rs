//! Flame graphs of one program under load: perf samples it, and the picture is drawn from what `perf script` prints.

#![allow(clippy::print_stdout, reason = "its table is its purpose")]

mod draw;
mod stacks;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::{Args, ValueEnum};
use teeline_tests::workdir::WorkDir;

use crate::contenders::NullKafka;
use crate::lean::Plan;
use stacks::Frames;

/// Whose time is looked at, and under which load.
#[derive(Debug, Args)]
pub struct FlameArguments {
    /// Which way: haproxy, "no capture", async or durable.
    #[arg(long, default_value = "async")]
    contender: String,
    /// Which of its processes.
    #[arg(long, value_enum, default_value_t = Of::Proxy)]
    of: Of,
    #[command(flatten)]
    plan: Plan,
    /// Samples a second.
    #[arg(long, default_value_t = 497)]
    frequency: u32,
    /// The directory of the picture.
    #[arg(long, default_value = "target/flame")]
    out: PathBuf,
}

/// A process of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    /// What clients connect to.
    Proxy,
    /// What archives behind it.
    Segmenter,
}

/// Runs the load, samples, and draws.
///
/// # Panics
/// When perf is missing or not allowed; the message says what to do.
pub fn run(arguments: &FlameArguments) {
    check_perf();
    let work = WorkDir::create("flame");
    let kafka = NullKafka::start(arguments.plan.partitions, &[], &work);
    let contenders = kafka
        .ways
        .start(&work, std::slice::from_ref(&arguments.contender));
    let contender = contenders.first().expect("the way that was asked for");
    let pid = match arguments.of {
        Of::Proxy => contender.pid(),
        Of::Segmenter => contender.segmenter_pid(),
    };
    let pid = pid.unwrap_or_else(|| panic!("{} has no such process", contender.name));
    let batches = arguments.plan.batches();
    eprintln!("warm up");
    let warm_up = Plan {
        seconds: 1.0,
        ..arguments.plan.clone()
    };
    warm_up.run(contender, &batches, || ());
    eprintln!("sample {} for {} s", contender.name, arguments.plan.seconds);
    let data = work.join("perf.data");
    let mut recording = None;
    let measured = arguments.plan.run(contender, &batches, || {
        recording = Some(record(pid, arguments, &data));
    });
    let recording = recording.expect("the load has begun");
    let output = recording.wait_with_output().expect("wait for perf");
    assert!(
        output.status.success(),
        "perf record: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{:.0} MB/s while sampled", measured.mb_per_second());
    let frames = Frames::of(&script(&data));
    show(&frames, arguments);
}

fn check_perf() {
    let version = Command::new("perf")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(
        version.is_ok_and(|status| status.success()),
        "perf is missing (hint: apt-get install linux-perf on Debian, linux-tools-$(uname -r) on Ubuntu)"
    );
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    if paranoid.trim().parse::<i32>().is_ok_and(|level| level > 1) {
        eprintln!(
            "kernel.perf_event_paranoid is {}: without root, the kernel's part may be missing",
            paranoid.trim()
        );
    }
}

/// Stacks are unwound by the tables that every program has; programs need not be built for it.
fn record(pid: u32, arguments: &FlameArguments, data: &Path) -> Child {
    Command::new("perf")
        .args(["record", "--call-graph", "dwarf,16384", "-F"])
        .arg(arguments.frequency.to_string())
        .arg("--output")
        .arg(data)
        .args([
            "--pid",
            &pid.to_string(),
            "--",
            "sleep",
            &arguments.plan.seconds.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start perf")
}

fn script(data: &Path) -> String {
    let output = Command::new("perf")
        // Inlined functions would take a lookup each, for minutes.
        .args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"])
        .arg(data)
        .output()
        .expect("run perf script");
    assert!(
        output.status.success(),
        "perf script: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn show(frames: &Frames, arguments: &FlameArguments) {
    println!(
        "{} samples; own time of the functions at the top:",
        frames.samples()
    );
    for (name, samples) in frames.own().into_iter().take(TOP_FUNCTIONS) {
        println!(
            "{:>6.1} %  {name}",
            samples as f64 * 100.0 / frames.samples().max(1) as f64
        );
    }
    let of = if arguments.of == Of::Proxy {
        "proxy"
    } else {
        "segmenter"
    };
    let name = format!("{}-{of}.svg", arguments.contender.replace(' ', "-"));
    fs::create_dir_all(&arguments.out).expect("make the directory of the picture");
    let path = arguments.out.join(name);
    let title = format!("{} ({of}), {} samples", arguments.contender, frames.samples());
    fs::write(&path, draw::svg(frames, &title)).expect("write the picture");
    println!("drawn in {}", path.display());
}

const TOP_FUNCTIONS: usize = 20;
