//! Transparent Kafka proxy that captures what producers write.
//!
//! What this crate does: it stands before a Kafka cluster, gives clients its own addresses in the place of the
//! brokers', passes everything else on unchanged, and writes each produced batch and what became of it into the
//! write-ahead buffer, before the producer sees the answer. From there the segmenter, which runs inside unless told
//! not to, archives it.
//!
//! What it deliberately does not do: it never re-encodes what a client sent, never renumbers or balances brokers, and
//! decodes only what it captures or must rewrite. It holds no data in memory beyond fixed budgets; what cannot be
//! captured is counted and left to the segmenter to fetch.
//!
//! | module | duty |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`process`] | start everything in order, drain it in order |
//! | `cluster` | what the parts of one virtual cluster share |
//! | `topology`, `sockets`, `listening`, `listeners` | a port per broker, bound before it is told; listening sockets, which refuse while their broker does; accepting |
//! | `stop` | ending the process, a cluster or a listener in two steps |
//! | `door`, `load_balancer`, `stream`, `certificates` | what a connection goes through first: PROXY protocol, TLS, which broker; renewed certificates |
//! | `intercept` | clients that keep the brokers' addresses: where they were going, and whether that is a broker |
//! | `upstream`, `openness` | connections to brokers; whether they want SASL |
//! | `session` | one client connection and its upstream connection: both loops, what is in flight |
//! | `capture`, `frames`, `stall` | the tee and its policy; the frames it writes; gates on responses |
//! | `lost` | connections whose end the buffer has not taken yet |
//! | `poller`, `brokers`, `catalog`, `topics`, `leaders`, `terms` | the proxy's own questions to the cluster; topic names and ids; who leads |
//! | `running`, `archiving` | the tasks of one virtual cluster; the segmenter inside |
//! | `reload` | a new configuration in the place of the one in force |
//! | [`buffer`], `buffer_state` | the write-ahead buffer's writer; what is shown of it |
//! | [`budget`], `places` | bytes in flight; places for connections |
//! | `metrics`, `quiet` | what is measured; log lines that must not flood |
//! | `observe` | open connections, traces of requests, the access log |

mod archiving;
mod brokers;
pub mod budget;
pub mod buffer;
mod buffer_state;
mod capture;
mod catalog;
mod certificates;
pub mod cli;
mod cluster;
mod door;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod intercept;
mod leaders;
mod listeners;
mod listening;
mod load_balancer;
mod lost;
mod metrics;
mod observe;
mod openness;
mod places;
mod poller;
pub mod process;
mod quiet;
mod reload;
mod running;
mod session;
mod sockets;
mod stall;
mod stop;
mod stream;
mod tcp;
mod terms;
mod topics;
mod topology;
mod upstream;
