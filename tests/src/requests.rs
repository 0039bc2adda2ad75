//! Requests to a store, counted on both sides: by the programs' own metrics, and by the access log of the server.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Sub;
use std::path::Path;

use serde_json::{Value, json};

use crate::admin_port;

/// Requests by what they are charged as.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requests {
    /// What writes: puts, and each step of an upload in parts.
    pub puts: f64,
    /// What reads an object or asks about it.
    pub gets: f64,
    /// What lists.
    pub lists: f64,
    /// What deletes.
    pub deletes: f64,
}

/// What one program says about itself. Everything only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Said {
    /// Operations on the store.
    pub requests: Requests,
    /// Segments that it listed in the ledger as a writer.
    pub segments: f64,
    /// Segments that it listed in the ledger as the auditor.
    pub audit_segments: f64,
    /// Small segments that it joined, and the joined ones.
    pub replaced: f64,
    /// Segments that took the place of small ones.
    pub joined: f64,
    /// Commits.
    pub commits: f64,
    /// Times that it wrote the manifest.
    pub manifests: f64,
    /// Bytes written to the store.
    pub written_bytes: f64,
    /// Bytes fetched from the brokers.
    pub fetched_bytes: f64,
    /// Requests of its own to the brokers, where it counts them.
    pub broker_requests: f64,
}

/// What the server saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Served {
    /// By what they are charged as.
    pub requests: Requests,
    /// Puts by what was written.
    pub puts: BTreeMap<&'static str, f64>,
    /// Refused or failed ones among all: absent objects that were asked for, conditions that did not hold.
    pub unanswered: f64,
}

impl Requests {
    fn count(&mut self, operation: &str, count: f64) {
        let counted = match operation {
            "put"
            | "put_if_absent"
            | "upload"
            | "s3_PutObject"
            | "s3_CreateMultipartUpload"
            | "s3_UploadPart"
            | "s3_CompleteMultipartUpload" => &mut self.puts,
            "list" | "children" | "s3_ListObjects" | "s3_ListObjectsV2" => &mut self.lists,
            "delete" | "s3_DeleteObject" | "s3_DeleteObjects" | "s3_AbortMultipartUpload" => {
                &mut self.deletes
            }
            _ => &mut self.gets,
        };
        *counted += count;
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({"puts": self.puts.round(), "gets": self.gets.round(), "lists": self.lists.round(),
               "deletes": self.deletes.round()})
    }

    /// Everything times a factor.
    pub fn times(&self, factor: f64) -> Self {
        Self {
            puts: self.puts * factor,
            gets: self.gets * factor,
            lists: self.lists * factor,
            deletes: self.deletes * factor,
        }
    }
}

impl Said {
    /// Asks a program's admin port.
    pub fn by(admin: &str) -> Self {
        let text = admin_port::get(admin, "/metrics").expect("read metrics").body;
        let sum = |name: &str| samples(&text, name).map(|(_, value)| value).sum::<f64>();
        let mut requests = Requests::default();
        for (labels, value) in samples(&text, "teeline_store_requests_total") {
            let operation = labels
                .split_once("operation=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            requests.count(operation.map_or("", |(operation, _)| operation), value);
        }
        Self {
            requests,
            segments: sum("teeline_segments_total"),
            audit_segments: sum("teeline_audit_segments_total") - sum("teeline_upkeep_joined_segments_total"),
            replaced: sum("teeline_upkeep_replaced_segments_total"),
            joined: sum("teeline_upkeep_joined_segments_total"),
            commits: sum("teeline_ledger_commits_total"),
            manifests: sum("teeline_manifest_writes_total"),
            written_bytes: sum("teeline_store_written_bytes_total"),
            fetched_bytes: sum("teeline_fetched_bytes_total"),
            broker_requests: sum("teeline_fetch_requests_total"),
        }
    }
}

impl Served {
    /// Reads a server's access log.
    pub fn logged(log: &Path) -> Self {
        let text = fs::read_to_string(log).expect("read the server's access log");
        let mut served = Self::default();
        // Owner, bucket, time, zone, peer, user, id, operation, key, address, status.
        for fields in text.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
            let [_, _, _, _, _, _, _, operation, key, _, status, ..] = fields[..] else {
                continue;
            };
            let before = served.requests.puts;
            served.requests.count(operation, 1.0);
            if served.requests.puts > before {
                *served.puts.entry(what_is(key)).or_default() += 1.0;
            }
            if !status.starts_with('2') {
                served.unanswered += 1.0;
            }
        }
        served
    }
}

