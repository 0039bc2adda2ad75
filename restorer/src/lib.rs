//! Gives back what the archive holds: lists, describes, verifies and restores backups.
//!
//! What it does: reads every chain of a backup's ledger, plans, checks, merges the segments of each partition into one
//! log, decides transactions, cuts the time window, and produces the batches to any Kafka cluster, exactly once and in
//! order; then puts the target's settings right and compares its offsets with what was produced.
//!
//! What it deliberately does not do: it never writes to the archive, never decodes a record that it need not, never
//! produces before everything selected has been checked, and never says "complete" about a restore that is not.
//!
//! Map of the modules, in the order in which a restore goes through them:
//!
//! - [`cli`], [`job`], [`app`]: arguments, the job they describe, the subcommands
//! - [`ledger`]: all chains of a backup, folded
//! - [`plan`]: what will be done (pure); [`window`], [`warnings`]
//! - [`target`]: the cluster restored into: inspection, guards, settings held off and put back
//! - [`check`], [`footers`]: checksums of everything selected, before the first record
//! - [`work`]: partitions side by side; [`budget`]: their memory
//! - [`stream`]: one partition as a run of batches: [`cursor`] (a segment, block by block), [`merge`] (overlapping
//!   segments), [`transactions`], [`markers`] (what was committed), [`replay`] (what of a batch is produced), [`apart`]
//!   (what is no part of the log)
//! - [`delivery`]: batches to one partition, exactly once and in order
//! - [`tally`], [`progress`], [`report`], [`figures`]: counting and showing
//! - [`describe`], [`coverage`] ([`absences`]), [`state`], [`verify`]: the other subcommands
//! - [`error`]: what can go wrong, and its exit code
//! - [`restore`]: all of it from beginning to end

pub mod absences;
pub mod apart;
pub mod app;
pub mod budget;
pub mod check;
pub mod cli;
pub mod coverage;
pub mod cursor;
pub mod delivery;
pub mod describe;
pub mod error;
pub mod figures;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod fixture;
pub mod footers;
pub mod job;
pub mod ledger;
pub mod markers;
pub mod merge;
pub mod plan;
pub mod progress;
pub mod replay;
pub mod report;
pub mod restore;
pub mod state;
pub mod stream;
pub mod tally;
pub mod target;
pub mod transactions;
pub mod verify;
pub mod warnings;
pub mod window;
pub mod work;
