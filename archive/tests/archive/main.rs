//! Tests of the formats through the crate's public face: round trips, golden bytes, damage, stock tools.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod audit;
mod corpus;
mod frames;
mod golden;
mod held;
mod ledger;
mod manifest;
mod recovery;
mod samples;
mod segments;
mod stock_tools;
