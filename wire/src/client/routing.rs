//! Finding who to ask, and asking again when it was the wrong one.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::Rng;

use super::cluster::Lane;
use super::{ClientError, Cluster, Connection, ErrorCode, RetryPolicy, TopicPartition};

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Node id.
    pub node_id: i32,
    /// Leader epoch, -1 if the cluster does not tell.
    pub epoch: i32,
}

/// The attempts of one call.
#[derive(Debug)]
pub(super) struct Retry {
    policy: RetryPolicy,
    started: Instant,
    attempts: u32,
}

impl Retry {
    pub(super) fn start(policy: RetryPolicy) -> Self {
        Self {
            policy,
            started: Instant::now(),
            attempts: 1,
        }
    }

    /// Whether there is time for another attempt after such a failure.
    fn has_time_for(&self, error: &ClientError) -> bool {
        let unknown_topic = error.code().is_some_and(ErrorCode::is_unknown_topic);
        let deadline = match unknown_topic {
            true => self.policy.unknown_topic_deadline.min(self.policy.deadline),
            false => self.policy.deadline,
        };
        self.started.elapsed() + self.pause() < deadline
    }

    /// The failure, with what was tried before it.
    fn give_up(&self, error: ClientError) -> ClientError {
        if self.attempts == 1 {
            return error;
        }
        ClientError::GaveUp {
            attempts: self.attempts,
            elapsed: self.started.elapsed(),
            source: Box::new(error),
        }
    }

    /// Waits before the next attempt, or gives the failure back.
    pub(super) async fn after(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !error.is_retriable() {
            return Err(error);
        }
        if !self.has_time_for(&error) {
            return Err(self.give_up(error));
        }
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            attempt = self.attempts,
            "call failed, trying again"
        );
        self.wait().await;
        Ok(())
    }

    async fn wait(&mut self) {
        // A quarter of jitter keeps many callers from coming back at the same moment.
        let jitter = rand::rng().random_range(0.75..=1.25);
        tokio::time::sleep(self.pause().mul_f64(jitter)).await;
        self.attempts += 1;
    }

    fn pause(&self) -> Duration {
        let doublings = (self.attempts - 1).min(16);
        self.policy
            .backoff_first
            .saturating_mul(1 << doublings)
            .min(self.policy.backoff_max)
    }
}

impl Cluster {
    /// Asks any broker, the next one after a failure that may pass.
    pub(super) async fn on_any<T, F, Fut>(&self, ask: F) -> Result<T, ClientError>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut retry = Retry::start(self.config().retry);
        loop {
            let outcome = match self.any_connection().await {
                Ok(connection) => ask(connection).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.prefer_another_broker();
                    retry.after(error).await?;
                }
            }
        }
    }

    /// Asks the controller, or whom the cluster presents as such.
    pub(super) async fn on_controller<T, F, Fut>(&self, ask: F) -> Result<T, ClientError>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut retry = Retry::start(self.config().retry);
        loop {
            let outcome = match self.controller_connection().await {
                Ok(connection) => ask(connection).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.forget_controller();
                    retry.after(error).await?;
                }
            }
        }
    }

    /// Puts questions about partitions to their leaders, one request per leader, and again those that failed
    /// for a reason that passes. Answers come in the order of the questions.
    ///
    /// `ask` gets the places of its questions in `queries` and answers in the same order; `may_retry` has the last
    /// word on failures that are retriable by themselves.
    pub(super) async fn on_leaders<Q, T, F, Fut>(
        &self,
        lane: Lane,
        queries: &[Q],
        partition_of: impl Fn(&Q) -> &TopicPartition,
        may_retry: impl Fn(&Q, &ClientError) -> bool,
        ask: F,
    ) -> Vec<Result<T, ClientError>>
    where
        F: Fn(Connection, Vec<(usize, Leader)>) -> Fut,
        Fut: Future<Output = Result<Vec<Result<T, ClientError>>, ClientError>>,
    {
        let mut answers: Vec<Option<Result<T, ClientError>>> = queries.iter().map(|_| None).collect();
        let mut retry = Retry::start(self.config().retry);
        loop {
            let open: Vec<usize> = unanswered(&answers);
            let partitions: Vec<_> = open
                .iter()
                .filter_map(|&at| queries.get(at))
                .map(&partition_of)
                .collect();
            let mut groups: BTreeMap<i32, Vec<(usize, Leader)>> = BTreeMap::new();
            let mut failures = Vec::new();
            for (&at, leader) in open.iter().zip(self.leaders_now(&partitions).await) {
                match leader {
                    Ok(leader) => groups.entry(leader.node_id).or_default().push((at, leader)),
                    Err(error) => failures.push((at, error)),
                }
            }
            let asked = groups.into_iter().map(|(node_id, group)| {
                let places: Vec<usize> = group.iter().map(|(at, _)| *at).collect();
                let ask = &ask;
                async move {
                    let outcome = match self.connection(node_id, lane).await {
                        Ok(connection) => ask(connection, group).await,
                        Err(error) => Err(error),
                    };
                    (places, outcome)
                }
            });
            for (places, outcome) in join_all(asked).await {
                sort_out(places, outcome, &mut answers, &mut failures);
            }
            let mut again = false;
            for (at, error) in failures {
                let query = queries.get(at).expect("places come from the queries");
                self.forget_leader(partition_of(query));
                let hopeful = error.is_retriable() && may_retry(query, &error);
                if hopeful && retry.has_time_for(&error) {
                    again = true;
                    continue;
                }
                let error = if hopeful { retry.give_up(error) } else { error };
                set(&mut answers, at, Err(error));
            }
            if !again {
                return answers
                    .into_iter()
                    .map(|answer| answer.expect("every question is answered"))
                    .collect();
            }
            retry.wait().await;
        }
    }
}

fn unanswered<T>(answers: &[Option<T>]) -> Vec<usize> {
    answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_none())
        .map(|(at, _)| at)
        .collect()
}

fn sort_out<T>(
    places: Vec<usize>,
    outcome: Result<Vec<Result<T, ClientError>>, ClientError>,
    answers: &mut [Option<Result<T, ClientError>>],
    failures: &mut Vec<(usize, ClientError)>,
) {
    match outcome {
        Ok(group) => {
            debug_assert_eq!(group.len(), places.len(), "one answer for each question");
            for (at, answer) in places.into_iter().zip(group) {
                match answer {
                    Ok(answer) => set(answers, at, Ok(answer)),
                    Err(error) => failures.push((at, error)),
                }
            }
        }
        Err(error) => failures.extend(places.into_iter().map(|at| (at, error.clone()))),
    }
}

fn set<T>(answers: &mut [Option<T>], at: usize, answer: T) {
    if let Some(slot) = answers.get_mut(at) {
        *slot = Some(answer);
    }
}
