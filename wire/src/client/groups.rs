//! Consumer groups and what they have committed: ListGroups, FindCoordinator, OffsetFetch; in `share` the offsets of
//! share groups; in `record` and `journal` the log that coordinators write.
//!
//! A group is known to its coordinator alone, so every broker is asked for its groups, and a group's offsets are
//! asked for where it was listed. Nothing here retries: whoever polls asks again soon, and one broker that is away
//! must not keep the answers of the others waiting.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    DescribeClusterRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::cluster::Lane;
use super::{ClientError, Cluster, Connection, ErrorCode, TopicSelection};
use crate::apis;

mod journal;
mod record;
mod share;

pub use journal::{Followed, GroupChange, GroupJournal, JournalError};
pub use record::{GROUP_TOPIC, GroupRecord, GroupRecordError, LoggedGroup, LoggedKey, LoggedOffset};

/// Groups in one OffsetFetch request: bounds the answer, which names every partition of every group.
const GROUPS_PER_REQUEST: usize = 50;
/// From this version on, OffsetFetch asks for several groups and answers with their errors.
const MANY_GROUPS_FROM: i16 = 8;
/// From this version on, FindCoordinator asks for several keys.
const MANY_KEYS_FROM: i16 = 4;
/// The bit of the operation DESCRIBE in a set of authorized operations.
const DESCRIBE_BIT: u32 = 8;

/// A group as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Name.
    pub group: String,
    /// What its members speak among themselves: `consumer`, `connect`, or nothing for groups that only commit.
    pub protocol_type: String,
    /// `classic`, `consumer`, `share`, `streams`; empty if the broker does not tell (before 3.8).
    pub group_type: String,
    /// `Stable`, `Empty`, …; empty if the broker does not tell (before 2.6).
    pub state: String,
    /// Node id of its coordinator.
    pub coordinator: i32,
}

/// What all brokers listed.
#[derive(Debug, Clone, Default)]
pub struct GroupListing {
    /// Groups, by name.
    pub groups: BTreeMap<String, ListedGroup>,
    /// Brokers that did not answer, or not with all they have (they may be loading), and why.
    pub failures: Vec<(i32, ClientError)>,
}

/// An offset that a group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The next offset the group wants to read.
    pub offset: i64,
    /// Leader epoch of the record before, -1 if the group did not tell.
    pub leader_epoch: i32,
    /// Whatever the group wrote beside it.
    pub metadata: String,
}

/// Everything that a group has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    /// Offsets, in the order of the answer.
    pub offsets: Vec<CommittedOffset>,
    /// Partitions whose offset the broker did not tell, and why.
    pub failures: Vec<(String, i32, ErrorCode)>,
}

impl Cluster {
    /// Asks every broker for its groups. A broker lists only groups that we may DESCRIBE, without saying that there
    /// are others: see [`Cluster::may_describe_cluster`].
    pub async fn list_groups(&self) -> Result<GroupListing, ClientError> {
        let brokers = self.metadata(TopicSelection::None).await?.brokers;
        let asked = brokers.iter().map(|broker| async move {
            let listed = self.list_groups_of(broker.node_id).await;
            (broker.node_id, listed)
        });
        let mut listing = GroupListing::default();
        for (node_id, listed) in join_all(asked).await {
            match listed {
                Ok((groups, code)) => {
                    let subject = || format!("list the groups of broker {node_id}");
                    if let Err(error) = code.check(subject, None) {
                        listing.failures.push((node_id, error));
                    }
                    let named = groups.into_iter().map(|group| (group.group.clone(), group));
                    listing.groups.extend(named);
                }
                Err(error) => listing.failures.push((node_id, error)),
            }
        }
        Ok(listing)
    }

    /// A broker that loads some of its groups lists the others beside its error.
    async fn list_groups_of(&self, node_id: i32) -> Result<(Vec<ListedGroup>, ErrorCode), ClientError> {
        let connection = self.connection(node_id, Lane::Control).await?;
        let timeout = self.config().endpoint.request_timeout;
        let response = connection
            .call(0..=5, &ListGroupsRequest::default(), timeout)
            .await?;
        let groups = response.groups.into_iter().map(|group| ListedGroup {
            group: group.group_id.0.to_string(),
            protocol_type: group.protocol_type.to_string(),
            group_type: group.group_type.to_lowercase(),
            state: group.group_state.to_string(),
            coordinator: node_id,
        });
        Ok((groups.collect(), ErrorCode(response.error_code)))
    }

