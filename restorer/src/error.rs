//! What can go wrong, and what the exit code says about it.

use teeline_archive::ledger::CommitError;
use teeline_archive::names::NameError;
use teeline_config::ConfigErrors;
use teeline_runtime::{ExitCode, StoreError};
use teeline_wire::batch::BatchError;
use teeline_wire::client::ClientError;

use crate::delivery::DeliveryError;

/// A part of the archive that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// Key of the object.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum RestorerError {
    /// What was asked for makes no sense as it stands. Nothing was begun.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used. Nothing was begun.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A guard holds: what was asked for could destroy something, and must be said explicitly. Nothing was begun.
    #[error("refused: {}", reasons.join("; "))]
    Guard {
        /// What would happen, and how to allow it.
        reasons: Vec<String>,
    },
    /// A name that no object of an archive can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such backup.
    #[error("no backup {backup_id:?} in the archive; {hint}")]
    NoBackup {
        /// What was asked for.
        backup_id: String,
        /// What there is.
        hint: String,
    },
    /// The ledger was written by a newer version, in a way that must be understood. Nothing was begun.
    #[error("commit {key} cannot be read by this version")]
    Newer {
        /// Key of the commit.
        key: String,
        /// What is not understood.
        #[source]
        source: CommitError,
    },
    /// Parts of the archive are damaged. Nothing was produced.
    #[error("the archive is damaged, nothing was produced: {}", list(damage))]
    Damaged {
        /// Which, and how.
        damage: Vec<Damage>,
    },
    /// A segment turned out damaged while it was being restored.
    #[error("segment {key} is damaged: {reason}")]
    DamagedSegment {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A batch of a segment cannot be read or changed.
    #[error("segment {key}: batch at offset {base_offset}")]
    Batch {
        /// The segment.
        key: String,
        /// The batch.
        base_offset: i64,
        /// Why.
        #[source]
        source: BatchError,
    },
    /// The target cluster failed at something.
    #[error("{action}")]
    Target {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: ClientError,
    },
    /// The target is not in the state that a restore needs.
    #[error("{0}")]
    TargetState(String),
    /// A partition could not be delivered.
    #[error("restore topic {topic} partition {partition}")]
    Delivery {
        /// Topic in the target.
        topic: String,
        /// Partition.
        partition: i32,
        /// Why.
        #[source]
        source: DeliveryError,
    },
    /// Signals cannot be listened for, so a stop could not be orderly.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// A signal stopped the restore.
    #[error("stopped by a signal before it was finished; topics are partly restored")]
    Interrupted,
    /// A task of the restorer ended without an answer: a bug.
    #[error("a task of the restorer ended unexpectedly: {0}")]
    Task(String),
    /// Topic settings that were held off could not be put back.
    #[error("topic settings could not be put back: {}", topics.join("; "))]
    SettingsNotPutBack {
        /// Per topic: why, and the command that does it by hand.
        topics: Vec<String>,
        /// What went wrong before, if anything.
        #[source]
        before: Option<Box<RestorerError>>,
    },
}

impl RestorerError {
    /// What the process says to its caller.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Guard { .. } | Self::Name(_) => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }

    /// For a call to the target.
    pub(crate) fn target(action: impl Into<String>) -> impl FnOnce(ClientError) -> Self {
        let action = action.into();
        move |source| Self::Target { action, source }
    }
}

/// At most so many damaged objects are named in one message; the JSON report has all.
const NAMED_MAX: usize = 10;

fn list(damage: &[Damage]) -> String {
    let named: Vec<String> = damage
        .iter()
        .take(NAMED_MAX)
        .map(|damage| format!("{}: {}", damage.key, damage.reason))
        .collect();
    let more = damage.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", named.join("; "))
}
