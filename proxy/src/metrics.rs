//! Every metric of the proxy, with its help text. Labels are the cluster's name, fixed words and names of API keys
//! from our own table: never anything that a peer sent.

use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use teeline_runtime::metrics::declare;

use crate::budget::ProcessBudget;

mod apis;
mod table;
mod words;

pub(crate) use apis::ApiCounters;
pub(crate) use words::{Backpressure, Closed, Direction, Missed, Refusal, Reload, Side, Skipped};

/// The metrics of one virtual cluster, registered once and then only counted up.
pub(crate) struct ClusterMetrics {
    cluster: String,
    pub(crate) connections_open: Gauge,
    pub(crate) connections: Counter,
    pub(crate) captured_batches: Counter,
    pub(crate) captured_bytes: Counter,
    pub(crate) outcomes: Counter,
    pub(crate) hold_seconds: Histogram,
    pub(crate) released_unsynced: Counter,
    pub(crate) refused_requests: Counter,
    pub(crate) produce_seconds: Histogram,
    pub(crate) in_flight_bytes: Gauge,
    pub(crate) upstream_up: Gauge,
    pub(crate) brokers: Gauge,
    pub(crate) catalogs: Counter,
    pub(crate) catalog_failures: Counter,
    pub(crate) buffer_used_bytes: Gauge,
    pub(crate) buffer_pending_bytes: Gauge,
    pub(crate) buffer_full: Gauge,
    pub(crate) buffer_broken: Gauge,
    missed: [Counter; Missed::ALL.len()],
    skipped: [Counter; Skipped::ALL.len()],
    pushed_back: [Histogram; Backpressure::ALL.len()],
    added_latency: [Histogram; Direction::ALL.len()],
    apis: apis::Apis,
}

