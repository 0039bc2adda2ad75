//! What concerns several sections, and what each program requires.

use std::collections::BTreeMap;

use crate::cluster::VirtualCluster;
use crate::document::{Config, Mode, Program};
use crate::door::Ports;
use crate::problem::Problem;

fn problem(key: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem {
        key: key.into(),
        value: None,
        message: message.into(),
        hint: hint.into(),
    }
}

/// Rules between sections, whatever program reads the file.
pub(crate) fn between_sections(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    type Shared = (&'static str, fn(&VirtualCluster) -> String, &'static str);
    let shared: [Shared; 3] = [
        (
            "name",
            |cluster| cluster.name.clone(),
            "clusters need different names",
        ),
        (
            "backup_id",
            |cluster| cluster.backup_id.clone(),
            "a backup holds one cluster only",
        ),
        (
            "capture.buffer.dir",
            |cluster| cluster.capture.buffer.dir.display().to_string(),
            "a buffer has one writer",
        ),
    ];
    for (key, value_of, why) in shared {
        let mut seen = BTreeMap::new();
        for (index, cluster) in config.clusters.iter().enumerate() {
            let value = value_of(cluster);
            if let Some(first) = seen.insert(value.clone(), index) {
                let message = format!("is {value:?}, as in clusters[{first}]");
                problems.push(problem(format!("clusters[{index}].{key}"), message, why));
            }
        }
    }
    problems.extend(ports(config));
    for (index, cluster) in config.clusters.iter().enumerate() {
        if cluster.limits.connection_in_flight_bytes > config.process.in_flight_bytes {
            let key = format!("clusters[{index}].limits.connection_in_flight_bytes");
            let message = format!(
                "is more than process.in_flight_bytes = {}",
                config.process.in_flight_bytes
            );
            problems.push(problem(
                key,
                message,
                "one connection must not have more than all have together",
            ));
        }
    }
    problems
}

/// No port may be wanted twice. Hosts are not compared: `0.0.0.0` and a host's own address take the same port.
fn ports(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut taken: BTreeMap<u16, String> = BTreeMap::new();
    if config.admin.enabled && !config.clusters.is_empty() && config.admin.listen.port != 0 {
        taken.insert(config.admin.listen.port, "admin.listen".to_owned());
    }
    for (index, cluster) in config.clusters.iter().enumerate() {
        let key = format!("clusters[{index}].listen.address");
        if let Some(other) = taken.insert(cluster.listen.address.port, key.clone()) {
            let message = format!("its port {} is taken by {other}", cluster.listen.address.port);
            problems.push(problem(key, message, "give each a port of its own"));
        }
    }
    for (index, cluster) in config.clusters.iter().enumerate() {
        let key = format!("clusters[{index}].listen.addressing");
        let own = cluster.listen.addressing.ports().map(Ports::all_ports);
        let clash = own
            .into_iter()
            .flatten()
            .find_map(|port| taken.insert(port, key.clone()).map(|other| (port, other)));
        if let Some((port, other)) = clash {
            let message = format!("its range or list of ports has {port}, which is taken by {other}");
            problems.push(problem(
                key,
                message,
                "move it with node_port_start, or make it shorter with node_port_count",
            ));
        }
    }
    problems
}

/// What can be used and is perhaps not meant.
pub(crate) fn warnings(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (index, cluster) in config.clusters.iter().enumerate() {
        let (listen, upstream) = (&cluster.listen, &cluster.upstream);
        if upstream.security.tls.is_some() && listen.tls.is_none() && !listen.address.is_loopback() {
            warnings.push(problem(
                format!("clusters[{index}].listen.tls"),
                "the brokers are reached by TLS, and clients reach the proxy without: what TLS is to protect, \
                 passwords among it, crosses the network on the way to the proxy",
                "give the listener cert_file and key_file, unless that network is trusted",
            ));
        }
    }
    warnings
}

/// What a program needs and the file lacks.
pub(crate) fn for_program(config: &Config, program: Program) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut need = |there: bool, key: &str, hint: &str| {
        if !there {
            problems.push(problem(key, "is missing", hint));
        }
    };
    match program {
        Program::Proxy | Program::Segmenter => {
            need(
                !config.clusters.is_empty(),
                "clusters",
                "name at least one cluster with upstream.bootstrap_servers",
            );
            let captures = config.clusters.iter().any(|cluster| cluster.capture.enabled);
            let stores = program == Program::Segmenter || (captures && config.segmenter.embedded);
            need(
                config.storage.is_some() || !stores,
                "storage",
                "say where the archive lies, as `backend: filesystem` and `path: …`",
            );
        }
        Program::Backup => {
            need(config.backup_id.is_some(), "backup_id", "name the backup");
            need(
                config.source.is_some(),
                "source",
                "name the cluster with source.bootstrap_servers",
            );
            need(config.storage.is_some(), "storage", "say where the archive lies");
        }
        Program::Restorer => {
            need(
                config.backup_id.is_some(),
                "backup_id",
                "name the backup; `teeline-restorer list` shows them",
            );
            need(
                config.target.is_some(),
                "target",
                "name the cluster with target.bootstrap_servers",
            );
            need(config.storage.is_some(), "storage", "say where the archive lies");
        }
    }
    let (mode, command) = match config.mode {
        Some(Mode::Backup) => (Some("backup"), "teeline-segmenter backup"),
        Some(Mode::Restore) => (Some("restore"), "teeline-restorer restore"),
        None => (None, ""),
    };
    let fits = matches!(
        (config.mode, program),
        (None, _) | (Some(Mode::Backup), Program::Backup) | (Some(Mode::Restore), Program::Restorer)
    );
    if let (Some(mode), false) = (mode, fits) {
        let mut wrong = problem(
            "mode",
            "the file is for another program",
            format!("run `{command} --config FILE`"),
        );
        wrong.value = Some(mode.to_owned());
        problems.push(wrong);
    }
    problems
}
