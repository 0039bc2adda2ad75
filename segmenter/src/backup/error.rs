//! Why a backup ended without a report.

use std::fmt;
use std::sync::Arc;

use teeline_runtime::StoreError;
use teeline_runtime::exit::ExitCode;
use teeline_wire::client::ClientError;

use crate::audit::AuditError;
use crate::error::SegmenterError;

/// Why a backup ended without a report. What it had committed until then stays.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Topics that were named do not exist. The operator's mistake; nothing was begun.
    #[error("the source has no topic {0} (hint: correct backup.topics or --topic, or create them)")]
    MissingTopics(Names),
    /// No topic is meant. The operator's mistake; nothing was begun.
    #[error("no topic of the source is selected (hint: `kafka-topics --list` shows what there is)")]
    NoTopics,
    /// The archive cannot be used.
    #[error("use the archive")]
    Archive(#[source] StoreError),
    /// The archive cannot keep a ledger. The operator's to change.
    #[error("the archive cannot keep a ledger: {0}")]
    UnsuitableStore(String),
    /// The source cannot be reached.
    #[error("reach the source cluster")]
    Source(#[source] ClientError),
    /// Another backup of the same id has taken over.
    #[error(
        "another process has taken over backup {backup_id}: this one stops; what it had committed stays \
         (hint: let one backup of an id run at a time)"
    )]
    TakenOver {
        /// The backup.
        backup_id: String,
    },
    /// A round could not be made.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// It was told to stop before it had begun.
    #[error("stopped before the first look at the source")]
    Stopped,
}

/// Names of topics, as they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<Arc<str>>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl BackupError {
    /// What the process says at its end.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            BackupError::MissingTopics(_) | BackupError::NoTopics => ExitCode::Usage,
            BackupError::Stopped => ExitCode::Incomplete,
            _ => ExitCode::Failed,
        }
    }
}

impl From<SegmenterError> for BackupError {
    fn from(error: SegmenterError) -> Self {
        match error {
            SegmenterError::Store(error) => BackupError::Archive(error),
            error => BackupError::Audit(error.into()),
        }
    }
}
