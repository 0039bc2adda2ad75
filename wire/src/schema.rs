//! Message layouts as tables.

use crate::WireError;

/// Checks a body against its layout before kafka-protocol decodes it.
pub fn precheck(api_key: i16, version: i16, is_response: bool, body: &[u8]) -> Result<(), WireError> {
    let _ = (api_key, version, is_response, body);
    Ok(())
}
