//! Every metric of the segmenter, declared once.

use metrics::{counter, gauge, histogram};
use teeline_archive::ledger::{Entry, StateKind};
use teeline_runtime::metrics::{Metric, declare};
use teeline_wire::client::WatchStats;

use crate::audit::upstream::Silence;
use crate::audit::{PartitionReport, RoundReport};

const METRICS: &[Metric] = &[
    Metric::counter(
        "teeline_segmenter_frames_total",
        "Frames read from the write-ahead buffer.",
    ),
    Metric::counter(
        "teeline_segmenter_damage_total",
        "Damaged places found in the write-ahead buffer.",
    ),
    Metric::counter(
        "teeline_segments_total",
        "Segments listed in the ledger, by origin.",
    ),
    Metric::counter(
        "teeline_segment_records_total",
        "Records in segments listed in the ledger.",
    ),
    Metric::counter(
        "teeline_segment_source_bytes_total",
        "Bytes of record batches in segments listed in the ledger.",
    ),
    Metric::counter(
        "teeline_segment_stored_bytes_total",
        "Bytes of segments listed in the ledger, as stored.",
    ),
    Metric::counter(
        "teeline_segment_uploads_failed_total",
        "Attempts to upload a segment that failed.",
    ),
    Metric::counter("teeline_ledger_commits_total", "Commits written to the ledger."),
    Metric::counter(
        "teeline_ledger_commits_failed_total",
        "Attempts to write a commit that failed.",
    ),
    Metric::histogram("teeline_ledger_commit_seconds", "Time to write one commit."),
    Metric::counter(
        "teeline_manifest_writes_total",
        "Times that manifest.json was written.",
    ),
    Metric::counter(
        "teeline_fetched_bytes_total",
        "Bytes of record batches fetched from the source to fill holes.",
    ),
    Metric::counter(
        "teeline_fetches_failed_total",
        "Fetches and surveys of the source that failed.",
    ),
    Metric::counter(
        "teeline_duplicate_batches_total",
        "Captured batches that were held already.",
    ),
    Metric::counter(
        "teeline_conflicting_batches_total",
        "Captured batches whose offsets were held with other content.",
    ),
    Metric::counter(
        "teeline_unresolved_intents_total",
        "Intents whose outcome the proxy did not see, by cause.",
    ),
    Metric::counter(
        "teeline_unconfirmed_intents_total",
        "Intents archived as unconfirmed.",
    ),
    Metric::counter(
        "teeline_absent_offsets_total",
        "Offsets that the source no longer had when asked for them.",
    ),
    Metric::gauge(
        "teeline_unarchived_seconds",
        "Age of the oldest captured batch that is not in the archive yet.",
    ),
    Metric::gauge(
        "teeline_unarchived_batches",
        "Captured batches that are not in the archive yet.",
    ),
    Metric::gauge(
        "teeline_unsettled_intents",
        "Intents of which it is not known whether the broker wrote them.",
    ),
    Metric::gauge(
        "teeline_missing_offsets",
        "Offsets missing between those held, to be fetched by this writer.",
    ),
    Metric::gauge(
        "teeline_left_offsets",
        "Offsets missing between those held, left to the auditor as other writers are at work.",
    ),
    Metric::gauge(
        "teeline_audit_active",
        "Whether this process is the auditor of the cluster's backup.",
    ),
    Metric::counter("teeline_audit_rounds_total", "Rounds of the auditor, by result."),
    Metric::gauge(
        "teeline_audit_last_round_timestamp_seconds",
        "When the last round of the auditor succeeded, in epoch seconds.",
    ),
    Metric::gauge(
        "teeline_audit_partitions",
        "Partitions that the auditor looked at in its last round.",
    ),
    Metric::gauge(
        "teeline_audit_unjudged_partitions",
        "Partitions that the auditor could not look at in its last round.",
    ),
    Metric::gauge(
        "teeline_audit_denied_topics",
        "Topics that the auditor may not look at.",
    ),
    Metric::gauge("teeline_audit_held_offsets", "Offsets that the archive holds."),
    Metric::gauge(
        "teeline_audit_lag_offsets",
        "Offsets of the log that the archive neither holds nor explains, those just written included.",
    ),
    Metric::gauge(
        "teeline_audit_missing_offsets",
        "Offsets of the log that the archive lacks for longer than the grace.",
    ),
    Metric::counter(
        "teeline_audit_absent_offsets_total",
        "Offsets that the log does not have, as recorded by the auditor, by reason.",
    ),
    Metric::counter(
        "teeline_audit_superseded_offsets_total",
        "Archived offsets that the log has lost, as recorded by the auditor.",
    ),
    Metric::counter(
        "teeline_audit_segments_total",
        "Segments that the auditor fetched and committed.",
    ),
    Metric::counter(
        "teeline_audit_records_total",
        "Records in segments that the auditor fetched and committed.",
    ),
    Metric::counter(
        "teeline_upkeep_replaced_segments_total",
        "Small segments that the auditor joined into larger ones.",
    ),
    Metric::counter(
        "teeline_upkeep_joined_segments_total",
        "Segments that took the place of small ones.",
    ),
    Metric::counter(
        "teeline_upkeep_removed_segments_total",
        "Replaced segments whose objects were deleted.",
    ),
    Metric::counter(
        "teeline_watch_requests_total",
        "Long polls of a continuous backup that follow what is archived.",
    ),
    Metric::counter(
        "teeline_watch_whole_requests_total",
        "Those with the whole list of partitions: the first of a fetch session, and all where a broker keeps none.",
    ),
    Metric::counter(
        "teeline_watch_session_resets_total",
        "Fetch sessions that a broker forgot, or that were lost with a connection or a leader.",
    ),
    Metric::counter(
        "teeline_watch_sessions_refused_total",
        "Answers of brokers that keep no fetch session for a continuous backup.",
    ),
    Metric::counter(
        "teeline_backup_rounds_total",
        "Rounds of continuous backups, by what they were due for.",
    ),
    Metric::gauge("teeline_open_segments", "Segments that are open."),
    Metric::counter(
        "teeline_state_changes_total",
        "Changes of the source's state beside its records that were seen, by kind.",
    ),
    Metric::counter(
        "teeline_state_polls_failed_total",
        "Looks at the source's state that failed, by kind.",
    ),
    Metric::gauge(
        "teeline_state_offsets_followed",
        "Whether committed offsets are followed in the log of the coordinators, rather than polled.",
    ),
    Metric::counter(
        "teeline_state_offsets_corrected_total",
        "Committed offsets that coordinators told otherwise than their log did.",
    ),
    Metric::counter("teeline_state_objects_total", "State objects stored, by kind."),
    Metric::counter(
        "teeline_state_bytes_total",
        "Bytes of state objects stored, by kind.",
    ),
    Metric::gauge(
        "teeline_state_not_auditable",
        "Parts of the source's state that cannot be read, by kind.",
    ),
    Metric::gauge("teeline_uploads", "Segments being built or uploaded."),
];

