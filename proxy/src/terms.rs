//! Under which leader epochs captured partitions are led, as their leaders say.
//!
//! A Metadata answer cannot tell: a broker that is behind names an epoch of the same leader that is over, when the
//! leadership went to another broker and back. So the leaders are asked themselves, each under the epoch that Metadata
//! named: who answers, leads under it at that time. Between two such answers, one from before a batch was sent and one
//! from after it was answered, the leader had no other epoch. The answer also says where the epoch begins, by which a
//! batch that was only repeated is told from a new one.
//!
//! Each leader is asked by a task of its own: one that hangs delays neither the poller nor what the others say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use teeline_archive::buffer::{Frame, LeaderTerm, LeaderTerms, TermsTopic};
use teeline_archive::ids::BufferPosition;
use teeline_runtime::clock::Clock;
use teeline_wire::client::{
    ClientError, Cluster as Client, ClusterMetadata, ErrorCode, Term, TopicKey, TopicMetadata, TopicPartition,
};
use teeline_wire::produce::TopicRef;
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

use crate::capture::Capture;
use crate::cluster::Cluster;

/// The questions that are under way.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    tasks: JoinSet<()>,
    /// By node id, whom one of them waits for.
    waits_for: HashMap<i32, AbortHandle>,
    /// It was said that the leaders may not be asked.
    is_refused: Arc<AtomicBool>,
}

impl Terms {
    /// Begins to ask the leaders of `topics`, whom `answer` named; what they say is appended when it comes. A leader that
    /// still owes an answer is asked in the next round.
    pub(crate) fn ask<'a>(
        &mut self,
        cluster: &Arc<Cluster>,
        client: &Client,
        capture: &Capture,
        answer: &ClusterMetadata,
        topics: impl Iterator<Item = &'a TopicMetadata>,
        clock: &Arc<dyn Clock>,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.waits_for.retain(|_, task| !task.is_finished());
        let mut leaders: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        for (leader, partition) in topics.flat_map(led) {
            leaders.entry(leader).or_default().push(partition);
        }
        // Before the questions: the answers are younger than everything that was given out until here.
        let asked_after = capture.writer().last_assigned();
        for (leader, partitions) in leaders {
            if self.waits_for.contains_key(&leader) {
                ask_again(capture, &partitions);
                continue;
            }
            let question = Question {
                cluster: Arc::clone(cluster),
                client: client.clone(),
                cluster_id: answer.cluster_id.clone().unwrap_or_default(),
                asked_after,
                partitions,
                clock: Arc::clone(clock),
                is_refused: Arc::clone(&self.is_refused),
            };
            let task = self.tasks.spawn(question.settle());
            self.waits_for.insert(leader, task);
        }
    }

    /// Waits for the answers that are owed.
    pub(crate) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What one leader is asked.
struct Question {
    cluster: Arc<Cluster>,
    client: Client,
    cluster_id: String,
    asked_after: BufferPosition,
    partitions: Vec<TopicPartition>,
    clock: Arc<dyn Clock>,
    is_refused: Arc<AtomicBool>,
}

impl Question {
    async fn settle(self) {
        let Some(capture) = &self.cluster.capture else {
            return;
        };
        // Connecting takes its time too.
        let asked = self.client.leader_terms(&self.partitions, ANSWER_MAX);
        let Ok(answers) = tokio::time::timeout(ANSWER_MAX, asked).await else {
            tracing::debug!(
                cluster = self.cluster.name,
                "a leader does not say its epochs in time"
            );
            return ask_again(capture, &self.partitions);
        };
        let topics = self.sort_out(capture, answers);
        if topics.is_empty() {
            return;
        }
        let terms = LeaderTerms {
            requested_after: self.asked_after.lsn,
            at_ms: self.clock.now_ms(),
            cluster_id: self.cluster_id.clone(),
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
        if let Err(reason) = capture.append_small(self.asked_after.session, frames).await {
            tracing::debug!(
                cluster = self.cluster.name,
                ?reason,
                "leader epochs were not written"
            );
        }
    }

    /// What was told, by topic. What may be told later is asked again.
    fn sort_out(
        &self,
        capture: &Capture,
        answers: Vec<Result<Term, ClientError>>,
    ) -> HashMap<&TopicKey, Vec<LeaderTerm>> {
        let mut topics: HashMap<&TopicKey, Vec<LeaderTerm>> = HashMap::new();
        for (at, answer) in self.partitions.iter().zip(answers) {
            match answer {
                Ok(term) => topics.entry(&at.topic).or_default().push(LeaderTerm {
                    partition: at.partition,
                    leader_epoch: term.epoch,
                    start_offset: term.start_offset,
                }),
                Err(error) if error.code() == Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED) => {
                    if !self.is_refused.swap(true, Ordering::Relaxed) {
                        tracing::info!(cluster = self.cluster.name, %error,
                            "leader epochs of some captured topics may not be asked for: after an election they are read \
                             again (hint: grant DESCRIBE)");
                    }
                }
                // Elections, mostly: the next round asks whoever leads then.
                Err(error) => {
                    tracing::debug!(cluster = self.cluster.name, %error, "a leader's epoch is not known");
                    if error.is_retriable() {
                        ask_again(capture, std::slice::from_ref(at));
                    }
                }
            }
        }
        topics
    }
}

/// Lets the next round ask for these topics, also if they have no traffic any more: batches wait for the answer.
fn ask_again(capture: &Capture, partitions: &[TopicPartition]) {
    for partition in partitions {
        let name = TopicRef::Name(Arc::clone(&partition.topic.name));
        let id = partition.topic.id.map(TopicRef::Id);
        capture.topics.return_traffic(&[name]);
        capture.topics.return_traffic(id.as_slice());
    }
}

/// The partitions of a topic whose leader and epoch are known, with the leader's node id.
fn led(topic: &TopicMetadata) -> impl Iterator<Item = (i32, TopicPartition)> + '_ {
    let key = TopicKey::with_id(topic.name.clone(), topic.id);
    let partitions = topic.partitions.iter().filter(|_| topic.error.is_ok());
    partitions
        .filter(|partition| partition.leader_id >= 0 && partition.leader_epoch >= 0)
        .map(move |partition| {
            (
                partition.leader_id,
                TopicPartition::new(key.clone(), partition.partition),
            )
        })
}

/// How long one leader is waited for, its connection included.
const ANSWER_MAX: Duration = Duration::from_secs(3);
