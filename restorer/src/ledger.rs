//! Reading a backup's ledger: every chain of every writer, folded into one state.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use teeline_archive::ledger::{Commit, CommitError, LedgerState};
use teeline_archive::names::{ObjectName, check_backup_id, ledger_prefix, manifest_key, parse_key};
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Store, StoreError};

use crate::error::{Damage, RestorerError};

/// A backup as its ledger tells.
#[derive(Debug)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Everything that could be read.
    pub state: LedgerState,
    /// What could not. A chain is read up to its first damaged commit.
    pub damage: Vec<Damage>,
    /// Commits read.
    pub commits: u64,
}

/// How often a ledger is read again that shows other damage each time.
const LOOKS_MAX: usize = 10;
/// Requests under way while commits are read.
const COMMITS_AT_ONCE: usize = 16;

/// Reads a backup. Damage is told, not fatal: what to make of it is the caller's decision.
pub async fn load(store: &Store, backup_id: &str) -> Result<Backup, RestorerError> {
    let mut backup = load_once(store, backup_id).await?;
    // A listing that runs while commits are made may show a later one without its predecessor, and the next listing another
    // such pair: what is damaged is found twice.
    for _ in 0..LOOKS_MAX {
        if backup.damage.is_empty() {
            break;
        }
        let again = load_once(store, backup_id).await?;
        let is_settled = again.damage == backup.damage;
        backup = again;
        if is_settled {
            break;
        }
    }
    Ok(backup)
}

async fn load_once(store: &Store, backup_id: &str) -> Result<Backup, RestorerError> {
    check_backup_id(backup_id)?;
    let mut damage = Vec::new();
    let mut commits = list_commits(store, backup_id, &mut damage).await?;
    if commits.is_empty() && damage.is_empty() {
        return Err(no_backup(store, backup_id).await);
    }
    commits.sort();
    let mut state = LedgerState::new();
    let mut read = 0;
    let fetched = stream::iter(commits.into_iter().map(|(writer, seq, key)| async move {
        let bytes = store.get(&key).await;
        (writer, seq, key, bytes)
    }));
    let mut fetched = fetched.buffered(COMMITS_AT_ONCE);
    let mut broken_chain = None;
    while let Some((writer, _seq, key, bytes)) = fetched.next().await {
        if broken_chain == Some(writer) {
            continue;
        }
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                damage.push(Damage {
                    key,
                    reason: "the object vanished while it was read".to_owned(),
                });
                broken_chain = Some(writer);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let applied = match Commit::decode(&bytes) {
            // Not damage, and no chain can make up for it: it may take away what the others list.
            Err(source @ (CommitError::Version { .. } | CommitError::Entry { .. })) => {
                return Err(RestorerError::Newer { key, source });
            }
            Err(error) => Err(error_chain(&error)),
            Ok(commit) => apply(&mut state, &key, &commit),
        };
        match applied {
            Ok(()) => read += 1,
            Err(reason) => {
                damage.push(Damage {
                    key,
                    reason: format!("{reason}; later commits of its chain are not read"),
                });
                broken_chain = Some(writer);
            }
        }
    }
    Ok(Backup {
        id: backup_id.to_owned(),
        state,
        damage,
        commits: read,
    })
}

/// Reads a backup that must be whole: a restore from half a ledger would restore half and call it all.
pub async fn load_whole(store: &Store, backup_id: &str) -> Result<Backup, RestorerError> {
    let backup = load(store, backup_id).await?;
    if backup.damage.is_empty() {
        Ok(backup)
    } else {
        Err(RestorerError::Damaged {
            damage: backup.damage,
        })
    }
}

/// The ids of all backups in an archive.
pub async fn backup_ids(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut ids = store.children("").await?;
    ids.retain(|id| check_backup_id(id).is_ok());
    Ok(ids)
}

