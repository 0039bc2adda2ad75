//! Fetching from followers nearby (KIP-392).
//!
//! The leader is asked with our rack and may name a follower there instead of answering. That one is asked from then
//! on, for a while: a follower that fails for whatever reason, or does not have the offset yet, is forgotten and the
//! leader asked, without a rack. The leader epoch goes with every question, so that a follower on the wrong side of an
//! election refuses instead of answering.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::{Cluster, FetchOptions, FetchQuery, FetchedPartition, Lane, Leader, NO_RACK};
use crate::client::{ClientError, TopicPartition};

/// The followers that leaders named.
#[derive(Debug, Default)]
pub(in crate::client) struct Followers {
    named: Mutex<HashMap<TopicPartition, (i32, Instant)>>,
}

/// As long as Kafka's own clients keep metadata: then the leader may name one that is nearer.
const KEPT: Duration = Duration::from_secs(5 * 60);

impl Followers {
    fn of(&self, partition: &TopicPartition) -> Option<i32> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let (node_id, until) = named.get(partition).copied()?;
        if until < Instant::now() {
            named.remove(partition);
            return None;
        }
        Some(node_id)
    }

    fn remember(&self, partition: &TopicPartition, node_id: i32) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.insert(partition.clone(), (node_id, Instant::now() + KEPT));
    }

    fn forget(&self, partition: &TopicPartition) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.remove(partition);
    }
}

type Outcome = Result<FetchedPartition, ClientError>;

impl Cluster {
    pub(super) async fn fetch_nearest(
        &self,
        queries: &[FetchQuery],
        options: &FetchOptions,
        rack: &str,
    ) -> Vec<Outcome> {
        let mut answers: Vec<Option<Outcome>> = queries.iter().map(|_| None).collect();
        let mut near = Vec::new();
        let mut far = Vec::new();
        for (at, query) in queries.iter().enumerate() {
            match self.followers().of(&query.partition) {
                Some(node_id) => near.push((at, node_id)),
                None => far.push(at),
            }
        }
        let asked = self.fetch_some(queries, &far, options, rack);
        let (from_followers, from_leaders) = join(self.ask_followers(queries, near, options), asked).await;
        let mut named = Vec::new();
        for (at, answer) in from_leaders {
            match (answer, queries.get(at)) {
                (Ok((_, Some(node_id))), Some(query)) => {
                    self.followers().remember(&query.partition, node_id);
                    named.push((at, node_id));
                }
                (answer, _) => put(&mut answers, at, answer.map(|(partition, _)| partition)),
            }
        }
        let from_named = self.ask_followers(queries, named, options).await;
        for (at, answer) in from_followers.into_iter().chain(from_named) {
            match (answer, queries.get(at)) {
                (Err(error), Some(query)) => {
                    tracing::debug!(
                        partition = %query.partition,
                        error = &error as &dyn std::error::Error,
                        "a follower did not answer a fetch, the leader is asked"
                    );
                    self.followers().forget(&query.partition);
                }
                (answer, _) => put(&mut answers, at, answer),
            }
        }
        let open: Vec<usize> = (0..answers.len())
            .filter(|&at| answers.get(at).is_some_and(Option::is_none))
            .collect();
        for (at, answer) in self.fetch_some(queries, &open, options, NO_RACK).await {
            put(&mut answers, at, answer.map(|(partition, _)| partition));
        }
        answers
            .into_iter()
            .map(|answer| answer.expect("what nobody else answered the leaders did"))
            .collect()
    }

    /// Some of the questions to their leaders; with each answer the follower that was named instead.
    async fn fetch_some(
        &self,
        queries: &[FetchQuery],
        places: &[usize],
        options: &FetchOptions,
        rack: &str,
    ) -> Vec<(usize, Result<(FetchedPartition, Option<i32>), ClientError>)> {
        if places.is_empty() {
            return Vec::new();
        }
        let some: Vec<FetchQuery> = places.iter().filter_map(|&at| queries.get(at).cloned()).collect();
        let answers = self.fetch_from_leaders(&some, options, rack).await;
        let answers = answers
            .into_iter()
            .map(|answer| answer.map(|answer| (answer.partition, answer.preferred)));
        places.iter().copied().zip(answers).collect()
    }

    /// Each question to its follower, once.
    async fn ask_followers(
        &self,
        queries: &[FetchQuery],
        places: Vec<(usize, i32)>,
        options: &FetchOptions,
    ) -> Vec<(usize, Outcome)> {
        let partitions: Vec<&TopicPartition> = places
            .iter()
            .filter_map(|&(at, _)| queries.get(at).map(|query| &query.partition))
            .collect();
        let mut answers = Vec::new();
        let mut groups: BTreeMap<i32, Vec<(usize, Leader)>> = BTreeMap::new();
        // The epochs of the leaders go with the questions.
        for (&(at, node_id), leader) in places.iter().zip(self.leaders_now(&partitions).await) {
            match leader {
                Ok(leader) => groups.entry(node_id).or_default().push((at, leader)),
                Err(error) => answers.push((at, Err(error))),
            }
        }
        let asked = groups
            .into_iter()
            .map(|(node_id, group)| self.ask_follower(queries, node_id, group, options));
        answers.extend(join_all(asked).await.into_iter().flatten());
        answers
    }

    async fn ask_follower(
        &self,
        queries: &[FetchQuery],
        node_id: i32,
        group: Vec<(usize, Leader)>,
        options: &FetchOptions,
    ) -> Vec<(usize, Outcome)> {
        let asked: Vec<(&FetchQuery, Leader)> = group
            .iter()
            .filter_map(|&(at, leader)| Some((queries.get(at)?, leader)))
            .collect();
        let rack = self.config().endpoint.client_rack.as_deref().unwrap_or(NO_RACK);
        let outcome = match self.connection(node_id, Lane::Fetch).await {
            Ok(connection) => self.ask_fetch(&connection, &asked, options, rack).await,
            Err(error) => Err(error),
        };
        let places = group.into_iter().map(|(at, _)| at);
        match outcome {
            Err(error) => places.map(|at| (at, Err(error.clone()))).collect(),
            Ok(answers) => places
                .zip(answers)
                .map(|(at, answer)| {
                    let answer = answer.map(|answer| FetchedPartition {
                        follower: Some(node_id),
                        ..answer.partition
                    });
                    (at, answer)
                })
                .collect(),
        }
    }
}

fn put(answers: &mut [Option<Outcome>], at: usize, answer: Outcome) {
    if let Some(slot) = answers.get_mut(at) {
        *slot = Some(answer);
    }
}
