//! What is promised of speed, held against what was measured.

mod promises;

use serde_json::{Map, Value};

use crate::charts::number;
use crate::results::{Kept, Results, low, median};
use promises::TARGETS;

/// One promise, and where its figure is found.
struct Target {
    what: &'static str,
    bound: Bound,
    /// The kind of result, the lines of it, and the field.
    kind: &'static str,
    lines: &'static [(&'static str, &'static str)],
    field: &'static str,
    /// What the figure is held against; without it the figure is taken as it is.
    against: Against,
    /// What the profile says should it miss; empty while it holds.
    why: &'static str,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

enum Against {
    Nothing,
    /// The lower end of its 95 % interval counts.
    LowEnd,
    /// Less the largest of the same field of these lines.
    Above(&'static [&'static [(&'static str, &'static str)]]),
}

/// How a promise stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is promised.
    pub what: &'static str,
    /// The bound, in words.
    pub bound: String,
    /// The worst that was measured.
    pub measured: Option<f64>,
    /// In which file.
    pub file: Option<String>,
    /// Whether it holds; `None` when nothing was measured.
    pub holds: Option<bool>,
    /// Should it miss: why, as far as that is known.
    pub why: &'static str,
}

/// Every promise, in the order of the report.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(results)).collect()
}

impl Target {
    fn judge(&self, results: &Results) -> Verdict {
        let kept = results.get(self.kind);
        let measured = kept.and_then(|kept| self.measured(kept));
        let (bound, holds) = match self.bound {
            Bound::AtMost(most) => (format!("≤ {}", number(most)), measured.map(|value| value <= most)),
            Bound::AtLeast(least) => (
                format!("≥ {}", number(least)),
                measured.map(|value| value >= least),
            ),
        };
        Verdict {
            what: self.what,
            bound,
            measured,
            file: kept.filter(|_| measured.is_some()).map(|kept| kept.file.clone()),
            holds,
            why: self.why,
        }
    }

    /// The worst of the lines that are meant.
    fn measured(&self, kept: &Kept) -> Option<f64> {
        let of_lines = |lines| figures(kept, lines, self.field);
        let own = of_lines(self.lines);
        match self.against {
            Against::Nothing => self.worst(own.into_iter().map(|value| median(&value))),
            Against::LowEnd => self.worst(own.into_iter().map(|value| low(&value))),
            Against::Above(others) => {
                let bases = others
                    .iter()
                    .filter_map(|lines| of_lines(lines).first().and_then(median));
                let base = bases.fold(f64::NAN, f64::max);
                self.worst(own.into_iter().map(|value| Some(median(&value)? - base)))
            }
        }
    }

    fn worst(&self, values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
        let values = values.flatten().filter(|value| value.is_finite());
        match self.bound {
            Bound::AtMost(_) => values.reduce(f64::max),
            Bound::AtLeast(_) => values.reduce(f64::min),
        }
    }
}

/// A field of the lines in which every one of these fields has this text; of the result itself where no line has it.
fn figures(kept: &Kept, lines: &[(&str, &str)], field: &str) -> Vec<Value> {
    let is_meant = |row: &&Map<String, Value>| {
        let mut wanted = lines.iter();
        wanted.all(|(key, text)| row.get(*key).is_some_and(|value| is(value, text)))
    };
    let found: Vec<Value> = kept
        .rows()
        .filter(is_meant)
        .filter_map(|row| row.get(field).cloned())
        .collect();
    match kept.document.get(field) {
        Some(figure) if found.is_empty() && lines.is_empty() => vec![figure.clone()],
        _ => found,
    }
}

/// Numbers are compared as they are printed; a text that ends in `*` is compared up to there.
fn is(value: &Value, text: &str) -> bool {
    let own = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.strip_suffix('*') {
        Some(start) => own.starts_with(start),
        None => own == text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::promises::{DIRECT, DURABLE, HAPROXY, NO_CAPTURE};
    use super::*;

    fn kept(document: Value) -> Results {
        let kept = Kept {
            kind: "lean".to_owned(),
            file: "lean.json".to_owned(),
            document: document.as_object().expect("an object").clone(),
        };
        Results::from([("lean".to_owned(), kept)])
    }

    fn target(bound: Bound, lines: &'static [(&'static str, &'static str)], against: Against) -> Target {
        Target {
            what: "",
            bound,
            kind: "lean",
            lines,
            field: "cost",
            against,
            why: "",
        }
    }

    #[test]
    fn figures_are_held_against_others_of_the_same_run() {
        let results = kept(json!({"lines": [
            {"contender": "haproxy", "cost": 2.0},
            {"contender": "no capture", "cost": {"median": 3.0, "low": 1.0, "high": 4.0}},
        ]}));
        let judged = |bound, against| target(bound, NO_CAPTURE, against).judge(&results);
        assert_eq!(judged(Bound::AtMost(1.1), Against::LowEnd).holds, Some(true));
        assert_eq!(
            judged(Bound::AtMost(1.1), Against::Above(&[HAPROXY, DIRECT])).holds,
            Some(true)
        );
        assert_eq!(judged(Bound::AtLeast(4.0), Against::Nothing).holds, Some(false));
        let absent = target(Bound::AtMost(1.0), DURABLE, Against::Nothing).judge(&results);
        assert_eq!((absent.holds, absent.file), (None, None));
    }
}
