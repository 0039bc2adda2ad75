//! Series that are replaced all at once: one line for each of the things that there are now.
//!
//! The registry keeps every series for as long as the process lives. For topics and partitions that would be wrong:
//! they are deleted, and another process takes over looking at them, and a figure that nobody brings up to date any
//! more is worse than none. So these are handed over whole, by owner, and rendered as they were handed over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Kind, Metric};

/// One line: a metric, its labels, its value now.
#[derive(Debug, Clone)]
pub struct Series {
    /// Which metric; a gauge or a counter.
    pub metric: &'static Metric,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, Arc<str>)>,
    /// Its value.
    pub value: f64,
}

static OWNED: Mutex<BTreeMap<String, Vec<Series>>> = Mutex::new(BTreeMap::new());

/// Takes the place of everything that `owner` handed over before; nothing takes it away.
pub fn replace_series(owner: &str, series: Vec<Series>) {
    let mut owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    match series.is_empty() {
        true => owned.remove(owner),
        false => owned.insert(owner.to_owned(), series),
    };
}

/// Appends what everybody handed over, by metric.
pub(super) fn render(text: &mut String) {
    let owned = OWNED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut by_metric: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    for series in owned.values().flatten() {
        by_metric.entry(series.metric.name).or_default().push(series);
    }
    for (name, all) in by_metric {
        let Some(metric) = all.first().map(|series| series.metric) else {
            continue;
        };
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::Histogram => "gauge",
        };
        // Writing into a String cannot fail.
        let _ = write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help);
        for series in all {
            text.push_str(name);
            for (index, (label, value)) in series.labels.iter().enumerate() {
                text.push(if index == 0 { '{' } else { ',' });
                let _ = write!(text, "{label}=\"");
                escape(value, text);
                text.push('"');
            }
            let end = if series.labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{end} {}", series.value);
        }
        text.push('\n');
    }
}

fn escape(value: &str, text: &mut String) {
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            char => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: Metric = Metric::gauge("teeline_owned_offsets", "Offsets of a test.");
    static OF_TEST: Metric = METRIC;

    fn series(topic: &str, value: f64) -> Series {
        Series {
            metric: &OF_TEST,
            labels: vec![("cluster", "main".into()), ("topic", topic.into())],
            value,
        }
    }

    fn rendered() -> String {
        let mut text = String::new();
        render(&mut text);
        text
    }

    #[test]
    fn what_an_owner_hands_over_takes_the_place_of_what_it_had() {
        replace_series("one", vec![series("gone", 1.0)]);
        replace_series("other", vec![series("b\"\\\n", 2.0)]);
        replace_series("one", vec![series("kept", 3.0)]);
        let expected = "# HELP teeline_owned_offsets Offsets of a test.\n# TYPE teeline_owned_offsets gauge\n\
            teeline_owned_offsets{cluster=\"main\",topic=\"kept\"} 3\n\
            teeline_owned_offsets{cluster=\"main\",topic=\"b\\\"\\\\\\n\"} 2\n";
        assert!(rendered().contains(expected), "{}", rendered());
        replace_series("one", Vec::new());
        replace_series("other", Vec::new());
        assert!(!rendered().contains("teeline_owned_offsets"));
    }
}
