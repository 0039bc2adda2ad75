//! What criterion measured of the pieces on the hot path, each beside what the machine can do at best.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::report::{Interval, median, ratio_text};

/// One piece.
#[derive(Debug, Clone, Serialize)]
pub struct Piece {
    /// What is compared with each other.
    pub group: String,
    /// How it was done; a physical limit says so.
    pub piece: String,
    /// Median, nanoseconds.
    pub time_ns: f64,
    /// 10^9 bytes a second, where bytes are what counts.
    pub gb_per_second: Option<f64>,
    /// Things a second, where things are what counts.
    pub per_second: Option<f64>,
    /// Speed as a part of the group's limit in the same run.
    pub of_limit: Option<Interval>,
}

/// Of several runs of everything, one after the other, medians, and how far the parts of limits lay apart.
pub fn medians(runs: &[Vec<Piece>]) -> Vec<Piece> {
    let first = runs.first().cloned().unwrap_or_default();
    let of_all = first.into_iter().map(|piece| {
        let same: Vec<&Piece> = runs
            .iter()
            .flatten()
            .filter(|other| (&other.group, &other.piece) == (&piece.group, &piece.piece))
            .collect();
        let of_all = |value: fn(&Piece) -> Option<f64>| {
            let values: Vec<f64> = same.iter().filter_map(|piece| value(piece)).collect();
            (!values.is_empty()).then_some(values)
        };
        let middle = |value| of_all(value).map(|values| median(values.into_iter()));
        Piece {
            time_ns: middle(|piece| Some(piece.time_ns)).unwrap_or(f64::NAN),
            gb_per_second: middle(|piece| piece.gb_per_second),
            per_second: middle(|piece| piece.per_second),
            of_limit: of_all(|piece| Some(piece.of_limit.as_ref()?.median)).map(|all| Interval::of(&all)),
            group: piece.group,
            piece: piece.piece,
        }
    });
    of_all.collect()
}

/// What the name of a physical limit begins with; each group has one.
pub const LIMIT: &str = "limit: ";

/// Reads what criterion has written to its directory since then.
///
/// # Panics
/// When a file of criterion's is not as expected.
pub fn read(directory: &Path, since: SystemTime) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for group in subdirectories(directory) {
        for function in subdirectories(&group) {
            let new = function.join("new");
            let fresh = fs::metadata(new.join("estimates.json")).and_then(|file| file.modified());
            if fresh.is_ok_and(|modified| modified >= since) {
                pieces.push((
                    fs::metadata(new.join("estimates.json"))
                        .and_then(|file| file.modified())
                        .ok(),
                    piece(
                        &json(&new.join("benchmark.json")),
                        &json(&new.join("estimates.json")),
                    ),
                ));
            }
        }
    }
    // As they were run.
    pieces.sort_by_key(|(at, _)| *at);
    with_limits(pieces.into_iter().map(|(_, piece)| piece).collect())
}

fn subdirectories(directory: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.is_dir()).collect()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn piece(benchmark: &Value, estimates: &Value) -> Piece {
    let text = |key: &str| benchmark[key].as_str().unwrap_or_default().to_owned();
    let time_ns = estimates["median"]["point_estimate"].as_f64().expect("a median");
    // Things per nanosecond are 10^9 things a second.
    let rate = |kind: &str| {
        benchmark["throughput"][kind]
            .as_f64()
            .map(|count| count / time_ns)
    };
    Piece {
        group: text("group_id"),
        piece: text("function_id"),
        time_ns,
        gb_per_second: rate("Bytes"),
        per_second: rate("Elements").map(|rate| rate * 1e9),
        of_limit: None,
    }
}

fn with_limits(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let limits: Vec<Piece> = pieces
        .iter()
        .filter(|piece| piece.piece.starts_with(LIMIT))
        .cloned()
        .collect();
    for piece in &mut pieces {
        let limit = limits.iter().find(|limit| limit.group == piece.group);
        piece.of_limit = limit.map(|limit| Interval::of(&[limit.time_ns / piece.time_ns]));
    }
    pieces
}

/// The table for people.
pub fn table(pieces: &[Piece]) -> String {
    let mut text = format!(
        "{:<46} {:<50} {:>12} {:>12} {:>17}\n",
        "group", "piece", "time", "speed", "of limit"
    );
    for piece in pieces {
        let speed = match (piece.gb_per_second, piece.per_second) {
            (Some(speed), _) => format!("{speed:.2} GB/s"),
            (None, Some(speed)) => format!("{:.2} M/s", speed / 1e6),
            (None, None) => String::new(),
        };
        let of_limit = ratio_text(piece.of_limit.as_ref());
        text.push_str(&format!(
            "{:<46} {:<50} {:>12} {speed:>12} {of_limit:>17}\n",
            piece.group,
            piece.piece,
            time(piece.time_ns)
        ));
    }
    text
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_piece_is_held_against_the_limit_of_its_own_group() {
        let of = |group: &str, piece: &str, ns: f64| {
            let benchmark = json!({"group_id": group, "function_id": piece, "throughput": {"Bytes": 1_000}});
            super::piece(&benchmark, &json!({"median": {"point_estimate": ns}}))
        };
        let pieces = with_limits(vec![
            of("a", "limit: memcpy", 50.0),
            of("a", "ours", 200.0),
            of("b", "ours", 100.0),
        ]);
        let part = |pieces: &[Piece]| {
            pieces[1]
                .of_limit
                .as_ref()
                .map(|part| (part.low, part.median, part.high))
        };
        assert_eq!(part(&pieces), Some((0.25, 0.25, 0.25)));
        assert!(pieces[2].of_limit.is_none());
        let slower = with_limits(vec![of("a", "limit: memcpy", 50.0), of("a", "ours", 500.0)]);
        let both = medians(&[pieces.clone(), slower]);
        assert_eq!((both.len(), both[1].time_ns), (3, 350.0));
        assert_eq!(part(&both), Some((0.1, 0.175, 0.25)));
        assert_eq!(pieces[0].gb_per_second, Some(20.0));
        assert!(table(&pieces).contains("200.0 ns"));
    }
}
