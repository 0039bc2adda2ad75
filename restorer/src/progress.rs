//! How far a restore is: a bar on a terminal, JSON lines where they were asked for, else nothing.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::figures;
use crate::tally::Live;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// A bar on standard error.
    Bar,
    /// A line of JSON on standard output every second.
    Json,
    /// Not at all.
    Nothing,
}

/// A phase under way; ends when dropped.
#[derive(Debug)]
pub struct Phase {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

/// A line of progress.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(rename = "type")]
    kind: &'static str,
    phase: &'static str,
    elapsed_ms: u64,
    records: u64,
    bytes: u64,
    archive_bytes: u64,
    archive_bytes_total: u64,
}

/// A bar need not move faster than the eye.
const BAR_INTERVAL: Duration = Duration::from_millis(150);
/// Lines are for machines and logs.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

impl Phase {
    /// Begins to show a phase: `check` or `restore`.
    pub fn begin(display: Display, phase: &'static str, archive_bytes_total: u64, live: Arc<Live>) -> Self {
        match display {
            Display::Nothing => Self {
                task: None,
                bar: None,
            },
            Display::Bar => {
                let bar =
                    ProgressBar::with_draw_target(Some(archive_bytes_total), ProgressDrawTarget::stderr());
                let template = "{prefix:>8} [{bar:32}] {percent:>3}% {msg} {eta} left";
                bar.set_style(
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.set_prefix(phase);
                let task = tokio::spawn(draw(bar.clone(), live));
                Self {
                    task: Some(task),
                    bar: Some(bar),
                }
            }
            Display::Json => {
                let task = tokio::spawn(print_lines(phase, archive_bytes_total, live));
                Self {
                    task: Some(task),
                    bar: None,
                }
            }
        }
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn draw(bar: ProgressBar, live: Arc<Live>) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(BAR_INTERVAL);
    loop {
        ticks.tick().await;
        let (records, bytes, archive_bytes) = live.read();
        let elapsed = begun.elapsed();
        bar.set_position(archive_bytes);
        let shown = if records == 0 {
            format!(
                "{}/s",
                figures::bytes(figures::per_second(archive_bytes, elapsed))
            )
        } else {
            format!(
                "{} records, {} at {}/s",
                figures::count(records),
                figures::bytes(bytes),
                figures::bytes(figures::per_second(bytes, elapsed)),
            )
        };
        bar.set_message(shown);
    }
}

async fn print_lines(phase: &'static str, archive_bytes_total: u64, live: Arc<Live>) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(LINE_INTERVAL);
    loop {
        ticks.tick().await;
        let (records, bytes, archive_bytes) = live.read();
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        print_json(&Line {
            kind: "progress",
            phase,
            elapsed_ms,
            records,
            bytes,
            archive_bytes,
            archive_bytes_total,
        });
    }
}

/// Prints a value as one line of JSON on standard output.
pub fn print_json<T: Serialize>(value: &T) {
    if let Ok(line) = serde_json::to_string(value) {
        print(&line);
    }
}

/// Prints a text and a line's end on standard output. That nobody reads any more is no reason to fail.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
    let _ = out.flush();
}
