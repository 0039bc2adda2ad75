//! Doors of the proxy: TLS on both sides, names instead of ports, load balancers, and who clients are to the brokers.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test stops at the first surprise"
)]

#[allow(dead_code, reason = "it serves other tests, too")]
#[path = "../security/secured.rs"]
mod secured;

#[path = "../security/realm.rs"]
mod realm;

mod entering;
mod identity;
mod mechanisms;
mod setting;
mod tls;
