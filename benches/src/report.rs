//! Medians, ratios, and where they are kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;
use serde_json::{Value, json};

/// Keeps a result under a directory, with date, commit and machine. `accounted` are the options that `what` tells of
/// already; with any other one that changes what is measured, it is called something else, and no promise is held against it.
///
/// # Panics
/// When it cannot be written.
pub fn keep(directory: &Path, what: &str, accounted: &[&str], mut document: Value) {
    let what = &kind(what, accounted, std::env::args().skip(2));
    let mut commit = first_line(Command::new("git").args(["rev-parse", "--short", "HEAD"]));
    // Results that were kept just now change nothing of what is measured.
    let changed = [
        "status",
        "--porcelain",
        "--",
        ":(top)",
        ":(top,exclude)benches/results",
        ":(top,exclude)docs",
    ];
    if first_line(Command::new("git").args(changed)) != UNKNOWN {
        commit.push_str("+changes");
    }
    let date = jiff::Timestamp::now().to_string();
    let day = date.get(..10).unwrap_or(&date).to_owned();
    document["kind"] = json!(what);
    document["date"] = json!(date);
    document["commit"] = json!(commit);
    document["machine"] = json!(first_line(Command::new("uname").args(["-srm"])));
    document["cpu"] = json!(cpu());
    document["arguments"] = json!(typed(std::env::args().skip(1)));
    document["cores"] = json!(processors().count());
    // Of what is there; not every question asks all of them.
    document["installed"] = json!({
        "haproxy": first_line(Command::new("haproxy").arg("-v")),
        "kafka": teeline_tests::components::broker_version(),
    });
    fs::create_dir_all(directory).expect("make the directory of results");
    let text = serde_json::to_string_pretty(&document).expect("JSON");
    // What was kept stays: a second one of the day gets a number.
    let names = (1..).map(|number| match number {
        1 => format!("{day}-{what}-{commit}.json"),
        _ => format!("{day}-{what}-{commit}.{number}.json"),
    });
    let mut paths = names.map(|name| directory.join(name));
    let path = paths.find(|path| !path.exists()).expect("numbers do not end");
    fs::write(&path, text + "\n").expect("write the result");
    eprintln!("kept in {}", path.display());
}

/// A command line as it can be typed on another machine: of a program elsewhere only its name, which PATH may have.
fn typed(words: impl Iterator<Item = String>) -> String {
    let typed = words.map(|word| {
        let name = Path::new(&word).file_name().and_then(|name| name.to_str());
        match name.filter(|_| word.starts_with('/')) {
            Some(name) => name.to_owned(),
            None if word.contains(' ') => format!("\"{word}\""),
            None => word,
        }
    });
    typed.collect::<Vec<_>>().join(" ")
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output)
        .lines()
        .next()
        .unwrap_or(UNKNOWN)
        .to_owned()
}

const UNKNOWN: &str = "unknown";

/// The kind of a result, by its command line.
fn kind(what: &str, accounted: &[&str], words: impl IntoIterator<Item = String>) -> String {
    let is_usual = |word: String| {
        let option = word.split('=').next().unwrap_or_default();
        !option.starts_with("--") || HOW_LONG.contains(&option) || accounted.contains(&option)
    };
    let mut kind = what.to_owned();
    if !words.into_iter().all(is_usual) {
        kind.push_str("-other");
    }
    kind
}

/// Options that change how much is measured, not what, and where the rivals are.
const HOW_LONG: [&str; 10] = [
    "--rounds",
    "--seconds",
    "--records",
    "--kafka-records",
    "--megabytes",
    "--steady-seconds",
    "--shotover",
    "--save",
    // Of cargo, and of `hop` when it has found its CPU.
    "--bench",
    "--pinned",
];

/// The processor's name, as the kernel has it.
fn cpu() -> String {
    processors().next().unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The name of each of the machine's processors; those that this process is not to run on included.
fn processors() -> impl Iterator<Item = String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.strip_prefix("model name"));
    let names = names.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
    names.collect::<Vec<_>>().into_iter()
}

