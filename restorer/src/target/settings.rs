//! Topic settings while restoring and afterwards.
//!
//! Old records do not survive ordinary settings: retention deletes them at once, a `LogAppendTime` topic restamps
//! them, timestamp limits refuse them, compaction and recompression rewrite them, a small `max.message.bytes` refuses
//! what the source took. Such settings are held off while restoring, and put back afterwards.

use std::collections::BTreeMap;

/// Settings by name; `None` stands for "the target's default".
pub type Settings = BTreeMap<String, Option<String>>;

/// Unlimited, for settings in milliseconds.
const UNLIMITED: &str = "9223372036854775807";
/// Kafka's own default and the largest that it makes sense to hold a segment open for: 1 GiB. A segment takes at
/// least one batch, and few large segments make the closing of old ones while restoring cheap.
const SEGMENT_BYTES_HELD: i64 = 1 << 30;
/// Brokers refuse larger requests by default (`socket.request.max.bytes`), so no batch can be larger.
pub const BATCH_BYTES_MAX: usize = 100 * 1024 * 1024;

/// The settings in force while restoring.
pub fn held_off() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("cleanup.policy", "delete".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("max.message.bytes", BATCH_BYTES_MAX.to_string()),
        ("message.timestamp.after.max.ms", UNLIMITED.to_owned()),
        ("message.timestamp.before.max.ms", UNLIMITED.to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", SEGMENT_BYTES_HELD.to_string()),
        ("segment.ms", UNLIMITED.to_owned()),
    ])
}

/// What brokers before 3.6 know instead of the two timestamp limits.
pub fn for_old_brokers(mut settings: BTreeMap<&'static str, String>) -> BTreeMap<&'static str, String> {
    settings.remove("message.timestamp.after.max.ms");
    settings.remove("message.timestamp.before.max.ms");
    settings.insert("message.timestamp.difference.max.ms", UNLIMITED.to_owned());
    settings
}

/// The settings a new topic starts with: the original ones, overlaid by what is held off.
pub fn at_creation(original: &Settings, held: &BTreeMap<&'static str, String>) -> BTreeMap<String, String> {
    let mut settings: BTreeMap<String, String> = original
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
        .collect();
    settings.extend(
        held.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    settings
}

/// What puts the held off settings right again: each back to its original value, or to the target's default.
pub fn put_back(original: &Settings, held: &BTreeMap<&'static str, String>) -> Settings {
    held.keys()
        .map(|name| ((*name).to_owned(), original.get(*name).cloned().flatten()))
        .collect()
}

/// The settings that the source's topic had, fit for the target: a topic that demands more replicas in sync than it
/// has takes no record at all.
pub fn fit_replicas(original: &Settings, replication_factor: i16) -> (Settings, Option<String>) {
    let mut settings = original.clone();
    let demanded = settings
        .get("min.insync.replicas")
        .cloned()
        .flatten()
        .and_then(|text| text.parse::<i16>().ok());
    let note = match demanded {
        Some(demanded) if demanded > replication_factor => {
            settings.insert(
                "min.insync.replicas".to_owned(),
                Some(replication_factor.to_string()),
            );
            Some(format!(
                "min.insync.replicas {demanded} lowered to {replication_factor}, the replicas that there are"
            ))
        }
        _ => None,
    };
    (settings, note)
}

/// How to put settings back by hand, for an error message: a command of Kafka's own tools.
pub fn by_hand(topic: &str, settings: &Settings, bootstrap: &str) -> String {
    let set: Vec<String> = settings
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", quoted(value.as_deref()?))))
        .collect();
    let delete: Vec<&str> = settings
        .iter()
        .filter(|(_, value)| value.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    let mut command = format!(
        "kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {topic}"
    );
    if !set.is_empty() {
        command.push_str(&format!(" --add-config '{}'", set.join(",")));
    }
    if !delete.is_empty() {
        command.push_str(&format!(" --delete-config {}", delete.join(",")));
    }
    command
}

/// Kafka's tool takes lists in brackets.
fn quoted(value: &str) -> String {
    if value.contains(',') {
        format!("[{value}]")
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn original() -> Settings {
        Settings::from([
            ("retention.ms".to_owned(), Some("1000".to_owned())),
            ("cleanup.policy".to_owned(), Some("compact,delete".to_owned())),
            ("min.insync.replicas".to_owned(), Some("2".to_owned())),
            (
                "message.timestamp.type".to_owned(),
                Some("LogAppendTime".to_owned()),
            ),
        ])
    }

    #[test]
    fn a_new_topic_starts_with_the_original_settings_but_for_those_held_off() {
        let settings = at_creation(&original(), &held_off());
        assert_eq!(settings.get("min.insync.replicas").map(String::as_str), Some("2"));
        assert_eq!(settings.get("retention.ms").map(String::as_str), Some("-1"));
        assert_eq!(settings.get("cleanup.policy").map(String::as_str), Some("delete"));
        assert_eq!(
            settings.get("message.timestamp.type").map(String::as_str),
            Some("CreateTime")
        );
    }

    #[test]
    fn every_setting_held_off_is_put_back_to_its_original_or_to_the_default() {
        let held = held_off();
        let back = put_back(&original(), &held);
        assert_eq!(back.len(), held.len());
        assert_eq!(back.get("retention.ms"), Some(&Some("1000".to_owned())));
        assert_eq!(back.get("retention.bytes"), Some(&None));
    }

    #[test]
    fn a_topic_never_demands_more_replicas_than_it_has() {
        let (settings, note) = fit_replicas(&original(), 1);
        assert_eq!(settings.get("min.insync.replicas"), Some(&Some("1".to_owned())));
        assert!(note.is_some());
        assert_eq!(fit_replicas(&original(), 3), (original(), None));
    }

    #[test]
    fn the_command_by_hand_quotes_lists() {
        let back = put_back(&original(), &held_off());
        let command = by_hand("orders", &back, "h:9092");
        assert!(command.contains("cleanup.policy=[compact,delete]"), "{command}");
        assert!(
            command.contains("--delete-config") && command.contains("retention.bytes"),
            "{command}"
        );
    }
}
