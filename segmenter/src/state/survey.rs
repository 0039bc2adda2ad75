//! Looking at a cluster once: answers of brokers become observations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use teeline_archive::state::{
    AclKey, AclValue, GroupKey, GroupValue, ItemKey, ItemValue, Items, OffsetKey, OffsetValue, PartKey,
    PartValue, QuotaKey, QuotaValue, ScramUserKey, ScramUserValue, TopicItemKey, TopicItemValue,
};
use teeline_wire::client::{
    ClientError, Cluster, ClusterMetadata, CommittedOffset, ConfigEntry, ConfigResource, ErrorCode,
    GroupListing, GroupOffsets, TopicMetadata, TopicSelection,
};
use uuid::Uuid;

use super::book::Observation;
use super::words;

/// Topics in one DescribeConfigs request: an answer has a few kilobytes for each.
const TOPICS_PER_REQUEST: usize = 200;
/// The type under which share groups are listed. They have a coordinator of their own kind and commit no offsets; what
/// there is instead is where each of their partitions begins.
const SHARE: &str = "share";
/// A part, as it is named when it cannot be read.
const CONFIGURATIONS: &str = "configurations of topics";

/// Ids of topics, by name.
pub(super) type TopicIds = HashMap<String, Uuid>;

/// The ids in a Metadata answer.
pub(super) fn topic_ids(metadata: &ClusterMetadata) -> TopicIds {
    let topics = metadata.topics.iter().filter(|topic| !topic.id.is_nil());
    topics.map(|topic| (topic.name.to_string(), topic.id)).collect()
}

impl Observation {
    pub(super) fn deny(&mut self, part: impl Into<String>, reason: String) {
        let key = ItemKey::NotAuditable(PartKey { part: part.into() });
        self.items
            .insert(key, ItemValue::NotAuditable(PartValue { reason }));
    }

    /// Nothing can be seen, for a reason that will not pass by itself.
    fn denied(reason: String) -> Self {
        let mut nothing = Self::default();
        nothing.unseen.all = true;
        nothing.deny("", reason);
        nothing
    }
}

/// Groups and what they have committed. A group is gone when its coordinator says so, not when it is not listed: the
/// coordinator may be the one that did not answer.
pub(super) async fn groups(cluster: &Cluster, known: &Items) -> Result<Observation, ClientError> {
    let listing = cluster.list_groups().await?;
    let mut asked: Vec<(String, i32)> = listing
        .groups
        .values()
        .filter(|group| group.group_type != SHARE)
        .map(|group| (group.group.clone(), group.coordinator))
        .collect();
    let mut seen = Observation::default();
    let unlisted: Vec<String> = known_groups(known)
        .into_iter()
        .filter(|group| !listing.groups.contains_key(*group))
        .map(str::to_owned)
        .collect();
    let coordinators = cluster.group_coordinators(&unlisted).await;
    for (group, coordinator) in unlisted.into_iter().zip(coordinators) {
        match coordinator {
            Ok(node_id) => asked.push((group, node_id)),
            Err(error) => note_group(&mut seen, &listing, group, Err(error)),
        }
    }
    let answers = cluster.committed_offsets(&asked).await;
    for ((group, _), answer) in asked.into_iter().zip(answers) {
        note_group(&mut seen, &listing, group, answer);
    }
    let shares: Vec<(String, i32)> = listing
        .groups
        .values()
        .filter(|group| group.group_type == SHARE)
        .map(|group| (group.group.clone(), group.coordinator))
        .collect();
    let answers = cluster.share_group_offsets(&shares).await;
    for ((group, _), answer) in shares.into_iter().zip(answers) {
        // Brokers before 4.1 have share groups and do not tell where they are.
        let answer = match answer {
            Err(ClientError::UnsupportedVersion { .. }) => Ok(GroupOffsets::default()),
            answer => answer,
        };
        note_group(&mut seen, &listing, group, answer);
    }
    let vanished = vanished(&seen, known);
    if !vanished.is_empty() {
        let names: Vec<Arc<str>> = vanished.keys().cloned().collect();
        let asked = cluster.metadata(TopicSelection::Named(&names)).await;
        note_vanished(&mut seen, vanished, asked.ok());
    }
    // A broker that does not know the call shows what it shows; nothing can be said about that.
    if let Ok(Some(false)) = cluster.may_describe_cluster().await {
        let reason =
            "DESCRIBE on the cluster is not granted: only groups with DESCRIBE of their own are seen";
        seen.deny("groups that are not shown", reason.to_owned());
    }
    Ok(seen)
}

