//! Numbers as people read them.

use std::time::Duration;

/// Bytes in binary units: `1.4 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = "KiB";
    for next in UNITS.iter().skip(1) {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 10.0 {
        format!("{value:.2} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A count with thousands set apart: `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 record`, `2 records`.
pub fn of(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A duration: `0.42 s`, `3 min 20 s`, `5 h 1 min`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 10 {
        format!("{:.2} s", span.as_secs_f64())
    } else if seconds < 120 {
        format!("{:.1} s", span.as_secs_f64())
    } else if seconds < 7200 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)
    }
}

/// So much per second; nothing took no time.
pub fn per_second(number: u64, span: Duration) -> u64 {
    let seconds = span.as_secs_f64().max(0.001);
    (number as f64 / seconds) as u64
}

/// Rows as a table with aligned columns, the first row being the head. Numbers are set right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let numeric = |column: usize| {
        let mut cells = rows
            .iter()
            .skip(1)
            .filter_map(|row| row.get(column))
            .filter(|cell| !cell.is_empty())
            .peekable();
        cells.peek().is_some()
            && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains('T'))
    };
    let shapes: Vec<(usize, bool)> = (0..columns)
        .map(|column| (width(column), numeric(column)))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, (width, right)) in row.iter().zip(&shapes) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let width = *width;
            line.push_str(&if *right {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(1 << 30)],
            ["0 B", "1023 B", "1.50 KiB", "1.00 GiB"]
        );
        assert_eq!(
            [count(0), count(999), count(1000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(of(1, "record"), "1 record");
        assert_eq!(of(2000, "record"), "2,000 records");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(per_second(10, Duration::from_secs(2)), 5);
    }

    #[test]
    fn a_table_aligns_numbers_right_and_words_left() {
        let rows = [["topic", "records"], ["orders", "12"], ["a", "3"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|c| (*c).to_owned()).collect())
            .collect();
        assert_eq!(
            table(&rows),
            "topic   records\norders       12\na             3\n"
        );
    }
}
