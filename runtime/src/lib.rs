//! The process shell of Teeline: what every program needs besides its own work.
//!
//! What it does: logs, metrics, the admin port, health, signals and shutdown, exit codes; a store over
//! object storage with conditional puts; durable file operations; back-off and clocks.
//!
//! What it deliberately does not do: it knows neither Kafka nor the formats of the archive. Keys and bytes
//! of objects are its callers' business.
//!
//! Map of the modules:
//!
//! - [`logging`]: text or JSON on standard error
//! - [`metrics`]: the Prometheus registry, and what the process itself uses
//! - [`admin`]: `/metrics`, `/livez`, `/readyz` on a thread of their own
//! - [`health`]: who is ready, and why not
//! - [`shutdown`], [`signals`]: stopping, gracefully first
//! - [`exit`]: exit codes, and how an error is told at the end
//! - [`store`]: object storage and filesystem behind one type
//! - [`fs`], [`lock`]: the only home of create, write, sync, rename and sync directory
//! - [`threads`]: what a program works on
//! - [`backoff`], [`clock`]: pauses between attempts; time that can be passed in

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod exit;
pub mod fs;
pub mod health;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod shutdown;
pub mod signals;
pub mod store;
pub mod threads;

pub use admin::AdminServer;
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use exit::ExitCode;
pub use health::{ComponentHealth, Health};
pub use lock::LockFile;
pub use metrics::MetricsHandle;
pub use shutdown::Shutdown;
pub use store::{ObjectInfo, Probe, PutOutcome, Store, StoreError, StoreErrorKind, Uploader};