/// Where known share groups are now: what differs from what is known. They do not write that to the log of their
/// coordinators. A group that does not answer stays as it was until the next look at all groups.
pub(super) async fn share_offsets(cluster: &Cluster, known: &Items) -> Observation {
    let is_share = |value: &ItemValue| matches!(value, ItemValue::Group(group) if group.group_type == SHARE);
    let groups: Vec<String> = known
        .iter()
        .filter_map(|(key, value)| match key {
            ItemKey::Group(group) if is_share(value) => Some(group.group.clone()),
            _ => None,
        })
        .collect();
    let coordinators = cluster.group_coordinators(&groups).await;
    let asked: Vec<(String, i32)> = groups
        .into_iter()
        .zip(coordinators)
        .filter_map(|(group, coordinator)| Some((group, coordinator.ok()?)))
        .collect();
    let answers = cluster.share_group_offsets(&asked).await;
    let mut seen = Observation::default();
    for ((group, _), answer) in asked.into_iter().zip(answers) {
        if let Ok(found) = answer {
            note_offsets(&mut seen, &group, found.offsets);
        }
    }
    seen
}

/// Offsets that were known and are not told any more, by topic.
fn vanished(seen: &Observation, known: &Items) -> BTreeMap<Arc<str>, Vec<OffsetKey>> {
    let mut vanished: BTreeMap<Arc<str>, Vec<OffsetKey>> = BTreeMap::new();
    for key in known.keys() {
        let ItemKey::Offset(offset) = key else { continue };
        let is_unseen = seen.unseen.groups.contains(&offset.group) || seen.unseen.items.contains(key);
        if !is_unseen && !seen.items.contains_key(key) {
            let of_topic = vanished.entry(Arc::from(offset.topic.as_str())).or_default();
            of_topic.push(offset.clone());
        }
    }
    vanished
}

/// A coordinator leaves out the offsets of topics that may not be described, without a word: only the topic itself, asked
/// for by name, tells that from offsets that are deleted.
fn note_vanished(
    seen: &mut Observation,
    vanished: BTreeMap<Arc<str>, Vec<OffsetKey>>,
    asked: Option<ClusterMetadata>,
) {
    let topics = asked.iter().flat_map(|metadata| &metadata.topics);
    let errors: HashMap<&str, ErrorCode> = topics.map(|topic| (&*topic.name, topic.error)).collect();
    for (topic, keys) in vanished {
        match errors.get(&*topic) {
            Some(error) if error.is_ok() || error.is_unknown_topic() => continue,
            Some(error) if error.is_denial() => {
                seen.deny(format!("offsets of topic {topic}"), error.to_string());
            }
            _ => {}
        }
        seen.unseen.items.extend(keys.into_iter().map(ItemKey::Offset));
    }
}

/// Groups of which there is more than that they could not be read.
fn known_groups(items: &Items) -> BTreeSet<&str> {
    fn name(key: &ItemKey) -> Option<&str> {
        match key {
            ItemKey::Group(group) => Some(group.group.as_str()),
            ItemKey::Offset(offset) => Some(offset.group.as_str()),
            _ => None,
        }
    }
    items.keys().filter_map(name).collect()
}

