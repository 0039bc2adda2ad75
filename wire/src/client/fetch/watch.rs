//! Follows many partitions: one long poll per broker, of which each answer has only what is new.
//!
//! Every broker has a session of its own with the partitions that it leads; when a leader moves, its partitions move
//! between sessions. What passes (elections, restarts, sessions that a broker forgets or refuses) is dealt with here, and
//! costs a request or two. The caller says from where each partition is followed, and moves on as it takes what comes:
//! until it does, the same records come again.
//!
//! A [`LogWatch`] has connections of its own, because a request that waits keeps those behind it waiting.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::FetchOptions;
use super::message::{self, Response};
use super::session::Standing;
use crate::client::{ClientError, Cluster, Connection, ErrorCode, Leader, TopicPartition};

mod broker;
mod options;

use broker::Broker;
pub use options::{WatchEvent, WatchOptions, WatchStats};

/// Follows partitions of one cluster.
#[derive(Debug)]
pub struct LogWatch {
    cluster: Cluster,
    fetch: FetchOptions,
    partition_bytes: i32,
    pace: Duration,
    followed: HashMap<TopicPartition, Followed>,
    brokers: BTreeMap<i32, Broker>,
    /// One per broker at most. They are kept here, so that nothing is lost when a poll is given up.
    running: JoinSet<(i32, Done)>,
    stats: WatchStats,
}

#[derive(Debug)]
struct Followed {
    offset: i64,
    leader: Option<Leader>,
    /// High watermark, last stable offset, log start and leader epoch, as told last.
    told: Option<(i64, i64, i64, i32)>,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    told: Instant,
    pause: Duration,
    again_at: Instant,
}

/// What a broker was waited for.
#[derive(Debug)]
enum Done {
    Connected(Result<Connection, ClientError>),
    Answered(Result<Response, ClientError>, bool),
}

impl LogWatch {
    /// Follows nothing yet.
    pub fn new(cluster: Cluster, options: WatchOptions) -> Self {
        LogWatch {
            cluster,
            fetch: FetchOptions {
                isolation: options.isolation,
                max_wait: options.max_wait,
                min_bytes: options.min_bytes,
                max_bytes: options.max_bytes,
                nearest: false,
            },
            partition_bytes: options.partition_bytes,
            pace: options.pace,
            followed: HashMap::new(),
            brokers: BTreeMap::new(),
            running: JoinSet::new(),
            stats: WatchStats::default(),
        }
    }

    /// Follows a partition from this offset on, or goes on there.
    pub fn follow(&mut self, partition: TopicPartition, offset: i64) {
        match self.followed.get_mut(&partition) {
            Some(followed) => followed.offset = offset,
            None => {
                let followed = Followed {
                    offset,
                    leader: None,
                    told: None,
                    trouble: None,
                };
                self.followed.insert(partition, followed);
            }
        }
    }

    /// Follows it no more.
    pub fn unfollow(&mut self, partition: &TopicPartition) {
        self.followed.remove(partition);
    }

