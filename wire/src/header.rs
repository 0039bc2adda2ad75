//! Request and response headers.
//!
//! A request header is: key, version, correlation id, client id (never compact), and, in flexible
//! versions, tagged fields. A response header is the correlation id and, in flexible versions, tagged
//! fields; ApiVersions is the exception, its response header never has tagged fields.

use bytes::{BufMut, Bytes, BytesMut};

use crate::read::Reader;
use crate::{WireError, apis};

/// The head of a request, as far as it can be read without knowing the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Which API; possibly one that is not known here.
    pub api_key: i16,
    /// Which version of it; possibly one that does not exist.
    pub api_version: i16,
    /// The client's number for the request; the response repeats it.
    pub correlation_id: i32,
    /// What the client calls itself. None when absent, null or not UTF-8.
    pub client_id: Option<&'a str>,
    /// Where the body begins. For an unknown key the tagged fields, if there are any, count as body.
    pub header_len: usize,
}

/// The shortest request header there is: key, version, correlation id.
pub const REQUEST_HEADER_BYTES_MIN: usize = 8;

/// The correlation id at the start of a response.
pub const CORRELATION_ID_BYTES: usize = 4;

impl<'a> RequestHeader<'a> {
    /// Reads the header at the start of a frame (without the frame's length).
    pub fn parse(frame: &'a [u8]) -> Result<RequestHeader<'a>, WireError> {
        let mut reader = Reader::new(frame);
        let api_key = reader.i16()?;
        let api_version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let mut client_id = None;
        if has_client_id(api_key, api_version) {
            // A client id that is not text is the client's own business: brokers accept it.
            let range = reader.nullable_string_range(false)?;
            client_id = range.and_then(|range| reader.text(range).ok());
        }
        if apis::is_flexible(api_key, api_version) == Some(true) {
            reader.skip_tagged_fields()?;
        }
        Ok(RequestHeader {
            api_key,
            api_version,
            correlation_id,
            client_id,
            header_len: reader.position(),
        })
    }
}

/// Whether responses to this key and version have tagged fields in their header. False for unknown
/// keys, whose responses are not read.
pub fn response_header_is_flexible(api_key: i16, api_version: i16) -> bool {
    api_key != apis::API_VERSIONS && apis::is_flexible(api_key, api_version) == Some(true)
}

/// Reads a response header and returns the correlation id and where the body begins.
pub fn parse_response_header(
    api_key: i16,
    api_version: i16,
    frame: &[u8],
) -> Result<(i32, usize), WireError> {
    let mut reader = Reader::new(frame);
    let correlation_id = reader.i32()?;
    reader.skip_tagged_fields_if(response_header_is_flexible(api_key, api_version))?;
    Ok((correlation_id, reader.position()))
}

/// A whole response frame, length included, around a body.
pub fn response_frame(
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
    body: &[u8],
) -> Result<Bytes, WireError> {
    let flexible = response_header_is_flexible(api_key, api_version);
    let length = CORRELATION_ID_BYTES
        .saturating_add(usize::from(flexible))
        .saturating_add(body.len());
    let claimed = i32::try_from(length).map_err(|_| WireError::TooLong { length })?;
    let mut out = BytesMut::with_capacity(length.saturating_add(4));
    out.put_i32(claimed);
    out.put_i32(correlation_id);
    crate::write::put_no_tagged_fields(&mut out, flexible);
    out.put_slice(body);
    Ok(out.freeze())
}

/// A whole response frame, length included, with the header bytes of the frame that `content` is (without
/// its length) and another body: for a response whose body was changed. Tagged fields of the header stay.
pub fn replace_body(content: &[u8], body_at: usize, body: &[u8]) -> Result<Bytes, WireError> {
    let header = content.get(..body_at).unwrap_or(content);
    let length = header.len().saturating_add(body.len());
    let claimed = i32::try_from(length).map_err(|_| WireError::TooLong { length })?;
    let mut out = BytesMut::with_capacity(length.saturating_add(4));
    out.put_i32(claimed);
    out.put_slice(header);
    out.put_slice(body);
    Ok(out.freeze())
}

/// ControlledShutdown version 0 is the one request without a client id.
fn has_client_id(api_key: i16, api_version: i16) -> bool {
    const CONTROLLED_SHUTDOWN: i16 = 7;
    !(api_key == CONTROLLED_SHUTDOWN && api_version == 0)
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
