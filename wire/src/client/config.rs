//! Settings of the client.

use std::time::Duration;

use teeline_config::KafkaEndpoint;

/// How the client behaves towards one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Where the cluster is, how long to wait for it, what to call ourselves.
    pub endpoint: KafkaEndpoint,
    /// Largest response accepted; a broker that announces more is disconnected from.
    pub response_bytes_max: usize,
    /// Requests on the way per connection; further ones wait for their turn.
    pub requests_in_flight_max: usize,
    /// What to do about errors that pass.
    pub retry: RetryPolicy,
}

/// How long and how often retriable errors are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// One call, all its attempts included, is given up after this time.
    pub deadline: Duration,
    /// As [`RetryPolicy::deadline`], for topics the cluster says it does not know: right after creation that
    /// passes within moments, and otherwise waiting does not help.
    pub unknown_topic_deadline: Duration,
    /// Pause after the first failure; doubles from there.
    pub backoff_first: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl RetryPolicy {
    /// Give up at the first failure.
    pub const NONE: Self = Self {
        deadline: Duration::ZERO,
        unknown_topic_deadline: Duration::ZERO,
        backoff_first: Duration::ZERO,
        backoff_max: Duration::ZERO,
    };
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            // Longer than a broker killed with -9 takes to be missed and replaced (9 s session and election).
            deadline: Duration::from_secs(60),
            unknown_topic_deadline: Duration::from_secs(5),
            // Java's retry.backoff.ms is 100 ms; leaders usually move faster.
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
        }
    }
}

impl ClientConfig {
    /// Above Fetch's usual 50 MiB and one batch of the largest size brokers take by default (100 MiB requests).
    pub const DEFAULT_RESPONSE_BYTES_MAX: usize = 128 * 1024 * 1024;
    /// Kafka keeps the last five batches of an idempotent producer, so no more than five may be on the way
    /// for one partition; several partitions share a connection.
    pub const DEFAULT_REQUESTS_IN_FLIGHT_MAX: usize = 32;

    /// The defaults, for this cluster.
    pub fn new(endpoint: KafkaEndpoint) -> Self {
        Self {
            endpoint,
            response_bytes_max: Self::DEFAULT_RESPONSE_BYTES_MAX,
            requests_in_flight_max: Self::DEFAULT_REQUESTS_IN_FLIGHT_MAX,
            retry: RetryPolicy::default(),
        }
    }
}

impl From<&KafkaEndpoint> for ClientConfig {
    fn from(endpoint: &KafkaEndpoint) -> Self {
        Self::new(endpoint.clone())
    }
}
