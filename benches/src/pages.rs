//! `docs/BENCHMARKS.md` and its charts, from what is kept under `benches/results`.

#![allow(clippy::print_stdout, reason = "it says what it has written")]

use std::collections::BTreeSet;
mod layout;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value};

use crate::charts::{Bar, Chart, number};
use crate::results::{self, Figure, Kept, Results};
use crate::targets::{self, Outcome, Verdict};
use layout::{CHARTS, COLUMNS, COUNTS, DRAWN, Drawn, LABELS, SECTIONS, UNITS, YARDSTICKS};

/// Where to read and where to write.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// The results.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
    /// The directory of the page; charts go to `benchmarks` in it.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
}

/// Writes the page and its charts anew.
///
/// # Panics
/// When results do not read, or the page cannot be written.
pub fn run(arguments: &ReportArguments) {
    let results = results::read(&arguments.results);
    let page = Page::of(&results);
    let charts = arguments.docs.join(CHARTS);
    // What is not drawn any more must not stay behind.
    if charts.exists() {
        fs::remove_dir_all(&charts).expect("remove the old charts");
    }
    fs::create_dir_all(&charts).expect("make the directory of charts");
    for (name, svg) in &page.charts {
        fs::write(charts.join(name), svg).expect("write a chart");
    }
    let path = arguments.docs.join("BENCHMARKS.md");
    fs::write(&path, &page.text).expect("write the page");
    println!(
        "{}: {} results, {} charts",
        path.display(),
        results.len(),
        page.charts.len()
    );
}

/// Text and pictures.
#[derive(Debug, Default)]
struct Page {
    text: String,
    charts: Vec<(String, String)>,
}

impl Page {
    fn of(results: &Results) -> Page {
        let mut page = Page::default();
        page.text.push_str(include_str!("pages/head.md"));
        page.in_short(results);
        page.text.push_str(include_str!("pages/how.md"));
        page.machines(results);
        page.targets(&targets::verdicts(results));
        for section in SECTIONS {
            if let Some(kept) = results.get(section.kind) {
                page.section(section.title, section.question, kept);
            }
        }
        page.text.push_str(include_str!("pages/elsewhere.md"));
        page
    }

    fn machines(&mut self, results: &Results) {
        let machines: BTreeSet<String> = results
            .values()
            .map(|kept| {
                let cores = kept
                    .document
                    .get("cores")
                    .map_or_else(String::new, Value::to_string);
                format!("{}, {cores} cores, {}", kept.text("cpu"), kept.text("machine"))
            })
            .collect();
        if machines.is_empty() {
            self.text.push_str("\nNothing is kept yet.\n");
            return;
        }
        self.text.push_str("\nMeasured on:\n\n");
        for machine in machines {
            let _ = writeln!(self.text, "- {machine}");
        }
    }

    /// What one way costs at a steady rate before real Kafka: what most people come for.
    fn in_short(&mut self, results: &Results) {
        let Some(kept) = results.get("wire") else { return };
        self.text.push_str(include_str!("pages/in_short.md"));
        for row in kept.rows() {
            let figure = |field: &str| row.get(field).and_then(Value::as_f64).unwrap_or(f64::NAN);
            let cpu = figure("steady_cpu_seconds_per_gb");
            let _ = writeln!(
                self.text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.get("contender").and_then(Value::as_str).unwrap_or_default(),
                number(cpu),
                number(cpu * STEADY_GB_PER_SECOND),
                number(figure("steady_p50_ms")),
                number(figure("steady_p99_ms")),
                number(figure("peak_mib")),
                number(figure("segmenter_peak_mib")),
            );
        }
    }

