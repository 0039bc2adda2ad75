//! Kafka on the wire, as far as Teeline must understand it.
//!
//! What this crate does: it reads frames and request headers, takes Produce requests and responses
//! apart without copying their records, replaces broker addresses in the responses that carry them,
//! narrows ApiVersions to what is understood here, operates on record batches, and holds a small
//! cluster client for the jobs that Teeline does in its own name.
//!
//! What it deliberately does not do: it never re-encodes what a client sent, it never interprets an
//! API it need not understand, and it opens no sockets except in [`client`].
//! `docs/PROTOCOL.md` says per API key and version what is read, rewritten and passed on.
//!
//! Every parser takes bytes from a peer for hostile: lengths are checked against the bytes that
//! remain before anything is allocated or skipped, and nothing panics.
//!
//! # Map
//!
//! | module | duty |
//! |---|---|
//! | [`mod@read`], [`mod@write`] | primitive types: bounds-checked reading, and the few encodings we produce |
//! | [`error`] | [`WireError`], and what a caller should do about it |
//! | [`frame`] | length-prefixed frames on a stream, limits, recognising what is not Kafka |
//! | [`apis`] | API keys: names, flexible versions, newest versions understood |
//! | [`header`] | request and response headers |
//! | [`produce`], [`end_txn`] | the captured messages |
//! | [`api_versions`] | narrowing what brokers offer |
//! | [`schema`] | message layouts as tables, a walker over them, the check before kafka-protocol decodes |
//! | [`rewrite`] | broker addresses in whole responses |
//! | [`metadata_head`] | the same in Metadata responses that are too large to be held |
//! | [`fetch_response`] | broker addresses in responses that stream through |
//! | [`batch`], [`records`], [`codec`] | record batches: headers, records, compression |
//! | [`tls`] | TLS towards clients; keys and certificates in PEM |
//! | [`client`] | the cluster client |

pub mod api_versions;
pub mod apis;
pub mod batch;
pub mod client;
pub mod codec;
pub mod end_txn;
pub mod error;
pub mod fetch_response;
pub mod frame;
pub mod header;
pub mod metadata_head;
pub mod produce;
pub mod read;
pub mod records;
pub mod rewrite;
pub mod schema;
pub mod tls;
pub mod write;

#[cfg(test)]
mod specimens;

pub use error::{ErrorKind, WireError};
