//! The ledger as one of its writers sees it: all chains are read, one is written.
//!
//! A commit is created only if absent, under the next number of the chain. If the number is taken, the store has already
//! looked whether the bytes there are ours (the nonce tells); if not, somebody else writes this chain and we stop.

use futures_util::{StreamExt, TryStreamExt};
use teeline_archive::ids::WriterId;
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_archive::manifest::Manifest;
use teeline_archive::names::{self, ObjectName};
use teeline_runtime::{PutOutcome, Store, StoreError};

use crate::error::SegmenterError;

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
}

impl Ledger {
    /// Reads all chains.
    pub async fn load(store: Store, backup_id: &str, writer: WriterId) -> Result<Self, SegmenterError> {
        let mut ledger = Ledger {
            store,
            backup_id: backup_id.to_owned(),
            writer,
            state: LedgerState::new(),
        };
        ledger.read_new().await?;
        Ok(ledger)
    }

    /// Reads what other writers have committed since. True when there was something.
    pub async fn refresh(&mut self) -> Result<bool, SegmenterError> {
        let next = self.state.next_seq(self.writer);
        let read = self.read_new().await?;
        if self.state.next_seq(self.writer) != next {
            return Err(self.fenced(next));
        }
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
        Ok(())
    }

    /// Writes the view for people.
    pub async fn write_manifest(&self, now_ms: i64) -> Result<(), SegmenterError> {
        let unusable = |reason: String| SegmenterError::Ledger {
            key: "manifest.json".to_owned(),
            reason,
        };
        let key = names::manifest_key(&self.backup_id).map_err(|error| unusable(error.to_string()))?;
        let text = Manifest::from_ledger(&self.state, now_ms).to_json();
        let text = text.map_err(|error| unusable(error.to_string()))?;
        Ok(self.store.put(&key, text.into()).await?)
    }

    fn fenced(&self, seq: u64) -> SegmenterError {
        SegmenterError::Fenced {
            backup_id: self.backup_id.clone(),
            writer: self.writer,
            seq,
        }
    }

    async fn read_new(&mut self) -> Result<usize, SegmenterError> {
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
        let store = self.store.clone();
        let mut reads = futures_util::stream::iter(commits)
            .map(|(_, _, key)| {
                let store = store.clone();
                async move { store.get(&key).await.map(|bytes| (key, bytes)) }
            })
            .buffered(READS_AT_ONCE);
        let mut count = 0usize;
        while let Some(read) = reads.next().await {
            let (key, bytes) = read?;
            let unusable = |reason: String| SegmenterError::Ledger {
                key: key.clone(),
                reason,
            };
            let commit = Commit::decode(&bytes).map_err(|error| unusable(error.to_string()))?;
            self.state
                .apply(&commit)
                .map_err(|error| unusable(error.to_string()))?;
            count = count.saturating_add(1);
        }
        Ok(count)
    }
}

const PROGRAM: &str = concat!("teeline-segmenter ", env!("CARGO_PKG_VERSION"));
const READS_AT_ONCE: usize = 16;
