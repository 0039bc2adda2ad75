//! One request under observation, and the line that tells of it.

use std::time::{Duration, Instant};

use teeline_wire::apis;

use super::Visit;

/// What is noted of a request on its way, until its answer has left.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) client_id: Option<Box<str>>,
    pub(crate) request_bytes: usize,
    /// When the proxy had read of it what it needs to begin.
    pub(crate) received: Instant,
    /// When its last byte was handed to the broker's socket.
    pub(crate) forwarded: Option<Instant>,
    /// When the answer began to arrive.
    pub(crate) answering: Option<Instant>,
    /// Somebody traces it.
    pub(crate) trace: bool,
    /// It stands in the access log.
    pub(crate) access: bool,
}

/// A request whose end has come.
pub(crate) struct Line<'a> {
    pub(crate) visit: &'a Visit,
    pub(crate) api_key: i16,
    pub(crate) api_version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) traced: &'a Traced,
    pub(crate) end: Ending,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    /// The answer is with the client's socket.
    Answered {
        bytes: usize,
        /// When all of it was here.
        read: Instant,
        /// It had to wait for the disk.
        held: bool,
    },
    /// It has no answer (acks=0).
    Unanswered,
    /// The client did not get it, or there was none.
    Lost,
}

impl Line<'_> {
    /// Writes the line, to whoever asked for it.
    pub(crate) fn write(&self) {
        let now = Instant::now();
        let traced = self.traced;
        let (outcome, response_bytes, read, held) = match self.end {
            Ending::Answered { bytes, read, held } => ("answered", bytes, Some(read), held),
            Ending::Unanswered => ("unanswered", 0, None, false),
            Ending::Lost => ("lost", 0, None, false),
        };
        let between = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to)
                .map_or(0, |(from, to)| micros(to.saturating_duration_since(from)))
        };
        let received = Some(traced.received);
        let forward_us = between(received, traced.forwarded);
        let answering = match self.end {
            // The broker had it until now.
            Ending::Lost => traced.answering.or(Some(now)),
            _ => traced.answering,
        };
        let broker_us = between(traced.forwarded.or(received), answering);
        let read_us = between(traced.answering, read);
        let (hold_us, send_us) = match held {
            true => (between(read, Some(now)), 0),
            false => (0, between(read, Some(now))),
        };
        let total_us = between(received, Some(now));
        // The target has to be a literal, so the line stands here twice.
        macro_rules! line {
            ($target:literal) => {
                tracing::info!(
                    target: $target,
                    cluster = &*self.visit.visitor.cluster,
                    connection = self.visit.id,
                    peer = %self.visit.visitor.peer,
                    node = self.visit.visitor.node_id,
                    api = apis::name(self.api_key),
                    api_key = self.api_key,
                    version = self.api_version,
                    correlation = self.correlation_id,
                    client_id = traced.client_id.as_deref(),
                    request_bytes = traced.request_bytes,
                    response_bytes,
                    outcome,
                    forward_us,
                    broker_us,
                    read_us,
                    hold_us,
                    send_us,
                    total_us,
                    "request"
                )
            };
        }
        if traced.trace {
            line!("teeline_proxy::trace");
        }
        if traced.access {
            line!("teeline_proxy::access");
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
