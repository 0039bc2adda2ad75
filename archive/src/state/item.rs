//! What a state consists of: items, each with a key and a value.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A state: items by key.
pub type Items = BTreeMap<ItemKey, ItemValue>;

/// Which item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKey {
    /// A part of the state that could not be read.
    NotAuditable(PartKey),
    /// A group.
    Group(GroupKey),
    /// An offset that a group has committed.
    Offset(OffsetKey),
    /// A topic.
    Topic(TopicItemKey),
    /// A rule of the authorizer.
    Acl(AclKey),
    /// The quotas of an entity.
    Quota(QuotaKey),
    /// A user with SCRAM credentials.
    ScramUser(ScramUserKey),
    /// How a part of the state is come by.
    Source(SourceKey),
}

/// What is said of an item; the variant is that of its key.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ItemValue {
    /// Of [`ItemKey::NotAuditable`].
    NotAuditable(PartValue),
    /// Of [`ItemKey::Group`].
    Group(GroupValue),
    /// Of [`ItemKey::Offset`].
    Offset(OffsetValue),
    /// Of [`ItemKey::Topic`].
    Topic(TopicItemValue),
    /// Of [`ItemKey::Acl`].
    Acl(AclValue),
    /// Of [`ItemKey::Quota`].
    Quota(QuotaValue),
    /// Of [`ItemKey::ScramUser`].
    ScramUser(ScramUserValue),
    /// Of [`ItemKey::Source`].
    Source(SourceValue),
}

/// A part of a state, in words: empty for all of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartKey {
    /// The part.
    pub part: String,
}

/// Why a part cannot be read. What was known of it before stays in the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartValue {
    /// The cluster's answer.
    pub reason: String,
}

/// A part of a state, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceKey {
    /// The part.
    pub part: String,
}

/// How a part is come by from this line on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceValue {
    /// `log`: every change is there with its own time. `poll`: what was there whenever somebody looked.
    pub way: String,
    /// Why not in the better way; empty if it is the better one, or was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// A group, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey {
    /// Its name.
    pub group: String,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupValue {
    /// `classic`, `consumer`, `share`, `streams`; empty if the broker did not tell.
    #[serde(rename = "type")]
    pub group_type: String,
    /// What its members speak among themselves: `consumer`, `connect`, or nothing.
    pub protocol: String,
}

/// A partition that a group has committed an offset of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OffsetKey {
    /// The group.
    pub group: String,
    /// The topic, by name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetValue {
    /// The next offset that the group wants to read.
    pub offset: i64,
    /// Leader epoch of the record before; -1 if not told.
    #[serde(default = "none")]
    pub leader_epoch: i32,
    /// Whatever the group wrote beside it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The topic's id, if it was the same before and after the offset was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

/// A topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicItemKey {
    /// Its name.
    pub topic: String,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicItemValue {
    /// Its id; none if the cluster has no ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Node ids of the replicas of each partition, by partition.
    pub replicas: Vec<Vec<i32>>,
    /// Whether it is one of Kafka's own.
    #[serde(default)]
    pub internal: bool,
    /// Settings of its own, not those it inherits; none if they could not be read.
    pub configs: Option<BTreeMap<String, Option<String>>>,
}

/// A rule of the authorizer: all of it is its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AclKey {
    /// Kind of resource, as `TOPIC`.
    pub resource_type: String,
    /// Name, or beginning of the name, of the resource.
    pub resource: String,
    /// `LITERAL` or `PREFIXED`.
    pub pattern: String,
    /// Whom it is about, as `User:name`.
    pub principal: String,
    /// From where, `*` for anywhere.
    pub host: String,
    /// The operation, as `READ`.
    pub operation: String,
    /// `ALLOW` or `DENY`.
    pub permission: String,
}

/// Nothing beside the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclValue {}

/// Whom quotas are about: names by type (`user`, `client-id`, `ip`); no name stands for the type's default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaKey {
    /// The entity.
    pub entity: BTreeMap<String, Option<String>>,
}

/// Quotas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuotaValue {
    /// Limits by name.
    pub values: BTreeMap<String, f64>,
}

/// A user with SCRAM credentials, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScramUserKey {
    /// The name.
    pub user: String,
}

/// Which credentials there are; never the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramUserValue {
    /// Iterations by mechanism, as `SCRAM-SHA-512`.
    pub mechanisms: BTreeMap<String, i32>,
}

fn none() -> i32 {
    -1
}

impl ItemKey {
    /// The word for it in lines.
    pub fn word(&self) -> &'static str {
        match self {
            ItemKey::NotAuditable(_) => "not_auditable",
            ItemKey::Group(_) => "group",
            ItemKey::Offset(_) => "offset",
            ItemKey::Topic(_) => "topic",
            ItemKey::Acl(_) => "acl",
            ItemKey::Quota(_) => "quota",
            ItemKey::ScramUser(_) => "scram_user",
            ItemKey::Source(_) => "source",
        }
    }
}
