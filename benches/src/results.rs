//! What was kept of earlier runs, the newest of each kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// One kept result.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Which question it answers, as `lean`.
    pub kind: String,
    /// Its file's name.
    pub file: String,
    /// Everything in it.
    pub document: Map<String, Value>,
}

/// Results by kind.
pub type Results = BTreeMap<String, Kept>;

impl Kept {
    /// A field's text; empty without one.
    pub fn text(&self, field: &str) -> &str {
        self.document
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What was measured: every list of objects, with its name.
    pub fn tables(&self) -> impl Iterator<Item = (&str, Vec<&Map<String, Value>>)> {
        self.document.iter().filter_map(|(name, value)| {
            let rows: Vec<_> = value.as_array()?.iter().filter_map(Value::as_object).collect();
            (!rows.is_empty()).then_some((name.as_str(), rows))
        })
    }

    /// All lines of all lists.
    pub fn rows(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.tables().flat_map(|(_, rows)| rows)
    }

    /// What was measured outside of any list.
    pub fn figures(&self) -> Map<String, Value> {
        let figures = self.document.iter().filter(|(name, value)| {
            let is_figure = Figure::of(value).is_some();
            is_figure && !ABOUT_THE_RUN.contains(&name.as_str())
        });
        figures
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// A number that was measured, or the median of several with the interval that holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The number, or the median.
    pub median: f64,
    /// The interval.
    pub between: Option<(f64, f64)>,
    /// What it is the median of, where that is kept.
    pub rounds: Vec<f64>,
}

impl Figure {
    /// As it was kept; `None` of what is no figure.
    pub fn of(value: &Value) -> Option<Figure> {
        let field = |name: &str| value.get(name)?.as_f64();
        Some(Figure {
            median: value.as_f64().or_else(|| field("median"))?,
            between: field("low").zip(field("high")),
            rounds: value
                .get("rounds")
                .and_then(Value::as_array)
                .map(|rounds| rounds.iter().filter_map(Value::as_f64).collect())
                .unwrap_or_default(),
        })
    }

    /// The lower end of the interval; a number is its own.
    pub fn low(&self) -> f64 {
        self.between.map_or(self.median, |(low, _)| low)
    }
}

/// Reads a directory; the newest result of each kind counts.
///
/// # Panics
/// When a file there does not read.
pub fn read(directory: &Path) -> Results {
    let mut newest = Results::new();
    let entries = fs::read_dir(directory).unwrap_or_else(|error| {
        panic!(
            "read {}: {error} (hint: run benchmarks with --save)",
            directory.display()
        )
    });
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
    {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let document: Map<String, Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let named = document.get("kind").and_then(Value::as_str).map(str::to_owned);
        let Some(kind) = named.or_else(|| kind_of(&file)) else {
            continue;
        };
        let kept = Kept {
            kind: kind.clone(),
            file,
            document,
        };
        let is_newer = newest
            .get(&kind)
            .is_none_or(|other| kept.text("date") > other.text("date"));
        if is_newer {
            newest.insert(kind, kept);
        }
    }
    newest
}

/// `2026-01-31-lean-1a2b3c4.json` is of kind `lean`.
fn kind_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".json")?.get(DATE_CHARACTERS..)?;
    Some(stem.rsplit_once('-')?.0.to_owned())
}

/// `2026-01-31-`.
const DATE_CHARACTERS: usize = 11;
/// Numbers that are no measurement.
const ABOUT_THE_RUN: [&str; 1] = ["cores"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_of_each_kind_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let keep = |name: &str, document: Value| {
            fs::write(directory.path().join(name), document.to_string()).expect("write");
        };
        keep(
            "2026-01-31-lean-aaaaaaa.json",
            json!({"date": "2026-01-31T10:00:00Z", "lines": [{"path": "a"}]}),
        );
        keep(
            "2026-01-31-lean-bbbbbbb.json",
            json!({"date": "2026-01-31T09:00:00Z"}),
        );
        keep(
            "2026-01-30-sweep-partitions-ccccccc.json",
            json!({"date": "2026-01-30", "cores": 2, "seconds": 0.1}),
        );
        let results = read(directory.path());
        assert_eq!(results.keys().collect::<Vec<_>>(), ["lean", "sweep-partitions"]);
        assert_eq!(results["lean"].file, "2026-01-31-lean-aaaaaaa.json");
        assert_eq!(results["lean"].rows().count(), 1);
        assert_eq!(
            results["sweep-partitions"].figures().keys().collect::<Vec<_>>(),
            ["seconds"]
        );
    }
}
