//! How a connection ended: what is counted, and who is told.

use std::net::SocketAddr;

use teeline_wire::apis;

use super::requests::RequestsEnd;
use super::responses_end::ResponsesEnd;
use super::watch::Finding;
use super::{Refused, Shared, observer};
use crate::metrics::{Closed, Direction, Side};
use crate::observe::Farewell;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client's side came to its end and everything was answered, or enough time was given.
    Client(RequestsEnd),
    /// The broker's side came to its end.
    Upstream(ResponsesEnd),
    /// The proxy decided.
    Closed(Finding),
    /// The drain deadline.
    Cut,
}

/// How the client's connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// As usual.
    Orderly,
    /// Not before the client has all of its answers.
    Patient,
    /// As if it had been refused.
    Reset,
}

impl End {
    /// How the client is taken leave of, who was served or never got beyond the greeting (the versions of APIs, SASL). A
    /// broker that closes in order before has something to say by it, and that is passed on.
    pub(super) fn leave(&self, served: bool) -> Leave {
        match self {
            End::Client(RequestsEnd::Draining | RequestsEnd::UpstreamFailed(_))
            | End::Upstream(ResponsesEnd::UpstreamFailed(_))
            | End::Cut
                if !served =>
            {
                Leave::Reset
            }
            End::Client(RequestsEnd::Draining) => Leave::Patient,
            _ => Leave::Orderly,
        }
    }

    /// As it is counted.
    fn closed(&self) -> Closed {
        match self {
            End::Client(RequestsEnd::Refused(refused)) | End::Upstream(ResponsesEnd::Refused(refused)) => {
                refused.closed
            }
            End::Client(RequestsEnd::ClientClosed) => Closed::Client,
            End::Client(RequestsEnd::ClientFailed(_)) => Closed::ClientLost,
            End::Client(RequestsEnd::Draining) => Closed::Drained,
            End::Client(RequestsEnd::UpstreamFailed(_)) | End::Upstream(_) => Closed::UpstreamLost,
            End::Closed(finding) => finding.closed(),
            End::Cut => Closed::Cut,
        }
    }

    fn text(&self) -> String {
        match self {
            End::Client(end) => end.to_string(),
            End::Upstream(end) => end.to_string(),
            End::Closed(finding) => finding.text().1.to_owned(),
            End::Cut => "cut at the drain deadline".to_owned(),
        }
    }
}

/// Counts the end of a connection, and tells of it those who want to know.
pub(super) fn report(shared: &Shared, peer: SocketAddr, end: &End, unresolved: u64) {
    let cluster = &*shared.cluster;
    let (closed, text) = (end.closed(), end.text());
    cluster.metrics.closed(closed);
    match end {
        End::Client(RequestsEnd::Refused(refused)) => refused_by(shared, Direction::Request, refused),
        End::Upstream(ResponsesEnd::Refused(refused)) => refused_by(shared, Direction::Response, refused),
        End::Upstream(_) => left_unanswered(shared),
        _ => {}
    }
    log(shared, peer, end, &text, unresolved);
    let farewell = Farewell {
        visit: &shared.arrived.visit,
        ended: closed.as_str(),
        text: &text,
        unanswered: shared.in_flight.len(),
        mechanism: shared.authentication.mechanism(),
    };
    farewell.write(&shared.arrived.observatory);
    observer::unanswered(&shared.arrived, &shared.in_flight);
}

/// Counts what was not passed on: the connection ended instead.
fn refused_by(shared: &Shared, direction: Direction, refused: &Refused) {
    let is_content = match refused.closed {
        Closed::ClientMalformed
        | Closed::NotKafka
        | Closed::UpstreamMalformed
        | Closed::TooLarge
        | Closed::NotUnderstood
        | Closed::Unmappable => true,
        // An answer whose outcome could not be noted was passed on.
        Closed::NotCaptured => direction == Direction::Request,
        _ => false,
    };
    if is_content {
        let head = || match direction {
            Direction::Request => None,
            Direction::Response => shared.in_flight.with_head(|head| head.api_key),
        };
        let api_key = refused.api_key.or_else(head);
        shared
            .cluster
            .metrics
            .not_passed(direction, api_key, refused.closed);
    }
}

/// A broker that does not like what it is told in the old SASL exchange just closes the connection.
fn left_unanswered(shared: &Shared) {
    let authenticates = shared
        .in_flight
        .with_head(|head| head.api_key == apis::SASL_AUTHENTICATE);
    if authenticates == Some(true)
        && let Some(mechanism) = shared.authentication.mechanism()
    {
        shared
            .cluster
            .metrics
            .sasl_failure(Side::Client, mechanism, "closed");
    }
}

fn log(shared: &Shared, peer: SocketAddr, end: &End, text: &str, unresolved: u64) {
    let cluster = &*shared.cluster;
    let (name, connection) = (cluster.name.as_str(), shared.connection_id);
    let by = match end {
        End::Client(RequestsEnd::Refused(_)) => "client",
        End::Upstream(ResponsesEnd::Refused(_)) => "broker",
        End::Closed(Finding::Idle) => {
            tracing::debug!(cluster = name, %peer, connection, "idle connection closed");
            return;
        }
        End::Closed(finding) => finding.text().0,
        End::Upstream(_) => {
            let first = shared
                .in_flight
                .with_head(|head| (apis::name(head.api_key), head.api_version));
            let unanswered = shared.in_flight.len();
            match first.and_then(|first| cluster.unreachable.admit().map(|suppressed| (first, suppressed))) {
                Some(((api, version), suppressed)) => tracing::info!(
                    cluster = name, %peer, connection, unanswered, unresolved, api, version, suppressed,
                    "broker connection ended with requests unanswered: {text}"
                ),
                None => {
                    tracing::debug!(cluster = name, %peer, connection, unresolved, "broker connection ended: {text}")
                }
            }
            return;
        }
        End::Client(_) | End::Cut => {
            tracing::debug!(cluster = name, %peer, connection, unresolved, "connection ended: {text}");
            return;
        }
    };
    if let Some(suppressed) = cluster.refusals.admit() {
        tracing::warn!(cluster = name, %peer, connection, by, suppressed, "connection closed: {text}");
    }
}
