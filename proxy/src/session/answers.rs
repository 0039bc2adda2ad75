//! Answers that are read whole: noted, rewritten or narrowed, each by what its request was.

use bytes::Bytes;
use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::{
    ErrorKind, WireError, api_versions, apis, end_txn, header, produce as wire_produce, rewrite,
};

use super::in_flight::{Captured, Expect, Request};
use super::outbox::Gate;
use super::responses::ResponsesEnd;
use super::{Refused, Shared};
use crate::metrics::Closed;
use crate::topology::Authority;

/// Deals with an answer that was read whole: the frame to pass on, and what it has to wait for.
pub(super) async fn whole(
    shared: &Shared,
    request: Request,
    frame: Bytes,
) -> Result<(Bytes, Option<Gate>), ResponsesEnd> {
    let Request {
        api_key, api_version, ..
    } = request;
    let content = frame.slice(LENGTH_BYTES..);
    let (_, body_at) = header::parse_response_header(api_key, api_version, &content)
        .map_err(|error| refused(&request, &error))?;
    let body = content.slice(body_at.min(content.len())..);
    match &request.expect {
        Expect::Produce(captured) => produce(shared, &request, captured, frame, body).await,
        Expect::EndTxn(ended) => {
            let answer =
                end_txn::parse_response(api_version, &body).map_err(|error| refused(&request, &error))?;
            let gate = match &shared.cluster.capture {
                Some(capture) if answer.error_code == 0 => capture.transaction_ended(ended).await,
                _ => None,
            };
            Ok((frame, gate))
        }
        Expect::ApiVersions => {
            let narrowed =
                api_versions::narrow(api_version, &body).map_err(|error| refused(&request, &error))?;
            Ok((reframe(&request, &narrowed)?, None))
        }
        Expect::SaslAuthenticate => {
            if body.first_chunk::<2>() == Some(&[0, 0]) {
                shared.authentication.round_succeeded();
            }
            Ok((frame, None))
        }
        Expect::Metadata { asked_after } => {
            let rewritten = rewritten(shared, &request, body.clone())?;
            if shared.authentication.not_asked() {
                // A broker that wants SASL closes instead of answering.
                shared.cluster.seen_open();
            }
            shared
                .cluster
                .observe_metadata(api_version, &body, *asked_after)
                .await;
            Ok((rewritten, None))
        }
        Expect::Addresses => Ok((rewritten(shared, &request, body)?, None)),
        Expect::Pass | Expect::SaslHandshake | Expect::SaslToken | Expect::Local(_) => Ok((frame, None)),
    }
}

async fn produce(
    shared: &Shared,
    request: &Request,
    captured: &Captured,
    frame: Bytes,
    body: Bytes,
) -> Result<(Bytes, Option<Gate>), ResponsesEnd> {
    let answer =
        wire_produce::parse_response_whole(request.api_version, &body).map_err(|e| refused(request, &e))?;
    let gate = match &shared.cluster.capture {
        Some(capture) => {
            let (gate, settled) = capture.response(captured, &answer.outcomes).await;
            shared.settled(settled);
            gate
        }
        None => None,
    };
    match answer.has_node_endpoints {
        true => Ok((rewritten(shared, request, body)?, gate)),
        false => Ok((frame, gate)),
    }
}

fn rewritten(shared: &Shared, request: &Request, body: Bytes) -> Result<Bytes, ResponsesEnd> {
    let topology = &shared.cluster.topology;
    let authority = match request.api_key {
        apis::METADATA => Authority::Metadata,
        _ => Authority::Hint,
    };
    let mut mapper = |node_id: i32, host: &str, port: i32| topology.advertise(node_id, host, port, authority);
    let rewritten = rewrite::rewrite_response(request.api_key, request.api_version, body, &mut mapper)
        .map_err(|error| refused(request, &error))?;
    reframe(request, &rewritten.body)
}

fn reframe(request: &Request, body: &[u8]) -> Result<Bytes, ResponsesEnd> {
    header::response_frame(request.api_key, request.api_version, request.correlation_id, body)
        .map_err(|error| refused(request, &error))
}

/// What an answer that cannot be passed on ends the connection with.
pub(super) fn refused(request: &Request, error: &WireError) -> ResponsesEnd {
    let closed = match error.kind() {
        ErrorKind::NotServed => Closed::Unmappable,
        ErrorKind::NotUnderstood => Closed::NotUnderstood,
        ErrorKind::Malformed | ErrorKind::Ours => Closed::UpstreamMalformed,
    };
    let text = format!(
        "{} response version {}: {error}",
        apis::name(request.api_key),
        request.api_version
    );
    Refused::new(closed, text).into()
}
