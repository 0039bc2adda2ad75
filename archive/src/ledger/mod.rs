//! The ledger: append-only commits, one chain per writer. What it does not list does not exist.
//!
//! Segments are uploaded first and listed then; a commit is created only if absent and never changed. Chains of
//! different writers are independent of each other, so that they can be folded in any order.
//!
//! [`entry`] (what commits say), [`commit`] (layout), [`state`] (the fold), [`views`] (what can be asked).

pub mod commit;
pub mod entry;
pub mod state;
pub mod views;

pub use commit::{COMMIT_BYTES_MAX, COMMIT_VERSION, Commit, CommitError};
pub use entry::{Absence, AbsenceReason, Entry, TopicSnapshot, TxnEvidence};
pub use state::{Applied, ChainState, LedgerError, LedgerState};
pub use views::{Incarnation, PartitionState, TopicKey};
