//! Broker addresses in Metadata responses that are too large to be held.
//!
//! A Metadata response names the brokers first; what follows, the topics of the whole cluster, can be a hundred megabytes
//! and has no addresses. So only its head is read, and written again with the proxy's addresses; the rest passes as it is.
//! The length of the frame stands before the head, and changes by as much as the head does.

use bytes::{BufMut, Bytes, BytesMut};

use crate::header::parse_response_header;
use crate::read::Reader;
use crate::rewrite::NodeMapper;
use crate::{WireError, apis, write};

/// The head of a response, as clients may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// So many bytes of the frame it takes the place of, from the correlation id on.
    pub replaced: usize,
    /// What is sent in their place, the frame's new length before it.
    pub bytes: Bytes,
}

/// Where a broker's address stands.
struct Found<'a> {
    node_id: i32,
    host: &'a str,
    port: i32,
    /// From its host to the end of its port.
    from: usize,
    to: usize,
}

/// Reads the head from what has arrived of a frame of `length` bytes, without its length; none when more is needed.
pub fn rewrite_head(
    version: i16,
    length: usize,
    arrived: &[u8],
    mapper: &mut NodeMapper<'_>,
) -> Result<Option<Head>, WireError> {
    if !(0..=apis::newest_understood(apis::METADATA).unwrap_or(-1)).contains(&version) {
        let (api_key, api_version) = (apis::METADATA, version);
        return Err(WireError::UnknownLayout { api_key, api_version });
    }
    let (found, end) = match find(version, arrived) {
        Ok(read) => read,
        // The rest of the frame may hold what is missing.
        Err(WireError::Truncated { at, needed, .. }) if at.saturating_add(needed) <= length => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let flexible = apis::is_flexible(apis::METADATA, version) == Some(true);
    let mut out = BytesMut::with_capacity(end.saturating_add(1024));
    out.put_i32(0);
    let mut copied = 0;
    for broker in found {
        let (api_key, node_id) = (apis::METADATA, broker.node_id);
        let mapped = mapper(node_id, broker.host, broker.port);
        let (host, port) = mapped.ok_or(WireError::UnmappableNode { api_key, node_id })?;
        out.put_slice(arrived.get(copied..broker.from).unwrap_or_default());
        write::put_string(&mut out, &host, flexible)?;
        out.put_i32(i32::from(port));
        copied = broker.to;
    }
    out.put_slice(arrived.get(copied..end).unwrap_or_default());
    let new = length
        .saturating_sub(end)
        .saturating_add(out.len().saturating_sub(4));
    let claimed = i32::try_from(new).map_err(|_| WireError::TooLong { length: new })?;
    if let Some(place) = out.first_chunk_mut::<4>() {
        *place = claimed.to_be_bytes();
    }
    Ok(Some(Head {
        replaced: end,
        bytes: out.freeze(),
    }))
}

/// The brokers, and where their array ends.
fn find(version: i16, arrived: &[u8]) -> Result<(Vec<Found<'_>>, usize), WireError> {
    let flexible = apis::is_flexible(apis::METADATA, version) == Some(true);
    let (_, body_at) = parse_response_header(apis::METADATA, version, arrived)?;
    let mut reader = Reader::new(arrived);
    reader.skip(body_at)?;
    if version >= 3 {
        reader.skip(THROTTLE_TIME_BYTES)?;
    }
    let at = reader.position();
    let count = match flexible {
        true => i64::from(reader.unsigned_varint()?) - 1,
        false => i64::from(reader.i32()?),
    };
    if count < 0 {
        return Err(WireError::BadLength { at, length: count });
    }
    let mut found = Vec::new();
    for _ in 0..count {
        let node_id = reader.i32()?;
        let from = reader.position();
        let (host, port) = (reader.string(flexible)?, reader.i32()?);
        found.push(Found {
            node_id,
            host,
            port,
            from,
            to: reader.position(),
        });
        if version >= 1 {
            // The rack: not ours to read, so it need not be text.
            reader.nullable_string_range(flexible)?;
        }
        reader.skip_tagged_fields_if(flexible)?;
    }
    Ok((found, reader.position()))
}

const THROTTLE_TIME_BYTES: usize = 4;

#[cfg(test)]
#[path = "metadata_head_tests.rs"]
mod tests;
