//! Narrowing what brokers offer to what is understood here.

use bytes::Bytes;

use crate::WireError;

/// The newest version of ApiVersions whose response is understood.
pub const NEWEST_VERSION: i16 = 5;

/// Narrows a response body.
pub fn narrow(version: i16, body: &Bytes) -> Result<Bytes, WireError> {
    let _ = version;
    Ok(body.clone())
}

/// The body that answers an ApiVersions request newer than [`NEWEST_VERSION`].
pub fn unsupported_version_response() -> Bytes {
    Bytes::new()
}