/// What an object is, by its key.
fn what_is(key: &str) -> &'static str {
    let has = |part: &str| key.contains(part);
    match () {
        () if has("/topics/") => "segments",
        () if has("/ledger/") => "commits",
        () if key.ends_with("manifest.json") => "manifest",
        () if key.ends_with(".lease") => "lease",
        () if has("/state/") => "state",
        () => "other",
    }
}

fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line
            .strip_prefix(name)
            .filter(|rest| rest.starts_with(['{', ' ']))?;
        let (labels, value) = rest.rsplit_once(' ')?;
        Some((labels, value.parse().ok()?))
    })
}

impl Sub for Requests {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            gets: self.gets - earlier.gets,
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
        }
    }
}

impl std::ops::Add for Requests {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self - other.times(-1.0)
    }
}

impl Sub for Said {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            segments: self.segments - earlier.segments,
            audit_segments: self.audit_segments - earlier.audit_segments,
            replaced: self.replaced - earlier.replaced,
            joined: self.joined - earlier.joined,
            commits: self.commits - earlier.commits,
            manifests: self.manifests - earlier.manifests,
            written_bytes: self.written_bytes - earlier.written_bytes,
            fetched_bytes: self.fetched_bytes - earlier.fetched_bytes,
            broker_requests: self.broker_requests - earlier.broker_requests,
        }
    }
}

impl Sub<&Served> for Served {
    type Output = Self;
    fn sub(mut self, earlier: &Self) -> Self {
        self.requests = self.requests - earlier.requests;
        self.unanswered -= earlier.unanswered;
        for (what, count) in &earlier.puts {
            *self.puts.entry(what).or_default() -= count;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_log_is_counted_by_kind() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let line = |operation: &str, key: &str, status: u16| {
            format!(
                "- b [21/November/2026:14:05:20 +0000] 127.0.0.1 k ID {operation} {key} /b/{key} {status} - 0 0\n"
            )
        };
        let text = [
            "log starts 2026-11-21\n".to_owned(),
            line("s3_PutObject", "p/id/topics/t/partition=0/segment-1.zst", 200),
            line("s3_PutObject", "p/id/ledger/01/2.commit", 200),
            line("s3_GetObject", "p/id/ledger/01/3.commit", 404),
            line("s3_ListObjectsV2", "-", 200),
            line("s3_DeleteObject", "p/id/x", 204),
        ];
        fs::write(&log, text.concat()).unwrap();
        let served = Served::logged(&log);
        let expected = Requests {
            puts: 2.0,
            gets: 1.0,
            lists: 1.0,
            deletes: 1.0,
        };
        assert_eq!(served.requests, expected);
        assert_eq!(served.puts, BTreeMap::from([("segments", 1.0), ("commits", 1.0)]));
        assert_eq!(served.unanswered, 1.0);
    }

    #[test]
    fn a_metric_is_read_with_its_labels_and_not_by_its_beginning() {
        let text = "a_total{operation=\"put\",outcome=\"ok\"} 3\na_total_more 9\na_total 2\n";
        let read: Vec<(&str, f64)> = samples(text, "a_total").collect();
        assert_eq!(read, [("{operation=\"put\",outcome=\"ok\"}", 3.0), ("", 2.0)]);
    }
}
