//! How far a backup is: a bar on a terminal, lines of JSON where they were asked for, else nothing.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::report::bytes;
use crate::fetcher::Progress;

/// How progress is shown; shared by all backups of a process.
#[derive(Debug, Clone)]
pub enum Display {
    /// A bar each, on standard error.
    Bars(MultiProgress),
    /// A line of JSON on standard output every second.
    Json,
    /// Not at all.
    Nothing,
}

impl Display {
    /// What fits: lines if they were asked for, bars if somebody may see them.
    pub fn fitting(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Display::Json,
            (false, true) => Display::Bars(MultiProgress::new()),
            (false, false) => Display::Nothing,
        }
    }
}

/// The progress of one backup while it is shown; ends when dropped.
#[derive(Debug)]
pub struct Shown {
    /// Offsets to be dealt with, as far as is known.
    total: Arc<AtomicU64>,
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// Begins to show.
    pub fn begin(display: &Display, backup_id: &str, progress: Arc<Progress>) -> Self {
        let total = Arc::new(AtomicU64::new(0));
        let known = Arc::clone(&total);
        match display {
            Display::Nothing => Shown {
                total,
                task: None,
                bar: None,
            },
            Display::Json => Shown {
                total,
                task: Some(tokio::spawn(print_lines(backup_id.to_owned(), progress, known))),
                bar: None,
            },
            Display::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(0));
                let style =
                    ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3}% {msg} {eta} left");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(backup_id.to_owned());
                Shown {
                    total,
                    task: Some(tokio::spawn(draw(bar.clone(), progress, known))),
                    bar: Some(bar),
                }
            }
        }
    }

    /// So many offsets are to be dealt with, those that are done included.
    pub fn expect(&self, offsets: u64) {
        self.total.store(offsets, Ordering::Relaxed);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar need not move faster than the eye.
const BAR_INTERVAL: Duration = Duration::from_millis(150);
/// Lines are for machines and logs.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

async fn draw(bar: ProgressBar, progress: Arc<Progress>, total: Arc<AtomicU64>) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(BAR_INTERVAL);
    loop {
        ticks.tick().await;
        bar.set_length(total.load(Ordering::Relaxed));
        bar.set_position(progress.offsets());
        let rate = progress.bytes() as f64 / begun.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!(
            "{} records, {} at {}/s",
            progress.records(),
            bytes(progress.bytes() as f64),
            bytes(rate)
        ));
    }
}

async fn print_lines(backup_id: String, progress: Arc<Progress>, total: Arc<AtomicU64>) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(LINE_INTERVAL);
    let mut shown = None;
    loop {
        ticks.tick().await;
        let figures = (
            progress.offsets(),
            progress.segments(),
            total.load(Ordering::Relaxed),
        );
        // A continuous backup of a quiet cluster has nothing to say.
        if shown.replace(figures) == Some(figures) {
            continue;
        }
        let line = serde_json::json!({
            "type": "progress",
            "backup_id": backup_id,
            "elapsed_ms": u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "offsets": progress.offsets(),
            "offsets_total": total.load(Ordering::Relaxed),
            "records": progress.records(),
            "bytes": progress.bytes(),
            "segments": progress.segments(),
        });
        // Whoever closed the pipe does not want to know; the backup goes on.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