    fn targets(&mut self, verdicts: &[Verdict]) {
        self.text.push_str("\n## What is promised, and what holds\n\n");
        self.text.push_str(include_str!("pages/promised.md"));
        self.text.push_str(
            "| promise | bound | measured | rounds within | | result |\n|---|---:|---:|---:|---|---|\n",
        );
        for verdict in verdicts {
            let measured = verdict
                .measured
                .as_ref()
                .map_or_else(|| "–".to_owned(), figure_text);
            let within = verdict
                .rounds
                .map_or_else(String::new, |(count, of)| format!("{count} of {of}"));
            let holds = match verdict.outcome {
                Some(Outcome::Holds) => "holds",
                Some(Outcome::Reaches) => "reaches",
                Some(Outcome::Undecided) => "**undecided**",
                Some(Outcome::Misses) => "**misses**",
                None => "not measured",
            };
            let file = verdict
                .file
                .as_deref()
                .map(|file| format!("[{}](../benches/results/{file})", kind_words(file)));
            let _ = writeln!(
                self.text,
                "| {}{} | {} | {measured} | {within} | {holds} | {} |",
                verdict.what,
                if verdict.is_of_low_end { " †" } else { "" },
                verdict.bound,
                file.unwrap_or_default()
            );
        }
        let is_told = |verdict: &&Verdict| verdict.outcome != Some(Outcome::Holds) && !verdict.why.is_empty();
        let told: Vec<&Verdict> = verdicts.iter().filter(is_told).collect();
        if !told.is_empty() {
            self.text.push_str(include_str!("pages/why.md"));
        }
        for verdict in told {
            let _ = writeln!(self.text, "- **{}**: {}", verdict.what, verdict.why);
        }
    }

    fn section(&mut self, title: &str, question: &str, kept: &Kept) {
        let _ = writeln!(self.text, "\n## {title}\n");
        let _ = writeln!(self.text, "{question}\n");
        let _ = writeln!(
            self.text,
            "{} at commit `{}`; `cargo xtask bench {}`. Everything is in [{}](../benches/results/{}).",
            kept.text("date").get(..10).unwrap_or_default(),
            kept.text("commit"),
            command_of(kept),
            kept.file,
            kept.file
        );
        if let Some(run) = kept.document.get("run").and_then(Value::as_object) {
            let parameters: Vec<String> = run
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| format!("{} {}", words(name), cell(value)))
                .collect();
            let _ = writeln!(self.text, "\nParameters: {}.", parameters.join(", "));
        }
        let figures = kept.figures();
        if !figures.is_empty() {
            self.text.push('\n');
            self.text.push_str(&table(&[&figures]));
        }
        for (name, rows) in kept.tables() {
            let _ = write!(self.text, "\n{}", table(&rows));
            for (index, chart) in charts(&kept.kind, &rows).into_iter().enumerate() {
                let file = format!("{}-{name}-{}.svg", kept.kind, index + 1).replace(' ', "-");
                let _ = writeln!(self.text, "\n![{}]({CHARTS}/{file})", chart.title);
                self.charts.push((file, chart.svg()));
            }
        }
    }
}

