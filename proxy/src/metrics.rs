//! Every metric of the proxy, with its help text. Labels are the cluster's name, fixed words and names of API keys
//! from our own table: never anything that a peer sent.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use teeline_runtime::metrics::{Metric, declare};
use teeline_wire::apis;

/// Why a connection was turned away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `listen.max_connections` are open.
    Limit,
    /// No broker could be connected to.
    Upstream,
    /// The TLS greeting led to nothing.
    Tls,
    /// The header of the PROXY protocol is missing, or cannot be read.
    ProxyProtocol,
}

/// To whom a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// A client.
    Client,
    /// A broker.
    Broker,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Broker => "broker",
        }
    }
}

/// What came of reading certificates again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// New ones are used.
    Done,
    /// The files cannot be used; the former ones are.
    Failed,
}

/// Why a batch that should have been captured was not. Each leaves a hole that the log has to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The buffer's disk budget is used up.
    Full,
    /// The buffer cannot be written.
    Broken,
    /// The disk was too slow for `hold_max_ms`.
    Slow,
    /// The request came before authentication had succeeded.
    Unauthenticated,
    /// The buffer lost what it had taken, in a disk failure.
    Lost,
    /// The batch exceeds what the buffer's format can hold.
    TooLarge,
}

/// Why a batch is rightly not captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// The topic is excluded by configuration.
    Excluded,
    /// Message format 0 or 1; brokers refuse or convert it.
    OldFormat,
    /// No batch that a broker would accept.
    Malformed,
    /// A later entry of the same request names the same partition.
    Superseded,
}

/// Why a connection was closed by the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The client sent what is no Kafka request.
    ClientMalformed,
    /// A frame was larger than allowed.
    TooLarge,
    /// A version of an API that must be understood and is not.
    NotUnderstood,
    /// The broker sent what cannot be passed on.
    UpstreamMalformed,
    /// A response names a broker that the proxy cannot present.
    Unmappable,
    /// Nothing moved for `listen.idle_timeout`.
    Idle,
    /// A frame did not become complete in time.
    Stuck,
    /// The broker's connection ended.
    UpstreamLost,
    /// A request without acknowledgement could not be captured, and `on_failure` is `closed`.
    NotCaptured,
}

