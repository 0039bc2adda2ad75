//! Reading the footers of segments, and holding them against the ledger.

use std::sync::Arc;

use teeline_archive::names::segment_index_key;
use teeline_archive::segment::{Footer, Location, SegmentError, SegmentInfo};
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Store, StoreError};

use crate::error::{Damage, RestorerError};

/// Why a part of a segment could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The object is not what the ledger says.
    #[error("{0}")]
    Damaged(String),
    /// The store failed; that says nothing about the object.
    #[error(transparent)]
    Store(StoreError),
}

impl ReadError {
    /// As the error of a command.
    pub fn into_error(self, key: &str) -> RestorerError {
        match self {
            Self::Damaged(reason) => RestorerError::DamagedSegment {
                key: key.to_owned(),
                reason,
            },
            Self::Store(error) => RestorerError::Store(error),
        }
    }

    /// As a finding, unless the store is to blame.
    pub fn into_damage(self, key: &str) -> Result<Damage, RestorerError> {
        match self {
            Self::Damaged(reason) => Ok(Damage {
                key: key.to_owned(),
                reason,
            }),
            Self::Store(error) => Err(RestorerError::Store(error)),
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        if error.is_not_found() {
            return Self::Damaged(MISSING.to_owned());
        }
        Self::Store(error)
    }
}

impl From<SegmentError> for ReadError {
    fn from(error: SegmentError) -> Self {
        Self::Damaged(error_chain(&error))
    }
}

/// A segment with its footer.
#[derive(Debug, Clone)]
pub struct OpenSegment {
    /// The segment, as the ledger lists it.
    pub info: Arc<SegmentInfo>,
    /// What is in it, and where.
    pub footer: Arc<Footer>,
}

/// Most footers are shorter than this, so that one request suffices.
const TAIL_BYTES: u64 = 64 * 1024;

/// Reads the footer of a segment that the ledger lists, and checks that both mean the same object.
pub async fn open_segment(store: &Store, info: &Arc<SegmentInfo>) -> Result<OpenSegment, ReadError> {
    let sidecar = info.codec.has_sidecar();
    let key = if sidecar {
        segment_index_key(&info.key)
    } else {
        info.key.clone()
    };
    let (mut tail, mut object_bytes) = store.get_tail(&key, TAIL_BYTES).await?;
    let range = loop {
        match Footer::locate(&tail, object_bytes)? {
            Location::Located { range } => break range,
            Location::NeedMore { bytes } if bytes > tail.len() as u64 => {
                (tail, object_bytes) = store.get_tail(&key, bytes).await?;
            }
            Location::NeedMore { .. } => return Err(damaged("its footer cannot be found")),
        }
    };
    let encoded = tail.get(range).unwrap_or_default();
    let footer = Footer::decode(encoded)?;
    if sidecar {
        object_bytes = store.head(&info.key).await?.size;
    }
    if object_bytes != info.object_bytes {
        return Err(damaged(&format!(
            "it has {object_bytes} bytes, the ledger says {}",
            info.object_bytes
        )));
    }
    if Footer::crc32c_of(encoded)? != info.footer_crc32c {
        return Err(damaged("its footer is not the one that the ledger says"));
    }
    if footer.info(encoded)? != **info {
        return Err(damaged("its footer and the ledger describe different segments"));
    }
    Ok(OpenSegment {
        info: Arc::clone(info),
        footer: Arc::new(footer),
    })
}

/// Somebody deleted it, or it was joined into a larger one since the ledger was read and its time was over.
const MISSING: &str = "the object is missing: somebody, or a rule of the store, has deleted it (hint: only if this command ran for \
                       longer than `keep_replaced` of the archive, it may be in a larger one now: run it again, with a \
                       longer `keep_replaced`)";

fn damaged(reason: &str) -> ReadError {
    ReadError::Damaged(reason.to_owned())
}
