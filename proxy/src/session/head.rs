//! What the request loop goes by: the start of a request, how it passes, and why there are no more.

use std::fmt;

use teeline_wire::{WireError, apis};

use super::Refused;
use super::in_flight::{Expect, Request};
use super::observer::Topic;
use crate::metrics::Closed;
use crate::observe::Traced;

/// Why the client's side came to its end.
#[derive(Debug)]
pub(crate) enum RequestsEnd {
    /// The client sends no more.
    ClientClosed,
    /// The client's connection failed.
    ClientFailed(std::io::Error),
    /// The broker's connection takes no more.
    UpstreamFailed(std::io::Error),
    /// The proxy is stopping, and no request is half forwarded.
    Draining,
    /// The client sent what cannot be forwarded.
    Refused(Refused),
}

impl fmt::Display for RequestsEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestsEnd::ClientClosed => out.write_str("the client closed the connection"),
            RequestsEnd::ClientFailed(error) => write!(out, "the client's connection failed: {error}"),
            RequestsEnd::UpstreamFailed(error) => {
                write!(out, "the broker's connection takes no more: {error}")
            }
            RequestsEnd::Draining => {
                out.write_str("no further request is taken: the proxy is stopping, or the session ends")
            }
            RequestsEnd::Refused(refused) => out.write_str(&refused.text),
        }
    }
}

impl From<Refused> for RequestsEnd {
    fn from(refused: Refused) -> Self {
        RequestsEnd::Refused(refused)
    }
}

/// The fixed start of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) api_key: i16,
    pub(super) api_version: i16,
    pub(super) correlation_id: i32,
}

impl Head {
    pub(super) fn expecting(self, expect: Expect, trace: Option<Box<Traced>>) -> Request {
        Request {
            api_key: self.api_key,
            api_version: self.api_version,
            correlation_id: self.correlation_id,
            expect,
            trace,
        }
    }

    pub(super) fn topic(self) -> Topic {
        Topic {
            api_key: self.api_key,
            api_version: self.api_version,
            correlation_id: self.correlation_id,
        }
    }
}

/// How a request passes.
pub(super) enum Passage {
    /// Unread, with this to be done about the answer.
    Stream(Expect),
    /// Read whole first; at most so many bytes.
    Whole(usize),
}

/// The client sent what cannot be read.
pub(super) fn malformed(api_key: Option<i16>, error: &WireError) -> RequestsEnd {
    let what = api_key.map_or("request header", apis::name);
    let mut refused = Refused::new(Closed::ClientMalformed, format!("malformed {what}: {error}"));
    refused.api_key = api_key;
    refused.into()
}
