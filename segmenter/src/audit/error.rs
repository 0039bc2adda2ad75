//! Why an audit did not come about.

use teeline_runtime::StoreError;
use teeline_wire::client::ClientError;

use crate::error::SegmenterError;

/// Why an audit did not come about.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another auditor or backup run has written the chain's next commit: it has taken over, and this one is out. What
    /// was uploaded and not committed is not part of the backup.
    #[error(
        "another auditor or backup run has taken over backup {backup_id}: it wrote commit {seq} of the auditors' chain"
    )]
    Fenced {
        /// The backup.
        backup_id: String,
        /// The commit that is not ours.
        seq: u64,
    },
    /// The backup belongs to another cluster. The operator's mistake.
    #[error(
        "backup {backup_id} belongs to cluster {bound_to}, the source is cluster {found} \
         (hint: give this cluster a backup id of its own)"
    )]
    OtherCluster {
        /// The backup.
        backup_id: String,
        /// The cluster it is bound to.
        bound_to: String,
        /// The cluster that answered.
        found: String,
    },
    /// The store does not answer, or refuses us for now. May pass.
    #[error("use the archive")]
    Store(#[source] StoreError),
    /// The store has not answered a commit for longer than we may wait. Whether it is there the next look at the ledger
    /// tells. May pass.
    #[error("the archive has not answered commit {seq} of the auditors' chain in time")]
    Silent {
        /// The commit.
        seq: u64,
    },
    /// The cluster does not answer. May pass.
    #[error("ask the source cluster")]
    Upstream(#[from] ClientError),
    /// The ledger or the store cannot be used at all.
    #[error(transparent)]
    Unusable(SegmenterError),
}

impl AuditError {
    /// True when the next round may succeed.
    pub fn may_pass(&self) -> bool {
        match self {
            AuditError::Upstream(_) | AuditError::Silent { .. } => true,
            // Credentials are put right while we wait, by a person or by rotation.
            AuditError::Store(error) => matches!(
                error.kind(),
                teeline_runtime::StoreErrorKind::Unavailable | teeline_runtime::StoreErrorKind::Refused
            ),
            AuditError::Fenced { .. } | AuditError::OtherCluster { .. } | AuditError::Unusable(_) => false,
        }
    }
}

impl From<SegmenterError> for AuditError {
    fn from(error: SegmenterError) -> Self {
        match error {
            SegmenterError::Fenced { backup_id, seq, .. } => AuditError::Fenced { backup_id, seq },
            SegmenterError::Store(error) => AuditError::Store(error),
            error => AuditError::Unusable(error),
        }
    }
}
