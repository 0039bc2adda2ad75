//! The part of the policy that a reload may change. Each value stands for itself, so plain loads serve: a request costs
//! nothing for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use teeline_config::cluster::{Capture as Settings, OnFailure};

/// How long the disk is waited for, and what happens then.
#[derive(Debug)]
pub(super) struct Rules {
    closed: AtomicBool,
    hold_max_ms: AtomicU64,
}

impl Rules {
    pub(super) fn of(settings: &Settings) -> Rules {
        let rules = Rules {
            closed: AtomicBool::new(false),
            hold_max_ms: AtomicU64::new(0),
        };
        rules.follow(settings);
        rules
    }

    pub(super) fn follow(&self, settings: &Settings) {
        let closed = settings.on_failure == OnFailure::Closed;
        self.closed.store(closed, Ordering::Relaxed);
        self.hold_max_ms.store(settings.hold_max_ms, Ordering::Relaxed);
    }

    pub(super) fn on_failure(&self) -> OnFailure {
        match self.closed.load(Ordering::Relaxed) {
            true => OnFailure::Closed,
            false => OnFailure::Open,
        }
    }

    pub(super) fn hold_max(&self) -> Duration {
        Duration::from_millis(self.hold_max_ms.load(Ordering::Relaxed))
    }
}
