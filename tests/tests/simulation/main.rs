//! Simulations: random work, a crash at every point of it, and a model that says what has to be there.
//!
//! - `buffer`, `buffer_life`: the write-ahead buffer on a disk that loses, tears and reorders what is not synced
//! - `archive`: objects and commits in a directory, on such a disk
//! - `ledger`, `faulty_store`: writers, auditors and readers of one backup on a store that loses answers and comes late
//!
//! Each test prints its seed; `TEELINE_SEED` repeats it, `TEELINE_SIMULATION_ROUNDS` lengthens it. A life works with real
//! threads, so a seed repeats what is done, and nearly always in the same order; the directory of a life that failed keeps
//! its recorded operations.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod archive;
mod buffer;
mod buffer_life;
mod faulty_store;
mod ledger;
mod raw_scan;
