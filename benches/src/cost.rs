//! What a process has used, as the kernel counts it.

use std::fs;
use std::ops::Sub;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Seconds in user mode and in the kernel for it.
    pub cpu_seconds: f64,
    /// The same of those threads alone that still run: finer than the kernel's ticks, but without what has ended.
    fine_seconds: f64,
    /// The largest resident memory so far, in MiB.
    pub peak_mib: f64,
}

impl Sub for Cost {
    type Output = Cost;

    /// CPU time since; the peak has no difference.
    fn sub(self, before: Cost) -> Cost {
        let ticked = self.cpu_seconds - before.cpu_seconds;
        let fine_seconds = self.fine_seconds - before.fine_seconds;
        // They agree unless threads have ended meanwhile, whose time only the ticks have.
        let cpu_seconds = match (ticked - fine_seconds).abs() < AGREED_SECONDS {
            true => fine_seconds,
            false => ticked,
        };
        Cost {
            cpu_seconds,
            fine_seconds,
            peak_mib: self.peak_mib,
        }
    }
}

/// Of a process that runs.
///
/// # Panics
/// When it does not.
pub fn of_process(pid: u32) -> Cost {
    let peak_mib = peak_mib(pid).expect("a process that runs has memory");
    Cost {
        cpu_seconds: Stat::of(pid).cpu_seconds,
        fine_seconds: of_threads(pid),
        peak_mib,
    }
}

/// Begins the largest resident memory of a process anew, from what it has now (`man 5 proc`, `clear_refs`).
///
/// # Panics
/// When the kernel does not let it.
pub fn forget_peak(pid: u32) {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// CPU seconds that this process spends on some work.
pub fn own_cpu_seconds(work: impl FnOnce()) -> f64 {
    let own = std::process::id();
    let before = of_process(own);
    work();
    (of_process(own) - before).cpu_seconds
}

/// Seconds that the threads of a process have run, to the nanosecond; threads that have ended are not among them.
fn of_threads(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads of a process");
    let times = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    times.sum::<f64>() / 1e9
}

/// A figure in MiB from `/proc/PID/status`, such as `VmRSS`, the resident memory of now.
///
/// # Panics
/// When there is no such process or figure.
pub fn memory_mib(pid: u32, field: &str) -> f64 {
    let status = read(pid, "status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_else(|| panic!("process {pid} has no {field}")) / 1024.0
}

/// The largest resident memory so far; `None` of a process that has ended, whose memory is gone.
pub fn peak_mib(pid: u32) -> Option<f64> {
    let status = read(pid, "status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kib: f64 = peak?.split_whitespace().next()?.parse().ok()?;
    Some(peak_kib / 1024.0)
}

/// What stays readable of a child that has ended until it is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Whether it has ended.
    pub has_ended: bool,
    /// Seconds in user mode and in the kernel for it.
    pub cpu_seconds: f64,
}

impl Stat {
    /// Of a process that was not waited for.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(pid: u32) -> Stat {
        let stat = read(pid, "stat");
        // The program's name stands in parentheses and may hold blanks; user and system time are fields 14 and 15.
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let mut fields = after_name.split_whitespace();
        let state = fields.next().unwrap_or_default();
        let ticks: f64 = fields
            .skip(10)
            .take(2)
            .map(|field| field.parse::<f64>().expect("a number of ticks"))
            .sum();
        Stat {
            has_ended: matches!(state, "Z" | "X"),
            cpu_seconds: ticks / TICKS_PER_SECOND,
        }
    }
}

fn read(pid: u32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Kernel ticks per second in `/proc/PID/stat`; fixed in Linux's user interface.
const TICKS_PER_SECOND: f64 = 100.0;
/// Two ticks for each of the two times that are added, before and after.
const AGREED_SECONDS: f64 = 0.04;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_has_memory() {
        let own = std::process::id();
        assert!(!Stat::of(own).has_ended);
        assert!(of_process(own).peak_mib > 1.0);
    }
}
