//! The state of a cluster beside its records, recorded with time: committed offsets of consumer groups, topics with
//! their settings, ACLs, quotas, and the names of SCRAM users.
//!
//! A [`Recorder`] looks at the cluster now and then, notes what changed since the last look, and from time to time
//! stores the changes as state objects, whose entries its caller commits. Offsets are not overheard: the log that
//! coordinators write tells what every kind of group commits, in transactions too, what an administrator sets and what
//! expires, each with its time (docs/adr/0008). Where that log cannot be read, and now and then as a check, coordinators
//! are asked instead.
//!
//! What cannot be read is recorded as *not auditable* with the cluster's reason, and said in the log once. What was
//! known of it stays: nothing says that it is gone.
//!
//! | module | duty |
//! |---|---|
//! | `survey` | one look at a cluster |
//! | `groups` | groups, by the log or by asking |
//! | `follow`, `gathered` | reading the log, and what it told |
//! | `owed` | what a look that failed leaves to the next |
//! | `book` | what changed since the last one, and what of it is to be stored |
//! | `words` | the protocol's numbers |

mod book;
mod follow;
mod gathered;
mod groups;
mod owed;
mod survey;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use teeline_archive::ledger::{Entry, LedgerState, StateKind};
use teeline_archive::state::SourceValue;
use teeline_config::OffsetsFrom;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Store, StoreError};
use teeline_wire::client::{ClientError, Cluster, TopicSelection};
use tokio::time::Instant;

use book::{Book, Identity, Observation};
use follow::Follower;
use gathered::Gathered;
use owed::Owed;
use survey::TopicIds;

use crate::metrics;

/// How often and how much. The caller decides how often to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// An object per kind is stored at most so often.
    pub flush_interval: Duration,
    /// Settings of topics, ACLs, quotas and users are looked at so often, groups and topics at every poll: offsets
    /// change all the time, and settings of thousands of topics are megabytes.
    pub slow_interval: Duration,
    /// How committed offsets are come by.
    pub offsets: OffsetsFrom,
    /// While the log of the coordinators is followed, they are asked nevertheless this often: a check.
    pub check_interval: Duration,
    /// Where changes are that many bytes before compression, an object is stored before its time.
    pub flush_bytes: u64,
    /// When nothing changes for so long, an object says so: else nobody could tell rest from absence.
    pub alive_interval: Duration,
    /// The whole state is said again after so long …
    pub full_interval: Duration,
    /// … or after so many bytes of changes: a reader needs everything since then.
    pub full_bytes: u64,
    /// Changes that wait for a store that is away, in bytes before compression; beyond that they are given up and
    /// the next object says the whole state.
    pub pending_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(60),
            slow_interval: Duration::from_secs(60),
            offsets: OffsetsFrom::Log,
            check_interval: Duration::from_secs(300),
            flush_bytes: 16 * 1024 * 1024,
            alive_interval: Duration::from_secs(3600),
            full_interval: Duration::from_secs(24 * 3600),
            full_bytes: 10 * 1024 * 1024,
            pending_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Why a poll told nothing at all.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The cluster did not say which topics there are; other questions were not asked.
    #[error("look at the state of the cluster")]
    Cluster(#[from] ClientError),
}

/// What a poll found.
#[derive(Debug, Default)]
pub struct PollReport {
    /// The time under which it was recorded, in epoch milliseconds; what the log of the coordinators told is recorded
    /// under its own times, up to this one.
    pub at_ms: i64,
    /// Items that are different from before.
    pub changes: u64,
    /// Kinds that could not be looked at this time, and why; their state stays as it was.
    pub failures: Vec<(StateKind, ClientError)>,
}

/// Records the state of one cluster.
#[derive(Debug)]
pub struct Recorder {
    store: Store,
    identity: Identity,
    settings: Settings,
    books: [Book; 5],
    /// The time of the last poll; times never go back, not even from one recorder to the next.
    last_ms: i64,
    /// When the slow kinds were last looked at, if that succeeded.
    slow_ms: Option<i64>,
    /// Ids of topics at the end of the last poll.
    topic_ids: Option<TopicIds>,
    /// Those that were the same at the one before.
    steady_ids: TopicIds,
    follower: Follower,
    gathered: Gathered,
    /// What looks have found and could not make good yet.
    owed: Owed,
    /// When groups were last asked for as a whole.
    groups_ms: Option<i64>,
    /// Since when the log could not be read to its end.
    behind_since: Option<Instant>,
    /// What the state says of how offsets are come by.
    source: Option<SourceValue>,
    /// Entries of objects that are stored and were not given to the caller yet.
    stored: Vec<Entry>,
}

impl Recorder {
    /// A recorder for a backup. `loaded` is the ledger that its entries will follow: make a new recorder whenever the
    /// ledger was read again.
    pub fn new(
        store: Store,
        backup_id: &str,
        cluster_id: &str,
        loaded: &LedgerState,
        settings: Settings,
    ) -> Self {
        let last_ms = loaded.state_objects().iter().map(|object| object.last_at_ms);
        Self {
            store,
            identity: Identity {
                backup_id: backup_id.to_owned(),
                cluster_id: cluster_id.to_owned(),
                run: format!("{:016x}", rand::random::<u64>()),
            },
            settings,
            books: StateKind::ALL.map(Book::new),
            last_ms: last_ms.max().unwrap_or(0),
            slow_ms: None,
            topic_ids: None,
            steady_ids: TopicIds::new(),
            follower: Follower::default(),
            gathered: Gathered::default(),
            owed: Owed::default(),
            groups_ms: None,
            behind_since: None,
            source: None,
            stored: Vec::new(),
        }
    }

