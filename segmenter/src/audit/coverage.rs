//! What the archive holds of every partition, as metrics: brought up to date by every round of the auditor.
//!
//! A series per partition is what one wants to look at, and with many partitions what kills a monitoring system. So
//! beyond a number of partitions there are series per topic only, and beyond as many topics only totals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use teeline_archive::ledger::{Absence, AbsenceReason, LedgerState, PartitionState};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_runtime::metrics::{Metric, Series, replace_series};

use super::auditor::{PartitionReport, Round};
use super::upstream::Silence;
use crate::partition::PartitionId;

static HELD_FROM: Metric = Metric::gauge(
    "teeline_coverage_held_from_offset",
    "The first offset that the archive holds.",
);
static HELD_TO: Metric = Metric::gauge(
    "teeline_coverage_held_to_offset",
    "The last offset that the archive holds.",
);
static HIGH_WATERMARK: Metric = Metric::gauge(
    "teeline_coverage_high_watermark_offset",
    "The end of the log, as the auditor saw it last.",
);
static LAG: Metric = Metric::gauge(
    "teeline_coverage_lag_offsets",
    "Offsets of the log that the archive neither holds nor explains, those just written included.",
);
static MISSING: Metric = Metric::gauge(
    "teeline_coverage_missing_offsets",
    "Offsets that the archive does not hold, by reason.",
);
static AWAITING: Metric = Metric::gauge(
    "teeline_coverage_awaiting_comparison_offsets",
    "Offsets held of which it is still to be compared whether the log has the same records.",
);
static PERCENT: Metric = Metric::gauge(
    "teeline_coverage_percent",
    "Offsets that the archive surely holds, or explains, of all that it is to hold, rounded down.",
);

/// The coverage of one cluster's backup. Its series go with it.
#[derive(Debug)]
pub struct Coverage {
    cluster: Arc<str>,
    series_max: usize,
    known: BTreeMap<PartitionId, (Basis, Covered)>,
    detail: Detail,
}

/// How much there is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Partitions,
    Topics,
    Totals,
}

/// What a partition's coverage depends on. Whatever is said of it makes one of the numbers grow.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    report: PartitionReport,
    said: [usize; 4],
}

/// What is held of a partition, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Covered {
    from: Option<i64>,
    to: Option<i64>,
    high_watermark: i64,
    lag: u64,
    wanted: u64,
    awaiting: u64,
    missing: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Of a cluster; for at most so many partitions, or topics, there are series.
    pub fn new(cluster: &str, series_max: usize) -> Self {
        Coverage {
            cluster: cluster.into(),
            series_max,
            known: BTreeMap::new(),
            detail: Detail::Partitions,
        }
    }

    /// Shows what a round found. Of partitions that it could not judge, what was found before counts on: a hole is no
    /// smaller because nobody can look.
    pub fn show(&mut self, ledger: &LedgerState, round: &Round) {
        let judged: BTreeSet<&str> = round.partitions.values().map(|report| &*report.topic).collect();
        let is_over = |topic: &str, id: &PartitionId| {
            let is_gone = |(name, why): &(Arc<str>, Silence)| {
                &**name == topic && matches!(why, Silence::Gone | Silence::NotMeant)
            };
            let is_later = |other: &PartitionId| other.incarnation != id.incarnation;
            let others = || {
                round
                    .partitions
                    .iter()
                    .filter(|(_, report)| &*report.topic == topic)
            };
            round.missing.iter().any(is_gone)
                || (judged.contains(topic) && others().any(|(other, _)| is_later(other)))
        };
        self.known
            .retain(|id, (basis, _)| round.partitions.contains_key(id) || !is_over(&basis.report.topic, id));
        for (id, report) in &round.partitions {
            let state = ledger.partition(&report.topic, id.incarnation, id.partition);
            let basis = Basis::of(report, state);
            if self.known.get(id).is_none_or(|(known, _)| *known != basis) {
                let covered = cover(report, state);
                self.known.insert(*id, (basis, covered));
            }
        }
        replace_series(&self.owner(), self.series());
    }

    fn owner(&self) -> String {
        format!("coverage of {}", self.cluster)
    }

    fn series(&mut self) -> Vec<Series> {
        let mut topics: BTreeMap<Arc<str>, Covered> = BTreeMap::new();
        for (basis, covered) in self.known.values() {
            topics
                .entry(Arc::clone(&basis.report.topic))
                .or_default()
                .add(covered);
        }
        self.choose(topics.len());
        let cluster = ("cluster", Arc::clone(&self.cluster));
        let mut series = Vec::new();
        match self.detail {
            Detail::Partitions => {
                for (id, (basis, covered)) in &self.known {
                    let topic = Arc::clone(&basis.report.topic);
                    let partition: Arc<str> = id.partition.to_string().into();
                    let labels = [cluster.clone(), ("topic", topic), ("partition", partition)];
                    covered.positions(&labels, &mut series);
                    covered.counts(&labels, &mut series);
                }
            }
            Detail::Topics => {
                for (topic, covered) in topics {
                    covered.counts(&[cluster.clone(), ("topic", topic)], &mut series);
                }
            }
            Detail::Totals => {
                let mut total = Covered::default();
                topics.values().for_each(|covered| total.add(covered));
                total.counts(&[cluster], &mut series);
            }
        }
        series
    }

    /// As much detail as the limit allows.
    fn choose(&mut self, topics: usize) {
        let detail = match self.series_max {
            max if self.known.len() <= max => Detail::Partitions,
            max if topics <= max => Detail::Topics,
            _ => Detail::Totals,
        };
        if detail != self.detail {
            self.detail = detail;
            let shown = match detail {
                Detail::Partitions => "partition",
                Detail::Topics => "topic",
                Detail::Totals => "cluster",
            };
            tracing::info!(cluster = %self.cluster, partitions = self.known.len(), topics, limit = self.series_max,
                "coverage has its metrics by {shown} now (hint: audit.coverage_series)");
        }
    }
}

