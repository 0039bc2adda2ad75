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

/// Settings that are held off, with their values while restoring.
pub type Held = BTreeMap<&'static str, String>;

/// The limits on timestamps that Kafka 3.6 and later know.
pub const TIMESTAMP_LIMITS: [&str; 2] = [
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
];
/// The limit that Kafka up to 3.9 knows, and applies where the others have their defaults.
pub const TIMESTAMP_LIMIT_OLD: &str = "message.timestamp.difference.max.ms";
/// What `max.message.bytes` is by default: what such a topic took fits.
const BATCH_BYTES_DEFAULT: u64 = 1_048_588;

/// The settings in force while restoring batches of at most `batch_bytes` into a topic that has the settings
/// `original`; `limits` are the limits on timestamps that the target knows.
pub fn held_off(original: &Settings, batch_bytes: u64, limits: &[&'static str]) -> Held {
    let configured = original
        .get("max.message.bytes")
        .cloned()
        .flatten()
        .and_then(|text| text.parse().ok());
    // No more than is needed: managed clusters refuse topics that ask for much.
    let batch_bytes = batch_bytes.max(configured.unwrap_or(0)).max(BATCH_BYTES_DEFAULT);
    let mut held = BTreeMap::from([
        ("cleanup.policy", "delete".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("max.message.bytes", batch_bytes.to_string()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", SEGMENT_BYTES_HELD.to_string()),
        ("segment.ms", UNLIMITED.to_owned()),
    ]);
    held.extend(limits.iter().map(|name| (*name, UNLIMITED.to_owned())));
    held
}

/// Without those that only make restoring cheaper: some clusters refuse to have them changed.
pub fn only_needed(mut held: Held) -> Held {
    held.retain(|name, _| !name.starts_with("segment."));
    held
}

/// The original settings without the limits on timestamps that the target does not know, and a note on each.
pub fn known_limits(original: &Settings, limits: &[&'static str]) -> (Settings, Vec<String>) {
    let mut settings = original.clone();
    let mut notes = Vec::new();
    for name in TIMESTAMP_LIMITS
        .iter()
        .chain([&TIMESTAMP_LIMIT_OLD])
        .filter(|name| !limits.contains(name))
    {
        if let Some(Some(value)) = settings.remove(*name) {
            notes.push(format!("the target does not know the setting {name}={value}"));
        }
    }
    (settings, notes)
}

/// The settings a new topic starts with: the original ones, overlaid by what is held off.
pub fn at_creation(original: &Settings, held: &Held) -> BTreeMap<String, String> {
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
pub fn put_back(original: &Settings, held: &Held) -> Settings {
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
        let settings = at_creation(&original(), &held_off(&original(), 0, &TIMESTAMP_LIMITS));
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
        let held = held_off(&original(), 0, &TIMESTAMP_LIMITS);
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
        let back = put_back(&original(), &held_off(&original(), 0, &TIMESTAMP_LIMITS));
        let command = by_hand("orders", &back, "h:9092");
        assert!(command.contains("cleanup.policy=[compact,delete]"), "{command}");
        assert!(
            command.contains("--delete-config") && command.contains("retention.bytes"),
            "{command}"
        );
    }

    #[test]
    fn max_message_bytes_is_what_is_needed() {
        let of = |original: &Settings, needed| {
            held_off(original, needed, &[])
                .get("max.message.bytes")
                .cloned()
                .unwrap()
        };
        assert_eq!(of(&original(), 5), "1048588");
        assert_eq!(of(&original(), 2_000_000), "2000000");
        let large = Settings::from([("max.message.bytes".to_owned(), Some("9000000".to_owned()))]);
        assert_eq!(of(&large, 5), "9000000");
    }

    #[test]
    fn limits_that_the_target_does_not_know_are_left_out_and_noted() {
        let mut settings = original();
        settings.insert(TIMESTAMP_LIMIT_OLD.to_owned(), Some("7".to_owned()));
        let (known, notes) = known_limits(&settings, &TIMESTAMP_LIMITS);
        assert_eq!((known, notes.len()), (original(), 1));
        assert_eq!(known_limits(&settings, &[TIMESTAMP_LIMIT_OLD]).1.len(), 0);
    }
}
