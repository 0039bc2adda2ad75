//! Groups and what they have committed: by the log of their coordinators, by asking them, and both together.
//!
//! While the log is followed, asking is the base line and the check. The log goes first and last: it is followed from
//! before the coordinators are asked until after they have answered, so that nothing falls between; of what it told
//! meanwhile its word counts, of everything else theirs.

use std::collections::BTreeSet;
use std::time::Duration;

use teeline_archive::ledger::StateKind;
use teeline_archive::state::{ItemKey, ItemValue, SourceKey, SourceValue, What};
use teeline_config::OffsetsFrom;
use teeline_wire::client::{ClientError, Cluster};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::book::Observation;
use super::follow::{Ends, Known, Reached};
use super::survey::{self, TopicIds};
use super::{Recorder, cannot_write};
use crate::metrics;

/// What a look at the groups found, beside what was gathered from the log.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What coordinators answered, if they were asked.
    asked: Option<Result<Observation, ClientError>>,
    /// What of [`super::owed::Owed`] these answers make good.
    settles: u64,
    /// Where share groups are, if coordinators were not asked for everything.
    shares: Observation,
    /// Why offsets are not come by in the log.
    unfollowed: Option<String>,
    /// Whether the log was read to its end.
    is_whole: bool,
    /// Whether what is asked for can be compared with what the log told.
    is_check: bool,
    /// Items that the log told of since before coordinators were asked.
    touched: BTreeSet<ItemKey>,
}

/// How long partitions of the log may be without an answer before coordinators are asked instead.
const BEHIND_MAX: Duration = Duration::from_secs(60);
/// A last word must be short.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// The words for how offsets are come by.
const LOG: &str = "log";
const POLL: &str = "poll";
/// What they are about.
const OFFSETS: &str = "committed offsets";
const GAP: &str = "a part of the log was gone before it was read";

impl Recorder {
    /// Takes in what was committed since the last poll, so that it is in what is flushed next. For the moment before
    /// stopping: what cannot be had at once is left.
    pub async fn catch_up(&mut self, cluster: &Cluster) {
        if self.groups_ms.is_some() {
            let mut ends = Ends::new();
            let read = self
                .follower
                .read(cluster, &mut ends, &mut self.gathered, &mut self.owed);
            // Dropped, it has taken what it has taken.
            let _ = timeout(LAST_PATIENCE, read).await;
        }
    }

    pub(super) async fn look_at_groups(&mut self, cluster: &Cluster, now_ms: i64) -> Looked {
        let mut looked = Looked::default();
        if self.settings.offsets == OffsetsFrom::Poll {
            self.ask(cluster, &mut looked).await;
            looked.unfollowed = Some(String::new());
            return looked;
        }
        let is_polled = self.source.as_ref().is_none_or(|source| source.way != LOG);
        let is_time = self.groups_ms.is_none_or(|last| {
            now_ms.saturating_sub(last)
                >= i64::try_from(self.settings.check_interval.as_millis()).unwrap_or(i64::MAX)
        });
        let is_owed = self.owed.is_ask_owed();
        let mut must_ask = is_polled || is_time || is_owed;
        looked.is_check = !is_polled && !is_owed;
        for _ in 0..ATTEMPTS {
            // What the log told so far is older than what coordinators answer from now on.
            self.spill(now_ms);
            looked.touched.clear();
            let known = self.known();
            match self.follower.prepare(cluster, known, &mut self.owed).await {
                Ok(is_new) => {
                    must_ask |= is_new;
                    looked.is_check &= !is_new;
                }
                Err(unfollowed) => {
                    looked.unfollowed = Some(unfollowed.reason);
                    break;
                }
            }
            if must_ask {
                self.ask(cluster, &mut looked).await;
            }
            match self.read_log(cluster, &mut looked, now_ms).await {
                Reached::All | Reached::Full => {
                    looked.is_whole = true;
                    break;
                }
                // Asking again now tells what the log did not, and what comes meanwhile is in the log.
                Reached::Partly => looked.is_whole = true,
                Reached::Gap => self.follower.give_up(),
                Reached::Behind(reason) => {
                    let since = *self.behind_since.get_or_insert_with(Instant::now);
                    if self.groups_ms.is_none() || since.elapsed() > BEHIND_MAX {
                        self.follower.give_up();
                        looked.unfollowed = Some(reason);
                    } else {
                        // What was asked for cannot be put in order with what the log will tell.
                        looked.asked = None;
                    }
                    break;
                }
                Reached::Refused(reason) => {
                    self.follower.refuse(reason.clone());
                    looked.unfollowed = Some(reason);
                    break;
                }
            }
            (must_ask, looked.is_check) = (true, false);
        }
        self.complete(cluster, looked).await
    }

