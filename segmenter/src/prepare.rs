//! Batches as they go into a segment: the bytes that the broker stored, and what the segment says about them.

use bytes::{Bytes, BytesMut};
use teeline_archive::segment::{BatchKind, BatchMeta, Marker, Producer};
use teeline_wire::batch::{
    BatchError, BatchHeader, BatchView, as_create_time, as_log_append_time, control_marker,
    set_base_offset_and_epoch,
};
use teeline_wire::records::{DECOMPRESSED_BYTES_MAX, timestamp_range};

/// A batch ready for [`teeline_archive::segment::SegmentBuilder::push`].
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The batch.
    pub bytes: Bytes,
    /// What is said about it.
    pub meta: BatchMeta,
}

/// Turns a batch as its producer sent it into the batch that the broker stored: base offset, leader epoch, and the
/// timestamp type of the topic.
///
/// Bytes that nobody else holds are edited where they lie.
pub fn captured(
    sent: Bytes,
    base_offset: i64,
    leader_epoch: i32,
    append_time_ms: Option<i64>,
) -> Result<Prepared, BatchError> {
    // What trails behind the batch in its request is cut off by the broker too.
    let view = BatchView::parse(&sent)?;
    drop(sent);
    view.verify_crc()?;
    let header = *view.header();
    let mut bytes = BytesMut::from(view.into_bytes());
    match append_time_ms {
        Some(append_time_ms) => as_log_append_time(&mut bytes, append_time_ms)?,
        None if header.is_log_append_time() => as_create_time(&mut bytes, header.max_timestamp)?,
        None => {}
    }
    set_base_offset_and_epoch(&mut bytes, base_offset, leader_epoch)?;
    let mut stored = BatchView::parse(&bytes.freeze())?;
    let meta = describe(&stored);
    if append_time_ms.is_none() && meta.timestamp_max != stored.header().max_timestamp {
        // The broker puts a wrong maximum right, so this is what it stored.
        let mut bytes = BytesMut::from(&stored.bytes()[..]);
        as_create_time(&mut bytes, meta.timestamp_max)?;
        stored = BatchView::parse(&bytes.freeze())?;
    }
    Ok(Prepared {
        bytes: stored.into_bytes(),
        meta,
    })
}

/// A batch as the broker gave it: stored as it is.
pub fn fetched(bytes: &Bytes) -> Result<Prepared, BatchError> {
    let view = BatchView::parse(bytes)?;
    view.verify_crc()?;
    Ok(verified(&view))
}

/// A batch as the broker gave it, its checksum compared already.
pub fn verified(view: &BatchView) -> Prepared {
    Prepared {
        bytes: view.bytes().clone(),
        meta: describe(view),
    }
}

/// The producer whose transaction a fetched batch ends, for a marker.
pub fn ended_producer(view: &BatchView) -> Option<i64> {
    let marker = control_marker(view).ok().flatten()?;
    marker
        .ends(marker.producer_id, i16::MIN)
        .then_some(marker.producer_id)
}

fn describe(view: &BatchView) -> BatchMeta {
    let header = view.header();
    let (timestamp_min, timestamp_max) = match timestamp_range(view, DECOMPRESSED_BYTES_MAX) {
        Ok(range) => (range.min, range.max),
        Err(error) => {
            // The broker took the batch and the checksum is right, so the bytes are what they should be; only what they
            // say cannot be read. The header's word is kept, widened to both its times.
            tracing::warn!(%error, offset = header.base_offset, "the records of a batch cannot be decoded");
            claimed_range(header)
        }
    };
    BatchMeta {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        record_count: header.records(),
        timestamp_min,
        timestamp_max,
        leader_epoch: header.partition_leader_epoch,
        producer: header.has_producer().then_some(Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        }),
        kind: kind_of(view),
    }
}

fn claimed_range(header: &BatchHeader) -> (i64, i64) {
    let (one, other) = (header.base_timestamp, header.max_timestamp);
    (one.min(other), one.max(other))
}

fn kind_of(view: &BatchView) -> BatchKind {
    let header = view.header();
    if header.is_control() {
        // A control batch that compaction has emptied ends nothing any more.
        return match control_marker(view) {
            Ok(Some(marker)) => BatchKind::Control(Marker {
                commit: marker.is_commit(),
            }),
            _ => BatchKind::Data,
        };
    }
    if header.is_transactional() {
        BatchKind::TransactionalData
    } else {
        BatchKind::Data
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::batch;

    #[test]
    fn a_captured_batch_gets_its_place_and_its_true_times() {
        let mut sent = batch(0, 4);
        sent.extend_from_slice(b"trailing");
        let prepared = captured(Bytes::from(sent), 70, 3, None).unwrap();
        let stored = BatchView::parse(&prepared.bytes).unwrap();
        stored.verify_crc().unwrap();
        assert_eq!(
            (
                stored.header().base_offset,
                stored.header().partition_leader_epoch
            ),
            (70, 3)
        );
        assert_eq!((prepared.meta.last_offset, prepared.meta.record_count), (73, 4));
        assert_eq!(
            (prepared.meta.timestamp_min, prepared.meta.timestamp_max),
            (1_000, 1_003)
        );
        assert_eq!(prepared.meta.kind, BatchKind::Data);
    }

    #[test]
    fn an_append_time_replaces_the_times_of_all_records() {
        let prepared = captured(Bytes::from(batch(0, 4)), 70, -1, Some(9_000)).unwrap();
        let stored = BatchView::parse(&prepared.bytes).unwrap();
        stored.verify_crc().unwrap();
        assert!(stored.header().is_log_append_time());
        assert_eq!(
            (prepared.meta.timestamp_min, prepared.meta.timestamp_max),
            (9_000, 9_000)
        );
    }

    #[test]
    fn a_wrong_maximum_timestamp_is_put_right_as_the_broker_does() {
        let mut sent = batch(0, 4);
        let mut view = BytesMut::from(&sent[..]);
        as_create_time(&mut view, 5_000_000).unwrap();
        sent = view.to_vec();
        let prepared = captured(Bytes::from(sent), 0, -1, None).unwrap();
        let stored = BatchView::parse(&prepared.bytes).unwrap();
        stored.verify_crc().unwrap();
        assert_eq!(
            (stored.header().max_timestamp, prepared.meta.timestamp_max),
            (1_003, 1_003)
        );
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut sent = batch(0, 4);
        *sent.last_mut().unwrap() ^= 1;
        assert!(captured(Bytes::from(sent.clone()), 0, -1, None).is_err());
        assert!(fetched(&Bytes::from(sent)).is_err());
    }
}
