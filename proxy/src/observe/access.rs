//! The access log: one line when a connection ends, or is turned away.

use std::net::SocketAddr;

use teeline_config::AccessLog;

use super::{Observatory, Visit};

/// The end of a connection.
pub(crate) struct Farewell<'a> {
    pub(crate) visit: &'a Visit,
    /// The word of the metric that counts ends.
    pub(crate) ended: &'static str,
    /// The same in a sentence.
    pub(crate) text: &'a str,
    /// Requests without answer.
    pub(crate) unanswered: usize,
    pub(crate) mechanism: Option<&'static str>,
}

/// A connection that did not come to be one.
pub(crate) struct TurnedAway<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) peer: SocketAddr,
    /// The word of the metric that counts them.
    pub(crate) refused: &'static str,
}

impl Farewell<'_> {
    /// Writes the line if it is asked for.
    pub(crate) fn write(&self, observatory: &Observatory) {
        if observatory.access() == AccessLog::Off {
            return;
        }
        let (visit, visitor) = (self.visit, &self.visit.visitor);
        tracing::info!(
            target: "teeline_proxy::access",
            cluster = &*visitor.cluster,
            connection = visit.id,
            peer = %visitor.peer,
            node = visitor.node_id,
            tls = visitor.tls,
            subject = visitor.subject.as_deref(),
            mechanism = self.mechanism,
            client_id = visit.client_id(),
            seconds = visit.age().as_secs_f64(),
            requests = visit.requests(),
            request_bytes = visit.request_bytes(),
            response_bytes = visit.response_bytes(),
            unanswered = self.unanswered,
            ended = self.ended,
            "connection: {}", self.text
        );
    }
}

impl TurnedAway<'_> {
    /// Writes the line if it is asked for.
    pub(crate) fn write(&self, observatory: &Observatory) {
        // Whoever is turned away may come again at once, and the log is written by those who serve.
        if observatory.access() != AccessLog::Off
            && let Some(suppressed) = observatory.refusals.admit()
        {
            tracing::info!(
                target: "teeline_proxy::access",
                cluster = self.cluster,
                peer = %self.peer,
                refused = self.refused,
                suppressed,
                "connection refused"
            );
        }
    }
}