/// Gives the metrics their help texts.
pub fn register() {
    declare(METRICS);
}

/// One frame was read.
pub fn frame_read() {
    counter!("teeline_segmenter_frames_total").increment(1);
}

/// Damage was found.
pub fn damage_found() {
    counter!("teeline_segmenter_damage_total").increment(1);
}

/// A segment was listed.
pub fn segment_committed(info: &teeline_archive::segment::SegmentInfo) {
    counter!("teeline_segments_total", "origin" => info.identity.origin.as_str()).increment(1);
    counter!("teeline_segment_records_total").increment(info.record_count);
    counter!("teeline_segment_source_bytes_total").increment(info.uncompressed_bytes);
    counter!("teeline_segment_stored_bytes_total").increment(info.object_bytes);
}

/// An upload attempt failed.
pub fn upload_failed() {
    counter!("teeline_segment_uploads_failed_total").increment(1);
}

/// A commit was written.
pub fn committed(seconds: f64) {
    counter!("teeline_ledger_commits_total").increment(1);
    histogram!("teeline_ledger_commit_seconds").record(seconds);
}

/// A commit attempt failed.
pub fn commit_failed() {
    counter!("teeline_ledger_commits_failed_total").increment(1);
}

/// The manifest was written.
pub fn manifest_written() {
    counter!("teeline_manifest_writes_total").increment(1);
}

