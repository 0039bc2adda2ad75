//! The ends of connections: what was unanswered then is unresolved.

use std::time::Duration;

use teeline_archive::buffer::{ConnectionLost, Frame};
use teeline_archive::ids::SessionId;

use super::{Capture, missed_by};
use crate::metrics::Missed;

impl Capture {
    /// Notes that a connection ended with batches unanswered: they are unresolved from here on.
    pub(crate) async fn connection_lost(&self, connection_id: u64, unresolved: u64) {
        self.metrics.connection_lost(unresolved);
        let lost = ConnectionLost {
            connection_id,
            at_ms: self.clock.now_ms(),
        };
        let session = self.writer.last_assigned().session;
        // Patient: without this frame its batches stay open for as long as the proxy runs.
        let append = self
            .writer
            .append_outcomes(session, vec![Frame::ConnectionLost(lost.clone())]);
        let appended = tokio::time::timeout(LOST_PATIENCE, append).await;
        match appended.map_or(Err(Missed::Slow), |result| result.map_err(missed_by)) {
            Ok(_) => {}
            // The end of the buffer's session tells the same.
            Err(Missed::Lost) => self.missed(Missed::Lost, 0),
            Err(missed) => {
                self.missed(missed, 0);
                self.keep_lost(session, lost);
            }
        }
    }

    /// Notes the end of a connection whose session cannot wait for the disk: [`Capture::write_lost`] writes it.
    pub(crate) fn connection_panicked(&self, connection_id: u64) {
        let at_ms = self.clock.now_ms();
        let lost = ConnectionLost { connection_id, at_ms };
        self.keep_lost(self.writer.last_assigned().session, lost);
    }

    fn keep_lost(&self, session: SessionId, lost: ConnectionLost) {
        let connection = lost.connection_id;
        if !self.lost.keep(session, lost)
            && let Some(suppressed) = self.misses.admit()
        {
            tracing::warn!(
                cluster = self.cluster,
                connection,
                suppressed,
                "the end of a connection was not recorded; its batches are open until the proxy restarts"
            );
        }
    }

    /// Appends the ends of connections that the buffer did not take before. Only the poller calls this.
    pub(crate) async fn write_lost(&self) {
        loop {
            let session = self.writer.last_assigned().session;
            let frames = self.lost.next(session);
            let count = frames.len();
            if count == 0 || self.append_small(session, frames).await.is_err() {
                return;
            }
            self.lost.written(count);
        }
    }
}

/// How long a slow disk may take to accept the news of a lost connection.
const LOST_PATIENCE: Duration = Duration::from_secs(60);
