//! Following the log that group coordinators write, one look after the other.
//!
//! Nothing waits for news: a look reads what was written since the one before, up to the high watermarks that the
//! leaders name in their first answers. Records carry their own time, so a commit is known to the moment however much
//! later it is read; the log keeps it until then. Requests are plain ones, one per broker and look while little happens,
//! so a look may be dropped anywhere: the positions are behind what was taken, and nowhere else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientError, Cluster, ErrorCode, FetchOptions, FetchQuery, FetchedPartition, GROUP_TOPIC, GroupJournal,
    Isolation, OffsetAt, OffsetQuery, TopicKey, TopicMetadata, TopicPartition, TopicSelection,
};
use tokio::time::{Instant, timeout_at};

use super::gathered::Gathered;
use super::owed::Owed;
use super::survey::describe;

/// Where the log is read.
#[derive(Debug, Default)]
pub(super) struct Follower {
    topic: Option<TopicKey>,
    journals: BTreeMap<i32, GroupJournal>,
    /// Whether it ever was.
    has_followed: bool,
    /// When the topic was first and last said not to exist, without an answer in between that knew it.
    missing: Option<(Instant, Instant)>,
    /// Partitions that are read from their start: what they tell up to this moment is known better.
    replayed: BTreeMap<i32, i64>,
    /// Why it cannot be read, and when to try again.
    refused: Option<(String, Instant)>,
}

/// What is known of groups without the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) has_offsets: bool,
    /// The moment up to which, once coordinators were asked for all of them.
    pub(super) as_of_ms: Option<i64>,
}

/// Partitions to be followed.
#[derive(Debug)]
struct Begin {
    partitions: Vec<TopicPartition>,
    /// From their start, for what is later than this; else from now on.
    replay_after: Option<i64>,
}

/// Why the log cannot be followed now.
#[derive(Debug)]
pub(super) struct Unfollowed {
    /// In words that stay the same as long as the reason does.
    pub(super) reason: String,
}

/// What a look at the log came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// Everything that was in it.
    All,
    /// Everything, but what some transaction committed is known to the coordinator alone.
    Partly,
    /// So much that it has to be written down before more is read.
    Full,
    /// A part of the log is gone before it was read.
    Gap,
    /// Some partitions do not answer.
    Behind(String),
    /// It cannot be read, and that will not pass by itself.
    Refused(String),
}

/// The ends that one look goes to.
#[derive(Debug)]
pub(super) struct Ends {
    deadline: Instant,
    /// High watermark and last stable offset, as first told.
    told: HashMap<i32, (i64, i64)>,
    is_partial: bool,
}

/// A coordinator that does not answer in this time is asked again at the next look.
const PATIENCE: Duration = Duration::from_secs(15);
/// A right that lacks is not asked for at every look.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// One broker that is behind may not know a topic; after so long it is gone, and what is in it when it appears is new.
const ABSENT_MIN: Duration = Duration::from_secs(60);
/// How far before the end a transaction under way may have begun to be read as a whole.
const UNDECIDED_MAX: i64 = 100_000;
const FETCH: FetchOptions = FetchOptions {
    isolation: Isolation::ReadUncommitted,
    max_wait: Duration::ZERO,
    min_bytes: 0,
    max_bytes: 8 * 1024 * 1024,
    nearest: false,
};
const PARTITION_BYTES: i32 = 1024 * 1024;

impl Ends {
    pub(super) fn new() -> Self {
        Self {
            deadline: Instant::now() + PATIENCE,
            told: HashMap::new(),
            is_partial: false,
        }
    }
}

