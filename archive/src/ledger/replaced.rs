//! Small segments that were joined into one, and what became of their objects.

use crate::fields::{FieldError, FieldReader, put_count, put_name};
use bytes::{BufMut, BytesMut};
use uuid::Uuid;

/// Segments whose batches another segment of the same partition holds as well: they are read no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replaced {
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// Key of the segment that takes their place; listed before this entry, in the same chain.
    pub by: String,
    /// Their keys.
    pub keys: Vec<String>,
    /// When they were replaced, in epoch milliseconds.
    pub at_ms: i64,
}

/// Objects of replaced segments that were deleted from the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removed {
    /// Topic.
    pub topic: String,
    /// Topic incarnation.
    pub incarnation: Uuid,
    /// Partition.
    pub partition: i32,
    /// Keys of the segments.
    pub keys: Vec<String>,
    /// When they were deleted, in epoch milliseconds.
    pub at_ms: i64,
}

/// A name is at least its length.
const NAME_BYTES_MIN: usize = 2;

impl Replaced {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        put_name(out, "segment", &self.by)?;
        put_keys(out, &self.keys)?;
        out.put_i64_le(self.at_ms);
        Ok(())
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<Replaced, FieldError> {
        Ok(Replaced {
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            by: fields.name("segment")?,
            keys: read_keys(fields)?,
            at_ms: fields.i64("time")?,
        })
    }
}

impl Removed {
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), FieldError> {
        put_name(out, "topic", &self.topic)?;
        out.put_slice(self.incarnation.as_bytes());
        out.put_i32_le(self.partition);
        put_keys(out, &self.keys)?;
        out.put_i64_le(self.at_ms);
        Ok(())
    }

    pub(super) fn decode(fields: &mut FieldReader<'_>) -> Result<Removed, FieldError> {
        Ok(Removed {
            topic: fields.name("topic")?,
            incarnation: fields.uuid("incarnation")?,
            partition: fields.i32("partition")?,
            keys: read_keys(fields)?,
            at_ms: fields.i64("time")?,
        })
    }
}

fn put_keys(out: &mut BytesMut, keys: &[String]) -> Result<(), FieldError> {
    put_count(out, "segments", keys.len())?;
    keys.iter().try_for_each(|key| put_name(out, "segment", key))
}

fn read_keys(fields: &mut FieldReader<'_>) -> Result<Vec<String>, FieldError> {
    let count = fields.count(NAME_BYTES_MIN, "segments")?;
    (0..count).map(|_| fields.name("segment")).collect()
}