    /// Follows only what is kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&TopicPartition) -> bool) {
        self.followed.retain(|partition, _| keep(partition));
    }

    /// From where a partition is followed, if it is.
    pub fn offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.followed.get(partition).map(|followed| followed.offset)
    }

    /// How many partitions are followed.
    pub fn len(&self) -> usize {
        self.followed.len()
    }

    /// Whether nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// What it took so far.
    pub fn stats(&self) -> WatchStats {
        self.stats
    }

    /// Waits for news, about as long as a broker may. A poll may be dropped anywhere: nothing is lost, requests that are
    /// on their way are waited for by the next one.
    pub async fn poll(&mut self) -> Vec<WatchEvent> {
        let until = Instant::now() + self.fetch.max_wait;
        loop {
            let mut events = self.find_leaders().await;
            self.launch(&mut events);
            if !events.is_empty() {
                return events;
            }
            let wake = self.next_due().map_or(until, |due| due.min(until));
            tokio::select! {
                Some(done) = self.running.join_next() => self.digest(done, &mut events),
                () = tokio::time::sleep_until(wake) => {}
            }
            if !events.is_empty() || Instant::now() >= until {
                return events;
            }
        }
    }

    /// Asks who leads the partitions of which nobody knows, those that are due.
    async fn find_leaders(&mut self) -> Vec<WatchEvent> {
        let now = Instant::now();
        let is_due = |followed: &Followed| {
            followed.leader.is_none()
                && followed
                    .trouble
                    .as_ref()
                    .is_none_or(|trouble| trouble.again_at <= now)
        };
        let due: Vec<TopicPartition> = self
            .followed
            .iter()
            .filter(|(_, followed)| is_due(followed))
            .map(|(partition, _)| partition.clone())
            .collect();
        let mut events = Vec::new();
        if due.is_empty() {
            return events;
        }
        let leaders = self.cluster.leaders_now(&due.iter().collect::<Vec<_>>()).await;
        for (partition, leader) in due.into_iter().zip(leaders) {
            match leader {
                Ok(leader) => {
                    if let Some(followed) = self.followed.get_mut(&partition) {
                        followed.leader = Some(leader);
                    }
                }
                Err(error) => self.trouble(partition, error, &mut events),
            }
        }
        events
    }

    /// Puts the next request to every broker on its way that has none.
    fn launch(&mut self, events: &mut Vec<WatchEvent>) {
        let now = Instant::now();
        let mut led: BTreeMap<i32, Vec<(&TopicPartition, Leader, i64)>> = BTreeMap::new();
        for (partition, followed) in &self.followed {
            if let Some(leader) = followed.leader {
                let of_leader = led.entry(leader.node_id).or_default();
                of_leader.push((partition, leader, followed.offset));
            }
        }
        for (node_id, broker) in &mut self.brokers {
            // Its session is kept in mind: the next one takes its place with the broker.
            if !broker.is_busy && !led.contains_key(node_id) {
                broker.connection = None;
                self.stats.resets = self
                    .stats
                    .resets
                    .saturating_add(u64::from(broker.session.doubt()));
            }
        }
        let mut failed = Vec::new();
        for (node_id, partitions) in led {
            let broker = self.brokers.entry(node_id).or_insert_with(|| Broker::new(now));
            if broker.is_busy || broker.not_before > now {
                continue;
            }
            let open = broker.connection.as_ref().filter(|open| !open.is_closed());
            let Some(connection) = open.cloned() else {
                let cluster = self.cluster.clone();
                broker.is_busy = true;
                self.running.spawn(async move {
                    let opened = cluster.own_connection(node_id).await;
                    (node_id, Done::Connected(opened))
                });
                continue;
            };
            let asked = broker.ask(&connection, &partitions, &self.fetch, self.partition_bytes);
            match asked {
                Ok((request, is_whole)) => {
                    let timeout = self.cluster.config().endpoint.request_timeout + self.fetch.max_wait;
                    broker.is_busy = true;
                    broker.not_before = now + self.pace;
                    self.running.spawn(async move {
                        let answer = request.send(&connection, timeout).await;
                        (node_id, Done::Answered(answer, is_whole))
                    });
                }
                Err(error) => {
                    let of_broker = partitions.iter().map(|(partition, ..)| (*partition).clone());
                    failed.extend(of_broker.map(|partition| (partition, error.clone())));
                }
            }
        }
        for (partition, error) in failed {
            self.trouble(partition, error, events);
        }
    }

    /// When there is something to be done that no answer brings.
    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let retries = self
            .followed
            .values()
            .filter(|followed| followed.leader.is_none())
            .filter_map(|followed| Some(followed.trouble.as_ref()?.again_at));
        let pauses = self
            .brokers
            .values()
            .filter(|broker| !broker.is_busy && broker.not_before > now)
            .map(|broker| broker.not_before);
        retries.chain(pauses).min()
    }

    fn digest(&mut self, done: Result<(i32, Done), JoinError>, events: &mut Vec<WatchEvent>) {
        let (node_id, done) = match done {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only with the runtime, which ends.
                Err(_cancelled) => return,
            },
        };
        let Some(broker) = self.brokers.get_mut(&node_id) else {
            return;
        };
        broker.is_busy = false;
        let error = match done {
            Done::Connected(Ok(connection)) => {
                broker.connection = Some(connection);
                broker.not_before = Instant::now();
                return;
            }
            Done::Connected(Err(error)) => error,
            Done::Answered(answer, is_whole) => {
                self.stats.requests = self.stats.requests.saturating_add(1);
                self.stats.whole = self.stats.whole.saturating_add(u64::from(is_whole));
                match answer {
                    Ok(response) => return self.answered(node_id, response, events),
                    Err(error) => error,
                }
            }
        };
        if broker.session.doubt() {
            self.stats.resets = self.stats.resets.saturating_add(1);
        }
        broker.connection = None;
        self.broker_failed(node_id, &error, events);
    }

    /// All partitions of a broker are looked for anew.
    fn broker_failed(&mut self, node_id: i32, error: &ClientError, events: &mut Vec<WatchEvent>) {
        let is_there = |followed: &Followed| followed.leader.is_some_and(|leader| leader.node_id == node_id);
        let led: Vec<TopicPartition> = self
            .followed
            .iter()
            .filter(|(_, followed)| is_there(followed))
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in led {
            self.trouble(partition, error.clone(), events);
        }
    }

    fn answered(&mut self, node_id: i32, response: Response, events: &mut Vec<WatchEvent>) {
        let first_pause = self.cluster.config().retry.backoff_first;
        let Some(broker) = self.brokers.get_mut(&node_id) else {
            return;
        };
        let pause = response.pause().min(PUT_OFF_MAX);
        broker.not_before = broker.not_before.max(Instant::now() + pause);
        match broker.session.answered(response.error, response.session_id) {
            Standing::Kept => {}
            // A client over its quota is told nothing, and has no session by that.
            Standing::Refused if response.partitions.is_empty() => {}
            Standing::Refused => self.stats.refused = self.stats.refused.saturating_add(1),
            Standing::Over => {
                self.stats.resets = self.stats.resets.saturating_add(1);
                broker.not_before = broker.not_before.max(Instant::now() + first_pause);
            }
        }
        if !response.error.is_ok() {
            if !is_about_session(response.error) {
                let error = ClientError::Broker {
                    subject: format!("follow logs of broker {node_id}"),
                    code: response.error,
                    message: None,
                };
                self.broker_failed(node_id, &error, events);
            }
            return;
        }
        let mut told = Vec::new();
        for (key, answer) in response.partitions {
            if let Some(partition) = broker.names.get(&key) {
                told.push((partition.clone(), broker.session.offset_of(&key), answer));
            }
        }
        for (partition, asked_at, answer) in told {
            self.take(node_id, partition, asked_at, answer, events);
        }
    }

    fn take(
        &mut self,
        node_id: i32,
        partition: TopicPartition,
        asked_at: Option<i64>,
        answer: message::Answer,
        events: &mut Vec<WatchEvent>,
    ) {
        let Some(followed) = self.followed.get_mut(&partition) else {
            return;
        };
        let Some(leader) = followed.leader.filter(|leader| leader.node_id == node_id) else {
            return;
        };
        let is_stale = asked_at != Some(followed.offset);
        let mut fetched = answer.partition;
        if !answer.error.is_ok() {
            let is_about_offset = answer.error == ErrorCode::OFFSET_OUT_OF_RANGE;
            if is_stale && is_about_offset {
                return;
            }
            let error = ClientError::Broker {
                subject: format!("follow {partition} from offset {}", followed.offset),
                code: answer.error,
                message: None,
            };
            return self.trouble(partition, error, events);
        }
        followed.trouble = None;
        fetched.leader_epoch = leader.epoch;
        fetched.by_id = self
            .brokers
            .get(&node_id)
            .is_some_and(|broker| broker.session.is_by_id());
        if is_stale {
            fetched.records.clear();
            fetched.aborted.clear();
        }
        self.stats.bytes = self.stats.bytes.saturating_add(fetched.records.len() as u64);
        let bounds = (
            fetched.high_watermark,
            fetched.last_stable_offset,
            fetched.log_start_offset,
            fetched.leader_epoch,
        );
        if !fetched.records.is_empty() || followed.told != Some(bounds) {
            followed.told = Some(bounds);
            events.push(WatchEvent::News { partition, fetched });
        }
    }

    /// Somebody did not answer about a partition: its leader is looked for again, after a while, unless that cannot help.
    fn trouble(&mut self, partition: TopicPartition, error: ClientError, events: &mut Vec<WatchEvent>) {
        self.cluster.forget_leader(&partition);
        let Some(followed) = self.followed.get_mut(&partition) else {
            return;
        };
        let now = Instant::now();
        let policy = self.cluster.config().retry;
        followed.leader = None;
        let trouble = followed.trouble.get_or_insert(Trouble {
            since: now,
            told: now,
            pause: policy.backoff_first,
            again_at: now,
        });
        let is_unknown = error.code().is_some_and(ErrorCode::is_unknown_topic)
            && now.duration_since(trouble.since) >= policy.unknown_topic_deadline;
        if !error.is_retriable() || is_unknown {
            self.followed.remove(&partition);
            events.push(WatchEvent::Ended { partition, error });
            return;
        }
        trouble.again_at = now + trouble.pause;
        trouble.pause = trouble.pause.saturating_mul(2).min(policy.backoff_max);
        if now.duration_since(trouble.told) >= policy.deadline {
            trouble.told = now;
            events.push(WatchEvent::Troubled { partition, error });
        }
    }
}

fn is_about_session(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::FETCH_SESSION_ID_NOT_FOUND
            | ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
    )
}

/// A broker may put clients off, and not for ever.
const PUT_OFF_MAX: Duration = Duration::from_secs(30);
