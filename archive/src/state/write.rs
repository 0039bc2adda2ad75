//! Building a state object: lines are compressed as they come, so that what waits for its upload is small.

use crate::ids::WriterId;
use crate::ledger::{StateKind, StateObject};
use crate::names::state_key;
use crate::state::line::{Header, Line, What};
use crate::state::{CONTENT_BYTES_MAX, LINE_BYTES_MAX, OBJECT_BYTES_MAX, StateError};
use bytes::Bytes;
use std::fmt;
use std::io::Write;

/// Writes one state object.
pub struct StateWriter {
    header: Header,
    kind: StateKind,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    lines: u64,
    content_bytes: u64,
    first_at_ms: i64,
    last_at_ms: i64,
}

/// A state object, ready to be stored.
#[derive(Clone, Debug)]
pub struct FinishedState {
    /// What the ledger is to say of it, its key included.
    pub object: StateObject,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Lines repeat themselves, so a low level saves nearly as much as a high one.
const LEVEL: i32 = 3;

impl StateWriter {
    /// Begins an object. The header's kind is set to `kind`.
    pub fn new(kind: StateKind, mut header: Header) -> Result<StateWriter, StateError> {
        header.kind = kind.to_string();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(StateError::Codec)?;
        encoder.include_checksum(true).map_err(StateError::Codec)?;
        let mut writer = StateWriter {
            kind,
            encoder,
            lines: 1,
            content_bytes: 0,
            first_at_ms: 0,
            last_at_ms: 0,
            header,
        };
        let line = writer.header.encode().map_err(|reason| writer.refused(reason))?;
        writer.put(&line)?;
        Ok(writer)
    }

    /// Adds a line. Times never go back: an earlier one is written as the last.
    pub fn push(&mut self, at_ms: i64, what: What) -> Result<(), StateError> {
        let is_first = self.lines == 1;
        let at_ms = if is_first {
            at_ms
        } else {
            at_ms.max(self.last_at_ms)
        };
        let line = Line { at_ms, what };
        let text = line.encode().map_err(|reason| self.refused(reason))?;
        self.put(&text)?;
        if is_first {
            self.first_at_ms = at_ms;
        }
        self.last_at_ms = at_ms;
        self.lines += 1;
        Ok(())
    }

    /// Whether it has no line beside its header.
    pub fn is_empty(&self) -> bool {
        self.lines == 1
    }

    /// Whether it begins the state anew.
    pub fn is_full(&self) -> bool {
        self.header.full
    }

    /// Bytes of the lines so far, before compression.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Ends the object.
    pub fn finish(self, writer: WriterId, nonce: u64) -> Result<FinishedState, StateError> {
        let bytes = Bytes::from(self.encoder.finish().map_err(StateError::Codec)?);
        if bytes.len() as u64 > OBJECT_BYTES_MAX {
            return Err(StateError::TooLong {
                what: "the object",
                limit: OBJECT_BYTES_MAX,
            });
        }
        let key = state_key(&self.header.backup_id, self.kind, self.first_at_ms, writer, nonce)?;
        let object = StateObject {
            kind: self.kind,
            key,
            first_at_ms: self.first_at_ms,
            last_at_ms: self.last_at_ms,
            full: self.header.full,
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(&bytes),
        };
        Ok(FinishedState { object, bytes })
    }

    /// What a reader would refuse is not written.
    fn put(&mut self, line: &[u8]) -> Result<(), StateError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(StateError::TooLong {
                what: "a line",
                limit: LINE_BYTES_MAX as u64,
            });
        }
        let content_bytes = self.content_bytes + line.len() as u64 + 1;
        if content_bytes > CONTENT_BYTES_MAX {
            return Err(StateError::TooLong {
                what: "the content",
                limit: CONTENT_BYTES_MAX,
            });
        }
        self.encoder.write_all(line).map_err(StateError::Codec)?;
        self.encoder.write_all(b"\n").map_err(StateError::Codec)?;
        self.content_bytes = content_bytes;
        Ok(())
    }

    fn refused(&self, reason: String) -> StateError {
        StateError::Line {
            number: self.lines,
            reason,
        }
    }
}

impl fmt::Debug for StateWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWriter")
            .field("header", &self.header)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}
