//! The ledger as one of its writers sees it: all chains are read, one is written.
//!
//! A commit is created only if absent, under the next number of the chain. If the number is taken, the store has already
//! looked whether the bytes there are ours (the nonce tells); if not, somebody else writes this chain and we stop.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use teeline_archive::ids::WriterId;
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_archive::manifest::Manifest;
use teeline_archive::names::{self, ObjectName};
use teeline_runtime::{PutOutcome, Store, StoreError};

use crate::error::SegmenterError;
use crate::manifest_pace::ManifestPace;

/// Why a commit did not come about.
#[derive(Debug, thiserror::Error)]
pub enum CommitFailure {
    /// The store did not answer, or refuses us for now. Trying the same commit again is right.
    #[error("write a ledger commit")]
    Store(#[source] StoreError),
    /// There is no going on.
    #[error(transparent)]
    Fatal(SegmenterError),
}

/// The ledger of a backup, with one chain to write.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    backup_id: String,
    writer: WriterId,
    state: LedgerState,
    news: u64,
    manifest: ManifestPace,
}

impl Ledger {
    /// Reads all chains.
    pub async fn load(store: Store, backup_id: &str, writer: WriterId) -> Result<Self, SegmenterError> {
        let mut ledger = Ledger {
            store,
            backup_id: backup_id.to_owned(),
            writer,
            state: LedgerState::new(),
            news: 0,
            manifest: ManifestPace::default(),
        };
        // A listing that runs while commits are made may show a later one without its predecessor, and the next listing
        // another such one. What is still missing when looked for again is lost, and everything that was built on it.
        let mut gap = ledger.read_new().await?.gap;
        while let Some(key) = gap {
            gap = ledger.read_new().await?.gap;
            if gap.as_ref() == Some(&key) {
                return Err(SegmenterError::Ledger {
                    key,
                    reason: "the commit before it is missing".to_owned(),
                });
            }
        }
        Ok(ledger)
    }

    /// Reads what other writers have committed since. True when there was something.
    pub async fn refresh(&mut self) -> Result<bool, SegmenterError> {
        let next = self.state.next_seq(self.writer);
        let known = self
            .state
            .chains()
            .fold(0u64, |sum, (_, chain)| sum.saturating_add(chain.last_seq));
        // A list shows a thousand objects at a time, old ones first; beyond that, asking each chain for its next
        // commit costs less, however long the chains have grown.
        let read = match known <= LISTED_AT_MOST {
            // What comes behind a gap is read by the next look.
            true => self.read_new().await?.count,
            false => self.read_tails().await?,
        };
        if self.state.next_seq(self.writer) != next {
            return Err(self.fenced(next));
        }
        self.news = self.news.saturating_add(read as u64);
        Ok(read > 0)
    }

    /// What the ledger says.
    pub fn state(&self) -> &LedgerState {
        &self.state
    }

    /// The commit that comes next. It is to be written as it is until it is there: its nonce makes it ours.
    pub fn prepare(&self, cluster_id: &str, entries: Vec<Entry>, nonce: u128, now_ms: i64) -> Commit {
        Commit {
            backup_id: self.backup_id.clone(),
            cluster_id: cluster_id.to_owned(),
            writer: self.writer,
            seq: self.state.next_seq(self.writer),
            nonce,
            created_at_ms: now_ms,
            program: PROGRAM.to_owned(),
            entries,
        }
    }

    /// Writes a prepared commit; may be repeated.
    pub async fn commit(&mut self, commit: &Commit) -> Result<(), CommitFailure> {
        let unusable = |reason: String| SegmenterError::Ledger {
            key: format!("{} of chain {}", commit.seq, commit.writer),
            reason,
        };
        let key = commit
            .key()
            .map_err(|error| CommitFailure::Fatal(unusable(error.to_string())))?;
        let bytes = commit
            .encode()
            .map_err(|error| CommitFailure::Fatal(unusable(error.to_string())))?;
        match self.store.put_if_absent(&key, bytes).await {
            Ok(PutOutcome::Created) => {}
            Ok(PutOutcome::Exists) => return Err(CommitFailure::Fatal(self.fenced(commit.seq))),
            Err(error) => return Err(CommitFailure::Store(error)),
        }
        self.state
            .apply(commit)
            .map_err(|error| CommitFailure::Fatal(unusable(error.to_string())))?;
        self.manifest.outdate();
        Ok(())
    }

