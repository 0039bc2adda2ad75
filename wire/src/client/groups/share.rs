//! Share groups (KIP-932): where their share partitions begin.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use kafka_protocol::messages::DescribeShareGroupOffsetsRequest;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;

use super::{CommittedAnswer, GROUPS_PER_REQUEST, GroupOffsets, check_group, group_id};
use crate::apis;
use crate::client::cluster::Lane;
use crate::client::{ClientError, Cluster};

impl Cluster {
    /// The start offsets of share groups, asked of the coordinators named beside them, in their order: members have
    /// finished with everything before them. Partitions that nobody has read yet have none.
    pub async fn share_group_offsets(
        &self,
        groups: &[(String, i32)],
    ) -> Vec<Result<GroupOffsets, ClientError>> {
        let mut by_node: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, (_, node_id)) in groups.iter().enumerate() {
            by_node.entry(*node_id).or_default().push(at);
        }
        let asked = by_node.into_iter().map(|(node_id, places)| async move {
            let mut answers = Vec::with_capacity(places.len());
            for some in places.chunks(GROUPS_PER_REQUEST) {
                let names: Vec<&str> = some
                    .iter()
                    .filter_map(|&at| Some(groups.get(at)?.0.as_str()))
                    .collect();
                let found = self.ask_share_offsets(node_id, &names).await;
                answers.extend(some.iter().copied().zip(found));
            }
            answers
        });
        let mut answers: HashMap<usize, _> = join_all(asked).await.into_iter().flatten().collect();
        (0..groups.len())
            .map(|at| answers.remove(&at).unwrap_or_else(|| Ok(GroupOffsets::default())))
            .collect()
    }

    /// One answer for each group, in their order.
    async fn ask_share_offsets(
        &self,
        node_id: i32,
        groups: &[&str],
    ) -> Vec<Result<GroupOffsets, ClientError>> {
        let asked = groups.iter().map(|group| {
            DescribeShareGroupOffsetsRequestGroup::default()
                .with_group_id(group_id(group))
                .with_topics(None)
        });
        let request = DescribeShareGroupOffsetsRequest::default().with_groups(asked.collect());
        let timeout = self.config().endpoint.request_timeout;
        let answered = match self.connection(node_id, Lane::Control).await {
            Ok(connection) => {
                let response = connection.call(0..=0, &request, timeout).await;
                response.map(|response| (connection, response))
            }
            Err(error) => Err(error),
        };
        let (connection, response) = match answered {
            Ok(answered) => answered,
            Err(error) => return groups.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut found: HashMap<String, DescribeShareGroupOffsetsResponseGroup> = response
            .groups
            .into_iter()
            .map(|group| (group.group_id.0.to_string(), group))
            .collect();
        let answer = |group: &&str| {
            let found = found.remove(*group).ok_or_else(|| ClientError::Unusable {
                address: connection.address().to_string(),
                what: apis::name(apis::DESCRIBE_SHARE_GROUP_OFFSETS),
                reason: "a group that was asked about is not in it".to_owned(),
            })?;
            offsets_of(found)
        };
        groups.iter().map(answer).collect()
    }
}

fn offsets_of(group: DescribeShareGroupOffsetsResponseGroup) -> Result<GroupOffsets, ClientError> {
    let mut found = GroupOffsets::default();
    if !check_group(&group.group_id.0, group.error_code)? {
        return Ok(found);
    }
    for topic in group.topics {
        for partition in topic.partitions {
            found.add(CommittedAnswer {
                topic: &topic.topic_name,
                partition: partition.partition_index,
                offset: partition.start_offset,
                leader_epoch: partition.leader_epoch,
                metadata: None,
                code: partition.error_code,
            });
        }
    }
    Ok(found)
}