fn note_group(
    seen: &mut Observation,
    listing: &GroupListing,
    group: String,
    answer: Result<GroupOffsets, ClientError>,
) {
    let is_listed = listing.groups.contains_key(&group);
    let found = match answer {
        Ok(found) => found,
        Err(error) => {
            // Whatever the reason: from now on the state does not tell how it is, but how it was.
            let part = format!("group {group}");
            if !error.code().is_some_and(|code| code.is_denial()) {
                seen.unseen.for_now.insert(part.clone());
            }
            seen.deny(part, describe(&error));
            if is_listed {
                seen.set_group(&group, listing);
            }
            seen.unseen.groups.insert(group);
            return;
        }
    };
    let is_empty = found.offsets.is_empty() && found.failures.is_empty();
    if is_listed {
        seen.set_group(&group, listing);
    } else if !is_empty || !listing.failures.is_empty() {
        // It is there, or may be: only its own listing would say of what kind it is.
        seen.unseen
            .items
            .insert(ItemKey::Group(GroupKey { group: group.clone() }));
    }
    for (topic, partition, _) in found.failures {
        let group = group.clone();
        let key = OffsetKey {
            group,
            topic,
            partition,
        };
        seen.unseen.items.insert(ItemKey::Offset(key));
    }
    note_offsets(seen, &group, found.offsets);
}

fn note_offsets(seen: &mut Observation, group: &str, offsets: Vec<CommittedOffset>) {
    for committed in offsets {
        let key = OffsetKey {
            group: group.to_owned(),
            topic: committed.topic,
            partition: committed.partition,
        };
        let value = OffsetValue {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata,
            topic_id: None,
        };
        seen.items.insert(ItemKey::Offset(key), ItemValue::Offset(value));
    }
}

impl Observation {
    fn set_group(&mut self, group: &str, listing: &GroupListing) {
        if let Some(listed) = listing.groups.get(group) {
            let key = GroupKey {
                group: group.to_owned(),
            };
            let value = GroupValue {
                group_type: listed.group_type.clone(),
                protocol: listed.protocol_type.clone(),
            };
            self.items.insert(ItemKey::Group(key), ItemValue::Group(value));
        }
    }

    /// Says of which topics the offsets are, where a name meant the same topic before and after they were read.
    pub(super) fn attribute(&mut self, before: &TopicIds, after: &TopicIds) {
        for (key, value) in &mut self.items {
            if let (ItemKey::Offset(key), ItemValue::Offset(value)) = (key, value) {
                let id = after
                    .get(&key.topic)
                    .filter(|id| before.get(&key.topic) == Some(id));
                value.topic_id = id.map(Uuid::to_string);
            }
        }
    }
}

/// Topics: their partitions, and their settings. Settings are read of all topics if `all` says so, else only of those
/// that are new.
pub(super) async fn topics(
    cluster: &Cluster,
    metadata: &ClusterMetadata,
    known: &Items,
    all: bool,
) -> Observation {
    let mut seen = Observation::default();
    let mut found: BTreeMap<String, TopicItemValue> = BTreeMap::new();
    let mut wanted = Vec::new();
    for topic in &metadata.topics {
        let name = topic.name.to_string();
        let key = ItemKey::Topic(TopicItemKey { topic: name.clone() });
        if !topic.error.is_ok() {
            seen.unseen.items.insert(key);
            continue;
        }
        let mut value = topic_value(topic);
        if let Some(ItemValue::Topic(before)) = known.get(&key)
            && before.topic_id == value.topic_id
        {
            value.configs.clone_from(&before.configs);
        }
        if all || value.configs.is_none() {
            wanted.push(ConfigResource::Topic(topic.name.clone()));
        }
        found.insert(name, value);
    }
    let mut denied = None;
    for some in wanted.chunks(TOPICS_PER_REQUEST) {
        let answers = cluster.describe_configs(some).await;
        for (resource, answer) in some.iter().zip(answers) {
            let ConfigResource::Topic(name) = resource else {
                continue;
            };
            match (answer, found.get_mut(&**name)) {
                (Ok(entries), Some(value)) => value.configs = Some(own(entries)),
                (Err(error), _) if error.code().is_some_and(|code| code.is_denial()) => {
                    denied.get_or_insert_with(|| describe(&error));
                }
                _ => {}
            }
        }
    }
    if let Some(reason) = denied.or_else(|| denied_before(known, all)) {
        seen.deny(CONFIGURATIONS, reason);
    }
    let items = found.into_iter().map(|(topic, value)| {
        let key = ItemKey::Topic(TopicItemKey { topic });
        (key, ItemValue::Topic(value))
    });
    seen.items.extend(items);
    seen
}

