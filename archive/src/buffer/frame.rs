//! The envelope of a frame: header, checksums, position.
//!
//! The header has a checksum of its own. So a reader can trust the length of a frame whose payload is
//! damaged and step over it, and never has to search for frames inside bytes that came from a producer.

use crate::buffer::payload::{Frame, Intent};
use crate::fields::{FieldError, FieldReader};
use crate::ids::{Lsn, SessionId};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a frame's header; the payload follows.
pub const FRAME_HEADER_BYTES: usize = 36;
/// Longest payload. Kafka's own limit of a request is 2 GiB in theory and 100 MiB by default.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 30;

pub(crate) const FRAME_MAGIC: [u8; 4] = *b"TLfr";
/// The header's checksum covers the bytes from here to the header's end.
const CHECKED_FROM: usize = 8;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the payload.
    pub len: u32,
    /// CRC32C of the payload.
    pub crc: u32,
    /// Kind of the payload.
    pub kind: u16,
    /// Zero so far. A reader that finds a bit it does not know takes the frame for [`Frame::Unknown`].
    pub flags: u16,
    /// Writer session.
    pub session: SessionId,
    /// Position within the session.
    pub lsn: Lsn,
}

/// A frame that was read, and where the next one begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The header.
    pub header: FrameHeader,
    /// What the frame says.
    pub frame: Frame,
    /// Where the next frame begins.
    pub next: usize,
}

/// Why there is no frame. The three answers are different: wait, cut, or report and go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing has been written here: the end of the bytes, or zeros.
    #[error("nothing is written here")]
    NotThere,
    /// The bytes end inside the frame. Either more is to come, or a write was cut short.
    #[error("the frame is cut short: {present} of {needed} bytes")]
    Torn {
        /// Bytes that the frame needs, as far as known.
        needed: usize,
        /// Bytes that are there.
        present: usize,
    },
    /// The bytes are there and wrong.
    #[error("the frame is corrupt")]
    Corrupt(#[source] Corruption),
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// No frame begins here.
    #[error("no frame begins here")]
    Magic,
    /// The header was changed.
    #[error("the header does not match its checksum")]
    HeaderChecksum,
    /// The header is whole and claims more than any writer writes.
    #[error("the header claims a payload of {len} bytes, the limit is {FRAME_PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// The length claimed.
        len: u32,
    },
    /// The payload was changed, or never arrived on the disk.
    #[error("the payload does not match its checksum")]
    PayloadChecksum {
        /// Bytes of the whole frame: the header is whole, so the length can be trusted.
        frame_bytes: usize,
    },
    /// The checksums are right and the content has no meaning: a writer's mistake.
    #[error("the payload has no meaning")]
    Payload {
        /// Bytes of the whole frame.
        frame_bytes: usize,
        /// The field.
        #[source]
        source: FieldError,
    },
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.len as usize
    }

    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut checked = [0; FRAME_HEADER_BYTES - CHECKED_FROM];
        let mut fields = checked.as_mut_slice();
        fields.put_u32_le(self.len);
        fields.put_u32_le(self.crc);
        fields.put_u16_le(self.kind);
        fields.put_u16_le(self.flags);
        fields.put_u64_le(self.session.0);
        fields.put_u64_le(self.lsn.0);
        let mut out = [0; FRAME_HEADER_BYTES];
        let mut front = out.as_mut_slice();
        front.put_slice(&FRAME_MAGIC);
        front.put_u32_le(crc32c::crc32c(&checked));
        front.put_slice(&checked);
        out
    }
}

/// Reads and checks a frame's header. The payload may lie beyond the bytes given.
pub fn decode_frame_header(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(match bytes.iter().all(|byte| *byte == 0) {
            true => FrameError::NotThere,
            false => FrameError::Torn {
                needed: FRAME_HEADER_BYTES,
                present: bytes.len(),
            },
        });
    };
    if head.iter().all(|byte| *byte == 0) {
        return Err(FrameError::NotThere);
    }
    let (front, checked) = head.split_at(CHECKED_FROM);
    let (magic, crc) = front.split_at(FRAME_MAGIC.len());
    if magic != FRAME_MAGIC {
        return Err(FrameError::Corrupt(Corruption::Magic));
    }
    if crc != crc32c::crc32c(checked).to_le_bytes() {
        return Err(FrameError::Corrupt(Corruption::HeaderChecksum));
    }
    let mut fields = FieldReader::new(checked);
    let header = (|| {
        Ok::<_, FieldError>(FrameHeader {
            len: fields.u32("length")?,
            crc: fields.u32("checksum")?,
            kind: fields.u16("kind")?,
            flags: fields.u16("flags")?,
            session: SessionId(fields.u64("session")?),
            lsn: Lsn(fields.u64("lsn")?),
        })
    })()
    // The fields fill the fixed header exactly; a short read cannot happen.
    .map_err(|_| FrameError::Corrupt(Corruption::HeaderChecksum))?;
    if header.len as usize > FRAME_PAYLOAD_BYTES_MAX {
        return Err(FrameError::Corrupt(Corruption::TooLong { len: header.len }));
    }
    Ok(header)
}

