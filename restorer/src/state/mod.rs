//! `state`: what the source's cluster was beside its records, at a moment: groups and their offsets, topics and their
//! settings, ACLs, quotas, SCRAM users.

mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use teeline_archive::ledger::{StateKind, StateObject};
use teeline_archive::state::{
    AclKey, ItemKey, ItemValue, Items, OffsetValue, ScramUserValue, SourceValue, StateFold, TopicItemValue,
    objects_at,
};
use teeline_runtime::Store;
use teeline_runtime::exit::error_chain;

use crate::error::{Damage, RestorerError};
use crate::ledger::Backup;

pub use render::render;

/// The state of a cluster at a moment.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterState {
    /// The backup.
    pub backup_id: String,
    /// The moment, epoch milliseconds.
    pub at_ms: i64,
    /// The kinds asked for.
    pub kinds: Vec<KindState>,
    /// What of the ledger or of the state objects could not be read.
    pub damage: Vec<Damage>,
}

/// One kind of state.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KindState {
    /// Which.
    pub kind: String,
    /// Whether anything was recorded by then.
    pub recorded: bool,
    /// When the record begins, epoch milliseconds; none if there is none.
    pub first_recorded_ms: Option<i64>,
    /// When the state was last seen to be so, at or before the moment; epoch milliseconds.
    pub seen_ms: Option<i64>,
    /// What could not be read, and why.
    pub not_auditable: Vec<NotAuditable>,
    /// Lines that a newer version wrote, which are not understood.
    pub unknown_lines: u64,
    /// How committed offsets were come by at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets_from: Option<SourceValue>,
    /// Groups, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupState>>,
    /// Topics, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topics: Option<Vec<TopicState>>,
    /// Rules of the authorizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acls: Option<Vec<AclKey>>,
    /// Quotas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Vec<QuotaState>>,
    /// Users with SCRAM credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scram_users: Option<Vec<ScramUserState>>,
}

/// A part that could not be read. What is shown of it is what was known before.
#[derive(Debug, Clone, Serialize)]
pub struct NotAuditable {
    /// The part; empty for all of the kind.
    pub part: String,
    /// The cluster's answer.
    pub reason: String,
}

/// A group.
#[derive(Debug, Clone, Serialize)]
pub struct GroupState {
    /// Name.
    pub group: String,
    /// `classic`, `consumer`, `share`, `streams`; empty if not known.
    #[serde(rename = "type")]
    pub group_type: String,
    /// What its members speak among themselves.
    pub protocol: String,
    /// What it had committed.
    pub offsets: Vec<OffsetState>,
}

/// A committed offset.
#[derive(Debug, Clone, Serialize)]
pub struct OffsetState {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The rest.
    #[serde(flatten)]
    pub value: OffsetValue,
}

/// A topic.
#[derive(Debug, Clone, Serialize)]
pub struct TopicState {
    /// Name.
    pub topic: String,
    /// How many partitions it had.
    pub partitions: usize,
    /// The rest.
    #[serde(flatten)]
    pub value: TopicItemValue,
}

/// Quotas of one entity.
#[derive(Debug, Clone, Serialize)]
pub struct QuotaState {
    /// Names by type; no name stands for the type's default.
    pub entity: BTreeMap<String, Option<String>>,
    /// Limits by name.
    pub values: BTreeMap<String, f64>,
}

/// A user with SCRAM credentials.
#[derive(Debug, Clone, Serialize)]
pub struct ScramUserState {
    /// Name.
    pub user: String,
    /// Which credentials.
    #[serde(flatten)]
    pub value: ScramUserValue,
}

/// Objects fetched at the same time. They are small but for the first.
const OBJECTS_AT_ONCE: usize = 8;

/// Reads the state at a moment.
pub async fn state(
    store: &Store,
    backup: &Backup,
    kinds: &[StateKind],
    at_ms: i64,
) -> Result<ClusterState, RestorerError> {
    let mut found = ClusterState {
        backup_id: backup.id.clone(),
        at_ms,
        kinds: Vec::new(),
        damage: backup.damage.clone(),
    };
    for kind in kinds {
        let fold = fold(store, backup, *kind, at_ms, &mut found.damage).await?;
        found.kinds.push(view(backup, *kind, fold));
    }
    Ok(found)
}

impl ClusterState {
    /// Whether all that was asked for is there.
    pub fn is_whole(&self) -> bool {
        let is_whole =
            |kind: &KindState| kind.recorded && kind.not_auditable.is_empty() && kind.unknown_lines == 0;
        self.damage.is_empty() && self.kinds.iter().all(is_whole)
    }
}

