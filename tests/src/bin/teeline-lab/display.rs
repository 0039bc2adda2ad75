//! The demonstration's output: steps, a live line, a table.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Prints numbered steps and keeps one live line at the bottom of a terminal.
pub(crate) struct Display {
    terminal: bool,
    started: Instant,
    last_line: Option<Instant>,
    steps: u32,
}

/// Without a terminal, a line every few seconds is enough.
const PLAIN_INTERVAL: Duration = Duration::from_secs(4);

impl Display {
    pub(crate) fn new() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            started: Instant::now(),
            last_line: None,
            steps: 0,
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn step(&mut self, text: &str) {
        self.steps += 1;
        let (bold, plain) = if self.terminal {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        println!("\n{bold}{}. {text}{plain}", self.steps);
    }

    pub(crate) fn note(&self, text: &str) {
        println!("   {text}");
    }

    pub(crate) fn live(&mut self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K   {text}");
        } else if self.last_line.is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL) {
            println!("   {text}");
            self.last_line = Some(Instant::now());
        }
        // Nothing to be done about a terminal that has gone.
        let _ = io::stdout().flush();
    }

    pub(crate) fn end_live(&mut self, text: &str) {
        self.last_line = None;
        self.live(text);
        if self.terminal {
            println!();
        }
    }

    pub(crate) fn table(&self, rows: &[(&str, String)]) {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let rule = "─".repeat(width + 44);
        println!("\n   {rule}");
        for (name, value) in rows {
            println!("   {name:<width$}   {value}");
        }
        println!("   {rule}");
    }
}

/// `1 234 567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `12.3 MB`
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The size of every file below a directory.
pub(crate) fn directory_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    // A file may be renamed while we look: it counts the next time.
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
