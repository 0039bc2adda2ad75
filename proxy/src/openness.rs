//! Whether brokers serve clients without SASL: what such a client sends is captured only once that is known.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::capture::Capture;

/// What is known of the brokers' listener that sessions are led to.
#[derive(Debug, Default)]
pub(crate) struct Openness {
    /// It serves clients without SASL: seen by an answer to one.
    open: AtomicBool,
    opened: Notify,
    /// Since when captured requests wait for the first sign of that.
    undecided_since: OnceLock<Instant>,
}

impl Openness {
    /// Whether brokers are known to serve clients without SASL.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A broker served a client without SASL.
    pub(crate) fn seen_open(&self) {
        if !self.is_open() {
            self.open.store(true, Ordering::Release);
            self.opened.notify_waiters();
        }
    }

    /// Waits until it is known that brokers serve clients without SASL; false when that takes too long. Soon after a
    /// start that is normal: a producer that knows its topics already asks for nothing before it sends.
    pub(crate) async fn wait_open(&self, capture: &Capture) -> bool {
        let since = *self.undecided_since.get_or_init(Instant::now);
        let deadline = capture.decision_deadline(since);
        // Made before the look, so that nothing between the two is overlooked.
        let opened = self.opened.notified();
        self.is_open() || tokio::time::timeout_at(deadline, opened).await.is_ok()
    }
}
