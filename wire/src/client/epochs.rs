//! Where leader epochs begin and end: OffsetForLeaderEpoch.
//!
//! Each question names the epoch under which its leader is known. A broker answers only if it leads the partition under
//! that very epoch, so an answer also proves that it does, which Metadata cannot: brokers are behind at times.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kafka_protocol::messages::OffsetForLeaderEpochRequest;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::cluster::Lane;
use super::offsets::{NO_REPLICA, missing, topic_name};
use super::{ClientError, Cluster, Connection, ErrorCode, Leader, TopicPartition};
use crate::apis;

/// A question to [`Cluster::offsets_for_leader_epochs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochQuery {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Where does this leader epoch end?
    pub leader_epoch: i32,
}

/// Where an epoch ends in the current leader's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch asked for, or the largest before it that the leader has records of; -1 if none.
    pub leader_epoch: i32,
    /// The offset after its last record; -1 if unknown.
    pub end_offset: i64,
    /// The epoch under which the broker that answered leads the partition; -1 if the cluster does not tell epochs.
    pub current_epoch: i32,
}

/// Under which epoch a partition is led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Node id of the leader.
    pub node_id: i32,
    /// Leader epoch.
    pub epoch: i32,
    /// Every batch at or behind this offset is of this epoch; -1 when the leader cannot tell.
    pub start_offset: i64,
}

impl Cluster {
    /// Where the log of a leader epoch ends, for one partition.
    pub async fn offset_for_leader_epoch(
        &self,
        partition: &TopicPartition,
        leader_epoch: i32,
    ) -> Result<EpochEnd, ClientError> {
        let query = EpochQuery {
            partition: partition.clone(),
            leader_epoch,
        };
        self.offsets_for_leader_epochs(&[query])
            .await
            .pop()
            .expect("one question has one answer")
    }

    /// Where leader epochs end, for many partitions.
    pub async fn offsets_for_leader_epochs(
        &self,
        queries: &[EpochQuery],
    ) -> Vec<Result<EpochEnd, ClientError>> {
        let timeout = self.config().endpoint.request_timeout;
        let ask = |connection: Connection, group: Vec<(usize, Leader)>| async move {
            let asked: Vec<Question<'_>> = group
                .iter()
                .filter_map(|&(at, leader)| Some((queries.get(at)?, leader)))
                .map(|(query, leader)| (&query.partition, leader.epoch, query.leader_epoch))
                .collect();
            ask_epochs(&connection, &asked, timeout).await
        };
        self.on_leaders(Lane::Control, queries, |query| &query.partition, |_, _| true, ask)
            .await
    }

    /// Under which epoch partitions are led now, from the leaders themselves: whom Metadata named last is asked, once, and
    /// no broker is waited for longer than `timeout`. A partition whose leader is another by now has no answer.
    pub async fn leader_terms(
        &self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> Vec<Result<Term, ClientError>> {
        let ask = |connection: Connection, group: Vec<(usize, Leader)>| async move {
            let asked: Vec<Question<'_>> = group
                .iter()
                .filter_map(|&(at, leader)| Some((partitions.get(at)?, leader)))
                // Where the epoch before ends, this one begins.
                .map(|(partition, leader)| (partition, leader.epoch, leader.epoch.saturating_sub(1).max(0)))
                .collect();
            let answers = ask_epochs(&connection, &asked, timeout).await?;
            let term = |(answer, (_, leader)): (Result<EpochEnd, ClientError>, &(usize, Leader))| {
                answer.map(|end| Term {
                    node_id: leader.node_id,
                    epoch: leader.epoch,
                    start_offset: match leader.epoch {
                        0 => 0,
                        _ => end.end_offset,
                    },
                })
            };
            Ok(answers.into_iter().zip(&group).map(term).collect())
        };
        self.on_leaders(
            Lane::Control,
            partitions,
            |partition| partition,
            |_, _| false,
            ask,
        )
        .await
    }
}

/// A partition, its current epoch, and the epoch whose end is asked for.
type Question<'a> = (&'a TopicPartition, i32, i32);

