//! The formats of Teeline: bytes to types and back, and nothing else.
//!
//! What this crate does: it encodes and decodes the frames of the write-ahead buffer, the segments and
//! ledger commits of the archive, the manifest for people, and the names of all of them. Folding a ledger
//! into a state and recovering a buffer file are pure functions from bytes to values.
//!
//! What it deliberately does not do: it opens no file and no socket, reads no clock, draws no random
//! number and starts no task. Callers pass bytes, times and nonces in. It does not decode Kafka records;
//! of a record batch it looks at the few header fields that it must agree with.
//!
//! The specification is `docs/FORMAT.md`; the code follows it, not the other way round.
//!
//! | module | duty |
//! |---|---|
//! | [`ids`] | positions and identities as types |
//! | [`ranges`] | sets of offsets: what is held, what is missing |
//! | [`fields`] | bounded little-endian fields, shared by all codecs |
//! | [`buffer`] | files and frames of the write-ahead buffer, and their recovery |
//! | [`segment`] | segments: blocks, footer, builder, reader |
//! | [`ledger`] | commits and the state they fold into |
//! | [`manifest`] | `manifest.json`, a derived view |
//! | [`state`] | what a cluster is beside its records, with time |
//! | [`names`] | object keys and buffer file names, built and parsed |

pub mod buffer;
pub mod fields;
pub mod ids;
pub mod ledger;
pub mod manifest;
pub mod names;
pub mod ranges;
pub mod segment;
pub mod state;

pub use ids::{BufferPosition, Lsn, SessionId, WriterId};
pub use ranges::{OffsetRange, OffsetSet};
