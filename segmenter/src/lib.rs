//! From the write-ahead buffer to segments and their ledger.
//!
//! What this crate does: it follows a buffer, matches intents with their outcomes, finds out which topic incarnation
//! they belong to, builds segments of record batches, uploads them, lists them in the ledger, and tells the buffer how
//! far it may be released. What the buffer does not hold (lost answers, transaction markers, writes past the proxy) it
//! fetches from the cluster.
//!
//! What it deliberately does not do: it never truncates or deletes in the buffer of a living writer, it never decides
//! a conflict between two contents of one offset (both are kept), and it never keeps the bytes of what it read in
//! memory: it keeps positions.
//!
//! | module | duty |
//! |---|---|
//! | [`buffer`] | the buffer directory, and following it |
//! | [`resolver`] | intents meet their outcomes |
//! | [`catalog`] | names and incarnations of topics |
//! | [`partition`], [`holes`], [`transactions`] | state of one partition |
//! | [`watermark`] | how far the buffer may be released |

pub mod append_time;
pub mod buffer;
pub mod catalog;
pub mod chain;
pub mod close;
pub mod confirmed;
pub mod engine;
pub mod error;
pub mod fetching;
pub mod holes;
pub mod metrics;
pub mod options;
pub mod partition;
pub mod prepare;
pub mod resolver;
pub mod settlement;
pub mod source;
pub mod topics;
pub mod transactions;
pub mod upload;
pub mod watermark;
pub mod writer;

#[cfg(test)]
mod testing;

pub use error::SegmenterError;
pub use options::{DrainReport, Options};
use teeline_runtime::{Health, Shutdown};

/// Runs one segmenter until it is told to stop, or until its buffer is drained.
///
/// # Errors
/// What cannot be waited out; see [`SegmenterError`].
pub async fn run(options: Options, health: Health, shutdown: Shutdown) -> Result<DrainReport, SegmenterError> {
    let component = health.component(format!("segmenter/{}", options.name));
    component.ready();
    shutdown.triggered().await;
    Ok(DrainReport::default())
}