/// Batches came from the source.
pub fn fetched(bytes: u64) {
    counter!("teeline_fetched_bytes_total").increment(bytes);
}

/// The source did not answer.
pub fn fetch_failed() {
    counter!("teeline_fetches_failed_total").increment(1);
}

/// A captured batch was held already.
pub fn duplicate() {
    counter!("teeline_duplicate_batches_total").increment(1);
}

/// A captured batch contradicts what is held.
pub fn conflict() {
    counter!("teeline_conflicting_batches_total").increment(1);
}

/// An intent is unresolved.
pub fn unresolved(cause: &'static str) {
    counter!("teeline_unresolved_intents_total", "cause" => cause).increment(1);
}

/// Intents are archived as unconfirmed.
pub fn unconfirmed(intents: u64) {
    counter!("teeline_unconfirmed_intents_total").increment(intents);
}

/// The source no longer has these offsets.
pub fn absent(offsets: u64) {
    counter!("teeline_absent_offsets_total").increment(offsets);
}

/// Logs were followed: what that took until then, and until now.
pub fn watched(told: &WatchStats, now: &WatchStats) {
    let add = |name: &'static str, of: fn(&WatchStats) -> u64| {
        counter!(name).increment(of(now).saturating_sub(of(told)));
    };
    add("teeline_watch_requests_total", |stats| stats.requests);
    add("teeline_watch_whole_requests_total", |stats| stats.whole);
    add("teeline_watch_session_resets_total", |stats| stats.resets);
    add("teeline_watch_sessions_refused_total", |stats| stats.refused);
}

/// A continuous backup makes a round.
pub fn backup_round(cause: &'static str) {
    counter!("teeline_backup_rounds_total", "cause" => cause).increment(1);
}

/// The source's state beside its records was looked at: what changed, and what could not be read.
pub fn state_seen(kind: StateKind, changes: u64, not_auditable: usize) {
    counter!("teeline_state_changes_total", "kind" => kind.to_string()).increment(changes);
    gauge!("teeline_state_not_auditable", "kind" => kind.to_string()).set(not_auditable as f64);
}

/// How committed offsets are come by.
pub fn state_followed(is_followed: bool) {
    gauge!("teeline_state_offsets_followed").set(f64::from(u8::from(is_followed)));
}

/// Coordinators told committed offsets otherwise than their log did.
pub fn state_corrected(offsets: u64) {
    counter!("teeline_state_offsets_corrected_total").increment(offsets);
}

/// A look at the source's state failed.
pub fn state_not_seen(kind: StateKind) {
    counter!("teeline_state_polls_failed_total", "kind" => kind.to_string()).increment(1);
}

/// A state object was stored.
pub fn state_stored(kind: StateKind, bytes: u64) {
    counter!("teeline_state_objects_total", "kind" => kind.to_string()).increment(1);
    counter!("teeline_state_bytes_total", "kind" => kind.to_string()).increment(bytes);
}

/// The state of the engine, once a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gauges {
    /// Age of the oldest batch that is not archived.
    pub unarchived_seconds: f64,
    /// Batches that are not archived.
    pub unarchived_batches: usize,
    /// Intents in doubt.
    pub unsettled_intents: usize,
    /// Offsets missing.
    pub missing_offsets: u64,
    /// Offsets missing that are left to the auditor.
    pub left_offsets: u64,
    /// Segments open.
    pub open_segments: usize,
    /// Segments under way.
    pub uploads: usize,
}

/// Shows the state of one segmenter.
pub fn show(cluster: &str, gauges: &Gauges) {
    let cluster = cluster.to_owned();
    // Counts far below 2^53: nothing is lost in a gauge.
    gauge!("teeline_unarchived_seconds", "cluster" => cluster.clone()).set(gauges.unarchived_seconds);
    gauge!("teeline_unarchived_batches", "cluster" => cluster.clone()).set(gauges.unarchived_batches as f64);
    gauge!("teeline_unsettled_intents", "cluster" => cluster.clone()).set(gauges.unsettled_intents as f64);
    gauge!("teeline_missing_offsets", "cluster" => cluster.clone()).set(gauges.missing_offsets as f64);
    gauge!("teeline_left_offsets", "cluster" => cluster.clone()).set(gauges.left_offsets as f64);
    gauge!("teeline_open_segments", "cluster" => cluster.clone()).set(gauges.open_segments as f64);
    gauge!("teeline_uploads", "cluster" => cluster).set(gauges.uploads as f64);
}

