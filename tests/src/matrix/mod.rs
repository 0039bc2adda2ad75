//! The client matrix: every client family runs every feature against a Kafka version, directly and through the proxy.
//!
//! A cell passes when the proxy makes no difference: both runs saw the same, and what was produced is in the topic,
//! record by record, as another client reads it. What a client or a broker cannot do directly either is said so.
//! The programs lie in `clients/matrix`, and its README states what they are asked and what they answer.
//!
//! - [`feature`], [`client`]: the rows and the columns
//! - [`component`]: how the clients are installed
//! - [`broker`]: the Kafka versions, with and without ZooKeeper
//! - [`cell`]: runs a program and takes its answers
//! - [`produced`]: what is in the topics and in the archive afterwards
//! - [`round`]: all clients against one version
//! - [`secured`]: TLS and SASL on every way
//! - [`suite`]: a public test suite, directly and through the proxy
//! - [`page`]: the results, and the page made from them

pub mod broker;
pub mod cell;
pub mod client;
pub mod component;
pub mod feature;
pub mod page;
pub mod produced;
pub mod round;
pub mod secured;
pub mod suite;

/// The versions that the full matrix runs against.
pub const KAFKA_VERSIONS: [&str; 3] = ["4.3.1", "3.9.2", "2.8.2"];