    /// The coordinators of groups, in their order.
    pub async fn group_coordinators(&self, groups: &[String]) -> Vec<Result<i32, ClientError>> {
        if groups.is_empty() {
            return Vec::new();
        }
        match self.any_connection().await {
            Ok(connection) => find_coordinators(&connection, groups, self).await,
            Err(error) => groups.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// What groups have committed, asked of the coordinators named beside them, in their order. A group that does
    /// not exist has committed nothing.
    ///
    /// Stable offsets are not insisted on: with that, a group that always has a transaction under way would never
    /// get an answer. Without it the broker tells what is committed now, and leaves out what is pending.
    pub async fn committed_offsets(
        &self,
        groups: &[(String, i32)],
    ) -> Vec<Result<GroupOffsets, ClientError>> {
        let mut by_node: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, (_, node_id)) in groups.iter().enumerate() {
            by_node.entry(*node_id).or_default().push(at);
        }
        let asked = by_node.into_iter().map(|(node_id, places)| async move {
            let names: Vec<&str> = places
                .iter()
                .filter_map(|&at| Some(groups.get(at)?.0.as_str()))
                .collect();
            let answers = self.offsets_at(node_id, &names).await;
            places.into_iter().zip(answers).collect::<Vec<_>>()
        });
        let mut answers: HashMap<usize, _> = join_all(asked).await.into_iter().flatten().collect();
        let missing = || ClientError::Unusable {
            address: self.cluster_id().unwrap_or_default(),
            what: apis::name(apis::OFFSET_FETCH),
            reason: "a group that was asked about is not in it".to_owned(),
        };
        (0..groups.len())
            .map(|at| answers.remove(&at).unwrap_or_else(|| Err(missing())))
            .collect()
    }

    /// One answer for each group, in their order.
    async fn offsets_at(&self, node_id: i32, groups: &[&str]) -> Vec<Result<GroupOffsets, ClientError>> {
        let mut answers = Vec::with_capacity(groups.len());
        let mut failed: Option<ClientError> = None;
        for some in groups.chunks(GROUPS_PER_REQUEST) {
            // When a broker does not answer for some groups, waiting for it again and again helps nobody.
            if let Some(error) = &failed {
                answers.extend(some.iter().map(|_| Err(error.clone())));
                continue;
            }
            match self.ask_offsets_at(node_id, some).await {
                Ok(found) => answers.extend(found),
                Err(error) => {
                    answers.extend(some.iter().map(|_| Err(error.clone())));
                    failed = Some(error);
                }
            }
        }
        answers
    }

    async fn ask_offsets_at(
        &self,
        node_id: i32,
        groups: &[&str],
    ) -> Result<Vec<Result<GroupOffsets, ClientError>>, ClientError> {
        let connection = self.connection(node_id, Lane::Control).await?;
        let timeout = self.config().endpoint.request_timeout;
        // Version 10 knows topics by id only, and kafka-protocol cannot ask in it.
        let version = connection.choose(apis::OFFSET_FETCH, &(2..=9))?;
        let mut answers = Vec::with_capacity(groups.len());
        if version < MANY_GROUPS_FROM {
            for group in groups {
                let request = OffsetFetchRequest::default()
                    .with_group_id(group_id(group))
                    .with_topics(None);
                let response = connection.call(version..=version, &request, timeout).await?;
                let checked = check_group(group, response.error_code);
                answers.push(checked.map(|exists| match exists {
                    true => offsets_of_one(response.topics),
                    false => GroupOffsets::default(),
                }));
            }
            return Ok(answers);
        }
        let asked = groups.iter().map(|group| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(group))
                .with_member_id(None)
                .with_member_epoch(-1)
                .with_topics(None)
        });
        let request = OffsetFetchRequest::default().with_groups(asked.collect());
        let response = connection.call(version..=version, &request, timeout).await?;
        let mut found: HashMap<String, OffsetFetchResponseGroup> = response
            .groups
            .into_iter()
            .map(|group| (group.group_id.0.to_string(), group))
            .collect();
        for group in groups {
            let answer = found.remove(*group).ok_or_else(|| ClientError::Unusable {
                address: connection.address().to_string(),
                what: apis::name(apis::OFFSET_FETCH),
                reason: "a group that was asked about is not in it".to_owned(),
            });
            answers.push(answer.and_then(offsets_of_many));
        }
        Ok(answers)
    }

    /// Whether we may DESCRIBE the cluster, and so are shown every group. `None` if the broker does not tell
    /// (before 2.8). Everything is allowed on a cluster without an authorizer.
    pub async fn may_describe_cluster(&self) -> Result<Option<bool>, ClientError> {
        let connection = self.any_connection().await?;
        let ours = 0..=2;
        if connection
            .versions()
            .newest_common(apis::DESCRIBE_CLUSTER, &ours)
            .is_none()
        {
            return Ok(None);
        }
        let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let timeout = self.config().endpoint.request_timeout;
        let response = connection.call(ours, &request, timeout).await?;
        let subject = || "ask what we may do with the cluster".to_owned();
        ErrorCode(response.error_code).check(subject, response.error_message.as_deref())?;
        // The lowest number stands for "not told".
        let operations = response.cluster_authorized_operations;
        Ok((operations != i32::MIN).then_some(operations & (1 << DESCRIBE_BIT) != 0))
    }
}

