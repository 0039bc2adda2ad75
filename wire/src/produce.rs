//! Produce: what is captured.
//!
//! Requests and responses of versions 0 to 13 are taken apart without copying records. Requests are
//! forwarded as received, so nothing here encodes one; the only encoding is the error response that
//! answers a request which is not forwarded.

mod request;
mod response;

use std::sync::Arc;

use uuid::Uuid;

use crate::{WireError, apis};

pub use request::{ProduceEntry, ProduceRequest, parse_acks, parse_request};
pub use response::{
    CurrentLeader, ProduceOutcome, ProduceResponse, error_response, parse_response, parse_response_whole,
};

/// The newest version whose layout is known.
pub const NEWEST_VERSION: i16 = 13;

/// A topic as a message names it: by name up to version 12, by id from version 13.
///
/// The name does not share memory with the frame it was read from: outcomes are awaited long after
/// the frame has been forwarded, and must not keep it alive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(Arc<str>),
    /// By topic id.
    Id(Uuid),
}

impl TopicRef {
    /// The name, if the message gave one.
    pub fn name(&self) -> Option<&str> {
        match self {
            TopicRef::Name(name) => Some(name),
            TopicRef::Id(_) => None,
        }
    }

    /// The topic id, if the message gave one.
    pub fn id(&self) -> Option<Uuid> {
        match self {
            TopicRef::Name(_) => None,
            TopicRef::Id(id) => Some(*id),
        }
    }
}

/// What each version of the messages has.
#[derive(Debug, Clone, Copy)]
struct Layout {
    version: i16,
    flexible: bool,
}

impl Layout {
    fn of(version: i16) -> Result<Layout, WireError> {
        if !(0..=NEWEST_VERSION).contains(&version) {
            return Err(WireError::UnknownLayout {
                api_key: apis::PRODUCE,
                api_version: version,
            });
        }
        Ok(Layout {
            version,
            flexible: apis::is_flexible(apis::PRODUCE, version) == Some(true),
        })
    }

    fn topics_by_id(self) -> bool {
        self.version >= 13
    }

    fn has_transactional_id(self) -> bool {
        self.version >= 3
    }

    fn has_throttle_time(self) -> bool {
        self.version >= 1
    }

    fn has_log_append_time(self) -> bool {
        self.version >= 2
    }

    fn has_log_start_offset(self) -> bool {
        self.version >= 5
    }

    fn has_record_errors(self) -> bool {
        self.version >= 8
    }

    fn has_leader_hints(self) -> bool {
        self.version >= 10
    }
}

fn read_topic(reader: &mut crate::read::Reader<'_>, layout: Layout) -> Result<TopicRef, WireError> {
    match layout.topics_by_id() {
        true => reader.uuid().map(TopicRef::Id),
        false => reader
            .string(layout.flexible)
            .map(|name| TopicRef::Name(name.into())),
    }
}

#[cfg(test)]
#[path = "produce_tests.rs"]
mod tests;
