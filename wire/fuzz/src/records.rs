//! Targets for what Fetch responses and Produce requests carry: batches, records, compression, the coordinators' log.

use bytes::Bytes;
use teeline_wire::batch::{self, BatchView, Producer};
use teeline_wire::client::{GroupJournal, GroupRecord};
use teeline_wire::codec::{self, Compression};
use teeline_wire::records::{self, DigestScope, Records};

/// What decompression may unfold to here; bombs are what it is for.
pub const UNFOLDED_BYTES_MAX: usize = 64 * 1024;
/// A few are as good as many.
const BATCHES_MAX: usize = 4;

/// A run of batches, as in a Fetch response: the last one may be cut.
pub fn batches(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut seen = 0;
    for batch in batch::fetched_batches(&bytes).take(BATCHES_MAX) {
        let Ok(batch) = batch else {
            break;
        };
        seen += batch.bytes().len();
        one_batch(&batch);
    }
    assert!(seen <= data.len());
    for batch in batch::batches(&bytes).take(BATCHES_MAX) {
        if batch.is_err() {
            break;
        }
    }
}

fn one_batch(batch: &BatchView) {
    let again = BatchView::parse(batch.bytes()).expect("it was one");
    assert_eq!(&again, batch);
    let _ = batch.verify_crc();
    let _ = batch::control_marker(batch);
    let _ = records::timestamp_range(batch, UNFOLDED_BYTES_MAX);
    let digest = records::content_digest(batch, DigestScope::WithTimestamps, UNFOLDED_BYTES_MAX);
    let mut count = 0;
    if let Ok(decoded) = Records::decode(batch, UNFOLDED_BYTES_MAX) {
        for record in &decoded {
            let Ok(record) = record else {
                break;
            };
            let headers = record.headers.iter().count();
            assert_eq!(headers, record.headers.len() as usize);
            count += 1;
        }
    }
    if digest.is_ok() {
        assert_eq!(count, batch.header().records());
    }
    // The new checksum is derived from the old one, so a wrong one stays wrong.
    let replayed = batch
        .verify_crc()
        .and_then(|()| batch::split_for_replay(batch, Producer::NONE));
    if let Ok(replayed) = replayed {
        let bytes = replayed.to_bytes();
        let view = BatchView::parse(&bytes).expect("our own batch");
        assert_eq!(view.verify_crc(), Ok(()));
        assert_eq!(view.payload(), batch.payload());
    }
    if let Ok(Some(rebuilt)) =
        records::rebuild(batch, UNFOLDED_BYTES_MAX, |record| record.offset_delta % 2 == 0)
    {
        assert_eq!(rebuilt.verify_crc(), Ok(()));
        let decoded = Records::decode(&rebuilt, UNFOLDED_BYTES_MAX * 4).expect("our own batch");
        assert!(decoded.iter().all(|record| record.is_ok()), "our own batch");
    }
}

/// The codec's number and compressed bytes. Never more comes out than is allowed, and what comes out goes in again.
pub fn codec(data: &[u8]) {
    let Some((id, bytes)) = data.split_first() else {
        return;
    };
    let Some(compression) = Compression::from_id(i16::from(id % 8)) else {
        return;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(plain) = codec::decompress(compression, &bytes, UNFOLDED_BYTES_MAX) else {
        return;
    };
    assert!(plain.len() <= UNFOLDED_BYTES_MAX || compression == Compression::None);
    let packed = codec::compress(compression, &plain).expect("anything can be compressed");
    assert_eq!(codec::decompress(compression, &packed, plain.len()), Ok(plain));
}

/// The length of a key, a key, and a value, as in `__consumer_offsets`.
pub fn group_record(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let _ = GroupRecord::decode(Some(key), Some(value));
    let _ = GroupRecord::decode(Some(key), None);
    let _ = GroupRecord::decode(None, Some(value));
}

/// Batches of the coordinators' log behind checksums that are right. The position never goes back.
pub fn journal(data: &[u8]) {
    let bytes = Bytes::from(with_right_checksums(data.to_vec()));
    let mut journal = GroupJournal::new(0, true);
    for _ in 0..2 {
        let before = journal.position();
        let mut changes = Vec::new();
        let _ = journal.take(&bytes, &mut changes);
        assert!(journal.position() >= before);
    }
}

fn with_right_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(length) = bytes.get(at + 8..at + 12).and_then(|bytes| bytes.first_chunk()) {
        let end = usize::try_from(i32::from_be_bytes(*length))
            .ok()
            .and_then(|length| at.checked_add(length)?.checked_add(12));
        let Some(content) = end.and_then(|end| bytes.get(at + 21..end)) else {
            break;
        };
        let crc = crc32c::crc32c(content);
        bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
        at = end.expect("it was just used");
    }
    bytes
}
