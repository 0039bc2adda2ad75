//! Which topics, under which names, and which of their lives.

use std::collections::{BTreeMap, BTreeSet};

use teeline_archive::ledger::{Incarnation, LedgerState, TopicKey};
use teeline_archive::names::check_topic;
use uuid::Uuid;

use super::{Life, Request};
use crate::error::RestorerError;

/// One topic that was chosen.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// Its name in the archive.
    pub name: &'a str,
    /// Its name in the target.
    pub target: String,
    /// Which of its lives.
    pub incarnation: Uuid,
    /// All of its lives, oldest first.
    pub lives: Vec<Life>,
    /// What the ledger says about the life chosen.
    pub topic: &'a Incarnation,
}

/// Brokers make these by themselves and refuse to have them written; restoring one takes naming or mapping it.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Chooses the topics of a request, refusing whatever it names that the backup does not have.
pub(super) fn choose<'a>(
    state: &'a LedgerState,
    request: &Request,
) -> Result<Vec<Choice<'a>>, RestorerError> {
    if request.window.is_empty() {
        return Err(usage("the time window is empty: its start is not before its end"));
    }
    let mut by_name: BTreeMap<&str, Vec<(&TopicKey, &Incarnation)>> = BTreeMap::new();
    for (key, topic) in state.topics() {
        by_name.entry(&key.name).or_default().push((key, topic));
    }
    check_named(&by_name, request)?;
    let mut choices = Vec::new();
    for (name, lives) in &by_name {
        if !is_wanted(name, request) {
            continue;
        }
        let chosen = choose_life(name, lives, request.incarnations.get(*name))?;
        let Some((key, topic)) = lives.iter().find(|(key, _)| key.incarnation == chosen) else {
            continue;
        };
        choices.push(Choice {
            name,
            target: request
                .mapping
                .get(*name)
                .cloned()
                .unwrap_or_else(|| (*name).to_owned()),
            incarnation: key.incarnation,
            lives: lives
                .iter()
                .map(|(key, topic)| life(key, topic, chosen))
                .collect(),
            topic,
        });
    }
    if choices.is_empty() {
        return Err(usage(&format!(
            "no topic of the backup is selected; it has {}",
            names(&by_name)
        )));
    }
    check_targets(&choices)?;
    Ok(choices)
}

fn is_wanted(name: &str, request: &Request) -> bool {
    let named = request
        .topics
        .include
        .iter()
        .any(|pattern| pattern.exact_name() == Some(name));
    let internal = INTERNAL_TOPICS.contains(&name);
    request.topics.matches(name) && (!internal || named || request.mapping.contains_key(name))
}

/// What is named and missing is an error: a typing mistake must not make a smaller restore.
fn check_named(
    by_name: &BTreeMap<&str, Vec<(&TopicKey, &Incarnation)>>,
    request: &Request,
) -> Result<(), RestorerError> {
    let patterns = request.topics.include.iter();
    let unmatched = patterns.filter(|pattern| !by_name.keys().any(|name| pattern.matches(name)));
    let mut missing: Vec<String> = unmatched.map(|pattern| format!("--topic {pattern}")).collect();
    let absent = |name: &&String| !by_name.contains_key(name.as_str());
    missing.extend(
        request
            .mapping
            .keys()
            .filter(absent)
            .map(|name| format!("--map {name}=…")),
    );
    missing.extend(
        request
            .incarnations
            .keys()
            .filter(absent)
            .map(|name| format!("--incarnation {name}=…")),
    );
    if missing.is_empty() {
        return Ok(());
    }
    Err(usage(&format!(
        "the backup has no topic for {}; it has {}",
        missing.join(", "),
        names(by_name)
    )))
}

fn check_targets(choices: &[Choice<'_>]) -> Result<(), RestorerError> {
    let mut taken = BTreeSet::new();
    for choice in choices {
        check_topic(&choice.target)?;
        if !taken.insert(&choice.target) {
            let text = format!(
                "two topics would be restored into {}; map or exclude one of them",
                choice.target
            );
            return Err(usage(&text));
        }
    }
    Ok(())
}

fn choose_life(
    name: &str,
    lives: &[(&TopicKey, &Incarnation)],
    wanted: Option<&String>,
) -> Result<Uuid, RestorerError> {
    let newest = lives.last().map_or(Uuid::nil(), |(key, _)| key.incarnation);
    let Some(wanted) = wanted else { return Ok(newest) };
    let digits: String = wanted
        .chars()
        .filter(|c| *c != '-')
        .collect::<String>()
        .to_ascii_lowercase();
    let ids = || lives.iter().map(|(key, _)| key.incarnation);
    let matching: Vec<Uuid> = ids()
        .filter(|id| id.simple().to_string().starts_with(&digits))
        .collect();
    match matching.as_slice() {
        [one] => Ok(*one),
        _ => {
            let all: Vec<String> = ids().map(|id| id.to_string()).collect();
            let found = if matching.is_empty() {
                "no"
            } else {
                "more than one"
            };
            let all = all.join(", ");
            Err(usage(&format!(
                "topic {name} has {found} incarnation {wanted}; it has {all}"
            )))
        }
    }
}

fn life(key: &TopicKey, topic: &Incarnation, chosen: Uuid) -> Life {
    Life {
        incarnation: key.incarnation,
        first_seen_ms: topic.first_seen_ms(),
        records: topic
            .partitions()
            .map(|(_, partition)| partition.record_count())
            .sum(),
        chosen: key.incarnation == chosen,
    }
}

/// At most so many names in one message.
const NAMES_MAX: usize = 20;

fn names(by_name: &BTreeMap<&str, Vec<(&TopicKey, &Incarnation)>>) -> String {
    if by_name.is_empty() {
        return "no topic at all".to_owned();
    }
    let shown: Vec<&str> = by_name.keys().take(NAMES_MAX).copied().collect();
    let more = by_name.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join(", "))
}

fn usage(text: &str) -> RestorerError {
    RestorerError::Usage(text.to_owned())
}