/// Whether there is something of a backup although it has no ledger.
pub async fn has_traces(store: &Store, backup_id: &str) -> Result<bool, RestorerError> {
    if store
        .children(&format!("{backup_id}/"))
        .await?
        .iter()
        .any(|name| name == "topics")
    {
        return Ok(true);
    }
    match store.head(&manifest_key(backup_id)?).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn apply(state: &mut LedgerState, key: &str, commit: &Commit) -> Result<(), String> {
    // A copy under a foreign name could stand in for a missing link of the chain.
    if commit.key().as_deref() != Ok(key) {
        return Err("the commit belongs under another name".to_owned());
    }
    state.apply(commit).map(drop).map_err(|error| error_chain(&error))
}

type CommitKey = (teeline_archive::WriterId, u64, String);

async fn list_commits(
    store: &Store,
    backup_id: &str,
    damage: &mut Vec<Damage>,
) -> Result<Vec<CommitKey>, RestorerError> {
    let mut listing = store.list(&ledger_prefix(backup_id)?);
    let mut commits = Vec::new();
    while let Some(object) = listing.try_next().await? {
        match parse_key(&object.key) {
            Ok(ObjectName::Commit(name)) => commits.push((name.writer, name.seq, object.key)),
            Ok(_) => {}
            // Newer versions may keep other things beside the chains; they say nothing about these.
            Err(_) if !object.key.ends_with(".commit") => {}
            Err(error) => damage.push(Damage {
                key: object.key,
                reason: error.to_string(),
            }),
        }
    }
    Ok(commits)
}

async fn no_backup(store: &Store, backup_id: &str) -> RestorerError {
    let hint = match backup_ids(store).await {
        Ok(ids) if ids.is_empty() => format!("{} holds no backup: check --archive", store.address()),
        Ok(ids) => format!("it holds {}", ids.join(", ")),
        Err(error) => return error.into(),
    };
    RestorerError::NoBackup {
        backup_id: backup_id.to_owned(),
        hint,
    }
}

/// Totals of one backup, for listings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id.
    pub backup_id: String,
    /// The cluster it comes from.
    pub cluster_id: Option<String>,
    /// Time of the first commit, epoch milliseconds.
    pub created_at_ms: Option<i64>,
    /// Time of the last commit, epoch milliseconds.
    pub updated_at_ms: Option<i64>,
    /// Topics, each of its lives counted.
    pub topics: usize,
    /// Partitions with segments.
    pub partitions: usize,
    /// Segments.
    pub segments: u64,
    /// Records; those of overlapping segments count twice.
    pub records: u64,
    /// Bytes of all segments as stored.
    pub object_bytes: u64,
    /// Bytes before compression by the archive.
    pub uncompressed_bytes: u64,
    /// What of the ledger could not be read.
    pub damage: Vec<Damage>,
}

impl Summary {
    /// Stands for a backup that cannot be read at all.
    pub fn unreadable(backup_id: &str, reason: String) -> Self {
        Self {
            backup_id: backup_id.to_owned(),
            cluster_id: None,
            created_at_ms: None,
            updated_at_ms: None,
            topics: 0,
            partitions: 0,
            segments: 0,
            records: 0,
            object_bytes: 0,
            uncompressed_bytes: 0,
            damage: vec![Damage {
                key: format!("{backup_id}/ledger"),
                reason,
            }],
        }
    }
}

impl Backup {
    /// The totals.
    pub fn summary(&self) -> Summary {
        let topics = self.state.topics();
        let mut summary = Summary {
            backup_id: self.id.clone(),
            cluster_id: self.state.cluster_id().map(str::to_owned),
            created_at_ms: self.state.created_at_ms(),
            updated_at_ms: self.state.updated_at_ms(),
            topics: topics.len(),
            partitions: topics
                .iter()
                .map(|(_, incarnation)| incarnation.partitions().count())
                .sum(),
            segments: 0,
            records: 0,
            object_bytes: 0,
            uncompressed_bytes: 0,
            damage: self.damage.clone(),
        };
        for segment in self.state.segments() {
            summary.segments += 1;
            summary.records = summary.records.saturating_add(segment.record_count);
            summary.object_bytes = summary.object_bytes.saturating_add(segment.object_bytes);
            summary.uncompressed_bytes = summary
                .uncompressed_bytes
                .saturating_add(segment.uncompressed_bytes);
        }
        summary
    }
}
