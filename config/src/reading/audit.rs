//! Reads what the auditor is told.

use crate::audit::{Audit, OffsetsFrom, StartAt};
use crate::section::Section;

use super::endpoint::HOUR_MS;

pub(super) fn audit(section: Option<Section<'_>>) -> Audit {
    let default = Audit::default();
    let Some(mut section) = section else {
        return default;
    };
    let starts = [("earliest", StartAt::Earliest), ("latest", StartAt::Latest)];
    let ways = [("log", OffsetsFrom::Log), ("poll", OffsetsFrom::Poll)];
    let audit = Audit {
        enabled: section.boolean("enabled").unwrap_or(default.enabled),
        interval: section
            .duration("interval", "interval_ms", 100, HOUR_MS)
            .unwrap_or(default.interval),
        grace: section
            .duration("grace", "grace_ms", 0, 24 * HOUR_MS)
            .unwrap_or(default.grace),
        start: section.choice("start", &starts, &[]).unwrap_or(default.start),
        bytes_per_second: section.size("rate_limit", "bytes_per_second", 64 << 10, 1 << 40),
        partitions_at_once: section
            .number("partitions_at_once", 1, 64)
            .unwrap_or(default.partitions_at_once),
        fetch_max_bytes: section
            .size("fetch_max", "fetch_max_bytes", 64 << 10, 64 << 20)
            .unwrap_or(default.fetch_max_bytes),
        lease_ttl: section
            .duration("lease_ttl", "lease_ttl_ms", 1_000, HOUR_MS)
            .unwrap_or(default.lease_ttl),
        report_interval: section
            .duration("report_interval", "report_interval_ms", 0, 24 * HOUR_MS)
            .unwrap_or(default.report_interval),
        state: section.boolean("state").unwrap_or(default.state),
        state_interval: section
            .duration("state_interval", "state_interval_ms", 100, 24 * HOUR_MS)
            .unwrap_or(default.state_interval),
        state_offsets: section
            .choice("state_offsets", &ways, &[])
            .unwrap_or(default.state_offsets),
        state_flush_interval: section
            .duration(
                "state_flush_interval",
                "state_flush_interval_ms",
                100,
                24 * HOUR_MS,
            )
            .unwrap_or(default.state_flush_interval),
        compact: section.boolean("compact").unwrap_or(default.compact),
        compact_interval: section
            .duration("compact_interval", "compact_interval_ms", 100, 24 * HOUR_MS)
            .unwrap_or(default.compact_interval),
        compact_min_age: section
            .duration("compact_min_age", "compact_min_age_ms", 0, 24 * HOUR_MS)
            .unwrap_or(default.compact_min_age),
        keep_replaced: section
            .duration("keep_replaced", "keep_replaced_ms", 0, 30 * 24 * HOUR_MS)
            .unwrap_or(default.keep_replaced),
        coverage_series: section
            .number("coverage_series", 0, 1_000_000)
            .unwrap_or(default.coverage_series),
    };
    section.finish();
    audit
}