    /// Commits of other writers that were read since the ledger was loaded.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// True when the view for people lacks something that we have committed.
    pub fn is_manifest_stale(&self) -> bool {
        self.manifest.is_stale()
    }

    /// True when the view for people is to be written anew: no sooner than `interval_ms` after the last time, and the
    /// rarer the longer it is.
    pub fn is_manifest_due(&self, now_ms: i64, interval_ms: u64) -> bool {
        self.manifest.is_due(now_ms, interval_ms)
    }

    /// Writes the view for people, as far as the ledger was read. Several processes write it: whoever has not read on lately
    /// would show an older state after a newer one.
    pub async fn write_manifest(&mut self, now_ms: i64) -> Result<(), SegmenterError> {
        self.manifest.begin(now_ms);
        let unusable = |reason: String| SegmenterError::Ledger {
            key: "manifest.json".to_owned(),
            reason,
        };
        let key = names::manifest_key(&self.backup_id).map_err(|error| unusable(error.to_string()))?;
        let text = Manifest::from_ledger(&self.state, now_ms).to_json();
        let text = text.map_err(|error| unusable(error.to_string()))?;
        let bytes = text.len() as u64;
        self.store.put(&key, text.into()).await?;
        self.manifest.written(bytes);
        crate::metrics::manifest_written();
        Ok(())
    }

    fn fenced(&self, seq: u64) -> SegmenterError {
        SegmenterError::Fenced {
            backup_id: self.backup_id.clone(),
            writer: self.writer,
            seq,
        }
    }

    /// Reads on at the end of every chain.
    async fn read_tails(&mut self) -> Result<usize, SegmenterError> {
        let prefix = names::ledger_prefix(&self.backup_id)
            .map_err(|error| SegmenterError::Usage(error.to_string()))?;
        let mut writers: Vec<WriterId> = self.state.chains().map(|(writer, _)| writer).collect();
        for name in self.store.children(&prefix).await? {
            let new = u64::from_str_radix(&name, 16).ok().map(WriterId);
            writers.extend(new.filter(|new| new.to_string() == name && !writers.contains(new)));
        }
        let mut count = 0usize;
        for writer in writers {
            loop {
                let key = names::commit_key(&self.backup_id, writer, self.state.next_seq(writer))
                    .map_err(|error| SegmenterError::Usage(error.to_string()))?;
                match self.store.get(&key).await {
                    Ok(bytes) => self.apply(&key, &bytes)?,
                    Err(error) if error.is_not_found() => break,
                    Err(error) => return Err(error.into()),
                }
                count = count.saturating_add(1);
            }
        }
        Ok(count)
    }

    fn apply(&mut self, key: &str, bytes: &[u8]) -> Result<(), SegmenterError> {
        let unusable = |reason: String| SegmenterError::Ledger {
            key: key.to_owned(),
            reason,
        };
        let commit = Commit::decode(bytes).map_err(|error| unusable(error.to_string()))?;
        let applied = self.state.apply(&commit);
        applied.map(drop).map_err(|error| unusable(error.to_string()))
    }

