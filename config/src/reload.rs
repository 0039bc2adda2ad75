//! What differs between the configuration in force and a new one, key by key, and which of it a running proxy can take over.
//!
//! Every structure is taken apart with all its fields, so that a new key does not compile until somebody has decided here
//! what a reload makes of it. Secrets are compared and never shown.
//!
//! What concerns only other programs (`mode`, `source`, `target`, `backup`, `restore`) is nothing to a proxy.

mod shown;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::audit::Audit;
use crate::cluster::{Buffer, Capture, Limits, Listen, VirtualCluster};
use crate::document::Config;
use crate::endpoint::KafkaEndpoint;
use crate::jobs::Segmenter;
use crate::process::{Admin, Log, Process};
use crate::security::Security;
use crate::storage::{Retry, Storage};
use shown::Shown;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key path. Clusters are named by their names, as `clusters[orders].listen.address`: their order means nothing.
    pub key: String,
    /// What stood there and what stands there now; `None` when it is not to be shown, or is a whole section.
    pub values: Option<(String, String)>,
    /// What a reload makes of it.
    pub effect: Effect,
}

/// What a reload makes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is in force at once, for open connections too.
    AtOnce,
    /// It is in force for connections that begin from then on.
    NewConnections,
    /// A cluster begins or ends with its listeners.
    Cluster,
    /// Only a restart can do it; this is why.
    Restart(&'static str),
}

impl Effect {
    /// In few words, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NewConnections => "for new connections",
            Self::Cluster => "clusters begin and end",
            Self::Restart(_) => "needs a restart",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        match &self.values {
            Some((from, to)) => write!(f, ": {from} -> {to}")?,
            None => f.write_str(": changed")?,
        }
        match self.effect {
            Effect::Restart(why) => write!(f, " (needs a restart: {why})"),
            Effect::Cluster => Ok(()),
            effect => write!(f, " ({})", effect.as_str()),
        }
    }
}

/// Every key that differs, as far as it concerns a proxy.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Differences::default();
    let Config {
        mode: _,
        backup_id: _, // Only the default of the clusters' own.
        clusters: _,
        storage: _,
        segmenter: _,
        audit: _,
        admin: _,
        log: _,
        source: _,
        target: _,
        backup: _,
        restore: _,
        process: _,
    } = new;
    clusters(&mut found, &old.clusters, &new.clusters);
    found.within("storage", |found| match (&old.storage, &new.storage) {
        (Some(old), Some(new)) => storage(found, old, new),
        (old, new) if old != new => found.whole(Effect::Restart(ARCHIVE)),
        _ => {}
    });
    found.within("segmenter", |found| {
        segmenter(found, &old.segmenter, &new.segmenter)
    });
    found.within("audit", |found| audit(found, &old.audit, &new.audit));
    found.within("admin", |found| admin(found, &old.admin, &new.admin));
    found.within("log", |found| log(found, &old.log, &new.log));
    found.within("process", |found| process(found, &old.process, &new.process));
    found.changes
}

