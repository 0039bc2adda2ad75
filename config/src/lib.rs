//! The one typed configuration of Teeline, for the proxy, the segmenter and the restorer.
//!
//! What it does: turns YAML text (or the flags of a quick start) into validated types. Every problem of
//! a file is reported at once, each with its key, its value and a way out; unknown keys are problems too.
//!
//! What it deliberately does not do: it opens no socket, store or log, and it does not watch files. A
//! `check` subcommand can therefore run it offline.
//!
//! Map of the modules:
//!
//! - [`document`]: [`Config`], the whole file; what each program requires of it
//! - [`cluster`]: virtual clusters: upstream, listeners, capture, buffer, limits
//! - [`door`]: how clients come in: TLS, ports and names of brokers, load balancers
//! - [`endpoint`]: how to reach a Kafka cluster
//! - [`security`]: TLS and SASL of connections to it
//! - [`storage`]: where the archive lies, from YAML or from a URL
//! - [`jobs`]: segmenter, backup and restore settings
//! - [`audit`]: how the archive is compared with the log
//! - [`process`]: admin port, log, limits of the whole process
//! - [`pattern`]: topic patterns and filters
//! - [`when`]: moments in time as people write them
//! - [`units`]: sizes and durations with units
//! - [`secret`]: a string that cannot be printed
//! - [`environment`]: where `${VAR}` and `…_file` are read from
//! - [`problem`]: what can be wrong, and how it is told
//! - [`reload`]: what differs between two configurations, and what of it can change in a running proxy
//! - `section`: reading one mapping of the file, noticing every key
//! - `reading`: from sections to the types, with the rules that each section must obey
//! - `rules`: what concerns several sections, and what each program requires

pub mod audit;
pub mod cluster;
pub mod document;
pub mod door;
pub mod endpoint;
pub mod environment;
pub mod jobs;
pub mod pattern;
pub mod problem;
pub mod process;
mod reading;
pub mod reload;
mod rules;
pub mod secret;
mod section;
pub mod security;
pub mod storage;
pub mod units;
pub mod when;

pub use audit::{Audit, OffsetsFrom, StartAt};
pub use cluster::{Ack, Buffer, Capture, ConnectionAge, Limits, Listen, OnFailure, VirtualCluster};
pub use document::{Config, Mode, Program, ProxyFlags};
pub use door::{Addressing, ClientCertificates, HostPattern, Intercept, ListenTls, Names, Network, Ports};
pub use endpoint::{HostPort, KafkaEndpoint};
pub use environment::{Env, NoEnv, ProcessEnv};
pub use jobs::{Backup, Compression, Restore, Segmenter, Start};
pub use pattern::{PatternError, TopicFilter, TopicPattern};
pub use problem::{ConfigErrors, Problem};
pub use process::{AccessLog, Admin, Log, LogFormat, LogLevel, Process};
pub use secret::Secret;
pub use security::{
    Bearer, ClientCertificate, Credential, Kerberos, KerberosIdentity, Login, Sasl, Security,
    SecurityProtocol, Tls,
};
pub use storage::{Backend, Retry, Storage};
pub use when::{When, WhenError, parse_when};
