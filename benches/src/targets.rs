//! What is promised of speed, held against what was measured.

mod promises;

use serde_json::{Map, Value};

use crate::charts::number;
use crate::results::{Figure, Kept, Results};
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
    /// The lower end of its 95 % interval has to reach the bound.
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
    /// The worst that was measured, and how far it lay apart from round to round where that is kept.
    pub measured: Option<Figure>,
    /// In which file.
    pub file: Option<String>,
    /// `None` when nothing was measured.
    pub outcome: Option<Outcome>,
    /// Should it miss: why, as far as that is known.
    pub why: &'static str,
}

/// What the figure says of the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The median is within the bound.
    Holds,
    /// Only the lower end of the interval is, which is what was promised.
    Reaches,
    /// Neither.
    Misses,
}

/// Every promise, in the order of the report.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(results)).collect()
}

impl Target {
    fn judge(&self, results: &Results) -> Verdict {
        let kept = results.get(self.kind);
        let measured = kept.and_then(|kept| self.measured(kept));
        let bound = match self.bound {
            Bound::AtMost(most) => format!("≤ {}", number(most)),
            Bound::AtLeast(least) => format!("≥ {}", number(least)),
        };
        Verdict {
            what: self.what,
            bound,
            measured,
            file: kept.filter(|_| measured.is_some()).map(|kept| kept.file.clone()),
            outcome: measured.as_ref().map(|measured| self.outcome(measured)),
            why: self.why,
        }
    }

    fn outcome(&self, measured: &Figure) -> Outcome {
        let is_within = |value: f64| match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        };
        match self.against {
            _ if is_within(measured.median) => Outcome::Holds,
            Against::LowEnd if is_within(measured.low()) => Outcome::Reaches,
            _ => Outcome::Misses,
        }
    }

    /// The worst of the lines that are meant.
    fn measured(&self, kept: &Kept) -> Option<Figure> {
        let of_lines = |lines| figures(kept, lines, self.field);
        let base = match self.against {
            Against::Nothing | Against::LowEnd => 0.0,
            Against::Above(others) => {
                let firsts = others.iter().filter_map(|lines| of_lines(lines).first().copied());
                firsts.map(|figure| figure.median).fold(f64::NAN, f64::max)
            }
        };
        let own = of_lines(self.lines).into_iter().map(|measured| Figure {
            median: measured.median - base,
            between: measured.between.map(|(low, high)| (low - base, high - base)),
        });
        let finite = own.filter(|measured| measured.median.is_finite());
        let by_median = |a: &Figure, b: &Figure| a.median.total_cmp(&b.median);
        match self.bound {
            Bound::AtMost(_) => finite.max_by(by_median),
            Bound::AtLeast(_) => finite.min_by(by_median),
        }
    }
}

/// A field of the lines in which every one of these fields has this text; of the result itself where no line has it.
fn figures(kept: &Kept, lines: &[(&str, &str)], field: &str) -> Vec<Figure> {
    let is_meant = |row: &&Map<String, Value>| {
        let mut wanted = lines.iter();
        wanted.all(|(key, text)| row.get(*key).is_some_and(|value| is(value, text)))
    };
    let own = |row: &Map<String, Value>| row.get(field).and_then(Figure::of);
    let found: Vec<Figure> = kept.rows().filter(is_meant).filter_map(own).collect();
    match own(&kept.document) {
        Some(figure) if found.is_empty() && lines.is_empty() => vec![figure],
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
        let outcome = |bound, against| judged(bound, against).outcome;
        assert_eq!(outcome(Bound::AtMost(3.0), Against::LowEnd), Some(Outcome::Holds));
        assert_eq!(
            outcome(Bound::AtMost(1.1), Against::LowEnd),
            Some(Outcome::Reaches)
        );
        assert_eq!(
            outcome(Bound::AtMost(0.9), Against::LowEnd),
            Some(Outcome::Misses)
        );
        assert_eq!(
            outcome(Bound::AtMost(1.1), Against::Nothing),
            Some(Outcome::Misses)
        );
        let above = judged(Bound::AtMost(1.1), Against::Above(&[HAPROXY, DIRECT]));
        assert_eq!(
            (above.outcome, above.measured.map(|it| it.median)),
            (Some(Outcome::Holds), Some(1.0))
        );
        assert_eq!(
            outcome(Bound::AtLeast(4.0), Against::Nothing),
            Some(Outcome::Misses)
        );
        let absent = target(Bound::AtMost(1.0), DURABLE, Against::Nothing).judge(&results);
        assert_eq!((absent.outcome, absent.file), (None, None));
    }
}
