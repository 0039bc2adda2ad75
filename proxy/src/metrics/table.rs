//! What each metric means, for the registry and for `docs/OPERATIONS.md`.

use teeline_runtime::metrics::Metric;

pub(super) const METRICS: &[Metric] = &[
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
        "client connections that ended, by reason: `client` is the ordinary one",
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
    Metric::counter(
        "teeline_request_bytes_total",
        "bytes of requests forwarded, by api",
    ),
    Metric::counter(
        "teeline_response_bytes_total",
        "bytes of responses passed on to clients, by api",
    ),
    Metric::counter(
        "teeline_requests_refused_total",
        "requests not forwarded because they cannot be read or understood, by api and reason",
    ),
    Metric::counter(
        "teeline_responses_refused_total",
        "responses not passed on because they cannot be read or rewritten, by api and reason",
    ),
    Metric::counter(
        "teeline_sasl_failures_total",
        "SASL exchanges that led to nothing, with clients or brokers, by mechanism and reason",
    ),
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
    Metric::counter(
        "teeline_config_reloads_total",
        "reloads of the configuration, by result",
    ),
    Metric::gauge(
        "teeline_config_last_reload_timestamp_seconds",
        "when the configuration in force was read",
    ),
    Metric::gauge(
        "teeline_config_last_reload_successful",
        "0 when the last reload was refused, and the configuration in force is older than its file",
    ),
    Metric::gauge(
        "teeline_upstream_up",
        "1 while the cluster answers the proxy's own requests",
    ),
    Metric::gauge("teeline_upstream_brokers", "brokers in the cluster's last answer"),
    Metric::gauge(
        "teeline_cluster_in_flight_bytes",
        "bytes of requests in memory, by virtual cluster",
    ),
    Metric::gauge(
        "teeline_in_flight_bytes",
        "bytes of requests in memory, all connections together",
    ),
    Metric::gauge(
        "teeline_answer_bytes",
        "bytes of answers and of large read buffers in memory, all connections together",
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
        "teeline_added_latency_seconds",
        "time that the proxy itself adds to requests and responses, without holds and without what others are waited for",
    ),
    Metric::histogram(
        "teeline_pushed_back_seconds",
        "waits during which somebody was not read from, by cause",
    ),
];
