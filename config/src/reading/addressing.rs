//! Reads how the brokers of a virtual cluster are told apart.

use std::collections::BTreeMap;

use crate::cluster::Listen;
use crate::door::{Addressing, HostPattern, Intercept, Names, Ports};
use crate::endpoint::HostPort;
use crate::section::Section;

#[derive(Debug, Clone, Copy)]
enum Scheme {
    Ports,
    Sni,
    Intercept,
}

pub(super) fn addressing(
    section: Option<Section<'_>>,
    address: Option<&HostPort>,
    has_tls: bool,
) -> Option<Addressing> {
    let bootstrap_port = address.map_or(Listen::DEFAULT_PORT, |address| address.port);
    let Some(mut section) = section else {
        return Some(Addressing::Ports(Ports::fitting_after(bootstrap_port)));
    };
    let schemes = [
        ("ports", Scheme::Ports),
        ("sni", Scheme::Sni),
        ("intercept", Scheme::Intercept),
    ];
    let scheme = section.choice("scheme", &schemes, &[]);
    if scheme.is_none() && section.has("scheme") {
        return None;
    }
    match scheme.unwrap_or(Scheme::Ports) {
        Scheme::Ports => Some(Addressing::Ports(ports(section, bootstrap_port))),
        Scheme::Sni => {
            if !has_tls {
                let hint = "give the listener tls.cert_file and tls.key_file, or use the scheme ports";
                section.problem("scheme", "needs TLS: the name stands in its greeting", hint);
            }
            names(section, bootstrap_port).map(Addressing::Names)
        }
        Scheme::Intercept => Some(Addressing::Intercept(intercept(section))),
    }
}

fn ports(mut section: Section<'_>, bootstrap_port: u16) -> Ports {
    let default = Ports::fitting_after(bootstrap_port);
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
    let node_port_count = count.unwrap_or(Ports::DEFAULT_NODE_PORT_COUNT).min(room);
    let mut nodes = BTreeMap::new();
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
    let advertised_port_start = section.number("advertised_port_start", 1, i64::from(u16::MAX));
    let beyond = |start: u16| start.checked_add(node_port_count.saturating_sub(1)).is_none();
    if advertised_port_start.is_some_and(beyond) {
        let hint = format!("the range has {node_port_count} ports: see node_port_count");
        section.problem(
            "advertised_port_start",
            "the range goes beyond the last port",
            hint,
        );
    }
    let mut advertised_nodes = BTreeMap::new();
    for (id, at) in section.table("advertised_nodes").unwrap_or_default() {
        let place = match at.parse::<u16>() {
            Ok(port) => Some((None, port)),
            Err(_) => at
                .parse::<HostPort>()
                .ok()
                .map(|address| (Some(address.host), address.port)),
        };
        match (id.parse::<i32>(), place.filter(|(_, port)| *port > 0)) {
            (Ok(id), Some(place)) if id >= 0 => {
                advertised_nodes.insert(id, place);
            }
            _ => section.problem(
                "advertised_nodes",
                format!("{id:?}: {at:?} is not a broker id and an address"),
                "write `3: broker-3.example.com:9092`, or a port alone",
            ),
        }
    }
    section.finish();
    Ports {
        node_port_start,
        node_id_start,
        node_port_count,
        nodes,
        advertised_port_start,
        advertised_nodes,
    }
}

fn names(mut section: Section<'_>, bootstrap_port: u16) -> Option<Names> {
    const BOOTSTRAP: &str = "bootstrap_host";
    const NODE: &str = "node_host";
    let hint = "give the host name at which clients ask first, as kafka.example.com";
    if !section.has(BOOTSTRAP) {
        section.problem(BOOTSTRAP, "is missing", hint);
    }
    let bootstrap_hosts = section.texts(BOOTSTRAP).unwrap_or_default();
    let node_hint = "give a host name with the broker's id in it, as broker-{id}.kafka.example.com";
    if !section.has(NODE) {
        section.problem(NODE, "is missing", node_hint);
    }
    let node_host = section.parsed(NODE, str::parse::<HostPattern>, node_hint);
    if node_host.as_ref().is_some_and(|host| !host.has_id()) {
        section.problem(NODE, "is the same for all brokers", node_hint);
    }
    for host in &bootstrap_hosts {
        // Clients send names only: with an address there is nothing to choose by.
        let name = host.parse::<HostPattern>().is_ok_and(|host| !host.has_id());
        if !name || host.parse::<std::net::IpAddr>().is_ok() {
            section.problem(BOOTSTRAP, format!("{host:?} is not a plain host name"), hint);
        } else if node_host
            .as_ref()
            .is_some_and(|nodes| nodes.node_of(host).is_some())
        {
            section.problem(
                BOOTSTRAP,
                format!("{host:?} is a broker's name, by node_host"),
                hint,
            );
        }
    }
    let advertised_port = section.number("advertised_port", 1, i64::from(u16::MAX));
    section.finish();
    Some(Names {
        bootstrap_hosts,
        node_host: node_host?,
        advertised_port: advertised_port.unwrap_or(bootstrap_port),
    })
}

/// The keys of the other schemes would say what clients are given, and these are given nothing.
fn intercept(mut section: Section<'_>) -> Intercept {
    let hint = "remove the key; clients keep the brokers' own addresses";
    for key in OF_OTHER_SCHEMES {
        section.refused(key, "is not for the scheme intercept", hint);
    }
    let transparent = section.boolean("transparent").unwrap_or_default();
    section.finish();
    Intercept { transparent }
}

const OF_OTHER_SCHEMES: [&str; 9] = [
    "node_port_start",
    "node_id_start",
    "node_port_count",
    "nodes",
    "advertised_port_start",
    "advertised_nodes",
    "bootstrap_host",
    "node_host",
    "advertised_port",
];
