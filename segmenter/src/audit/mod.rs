//! The auditor: makes the archive equal the log, and says why where it cannot.
//!
//! It looks at *all* chains of a backup and at the whole log of every selected partition. What nobody holds it fetches:
//! what was written past the proxy, before it, while it was down, or missed while its buffer was full. What the log does
//! not have it explains, with evidence. What the log lost after it was captured it records as superseded. Of all
//! processes that serve a backup one at a time audits ([`lease`]); that this is so is economy, not correctness: all of
//! them write one chain, whose commits are created only if absent.
//!
//! It buffers nothing per partition: the brokers keep the log, so a round surveys, judges, and fetches straight into
//! segments. Its only memory between rounds is what saves questions.
//!
//! | module | duty |
//! |---|---|
//! | [`judge`] | one partition: what is lost, what is missing, what explains the rest; pure |
//! | [`ages`] | what is old enough to be demanded; pure |
//! | [`upstream`], [`kafka`] | what is asked of the cluster, and the real one |
//! | [`compare`] | two contents of the same offsets |
//! | [`auditor`] | rounds: ledger, survey, verdicts, fetches, commits |
//! | [`entries`] | what a round writes down about topics and partitions; pure |
//! | [`coverage`] | what is held of every partition, as metrics |
//! | [`lease`] | who audits |
//! | [`service`] | the auditor of a process: waits for the lease, goes round, gives way |

pub mod ages;
pub mod auditor;
pub mod compare;
pub mod coverage;
pub mod entries;
pub mod error;
pub mod judge;
pub mod kafka;
pub mod lease;
#[cfg(test)]
mod model_tests;
pub mod service;
pub mod upstream;

pub use auditor::{Auditor, Demand, PartitionReport, Round, RoundReport, Settings};
pub use error::AuditError;
pub use kafka::KafkaUpstream;
pub use teeline_config::StartAt;
pub use upstream::Upstream;
