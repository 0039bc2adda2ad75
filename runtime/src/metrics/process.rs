//! What the process itself uses, as the kernel tells it in `/proc`. Written out by hand: the registry's
//! counters are whole numbers, and seconds of CPU are not.

use std::fmt::Write as _;

/// Ticks per second in `/proc/*/stat`: fixed at 100 for programs on Linux on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends the metrics that can be had; elsewhere than on Linux that is none.
pub(super) fn render(text: &mut String) {
    let metrics = [
        (
            "cpu_seconds_total",
            "counter",
            "CPU time used by this process.",
            cpu_seconds(),
        ),
        (
            "resident_memory_bytes",
            "gauge",
            "Memory of this process that is in RAM.",
            resident_bytes(),
        ),
        (
            "open_fds",
            "gauge",
            "Open file descriptors of this process.",
            open_fds(),
        ),
    ];
    for (name, kind, help, value) in metrics {
        if let Some(value) = value {
            // Writing into a String cannot fail.
            let _ = write!(
                text,
                "# HELP teeline_process_{name} {help}\n# TYPE teeline_process_{name} {kind}\nteeline_process_{name} {value}\n\n"
            );
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    parse_cpu_seconds(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn resident_bytes() -> Option<f64> {
    parse_resident_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn open_fds() -> Option<f64> {
    // The directory being read is one of them.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(f64::from(u32::try_from(count).ok()?))
}

/// Fields 14 and 15, counted behind the command name, which may itself hold spaces and parentheses.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn parse_resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_strange_command_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_cpu_seconds(stat), Some(3.0));
        assert_eq!(parse_cpu_seconds("nonsense"), None);
    }

    #[test]
    fn resident_memory_is_told_in_bytes() {
        assert_eq!(
            parse_resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2 kB\n"),
            Some(2048.0)
        );
    }

    #[test]
    fn this_process_uses_something() {
        let mut text = String::new();
        render(&mut text);
        assert!(
            text.contains("teeline_process_resident_memory_bytes ")
                && text.contains("teeline_process_open_fds ")
        );
    }
}
