//! Teeline's own connections to brokers that want TLS and SASL.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

mod backups;
mod client;
mod kerberos;
mod programs;
mod realm;
mod secured;