impl Drop for Coverage {
    /// Whoever audits next shows it.
    fn drop(&mut self) {
        replace_series(&self.owner(), Vec::new());
    }
}

impl Basis {
    fn of(report: &PartitionReport, state: Option<&PartitionState>) -> Self {
        let said = state.map_or([0; 4], |state| {
            [
                state.segments().len(),
                state.absences().len(),
                state.superseded().len(),
                state.superseded_copies().len(),
            ]
        });
        Basis {
            report: report.clone(),
            said,
        }
    }
}

impl Covered {
    fn add(&mut self, other: &Covered) {
        self.lag = self.lag.saturating_add(other.lag);
        self.wanted = self.wanted.saturating_add(other.wanted);
        self.awaiting = self.awaiting.saturating_add(other.awaiting);
        for (reason, offsets) in &other.missing {
            let sum = self.missing.entry(reason).or_default();
            *sum = sum.saturating_add(*offsets);
        }
    }

    /// Surely held or explained, of what is wanted: in hundredths, since a float would round up, and 100 means all.
    fn percent(&self) -> f64 {
        if self.wanted == 0 {
            return 100.0;
        }
        let open = [NOT_YET, UNEXPLAINED].map(|reason| self.missing.get(reason).copied().unwrap_or(0));
        let open = open
            .iter()
            .fold(self.awaiting, |sum, open| sum.saturating_add(*open));
        let accounted = self.wanted.saturating_sub(open);
        let share = u128::from(accounted).saturating_mul(10_000) / u128::from(self.wanted).max(1);
        share as f64 / 100.0
    }

    fn positions(&self, labels: &[(&'static str, Arc<str>)], series: &mut Vec<Series>) {
        let known = [
            (&HELD_FROM, self.from),
            (&HELD_TO, self.to),
            (&HIGH_WATERMARK, Some(self.high_watermark)),
        ];
        for (metric, value) in known {
            // Offsets beyond 2^53 lose their last digits in a float; they are for looking at.
            series.extend(value.map(|value| line(metric, labels, value as f64)));
        }
    }

    fn counts(&self, labels: &[(&'static str, Arc<str>)], series: &mut Vec<Series>) {
        series.push(line(&LAG, labels, self.lag as f64));
        series.push(line(&AWAITING, labels, self.awaiting as f64));
        series.push(line(&PERCENT, labels, self.percent()));
        for (reason, offsets) in &self.missing {
            let mut labels = labels.to_vec();
            labels.push(("reason", (*reason).into()));
            series.push(line(&MISSING, &labels, *offsets as f64));
        }
    }
}

fn line(metric: &'static Metric, labels: &[(&'static str, Arc<str>)], value: f64) -> Series {
    Series {
        metric,
        labels: labels.to_vec(),
        value,
    }
}

/// From where the backup begins to the end of the log: what is held, and why the rest is not. What is explained is what
/// the verdict says; the words for it are those of `teeline-restorer coverage`.
fn cover(report: &PartitionReport, state: Option<&PartitionState>) -> Covered {
    let held = state.map(PartitionState::held).unwrap_or_default();
    let mut covered = Covered {
        from: held.first(),
        to: held.last(),
        high_watermark: report.bounds.high_watermark,
        lag: report.lag,
        awaiting: report.awaiting,
        ..Covered::default()
    };
    let Some(window) = OffsetRange::new(report.start, report.bounds.high_watermark.saturating_sub(1)) else {
        return covered;
    };
    covered.wanted = window.span();
    let below = |end: i64| OffsetRange::new(window.first, end.saturating_sub(1));
    let mut rest: OffsetSet = held.holes(window).into_iter().collect();
    let mut open = rest.clone();
    let explained = report.explained.ranges().iter().copied();
    for range in explained.chain(below(report.bounds.log_start)) {
        open.remove(range);
    }
    for range in open.ranges() {
        rest.remove(*range);
    }
    covered.take(UNEXPLAINED, below(report.demanded_to), &mut open);
    covered.take(NOT_YET, Some(window), &mut open);
    let mut absences: Vec<&Absence> = state.map_or(&[][..], PartitionState::absences).iter().collect();
    // The latest word about an offset counts.
    absences.sort_by_key(|absence| std::cmp::Reverse(absence.at_ms));
    for absence in absences {
        covered.take(absence.reason.as_str(), Some(absence.range()), &mut rest);
    }
    covered.take(AbsenceReason::Deleted.as_str(), Some(window), &mut rest);
    covered
}

impl Covered {
    /// Counts what of a range is still missing, and takes it away.
    fn take(&mut self, reason: &'static str, range: Option<OffsetRange>, rest: &mut OffsetSet) {
        let Some(range) = range else { return };
        let before = rest.span();
        rest.remove(range);
        let taken = before.saturating_sub(rest.span());
        if taken > 0 {
            let sum = self.missing.entry(reason).or_default();
            *sum = sum.saturating_add(taken);
        }
    }
}

const UNEXPLAINED: &str = "unexplained";
const NOT_YET: &str = "not-yet";

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
