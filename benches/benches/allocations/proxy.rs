//! The proxy with an allocator that counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Parser;
use teeline_proxy::cli::{Cli, Command};
use teeline_proxy::process::Proxy;
use teeline_runtime::logging;
use teeline_tests::wait::{seconds, wait_until};

use crate::ALLOCATOR;

/// The name under which this program is the proxy.
pub(crate) const NAME: &str = "teeline-proxy";
/// The variable that names the directory for counts.
pub(crate) const COUNTS: &str = "TEELINE_ALLOCATION_COUNTS";
/// How often counts are written; each time costs a few allocations itself.
const EVERY: Duration = Duration::from_millis(100);

/// As the program itself, without what only an operator needs.
pub(crate) fn run() -> ExitCode {
    let Command::Run(arguments) = Cli::parse().command else {
        panic!("only `run` is counted");
    };
    let config = arguments.load().unwrap();
    logging::init(&config.log).unwrap();
    if let Some(directory) = std::env::var_os(COUNTS) {
        let path = path(Path::new(&directory), std::process::id());
        thread::spawn(move || write(&path));
    }
    Proxy::new(config).run().unwrap().into()
}

fn write(path: &Path) {
    let staging = path.with_extension("new");
    loop {
        let stats = ALLOCATOR.stats();
        let text = format!(
            "{} {} {}",
            stats.allocations, stats.reallocations, stats.bytes_allocated
        );
        // A reader sees the old counts or the new ones.
        fs::write(&staging, text).unwrap();
        fs::rename(&staging, path).unwrap();
        thread::sleep(EVERY);
    }
}

/// Allocations, reallocations and bytes of a counted proxy, from now on.
pub(crate) fn counts(directory: &Path, pid: u32) -> [u64; 3] {
    let path = path(directory, pid);
    let now = SystemTime::now();
    wait_until("the counted proxy to write its counts", seconds(30), || {
        fs::metadata(&path)
            .and_then(|file| file.modified())
            .is_ok_and(|written| written > now)
    });
    let text = fs::read_to_string(&path).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn path(directory: &Path, pid: u32) -> PathBuf {
    directory.join(pid.to_string())
}
