//! Reads virtual clusters.

use std::path::PathBuf;

use crate::cluster::{Ack, Buffer, Capture, Limits, Listen, OnFailure, Ports, VirtualCluster};
use crate::endpoint::HostPort;
use crate::section::Section;

use super::endpoint::{HOUR_MS, listen_address, upstream};

/// Kafka's frames carry their length in 31 bits.
const FRAME_BYTES_MAX: u64 = i32::MAX as u64;

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
    section.finish();
    let (upstream, capture_credentials) = upstream?;
    Some(VirtualCluster {
        name: name?,
        backup_id: backup_id?,
        upstream,
        capture_credentials,
        listen: listen?,
        capture,
        limits,
    })
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

fn listen(section: Option<Section<'_>>, alone: bool, cluster: &Section<'_>) -> Option<Listen> {
    let default = Listen::default();
    let Some(mut section) = section else {
        if !alone {
            cluster.problem(
                "listen",
                "is missing",
                "with several clusters each needs listen.address",
            );
            return None;
        }
        return Some(default);
    };
    section.not_yet(&["tls", "ssl", "proxy_protocol", "connection_max_age"]);
    let address = if section.has("address") {
        listen_address(&mut section, "address")
    } else {
        let _ = listen_address(&mut section, "address");
        Some(default.address)
    };
    if address.as_ref().is_some_and(|address| address.port == 0) {
        let hint = "give a fixed port; clients keep it over restarts";
        section.problem("address", "port 0 would change with every start", hint);
    }
    let advertised_host = advertised_host(&mut section, address.as_ref());
    let addressing = addressing(section.section("addressing"), address.as_ref());
    let max_connections = section.number("max_connections", 1, 1_000_000);
    let max_request = section.size("max_request", "max_request_bytes", 1 << 10, FRAME_BYTES_MAX);
    let idle_timeout = section.duration("idle_timeout", "idle_timeout_ms", 0, 7 * 24 * HOUR_MS);
    section.finish();
    Some(Listen {
        address: address?,
        advertised_host,
        addressing: addressing?,
        max_connections: max_connections.unwrap_or(default.max_connections),
        max_request_bytes: max_request.unwrap_or(default.max_request_bytes),
        idle_timeout: idle_timeout.unwrap_or(default.idle_timeout),
    })
}

fn advertised_host(section: &mut Section<'_>, address: Option<&HostPort>) -> Option<String> {
    const KEY: &str = "advertised_host";
    let host = section.text(KEY);
    let hint = "give the name or address at which clients reach this host, without a port";
    match &host {
        // An IPv6 address is the one host that has colons.
        Some(host)
            if host.contains(['/', ' '])
                || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()) =>
        {
            section.problem(KEY, "is not a plain host name or address", hint);
        }
        Some(host) if HostPort::new(host.as_str(), 0).is_unspecified() => {
            section.problem(
                KEY,
                "stands for every interface; no client can connect to it",
                hint,
            );
        }
        None if address.is_some_and(HostPort::is_unspecified) && !section.has(KEY) => {
            section.problem(
                KEY,
                "is missing: listen.address stands for every interface, and no client can connect to that",
                hint,
            );
        }
        _ => {}
    }
    host
}

fn addressing(section: Option<Section<'_>>, address: Option<&HostPort>) -> Option<Ports> {
    let bootstrap_port = address.map_or(Listen::DEFAULT_PORT, |address| address.port);
    let default = Ports::fitting_after(bootstrap_port);
    let Some(mut section) = section else {
        return Some(default);
    };
    let _ = section.choice("scheme", &[("ports", ())], &["sni", "intercept"]);
    let node_port_start = section
        .number("node_port_start", 1, i64::from(u16::MAX))
        .unwrap_or(default.node_port_start);
    let node_id_start = section
        .number("node_id_start", 0, i64::from(i32::MAX))
        .unwrap_or(default.node_id_start);
    let count = section.number("node_port_count", 1, i64::from(u16::MAX));
    let room = u16::MAX.saturating_sub(node_port_start).saturating_add(1);
    if count.is_some_and(|count: u16| count > room) {
        let hint = format!("from node_port_start {node_port_start} on there are only {room}");
        section.problem("node_port_count", "goes beyond the last port", hint);
    }
    let mut nodes = std::collections::BTreeMap::new();
    for (id, port) in section.table("nodes").unwrap_or_default() {
        match (id.parse::<i32>(), port.parse::<u16>()) {
            (Ok(id), Ok(port)) if id >= 0 && port > 0 => {
                nodes.insert(id, port);
            }
            _ => section.problem(
                "nodes",
                format!("{id:?}: {port:?} is not a broker id and a port"),
                "write `1001: 19101`",
            ),
        }
    }
    section.finish();
    let node_port_count = count.unwrap_or(Ports::DEFAULT_NODE_PORT_COUNT).min(room);
    Some(Ports {
        node_port_start,
        node_id_start,
        node_port_count,
        nodes,
    })
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
    section.finish();
    Limits {
        connection_in_flight_bytes: in_flight.unwrap_or(default.connection_in_flight_bytes),
    }
}
