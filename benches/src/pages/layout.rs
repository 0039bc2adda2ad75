//! What stands on the page, in which order and by which names.

/// A part of the page.
pub(super) struct Section {
    pub(super) kind: &'static str,
    pub(super) title: &'static str,
    pub(super) question: &'static str,
}

/// A chart that is drawn of every list with such a field.
pub(super) struct Drawn {
    /// What the kind of the result begins with.
    pub(super) kinds: &'static [&'static str],
    pub(super) field: &'static str,
    /// What comes on top of it, where a line has it.
    pub(super) plus: Option<&'static str>,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) mark: Option<(f64, &'static str)>,
}

/// Fields that name a line, in the order in which they name it.
pub(super) const LABELS: [&str; 12] = [
    "group",
    "piece",
    "path",
    "contender",
    "who",
    "what",
    "cluster",
    "producers",
    "archive",
    "store",
    "compression",
    "codec",
];
/// Figures in the order of their columns; others come after them.
pub(super) const COLUMNS: [&str; 26] = [
    "connections",
    "partitions",
    "mb_per_second",
    "throughput_to_direct",
    "throughput_to_no_capture",
    "rate_to_tool",
    "mb_per_core_second",
    "cpu_seconds_per_gb",
    "cpu_to_haproxy",
    "cpu_to_tool",
    "cpu_to_first",
    "segmenter_cpu_seconds_per_gb",
    "capture_cpu_seconds_per_gb",
    "lz4_mb_per_second",
    "lz4_cpu_seconds_per_gb",
    "lz4_cpu_to_haproxy",
    "steady_cpu_seconds_per_gb",
    "steady_cpu_to_haproxy",
    "p50_ms",
    "steady_p50_ms",
    "p99_ms",
    "p99_over_ms",
    "steady_p99_ms",
    "steady_p99_over_ms",
    "p999_ms",
    "steady_p999_ms",
];
/// Numbers that are part of a line's name.
pub(super) const COUNTS: [&str; 2] = ["connections", "partitions"];
/// What ours is compared with.
pub(super) const YARDSTICKS: [&str; 6] = [
    "direct",
    "haproxy",
    "shotover",
    "limit: ",
    "producer performance",
    "consumer performance",
];
/// Parts of field names, and what people call them.
pub(super) const UNITS: [(&str, &str); 12] = [
    ("cpu seconds", "CPU-s"),
    ("mb per core second", "MB/s per core"),
    ("mb per second", "MB/s"),
    ("gb per second", "GB/s"),
    ("per gib", "per GiB"),
    ("per gb", "per GB"),
    (" ns", ", ns"),
    (" ms", ", ms"),
    (" mib", ", MiB"),
    ("to haproxy", "to HAProxy's (95 %)"),
    ("cpu", "CPU"),
    ("p999", "p99.9"),
];
/// Charts, beneath the page.
pub(super) const CHARTS: &str = "benchmarks";

pub(super) const SECTIONS: &[Section] = &[
    Section {
        kind: "wire",
        title: "Real Kafka, produced through each way",
        question: "Throughput, latency, CPU and memory with Kafka's own performance producer before one real broker. \
                   Throughput is bounded by broker and producer on a small machine, so CPU per GB is the figure that tells. \
                   Gigabytes are of records before compression, with lz4, too. *Steady* is at 20 MB/s; `p99 over` is \
                   over the worse of HAProxy's and direct in the same round. Shotover serves clients up to Kafka 3.9 and \
                   is measured with 3.9.2's producer, which counts the first seconds of its JVM, too; all others \
                   with 4.3.1's, which leaves them out.",
    },
    Section {
        kind: "lean",
        title: "CPU per gigabyte, as fast as it goes",
        question: "A broker and a load that cost next to nothing, so that what stands between them is what is measured.",
    },
    Section {
        kind: "lean-steady",
        title: "CPU per gigabyte at a steady 20 MB/s",
        question: "The same with small batches at a fixed rate: here the cost is per request.",
    },
    Section {
        kind: "sweep-connections",
        title: "Few and many connections",
        question: "Does a gigabyte cost the same?",
    },
    Section {
        kind: "sweep-partitions",
        title: "Few and many partitions",
        question: "Does a gigabyte cost the same?",
    },
    Section {
        kind: "consume",
        title: "The consume path",
        question: "Fetch through each way.",
    },
    Section {
        kind: "hop",
        title: "Added by one hop",
        question: "Round trips of one small request with everything pinned to one CPU.",
    },
    Section {
        kind: "idle",
        title: "At rest",
        question: "Memory of idle connections and of an idle process, and the time from start to listening.",
    },
    Section {
        kind: "restore",
        title: "Restore",
        question: "Into the null broker, and into real Kafka beside its own performance producer.",
    },
    Section {
        kind: "backup",
        title: "Backup by Fetch",
        question: "From the null broker, and from real Kafka beside its own performance consumer.",
    },
    Section {
        kind: "micro",
        title: "Pieces of the hot path",
        question: "Each beside what the machine can do at best with the same bytes; medians of criterion, three runs of everything. \
                   `of limit` is the speed as a part of the limit's in the same run, with the lowest and the highest: \
                   above 1 where bytes need not be touched at all, and where the two minutes differed by more than \
                   what is measured (nothing is faster than the codec that it calls).",
    },
    Section {
        kind: "allocations",
        title: "Allocations per request",
        question: "What the whole proxy asks of the allocator while requests pass.",
    },
    Section {
        kind: "economy",
        title: "Requests to the store",
        question: "See [OPERATIONS.md](OPERATIONS.md).",
    },
];

pub(super) const DRAWN: &[Drawn] = &[
    Drawn {
        kinds: &["wire", "lean", "consume", "sweep", "restore", "backup"],
        field: "cpu_seconds_per_gb",
        plus: Some("segmenter_cpu_seconds_per_gb"),
        title: "CPU per gigabyte of records; lighter: of the segmenter",
        unit: "seconds",
        mark: None,
    },
    Drawn {
        kinds: &["lean"],
        field: "cpu_to_haproxy",
        plus: None,
        title: "CPU per gigabyte as a multiple of HAProxy's",
        unit: "95 % interval",
        mark: None,
    },
    Drawn {
        kinds: &["wire", "restore", "backup"],
        field: "mb_per_second",
        plus: None,
        title: "Throughput",
        unit: "MB/s",
        mark: None,
    },
    Drawn {
        kinds: &["lean-steady"],
        field: "p99_ms",
        plus: None,
        title: "99th percentile of latency",
        unit: "ms",
        mark: None,
    },
    Drawn {
        kinds: &["wire"],
        field: "steady_p99_ms",
        plus: None,
        title: "99th percentile of latency",
        unit: "ms",
        mark: None,
    },
    Drawn {
        kinds: &["hop"],
        field: "added_us",
        plus: None,
        title: "Added to a round trip",
        unit: "microseconds",
        mark: None,
    },
    Drawn {
        kinds: &["allocations"],
        field: "allocations_per_request",
        plus: None,
        title: "Allocations per request",
        unit: "count",
        mark: None,
    },
];