async fn fold(
    store: &Store,
    backup: &Backup,
    kind: StateKind,
    at_ms: i64,
    damage: &mut Vec<Damage>,
) -> Result<StateFold, RestorerError> {
    let mut fold = StateFold::until(at_ms);
    let objects: Vec<StateObject> = objects_at(&backup.state, kind, at_ms)
        .into_iter()
        .cloned()
        .collect();
    let fetched = stream::iter(objects.into_iter().map(|object| async move {
        let bytes = store.get(&object.key).await;
        (object, bytes)
    }));
    let mut fetched = fetched.buffered(OBJECTS_AT_ONCE);
    while let Some((object, bytes)) = fetched.next().await {
        let failure = match bytes {
            Ok(bytes) => fold.add(&object, &bytes).err().map(|error| error_chain(&error)),
            Err(error) if error.is_not_found() => Some("the object is missing".to_owned()),
            Err(error) => return Err(error.into()),
        };
        if let Some(reason) = failure {
            // What comes behind cannot be relied on: the state is the one before.
            damage.push(Damage {
                key: object.key,
                reason: format!("{reason}; later changes of {kind} are not read"),
            });
            break;
        }
    }
    Ok(fold)
}

fn view(backup: &Backup, kind: StateKind, fold: StateFold) -> KindState {
    let of_kind = |object: &&StateObject| object.kind == kind;
    let mut view = KindState {
        kind: kind.to_string(),
        recorded: fold.seen_ms().is_some(),
        first_recorded_ms: backup
            .state
            .state_objects()
            .iter()
            .find(of_kind)
            .map(|object| object.first_at_ms),
        seen_ms: fold.seen_ms(),
        unknown_lines: fold.unknown_lines(),
        ..KindState::default()
    };
    match kind {
        StateKind::Groups => view.groups = Some(Vec::new()),
        StateKind::TopicConfigs => view.topics = Some(Vec::new()),
        StateKind::Acls => view.acls = Some(Vec::new()),
        StateKind::Quotas => view.quotas = Some(Vec::new()),
        StateKind::ScramUsers => view.scram_users = Some(Vec::new()),
        StateKind::Unknown(_) => {}
    }
    view.fill(fold.into_items());
    view
}

impl KindState {
    /// Items come in the order of their keys: groups before all offsets.
    fn fill(&mut self, items: Items) {
        for item in items {
            match item {
                (ItemKey::NotAuditable(key), ItemValue::NotAuditable(value)) => {
                    self.not_auditable.push(NotAuditable {
                        part: key.part,
                        reason: value.reason,
                    });
                }
                (ItemKey::Group(key), ItemValue::Group(value)) => {
                    self.groups.get_or_insert_default().push(GroupState {
                        group: key.group,
                        group_type: value.group_type,
                        protocol: value.protocol,
                        offsets: Vec::new(),
                    });
                }
                (ItemKey::Offset(key), ItemValue::Offset(value)) => {
                    let (topic, partition) = (key.topic, key.partition);
                    self.offsets_of(key.group).push(OffsetState {
                        topic,
                        partition,
                        value,
                    });
                }
                (ItemKey::Topic(key), ItemValue::Topic(value)) => {
                    self.topics.get_or_insert_default().push(TopicState {
                        topic: key.topic,
                        partitions: value.replicas.len(),
                        value,
                    });
                }
                (ItemKey::Acl(key), _) => self.acls.get_or_insert_default().push(key),
                (ItemKey::Quota(key), ItemValue::Quota(value)) => {
                    self.quotas.get_or_insert_default().push(QuotaState {
                        entity: key.entity,
                        values: value.values,
                    });
                }
                (ItemKey::ScramUser(key), ItemValue::ScramUser(value)) => {
                    let users = self.scram_users.get_or_insert_default();
                    users.push(ScramUserState {
                        user: key.user,
                        value,
                    });
                }
                (ItemKey::Source(_), ItemValue::Source(value)) => self.offsets_from = Some(value),
                // Lines with a value of another kind than their key are not read.
                _ => {}
            }
        }
    }

    /// The offsets of a group, which is known at least by them.
    fn offsets_of(&mut self, group: String) -> &mut Vec<OffsetState> {
        let groups = self.groups.get_or_insert_default();
        let place = match groups.binary_search_by(|known| known.group.cmp(&group)) {
            Ok(place) => place,
            Err(place) => {
                let known = GroupState {
                    group,
                    group_type: String::new(),
                    protocol: String::new(),
                    offsets: Vec::new(),
                };
                groups.insert(place, known);
                place
            }
        };
        &mut groups
            .get_mut(place)
            .expect("found there or just inserted there")
            .offsets
    }
}