async fn find_coordinators(
    connection: &Connection,
    groups: &[String],
    cluster: &Cluster,
) -> Vec<Result<i32, ClientError>> {
    let timeout = cluster.config().endpoint.request_timeout;
    let ours = 0..=5;
    let newest = connection.versions().newest_common(apis::FIND_COORDINATOR, &ours);
    if newest.is_some_and(|version| version < MANY_KEYS_FROM) {
        let mut answers = Vec::with_capacity(groups.len());
        for group in groups {
            let request = FindCoordinatorRequest::default().with_key(text(group));
            let answer = connection.call(0..=3, &request, timeout).await;
            answers.push(answer.and_then(|answer| {
                coordinator(
                    group,
                    answer.error_code,
                    answer.node_id.0,
                    answer.error_message.as_deref(),
                )
            }));
        }
        return answers;
    }
    let keys = groups.iter().map(|group| text(group)).collect();
    let request = FindCoordinatorRequest::default().with_coordinator_keys(keys);
    let response = match connection.call(MANY_KEYS_FROM..=5, &request, timeout).await {
        Ok(response) => response,
        Err(error) => return groups.iter().map(|_| Err(error.clone())).collect(),
    };
    let found: HashMap<&str, _> = response
        .coordinators
        .iter()
        .map(|each| (each.key.as_str(), each))
        .collect();
    let answer = |group: &String| match found.get(group.as_str()) {
        Some(each) => coordinator(
            group,
            each.error_code,
            each.node_id.0,
            each.error_message.as_deref(),
        ),
        None => Err(ClientError::Unusable {
            address: connection.address().to_string(),
            what: apis::name(apis::FIND_COORDINATOR),
            reason: "a group that was asked about is not in it".to_owned(),
        }),
    };
    groups.iter().map(answer).collect()
}

fn coordinator(group: &str, code: i16, node_id: i32, message: Option<&str>) -> Result<i32, ClientError> {
    ErrorCode(code).check(|| format!("find the coordinator of group {group}"), message)?;
    Ok(node_id)
}

/// Whether the group exists.
fn check_group(group: &str, code: i16) -> Result<bool, ClientError> {
    let code = ErrorCode(code);
    if code == ErrorCode::GROUP_ID_NOT_FOUND {
        return Ok(false);
    }
    code.check(|| format!("fetch the offsets of group {group}"), None)?;
    Ok(true)
}

fn offsets_of_one(
    topics: Vec<kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseTopic>,
) -> GroupOffsets {
    let mut found = GroupOffsets::default();
    for topic in topics {
        for partition in topic.partitions {
            found.add(CommittedAnswer {
                topic: &topic.name,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                code: partition.error_code,
            });
        }
    }
    found
}

fn offsets_of_many(group: OffsetFetchResponseGroup) -> Result<GroupOffsets, ClientError> {
    let mut found = GroupOffsets::default();
    if !check_group(&group.group_id.0, group.error_code)? {
        return Ok(found);
    }
    for topic in group.topics {
        for partition in topic.partitions {
            found.add(CommittedAnswer {
                topic: &topic.name,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                code: partition.error_code,
            });
        }
    }
    Ok(found)
}

/// The same fields, of either shape of the answer.
struct CommittedAnswer<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<StrBytes>,
    code: i16,
}

impl GroupOffsets {
    fn add(&mut self, answer: CommittedAnswer<'_>) {
        let code = ErrorCode(answer.code);
        if !code.is_ok() {
            self.failures
                .push((answer.topic.to_owned(), answer.partition, code));
        } else if answer.offset >= 0 {
            // A negative offset stands for "nothing committed".
            self.offsets.push(CommittedOffset {
                topic: answer.topic.to_owned(),
                partition: answer.partition,
                offset: answer.offset,
                leader_epoch: answer.leader_epoch,
                metadata: answer.metadata.map(|text| text.to_string()).unwrap_or_default(),
            });
        }
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
