//! Responses wait for the disk.

use std::pin::pin;
use std::time::Duration;

use teeline_config::cluster::OnFailure;

use super::Capture;
use crate::metrics::{Missed, record_wait};
use crate::session::outbox::Gate;

impl Capture {
    /// Waits until a response may leave. Never longer than the policy says.
    pub(crate) async fn hold(&self, gate: Gate) {
        let synced = self.writer.wait_synced(gate.position);
        let mut synced = pin!(synced);
        let patience = match self.rules.on_failure() {
            OnFailure::Open if self.stall.holds(&self.writer) => Duration::ZERO,
            _ => self.rules.hold_max(),
        };
        let mut verdict = tokio::time::timeout_at(gate.since + patience, synced.as_mut()).await;
        if verdict.is_err() {
            // Who was not held says nothing of the disk: with answers that are let out at once the stall would go on for as
            // long as some come, as there is always one whose sync is still under way.
            if !patience.is_zero() {
                self.stall.began(gate.position);
            }
            self.slow(gate);
            if self.rules.on_failure() == OnFailure::Closed {
                verdict = Ok(synced.await);
            }
        }
        record_wait(&self.metrics.hold_seconds, gate.since.elapsed());
        match verdict {
            Ok(Ok(())) => {}
            // Its batches were counted by the buffer, those of answers that never came included.
            Ok(Err(_)) => self.missed(Missed::Lost, 0),
            Err(_) => self.metrics.released_unsynced.increment(1),
        }
    }

    fn slow(&self, gate: Gate) {
        if let Some(suppressed) = self.misses.admit() {
            tracing::warn!(
                cluster = self.cluster,
                held_ms = gate.since.elapsed().as_millis() as u64,
                suppressed,
                "the disk of the write-ahead buffer is too slow; capture.on_failure applies"
            );
        }
    }
}