/// When not all settings were asked for, what was refused at the last look is refused still.
fn denied_before(known: &Items, all: bool) -> Option<String> {
    let key = ItemKey::NotAuditable(PartKey {
        part: CONFIGURATIONS.to_owned(),
    });
    match known.get(&key) {
        Some(ItemValue::NotAuditable(why)) if !all => Some(why.reason.clone()),
        _ => None,
    }
}

fn topic_value(topic: &TopicMetadata) -> TopicItemValue {
    let replicas = topic.partitions.iter().map(|each| each.replicas.clone());
    TopicItemValue {
        topic_id: (!topic.id.is_nil()).then(|| topic.id.to_string()),
        replicas: replicas.collect(),
        internal: topic.is_internal,
        configs: None,
    }
}

fn own(entries: Vec<ConfigEntry>) -> BTreeMap<String, Option<String>> {
    let own = entries.into_iter().filter(|entry| entry.is_own);
    own.map(|entry| (entry.name, entry.value)).collect()
}

/// The rules of the authorizer.
pub(super) async fn acls(cluster: &Cluster) -> Result<Observation, ClientError> {
    let acls = match cluster.describe_acls().await {
        Ok(acls) => acls,
        Err(error) => return lasting(error),
    };
    let item = |acl: teeline_wire::client::Acl| {
        let key = AclKey {
            resource_type: words::resource_type(acl.resource_type),
            resource: acl.resource_name,
            pattern: words::pattern_type(acl.pattern_type),
            principal: acl.principal,
            host: acl.host,
            operation: words::operation(acl.operation),
            permission: words::permission(acl.permission),
        };
        (ItemKey::Acl(key), ItemValue::Acl(AclValue {}))
    };
    Ok(observed(acls.into_iter().map(item)))
}

/// Quotas of clients.
pub(super) async fn quotas(cluster: &Cluster) -> Result<Observation, ClientError> {
    let quotas = match cluster.describe_client_quotas().await {
        Ok(quotas) => quotas,
        Err(error) => return lasting(error),
    };
    let item = |quota: teeline_wire::client::ClientQuota| {
        let key = QuotaKey { entity: quota.entity };
        // JSON has no other numbers, and no quota is one.
        let values = quota.values.into_iter().filter(|(_, value)| value.is_finite());
        let values = values.collect();
        (ItemKey::Quota(key), ItemValue::Quota(QuotaValue { values }))
    };
    Ok(observed(quotas.into_iter().map(item)))
}

/// Users with SCRAM credentials.
pub(super) async fn scram_users(cluster: &Cluster) -> Result<Observation, ClientError> {
    let users = match cluster.describe_scram_users().await {
        Ok(users) => users,
        Err(error) => return lasting(error),
    };
    let item = |user: teeline_wire::client::ScramUser| {
        let key = ScramUserKey { user: user.user };
        let mechanisms = user.mechanisms.into_iter();
        let mechanisms = mechanisms.map(|(mechanism, iterations)| (words::mechanism(mechanism), iterations));
        let value = ScramUserValue {
            mechanisms: mechanisms.collect(),
        };
        (ItemKey::ScramUser(key), ItemValue::ScramUser(value))
    };
    Ok(observed(users.into_iter().map(item)))
}

fn observed(items: impl Iterator<Item = (ItemKey, ItemValue)>) -> Observation {
    Observation {
        items: items.collect(),
        ..Observation::default()
    }
}

/// An error that will not pass by itself is an observation; another is none.
fn lasting(error: ClientError) -> Result<Observation, ClientError> {
    let denied = error.code().is_some_and(|code| code.is_denial());
    match denied || matches!(error, ClientError::UnsupportedVersion { .. }) {
        true => Ok(Observation::denied(describe(&error))),
        false => Err(error),
    }
}

/// The cluster's answer in a form that stays the same as long as the answer does.
pub(super) fn describe(error: &ClientError) -> String {
    match (error.code(), error) {
        (Some(code), _) => code.to_string(),
        (None, ClientError::UnsupportedVersion { what, .. }) => format!("the brokers do not offer {what}"),
        (None, _) => "the brokers did not answer".to_owned(),
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