impl Follower {
    /// Makes sure that every partition is followed. True if some are only from now on: what was committed before is to
    /// be asked for, after this.
    pub(super) async fn prepare(
        &mut self,
        cluster: &Cluster,
        known: Known,
        owed: &mut Owed,
    ) -> Result<bool, Unfollowed> {
        if let Some((reason, _)) = self.refused.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return Err(Unfollowed {
                reason: reason.clone(),
            });
        }
        let prepared = timeout_at(
            Instant::now() + PATIENCE,
            self.begin_missing(cluster, known, owed),
        );
        let prepared = prepared
            .await
            .unwrap_or_else(|_| Err("the brokers did not answer".to_owned()));
        prepared.map_err(|reason| Unfollowed { reason })
    }

    /// Forgets everything: whoever follows again begins anew.
    pub(super) fn give_up(&mut self) {
        (self.topic, self.missing) = (None, None);
        self.journals.clear();
        self.replayed.clear();
    }

    /// The same, and not to be tried again soon.
    pub(super) fn refuse(&mut self, reason: String) {
        self.give_up();
        self.refused = Some((reason, Instant::now() + REFUSED_PAUSE));
    }

    async fn begin_missing(
        &mut self,
        cluster: &Cluster,
        known: Known,
        owed: &mut Owed,
    ) -> Result<bool, String> {
        let names = [Arc::from(GROUP_TOPIC)];
        let asked = cluster.metadata(TopicSelection::Named(&names)).await;
        let metadata = asked.map_err(|error| describe(&error))?;
        let Some(topic) = metadata.topics.into_iter().next() else {
            return Err("the brokers say nothing of its topic".to_owned());
        };
        let Some(begin) = self.judge(&topic, Instant::now(), known, owed)? else {
            return Ok(false);
        };
        self.begin(cluster, &begin).await?;
        (self.has_followed, self.missing) = (true, None);
        let is_from_now = begin.replay_after.is_none();
        if is_from_now {
            owed.ask();
        }
        Ok(is_from_now)
    }

    /// What is to be begun, going by what a broker says of the topic.
    fn judge(
        &mut self,
        topic: &TopicMetadata,
        now: Instant,
        known: Known,
        owed: &mut Owed,
    ) -> Result<Option<Begin>, String> {
        if topic.error.is_unknown_topic() {
            let since = self.missing.map_or(now, |(since, _)| since);
            owed.gap |= !self.journals.is_empty();
            self.give_up();
            self.missing = Some((since, now));
            return match self.was_absent(known) {
                true => Ok(None),
                false => Err("its topic is not known to the brokers".to_owned()),
            };
        }
        if topic.error.is_denial() {
            self.refuse(topic.error.to_string());
        }
        if !topic.error.is_ok() {
            return Err(topic.error.to_string());
        }
        let key = topic.key();
        if self.topic.as_ref().is_some_and(|followed| *followed != key) {
            owed.gap |= !self.journals.is_empty();
            self.give_up();
        }
        let partitions = self.missing(topic, &key)?;
        self.topic = Some(key);
        if partitions.is_empty() {
            return Ok(None);
        }
        let is_new = self.was_absent(known) || !self.journals.is_empty();
        Ok(Some(Begin {
            partitions,
            replay_after: known.as_of_ms.filter(|_| is_new),
        }))
    }

    /// Whether all that is in the topic, should it be there now, was written since we look at the cluster.
    fn was_absent(&self, known: Known) -> bool {
        self.missing.is_some_and(|(since, last)| {
            let is_long = last.duration_since(since) >= ABSENT_MIN;
            is_long || !(self.has_followed || known.has_offsets)
        })
    }

    /// Partitions that are not followed; none may be without a leader.
    fn missing(&self, topic: &TopicMetadata, key: &TopicKey) -> Result<Vec<TopicPartition>, String> {
        let mut missing = Vec::new();
        for partition in &topic.partitions {
            if self.journals.contains_key(&partition.partition) {
                continue;
            }
            if partition.leader_id < 0 {
                return Err(format!("partition {} has no leader", partition.partition));
            }
            missing.push(TopicPartition::new(key.clone(), partition.partition));
        }
        Ok(missing)
    }

    /// Begins where no transaction is under way, if that is near the end; in a new log, at its start.
    async fn begin(&mut self, cluster: &Cluster, begin: &Begin) -> Result<(), String> {
        let partitions = &begin.partitions;
        let at = match begin.replay_after.is_some() {
            true => vec![OffsetAt::Earliest],
            false => vec![OffsetAt::LastStable, OffsetAt::Latest],
        };
        let mut found = Vec::new();
        for at in at {
            let queries: Vec<OffsetQuery> = partitions
                .iter()
                .map(|partition| OffsetQuery {
                    partition: partition.clone(),
                    at,
                })
                .collect();
            let answers = cluster.list_offsets(&queries).await.into_iter();
            let offsets: Result<Vec<i64>, ClientError> =
                answers.map(|answer| answer.map(|listed| listed.offset)).collect();
            match offsets {
                Ok(offsets) => found.push(offsets),
                Err(error) => {
                    let reason = describe(&error);
                    if is_denial(&error) {
                        self.refuse(reason.clone());
                    }
                    return Err(reason);
                }
            }
        }
        let mut found = found.into_iter();
        let first = found.next().unwrap_or_default();
        let ends = found.next().unwrap_or_else(|| first.clone());
        for ((partition, first), end) in partitions.iter().zip(first).zip(ends) {
            let is_near = end.saturating_sub(first) <= UNDECIDED_MAX;
            let journal = match is_near {
                true => GroupJournal::new(first, true),
                false => GroupJournal::new(end, false),
            };
            self.journals.insert(partition.partition, journal);
            if let Some(after) = begin.replay_after {
                self.replayed.insert(partition.partition, after);
            }
        }
        Ok(())
    }

    /// Reads on, up to the ends.
    pub(super) async fn read(
        &mut self,
        cluster: &Cluster,
        ends: &mut Ends,
        gathered: &mut Gathered,
        owed: &mut Owed,
    ) -> Reached {
        let mut failed: BTreeMap<i32, String> = BTreeMap::new();
        loop {
            if gathered.is_full() {
                return Reached::Full;
            }
            let queries = self.queries(ends, &failed);
            if queries.is_empty() {
                break;
            }
            let before = self.progress(ends);
            let Ok(answers) = timeout_at(ends.deadline, cluster.fetch_many(&queries, &FETCH)).await else {
                return Reached::Behind("the brokers did not answer".to_owned());
            };
            for (query, answer) in queries.iter().zip(answers) {
                let partition = query.partition.partition;
                match answer {
                    Ok(fetched) => {
                        if let Err(reason) = self.take(partition, &fetched, ends, gathered, owed) {
                            return Reached::Refused(reason);
                        }
                    }
                    Err(error) if is_denial(&error) => return Reached::Refused(describe(&error)),
                    Err(error) if is_gone(&error) => {
                        owed.gap = true;
                        return Reached::Gap;
                    }
                    Err(error) => {
                        failed.insert(partition, describe(&error));
                    }
                }
            }
            if self.progress(ends) == before {
                let stuck = queries.iter().map(|query| query.partition.partition);
                let reason = || "nothing comes of the log".to_owned();
                failed.extend(stuck.map(|partition| (partition, reason())));
            }
        }
        for (partition, (_, last_stable)) in &ends.told {
            if failed.contains_key(partition) {
                continue;
            }
            self.replayed.remove(partition);
            if let Some(journal) = self.journals.get_mut(partition) {
                journal.reached(*last_stable);
            }
        }
        match failed.into_iter().next() {
            Some((partition, reason)) => Reached::Behind(format!("partition {partition}: {reason}")),
            None if ends.is_partial => Reached::Partly,
            None => Reached::All,
        }
    }

    /// What is still to be read, of partitions that have not failed.
    fn queries(&self, ends: &Ends, failed: &BTreeMap<i32, String>) -> Vec<FetchQuery> {
        let Some(topic) = &self.topic else {
            return Vec::new();
        };
        let is_open = |(partition, journal): &(&i32, &GroupJournal)| {
            let told = ends.told.get(partition);
            !failed.contains_key(partition) && told.is_none_or(|(end, _)| journal.position() < *end)
        };
        self.journals
            .iter()
            .filter(is_open)
            .map(|(partition, journal)| FetchQuery {
                partition: TopicPartition::new(topic.clone(), *partition),
                offset: journal.position(),
                max_bytes: PARTITION_BYTES,
            })
            .collect()
    }

    fn take(
        &mut self,
        partition: i32,
        fetched: &FetchedPartition,
        ends: &mut Ends,
        gathered: &mut Gathered,
        owed: &mut Owed,
    ) -> Result<(), String> {
        let told = (fetched.high_watermark, fetched.last_stable_offset);
        ends.told.entry(partition).or_insert(told);
        let Some(journal) = self.journals.get_mut(&partition) else {
            return Ok(());
        };
        let mut changes = Vec::new();
        let followed = journal.take(&fetched.records, &mut changes);
        let mut is_partial = followed.as_ref().is_ok_and(|followed| followed.is_partial);
        let after = self.replayed.get(&partition);
        for change in changes {
            match after.is_none_or(|after| change.timestamp > *after) {
                true => gathered.add(change),
                // Older than what is known; if only by another clock, the coordinators tell what became of it.
                false => is_partial = true,
            }
        }
        if is_partial {
            ends.is_partial = true;
            owed.ask();
        }
        match followed {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("partition {partition}: {}", error_chain(&error))),
        }
    }

    /// Changes when anything was read or told.
    fn progress(&self, ends: &Ends) -> (usize, BTreeSet<(i32, i64)>) {
        let positions = self
            .journals
            .iter()
            .map(|(&at, journal)| (at, journal.position()));
        (ends.told.len(), positions.collect())
    }
}

fn is_denial(error: &ClientError) -> bool {
    error.code().is_some_and(ErrorCode::is_denial)
}

/// What was to be read is not there any more, or its topic is another one.
fn is_gone(error: &ClientError) -> bool {
    let is_gone = |code: ErrorCode| code == ErrorCode::OFFSET_OUT_OF_RANGE || code.is_unknown_topic();
    matches!(error, ClientError::TopicRecreated { .. }) || error.code().is_some_and(is_gone)
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
