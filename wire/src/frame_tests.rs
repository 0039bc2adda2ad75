#![allow(clippy::indexing_slicing)]

use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

const LIMITS: FrameLimits = FrameLimits { max_bytes: 1000 };

/// A stream that gives its bytes a few at a time.
struct Drip {
    bytes: Vec<u8>,
    step: usize,
}

impl AsyncRead for Drip {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.step.min(self.bytes.len()).min(out.remaining());
        out.put_slice(&self.bytes.drain(..count).collect::<Vec<u8>>());
        Poll::Ready(Ok(()))
    }
}

fn read(bytes: &[u8], step: usize) -> Result<Option<Bytes>, FrameError> {
    let mut stream = Drip {
        bytes: bytes.to_vec(),
        step,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(read_frame(&mut stream, LIMITS))
}

#[test]
fn a_stream_that_ends_between_frames_ends_cleanly() {
    assert!(matches!(read(&[], 1), Ok(None)));
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_truncated() {
    assert!(matches!(
        read(&[0, 0], 1),
        Err(FrameError::Truncated { got: 2, wanted: 4 })
    ));
    assert!(matches!(
        read(&[0, 0, 0, 9, 1, 2], 1),
        Err(FrameError::Truncated { got: 2, wanted: 9 })
    ));
}

#[test]
fn a_length_beyond_the_limit_is_refused_at_once() {
    let refused = read(&[0, 0, 0x03, 0xe9], 4).expect_err("too large");
    assert!(matches!(
        refused,
        FrameError::TooLarge {
            length: 1001,
            max_bytes: 1000
        }
    ));
    let refused = read(&[0xff, 0xff, 0xff, 0xff], 4).expect_err("negative");
    assert!(matches!(refused, FrameError::Negative { length: -1 }));
}

#[test]
fn what_is_no_kafka_is_recognised() {
    let cases: [(&[u8], Foreign); 8] = [
        (b"GET / HTTP/1.1\r\n", Foreign::Http),
        (b"POST /x HTTP/1.1\r\n", Foreign::Http),
        (b"PRI * HTTP/2.0\r\n", Foreign::Http2),
        (&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01], Foreign::TlsHello),
        (&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a], Foreign::TlsAlert),
        (b"SSH-2.0-OpenSSH", Foreign::Ssh),
        (b"PROXY TCP4 10.0.0.1", Foreign::ProxyProtocol),
        (
            &[0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a],
            Foreign::ProxyProtocol,
        ),
    ];
    for (bytes, expected) in cases {
        let Err(FrameError::NotKafka(foreign)) = read(bytes, 3) else {
            panic!("{expected:?} not recognised")
        };
        assert_eq!(foreign, expected);
    }
}

#[test]
fn a_tls_alert_is_recognised_whatever_the_limit() {
    let limits = FrameLimits {
        max_bytes: usize::MAX,
    };
    let refused = check_length([0x15, 0x03, 0x03, 0x00], limits).expect_err("no frame");
    assert!(matches!(refused, FrameError::NotKafka(Foreign::TlsAlert)));
}

#[test]
fn memory_follows_the_bytes_that_arrive_not_the_claim() {
    let mut stream = Drip {
        bytes: vec![7; 100],
        step: 10,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be built");
    // One gigabyte claimed, a hundred bytes sent; the memory test counts what this allocates.
    let refused = runtime
        .block_on(read_body(&mut stream, 1 << 30))
        .expect_err("truncated");
    assert!(matches!(refused, FrameError::Truncated { got: 100, .. }));
}

proptest! {
    #[test]
    fn frames_arrive_whole_however_they_drip(body in proptest::collection::vec(any::<u8>(), 0..1000), step in 1_usize..300) {
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(b"next");
        let frame = read(&bytes, step).expect("well-formed").expect("not the end");
        prop_assert_eq!(frame.as_ref(), body.as_slice());
    }
}
