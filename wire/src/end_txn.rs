//! EndTxn: the end of a transaction, kept as evidence of what the client was told.

use crate::read::Reader;
use crate::{WireError, apis};

/// The newest version whose layout is known.
pub const NEWEST_VERSION: i16 = 5;

/// From this version on the response names the producer id and epoch to go on with.
const VERSION_WITH_EPOCH_BUMP: i16 = 5;

/// A request to commit or abort a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxnRequest {
    /// The transaction's name.
    pub transactional_id: String,
    /// The producer id it runs under.
    pub producer_id: i64,
    /// The epoch it runs under.
    pub producer_epoch: i16,
    /// True to commit, false to abort.
    pub committed: bool,
}

/// The coordinator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxnResponse {
    /// How long the client was throttled.
    pub throttle_time_ms: i32,
    /// 0 when the decision stands.
    pub error_code: i16,
    /// Version 5: the producer id to go on with, -1 if unchanged.
    pub producer_id: i64,
    /// Version 5: the epoch to go on with, -1 if unchanged.
    pub producer_epoch: i16,
}

/// Reads a request body.
pub fn parse_request(version: i16, body: &[u8]) -> Result<EndTxnRequest, WireError> {
    let flexible = is_flexible(version)?;
    let mut reader = Reader::new(body);
    let request = EndTxnRequest {
        transactional_id: reader.string(flexible)?.to_owned(),
        producer_id: reader.i64()?,
        producer_epoch: reader.i16()?,
        committed: reader.bool()?,
    };
    reader.skip_tagged_fields_if(flexible)?;
    reader.expect_end()?;
    Ok(request)
}

/// Reads a response body.
pub fn parse_response(version: i16, body: &[u8]) -> Result<EndTxnResponse, WireError> {
    let flexible = is_flexible(version)?;
    let bumps = version >= VERSION_WITH_EPOCH_BUMP;
    let mut reader = Reader::new(body);
    let response = EndTxnResponse {
        throttle_time_ms: reader.i32()?,
        error_code: reader.i16()?,
        producer_id: if bumps { reader.i64()? } else { -1 },
        producer_epoch: if bumps { reader.i16()? } else { -1 },
    };
    reader.skip_tagged_fields_if(flexible)?;
    reader.expect_end()?;
    Ok(response)
}

fn is_flexible(version: i16) -> Result<bool, WireError> {
    if !(0..=NEWEST_VERSION).contains(&version) {
        return Err(WireError::UnknownLayout {
            api_key: apis::END_TXN,
            api_version: version,
        });
    }
    Ok(apis::is_flexible(apis::END_TXN, version) == Some(true))
}

#[cfg(test)]
#[path = "end_txn_tests.rs"]
mod tests;
