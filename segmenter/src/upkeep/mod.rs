//! Upkeep of an archive: many small segments become one, and what was replaced is deleted later.
//!
//! Idle partitions, many writers and markers make small objects; each costs a request whenever the archive is read. The
//! auditor joins them, as it is the only one of its kind. The ledger moves first: one commit lists the joined segment
//! and takes its parts out of what is read, so that every reader sees the one or the other. The parts' objects stay for a
//! grace period, for readers that loaded the ledger before.
//!
//! Only segments of one origin and one known leader epoch are joined: a later verdict about an epoch then says the same
//! about the whole as it would have about the parts. [`plan`] chooses (pure), [`join`] writes.

pub mod join;
pub mod plan;

use teeline_archive::ledger::{Entry, Removed, Replaced};
use teeline_archive::names;
use teeline_runtime::Store;
use teeline_runtime::exit::error_chain;

use crate::audit::{AuditError, Auditor};
use crate::metrics;
use plan::{Removal, Rules, Run};

/// What one round of upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpkeepReport {
    /// Segments that were replaced.
    pub replaced: usize,
    /// Segments that took their place.
    pub joined: usize,
    /// Objects deleted.
    pub removed: usize,
    /// There is more to do.
    pub more: bool,
}

/// Does one round of upkeep. It may be dropped at any moment: what is not committed then is done again.
///
/// # Errors
/// When the ledger cannot be written; segments that cannot be read or joined are left as they are, and logged.
pub async fn round(
    auditor: &mut Auditor,
    store: &Store,
    rules: &Rules,
    now_ms: i64,
) -> Result<UpkeepReport, AuditError> {
    let mut report = UpkeepReport::default();
    let cluster_id = auditor.ledger().cluster_id().unwrap_or_default().to_owned();
    let runs = plan::runs(auditor.ledger(), rules, now_ms, RUNS_AT_ONCE);
    report.more = runs.len() >= RUNS_AT_ONCE;
    let mut entries = Vec::new();
    let mut keys = 0usize;
    for run in runs {
        let sink = auditor.sink();
        let joining = join::join(store, &sink, &cluster_id, &run);
        let info = match joining.await {
            Ok(info) => info,
            Err(error) => {
                tracing::warn!(topic = %run.topic, partition = run.partition, error = %error_chain(&error),
                    "small segments could not be joined; they stay as they are");
                continue;
            }
        };
        let by = info.key.clone();
        entries.extend([Entry::Segment(info), Entry::Replaced(replaced(&run, by, now_ms))]);
        report.joined = report.joined.saturating_add(1);
        report.replaced = report.replaced.saturating_add(run.segments.len());
        keys = keys.saturating_add(run.segments.len());
        // Few commits, and not too much joined in vain when the process dies.
        if entries.len() >= ENTRIES_AT_ONCE || keys >= KEYS_AT_ONCE {
            keys = 0;
            auditor.commit(&cluster_id, std::mem::take(&mut entries)).await?;
        }
    }
    for removal in plan::removals(auditor.ledger(), rules, now_ms, REMOVED_AT_ONCE) {
        let keys = delete(store, &removal).await;
        report.removed = report.removed.saturating_add(keys.len());
        if !keys.is_empty() {
            entries.push(Entry::Removed(Removed {
                topic: removal.topic,
                incarnation: removal.incarnation,
                partition: removal.partition,
                keys,
                at_ms: now_ms,
            }));
        }
    }
    auditor.commit(&cluster_id, entries).await?;
    metrics::upkeep_done(report.replaced, report.joined, report.removed);
    Ok(report)
}

/// Deletes objects, and says which are gone now. What the store keeps is tried again in a later round.
async fn delete(store: &Store, removal: &Removal) -> Vec<String> {
    let mut gone = Vec::new();
    for (key, has_sidecar) in &removal.keys {
        let mut objects = vec![key.clone()];
        // The index goes last: without it nobody could tell what the object is.
        objects.extend(has_sidecar.then(|| names::segment_index_key(key)));
        let mut deleted = Ok(());
        for object in &objects {
            deleted = deleted.and(match store.delete(object).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            });
        }
        match deleted {
            Ok(()) => gone.push(key.clone()),
            Err(error) => {
                tracing::warn!(%key, error = %error_chain(&error),
                    "a replaced segment could not be deleted; it takes room and does no harm");
                break;
            }
        }
    }
    gone
}

fn replaced(run: &Run, by: String, at_ms: i64) -> Replaced {
    Replaced {
        topic: run.topic.clone(),
        incarnation: run.incarnation,
        partition: run.partition,
        by,
        keys: run.segments.iter().map(|segment| segment.key.clone()).collect(),
        at_ms,
    }
}

/// Joined in one round, so that audits are not kept waiting.
const RUNS_AT_ONCE: usize = 64;
/// Of one commit: sixteen joins.
const ENTRIES_AT_ONCE: usize = 32;
/// Keys of one commit: a megabyte.
const KEYS_AT_ONCE: usize = 8_192;
/// Deleted in one round.
const REMOVED_AT_ONCE: usize = 2_000;