/// Reads the frame that begins at `at`. The records of an intent are a slice of `bytes`: nothing is copied.
pub fn decode_frame(bytes: &Bytes, at: usize) -> Result<Decoded, FrameError> {
    let rest = bytes.get(at..).ok_or(FrameError::NotThere)?;
    let header = decode_frame_header(rest)?;
    let frame_bytes = header.frame_bytes();
    if rest.len() < frame_bytes {
        return Err(FrameError::Torn {
            needed: frame_bytes,
            present: rest.len(),
        });
    }
    let next = at + frame_bytes;
    let payload = bytes.slice(at + FRAME_HEADER_BYTES..next);
    if crc32c::crc32c(&payload) != header.crc {
        return Err(FrameError::Corrupt(Corruption::PayloadChecksum { frame_bytes }));
    }
    let frame = if header.flags == 0 {
        Frame::decode(header.kind, &payload)
            .map_err(|source| FrameError::Corrupt(Corruption::Payload { frame_bytes, source }))?
    } else {
        Frame::Unknown {
            kind: header.kind,
            payload,
        }
    };
    Ok(Decoded { header, frame, next })
}

/// Appends a whole frame.
///
/// Fails, leaving `out` as it was, on what a reader would refuse: too long a payload or string, a topic without
/// name and id.
pub fn encode_frame(
    frame: &Frame,
    session: SessionId,
    lsn: Lsn,
    out: &mut BytesMut,
) -> Result<(), FieldError> {
    let records = match frame {
        Frame::Intent(intent) => intent.records.as_ref(),
        _ => &[],
    };
    encode_envelope(frame.kind(), session, lsn, records, out, |out| {
        frame.encode_prefix(out)
    })?;
    out.put_slice(records);
    Ok(())
}

/// Appends all of an intent's frame but the records, which the caller writes right behind: header and prefix are
/// the small part, so that a vectored write needs no copy of the records. The checksum covers both.
pub fn encode_intent_prefix(
    intent: &Intent,
    session: SessionId,
    lsn: Lsn,
    out: &mut BytesMut,
) -> Result<(), FieldError> {
    let kind = crate::buffer::payload::KIND_INTENT;
    encode_envelope(kind, session, lsn, &intent.records, out, |out| {
        intent.encode_prefix(out)
    })
}

fn encode_envelope(
    kind: u16,
    session: SessionId,
    lsn: Lsn,
    records: &[u8],
    out: &mut BytesMut,
    prefix: impl FnOnce(&mut BytesMut) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    let start = out.len();
    out.put_bytes(0, FRAME_HEADER_BYTES);
    let result = prefix(out).and_then(|()| fill_header(kind, session, lsn, records, out, start));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn fill_header(
    kind: u16,
    session: SessionId,
    lsn: Lsn,
    records: &[u8],
    out: &mut BytesMut,
    start: usize,
) -> Result<(), FieldError> {
    let Some((header, prefix)) = out
        .get_mut(start..)
        .and_then(|f| f.split_at_mut_checked(FRAME_HEADER_BYTES))
    else {
        return Err(FieldError::Short { what: "frame" });
    };
    let len = prefix.len().saturating_add(records.len());
    if len > FRAME_PAYLOAD_BYTES_MAX {
        let limit = FRAME_PAYLOAD_BYTES_MAX as u64;
        return Err(FieldError::TooLong {
            what: "frame payload",
            len: len as u64,
            limit,
        });
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(prefix), records);
    header.copy_from_slice(
        &FrameHeader {
            len: len as u32,
            crc,
            kind,
            flags: 0,
            session,
            lsn,
        }
        .encode(),
    );
    Ok(())
}
