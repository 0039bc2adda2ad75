//! Length-prefixed frames on a stream.
//!
//! A frame is four bytes of length and that many bytes. The length is a claim: memory grows with the
//! bytes that arrive, never with the claim, and a claim beyond the limit is refused at once. What is
//! no Kafka at all (a browser, a TLS hello, a TLS alert) is recognised, for a message that helps.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// How much is reserved at a time while a frame arrives.
const GROWTH_BYTES: usize = 64 * 1024;

/// What a stream may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest frame that is accepted, without its length prefix.
    pub max_bytes: usize,
}

/// Why no frame could be read.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("read a frame")]
    Io(#[from] io::Error),
    /// The frame is longer than the limit.
    #[error("frame of {length} bytes exceeds the limit of {max_bytes} bytes")]
    TooLarge {
        /// The length as claimed.
        length: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The length is negative.
    #[error("frame length {length} is negative")]
    Negative {
        /// The length as claimed.
        length: i32,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame, after {got} of {wanted} bytes")]
    Truncated {
        /// Bytes that came.
        got: usize,
        /// Bytes announced.
        wanted: usize,
    },
    /// The peer does not speak Kafka in plaintext.
    #[error("not a Kafka frame: {0}")]
    NotKafka(Foreign),
}

/// What was recognised instead of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// An HTTP request.
    Http,
    /// An HTTP/2 connection preface.
    Http2,
    /// A TLS client hello: the peer expects TLS here.
    TlsHello,
    /// A TLS alert: the peer speaks TLS and did not understand plaintext.
    TlsAlert,
    /// An SSH banner.
    Ssh,
    /// A PROXY protocol header.
    ProxyProtocol,
}

impl fmt::Display for Foreign {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Foreign::Http => "an HTTP request (hint: metrics and health are on the admin port)",
            Foreign::Http2 => "an HTTP/2 preface (hint: metrics and health are on the admin port)",
            Foreign::TlsHello => {
                "a TLS client hello (hint: set the client to PLAINTEXT, or this listener to TLS)"
            }
            Foreign::TlsAlert => "a TLS alert (hint: the other side expects TLS, this one spoke plaintext)",
            Foreign::Ssh => "an SSH banner",
            Foreign::ProxyProtocol => "a PROXY protocol header (hint: switch it off in the load balancer)",
        })
    }
}

/// Recognises what is commonly sent to a wrong port by its first four bytes.
pub fn recognise(prefix: [u8; LENGTH_BYTES]) -> Option<Foreign> {
    match prefix {
        [b'P', b'R', b'I', b' '] => Some(Foreign::Http2),
        [b'P', b'R', b'O', b'X'] | [0x0d, 0x0a, 0x0d, 0x0a] => Some(Foreign::ProxyProtocol),
        [b'S', b'S', b'H', b'-'] => Some(Foreign::Ssh),
        // Handshake record, any version from SSL 3 to TLS 1.3.
        [0x16, 0x03, 0..=4, _] => Some(Foreign::TlsHello),
        // Alert record; its length is two, so the fourth byte is zero.
        [0x15, 0x03, 0..=4, 0x00] => Some(Foreign::TlsAlert),
        _ => HTTP_STARTS.contains(&&prefix).then_some(Foreign::Http),
    }
}

/// The first four bytes of every HTTP method, and of an HTTP response.
const HTTP_STARTS: [&[u8; LENGTH_BYTES]; 10] = [
    b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC", b"HTTP",
];

/// Turns the four bytes in front of a frame into its length, or says what is wrong with them.
pub fn check_length(prefix: [u8; LENGTH_BYTES], limits: FrameLimits) -> Result<usize, FrameError> {
    let claimed = i32::from_be_bytes(prefix);
    // A TLS alert would be a frame of exactly 352 MB: no coincidence, whatever the limit.
    if recognise(prefix) == Some(Foreign::TlsAlert) {
        return Err(FrameError::NotKafka(Foreign::TlsAlert));
    }
    match usize::try_from(claimed) {
        Ok(length) if length <= limits.max_bytes => Ok(length),
        Ok(length) => Err(match recognise(prefix) {
            Some(foreign) => FrameError::NotKafka(foreign),
            None => FrameError::TooLarge {
                length,
                max_bytes: limits.max_bytes,
            },
        }),
        Err(_) => Err(FrameError::Negative { length: claimed }),
    }
}

/// Reads the length of the next frame. None when the stream ended cleanly between two frames.
pub async fn read_length<R>(stream: &mut R, limits: FrameLimits) -> Result<Option<usize>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0_u8; LENGTH_BYTES];
    let mut got = 0_usize;
    while let Some(room) = prefix.get_mut(got..).filter(|room| !room.is_empty()) {
        match stream.read(room).await? {
            0 if got == 0 => return Ok(None),
            0 => {
                return Err(FrameError::Truncated {
                    got,
                    wanted: LENGTH_BYTES,
                });
            }
            more => got = got.saturating_add(more),
        }
    }
    check_length(prefix, limits).map(Some)
}

/// Reads the `length` bytes of a frame whose length has been read.
pub async fn read_body<R>(stream: &mut R, length: usize) -> Result<Bytes, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut body = BytesMut::with_capacity(length.min(GROWTH_BYTES));
    while body.len() < length {
        let missing = length.saturating_sub(body.len());
        if body.capacity() == body.len() {
            // Doubling keeps copying linear; memory is at most twice what has really arrived.
            body.reserve(missing.min(body.len().max(GROWTH_BYTES)));
        }
        let mut room = (&mut *stream).take(missing as u64);
        if room.read_buf(&mut body).await? == 0 {
            return Err(FrameError::Truncated {
                got: body.len(),
                wanted: length,
            });
        }
    }
    Ok(body.freeze())
}

/// Reads a whole frame, without its length. None when the stream ended cleanly before it.
pub async fn read_frame<R>(stream: &mut R, limits: FrameLimits) -> Result<Option<Bytes>, FrameError>
where
    R: AsyncRead + Unpin,
{
    match read_length(stream, limits).await? {
        None => Ok(None),
        Some(length) => read_body(stream, length).await.map(Some),
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