/// What to type to measure it again.
fn command_of(kept: &Kept) -> String {
    // Programs of Cargo's benchmarks, which are given words of its own.
    if ["micro", "allocations"].contains(&kept.kind.as_str()) {
        return kept.kind.clone();
    }
    let given = kept.text("arguments").split(' ').collect::<Vec<_>>();
    // Where it was kept is nobody's business.
    let save = given.iter().position(|word| *word == "--save");
    let words = given
        .iter()
        .enumerate()
        .filter(|(at, _)| save.is_none_or(|save| *at != save && *at != save + 1))
        // What `hop` says to itself once it is on one processor.
        .filter(|(_, word)| **word != "--pinned");
    words.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

/// Rows as a Markdown table; columns without any value are left out.
fn table(rows: &[&Map<String, Value>]) -> String {
    let mut columns: Vec<&String> = Vec::new();
    for row in rows {
        for (name, value) in *row {
            if !value.is_null() && !columns.contains(&name) {
                columns.push(name);
            }
        }
    }
    // JSON objects come sorted by name; what a row is called comes first all the same, and then what tells most.
    let is_label = |name: &String| rows.iter().any(|row| row.get(name).is_some_and(Value::is_string));
    columns.sort_by_key(|name| {
        let place = |of: &[&str]| of.iter().position(|other| other == name).unwrap_or(of.len());
        (!is_label(name), place(&LABELS), place(&COLUMNS))
    });
    let mut text = String::from("|");
    for name in &columns {
        let _ = write!(text, " {} |", words(name));
    }
    text.push_str("\n|");
    for name in &columns {
        text.push_str(if is_label(name) { "---|" } else { "---:|" });
    }
    text.push('\n');
    for row in rows {
        text.push('|');
        for name in &columns {
            let _ = write!(text, " {} |", row.get(*name).map_or_else(String::new, cell));
        }
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(count) if count.is_u64() || count.is_i64() => count.to_string(),
        Value::Number(_) => number(value.as_f64().unwrap_or(f64::NAN)),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(_) => match Figure::of(value).filter(|figure| figure.between.is_some()) {
            Some(figure) => figure_text(&figure),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}

fn figure_text(figure: &Figure) -> String {
    match figure.between {
        None => number(figure.median),
        Some((low, high)) => format!("{} ({}–{})", number(figure.median), number(low), number(high)),
    }
}

/// A field's name for people.
fn words(name: &str) -> String {
    UNITS
        .iter()
        .fold(name.replace('_', " "), |text, (from, to)| text.replace(from, to))
}

fn kind_words(file: &str) -> String {
    let stem = file.trim_end_matches(".json").get(11..).unwrap_or(file);
    stem.rsplit_once('-').map_or(stem, |(kind, _)| kind).to_owned()
}

/// The charts of a kind of result, of those of its lines that have the field.
fn charts(kind: &str, rows: &[&Map<String, Value>]) -> Vec<Chart> {
    let wanted = DRAWN
        .iter()
        .filter(|drawn| drawn.kinds.iter().any(|start| kind.starts_with(start)));
    let charts = wanted.map(|drawn| Chart {
        title: drawn.title.to_owned(),
        unit: drawn.unit.to_owned(),
        bars: rows.iter().filter_map(|row| bar(row, drawn)).collect(),
        mark: drawn.mark.map(|(at, name)| (at, name.to_owned())),
    });
    charts.filter(|chart| chart.bars.len() > 1).collect()
}

fn bar(row: &Map<String, Value>, drawn: &Drawn) -> Option<Bar> {
    let figure = Figure::of(row.get(drawn.field)?).filter(|figure| figure.median.is_finite())?;
    let more = drawn.plus.and_then(|field| row.get(field)?.as_f64());
    let mut labels: Vec<&str> = Vec::new();
    for name in LABELS {
        labels.extend(row.get(name).and_then(Value::as_str));
    }
    let counts = COUNTS
        .iter()
        .filter_map(|name| Some(format!("{} {}", row.get(*name)?.as_u64()?, words(name))));
    let label = labels
        .into_iter()
        .map(str::to_owned)
        .chain(counts)
        .collect::<Vec<_>>()
        .join(", ");
    Some(Bar {
        value: figure.median,
        more: more.unwrap_or(0.0),
        between: figure.between,
        is_yardstick: YARDSTICKS.iter().any(|name| label.contains(name)),
        label,
    })
}

/// Of the steady runs.
const STEADY_GB_PER_SECOND: f64 = 0.02;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn results() -> Results {
        let document = json!({
            "kind": "lean", "date": "2026-01-31T10:00:00Z", "commit": "abcdef0", "cpu": "A CPU", "cores": 2,
            "machine": "Linux", "arguments": "lean --rounds 5 --save /somewhere --partitions 6",
            "run": {"rounds": 5, "rate_mb_per_second": null},
            "contenders": [
                {"mb_per_second": 500.0, "contender": "haproxy", "cpu_seconds_per_gb": 0.5, "cpu_to_haproxy": null},
                {"mb_per_second": 400.123, "contender": "async", "cpu_seconds_per_gb": 1.0,
                 "cpu_to_haproxy": {"median": 2.0, "low": 1.9, "high": 2.25}},
            ],
        });
        let document = document.as_object().expect("an object").clone();
        let file = "2026-01-31-lean-abcdef0.json".to_owned();
        Results::from([(
            "lean".to_owned(),
            Kept {
                kind: "lean".to_owned(),
                file,
                document,
            },
        )])
    }

    #[test]
    fn a_page_says_how_it_was_measured_and_what_came_out() {
        let page = Page::of(&results());
        assert!(page.text.contains("A CPU, 2 cores, Linux"));
        assert!(
            page.text
                .contains("`cargo xtask bench lean --rounds 5 --partitions 6`"),
            "{}",
            page.text
        );
        assert!(
            page.text
                .contains("| contender | MB/s | CPU-s per GB | CPU to HAProxy's (95 %) |"),
            "{}",
            page.text
        );
        assert!(
            page.text.contains("| async | 400 | 1.00 | 2.00 (1.90–2.25) |"),
            "{}",
            page.text
        );
        assert!(page.text.contains("Parameters: rounds 5."), "{}", page.text);
        assert_eq!(page.charts.len(), 1, "one bar alone is no chart");
        assert!(page.charts[0].1.contains("#9aa5b1"), "yardsticks look different");
    }
}
