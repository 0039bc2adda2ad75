//! The Prometheus registry, and what the process itself uses.
//!
//! Programs declare their metrics in one `metrics.rs` each with [`declare`], and record with the macros of
//! the `metrics` crate. Histograms get buckets by the unit at the end of their name.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

mod process;
mod series;

pub use series::{Series, replace_series};

/// Renders what was measured. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MetricsHandle {
    handle: PrometheusHandle,
}

/// Why metrics could not begin.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The registry refused its settings, or another recorder is installed already. A bug in the program.
    #[error("install the metrics registry")]
    Build(#[source] metrics_exporter_prometheus::BuildError),
    /// No thread for its upkeep.
    #[error("start the thread that keeps metrics in bounds")]
    Thread(#[source] std::io::Error),
}

/// What kind of metric it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// A metric with its help text.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `teeline_<noun>_<unit>[_total]`
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
}

impl Metric {
    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            help,
        }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            help,
        }
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Histogram,
            help,
        }
    }
}

/// Gives metrics their help texts. Before [`install`] it has no effect.
pub fn declare(metrics: &[Metric]) {
    for metric in metrics {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}

/// From the fastest sync of a disk to the longest drain.
const SECONDS_BUCKETS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 300.0,
];
/// From a message that only passes to one that waits for a disk: what a proxy adds is below what a disk takes.
const ADDED_BUCKETS: [f64; 17] = [
    0.000_005, 0.000_01, 0.000_02, 0.000_03, 0.000_05, 0.000_075, 0.0001, 0.000_15, 0.000_25, 0.0005, 0.001,
    0.0025, 0.005, 0.01, 0.1, 1.0, 10.0,
];
/// From a record to the largest segment.
const BYTES_BUCKETS: [f64; 11] = [
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];
/// Everything else counts things.
const COUNT_BUCKETS: [f64; 11] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0,
];

/// The registry keeps raw samples of histograms until somebody sums them up. Nobody may ever ask for
/// `/metrics`, so it is done by the clock, often enough that a busy proxy keeps few of them.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Installs the registry of this process; when it is there already, returns the same.
pub fn install() -> Result<MetricsHandle, MetricsError> {
    static INSTALLED: OnceLock<MetricsHandle> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _guard = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(installed) = INSTALLED.get() {
        return Ok(installed.clone());
    }
    let handle = builder()
        .map_err(MetricsError::Build)?
        .install_recorder()
        .map_err(MetricsError::Build)?;
    let upkeep = handle.clone();
    // Lives as long as the process: it owns nothing that needs finishing.
    let thread = std::thread::Builder::new()
        .name("metrics-upkeep".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        });
    thread.map_err(MetricsError::Thread)?;
    declare(&crate::store::METRICS);
    Ok(INSTALLED.get_or_init(|| MetricsHandle { handle }).clone())
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&COUNT_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full("teeline_added_latency_seconds".to_owned()),
            &ADDED_BUCKETS,
        )?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)
}

impl MetricsHandle {
    /// Everything in Prometheus' text format, with fresh figures of the process.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        series::render(&mut text);
        process::render(&mut text);
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn declared_metrics_are_rendered_with_help_and_buckets_by_unit() {
        let handle = install().unwrap();
        declare(&[
            Metric::counter("teeline_things_total", "Things seen."),
            Metric::histogram("teeline_wait_seconds", "Time waited."),
        ]);
        metrics::counter!("teeline_things_total").increment(3);
        metrics::histogram!("teeline_wait_seconds").record(0.004);
        let text = install().unwrap().render();
        assert!(
            text.contains("# HELP teeline_things_total Things seen."),
            "{text}"
        );
        assert!(text.contains("teeline_things_total 3"));
        assert!(
            text.contains("teeline_wait_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(handle.render().contains("teeline_process_open_fds "));
    }
}
