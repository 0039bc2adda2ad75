//! What the auditor is told: how it compares the archive with the log, and how gently.

use std::time::Duration;

/// Where a backup begins in partitions that exist when it sees them first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// With the first offset that the cluster still has.
    #[default]
    Earliest,
    /// With what is written from then on.
    Latest,
    /// With the first record at or after this time, in epoch milliseconds.
    Timestamp(i64),
    /// With this offset, in every partition.
    Offset(i64),
}

/// How offsets that groups commit are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetsFrom {
    /// In the log that group coordinators write, where it may be read; else by asking.
    #[default]
    Log,
    /// By asking the coordinators at every look.
    Poll,
}

/// How the archive is compared with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Whether this process may be the auditor of its backups.
    pub enabled: bool,
    /// Pause between two rounds.
    pub interval: Duration,
    /// How old a high watermark must be before everything below it is demanded.
    pub grace: Duration,
    /// Where partitions begin.
    pub start: StartAt,
    /// How much may be fetched per second; `None` sets no limit.
    pub bytes_per_second: Option<u64>,
    /// Partitions that are fetched at the same time.
    pub partitions_at_once: usize,
    /// One response of a broker.
    pub fetch_max_bytes: u64,
    /// How long a silent auditor is waited for before another one takes its place.
    pub lease_ttl: Duration,
    /// The longest time for which a partition that changes is not written down anew.
    pub report_interval: Duration,
    /// Whether the state of the cluster (groups, configurations, ACLs, quotas, users) is recorded too.
    pub state: bool,
    /// How often the state of the cluster is looked at.
    pub state_interval: Duration,
    /// How committed offsets are come by.
    pub state_offsets: OffsetsFrom,
    /// How often changes of it are stored.
    pub state_flush_interval: Duration,
    /// Whether small segments are joined into larger ones.
    pub compact: bool,
    /// How often small segments are looked for.
    pub compact_interval: Duration,
    /// Only segments of this age are joined.
    pub compact_min_age: Duration,
    /// How long the objects of segments that were joined stay.
    pub keep_replaced: Duration,
    /// Up to so many partitions have coverage metrics of their own, or so many topics.
    pub coverage_series: usize,
}

impl Audit {
    /// A survey is two small requests per broker; what it finds is older than the grace anyway.
    pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    /// Twice the default age of a segment: what proxies have captured is in the ledger by then, and is not fetched as well.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(120);
    /// Hides the brokers' latency; each costs two responses and a block of memory.
    pub const DEFAULT_PARTITIONS_AT_ONCE: usize = 4;
    /// As Kafka's own consumers ask of a partition. What is larger was no faster at hand, and cost a quarter more CPU and
    /// twice the memory, as it does not stay in the processor's caches; over a long way more at once is worth it.
    pub const DEFAULT_FETCH_MAX_BYTES: u64 = 1024 * 1024;
    /// Three missed signs of life; nothing is wrong meanwhile, only later.
    pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(30);
    /// A reader of the archive alone then knows the end of every log to ten minutes, for six small entries an hour.
    pub const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_secs(600);
    /// Consumers commit every five seconds by default.
    pub const DEFAULT_STATE_INTERVAL: Duration = Duration::from_secs(10);
    /// At most one object a minute and kind.
    pub const DEFAULT_STATE_FLUSH_INTERVAL: Duration = Duration::from_secs(60);
    /// Small segments cost requests when they are read, which is rare: there is no hurry.
    pub const DEFAULT_COMPACT_INTERVAL: Duration = Duration::from_secs(600);
    /// Longer than any transaction stays open, and long enough for eight segments of an idle partition.
    pub const DEFAULT_COMPACT_MIN_AGE: Duration = Duration::from_secs(3_600);
    /// Longer than a restore that has loaded the ledger takes.
    pub const DEFAULT_KEEP_REPLACED: Duration = Duration::from_secs(24 * 3_600);
    /// Seven series each: what a Prometheus server takes from one process without being asked first.
    pub const DEFAULT_COVERAGE_SERIES: usize = 500;
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Self::DEFAULT_INTERVAL,
            grace: Self::DEFAULT_GRACE,
            start: StartAt::Earliest,
            bytes_per_second: None,
            partitions_at_once: Self::DEFAULT_PARTITIONS_AT_ONCE,
            fetch_max_bytes: Self::DEFAULT_FETCH_MAX_BYTES,
            lease_ttl: Self::DEFAULT_LEASE_TTL,
            report_interval: Self::DEFAULT_REPORT_INTERVAL,
            state: true,
            state_interval: Self::DEFAULT_STATE_INTERVAL,
            state_offsets: OffsetsFrom::Log,
            state_flush_interval: Self::DEFAULT_STATE_FLUSH_INTERVAL,
            compact: true,
            compact_interval: Self::DEFAULT_COMPACT_INTERVAL,
            compact_min_age: Self::DEFAULT_COMPACT_MIN_AGE,
            keep_replaced: Self::DEFAULT_KEEP_REPLACED,
            coverage_series: Self::DEFAULT_COVERAGE_SERIES,
        }
    }
}
