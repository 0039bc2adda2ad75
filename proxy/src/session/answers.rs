//! Answers that are read whole: noted, rewritten or narrowed, each by what its request was.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use teeline_wire::end_txn::EndTxnRequest;
use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::metadata_head::{self, Head};
use teeline_wire::{ErrorKind, WireError, api_versions, apis, end_txn, header, produce, rewrite};

use super::in_flight::{Captured, Expect, Request};
use super::outbox::Gate;
use super::responses_end::ResponsesEnd;
use super::{Refused, Shared};
use crate::metrics::{Closed, Side};
use crate::topology::Authority;

/// An answer that was read whole.
struct Answer {
    request: Request,
    /// With its length.
    frame: Bytes,
    body_at: usize,
    body: Bytes,
}

/// Deals with an answer that was read whole: the frame to pass on, and what it has to wait for.
pub(super) async fn whole(
    shared: &Shared,
    request: Request,
    frame: Bytes,
) -> Result<(Bytes, Option<Gate>), ResponsesEnd> {
    let content = frame.slice(LENGTH_BYTES..);
    let (_, body_at) = header::parse_response_header(request.api_key, request.api_version, &content)
        .map_err(|error| refused(&request, &error))?;
    let body = content.slice(body_at.min(content.len())..);
    let answer = Answer {
        request,
        frame,
        body_at,
        body,
    };
    match &answer.request.expect {
        Expect::Produce(captured) => answer.produced(shared, captured).await,
        Expect::EndTxn(ended) => answer.transaction_ended(shared, ended).await,
        Expect::ApiVersions => {
            let narrowed = api_versions::narrow(answer.request.api_version, &answer.body);
            let narrowed = narrowed.map_err(|error| refused(&answer.request, &error))?;
            Ok((answer.with_body(&narrowed)?, None))
        }
        Expect::SaslAuthenticate => {
            match answer.body.first_chunk::<2>() {
                Some(&[0, 0]) => shared.authentication.round_succeeded(),
                _ => sasl_failed(shared, "refused"),
            }
            Ok((answer.frame, None))
        }
        Expect::Metadata { asked_after } => {
            let frame = answer.rewritten(shared)?;
            if shared.authentication.not_asked() {
                // A broker that wants SASL closes instead of answering.
                shared.live.upstream.openness.seen_open();
            }
            let version = answer.request.api_version;
            shared
                .cluster
                .observe_metadata(version, &answer.body, *asked_after)
                .await;
            Ok((frame, None))
        }
        Expect::Addresses => Ok((answer.rewritten(shared)?, None)),
        Expect::SaslHandshake => {
            if answer.body.first_chunk::<2>() != Some(&[0, 0]) {
                sasl_failed(shared, "mechanism");
            }
            Ok((answer.frame, None))
        }
        Expect::Pass | Expect::SaslToken | Expect::Local(_) => Ok((answer.frame, None)),
    }
}

impl Answer {
    async fn produced(
        &self,
        shared: &Shared,
        captured: &Captured,
    ) -> Result<(Bytes, Option<Gate>), ResponsesEnd> {
        let response = produce::parse_response_whole(self.request.api_version, &self.body)
            .map_err(|error| refused(&self.request, &error))?;
        let gate = match &shared.cluster.capture {
            Some(capture) => {
                let noted = capture
                    .response(captured, &response.outcomes, shared.node_id)
                    .await;
                shared.settled(noted.settled);
                if !noted.recorded {
                    shared.untracked.store(true, Ordering::Relaxed);
                }
                noted.gate
            }
            None => None,
        };
        match response.has_node_endpoints {
            true => Ok((self.rewritten(shared)?, gate)),
            false => Ok((self.frame.clone(), gate)),
        }
    }

    async fn transaction_ended(
        &self,
        shared: &Shared,
        ended: &EndTxnRequest,
    ) -> Result<(Bytes, Option<Gate>), ResponsesEnd> {
        let response = end_txn::parse_response(self.request.api_version, &self.body)
            .map_err(|error| refused(&self.request, &error))?;
        let gate = match &shared.cluster.capture {
            Some(capture) if response.error_code == 0 => capture.transaction_ended(ended).await,
            _ => None,
        };
        Ok((self.frame.clone(), gate))
    }

    /// The frame with the proxy's addresses in the place of the brokers'.
    fn rewritten(&self, shared: &Shared) -> Result<Bytes, ResponsesEnd> {
        let topology = &shared.cluster.topology;
        let Request {
            api_key, api_version, ..
        } = self.request;
        let authority = match api_key {
            _ if !shared.is_current() => Authority::Former,
            apis::METADATA => Authority::Metadata,
            _ => Authority::Hint,
        };
        let mut mapper =
            |node_id: i32, host: &str, port: i32| topology.advertise(node_id, host, port, authority);
        let rewritten = rewrite::rewrite_response(api_key, api_version, self.body.clone(), &mut mapper)
            .map_err(|error| refused(&self.request, &error))?;
        self.with_body(&rewritten.body)
    }

    fn with_body(&self, body: &Bytes) -> Result<Bytes, ResponsesEnd> {
        // Nothing was changed: it is still the same memory.
        if body.as_ptr() == self.body.as_ptr() && body.len() == self.body.len() {
            return Ok(self.frame.clone());
        }
        let content = self.frame.get(LENGTH_BYTES..).unwrap_or_default();
        header::replace_body(content, self.body_at, body).map_err(|error| refused(&self.request, &error))
    }
}

/// The head of a Metadata answer that is not held, with the proxy's addresses; none when more of it is needed.
pub(super) fn metadata_head(
    shared: &Shared,
    version: i16,
    length: usize,
    arrived: &[u8],
) -> Result<Option<Head>, ResponsesEnd> {
    let topology = &shared.cluster.topology;
    let authority = match shared.is_current() {
        true => Authority::Metadata,
        false => Authority::Former,
    };
    let mut mapper = |node_id: i32, host: &str, port: i32| topology.advertise(node_id, host, port, authority);
    let head = metadata_head::rewrite_head(version, length, arrived, &mut mapper)
        .map_err(|error| refused_as(apis::METADATA, version, &error))?;
    if head.is_some() && shared.authentication.not_asked() {
        // A broker that wants SASL closes instead of answering.
        shared.live.upstream.openness.seen_open();
    }
    Ok(head)
}

/// What an answer that cannot be passed on ends the connection with.
pub(super) fn refused(request: &Request, error: &WireError) -> ResponsesEnd {
    refused_as(request.api_key, request.api_version, error)
}

fn refused_as(api_key: i16, api_version: i16, error: &WireError) -> ResponsesEnd {
    let closed = match error.kind() {
        ErrorKind::NotServed => Closed::Unmappable,
        ErrorKind::NotUnderstood => Closed::NotUnderstood,
        ErrorKind::Malformed | ErrorKind::Ours => Closed::UpstreamMalformed,
    };
    let text = format!("{} response version {api_version}: {error}", apis::name(api_key));
    Refused::new(closed, text).of(api_key).into()
}

fn sasl_failed(shared: &Shared, reason: &'static str) {
    if let Some(mechanism) = shared.authentication.mechanism() {
        let metrics = &shared.cluster.metrics;
        metrics.sasl_failure(Side::Client, mechanism, reason);
    }
}