/// The metrics of one virtual cluster, registered once and then only counted up.
pub(crate) struct ClusterMetrics {
    cluster: String,
    pub(crate) connections_open: Gauge,
    pub(crate) connections: Counter,
    pub(crate) request_bytes: Counter,
    pub(crate) response_bytes: Counter,
    pub(crate) captured_batches: Counter,
    pub(crate) captured_bytes: Counter,
    pub(crate) outcomes: Counter,
    pub(crate) hold_seconds: Histogram,
    pub(crate) released_unsynced: Counter,
    pub(crate) refused_requests: Counter,
    pub(crate) budget_wait_seconds: Histogram,
    pub(crate) buffer_wait_seconds: Histogram,
    pub(crate) produce_seconds: Histogram,
    pub(crate) upstream_up: Gauge,
    pub(crate) brokers: Gauge,
    pub(crate) catalogs: Counter,
    pub(crate) catalog_failures: Counter,
    pub(crate) buffer_used_bytes: Gauge,
    pub(crate) buffer_pending_bytes: Gauge,
    pub(crate) buffer_full: Gauge,
    pub(crate) buffer_broken: Gauge,
    requests: Vec<OnceLock<Counter>>,
    unknown_requests: Counter,
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
        let known = usize::try_from(apis::NEWEST_KNOWN_KEY)
            .unwrap_or_default()
            .saturating_add(1);
        ClusterMetrics {
            cluster: name(),
            connections_open: gauge!("teeline_connections_open", "cluster" => name()),
            connections: counter!("teeline_connections_total", "cluster" => name()),
            request_bytes: counter!("teeline_request_bytes_total", "cluster" => name()),
            response_bytes: counter!("teeline_response_bytes_total", "cluster" => name()),
            captured_batches: counter!("teeline_captured_batches_total", "cluster" => name()),
            captured_bytes: counter!("teeline_captured_bytes_total", "cluster" => name()),
            outcomes: counter!("teeline_outcomes_total", "cluster" => name()),
            hold_seconds: histogram!("teeline_hold_seconds", "cluster" => name()),
            released_unsynced: counter!("teeline_released_unsynced_total", "cluster" => name()),
            refused_requests: counter!("teeline_produce_refused_total", "cluster" => name()),
            budget_wait_seconds: histogram!("teeline_budget_wait_seconds", "cluster" => name()),
            buffer_wait_seconds: histogram!("teeline_buffer_wait_seconds", "cluster" => name()),
            produce_seconds: histogram!("teeline_produce_upstream_seconds", "cluster" => name()),
            upstream_up: gauge!("teeline_upstream_up", "cluster" => name()),
            brokers: gauge!("teeline_upstream_brokers", "cluster" => name()),
            catalogs: counter!("teeline_catalogs_total", "cluster" => name()),
            catalog_failures: counter!("teeline_catalog_failures_total", "cluster" => name()),
            buffer_used_bytes: gauge!("teeline_buffer_used_bytes", "cluster" => name()),
            buffer_pending_bytes: gauge!("teeline_buffer_pending_bytes", "cluster" => name()),
            buffer_full: gauge!("teeline_buffer_full", "cluster" => name()),
            buffer_broken: gauge!("teeline_buffer_broken", "cluster" => name()),
            requests: (0..known).map(|_| OnceLock::new()).collect(),
            unknown_requests: counter!("teeline_requests_total", "cluster" => name(), "api" => "Unknown"),
        }
    }

    /// A request of this key was forwarded.
    pub(crate) fn request(&self, api_key: i16) {
        let slot = usize::try_from(api_key)
            .ok()
            .and_then(|index| self.requests.get(index));
        let register = || counter!("teeline_requests_total", "cluster" => self.cluster.clone(), "api" => apis::name(api_key));
        slot.map_or(&self.unknown_requests, |slot| slot.get_or_init(register))
            .increment(1);
    }

    /// A connection was turned away.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Limit => "limit",
            Refusal::Upstream => "upstream",
            Refusal::Tls => "tls",
            Refusal::ProxyProtocol => "proxy_protocol",
        };
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
        let result = match reload {
            Reload::Done => "done",
            Reload::Failed => "failed",
        };
        counter!("teeline_tls_reloads_total", "cluster" => self.cluster.clone(), "side" => side.as_str(), "result" => result)
            .increment(1);
    }

    /// The proxy closed a connection.
    pub(crate) fn closed(&self, closed: Closed) {
        let reason = match closed {
            Closed::ClientMalformed => "client_malformed",
            Closed::TooLarge => "too_large",
            Closed::NotUnderstood => "not_understood",
            Closed::UpstreamMalformed => "upstream_malformed",
            Closed::Unmappable => "unmappable_broker",
            Closed::Idle => "idle",
            Closed::Stuck => "stuck",
            Closed::UpstreamLost => "upstream_lost",
            Closed::NotCaptured => "not_captured",
        };
        counter!("teeline_connections_closed_total", "cluster" => self.cluster.clone(), "reason" => reason)
            .increment(1);
    }

    /// Batches were not captured although they should have been.
    pub(crate) fn missed(&self, missed: Missed, batches: usize) {
        let reason = match missed {
            Missed::Full => "buffer_full",
            Missed::Broken => "buffer_broken",
            Missed::Slow => "buffer_slow",
            Missed::Unauthenticated => "unauthenticated",
            Missed::Lost => "buffer_lost",
            Missed::TooLarge => "too_large",
        };
        counter!("teeline_missed_batches_total", "cluster" => self.cluster.clone(), "reason" => reason)
            .increment(batches as u64);
    }

    /// A batch is not captured, and that is right.
    pub(crate) fn skipped(&self, skipped: Skipped) {
        let reason = match skipped {
            Skipped::Excluded => "excluded",
            Skipped::OldFormat => "old_format",
            Skipped::Malformed => "malformed",
            Skipped::Superseded => "superseded",
        };
        counter!("teeline_skipped_batches_total", "cluster" => self.cluster.clone(), "reason" => reason)
            .increment(1);
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

/// The metric of the process-wide budget.
pub(crate) fn in_flight_bytes(bytes: usize) {
    gauge!("teeline_in_flight_bytes").set(bytes as f64);
}

/// Tells the registry what each metric means. Once, after the recorder is installed.
pub(crate) fn describe() {
    declare(METRICS);
}

const METRICS: &[Metric] = &[
    Metric::counter(
        "teeline_connections_total",
        "client connections that reached a broker",
    ),
    Metric::counter(
        "teeline_connections_refused_total",
        "client connections turned away, by reason",
    ),
    Metric::counter(
        "teeline_tls_failures_total",
        "TLS greetings that led to nothing, with clients or brokers, by reason",
    ),
    Metric::counter(
        "teeline_tls_reloads_total",
        "certificates that were read again because their files changed, by result",
    ),
    Metric::counter(
        "teeline_connections_closed_total",
        "client connections that the client did not end, by reason",
    ),
    Metric::counter(
        "teeline_connections_lost_total",
        "connections that ended with captured batches unresolved",
    ),
    Metric::counter(
        "teeline_unresolved_batches_total",
        "captured batches whose outcome the connection did not bring",
    ),
    Metric::counter("teeline_requests_total", "requests forwarded, by api"),
    Metric::counter("teeline_request_bytes_total", "bytes received from clients"),
    Metric::counter("teeline_response_bytes_total", "bytes sent to clients"),
    Metric::counter(
        "teeline_captured_batches_total",
        "record batches appended to the write-ahead buffer",
    ),
    Metric::counter(
        "teeline_captured_bytes_total",
        "record bytes appended to the write-ahead buffer",
    ),
    Metric::counter(
        "teeline_outcomes_total",
        "outcomes of captured batches appended to the write-ahead buffer",
    ),
    Metric::counter(
        "teeline_missed_batches_total",
        "record batches forwarded without capture, by reason; they are left to backfill",
    ),
    Metric::counter(
        "teeline_skipped_batches_total",
        "record batches that are rightly not captured, by reason",
    ),
    Metric::counter(
        "teeline_released_unsynced_total",
        "responses released before their batches were durable (on_failure: open)",
    ),
    Metric::counter(
        "teeline_produce_refused_total",
        "produce requests answered NOT_ENOUGH_REPLICAS by the proxy (on_failure: closed)",
    ),
    Metric::counter(
        "teeline_catalogs_total",
        "catalogs of topic names and ids appended to the write-ahead buffer",
    ),
    Metric::counter(
        "teeline_catalog_failures_total",
        "failed polls of the cluster's metadata",
    ),
    Metric::counter(
        "teeline_buffer_written_bytes_total",
        "bytes written to the files of the write-ahead buffer",
    ),
    Metric::counter(
        "teeline_buffer_failures_total",
        "files of the write-ahead buffer given up because a write or a sync failed",
    ),
    Metric::gauge("teeline_connections_open", "client connections open now"),
    Metric::gauge(
        "teeline_upstream_up",
        "1 while the cluster answers the proxy's own requests",
    ),
    Metric::gauge("teeline_upstream_brokers", "brokers in the cluster's last answer"),
    Metric::gauge(
        "teeline_in_flight_bytes",
        "bytes of requests in memory, all connections together",
    ),
    Metric::gauge(
        "teeline_buffer_used_bytes",
        "bytes of the write-ahead buffer on disk",
    ),
    Metric::gauge(
        "teeline_buffer_pending_bytes",
        "bytes appended to the write-ahead buffer and not yet synced",
    ),
    Metric::gauge(
        "teeline_buffer_full",
        "1 while the write-ahead buffer refuses batches because it is full",
    ),
    Metric::gauge(
        "teeline_buffer_broken",
        "1 while the write-ahead buffer cannot be written",
    ),
    Metric::histogram(
        "teeline_buffer_sync_seconds",
        "time of one sync of the write-ahead buffer, shared by all that waited for it",
    ),
    Metric::histogram(
        "teeline_hold_seconds",
        "time that responses were held for the disk (capture.ack: durable)",
    ),
    Metric::histogram(
        "teeline_produce_upstream_seconds",
        "time from forwarding a produce request to the broker's response",
    ),
    Metric::histogram(
        "teeline_budget_wait_seconds",
        "time that requests waited for room in memory",
    ),
    Metric::histogram(
        "teeline_buffer_wait_seconds",
        "time that requests waited for the write-ahead buffer",
    ),
];