/// Compares all fields of a structure, each under its own name or another one, each with its effect.
macro_rules! compare {
    ($found:expr, $old:expr, $new:expr, $kind:ident { $($field:ident $(as $key:literal)? => $effect:expr),* $(,)? }) => {{
        let $kind { $($field: _),* } = $new;
        $( $found.value(compare!(@key $field $($key)?), &$old.$field, &$new.$field, $effect); )*
    }};
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

fn clusters(found: &mut Differences, old: &[VirtualCluster], new: &[VirtualCluster]) {
    let named = |list: &[VirtualCluster], name: &str| list.iter().any(|cluster| cluster.name == name);
    for cluster in old.iter().filter(|cluster| !named(new, &cluster.name)) {
        found.there(&cluster.name, true, false);
    }
    for cluster in new {
        match old.iter().find(|old| old.name == cluster.name) {
            Some(old) => found.within(&format!("clusters[{}]", cluster.name), |found| {
                virtual_cluster(found, old, cluster);
            }),
            None => found.there(&cluster.name, false, true),
        }
    }
}

fn virtual_cluster(found: &mut Differences, old: &VirtualCluster, new: &VirtualCluster) {
    let VirtualCluster {
        name: _, // The same: that is how the two were found.
        backup_id,
        upstream,
        capture_credentials,
        listen,
        capture,
        limits,
    } = new;
    let why = "what is captured belongs to the backup that it was captured for";
    found.value("backup_id", &old.backup_id, backup_id, Effect::Restart(why));
    found.within("upstream", |found| {
        endpoint(found, &old.upstream, upstream);
        found.within("capture_credentials", |found| {
            match (&old.capture_credentials, capture_credentials) {
                (Some(old), Some(new)) => endpoint(found, old, new),
                (old, new) if old != new => found.whole(Effect::AtOnce),
                _ => {}
            }
        });
    });
    found.within("listen", |found| listeners(found, &old.listen, listen));
    found.within("capture", |found| capturing(found, &old.capture, capture));
    found.within("limits", |found| {
        compare!(found, old.limits, limits, Limits {
            connection_in_flight_bytes => Effect::NewConnections,
            socket_buffer_bytes => Effect::NewConnections,
        });
    });
}

fn endpoint(found: &mut Differences, old: &KafkaEndpoint, new: &KafkaEndpoint) {
    let KafkaEndpoint {
        bootstrap_servers: _,
        security,
        client_id: _,
        connect_timeout: _,
        request_timeout: _,
        client_rack: _,
    } = new;
    let effect = Effect::NewConnections;
    found.value(
        "bootstrap_servers",
        &old.bootstrap_servers,
        &new.bootstrap_servers,
        effect,
    );
    let Security { tls, sasl } = security;
    found.hidden("tls", &old.security.tls, tls, effect);
    found.hidden("sasl", &old.security.sasl, sasl, effect);
    found.value("client_id", &old.client_id, &new.client_id, effect);
    found.value(
        "connect_timeout",
        &old.connect_timeout,
        &new.connect_timeout,
        effect,
    );
    found.value(
        "request_timeout",
        &old.request_timeout,
        &new.request_timeout,
        effect,
    );
    found.value("client_rack", &old.client_rack, &new.client_rack, effect);
}

fn listeners(found: &mut Differences, old: &Listen, new: &Listen) {
    use Effect::{AtOnce, NewConnections};
    compare!(found, old, new, Listen {
        address => AtOnce,
        advertised_host => AtOnce,
        addressing => AtOnce,
        tls => NewConnections,
        proxy_protocol_from as "proxy_protocol.from" => NewConnections,
        handshake_timeout => NewConnections,
        max_connections => AtOnce,
        max_connections_per_address => AtOnce,
        max_request_bytes => NewConnections,
        idle_timeout => AtOnce,
        connection_age as "connection_max_age" => NewConnections,
    });
}

fn capturing(found: &mut Differences, old: &Capture, new: &Capture) {
    use Effect::{AtOnce, Restart};
    const SYNC: &str = "the write-ahead buffer's thread syncs in one way from its start";
    const BUFFER: &str = "the write-ahead buffer is open and holds what is not archived yet";
    compare!(found, old, new, Capture {
        enabled => Restart("capture begins and ends with the write-ahead buffer"),
        include => AtOnce,
        exclude => AtOnce,
        ack => Restart(SYNC),
        on_failure => AtOnce,
        hold_max_ms => AtOnce,
        buffer as "" => AtOnce,
        catalog_poll_interval => AtOnce,
    });
    let (old, new) = (&old.buffer, &new.buffer);
    found.within("buffer", |found| {
        compare!(found, old, new, Buffer {
            dir => Restart(BUFFER),
            max_bytes => Restart(BUFFER),
            file_bytes => Restart(BUFFER),
            sync_interval_ms => Restart(SYNC),
        });
    });
}

fn storage(found: &mut Differences, old: &Storage, new: &Storage) {
    let effect = Effect::Restart(ARCHIVE);
    compare!(found, old, new, Storage {
        backend => effect,
        bucket => effect,
        prefix => effect,
        endpoint => effect,
        region => effect,
        access_key => effect,
        secret_key => effect,
        service_account_file => effect,
        path => effect,
        single_writer => effect,
        allow_http => effect,
        retry as "" => effect,
        request_timeout => effect,
    });
    let (old, new) = (&old.retry, &new.retry);
    found.within("retry", |found| {
        compare!(found, old, new, Retry {
            max_retries => effect,
            backoff_initial => effect,
            backoff_max => effect,
            timeout => effect,
        });
    });
}

fn segmenter(found: &mut Differences, old: &Segmenter, new: &Segmenter) {
    let effect = Effect::Restart("open segments are built as they were begun");
    compare!(found, old, new, Segmenter {
        embedded => effect,
        compression => effect,
        level as "compression_level" => effect,
        segment_max_bytes => effect,
        segment_max_interval_ms => effect,
        small_segments_per_minute => effect,
        small_segment_max_interval_ms => effect,
        block_bytes => effect,
        upload_concurrency => effect,
        manifest_interval_ms => effect,
        hole_grace_ms => effect,
    });
}

fn audit(found: &mut Differences, old: &Audit, new: &Audit) {
    let effect = Effect::Restart("the auditor keeps what it has seen by these settings");
    compare!(found, old, new, Audit {
        enabled => effect,
        interval => effect,
        grace => effect,
        start => effect,
        bytes_per_second as "rate_limit" => effect,
        partitions_at_once => effect,
        fetch_max_bytes => effect,
        lease_ttl => effect,
        report_interval => effect,
        state => effect,
        state_interval => effect,
        state_offsets => effect,
        state_flush_interval => effect,
        compact => effect,
        compact_interval => effect,
        compact_min_age => effect,
        keep_replaced => effect,
        coverage_series => effect,
    });
}

fn admin(found: &mut Differences, old: &Admin, new: &Admin) {
    let effect = Effect::Restart("the admin port is what a reload is asked and watched by");
    compare!(found, old, new, Admin { enabled => effect, listen => effect });
}

fn log(found: &mut Differences, old: &Log, new: &Log) {
    compare!(found, old, new, Log {
        level => Effect::AtOnce,
        format => Effect::Restart("whoever reads the log expects one form of lines"),
        filter => Effect::AtOnce,
        access => Effect::AtOnce,
    });
}

fn process(found: &mut Differences, old: &Process, new: &Process) {
    compare!(found, old, new, Process {
        in_flight_bytes => Effect::AtOnce,
        drain_timeout => Effect::AtOnce,
        drain_delay => Effect::AtOnce,
        worker_threads => Effect::Restart("the threads of the data path run"),
    });
}

/// What was found so far, and where we are.
#[derive(Default)]
struct Differences {
    path: String,
    changes: Vec<Change>,
}

impl Differences {
    fn within(&mut self, section: &str, compare: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(section);
        compare(self);
        self.path.truncate(length);
    }

    /// A key without a name is a section, whose own keys follow.
    fn value<T: PartialEq + Shown>(&mut self, key: &str, old: &T, new: &T, effect: Effect) {
        if old == new || key.is_empty() {
            return;
        }
        let values = old.shown().zip(new.shown()).filter(|(old, new)| old != new);
        self.push(key, values, effect);
    }

    fn hidden<T: PartialEq>(&mut self, key: &str, old: &T, new: &T, effect: Effect) {
        if old != new {
            self.push(key, None, effect);
        }
    }

    /// The section itself came or went.
    fn whole(&mut self, effect: Effect) {
        let key = self.path.clone();
        self.changes.push(Change {
            key,
            values: None,
            effect,
        });
    }

    fn there(&mut self, name: &str, before: bool, now: bool) {
        let word = |there: bool| if there { "there" } else { "not there" }.to_owned();
        self.changes.push(Change {
            key: format!("clusters[{name}]"),
            values: Some((word(before), word(now))),
            effect: Effect::Cluster,
        });
    }

    fn push(&mut self, key: &str, values: Option<(String, String)>, effect: Effect) {
        let key = format!("{}.{key}", self.path);
        self.changes.push(Change { key, values, effect });
    }
}

const ARCHIVE: &str = "what is captured is on its way into the archive that is open";
