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
    /// The lower end of its interval is what was promised.
    pub is_of_low_end: bool,
    /// How many rounds were within the bound, and of how many, where that is kept.
    pub rounds: Option<(usize, usize)>,
    /// In which file.
    pub file: Option<String>,
    /// `None` when nothing was measured.
    pub outcome: Option<Outcome>,
    /// Should it not hold: why, as far as that is known.
    pub why: &'static str,
}

/// What the figure says of the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The median is within the bound.
    Holds,
    /// Only the lower end of the interval is, which is what was promised.
    Reaches,
    /// The same of so few rounds that one of them decides.
    Undecided,
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
        let within = |measured: &Figure| {
            let rounds = &measured.rounds;
            let count = rounds.iter().filter(|value| self.is_within(**value)).count();
            (!rounds.is_empty()).then_some((count, rounds.len()))
        };
        Verdict {
            what: self.what,
            bound,
            is_of_low_end: matches!(self.against, Against::LowEnd),
            rounds: measured.as_ref().and_then(within),
            file: kept.filter(|_| measured.is_some()).map(|kept| kept.file.clone()),
            outcome: measured.as_ref().map(|measured| self.outcome(measured)),
            measured,
            why: self.why,
        }
    }

    fn is_within(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
        }
    }

    fn outcome(&self, measured: &Figure) -> Outcome {
        match self.against {
            _ if self.is_within(measured.median) => Outcome::Holds,
            Against::LowEnd if self.is_within(measured.low()) => {
                match measured.rounds.len() >= ROUNDS_OF_AN_INTERVAL {
                    true => Outcome::Reaches,
                    false => Outcome::Undecided,
                }
            }
            _ => Outcome::Misses,
        }
    }

    /// The worst of the lines that are meant.
    fn measured(&self, kept: &Kept) -> Option<Figure> {
        let own = figures(kept, self.lines, self.field).into_iter();
        let finite = own.filter(|measured| measured.median.is_finite());
        let by_median = |a: &Figure, b: &Figure| a.median.total_cmp(&b.median);
        match self.bound {
            Bound::AtMost(_) => finite.max_by(by_median),
            Bound::AtLeast(_) => finite.min_by(by_median),
        }
    }
}

/// Of fewer the ends of an interval are single rounds.
const ROUNDS_OF_AN_INTERVAL: usize = 6;

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

    use super::promises::{ASYNC, DURABLE, NO_CAPTURE};
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
            {"contender": "no capture",
             "cost": {"median": 3.0, "low": 1.0, "high": 4.0, "rounds": [1.0, 1.0, 3.0, 3.0, 4.0, 4.0]}},
            {"contender": "async", "cost": {"median": 3.0, "low": 1.0, "high": 4.0, "rounds": [1.0, 3.0, 4.0]}},
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
        let few = target(Bound::AtMost(1.1), ASYNC, Against::LowEnd).judge(&results);
        assert_eq!(
            (few.outcome, few.rounds),
            (Some(Outcome::Undecided), Some((1, 3)))
        );
        assert_eq!(
            outcome(Bound::AtLeast(4.0), Against::Nothing),
            Some(Outcome::Misses)
        );
        let absent = target(Bound::AtMost(1.0), DURABLE, Against::Nothing).judge(&results);
        assert_eq!((absent.outcome, absent.file), (None, None));
    }
}