/// A median, and where it lies with 95 % of confidence: of six rounds or more. Of fewer it is the lowest and the highest, which
/// hold it between them in 75 % of cases (three rounds), 87 % (four) or 94 % (five).
#[derive(Debug, Clone, Serialize)]
pub struct Interval {
    /// The median of what was measured.
    pub median: f64,
    /// The 2.5th percentile of the medians of samples drawn from it again.
    pub low: f64,
    /// The 97.5th percentile of them.
    pub high: f64,
    /// What was measured, round by round.
    pub rounds: Vec<f64>,
}

impl Interval {
    /// Of the ratios of `values` to `base`, round by round.
    pub fn of_ratio(values: &[f64], base: &[f64]) -> Interval {
        let ratios = values.iter().zip(base).map(|(value, base)| value / base);
        Interval::of(&ratios.collect::<Vec<f64>>())
    }

    /// Of how far `values` lie over the largest of the others, round by round.
    pub fn of_excess(values: &[f64], others: &[Vec<f64>]) -> Interval {
        let largest = |round: usize| {
            let of_round = others.iter().filter_map(|other| other.get(round).copied());
            of_round.fold(f64::NAN, f64::max)
        };
        let excess = values
            .iter()
            .enumerate()
            .map(|(round, value)| value - largest(round));
        Interval::of(&excess.collect::<Vec<f64>>())
    }

    /// Of what was measured in several rounds (percentile bootstrap, the same draws every time).
    pub fn of(values: &[f64]) -> Interval {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values[(state % values.len() as u64) as usize]
        };
        let mut medians: Vec<f64> = match values.len() {
            0 => vec![f64::NAN],
            count => (0..DRAWS).map(|_| median((0..count).map(|_| draw()))).collect(),
        };
        medians.sort_by(f64::total_cmp);
        let at = |part: f64| medians[((medians.len() - 1) as f64 * part).round() as usize];
        Interval {
            median: median(values.iter().copied()),
            low: at(0.025),
            high: at(0.975),
            rounds: values.to_vec(),
        }
    }
}

/// `median (low–high)`; nothing of nothing.
pub fn ratio_text(ratio: Option<&Interval>) -> String {
    ratio.map_or_else(String::new, |ratio| {
        format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
    })
}

const DRAWS: usize = 2_000;

/// The middle value; the mean of the two middle ones for an even count; NaN of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_of_something_else_is_called_something_else() {
        let kind = |line: &str| {
            let words = line.split(' ').map(str::to_owned);
            super::kind("lean-steady", &["--rate", "--batch-bytes"], words)
        };
        assert_eq!(
            kind("--rate 20 --batch-bytes=16384 --rounds 3 --save here"),
            "lean-steady"
        );
        assert_eq!(kind("--rate 20 --connections 9"), "lean-steady-other");
        assert_eq!(kind("--only=async"), "lean-steady-other");
    }

    #[test]
    fn a_command_line_names_no_place_of_this_machine() {
        let words = [
            "wire",
            "--shotover",
            "/somewhere/bin/shotover-proxy",
            "--only",
            "no capture",
        ];
        let typed = super::typed(words.map(str::to_owned).into_iter());
        assert_eq!(typed, "wire --shotover shotover-proxy --only \"no capture\"");
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn an_interval_holds_the_median_and_is_no_wider_than_what_was_measured() {
        let interval = Interval::of_ratio(&[2.0, 4.0, 9.0], &[1.0, 2.0, 3.0]);
        assert_eq!((interval.median, interval.low, interval.high), (2.0, 2.0, 3.0));
        assert!(Interval::of_ratio(&[], &[]).median.is_nan());
        let excess = Interval::of_excess(&[5.0, 5.0], &[vec![1.0, 4.0], vec![2.0, 9.0]]);
        assert_eq!(excess.rounds, [3.0, -4.0]);
    }
}
