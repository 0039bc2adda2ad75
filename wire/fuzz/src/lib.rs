//! What the fuzz targets do, as functions, so that a plain test can replay the committed corpus.
//!
//! Run one with `cargo +nightly fuzz run produce_request` in `wire/`. An input that was worth finding
//! is committed as `corpus/<target>/seed-<what it is>`. `docs/FUZZING.md` says which parser is whose.

pub mod client;
pub mod damage;
pub mod frames;
pub mod records;
pub mod streams;
pub mod targets;
