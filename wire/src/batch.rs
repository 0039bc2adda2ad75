//! RecordBatch v2: reading its 61-byte header, walking runs of batches, and the few edits that replace
//! what a broker writes into a batch.
//!
//! Nothing here decodes records (see [`crate::records`]) or needs to: offsets, leader epoch, producer fields
//! and timestamps' type live in the header, and the checksum of a changed header is derived from the old one
//! without reading the payload.
//!
//! ```text
//!  0 base offset i64      16 magic i8 (2)              43 producer id i64
//!  8 length i32           17 crc u32 (of 21..end)      51 producer epoch i16
//! 12 leader epoch i32     21 attributes i16            53 base sequence i32
//!                         23 last offset delta i32     57 record count i32
//!                         27 base timestamp i64        61 records
//!                         35 max timestamp i64
//! ```

mod checksum;
mod control;
mod edit;
mod error;
mod header;
mod view;

#[cfg(test)]
mod tests;

pub use control::{ControlKind, ControlMarker, control_marker};
pub use edit::{
    Producer, ReplayBatch, as_create_time, as_log_append_time, reset_for_replay, set_base_offset_and_epoch,
    split_for_replay,
};
pub use error::BatchError;
pub use header::{BATCH_HEADER_BYTES, BatchHeader, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP};
pub use view::{BatchView, Batches, batches, fetched_batches};