    /// What is missing to the picture once it is clear whether the log is followed.
    async fn complete(&mut self, cluster: &Cluster, mut looked: Looked) -> Looked {
        if looked.is_whole {
            self.behind_since = None;
        }
        if looked.unfollowed.is_some() {
            looked.is_whole = false;
            looked.is_check = false;
            if looked.asked.is_none() {
                self.ask(cluster, &mut looked).await;
            }
        }
        looked
    }

    /// Where share groups are, those included that the log has just told of.
    pub(super) async fn look_at_shares(&self, cluster: &Cluster, looked: &mut Looked) {
        if looked.asked.is_none() {
            let known = self.book(StateKind::Groups).items();
            looked.shares = survey::share_offsets(cluster, known).await;
        }
    }

    async fn ask(&self, cluster: &Cluster, looked: &mut Looked) {
        looked.settles = self.owed.found();
        looked.asked = Some(survey::groups(cluster, self.book(StateKind::Groups).items()).await);
    }

    fn known(&self) -> Known {
        let book = self.book(StateKind::Groups);
        Known {
            has_offsets: book.items().keys().any(|key| matches!(key, ItemKey::Offset(_))),
            as_of_ms: self.groups_ms.and(book.seen_ms()),
        }
    }

    /// Reads the log to its end, writing down what is too much to be held.
    async fn read_log(&mut self, cluster: &Cluster, looked: &mut Looked, now_ms: i64) -> Reached {
        let mut ends = Ends::new();
        loop {
            let read = self
                .follower
                .read(cluster, &mut ends, &mut self.gathered, &mut self.owed);
            let reached = read.await;
            looked.touched.extend(self.gathered.keys());
            if reached != Reached::Full {
                return reached;
            }
            self.spill(now_ms);
        }
    }

    /// Writes down what was gathered, without waiting for what topics are called now.
    pub(super) fn spill(&mut self, now_ms: i64) {
        let changes = self.gathered.take(|_| None);
        if self.owed.gap || !changes.is_empty() {
            self.last_ms = now_ms.max(self.last_ms);
            self.say_gap(self.last_ms);
            self.apply(self.last_ms, changes);
        }
    }

    /// Writes down what was gathered, and names the topics that have kept their ids.
    pub(super) fn note_log(&mut self, at_ms: i64, ids: &TopicIds) -> u64 {
        self.say_gap(at_ms);
        let steady = &self.steady_ids;
        let id_of = |topic: &str| {
            let id = ids.get(topic).filter(|id| steady.get(topic) == Some(id));
            id.map(Uuid::to_string)
        };
        let changes = self.gathered.take(id_of);
        self.apply(at_ms, changes)
    }

    /// Says that a part of the log is lost, from the last look on.
    fn say_gap(&mut self, at_ms: i64) {
        if std::mem::take(&mut self.owed.gap) {
            let said = self.source_changed(POLL, GAP).map(|what| (i64::MIN, what));
            self.apply(at_ms, said.into_iter().collect());
        }
    }

