//! `teeline-segmenter backup`: topics of a cluster by Fetch, into the same archive that proxies capture into.
//!
//! It is the auditor's work ([`crate::audit`]) with no grace and with an end: rounds that compare the whole archive with
//! the whole logs and fetch what is missing. So it resumes where the ledger ends, a second run adds nothing, and what a
//! proxy has captured is not fetched again. It takes the auditor's lease at once; a backup of the same id that runs
//! already gives way.
//!
//! | module | duty |
//! |---|---|
//! | [`args`] | the command line |
//! | [`run`], `rounds`, `sum`, `tended` | one backup from its beginning to its end, what it did, the lease |
//! | `lookout`, `backlog` | between the rounds of a continuous backup: who has something new, and when a round is due |
//! | `state` | the state of the cluster beside its records |
//! | [`patience`] | when to go on after a failure, and when to give up; pure |
//! | [`report`], [`display`] | what it did, what it is doing |
//! | [`process`] | several of them in one process |
//! | [`error`] | why it ended without a report |

pub mod args;
mod backlog;
pub mod display;
pub mod error;
mod lookout;
pub mod patience;
pub mod process;
pub mod report;
mod rounds;
pub mod run;
mod state;
mod sum;
mod tended;

pub use args::{BackupArgs, Job, Plan};
pub use error::BackupError;
pub use report::{BackupReport, Outcome};
