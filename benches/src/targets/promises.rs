//! Every promise, in the order of the report.

use super::{Against, Bound, Target};

pub(super) const NO_CAPTURE: &[(&str, &str)] = &[("contender", "no capture")];
const ASYNC: &[(&str, &str)] = &[("contender", "async")];
pub(super) const DURABLE: &[(&str, &str)] = &[("contender", "durable")];
pub(super) const DIRECT: &[(&str, &str)] = &[("contender", "direct")];
pub(super) const HAPROXY: &[(&str, &str)] = &[("contender", "haproxy")];

pub(super) const TARGETS: &[Target] = &[
    Target {
        what: "pass-through, full speed: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.1),
        kind: "lean",
        lines: NO_CAPTURE,
        field: "cpu_to_haproxy",
        against: Against::LowEnd,
        why: "",
    },
    Target {
        what: "pass-through, 20 MB/s: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.1),
        kind: "lean-steady",
        lines: NO_CAPTURE,
        field: "cpu_to_haproxy",
        against: Against::LowEnd,
        why: "",
    },
    Target {
        what: "pass-through, 20 MB/s: p99 above the worse of HAProxy's and direct, ms",
        bound: Bound::AtMost(2.0),
        kind: "lean-steady",
        lines: NO_CAPTURE,
        field: "p99_ms",
        against: Against::Above(&[HAPROXY, DIRECT]),
        why: "",
    },
    Target {
        what: "pass-through, real Kafka, full speed: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.1),
        kind: "wire",
        lines: NO_CAPTURE,
        field: "cpu_to_haproxy",
        against: Against::LowEnd,
        why: "sleeping and waking others is 37 % of its samples and 26 % of HAProxy's, copies 11 and 17 %, its own \
              code a few: at Kafka's pace each request finds it asleep, although it reads and writes a tenth \
              as often per byte (140 KB and more at once). Before the null broker it is below HAProxy's, and at \
              20 MB/s it holds. It was 0.77 before socket buffers were bounded, on another host; the two have \
              not been told apart.",
    },
    Target {
        what: "pass-through, real Kafka, full speed, lz4: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.1),
        kind: "wire",
        lines: NO_CAPTURE,
        field: "lz4_cpu_to_haproxy",
        against: Against::LowEnd,
        why: "as without compression.",
    },
    Target {
        what: "pass-through, real Kafka at 20 MB/s: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.1),
        kind: "wire",
        lines: NO_CAPTURE,
        field: "steady_cpu_to_haproxy",
        against: Against::LowEnd,
        why: "",
    },
    Target {
        what: "pass-through, real Kafka at 20 MB/s: p99 above the worse of HAProxy's and direct, ms",
        bound: Bound::AtMost(2.0),
        kind: "wire",
        lines: NO_CAPTURE,
        field: "p99_ms",
        against: Against::Above(&[HAPROXY, DIRECT]),
        why: "the direct client's own p99 is twenty times the bound, by the broker's writes to the same disk, and \
              moves by more than the bound from round to round. Before the null broker at the same rate it is \
              10.6 ms here, on a busy host, beside HAProxy's 4.6, and was 2.7 beside 2.9 on a quiet one \
              (lean-steady-b6e248e).",
    },
    Target {
        what: "consume path: CPU per GB to HAProxy's",
        bound: Bound::AtMost(1.2),
        kind: "consume",
        lines: NO_CAPTURE,
        field: "cpu_to_haproxy",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "one hop, one CPU: over HAProxy's, us",
        bound: Bound::AtMost(5.0),
        kind: "hop",
        lines: NO_CAPTURE,
        field: "over_haproxy_us",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "idle connection, bytes",
        bound: Bound::AtMost(15_000.0),
        kind: "idle",
        lines: NO_CAPTURE,
        field: "used_connection_bytes",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "start to listening, seconds",
        bound: Bound::AtMost(0.3),
        kind: "idle",
        lines: NO_CAPTURE,
        field: "start_seconds",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "memory at rest, MiB",
        bound: Bound::AtMost(40.0),
        kind: "idle",
        lines: DURABLE,
        field: "rest_mib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "capture async, without its segmenter: CPU per GB to HAProxy's",
        bound: Bound::AtMost(2.0),
        kind: "lean",
        lines: ASYNC,
        field: "cpu_to_haproxy",
        against: Against::Nothing,
        why: "plain writes of as much, with as many syncs and nothing else, cost more CPU in the same run than the \
              whole proxy (below, under the parameters): most likely because the host of this virtual \
              machine takes free memory back, and finds it again for every page that a growing backlog is \
              written to (docs/adr/0010). In an hour in which plain writes cost 0.23 CPU-s per GB it was 2.5 to 3.3, with 1.0 CPU-s per GB: a third is \
              the copy into the page cache, a quarter what the proxy without capture costs, 8 % the checksum.",
    },
    Target {
        what: "capture async, 20 MB/s, without its segmenter: CPU per GB to HAProxy's",
        bound: Bound::AtMost(2.0),
        kind: "lean-steady",
        lines: ASYNC,
        field: "cpu_to_haproxy",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "capture async, real Kafka, without its segmenter: CPU per GB to HAProxy's",
        bound: Bound::AtMost(2.0),
        kind: "wire",
        lines: ASYNC,
        field: "cpu_to_haproxy",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "capture async, real Kafka at 20 MB/s, without its segmenter: CPU per GB to HAProxy's",
        bound: Bound::AtMost(2.0),
        kind: "wire",
        lines: ASYNC,
        field: "steady_cpu_to_haproxy",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "capture durable: throughput to that without capture",
        bound: Bound::AtLeast(0.95),
        kind: "wire",
        lines: DURABLE,
        field: "throughput_to_no_capture",
        against: Against::Nothing,
        why: "the cores are used up: on this machine Kafka and its producer take all of them for about 11 \
              CPU-s per GB, and a captured gigabyte asks the proxy for one more and the segmenter, whose \
              zstd it mostly is, for four. Before the null broker the buffer takes several times what \
              Kafka does.",
    },
    Target {
        what: "capture durable, 20 MB/s: added to the median, in syncs of the same size",
        bound: Bound::AtMost(1.2),
        kind: "lean-steady",
        lines: DURABLE,
        field: "added_to_sync",
        against: Against::Nothing,
        why: "a sync takes four times as long while the segmenter and the load use the same disk and cores \
              (0.70 ms instead of 0.17), and what `durable` adds is less than one of those (0.63 ms).",
    },
    Target {
        what: "segmenter: CPU to zstd's own for the same bytes",
        bound: Bound::AtMost(1.5),
        kind: "lean",
        lines: ASYNC,
        field: "segmenter_to_zstd",
        against: Against::Nothing,
        why: "with `async` at full speed the cores are used up, and all that runs on them is dearer; with \
              `durable`, in the same rounds, it is below the bound.",
    },
    Target {
        what: "memory of proxy and segmenter at full speed, MiB (64 MB and 256 MiB in flight)",
        bound: Bound::AtMost(317.0),
        kind: "lean",
        lines: ASYNC,
        field: "capture_peak_mib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "memory of proxy and segmenter with 500 connections, MiB (64 MB and 256 MiB in flight)",
        bound: Bound::AtMost(317.0),
        kind: "sweep-connections",
        lines: ASYNC,
        field: "capture_peak_mib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "more connections, without capture: CPU per GB to that with the fewest",
        bound: Bound::AtMost(1.15),
        kind: "sweep-connections",
        lines: NO_CAPTURE,
        field: "cpu_to_first",
        against: Against::Nothing,
        why: "HAProxy's cost grows by as much in the same run. As much is in flight in all, so with 500 \
              connections a wake-up finds one request instead of twenty, and each read and write moves 64 \
              KiB instead of 256.",
    },
    Target {
        what: "more connections, async: CPU per GB to that with the fewest",
        bound: Bound::AtMost(1.15),
        kind: "sweep-connections",
        lines: ASYNC,
        field: "cpu_to_first",
        against: Against::Nothing,
        why: "HAProxy's cost grows by more (1.31) in the same run, for the same reason: with 500 connections a \
              wake-up finds one request instead of twenty.",
    },
    Target {
        what: "more partitions, without capture: CPU per GB to that with the fewest",
        bound: Bound::AtMost(1.15),
        kind: "sweep-partitions",
        lines: NO_CAPTURE,
        field: "cpu_to_first",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "more partitions, async: CPU per GB to that with the fewest",
        bound: Bound::AtMost(1.15),
        kind: "sweep-partitions",
        lines: ASYNC,
        field: "cpu_to_first",
        against: Against::Nothing,
        why: "rounds lie further apart than that, and 2,000 partitions cost no more than 100: the segmenter \
              archives beside it, and what the same writes cost by themselves differs by more from minute to \
              minute.",
    },
    Target {
        what: "buffer, group commit of 16 x 64 KiB: speed to plain writes with as many syncs",
        bound: Bound::AtLeast(0.8),
        kind: "micro",
        lines: &[("group", "buffer, group commit of 16*"), ("piece", "append*")],
        field: "of_limit",
        against: Against::Nothing,
        why: "an idle buffer writes and syncs the first frame at once, and the others together after it: two \
              syncs (1.2 and 1.6 ms) where the limit has one. To wait for more before the first one would \
              make a single producer's every request later.",
    },
    Target {
        what: "buffer, a sync every 5 ms: speed to plain writes with as many syncs",
        bound: Bound::AtLeast(0.8),
        kind: "micro",
        lines: &[("group", "buffer, appends*"), ("piece", "append*")],
        field: "of_limit",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "segment building, zstd: speed to zstd's own",
        bound: Bound::AtLeast(0.67),
        kind: "micro",
        lines: &[("group", "segment building, zstd"), ("piece", "blocks*")],
        field: "of_limit",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore into the null broker: MB/s of records per core",
        bound: Bound::AtLeast(400.0),
        kind: "restore",
        lines: &[("who", "teeline restore"), ("cluster", "null")],
        field: "mb_per_core_second",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore, real Kafka: throughput to Kafka's producer performance tool's",
        bound: Bound::AtLeast(0.9),
        kind: "restore",
        lines: &[("who", "teeline restore"), ("cluster", "kafka")],
        field: "rate_to_tool",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore, real Kafka: CPU per GB to Kafka's producer performance tool's",
        bound: Bound::AtMost(1.0),
        kind: "restore",
        lines: &[("who", "teeline restore"), ("cluster", "kafka")],
        field: "cpu_to_tool",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore, producers without compression, zstd: CPU-s per GiB (a third of the best other tool's)",
        bound: Bound::AtMost(3.67),
        kind: "restore",
        lines: &[
            ("who", "teeline restore"),
            ("producers", "none"),
            ("archive", "zstd"),
        ],
        field: "cpu_seconds_per_gib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore, producers compress: CPU-s per GiB (an eighth of it)",
        bound: Bound::AtMost(1.375),
        kind: "restore",
        lines: &[("who", "teeline restore"), ("producers", "lz4")],
        field: "cpu_seconds_per_gib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "restore: peak memory, MiB",
        bound: Bound::AtMost(122.0),
        kind: "restore",
        lines: &[("who", "teeline restore")],
        field: "peak_mib",
        against: Against::Nothing,
        why: "",
    },
    Target {
        what: "backup from the null broker: MB/s of records per core",
        bound: Bound::AtLeast(400.0),
        kind: "backup",
        lines: &[("who", "teeline backup"), ("cluster", "null")],
        field: "mb_per_core_second",
        against: Against::Nothing,
        why: "the worst is uncompressed records into zstd segments, of which zstd's level 3 alone allows \
              390 MB per CPU second here; four fifths of the samples are its own. Level 1 \
              (`compression_level: 1`) takes half as long and makes Avro and text 5 to 14 % larger, which is \
              paid for every month. Where producers compress it holds.",
    },
    Target {
        what: "backup, real Kafka: throughput to Kafka's consumer performance tool's",
        bound: Bound::AtLeast(0.9),
        kind: "backup",
        lines: &[("who", "teeline backup"), ("cluster", "kafka")],
        field: "rate_to_tool",
        against: Against::Nothing,
        why: "zstd again: Kafka's tool throws its records away. Where producers compress, both rates hold.",
    },
    Target {
        what: "backup, real Kafka: CPU per GB to Kafka's consumer performance tool's",
        bound: Bound::AtMost(1.0),
        kind: "backup",
        lines: &[("who", "teeline backup"), ("cluster", "kafka")],
        field: "cpu_to_tool",
        against: Against::Nothing,
        why: "zstd again. Where producers compress it is 0.3 to 0.5.",
    },
    Target {
        what: "backup, producers without compression, zstd: CPU-s per GiB (a third of the best other tool's)",
        bound: Bound::AtMost(3.67),
        kind: "backup",
        lines: &[
            ("who", "teeline backup"),
            ("producers", "none"),
            ("archive", "zstd"),
        ],
        field: "cpu_seconds_per_gib",
        against: Against::Nothing,
        why: "zstd's level 3 alone is 2.8 of it; without compression it is 1.2.",
    },
    Target {
        what: "backup, producers compress: CPU-s per GiB (an eighth of it)",
        bound: Bound::AtMost(1.375),
        kind: "backup",
        lines: &[("who", "teeline backup"), ("producers", "lz4")],
        field: "cpu_seconds_per_gib",
        against: Against::Nothing,
        why: "a quarter is decompressing each batch to find its records' lowest and highest time, a third \
              compressing lz4's output once more (level 1). The true times are what restores by time rely \
              on.",
    },
    Target {
        what: "backup: peak memory, MiB",
        bound: Bound::AtMost(122.0),
        kind: "backup",
        lines: &[("who", "teeline backup")],
        field: "peak_mib",
        against: Against::Nothing,
        why: "",
    },
];
