//! Message layouts as tables, and a walker over them.
//!
//! A layout says, field by field, what a message holds in which version. The walker follows it through
//! the bytes, checks every length against what remains, and reports the few fields that somebody asked
//! for by giving them a role. Unknown tagged fields are passed over; a version newer than the table
//! is refused, never guessed.
//!
//! Two uses: finding broker addresses (`rewrite`, `fetch_response`), and [`precheck`], which goes before
//! every decode by the kafka-protocol crate: its array decoder allocates what the wire claims.

mod requests;
mod responses;
mod walk;

use crate::{WireError, apis};

pub(crate) use walk::{Visitor, walk};

/// Checks that a body is well-formed in its whole length: every string, array and tagged field ends
/// within the bytes there are, and nothing is left over. After that, decoding the body with
/// kafka-protocol allocates in proportion to its size.
///
/// A key or version without a layout is an error, so that no message reaches the decoder unchecked.
pub fn precheck(api_key: i16, version: i16, is_response: bool, body: &[u8]) -> Result<(), WireError> {
    let layout = match is_response {
        true => Layout::of_response(api_key, version)?,
        false => Layout::of_request(api_key, version)?,
    };
    walk(&layout, body, &mut NothingToReport)
}

struct NothingToReport;

impl Visitor for NothingToReport {}

/// The layout of a message in one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) version: i16,
    pub(crate) flexible: bool,
    pub(crate) fields: &'static [Field],
}

impl Layout {
    pub(crate) fn of_response(api_key: i16, version: i16) -> Result<Layout, WireError> {
        Layout::find(responses::RESPONSES, api_key, version)
    }

    pub(crate) fn of_request(api_key: i16, version: i16) -> Result<Layout, WireError> {
        Layout::find(requests::REQUESTS, api_key, version)
    }

    fn find(messages: &'static [Message], api_key: i16, version: i16) -> Result<Layout, WireError> {
        let known = messages.iter().find(|message| message.api_key == api_key);
        let known = known.filter(|message| (0..=message.newest).contains(&version));
        match (known, apis::is_flexible(api_key, version)) {
            (Some(message), Some(flexible)) => Ok(Layout {
                version,
                flexible,
                fields: message.fields,
            }),
            _ => Err(WireError::UnknownLayout {
                api_key,
                api_version: version,
            }),
        }
    }
}

/// A message in all its versions.
#[derive(Debug)]
struct Message {
    api_key: i16,
    /// The newest version the table describes.
    newest: i16,
    fields: &'static [Field],
}

/// A field of a structure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) kind: Kind,
    pub(crate) role: Role,
    /// The field's tag, if it is a tagged field.
    pub(crate) tag: Option<u32>,
    from: i16,
    until: i16,
}

impl Field {
    /// Whether a version has this field.
    pub(crate) fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.until
    }

    /// The field ends with this version.
    const fn until(mut self, version: i16) -> Field {
        self.until = version;
        self
    }

    const fn role(mut self, role: Role) -> Field {
        self.role = role;
        self
    }

    const fn tag(mut self, tag: u32) -> Field {
        self.tag = Some(tag);
        self
    }
}

/// How a field is encoded. Nothing here says whether null is allowed: for walking it does not matter.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// So many bytes.
    Fixed(u8),
    /// A string.
    Text,
    /// Bytes or records.
    Blob,
    /// An array.
    Array(&'static Kind),
    /// A structure; in flexible versions a section of tagged fields ends it.
    Struct(&'static [Field]),
}

/// What a field means to whoever walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// A broker's node id; host and port follow in the same structure.
    NodeId,
    /// A broker's host.
    Host,
    /// A broker's port.
    Port,
    /// DescribeCluster: whether brokers or controllers are listed.
    EndpointType,
    /// An array of brokers that clients can do without.
    NodeHints,
}

const fn field(from: i16, kind: Kind) -> Field {
    Field {
        kind,
        role: Role::Plain,
        tag: None,
        from,
        until: i16::MAX,
    }
}

/// A bool or an int8.
const fn byte(from: i16) -> Field {
    field(from, Kind::Fixed(1))
}

const fn int16(from: i16) -> Field {
    field(from, Kind::Fixed(2))
}

const fn int32(from: i16) -> Field {
    field(from, Kind::Fixed(4))
}

const fn int64(from: i16) -> Field {
    field(from, Kind::Fixed(8))
}

const fn uuid(from: i16) -> Field {
    field(from, Kind::Fixed(16))
}

const fn text(from: i16) -> Field {
    field(from, Kind::Text)
}

const fn blob(from: i16) -> Field {
    field(from, Kind::Blob)
}

const fn array(from: i16, element: &'static Kind) -> Field {
    field(from, Kind::Array(element))
}

const fn nested(from: i16, fields: &'static [Field]) -> Field {
    field(from, Kind::Struct(fields))
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
