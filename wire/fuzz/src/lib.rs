//! What the fuzz targets do, as functions, so that a plain test can replay the committed corpus.
//!
//! Run one with `cargo +nightly fuzz run produce_request` in `wire/`. An input that was worth finding
//! is committed as `corpus/<target>/seed-<what it is>`.

pub mod targets;
