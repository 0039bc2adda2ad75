//! A program, run to its end: how long it took, and what it used.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cost::{self, Stat};

/// A program that has ended well.
#[derive(Debug)]
pub struct Timed {
    /// From its start to its end.
    pub seconds: f64,
    /// In user mode and in the kernel for it.
    pub cpu_seconds: f64,
    /// The largest resident memory.
    pub peak_mib: f64,
    /// What it wrote to standard output.
    pub stdout: String,
}

/// Runs it; what it says goes through files in `directory`.
///
/// # Panics
/// When it cannot be started, or ends in another way than with exit code 0.
pub fn run(mut command: Command, directory: &Path) -> Timed {
    let (out, err) = (directory.join("timed.out"), directory.join("timed.err"));
    let create = |path: &Path| File::create(path).expect("create a file for what a program says");
    command
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err));
    let begun = Instant::now();
    let mut child = command.spawn().expect("start a program");
    let pid = child.id();
    let mut peak_mib = 0.0;
    let stat = loop {
        // A child that has ended stays until it is waited for, with its times and without its memory; the peak only
        // grows, so that the last look misses what it grew by since.
        let stat = Stat::of(pid);
        if stat.has_ended {
            break stat;
        }
        peak_mib = cost::peak_mib(pid).unwrap_or(peak_mib);
        thread::sleep(PAUSE);
    };
    let seconds = begun.elapsed().as_secs_f64();
    let status = child.wait().expect("wait for a program");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let stdout = read(&out);
    assert!(status.success(), "{command:?}: {status}\n{stdout}{}", read(&err));
    Timed {
        seconds,
        cpu_seconds: stat.cpu_seconds,
        peak_mib,
        stdout,
    }
}

const PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_tests::workdir::WorkDir;

    #[test]
    fn what_a_program_says_and_uses_is_known_when_it_has_ended() {
        let work = WorkDir::create("timed");
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done",
        ]);
        let timed = run(command, work.path());
        assert_eq!(timed.stdout, "done\n");
        assert!(
            timed.cpu_seconds > 0.0 && timed.seconds >= timed.cpu_seconds / 2.0,
            "{timed:?}"
        );
        assert!(timed.peak_mib > 0.1, "{timed:?}");
    }
}
