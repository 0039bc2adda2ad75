//! Reads virtual clusters.

use std::path::PathBuf;

use crate::cluster::{Ack, Buffer, Capture, Limits, Listen, OnFailure, VirtualCluster};
use crate::door::ClientCertificates;
use crate::section::Section;

use super::endpoint::{HOUR_MS, Upstream, upstream};
use super::listen::listen;

pub(super) fn clusters(top: &mut Section<'_>, backup_id: Option<&str>) -> Vec<VirtualCluster> {
    let sections = top.sections("clusters");
    let alone = sections.len() == 1;
    sections
        .into_iter()
        .filter_map(|section| cluster(section, backup_id, alone))
        .collect()
}

/// `None` when a part without a default is wrong, which is then a problem already noted.
fn cluster(mut section: Section<'_>, default_backup_id: Option<&str>, alone: bool) -> Option<VirtualCluster> {
    let name = name(&mut section, alone);
    let backup_id = super::backup_id(&mut section).or_else(|| match (default_backup_id, alone) {
        (Some(id), true) => Some(id.to_owned()),
        // One backup holds one cluster, so each gets an id of its own.
        (Some(id), false) => name.as_ref().map(|name| format!("{id}-{name}")),
        (None, true) => Some(VirtualCluster::DEFAULT_BACKUP_ID.to_owned()),
        (None, false) => name.clone(),
    });
    let upstream = match section.section("upstream") {
        Some(found) => upstream(found),
        None => {
            section.problem(
                "upstream",
                "is missing",
                "say which cluster is behind: upstream.bootstrap_servers",
            );
            None
        }
    };
    let listen = listen(section.section("listen"), alone, &section);
    let capture = capture(section.section("capture"), name.as_deref(), alone);
    let limits = limits(section.section("limits"));
    if let (Some(upstream), Some(listen)) = (&upstream, &listen) {
        check_identity(&section, upstream, listen);
    }
    section.finish();
    let (upstream, listen) = (upstream?, listen?);
    Some(VirtualCluster {
        name: name?,
        backup_id: backup_id?,
        upstream: upstream.sessions,
        capture_credentials: upstream.own,
        listen,
        capture,
        limits,
    })
}

/// Whoever reaches a listener behind which the proxy says itself who it is has the proxy's rights.
fn check_identity(section: &Section<'_>, upstream: &Upstream, listen: &Listen) {
    let known = listen
        .tls
        .as_ref()
        .is_some_and(|tls| matches!(tls.clients, ClientCertificates::Required(_)));
    if upstream.speaks_for_clients && !known {
        let message =
            "the proxy would speak for clients that it does not know: to the brokers they all are the proxy";
        let hint = "ask clients for certificates with listen.tls.client_ca_file, or let them authenticate to the \
                    brokers themselves: SASL_SSL or SASL_PLAINTEXT without sasl";
        section.hidden_problem("upstream", message, hint);
    }
}

fn name(section: &mut Section<'_>, alone: bool) -> Option<String> {
    if !section.has("name") {
        let _ = section.text("name");
        if !alone {
            section.problem("name", "is missing", "with several clusters each needs a name");
            return None;
        }
        return Some(VirtualCluster::DEFAULT_NAME.to_owned());
    }
    let name = section.text("name")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.len() > 64 || !name.bytes().all(plain) {
        section.problem(
            "name",
            "is not a plain name",
            "use 1 to 64 letters, digits, '_' and '-'",
        );
        return None;
    }
    Some(name)
}

fn capture(section: Option<Section<'_>>, name: Option<&str>, alone: bool) -> Capture {
    // Two clusters in one buffer directory would refuse each other by its lock.
    let dir = match (alone, name) {
        (false, Some(name)) => PathBuf::from(Buffer::DEFAULT_DIR).join(name),
        _ => PathBuf::from(Buffer::DEFAULT_DIR),
    };
    let default = Capture {
        buffer: Buffer {
            dir,
            ..Buffer::default()
        },
        ..Capture::default()
    };
    let Some(mut section) = section else {
        return default;
    };
    section.not_yet(&["encryption", "consumer_groups"]);
    let capture = Capture {
        enabled: section.boolean("enabled").unwrap_or(default.enabled),
        include: section.patterns("include").unwrap_or(default.include),
        exclude: section.patterns("exclude").unwrap_or(default.exclude),
        ack: section
            .choice("ack", &[("durable", Ack::Durable), ("async", Ack::Async)], &[])
            .unwrap_or(default.ack),
        on_failure: section
            .choice(
                "on_failure",
                &[("open", OnFailure::Open), ("closed", OnFailure::Closed)],
                &[],
            )
            .unwrap_or(default.on_failure),
        hold_max_ms: section
            .millis("hold_max", "hold_max_ms", 1, HOUR_MS)
            .unwrap_or(default.hold_max_ms),
        buffer: buffer(section.section("buffer"), default.buffer),
        catalog_poll_interval: section
            .duration("catalog_poll_interval", "catalog_poll_interval_ms", 50, HOUR_MS)
            .unwrap_or(default.catalog_poll_interval),
    };
    section.finish();
    capture
}

fn buffer(section: Option<Section<'_>>, default: Buffer) -> Buffer {
    let Some(mut section) = section else {
        return default;
    };
    let dir = section.path("dir");
    let max_bytes = section
        .size("max", "max_bytes", 1 << 20, 1 << 50)
        .unwrap_or(default.max_bytes);
    let given = section.size("file", "file_bytes", 64 << 10, 4 << 30);
    // A small buffer gets files small enough to be released one by one.
    let file_bytes = given.unwrap_or(default.file_bytes.min(max_bytes / 4));
    if max_bytes / 2 < file_bytes {
        let hint = "files are released whole: make max_bytes at least twice file_bytes";
        section.problem("file_bytes", "is more than half of the whole buffer", hint);
    }
    let sync_interval_ms = section.millis("sync_interval", "sync_interval_ms", 1, 60_000);
    section.not_yet(&["encryption"]);
    section.finish();
    Buffer {
        dir: dir.unwrap_or(default.dir),
        max_bytes,
        file_bytes,
        sync_interval_ms: sync_interval_ms.unwrap_or(default.sync_interval_ms),
    }
}

fn limits(section: Option<Section<'_>>) -> Limits {
    let default = Limits::default();
    let Some(mut section) = section else {
        return default;
    };
    let in_flight = section.size(
        "connection_in_flight",
        "connection_in_flight_bytes",
        64 << 10,
        4 << 30,
    );
    let socket_buffer = section.size("socket_buffer", "socket_buffer_bytes", 16 << 10, 1 << 30);
    section.finish();
    Limits {
        connection_in_flight_bytes: in_flight.unwrap_or(default.connection_in_flight_bytes),
        // It is within those bounds.
        socket_buffer_bytes: socket_buffer
            .and_then(|bytes| u32::try_from(bytes).ok())
            .unwrap_or(default.socket_buffer_bytes),
    }
}
