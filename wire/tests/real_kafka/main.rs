//! The cluster client against a real cluster.
//!
//! Run with a broker at hand: `TEELINE_TEST_KAFKA=host:port cargo test -p teeline-wire --test real_kafka -- --ignored`.
//! Every test makes topics of its own, so that it may be run again on the same cluster.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod batches;
mod cluster;
mod support;
mod transactions;
