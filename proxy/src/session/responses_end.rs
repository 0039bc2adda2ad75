//! Why the broker's side of a connection came to its end.

use std::fmt;

use super::Refused;

/// Why the broker's side came to its end.
#[derive(Debug)]
pub(crate) enum ResponsesEnd {
    /// The client's side ended before, and everything that matters was answered.
    Drained,
    /// The broker closed the connection.
    UpstreamClosed,
    /// The broker's connection failed.
    UpstreamFailed(std::io::Error),
    /// The broker sent what must not be passed on.
    Refused(Refused),
}

impl fmt::Display for ResponsesEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponsesEnd::Drained => out.write_str("everything was answered"),
            ResponsesEnd::UpstreamClosed => out.write_str("the broker closed the connection"),
            ResponsesEnd::UpstreamFailed(error) => write!(out, "the broker's connection failed: {error}"),
            ResponsesEnd::Refused(refused) => out.write_str(&refused.text),
        }
    }
}

impl From<Refused> for ResponsesEnd {
    fn from(refused: Refused) -> Self {
        ResponsesEnd::Refused(refused)
    }
}