    fn apply(&mut self, at_ms: i64, changes: Vec<(i64, What)>) -> u64 {
        let (identity, settings) = (self.identity.clone(), self.settings);
        let book = self.groups_book();
        let applied = book.apply(at_ms, changes, &identity, &settings);
        let not_auditable = book.not_auditable();
        match applied {
            Ok(changed) => {
                metrics::state_seen(StateKind::Groups, changed, not_auditable);
                changed
            }
            Err(error) => {
                cannot_write(StateKind::Groups, &error);
                0
            }
        }
    }

    /// Puts together what coordinators answered and what the log told, once the latter is in the book. Nothing, if only
    /// the log has anything to say.
    pub(super) fn merge(
        &mut self,
        at_ms: i64,
        looked: Looked,
        before: &TopicIds,
        after: &TopicIds,
    ) -> Option<Result<Observation, ClientError>> {
        let way = match &looked.unfollowed {
            None => (LOG, ""),
            Some(reason) => (POLL, reason.as_str()),
        };
        match looked.asked {
            Some(Ok(mut asked)) => {
                asked.attribute(before, after);
                let corrected = self.take_words_of_log(&mut asked, &looked.touched);
                if looked.is_check && corrected > 0 {
                    tracing::info!(
                        corrected,
                        "committed offsets differ from what the log of the coordinators told"
                    );
                    metrics::state_corrected(corrected);
                }
                self.source_changed(way.0, way.1);
                if let Some(source) = &self.source {
                    asked
                        .items
                        .insert(source_key(), ItemValue::Source(source.clone()));
                }
                self.groups_ms = Some(at_ms);
                self.owed.settle(looked.settles);
                Some(Ok(asked))
            }
            Some(Err(error)) => Some(Err(error)),
            None => {
                let mut shares = looked.shares;
                shares.attribute(before, after);
                let shares = shares.items.into_iter();
                self.apply(
                    at_ms,
                    shares
                        .map(|(key, value)| (at_ms, What::Set(key, value)))
                        .collect(),
                );
                if looked.is_whole && self.groups_ms.is_some() {
                    self.groups_book().seen_at(at_ms);
                }
                None
            }
        }
    }

    /// Of what the log told since before coordinators were asked its word counts: theirs may be older. The answer is how
    /// many of the other offsets are not what the log had told of them.
    pub(super) fn take_words_of_log(&self, asked: &mut Observation, touched: &BTreeSet<ItemKey>) -> u64 {
        let known = self.book(StateKind::Groups).items();
        for key in touched {
            match known.get(key) {
                Some(value) => asked.items.insert(key.clone(), value.clone()),
                None => asked.items.remove(key),
            };
        }
        let differs = |(key, value): &(&ItemKey, &ItemValue)| match (known.get(key), value) {
            (Some(ItemValue::Offset(known)), ItemValue::Offset(value)) => known.offset != value.offset,
            (None, ItemValue::Offset(_)) => true,
            _ => false,
        };
        asked.items.iter().filter(differs).count() as u64
    }

    /// What the state says of where offsets come from, if that is something else than before.
    fn source_changed(&mut self, way: &str, reason: &str) -> Option<What> {
        let source = SourceValue {
            way: way.to_owned(),
            reason: reason.to_owned(),
        };
        if self.source.as_ref() == Some(&source) {
            return None;
        }
        match way {
            LOG => tracing::info!("committed offsets are followed in the log of the coordinators"),
            _ => tracing::info!(
                reason,
                "committed offsets are polled: commits between two polls are not seen"
            ),
        }
        metrics::state_followed(way == LOG);
        self.source = Some(source.clone());
        Some(What::Set(source_key(), ItemValue::Source(source)))
    }
}

/// Twice at most: what one look cannot settle is left to the next.
const ATTEMPTS: usize = 2;

fn source_key() -> ItemKey {
    ItemKey::Source(SourceKey {
        part: OFFSETS.to_owned(),
    })
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
