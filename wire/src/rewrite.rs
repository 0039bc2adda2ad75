//! Broker addresses in whole responses.
//!
//! Seven responses name brokers by host and port: Metadata, FindCoordinator, DescribeCluster, Produce,
//! Fetch, ShareFetch and ShareAcknowledge. Their layouts say where; host and port are spliced in and
//! every other byte stays as the broker sent it, tagged fields unknown here included. A response whose
//! brokers cannot all be mapped is not passed on: it would show clients a way around the proxy.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::schema::{Layout, Role, Visitor, walk};
use crate::{WireError, apis, write};

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
/// [`crate::fetch_response::TailScanner`]. True also for versions newer than understood, which those
/// two then refuse.
pub fn carries_addresses(api_key: i16, version: i16) -> bool {
    match api_key {
        apis::PRODUCE => version >= 10,
        apis::FETCH => version >= 16,
        _ => apis::newest_understood(api_key).is_some(),
    }
}

/// Replaces every broker address in a response body (the bytes after the response header).
///
/// Responses of other keys, and of versions that carry no addresses, are returned as they are.
pub fn rewrite_response(
    api_key: i16,
    version: i16,
    body: Bytes,
    mapper: &mut NodeMapper<'_>,
) -> Result<Rewritten, WireError> {
    if !carries_addresses(api_key, version) {
        return Ok(Rewritten {
            body,
            nodes: Vec::new(),
        });
    }
    let layout = Layout::of_response(api_key, version)?;
    let mut rewriter = Rewriter {
        api_key,
        flexible: layout.flexible,
        body: &body,
        mapper,
        node_id: 0,
        host: None,
        lists_controllers: false,
        splices: Vec::new(),
        open_tags: Vec::new(),
        nodes: Vec::new(),
    };
    walk(&layout, &body, &mut rewriter)?;
    let Rewriter { splices, nodes, .. } = rewriter;
    Ok(Rewritten {
        body: splice(&body, &splices),
        nodes,
    })
}

/// Bytes to put in the place of others.
#[derive(Debug)]
pub(crate) struct Splice {
    pub(crate) span: Range<usize>,
    pub(crate) bytes: Bytes,
}

/// Applies splices, which must be in order and apart from each other.
pub(crate) fn splice(body: &Bytes, splices: &[Splice]) -> Bytes {
    if splices.is_empty() {
        return body.clone();
    }
    let added: usize = splices.iter().map(|splice| splice.bytes.len()).sum();
    let mut out = BytesMut::with_capacity(body.len().saturating_add(added));
    let mut copied = 0;
    for splice in splices {
        out.put_slice(
            body.get(copied..splice.span.start)
                .expect("splices are in order and inside the body"),
        );
        out.put_slice(&splice.bytes);
        copied = splice.span.end;
    }
    out.put_slice(body.get(copied..).expect("the last splice ends inside the body"));
    out.freeze()
}

struct Rewriter<'a, 'm> {
    api_key: i16,
    flexible: bool,
    body: &'a [u8],
    mapper: &'a mut NodeMapper<'m>,
    node_id: i32,
    host: Option<Host>,
    lists_controllers: bool,
    splices: Vec<Splice>,
    open_tags: Vec<OpenTag>,
    nodes: Vec<NodeAddress>,
}

/// A host that waits for its port.
struct Host {
    span: Range<usize>,
    content: Option<Range<usize>>,
}

/// A tagged field whose size changes with what is spliced into it.
struct OpenTag {
    size: usize,
    /// The place held for the new size among the splices.
    splice_index: usize,
}

/// DescribeCluster: the listed endpoints are controllers.
const ENDPOINT_TYPE_CONTROLLERS: u8 = 2;

