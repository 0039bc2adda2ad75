//! The harness of Teeline's end-to-end tests: real Kafka, real object stores, real clients, the real programs.
//!
//! It starts and stops processes, drives client programs, reads what a cluster holds and compares. It never
//! looks into the archive to find out what ought to be there: expectations come from what producers were told and
//! from reading the source. A failing step panics with the reason, because in a test that is the report.
//!
//! - [`wait`], [`notes`]: wait for a condition, with a deadline that explains itself; say what is worth reading
//! - [`ports`], [`workdir`], [`reaper`], [`process`]: what a test owns and must give back
//! - [`components`]: fetch or find Kafka's jars, versitygw and the client programs
//! - [`kafka`], [`kdc`], [`s3`], [`forgetful_store`], [`refusing_store`]: servers
//! - [`driver`], [`record`], [`read_back`], [`verdict`]: clients, what they sent, what they read, and whether it agrees
//! - [`faultfs`], [`power_loss`], [`simulation`]: a disk with faults, what one holds after the power failed, and lives
//!   that are looked at after each of their operations
//! - [`stage`], [`nasty`]: a source and a target with the steps of a round trip, and a data set to be afraid of
//! - [`programs`], [`backups`], [`admin_port`], [`kafka_log`]: Teeline's own programs, their admin port, a broker's
//!   files
//! - [`fleet`], [`balancer`], [`leaders`], [`connections`], [`chaos`]: several proxies into one backup, behind one address;
//!   moving leaders; who is connected to whom; everything that can go wrong
//! - [`source_log`], [`archived`], [`comparison`]: the log as a raw read gives it, an archive as its own readers give
//!   it, and whether both are the same, offset by offset
//! - [`economy`], [`requests`]: what many partitions cost in requests, counted by the programs and by the server
//! - [`raw`]: a client of bare sockets, for what no proper client would do
//! - [`matrix`]: every client family, feature by feature, directly and through the proxy
//! - [`capture_frames`]: what real clients and brokers send, for the corpus that parsers are fuzzed with
//! - [`namespace`]: hosts and links of a test's own
//! - [`tampering`]: damage done on purpose to a copy of an archive
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness stops the test at the first thing that is not as it should be"
)]

pub mod admin_port;
pub mod archived;
pub mod backups;
pub mod balancer;
pub mod capture_frames;
pub mod chaos;
pub mod comparison;
pub mod components;
pub mod connections;
pub mod driver;
pub mod economy;
pub mod faultfs;
pub mod fleet;
pub mod forgetful_store;
pub mod kafka;
pub mod kafka_log;
pub mod kdc;
pub mod leaders;
pub mod matrix;
pub mod namespace;
pub mod nasty;
pub mod notes;
pub mod ports;
pub mod power_loss;
pub mod process;
pub mod programs;
pub mod raw;
pub mod read_back;
pub mod reaper;
pub mod record;
pub mod refusing_store;
pub mod requests;
pub mod s3;
pub mod simulation;
pub mod source_log;
pub mod stage;
pub mod tampering;
pub mod verdict;
pub mod wait;
pub mod workdir;