    async fn read_new(&mut self) -> Result<ReadNew, SegmenterError> {
        let prefix = names::ledger_prefix(&self.backup_id)
            .map_err(|error| SegmenterError::Usage(error.to_string()))?;
        let objects: Vec<_> = self.store.list(&prefix).try_collect().await?;
        let mut commits = Vec::new();
        for object in objects {
            match names::parse_key(&object.key) {
                Ok(ObjectName::Commit(name)) if name.seq >= self.state.next_seq(name.writer) => {
                    commits.push((name.writer, name.seq, object.key));
                }
                Ok(_) => {}
                Err(_) => tracing::debug!(key = %object.key, "an object in the ledger is not one of ours"),
            }
        }
        commits.sort_unstable();
        let mut read_new = ReadNew::default();
        let mut next = BTreeMap::new();
        let mut in_order = Vec::with_capacity(commits.len());
        for (writer, seq, key) in commits {
            let next = next.entry(writer).or_insert_with(|| self.state.next_seq(writer));
            if seq == *next {
                *next = next.saturating_add(1);
                in_order.push(key);
            } else if read_new.gap.is_none() {
                read_new.gap = Some(key);
            }
        }
        let store = self.store.clone();
        let mut reads = futures_util::stream::iter(in_order)
            .map(|key| {
                let store = store.clone();
                async move { store.get(&key).await.map(|bytes| (key, bytes)) }
            })
            .buffered(READS_AT_ONCE);
        while let Some(read) = reads.next().await {
            let (key, bytes) = read?;
            self.apply(&key, &bytes)?;
            read_new.count = read_new.count.saturating_add(1);
        }
        Ok(read_new)
    }
}

/// What a listing of the ledger brought.
#[derive(Debug, Default)]
struct ReadNew {
    /// Commits applied.
    count: usize,
    /// A commit whose predecessor was not listed; its chain was read up to there.
    gap: Option<String>,
}

const PROGRAM: &str = concat!("teeline-segmenter ", env!("CARGO_PKG_VERSION"));
const READS_AT_ONCE: usize = 16;
/// One request's worth of a listing.
const LISTED_AT_MOST: u64 = 1_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn a_chain_is_read_up_to_its_gap_and_a_ledger_that_begins_with_one_is_refused() {
        let store = Store::in_memory();
        let mut one = Ledger::load(store.clone(), "daily", WriterId(1)).await.unwrap();
        let mut reader = Ledger::load(store.clone(), "daily", WriterId(9)).await.unwrap();
        let mut keys = Vec::new();
        for _ in 0..3 {
            let commit = one.prepare("cluster", Vec::new(), rand::random(), 1);
            keys.push(commit.key().unwrap());
            one.commit(&commit).await.unwrap();
        }
        let late = store.get(&keys[1]).await.unwrap();
        store.delete(&keys[1]).await.unwrap();
        assert!(reader.refresh().await.unwrap());
        assert_eq!(reader.state().next_seq(WriterId(1)), 2, "up to the gap");
        let refused = Ledger::load(store.clone(), "daily", WriterId(8)).await;
        assert!(matches!(refused, Err(SegmenterError::Ledger { key, .. }) if key == keys[2]));
        store.put(&keys[1], late).await.unwrap();
        assert!(reader.refresh().await.unwrap());
        assert_eq!(reader.state(), one.state());
    }

    #[tokio::test]
    async fn long_chains_are_read_on_without_listing_them_and_a_fence_is_noticed() {
        let store = Store::in_memory();
        let open = async |writer| {
            Ledger::load(store.clone(), "daily", WriterId(writer))
                .await
                .unwrap()
        };
        let write = async |ledger: &mut Ledger, count: usize| {
            for _ in 0..count {
                let commit = ledger.prepare("cluster", Vec::new(), rand::random(), 1);
                ledger.commit(&commit).await.unwrap();
            }
        };
        let (mut one, mut reader) = (open(1).await, open(9).await);
        write(&mut one, 1_200).await;
        assert!(reader.refresh().await.unwrap());
        assert!(!reader.refresh().await.unwrap(), "nothing is new");
        write(&mut one, 3).await;
        let mut new = open(2).await;
        write(&mut new, 2).await;
        assert!(reader.refresh().await.unwrap());
        assert_eq!(reader.state(), new.state());
        write(&mut open(9).await, 1).await;
        assert!(matches!(
            reader.refresh().await,
            Err(SegmenterError::Fenced { seq: 1, .. })
        ));
    }
}
