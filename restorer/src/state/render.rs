//! A state as text, for people.

use std::fmt::Write as _;

use super::{ClusterState, GroupState, KindState, OffsetState, TopicState};
use crate::figures;
use crate::window::show_ms;

/// A state as text.
pub fn render(state: &ClusterState) -> String {
    let mut text = format!("backup {} at {}\n", state.backup_id, show_ms(state.at_ms));
    for kind in &state.kinds {
        // Writing into a String cannot fail.
        let _ = render_kind(&mut text, kind);
    }
    for found in &state.damage {
        let _ = writeln!(text, "damaged: {}: {}", found.key, found.reason);
    }
    text
}

fn render_kind(text: &mut String, kind: &KindState) -> std::fmt::Result {
    let Some(seen_ms) = kind.seen_ms else {
        return match kind.first_recorded_ms {
            Some(first) => writeln!(
                text,
                "\n{}: nothing was recorded by then; the record begins at {}",
                kind.kind,
                show_ms(first)
            ),
            None => writeln!(text, "\n{}: nothing was ever recorded", kind.kind),
        };
    };
    writeln!(text, "\n{}, as seen at {}", kind.kind, show_ms(seen_ms))?;
    if let Some(source) = &kind.offsets_from {
        let why = match source.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        match source.way.as_str() {
            "log" => writeln!(text, "  every commit of an offset is known with its time")?,
            way => writeln!(
                text,
                "  committed offsets are known by {way}, not by each commit{why}"
            )?,
        }
    }
    for part in &kind.not_auditable {
        let what = match part.part.as_str() {
            "" => "all of it",
            part => part,
        };
        writeln!(text, "  not auditable: {what}: {}", part.reason)?;
    }
    if kind.unknown_lines > 0 {
        let lines = figures::of(kind.unknown_lines, "line");
        writeln!(text, "  {lines} of a newer version not understood")?;
    }
    let rows = rows(kind);
    if rows.len() < 2 {
        return writeln!(text, "  none");
    }
    for line in figures::table(&rows).lines() {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

fn rows(kind: &KindState) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(groups) = &kind.groups {
        rows.push(head(&[
            "group",
            "type",
            "protocol",
            "topic",
            "partition",
            "offset",
            "metadata",
        ]));
        rows.extend(groups.iter().flat_map(group_rows));
    }
    if let Some(topics) = &kind.topics {
        rows.push(head(&["topic", "partitions", "replicas", "settings"]));
        rows.extend(topics.iter().map(topic_row));
    }
    if let Some(acls) = &kind.acls {
        rows.push(head(&[
            "principal",
            "host",
            "permission",
            "operation",
            "resource",
            "pattern",
        ]));
        rows.extend(acls.iter().map(|acl| {
            let resource = format!("{} {}", acl.resource_type, acl.resource);
            let (permission, operation) = (acl.permission.clone(), acl.operation.clone());
            let (principal, host) = (acl.principal.clone(), acl.host.clone());
            vec![
                principal,
                host,
                permission,
                operation,
                resource,
                acl.pattern.clone(),
            ]
        }));
    }
    if let Some(quotas) = &kind.quotas {
        rows.push(head(&["entity", "quotas"]));
        rows.extend(quotas.iter().map(|quota| {
            let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "<default>".to_owned());
            let entity = quota
                .entity
                .iter()
                .map(|(kind, who)| format!("{kind} {}", name(who)));
            let values = quota.values.iter().map(|(name, value)| format!("{name}={value}"));
            vec![join(entity), join(values)]
        }));
    }
    if let Some(users) = &kind.scram_users {
        rows.push(head(&["user", "mechanisms"]));
        rows.extend(users.iter().map(|user| {
            let mechanisms = user.value.mechanisms.iter();
            let shown =
                mechanisms.map(|(mechanism, iterations)| format!("{mechanism} ({iterations} iterations)"));
            vec![user.user.clone(), join(shown)]
        }));
    }
    rows
}

fn group_rows(group: &GroupState) -> Vec<Vec<String>> {
    let head = [&group.group, &group.group_type, &group.protocol].map(Clone::clone);
    if group.offsets.is_empty() {
        return vec![head.to_vec()];
    }
    let row = |offset: &OffsetState| {
        let mut row = head.to_vec();
        row.push(offset.topic.clone());
        row.push(offset.partition.to_string());
        row.push(offset.value.offset.to_string());
        row.push(offset.value.metadata.escape_debug().to_string());
        row
    };
    group.offsets.iter().map(row).collect()
}

fn topic_row(topic: &TopicState) -> Vec<String> {
    let replicas = topic.value.replicas.first().map_or(0, Vec::len);
    let settings = match &topic.value.configs {
        None => "not known".to_owned(),
        Some(configs) => join(configs.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => format!("{name} (hidden)"),
        })),
    };
    vec![
        topic.topic.clone(),
        topic.partitions.to_string(),
        replicas.to_string(),
        settings,
    ]
}

fn head(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}
