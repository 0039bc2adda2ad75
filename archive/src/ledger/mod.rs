//! The ledger: append-only commits, one chain per writer. What it does not list does not exist.
//!
//! Segments are uploaded first and listed then; a commit is created only if absent and never changed. Chains of
//! different writers are independent of each other, so that they can be folded in any order.
//!
//! [`entry`] (what commits say: [`absence`], [`audit`], [`replaced`] and [`state_object`] among it), [`commit`] (layout), [`state`] (the
//! fold), [`views`] and [`partition`] (what can be asked; `held` keeps its answers up to date).

pub mod absence;
pub mod audit;
pub mod commit;
pub mod entry;
mod held;
pub mod partition;
pub mod replaced;
pub mod state;
pub mod state_object;
pub mod views;

pub use absence::{Absence, AbsenceEvidence, AbsenceReason};
pub use audit::{EpochEnd, PartitionAudit, Superseded};
pub use commit::{COMMIT_BYTES_MAX, COMMIT_VERSION, Commit, CommitError};
pub use entry::{Entry, TopicSnapshot, TxnEvidence};
pub use partition::{PartitionState, Replacement};
pub use replaced::{Removed, Replaced};
pub use state::{Applied, ChainState, LedgerError, LedgerState};
pub use state_object::{StateKind, StateObject};
pub use views::{Incarnation, TopicKey};