impl Visitor for Rewriter<'_, '_> {
    fn fixed(&mut self, role: Role, at: usize, bytes: &[u8]) -> Result<(), WireError> {
        match role {
            Role::NodeId => self.node_id = int32(bytes),
            Role::Port => self.address(at, int32(bytes))?,
            Role::EndpointType => self.lists_controllers = bytes == [ENDPOINT_TYPE_CONTROLLERS],
            _ => {}
        }
        Ok(())
    }

    fn text(
        &mut self,
        role: Role,
        span: Range<usize>,
        content: Option<Range<usize>>,
    ) -> Result<(), WireError> {
        if role == Role::Host {
            self.host = Some(Host { span, content });
        }
        Ok(())
    }

    fn enter_tagged(&mut self, size_span: Range<usize>, size: usize) {
        self.open_tags.push(OpenTag {
            size,
            splice_index: self.splices.len(),
        });
        let unchanged = self.body.get(size_span.clone()).unwrap_or_default();
        self.splices.push(Splice {
            span: size_span,
            bytes: Bytes::copy_from_slice(unchanged),
        });
    }

    fn leave_tagged(&mut self) -> Result<(), WireError> {
        let Some(tag) = self.open_tags.pop() else {
            return Ok(());
        };
        let inside = self
            .splices
            .get(tag.splice_index.saturating_add(1)..)
            .unwrap_or_default();
        if inside.is_empty() {
            // Nothing was changed in it: the size stays, in whatever encoding the broker chose.
            self.splices.truncate(tag.splice_index);
            return Ok(());
        }
        let added: usize = inside.iter().map(|splice| splice.bytes.len()).sum();
        let removed: usize = inside.iter().map(|splice| splice.span.len()).sum();
        let size = tag.size.saturating_add(added).saturating_sub(removed);
        let size_on_wire = u32::try_from(size).map_err(|_| WireError::TooLong { length: size })?;
        let mut bytes = BytesMut::with_capacity(5);
        write::put_unsigned_varint(&mut bytes, size_on_wire);
        if let Some(placeholder) = self.splices.get_mut(tag.splice_index) {
            placeholder.bytes = bytes.freeze();
        }
        Ok(())
    }
}

impl Rewriter<'_, '_> {
    /// A port ends an address: node id and host came before it.
    fn address(&mut self, port_at: usize, port: i32) -> Result<(), WireError> {
        let host = self.host.take();
        let node_id = self.node_id;
        // A coordinator that was not found: node -1, host "", port -1. With a host it would lead somewhere.
        let leads_nowhere = host
            .as_ref()
            .and_then(|host| host.content.as_ref())
            .is_none_or(|content| content.is_empty());
        if self.api_key == apis::FIND_COORDINATOR && node_id < 0 && leads_nowhere {
            return Ok(());
        }
        if self.lists_controllers {
            return Err(WireError::ControllerEndpoints);
        }
        let unmappable = WireError::UnmappableNode {
            api_key: self.api_key,
            node_id,
        };
        let Some(Host {
            span,
            content: Some(content),
        }) = host
        else {
            return Err(unmappable);
        };
        let text_at = content.start;
        let text = std::str::from_utf8(self.body.get(content).unwrap_or_default());
        let text = text.map_err(|_| WireError::NotUtf8 { at: text_at })?;
        let (new_host, new_port) = (self.mapper)(node_id, text, port).ok_or(unmappable)?;
        self.nodes.push(NodeAddress {
            node_id,
            host: text.to_owned(),
            port,
        });

        let mut bytes = BytesMut::with_capacity(new_host.len().saturating_add(5));
        write::put_string(&mut bytes, &new_host, self.flexible)?;
        self.splices.push(Splice {
            span,
            bytes: bytes.freeze(),
        });
        let bytes = Bytes::copy_from_slice(&i32::from(new_port).to_be_bytes());
        self.splices.push(Splice {
            span: port_at..port_at.saturating_add(4),
            bytes,
        });
        Ok(())
    }
}

fn int32(bytes: &[u8]) -> i32 {
    bytes.try_into().map_or(-1, i32::from_be_bytes)
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
