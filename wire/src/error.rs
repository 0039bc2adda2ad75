//! What can be wrong with bytes from a peer.

use thiserror::Error;

/// Why bytes from a peer could not be read, or must not be passed on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// A value needs more bytes than the message has left.
    #[error("message ends early: {needed} bytes needed at byte {at}, {remaining} left")]
    Truncated {
        /// Where in the message the value begins.
        at: usize,
        /// Bytes the value needs.
        needed: usize,
        /// Bytes there are.
        remaining: usize,
    },
    /// A length or count that no encoder writes: negative (other than -1 for null), or null where
    /// the protocol allows none.
    #[error("bad length {length} at byte {at}")]
    BadLength {
        /// Where the length stands.
        at: usize,
        /// The length as read.
        length: i64,
    },
    /// An array claims more elements than the bytes left can hold.
    #[error("array of {count} elements at byte {at}, but only {remaining} bytes left")]
    TooManyElements {
        /// Where the count stands.
        at: usize,
        /// The count as read.
        count: u64,
        /// Bytes there are.
        remaining: usize,
    },
    /// A variable-length integer that does not end within its maximum size.
    #[error("unterminated variable-length integer at byte {at}")]
    BadVarint {
        /// Where the integer begins.
        at: usize,
    },
    /// A string that is needed as text is not UTF-8.
    #[error("string at byte {at} is not utf-8")]
    NotUtf8 {
        /// Where the text begins.
        at: usize,
    },
    /// A known tagged field whose content does not fill its declared size exactly.
    #[error("tagged field at byte {at} does not fill its declared size of {size} bytes")]
    BadTaggedField {
        /// Where the content begins.
        at: usize,
        /// The declared size.
        size: usize,
    },
    /// Bytes are left over after the whole message was read.
    #[error("{count} bytes left over at byte {at} after the end of the message")]
    TrailingBytes {
        /// Where the message ended.
        at: usize,
        /// How many bytes are left.
        count: usize,
    },
    /// A key or version whose layout is not known here.
    #[error("no layout known for api key {api_key} version {api_version}")]
    UnknownLayout {
        /// The API key.
        api_key: i16,
        /// The version.
        api_version: i16,
    },
    /// A response names a broker for which the proxy has no address of its own. Passing the broker's
    /// address on would let clients bypass the proxy, so the response is not passed on.
    #[error("no proxy address for broker {node_id} named in a response of api key {api_key}")]
    UnmappableNode {
        /// The API key of the response.
        api_key: i16,
        /// The broker's node id.
        node_id: i32,
    },
    /// DescribeCluster listed controllers; their endpoints are not brokers and have no proxy address.
    #[error("the response lists controller endpoints, which the proxy does not serve")]
    ControllerEndpoints,
    /// A value that has to be written does not fit its field.
    #[error("a value of {length} bytes does not fit its field")]
    TooLong {
        /// Its length.
        length: usize,
    },
}

/// What a caller should make of a [`WireError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The peer sent something that is not the protocol: close the connection.
    Malformed,
    /// The peer speaks a version that is not understood here: refuse it.
    NotUnderstood,
    /// Well-formed, but must not reach a client: close the connection, and look at the configuration.
    NotServed,
    /// Our own request was impossible.
    Ours,
}

impl WireError {
    /// The kind of this error; code branches on it, never on the text.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WireError::UnknownLayout { .. } => ErrorKind::NotUnderstood,
            WireError::UnmappableNode { .. } | WireError::ControllerEndpoints => ErrorKind::NotServed,
            WireError::TooLong { .. } => ErrorKind::Ours,
            _ => ErrorKind::Malformed,
        }
    }
}
