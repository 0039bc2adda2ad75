//! What to know before a restore, although it will work.

use crate::figures;
use crate::plan::{PartitionPlan, Plan, TopicPlan};
use crate::target::Found;
use crate::target::settings::Settings;
use crate::window::show_ms;

/// Kafka's own default of `retention.ms`, for topics without one.
const DEFAULT_RETENTION_MS: i64 = 7 * 24 * 3600 * 1000;

/// The warnings of a plan.
pub fn of(
    plan: &Plan,
    found: &Found,
    now_ms: i64,
    unknown_entries: u64,
    keep_retention_off: bool,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if unknown_entries > 0 {
        warnings.push(format!(
            "the ledger has {unknown_entries} entries of a newer version, which this one does not understand"
        ));
    }
    warnings.extend(
        plan.partitions()
            .filter_map(|(topic, partition)| open_transactions(topic, partition)),
    );
    for topic in &plan.topics {
        let settings = found
            .topics
            .get(&topic.target)
            .map_or(&topic.settings, |existing| &existing.settings);
        if !keep_retention_off {
            warnings.extend(retention(topic, settings, now_ms));
        }
        if is(settings, "message.timestamp.type", "LogAppendTime") {
            warnings.push(format!(
                "topic {} has message.timestamp.type=LogAppendTime: restored records keep their timestamps, later ones \
                 get the target's time",
                topic.target
            ));
        }
    }
    warnings
}

/// Says that the archive ends inside of transactions. Footers may show more while restoring; the report has them all.
fn open_transactions(topic: &TopicPlan, partition: &PartitionPlan) -> Option<String> {
    let first = partition.undecided.iter().map(|open| open.first_offset).min()?;
    Some(format!(
        "topic {} partition {}: the archive ends inside {} (from offset {first} on); their records are left out, as a \
         reader of committed records would not have seen them",
        topic.name,
        partition.partition,
        figures::of(partition.undecided.len() as u64, "open transaction"),
    ))
}

/// Retention that would delete restored records as soon as it is in force again.
fn retention(topic: &TopicPlan, settings: &Settings, now_ms: i64) -> Option<String> {
    let set = settings.get("retention.ms").cloned().flatten();
    let retention_ms = match &set {
        Some(text) => text.parse().ok()?,
        None => DEFAULT_RETENTION_MS,
    };
    let policy = settings.get("cleanup.policy").cloned().flatten();
    let deletes = policy.is_none_or(|policy| policy.split(',').any(|part| part.trim() == "delete"));
    if retention_ms < 0 || !deletes {
        return None;
    }
    let oldest = topic
        .partitions
        .iter()
        .flat_map(|partition| partition.segments.iter().chain(&partition.unconfirmed))
        .map(|segment| segment.timestamp_min)
        .min()?;
    if oldest >= now_ms.saturating_sub(retention_ms) {
        return None;
    }
    let limit = match set {
        Some(_) => format!("retention.ms={retention_ms} is put back at the end"),
        None => "the target's default retention (commonly 7 days) applies again at the end".to_owned(),
    };
    Some(format!(
        "topic {}: {limit}, and records go back to {}: the target will delete the old ones soon; \
         --keep-retention-off leaves them",
        topic.target,
        show_ms(oldest)
    ))
}

fn is(settings: &Settings, name: &str, value: &str) -> bool {
    settings
        .get(name)
        .is_some_and(|set| set.as_deref() == Some(value))
}
