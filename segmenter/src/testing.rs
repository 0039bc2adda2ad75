//! Batches and places for tests.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use teeline_archive::ids::BufferPosition;
use teeline_wire::batch::{BatchHeader, set_base_offset_and_epoch};
use teeline_wire::codec::Compression;
use teeline_wire::records::BatchBuilder;

use crate::buffer::FrameLocation;

/// A batch of `records` records at `base_offset`.
pub(crate) fn batch(base_offset: i64, records: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..records {
        builder
            .push(
                1_000 + i64::from(n),
                Some(b"key"),
                Some(format!("value {n}").as_bytes()),
                &[],
            )
            .unwrap();
    }
    let mut bytes = builder.build().unwrap().unwrap().into_bytes().to_vec();
    set_base_offset_and_epoch(&mut bytes, base_offset, 0).unwrap();
    bytes
}

/// A batch with other header fields; its checksum is not redone.
pub(crate) fn batch_with(
    base_offset: i64,
    records: u32,
    change: impl FnOnce(&mut BatchHeader),
) -> (BatchHeader, Bytes) {
    let mut bytes = BytesMut::from(&batch(base_offset, records)[..]);
    let mut header = BatchHeader::parse(&bytes).unwrap();
    change(&mut header);
    bytes.get_mut(..61).unwrap().copy_from_slice(&header.to_bytes());
    (header, bytes.freeze())
}

/// A place that stands for a position.
pub(crate) fn location(position: BufferPosition) -> FrameLocation {
    FrameLocation {
        file_number: position.session.0,
        at: position.lsn.0,
        len: 100,
    }
}
