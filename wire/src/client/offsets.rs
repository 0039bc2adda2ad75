//! Where logs begin and end: ListOffsets. Leader epochs are asked for in [`super::epochs`].

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::cluster::Lane;
use super::{ClientError, Cluster, Connection, ErrorCode, Leader, TopicPartition};
use crate::apis;

/// A consumer's replica id.
pub(super) const NO_REPLICA: BrokerId = BrokerId(-1);

/// Which offset of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OffsetAt {
    /// The log's start.
    Earliest,
    /// The high watermark: the end of what is replicated.
    Latest,
    /// The last stable offset: everything before it is decided.
    LastStable,
    /// The first record at or after this time, by the log's own order.
    Timestamp(i64),
}

impl OffsetAt {
    fn timestamp(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest | Self::LastStable => -1,
            Self::Timestamp(timestamp) => timestamp,
        }
    }

    fn isolation(self) -> i8 {
        i8::from(self == Self::LastStable)
    }
}

/// A question to [`Cluster::list_offsets`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetQuery {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Which offset.
    pub at: OffsetAt,
}

/// An offset that a leader named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; -1 if there is no record at or after the time asked for.
    pub offset: i64,
    /// The record's timestamp, for [`OffsetAt::Timestamp`]; else -1.
    pub timestamp: i64,
    /// Leader epoch of the record or of the leader, -1 if unknown.
    pub leader_epoch: i32,
}

impl Cluster {
    /// One offset of one partition.
    pub async fn list_offset(
        &self,
        partition: &TopicPartition,
        at: OffsetAt,
    ) -> Result<ListedOffset, ClientError> {
        let query = OffsetQuery {
            partition: partition.clone(),
            at,
        };
        self.list_offsets(&[query])
            .await
            .pop()
            .expect("one question has one answer")
    }

    /// Offsets of many partitions, one request per leader (and isolation); answers in the order of the questions.
    pub async fn list_offsets(&self, queries: &[OffsetQuery]) -> Vec<Result<ListedOffset, ClientError>> {
        let ask = |connection: Connection, group: Vec<(usize, Leader)>| async move {
            self.ask_offsets(&connection, queries, &group).await
        };
        self.on_leaders(Lane::Control, queries, |query| &query.partition, |_, _| true, ask)
            .await
    }

    async fn ask_offsets(
        &self,
        connection: &Connection,
        queries: &[OffsetQuery],
        group: &[(usize, Leader)],
    ) -> Result<Vec<Result<ListedOffset, ClientError>>, ClientError> {
        let asked: Vec<(&OffsetQuery, Leader)> = group
            .iter()
            .filter_map(|&(at, leader)| Some((queries.get(at)?, leader)))
            .collect();
        let mut found = HashMap::new();
        // A request names a partition once and has one isolation, so different questions about the same
        // partition take several.
        for request in rounds(&asked) {
            let isolation = request.isolation_level;
            let timeout = self.config().endpoint.request_timeout;
            let response = connection.call(1..=10, &request, timeout).await?;
            // The answer to a time is told from that to "latest" by what was asked in this round.
            let mut round = HashMap::new();
            for topic in response.topics {
                for partition in topic.partitions {
                    round.insert((topic.name.to_string(), partition.partition_index), partition);
                }
            }
            for topic in &request.topics {
                for partition in &topic.partitions {
                    let key = (topic.name.to_string(), partition.partition_index);
                    if let Some(answer) = round.remove(&key) {
                        found.insert((key, partition.timestamp, isolation), answer);
                    }
                }
            }
        }
        let answer = |(query, _): &(&OffsetQuery, Leader)| {
            let name = query.partition.topic.name.to_string();
            let key = (
                (name, query.partition.partition),
                query.at.timestamp(),
                query.at.isolation(),
            );
            let answer = found
                .get(&key)
                .ok_or_else(|| missing(connection, apis::LIST_OFFSETS))?;
            ErrorCode(answer.error_code).check(|| format!("list offsets of {}", query.partition), None)?;
            Ok(ListedOffset {
                offset: answer.offset,
                timestamp: answer.timestamp,
                leader_epoch: answer.leader_epoch,
            })
        };
        Ok(asked.iter().map(answer).collect())
    }
}

/// Requests that together ask every question, no request about the same partition twice.
fn rounds(asked: &[(&OffsetQuery, Leader)]) -> Vec<ListOffsetsRequest> {
    type Round<'a> = BTreeMap<&'a str, BTreeMap<i32, ListOffsetsPartition>>;
    let mut rounds: Vec<(i8, Round<'_>)> = Vec::new();
    for (query, leader) in asked {
        let name: &str = &query.partition.topic.name;
        let number = query.partition.partition;
        let isolation = query.at.isolation();
        let question = ListOffsetsPartition::default()
            .with_partition_index(number)
            .with_current_leader_epoch(leader.epoch)
            .with_timestamp(query.at.timestamp());
        let fits = |(round_isolation, topics): &&mut (i8, Round<'_>)| {
            let same = topics.get(name).and_then(|partitions| partitions.get(&number));
            *round_isolation == isolation && same.is_none_or(|same| *same == question)
        };
        match rounds.iter_mut().find(fits) {
            Some((_, topics)) => {
                topics.entry(name).or_default().insert(number, question);
            }
            None => rounds.push((
                isolation,
                BTreeMap::from([(name, BTreeMap::from([(number, question)]))]),
            )),
        }
    }
    let topics = |round: Round<'_>| {
        let convert = |(name, partitions): (&str, BTreeMap<i32, ListOffsetsPartition>)| {
            ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                .with_partitions(partitions.into_values().collect())
        };
        round.into_iter().map(convert).collect()
    };
    let request = |(isolation, round)| {
        ListOffsetsRequest::default()
            .with_replica_id(NO_REPLICA)
            .with_isolation_level(isolation)
            .with_topics(topics(round))
    };
    rounds.into_iter().map(request).collect()
}

pub(super) fn topic_name(partition: &TopicPartition) -> TopicName {
    TopicName(StrBytes::from_string(partition.topic.name.to_string()))
}

/// A broker left a question without an answer.
pub(super) fn missing(connection: &Connection, api_key: i16) -> ClientError {
    ClientError::Unusable {
        address: connection.address().to_string(),
        what: apis::name(api_key),
        reason: "a partition that was asked about is not in it".to_owned(),
    }
}
