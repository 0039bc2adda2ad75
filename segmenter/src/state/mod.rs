//! The state of a cluster beside its records, recorded with time: committed offsets of consumer groups, topics with
//! their settings, ACLs, quotas, and the names of SCRAM users.
//!
//! A [`Recorder`] looks at the cluster now and then, notes what changed since the last look, and from time to time
//! stores the changes as state objects, whose entries its caller commits. Offsets are polled, not overheard: a poll
//! sees what every kind of group commits, in transactions too, and what an administrator sets.
//!
//! What cannot be read is recorded as *not auditable* with the cluster's reason, and said in the log once. What was
//! known of it stays: nothing says that it is gone.
//!
//! | module | duty |
//! |---|---|
//! | `survey` | one look at a cluster |
//! | `book` | what changed since the last one, and what of it is to be stored |
//! | `words` | the protocol's numbers |

mod book;
mod survey;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use teeline_archive::ledger::{Entry, LedgerState, StateKind};
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Store, StoreError};
use teeline_wire::client::{ClientError, Cluster, TopicSelection};

use book::{Book, Identity, Observation};
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
    /// The time under which it was recorded, in epoch milliseconds.
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
        let at_ms = now_ms.max(self.last_ms.saturating_add(1));
        let before = match self.topic_ids.take() {
            Some(ids) => ids,
            None => survey::topic_ids(&cluster.metadata(TopicSelection::All).await?),
        };
        let mut groups = survey::groups(cluster, self.book(StateKind::Groups).items()).await;
        let metadata = cluster.metadata(TopicSelection::All).await?;
        let after = survey::topic_ids(&metadata);
        if let Ok(groups) = &mut groups {
            groups.attribute(&before, &after);
        }
        self.topic_ids = Some(after);
        let is_slow_turn = self.slow_ms.is_none_or(|last| {
            at_ms.saturating_sub(last)
                >= i64::try_from(self.settings.slow_interval.as_millis()).unwrap_or(i64::MAX)
        });
        let known = self.book(StateKind::TopicConfigs).items();
        let topics = survey::topics(cluster, &metadata, known, is_slow_turn).await;
        let mut found = vec![(StateKind::Groups, groups), (StateKind::TopicConfigs, Ok(topics))];
        if is_slow_turn {
            found.push((StateKind::Acls, survey::acls(cluster).await));
            found.push((StateKind::Quotas, survey::quotas(cluster).await));
            found.push((StateKind::ScramUsers, survey::scram_users(cluster).await));
        }
        self.last_ms = at_ms;
        let report = self.note(at_ms, found);
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

    fn book(&self, kind: StateKind) -> &Book {
        let found = self.books.iter().find(|book| book.kind() == kind);
        found.expect("there is a book for every kind")
    }
}

/// A state that exceeds what an object may hold. The rest of the audit goes on.
fn cannot_write(kind: StateKind, error: &teeline_archive::state::StateError) {
    tracing::error!(%kind, error = error_chain(error), "state of the cluster cannot be written");
}