/// Answers in the order of the questions.
async fn ask_epochs(
    connection: &Connection,
    asked: &[Question<'_>],
    timeout: Duration,
) -> Result<Vec<Result<EpochEnd, ClientError>>, ClientError> {
    let mut answers: HashMap<(String, i32, i32), Result<EpochEnd, ClientError>> = HashMap::new();
    for round in rounds(asked) {
        let request = request(&round);
        let response = connection.call(2..=4, &request, timeout).await?;
        for topic in response.topics {
            for answer in topic.partitions {
                let key = (topic.topic.to_string(), answer.partition);
                let Some(&(partition, current_epoch, leader_epoch)) = round.get(&(key.0.as_str(), key.1))
                else {
                    continue;
                };
                let subject = || format!("find the end of epoch {leader_epoch} of {partition}");
                let end = ErrorCode(answer.error_code)
                    .check(subject, None)
                    .map(|()| EpochEnd {
                        leader_epoch: answer.leader_epoch,
                        end_offset: answer.end_offset,
                        current_epoch,
                    });
                answers.insert((key.0, key.1, leader_epoch), end);
            }
        }
    }
    let of = |&(partition, _, leader_epoch): &Question<'_>| {
        let key = (
            partition.topic.name.to_string(),
            partition.partition,
            leader_epoch,
        );
        answers
            .get(&key)
            .cloned()
            .unwrap_or_else(|| Err(missing(connection, apis::OFFSET_FOR_LEADER_EPOCH)))
    };
    Ok(asked.iter().map(of).collect())
}

type Round<'a> = BTreeMap<(&'a str, i32), Question<'a>>;

/// Requests that together ask every question: one names a partition once, and not too many of them.
fn rounds<'a>(asked: &[Question<'a>]) -> Vec<Round<'a>> {
    let mut asked_of: HashMap<(&str, i32), usize> = HashMap::new();
    let mut rounds: Vec<Vec<Round<'a>>> = Vec::new();
    for &question in asked {
        let (partition, ..) = question;
        let key = (&*partition.topic.name, partition.partition);
        let nth = asked_of.entry(key).or_default();
        if rounds.len() <= *nth {
            rounds.push(Vec::new());
        }
        if let Some(parts) = rounds.get_mut(*nth) {
            match parts.last_mut().filter(|part| part.len() < PARTITIONS_MAX) {
                Some(part) => {
                    part.insert(key, question);
                }
                None => parts.push(BTreeMap::from([(key, question)])),
            }
        }
        *nth += 1;
    }
    rounds.into_iter().flatten().collect()
}

fn request(round: &Round<'_>) -> OffsetForLeaderEpochRequest {
    let mut topics: Vec<OffsetForLeaderTopic> = Vec::new();
    // In order of topics, so each comes once.
    for &(partition, current_epoch, leader_epoch) in round.values() {
        let question = OffsetForLeaderPartition::default()
            .with_partition(partition.partition)
            .with_current_leader_epoch(current_epoch)
            .with_leader_epoch(leader_epoch);
        let name = topic_name(partition);
        match topics.last_mut().filter(|topic| topic.topic == name) {
            Some(topic) => topic.partitions.push(question),
            None => topics.push(
                OffsetForLeaderTopic::default()
                    .with_topic(name)
                    .with_partitions(vec![question]),
            ),
        }
    }
    OffsetForLeaderEpochRequest::default()
        .with_replica_id(NO_REPLICA)
        .with_topics(topics)
}

/// Partitions in one request.
const PARTITIONS_MAX: usize = 5_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_request_names_a_partition_once_and_all_questions_are_asked() {
        let (a, b) = (TopicPartition::new("a", 0), TopicPartition::new("b", 1));
        let asked = [(&a, 7, 3), (&b, 2, 1), (&a, 7, 5), (&a, 7, 6)];
        let rounds = rounds(&asked);
        let requests: Vec<_> = rounds.iter().map(request).collect();
        let sizes: Vec<usize> = requests.iter().map(|request| request.topics.len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
        let asked = &requests[0].topics[0].partitions[0];
        assert_eq!((asked.current_leader_epoch, asked.leader_epoch), (7, 3));
    }

    #[test]
    fn many_partitions_take_several_requests() {
        let partitions: Vec<_> = (0..12_000).map(|at| TopicPartition::new("a", at)).collect();
        let asked: Vec<Question<'_>> = partitions.iter().map(|at| (at, 7, 6)).collect();
        let sizes: Vec<usize> = rounds(&asked).iter().map(BTreeMap::len).collect();
        assert_eq!(sizes, [5_000, 5_000, 2_000]);
    }
}