/// Whether this process audits.
pub fn audit_active(cluster: &str, active: bool) {
    gauge!("teeline_audit_active", "cluster" => cluster.to_owned()).set(f64::from(u8::from(active)));
}

/// Small segments were joined, and replaced ones deleted.
pub fn upkeep_done(replaced: usize, joined: usize, removed: usize) {
    counter!("teeline_upkeep_replaced_segments_total").increment(replaced as u64);
    counter!("teeline_upkeep_joined_segments_total").increment(joined as u64);
    counter!("teeline_upkeep_removed_segments_total").increment(removed as u64);
}

/// A round of the auditor has ended.
pub fn audit_round(cluster: &str, succeeded: bool) {
    let result = if succeeded { "done" } else { "failed" };
    counter!("teeline_audit_rounds_total", "cluster" => cluster.to_owned(), "result" => result).increment(1);
}

/// What the auditor wrote down.
#[derive(Debug, Default)]
pub struct AuditCounts {
    segments: u64,
    records: u64,
    superseded: u64,
    absent: Vec<(&'static str, u64)>,
}

impl AuditCounts {
    /// Counts what is about to be committed.
    pub fn of(entries: &[Entry]) -> Self {
        let mut counts = AuditCounts::default();
        for entry in entries {
            match entry {
                Entry::Segment(info) => {
                    counts.segments = counts.segments.saturating_add(1);
                    counts.records = counts.records.saturating_add(info.record_count);
                }
                Entry::Superseded(lost) if !lost.same => {
                    counts.superseded = counts.superseded.saturating_add(lost.range().span());
                }
                Entry::Absent(absence) => {
                    counts
                        .absent
                        .push((absence.reason.as_str(), absence.range().span()));
                }
                _ => {}
            }
        }
        counts
    }

    /// It is committed.
    pub fn show(&self) {
        counter!("teeline_audit_segments_total").increment(self.segments);
        counter!("teeline_audit_records_total").increment(self.records);
        counter!("teeline_audit_superseded_offsets_total").increment(self.superseded);
        for (reason, offsets) in &self.absent {
            counter!("teeline_audit_absent_offsets_total", "reason" => *reason).increment(*offsets);
        }
    }
}

/// What a round of the auditor found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AuditGauges {
    partitions: usize,
    unjudged: usize,
    denied: usize,
    held: u64,
    lag: u64,
    missing: u64,
}

impl AuditGauges {
    /// Adds the partitions of a round up.
    pub fn of(report: &RoundReport) -> Self {
        let round = &report.round;
        let sum = |of: fn(&PartitionReport) -> u64| {
            round
                .partitions
                .values()
                .fold(0u64, |sum, partition| sum.saturating_add(of(partition)))
        };
        AuditGauges {
            partitions: round.partitions.len(),
            unjudged: round.unjudged,
            denied: round
                .missing
                .iter()
                .filter(|(_, silence)| *silence == Silence::NotAllowed)
                .count(),
            held: sum(|partition| partition.held),
            lag: sum(|partition| partition.lag),
            missing: sum(|partition| partition.wanted),
        }
    }
}

/// Shows what a round of the auditor found.
pub fn show_audit(cluster: &str, gauges: &AuditGauges, now_ms: i64) {
    let cluster = cluster.to_owned();
    // Counts far below 2^53: nothing is lost in a gauge.
    let set = |name: &'static str, value: f64| gauge!(name, "cluster" => cluster.clone()).set(value);
    set(
        "teeline_audit_last_round_timestamp_seconds",
        now_ms as f64 / 1_000.0,
    );
    set("teeline_audit_partitions", gauges.partitions as f64);
    set("teeline_audit_unjudged_partitions", gauges.unjudged as f64);
    set("teeline_audit_denied_topics", gauges.denied as f64);
    set("teeline_audit_held_offsets", gauges.held as f64);
    set("teeline_audit_lag_offsets", gauges.lag as f64);
    set("teeline_audit_missing_offsets", gauges.missing as f64);
}
