//! Stopping in two steps, for the process, a cluster or one listener alone.

use std::time::Duration;

use teeline_runtime::shutdown::Shutdown;

/// What tells connections to end. A child ends with its parent, not the other way round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// No further requests are taken.
    pub(crate) drain: Shutdown,
    /// Connections end at once.
    pub(crate) cut: Shutdown,
}

impl Stop {
    /// One that can be stopped alone.
    pub(crate) fn child(&self) -> Stop {
        Stop {
            drain: self.drain.child(),
            cut: self.cut.child(),
        }
    }

    /// Connections finish what is in flight, and are cut after `patience`. Needs the runtime's context.
    pub(crate) fn begin(&self, patience: Duration) {
        self.drain.trigger();
        let cut = self.cut.clone();
        tokio::spawn(async move {
            let waited = cut.run_until(tokio::time::sleep(patience)).await;
            if waited.is_some() {
                cut.trigger();
            }
        });
    }
}