impl std::fmt::Debug for ClusterMetrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ClusterMetrics")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl ClusterMetrics {
    /// Registers the metrics under the cluster's name.
    pub(crate) fn new(cluster: &str) -> ClusterMetrics {
        let name = || cluster.to_owned();
        ClusterMetrics {
            cluster: name(),
            connections_open: gauge!("teeline_connections_open", "cluster" => name()),
            connections: counter!("teeline_connections_total", "cluster" => name()),
            captured_batches: counter!("teeline_captured_batches_total", "cluster" => name()),
            captured_bytes: counter!("teeline_captured_bytes_total", "cluster" => name()),
            outcomes: counter!("teeline_outcomes_total", "cluster" => name()),
            hold_seconds: histogram!("teeline_hold_seconds", "cluster" => name()),
            released_unsynced: counter!("teeline_released_unsynced_total", "cluster" => name()),
            refused_requests: counter!("teeline_produce_refused_total", "cluster" => name()),
            produce_seconds: histogram!("teeline_produce_upstream_seconds", "cluster" => name()),
            in_flight_bytes: gauge!("teeline_cluster_in_flight_bytes", "cluster" => name()),
            upstream_up: gauge!("teeline_upstream_up", "cluster" => name()),
            brokers: gauge!("teeline_upstream_brokers", "cluster" => name()),
            catalogs: counter!("teeline_catalogs_total", "cluster" => name()),
            catalog_failures: counter!("teeline_catalog_failures_total", "cluster" => name()),
            buffer_used_bytes: gauge!("teeline_buffer_used_bytes", "cluster" => name()),
            buffer_pending_bytes: gauge!("teeline_buffer_pending_bytes", "cluster" => name()),
            buffer_full: gauge!("teeline_buffer_full", "cluster" => name()),
            buffer_broken: gauge!("teeline_buffer_broken", "cluster" => name()),
            missed: Missed::ALL.map(
                |reason| counter!("teeline_missed_batches_total", "cluster" => name(), "reason" => reason.as_str()),
            ),
            skipped: Skipped::ALL.map(
                |reason| counter!("teeline_skipped_batches_total", "cluster" => name(), "reason" => reason.as_str()),
            ),
            pushed_back: Backpressure::ALL.map(
                |cause| histogram!("teeline_pushed_back_seconds", "cluster" => name(), "cause" => cause.as_str()),
            ),
            added_latency: Direction::ALL.map(
                |way| histogram!("teeline_added_latency_seconds", "cluster" => name(), "direction" => way.as_str()),
            ),
            apis: apis::Apis::new(cluster),
        }
    }

    /// Its cluster is no longer served: nothing of it is wrong any more. Series cannot be taken back.
    pub(crate) fn gone(&self) {
        self.upstream_up.set(f64::NAN);
        for gauge in [
            &self.brokers,
            &self.buffer_used_bytes,
            &self.buffer_pending_bytes,
            &self.buffer_full,
            &self.buffer_broken,
        ] {
            gauge.set(0.0);
        }
    }

    /// What is counted of an API.
    pub(crate) fn api(&self, api_key: i16) -> &ApiCounters {
        self.apis.of(&self.cluster, api_key)
    }

    /// Time that somebody was not read from.
    pub(crate) fn pushed_back(&self, cause: Backpressure) -> &Histogram {
        let [memory, buffer, unanswered, client, broker] = &self.pushed_back;
        match cause {
            Backpressure::Memory => memory,
            Backpressure::Buffer => buffer,
            Backpressure::Unanswered => unanswered,
            Backpressure::Client => client,
            Backpressure::Broker => broker,
        }
    }

    /// Time that the proxy itself adds.
    pub(crate) fn added_latency(&self, direction: Direction) -> &Histogram {
        let [request, response] = &self.added_latency;
        match direction {
            Direction::Request => request,
            Direction::Response => response,
        }
    }

    /// A message was not passed on, because it cannot be read, or not be rewritten.
    pub(crate) fn not_passed(&self, direction: Direction, api_key: Option<i16>, reason: Closed) {
        let (api, reason) = (apis::label(api_key), reason.as_str());
        let cluster = self.cluster.clone();
        let counter = match direction {
            Direction::Request => {
                counter!("teeline_requests_refused_total", "cluster" => cluster, "api" => api, "reason" => reason)
            }
            Direction::Response => {
                counter!("teeline_responses_refused_total", "cluster" => cluster, "api" => api, "reason" => reason)
            }
        };
        counter.increment(1);
    }

    /// Somebody was not let in by SASL. Mechanism and reason are words of ours.
    pub(crate) fn sasl_failure(&self, side: Side, mechanism: &'static str, reason: &'static str) {
        counter!("teeline_sasl_failures_total", "cluster" => self.cluster.clone(), "side" => side.as_str(), "mechanism" => mechanism, "reason" => reason)
            .increment(1);
    }

    /// A connection was turned away.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let reason = refusal.as_str();
        counter!("teeline_connections_refused_total", "cluster" => self.cluster.clone(), "reason" => reason)
            .increment(1);
    }

    /// A TLS greeting led to nothing. The reason is a word of ours.
    pub(crate) fn tls_failure(&self, side: Side, reason: &'static str) {
        counter!("teeline_tls_failures_total", "cluster" => self.cluster.clone(), "side" => side.as_str(), "reason" => reason)
            .increment(1);
    }

    /// Certificates were read again.
    pub(crate) fn reloaded(&self, side: Side, reload: Reload) {
        let result = reload.as_str();
        counter!("teeline_tls_reloads_total", "cluster" => self.cluster.clone(), "side" => side.as_str(), "result" => result)
            .increment(1);
    }

    /// The proxy closed a connection.
    pub(crate) fn closed(&self, closed: Closed) {
        let reason = closed.as_str();
        counter!("teeline_connections_closed_total", "cluster" => self.cluster.clone(), "reason" => reason)
            .increment(1);
    }

    /// Batches were not captured although they should have been.
    pub(crate) fn missed(&self, missed: Missed, batches: usize) {
        if let Some(counter) = self.missed.get(missed as usize) {
            counter.increment(batches as u64);
        }
    }

    /// A batch is not captured, and that is right.
    pub(crate) fn skipped(&self, skipped: Skipped) {
        if let Some(counter) = self.skipped.get(skipped as usize) {
            counter.increment(1);
        }
    }

    /// Connections ended with requests unanswered.
    pub(crate) fn connection_lost(&self, unresolved: u64) {
        counter!("teeline_connections_lost_total", "cluster" => self.cluster.clone()).increment(1);
        counter!("teeline_unresolved_batches_total", "cluster" => self.cluster.clone()).increment(unresolved);
    }
}

/// Records a wait that was felt; one that was not would only cost.
pub(crate) fn record_wait(histogram: &Histogram, waited: Duration) {
    histogram.record(waited.as_secs_f64());
}

/// The metrics of the process-wide budget.
pub(crate) fn held_bytes(budget: &ProcessBudget) {
    gauge!("teeline_in_flight_bytes").set(budget.bytes_used() as f64);
    gauge!("teeline_answer_bytes").set(budget.answer_bytes_used() as f64);
}

/// A configuration was put in force, at the start or by a reload.
pub(crate) fn config_loaded(now: SystemTime) {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    gauge!("teeline_config_last_reload_timestamp_seconds").set(since.as_secs_f64());
    gauge!("teeline_config_last_reload_successful").set(1.0);
}

/// A reload came to its end. The result is a word of ours.
pub(crate) fn config_reloaded(result: &'static str, now: SystemTime) {
    counter!("teeline_config_reloads_total", "result" => result).increment(1);
    match result {
        "refused" => gauge!("teeline_config_last_reload_successful").set(0.0),
        _ => config_loaded(now),
    }
}

/// Tells the registry what each metric means. Once, after the recorder is installed.
pub(crate) fn describe() {
    declare(table::METRICS);
}
