//! What a process has used, as the kernel counts it.

use std::fs;
use std::ops::Sub;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Seconds in user mode and in the kernel for it.
    pub cpu_seconds: f64,
    /// The largest resident memory so far, in MiB.
    pub peak_mib: f64,
}

impl Sub for Cost {
    type Output = Cost;

    /// CPU time since; the peak has no difference.
    fn sub(self, before: Cost) -> Cost {
        Cost {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            peak_mib: self.peak_mib,
        }
    }
}

/// Of a process that runs.
///
/// # Panics
/// When it does not.
pub fn of_process(pid: u32) -> Cost {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
    };
    let stat = read("stat");
    // The program's name stands in parentheses and may hold blanks; user and system time are fields 14 and 15.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().expect("a number of ticks"))
        .sum();
    let status = read("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kib: f64 = peak
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .expect("VmHWM in kB");
    Cost {
        cpu_seconds: ticks / TICKS_PER_SECOND,
        peak_mib: peak_kib / 1024.0,
    }
}

/// Kernel ticks per second in `/proc/PID/stat`; fixed in Linux's user interface.
const TICKS_PER_SECOND: f64 = 100.0;
