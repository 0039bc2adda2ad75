//! How a backup ended, in words and for scripts.

use std::time::Duration;

use serde::Serialize;
use teeline_archive::OffsetRange;

/// How a backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything that was asked for is held, or explained.
    Complete,
    /// As many records as were asked for are held; the logs go on.
    Cut,
    /// It was told to stop before its end.
    Stopped,
    /// Something could not be read.
    Incomplete,
}

impl Outcome {
    /// How it ended, when something could not be read: nothing is held in full then.
    #[must_use]
    pub fn with_trouble(self, is_troubled: bool) -> Self {
        match self {
            Outcome::Complete | Outcome::Cut if is_troubled => Outcome::Incomplete,
            other => other,
        }
    }
}

/// What could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Topic.
    pub topic: String,
    /// Partition; none for the whole topic.
    pub partition: Option<i32>,
    /// First of its offsets, if some are meant.
    pub first_offset: Option<i64>,
    /// Last of them.
    pub last_offset: Option<i64>,
    /// Why.
    pub reason: String,
}

impl Trouble {
    /// Trouble with a partition.
    pub fn new(topic: &str, partition: Option<i32>, range: Option<OffsetRange>, reason: String) -> Self {
        Trouble {
            topic: topic.to_owned(),
            partition,
            first_offset: range.map(|range| range.first),
            last_offset: range.map(|range| range.last),
            reason,
        }
    }
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupReport {
    /// The backup.
    pub backup_id: String,
    /// The cluster.
    pub cluster_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether `max_messages` cut it.
    pub max_messages_reached: bool,
    /// Topics looked at.
    pub topics: u64,
    /// Partitions looked at.
    pub partitions: u64,
    /// Segments added.
    pub segments: u64,
    /// Records in them, transaction markers not counted.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Offsets that are still to be fetched.
    pub offsets_left: u64,
    /// How long it took.
    pub seconds: f64,
    /// What could not be read.
    pub troubles: Vec<Trouble>,
}

impl BackupReport {
    /// Bytes of batches per second.
    pub fn bytes_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.bytes as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// For scripts: one line.
    pub fn to_json(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("type".to_owned(), "report".into());
            fields.insert(
                "bytes_per_second".to_owned(),
                self.bytes_per_second().round().into(),
            );
        }
        value
    }

    /// For people.
    pub fn describe(&self) -> String {
        let ended = match self.outcome {
            Outcome::Complete if self.segments == 0 => "complete, nothing was new",
            Outcome::Complete => "complete",
            Outcome::Cut => "cut by max_messages",
            Outcome::Stopped => "stopped before its end",
            Outcome::Incomplete => "incomplete",
        };
        let mut text = format!(
            "{}: {ended}; {} of {}, {} in {}, {} in {} ({}/s)",
            self.backup_id,
            counted(self.partitions, "partition"),
            counted(self.topics, "topic"),
            counted(self.records, "record"),
            counted(self.segments, "new segment"),
            bytes(self.bytes as f64),
            span(Duration::from_secs_f64(self.seconds.clamp(0.0, 1e9))),
            bytes(self.bytes_per_second()),
        );
        if self.offsets_left > 0 {
            text.push_str(&format!(
                "; {} offsets are still to be fetched",
                self.offsets_left
            ));
        }
        for trouble in self.troubles.iter().take(TROUBLES_SHOWN) {
            text.push_str(&format!("\n  {}", trouble.topic));
            if let Some(partition) = trouble.partition {
                text.push_str(&format!("-{partition}"));
            }
            if let (Some(first), Some(last)) = (trouble.first_offset, trouble.last_offset) {
                text.push_str(&format!(" offsets {first} to {last}"));
            }
            text.push_str(&format!(": {}", trouble.reason));
        }
        if let Some(more) = self
            .troubles
            .len()
            .checked_sub(TROUBLES_SHOWN)
            .filter(|more| *more > 0)
        {
            text.push_str(&format!("\n  and {more} more; --json shows all"));
        }
        text
    }
}

const TROUBLES_SHOWN: usize = 20;

/// A number of things for people.
fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes.max(0.0);
    let mut units = UNITS.iter();
    let mut unit = "B";
    for next in units.by_ref() {
        unit = next;
        if value < 1024.0 {
            break;
        }
        if *next != "TiB" {
            value /= 1024.0;
        }
    }
    let digits = usize::from(unit != "B" && value < 100.0);
    format!("{value:.digits$} {unit}")
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        let shown: Vec<_> = [0.0, 1023.0, 1536.0, 5e6, 4e9, 3e15]
            .into_iter()
            .map(bytes)
            .collect();
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.5 KiB", "4.8 MiB", "3.7 GiB", "2728 TiB"]
        );
        assert_eq!(span(Duration::from_secs(75)), "1 min 15 s");
    }

    #[test]
    fn nothing_is_complete_with_trouble_and_a_stop_stays_a_stop() {
        assert_eq!(Outcome::Complete.with_trouble(false), Outcome::Complete);
        assert_eq!(Outcome::Complete.with_trouble(true), Outcome::Incomplete);
        assert_eq!(Outcome::Cut.with_trouble(false), Outcome::Cut);
        assert_eq!(Outcome::Cut.with_trouble(true), Outcome::Incomplete);
        assert_eq!(Outcome::Stopped.with_trouble(true), Outcome::Stopped);
    }

    #[test]
    fn the_report_says_what_is_left_and_why() {
        let report = BackupReport {
            backup_id: "nightly".to_owned(),
            cluster_id: "c".to_owned(),
            outcome: Outcome::Incomplete,
            max_messages_reached: false,
            topics: 1,
            partitions: 2,
            segments: 3,
            records: 4,
            bytes: 5_000_000,
            offsets_left: 6,
            seconds: 2.0,
            troubles: vec![Trouble::new(
                "orders",
                Some(1),
                OffsetRange::new(3, 8),
                "checksum".to_owned(),
            )],
        };
        let text = report.describe();
        assert!(
            text.starts_with("nightly: incomplete; 2 partitions of 1 topic, 4 records in 3 new segments"),
            "{text}"
        );
        assert!(
            text.contains("6 offsets are still") && text.ends_with("orders-1 offsets 3 to 8: checksum"),
            "{text}"
        );
        let json = report.to_json();
        assert_eq!(json.get("type").and_then(|kind| kind.as_str()), Some("report"));
        assert_eq!(
            json.get("outcome").and_then(|kind| kind.as_str()),
            Some("incomplete")
        );
    }
}