    /// Looks at the cluster and notes what changed. Each kind fails alone. May take as long as the client's patience
    /// with brokers that do not answer.
    ///
    /// # Errors
    /// The cluster did not even say which topics there are.
    pub async fn poll(&mut self, cluster: &Cluster, now_ms: i64) -> Result<PollReport, StateError> {
        // So many different answers are waited for that whoever holds this future should not hold all of them.
        Box::pin(self.look(cluster, now_ms)).await
    }

    async fn look(&mut self, cluster: &Cluster, now_ms: i64) -> Result<PollReport, StateError> {
        let began = Instant::now();
        let before = match self.topic_ids.take() {
            Some(ids) => ids,
            None => survey::topic_ids(&cluster.metadata(TopicSelection::All).await?),
        };
        let mut looked = self.look_at_groups(cluster, now_ms).await;
        let metadata = cluster.metadata(TopicSelection::All).await?;
        let after = survey::topic_ids(&metadata);
        // Offsets are as of the moment up to which the log was read.
        let elapsed_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let at_ms = now_ms.saturating_add(elapsed_ms);
        let at_ms = at_ms.max(self.last_ms.saturating_add(1));
        self.last_ms = at_ms;
        let changes = self.note_log(at_ms, &after);
        self.look_at_shares(cluster, &mut looked).await;
        let groups = self.merge(at_ms, looked, &before, &after);
        self.steady_ids = before;
        self.steady_ids.retain(|topic, id| after.get(topic) == Some(id));
        self.topic_ids = Some(after);
        let is_slow_turn = self.slow_ms.is_none_or(|last| {
            at_ms.saturating_sub(last)
                >= i64::try_from(self.settings.slow_interval.as_millis()).unwrap_or(i64::MAX)
        });
        let known = self.book(StateKind::TopicConfigs).items();
        let topics = survey::topics(cluster, &metadata, known, is_slow_turn).await;
        let mut found = vec![(StateKind::TopicConfigs, Ok(topics))];
        found.extend(groups.map(|groups| (StateKind::Groups, groups)));
        if is_slow_turn {
            found.push((StateKind::Acls, survey::acls(cluster).await));
            found.push((StateKind::Quotas, survey::quotas(cluster).await));
            found.push((StateKind::ScramUsers, survey::scram_users(cluster).await));
        }
        let mut report = self.note(at_ms, found);
        report.changes += changes;
        if is_slow_turn {
            // What failed is asked again at the next poll.
            self.slow_ms = report.failures.is_empty().then_some(at_ms);
        }
        Ok(report)
    }

    /// Stores what has changed, if it is time or `force` says so. The entries are to be committed by the caller, in
    /// this order; if they are not, [`Recorder::start_over`] must be called.
    ///
    /// # Errors
    /// The store did not take an object. Nothing is lost: the next call begins there.
    pub async fn flush(&mut self, now_ms: i64, force: bool) -> Result<Vec<Entry>, StoreError> {
        if force {
            self.spill(now_ms);
        }
        for book in &mut self.books {
            loop {
                let due = book.due(now_ms, force, &self.identity, &self.settings, rand::random());
                let finished = match due {
                    Ok(Some(finished)) => finished,
                    Ok(None) => break,
                    Err(error) => {
                        cannot_write(book.kind(), &error);
                        book.give_up_pending();
                        break;
                    }
                };
                self.store
                    .put(&finished.object.key, finished.bytes.clone())
                    .await?;
                if let Some(stored) = book.stored() {
                    metrics::state_stored(stored.object.kind, stored.object.bytes);
                    self.stored.push(Entry::State(stored.object));
                }
            }
        }
        Ok(std::mem::take(&mut self.stored))
    }

    /// Begins again, because entries of [`Recorder::flush`] did not reach the ledger: what follows would lean on
    /// objects that nobody lists.
    pub fn start_over(&mut self) {
        self.identity.run = format!("{:016x}", rand::random::<u64>());
        self.stored.clear();
        for book in &mut self.books {
            book.start_over();
        }
    }

    /// Notes what one poll found of each kind.
    fn note(&mut self, at_ms: i64, found: Vec<(StateKind, Result<Observation, ClientError>)>) -> PollReport {
        let mut report = PollReport {
            at_ms,
            ..PollReport::default()
        };
        for (kind, observation) in found {
            let observation = match observation {
                Ok(observation) => observation,
                Err(error) => {
                    tracing::debug!(%kind, error = &error as &dyn std::error::Error, "state of the cluster not seen this time");
                    metrics::state_not_seen(kind);
                    report.failures.push((kind, error));
                    continue;
                }
            };
            let Some(book) = self.books.iter_mut().find(|book| book.kind() == kind) else {
                continue;
            };
            match book.observe(at_ms, observation, &self.identity, &self.settings) {
                Ok(changed) => {
                    for (part, reason) in changed.denied {
                        tracing::warn!(%kind, part, reason, "not auditable: this part of the cluster's state cannot be read");
                    }
                    metrics::state_seen(kind, changed.items, book.not_auditable());
                    report.changes += changed.items;
                }
                Err(error) => cannot_write(kind, &error),
            }
        }
        report
    }

    fn groups_book(&mut self) -> &mut Book {
        let found = self
            .books
            .iter_mut()
            .find(|book| book.kind() == StateKind::Groups);
        found.expect("there is a book for every kind")
    }

    fn book(&self, kind: StateKind) -> &Book {
        let found = self.books.iter().find(|book| book.kind() == kind);
        found.expect("there is a book for every kind")
    }
}

/// A state that exceeds what an object may hold. The rest of the audit goes on.
fn cannot_write(kind: StateKind, error: &teeline_archive::state::StateError) {
    tracing::error!(%kind, error = error_chain(error), "state of the cluster cannot be written");
}
