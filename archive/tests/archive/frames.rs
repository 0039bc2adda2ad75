use crate::samples::{SESSION, encode_frames, frames, sample_frames};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use teeline_archive::buffer::{
    Corruption, FRAME_HEADER_BYTES, Frame, FrameError, Intent, TopicRef, decode_frame, encode_frame,
    encode_intent_prefix,
};
use teeline_archive::{Lsn, SessionId};

#[test]
fn every_kind_of_frame_is_read_back() {
    let bytes = encode_frames(&sample_frames(), SESSION, Lsn(1));
    let (mut at, mut lsn) = (0, Lsn(1));
    for frame in sample_frames() {
        let decoded = decode_frame(&bytes, at).unwrap();
        assert_eq!(decoded.frame, frame);
        assert_eq!((decoded.header.session, decoded.header.lsn), (SESSION, lsn));
        assert_eq!(decoded.next - at, decoded.header.frame_bytes());
        (at, lsn) = (decoded.next, lsn.next());
    }
    assert_eq!(decode_frame(&bytes, at), Err(FrameError::NotThere));
}

#[test]
fn any_flipped_bit_of_a_frame_is_noticed() {
    for frame in sample_frames() {
        let bytes = encode_frames(std::slice::from_ref(&frame), SESSION, Lsn(1));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bad.into(), 0).is_err(), "bit {bit} of {frame:?}");
        }
    }
}

#[test]
fn not_there_torn_and_corrupt_are_three_answers() {
    let bytes = encode_frames(&sample_frames()[3..4], SESSION, Lsn(1));
    assert_eq!(decode_frame(&Bytes::new(), 0), Err(FrameError::NotThere));
    assert_eq!(
        decode_frame(&Bytes::from(vec![0; 5]), 0),
        Err(FrameError::NotThere)
    );
    assert_eq!(
        decode_frame(&Bytes::from(vec![0; 5000]), 0),
        Err(FrameError::NotThere)
    );
    assert_eq!(decode_frame(&bytes, bytes.len() + 1), Err(FrameError::NotThere));
    for len in 1..bytes.len() {
        let torn = decode_frame(&bytes.slice(..len), 0);
        assert!(
            matches!(torn, Err(FrameError::Torn { present, .. }) if present == len),
            "{len}: {torn:?}"
        );
    }
    let mut bad = bytes.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let frame_bytes = bad.len();
    let corrupt = Err(FrameError::Corrupt(Corruption::PayloadChecksum { frame_bytes }));
    assert_eq!(decode_frame(&bad.into(), 0), corrupt);
}

#[test]
fn records_behind_a_prefix_make_the_same_frame_without_a_copy() {
    let frames = sample_frames();
    let intent = frames.iter().find_map(|frame| match frame {
        Frame::Intent(intent) => Some(intent),
        _ => None,
    });
    let intent = intent.unwrap();
    let mut whole = BytesMut::new();
    encode_frame(&Frame::Intent(intent.clone()), SESSION, Lsn(9), &mut whole).unwrap();
    let mut prefix = BytesMut::from(&b"earlier"[..]);
    encode_intent_prefix(intent, SESSION, Lsn(9), &mut prefix).unwrap();
    assert_eq!(whole.len(), prefix.len() - 7 + intent.records.len());
    prefix.extend_from_slice(&intent.records);
    assert_eq!(whole, prefix[7..]);
    let whole = whole.freeze();
    let Frame::Intent(decoded) = decode_frame(&whole, 0).unwrap().frame else {
        panic!("an intent")
    };
    let inside = whole.as_ptr_range();
    assert!(
        inside.contains(&decoded.records.as_ptr()),
        "records are a slice of the input"
    );
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let mut out = BytesMut::from(&b"kept"[..]);
    let nameless = Intent {
        connection_id: 1,
        acks: 1,
        sent_at_ms: 0,
        topic: TopicRef::default(),
        partition: 0,
        transactional_id: None,
        records: Bytes::new(),
    };
    assert!(encode_frame(&Frame::Intent(nameless.clone()), SESSION, Lsn(1), &mut out).is_err());
    let long = Intent {
        topic: TopicRef::by_name("x".repeat(70_000)),
        ..nameless
    };
    assert!(encode_intent_prefix(&long, SESSION, Lsn(1), &mut out).is_err());
    assert_eq!(out, b"kept"[..]);
}

#[test]
fn a_newer_writer_may_append_fields() {
    let bytes = encode_frames(&sample_frames()[3..4], SESSION, Lsn(1));
    let Frame::Outcome(outcome) = decode_frame(&bytes, 0).unwrap().frame else {
        panic!("an outcome")
    };
    let mut payload = bytes[FRAME_HEADER_BYTES..].to_vec();
    payload.extend_from_slice(b"a field of version 0.2");
    let mut newer = BytesMut::new();
    encode_frame(
        &Frame::Unknown {
            kind: 2,
            payload: payload.into(),
        },
        SESSION,
        Lsn(1),
        &mut newer,
    )
    .unwrap();
    assert_eq!(
        decode_frame(&newer.freeze(), 0).unwrap().frame,
        Frame::Outcome(outcome)
    );
}

#[test]
fn counts_that_cannot_be_true_do_not_allocate() {
    // A catalog that claims four thousand million topics in a payload of a few bytes.
    let mut payload = vec![0; 16];
    payload.extend_from_slice(&[0, 0]);
    payload.extend_from_slice(&u32::MAX.to_le_bytes());
    let mut out = BytesMut::new();
    encode_frame(
        &Frame::Unknown {
            kind: 5,
            payload: payload.into(),
        },
        SESSION,
        Lsn(1),
        &mut out,
    )
    .unwrap();
    let error = decode_frame(&out.freeze(), 0);
    assert!(
        matches!(error, Err(FrameError::Corrupt(Corruption::Payload { .. }))),
        "{error:?}"
    );
}

proptest! {
    #[test]
    fn any_frame_is_read_back(frame in frames(), session: u64, lsn: u64) {
        let mut out = BytesMut::new();
        encode_frame(&frame, SessionId(session), Lsn(lsn), &mut out).unwrap();
        let decoded = decode_frame(&out.freeze(), 0).unwrap();
        prop_assert_eq!(decoded.frame, frame);
        prop_assert_eq!((decoded.header.session.0, decoded.header.lsn.0), (session, lsn));
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..500) {
        let _ = decode_frame(&bytes.into(), at);
    }

    #[test]
    fn no_payload_behind_right_checksums_makes_decoding_panic(
        kind in 0u16..10, payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut out = BytesMut::new();
        encode_frame(&Frame::Unknown { kind, payload: payload.into() }, SESSION, Lsn(1), &mut out).unwrap();
        let _ = decode_frame(&out.freeze(), 0);
    }
}
