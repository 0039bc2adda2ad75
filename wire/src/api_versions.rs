//! Narrowing what brokers offer to what is understood here.
//!
//! Of the keys that must be understood, the newest version is lowered to the newest one understood.
//! Everything else stays as the broker sent it: other and unknown keys, oldest versions, features,
//! tagged fields. Two consequences follow:
//!
//! - A key of which the broker's oldest version is newer than the newest understood is taken out of
//!   the list, as there is no version that both sides could speak.
//! - Clients choose the newer transaction protocol by the feature `transaction.version`, not by the
//!   versions offered. If a lowered version is too old for it, the feature is lowered too.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::read::Reader;
use crate::rewrite::{Splice, splice};
use crate::{WireError, apis, write};

/// The newest version of ApiVersions whose response is understood. A newer request is to be answered
/// with [`unsupported_version_response`]; clients then ask again with an older version.
pub const NEWEST_VERSION: i16 = 5;

/// The error code for a version that a broker does not speak. Its body is always that of version 0.
pub const UNSUPPORTED_VERSION: i16 = 35;

/// Narrows a response body to what is understood here.
pub fn narrow(version: i16, body: &Bytes) -> Result<Bytes, WireError> {
    narrow_to(version, body, &apis::newest_understood)
}

/// Narrows a response body; `newest` says how far a key is understood, None for no limit.
pub fn narrow_to(
    version: i16,
    body: &Bytes,
    newest: &dyn Fn(i16) -> Option<i16>,
) -> Result<Bytes, WireError> {
    if !(0..=NEWEST_VERSION).contains(&version) {
        return Err(WireError::UnknownLayout {
            api_key: apis::API_VERSIONS,
            api_version: version,
        });
    }
    let mut reader = Reader::new(body);
    if reader.i16()? == UNSUPPORTED_VERSION {
        return Ok(body.clone());
    }
    let flexible = apis::is_flexible(apis::API_VERSIONS, version) == Some(true);
    let mut narrowing = Narrowing {
        newest,
        splices: Vec::new(),
        lower_transactions: false,
    };
    narrowing.read_keys(&mut reader, flexible)?;
    if version >= 1 {
        reader.i32()?; // throttle time
    }
    if flexible {
        narrowing.read_tagged_fields(&mut reader)?;
    }
    reader.expect_end()?;
    Ok(splice(body, &narrowing.splices))
}

/// The body that answers an ApiVersions request newer than [`NEWEST_VERSION`]: in version 0, with the
/// range of versions that would have been accepted.
pub fn unsupported_version_response() -> Bytes {
    let mut out = BytesMut::with_capacity(12);
    out.put_i16(UNSUPPORTED_VERSION);
    out.put_i32(1);
    out.put_i16(apis::API_VERSIONS);
    out.put_i16(0);
    out.put_i16(NEWEST_VERSION);
    out.freeze()
}

/// The feature by which clients choose the transaction protocol.
const TRANSACTION_VERSION: &str = "transaction.version";

/// The last level of that feature which asks nothing of the versions below.
const TRANSACTION_VERSION_OLD: i16 = 1;

const FINALIZED_FEATURES_TAG: u32 = 2;

/// The oldest version of a key that the newer transaction protocol can use.
fn oldest_for_new_transactions(api_key: i16) -> Option<i16> {
    const ADD_OFFSETS_TO_TXN: i16 = 25;
    const TXN_OFFSET_COMMIT: i16 = 28;
    match api_key {
        apis::PRODUCE => Some(12),
        apis::END_TXN => Some(5),
        ADD_OFFSETS_TO_TXN => Some(4),
        TXN_OFFSET_COMMIT => Some(5),
        _ => None,
    }
}

struct Narrowing<'a> {
    newest: &'a dyn Fn(i16) -> Option<i16>,
    splices: Vec<Splice>,
    lower_transactions: bool,
}

impl Narrowing<'_> {
    fn read_keys(&mut self, reader: &mut Reader<'_>, flexible: bool) -> Result<(), WireError> {
        let count_at = reader.position();
        let count = reader.array_count(flexible, KEY_BYTES_MIN)?;
        let count_span = count_at..reader.position();
        let mut kept = count;
        for _ in 0..count {
            let start = reader.position();
            let api_key = reader.i16()?;
            let broker_oldest = reader.i16()?;
            let newest_at = reader.position();
            let broker_newest = reader.i16()?;
            reader.skip_tagged_fields_if(flexible)?;
            let Some(limit) = (self.newest)(api_key).filter(|limit| *limit < broker_newest) else {
                continue;
            };
            if broker_oldest > limit {
                kept = kept.saturating_sub(1);
                self.splices.push(Splice {
                    span: start..reader.position(),
                    bytes: Bytes::new(),
                });
            } else {
                self.patch(newest_at, limit);
            }
            let needed = oldest_for_new_transactions(api_key);
            self.lower_transactions |= needed.is_some_and(|needed| limit < needed && needed <= broker_newest);
        }
        if kept != count {
            self.replace_count(count_span, kept, flexible)?;
        }
        Ok(())
    }

    /// The count stands before all entries, so its splice goes first.
    fn replace_count(&mut self, span: Range<usize>, count: usize, flexible: bool) -> Result<(), WireError> {
        let mut bytes = BytesMut::with_capacity(5);
        write::put_array_count(&mut bytes, count, flexible)?;
        self.splices.insert(
            0,
            Splice {
                span,
                bytes: bytes.freeze(),
            },
        );
        Ok(())
    }

    fn read_tagged_fields(&mut self, reader: &mut Reader<'_>) -> Result<(), WireError> {
        for _ in 0..reader.unsigned_varint()? {
            let (tag, content) = reader.tagged_field()?;
            if tag == FINALIZED_FEATURES_TAG && self.lower_transactions {
                self.read_finalized_features(reader, content)?;
            }
        }
        Ok(())
    }

    fn read_finalized_features(
        &mut self,
        reader: &Reader<'_>,
        content: Range<usize>,
    ) -> Result<(), WireError> {
        let (base, size) = (content.start, content.len());
        let mut inner = Reader::new(reader.whole().get(content).unwrap_or_default());
        for _ in 0..inner.array_count(true, FEATURE_BYTES_MIN)? {
            let name = inner.string(true)?;
            let levels_at = base.saturating_add(inner.position());
            let (newest, oldest) = (inner.i16()?, inner.i16()?);
            inner.skip_tagged_fields()?;
            if name != TRANSACTION_VERSION {
                continue;
            }
            if newest > TRANSACTION_VERSION_OLD {
                self.patch(levels_at, TRANSACTION_VERSION_OLD);
            }
            if oldest > TRANSACTION_VERSION_OLD {
                self.patch(levels_at.saturating_add(2), TRANSACTION_VERSION_OLD);
            }
        }
        inner
            .expect_end()
            .map_err(|_| WireError::BadTaggedField { at: base, size })
    }

    fn patch(&mut self, at: usize, value: i16) {
        let bytes = Bytes::copy_from_slice(&value.to_be_bytes());
        self.splices.push(Splice {
            span: at..at.saturating_add(2),
            bytes,
        });
    }
}

/// Key, oldest and newest version.
const KEY_BYTES_MIN: usize = 6;
/// An empty name, two levels, no tagged fields.
const FEATURE_BYTES_MIN: usize = 6;

#[cfg(test)]
#[path = "api_versions_tests.rs"]
mod tests;
