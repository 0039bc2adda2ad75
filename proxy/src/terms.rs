//! Under which leader epochs captured partitions are led, as their leaders say.
//!
//! A Metadata answer cannot tell: a broker that is behind names an epoch of the same leader that is over, when the
//! leadership went to another broker and back. So the leaders are asked themselves, each under the epoch that Metadata
//! named: who answers, leads under it at that time. Between two such answers, one from before a batch was sent and one
//! from after it was answered, the leader had no other epoch. The answer also says where the epoch begins, by which a
//! batch that was only repeated is told from a new one.

use std::collections::HashMap;
use std::time::Duration;

use teeline_archive::buffer::{Frame, LeaderTerm, LeaderTerms, TermsTopic};
use teeline_runtime::clock::Clock;
use teeline_wire::client::{
    Cluster as Client, ClusterMetadata, ErrorCode, TopicKey, TopicMetadata, TopicPartition,
};
use uuid::Uuid;

use crate::capture::Capture;
use crate::cluster::Cluster;

/// The questions, and whether they are answered.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// It was said that the leaders may not be asked.
    is_refused: bool,
}

impl Terms {
    /// Asks the leaders of `topics`, whom `answer` named, and appends what they say.
    pub(crate) async fn ask<'a>(
        &mut self,
        cluster: &Cluster,
        client: &Client,
        capture: &Capture,
        answer: &ClusterMetadata,
        topics: impl Iterator<Item = &'a TopicMetadata>,
        clock: &dyn Clock,
    ) {
        let partitions: Vec<TopicPartition> = topics.flat_map(led).collect();
        if partitions.is_empty() {
            return;
        }
        // Before the questions: the answers are younger than everything that was given out until here.
        let asked_after = capture.writer().last_assigned();
        let answers = client.leader_terms(&partitions, ANSWER_MAX).await;
        let mut topics: HashMap<&TopicKey, Vec<LeaderTerm>> = HashMap::new();
        let mut refused = None;
        for (at, answer) in partitions.iter().zip(answers) {
            match answer {
                Ok(term) => topics.entry(&at.topic).or_default().push(LeaderTerm {
                    partition: at.partition,
                    leader_epoch: term.epoch,
                    start_offset: term.start_offset,
                }),
                Err(error) if error.code() == Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                    refused = Some(error);
                }
                // Elections, mostly: the next round asks whoever leads then.
                Err(error) => {
                    tracing::debug!(cluster = cluster.name, %error, "a leader's epoch is not known")
                }
            }
        }
        if let Some(error) = refused.filter(|_| !std::mem::replace(&mut self.is_refused, true)) {
            tracing::info!(cluster = cluster.name, %error,
                "leader epochs of some captured topics may not be asked for: after an election they are read again (hint: \
                 grant DESCRIBE)");
        }
        if topics.is_empty() {
            return;
        }
        let terms = LeaderTerms {
            requested_after: asked_after.lsn,
            at_ms: clock.now_ms(),
            cluster_id: answer.cluster_id.clone().unwrap_or_default(),
            topics: topics
                .into_iter()
                .map(|(topic, terms)| TermsTopic {
                    name: topic.name.to_string(),
                    id: topic.id.unwrap_or(Uuid::nil()),
                    terms,
                })
                .collect(),
        };
        let frames = vec![Frame::LeaderTerms(terms)];
        if let Err(reason) = capture.append_small(asked_after.session, frames).await {
            tracing::debug!(cluster = cluster.name, ?reason, "leader epochs were not written");
        }
    }
}

/// The partitions of a topic whose leader and epoch are known.
fn led(topic: &TopicMetadata) -> impl Iterator<Item = TopicPartition> + '_ {
    let key = TopicKey::with_id(topic.name.clone(), topic.id);
    let partitions = topic.partitions.iter().filter(|_| topic.error.is_ok());
    partitions
        .filter(|partition| partition.leader_id >= 0 && partition.leader_epoch >= 0)
        .map(move |partition| TopicPartition::new(key.clone(), partition.partition))
}

/// How long one broker is waited for: the others' catalogs come behind it.
const ANSWER_MAX: Duration = Duration::from_secs(3);
