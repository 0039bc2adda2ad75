//! Reading a state object, line by line.

use crate::ledger::StateObject;
use crate::state::line::{Header, Line};
use crate::state::{CONTENT_BYTES_MAX, LINE_BYTES_MAX, OBJECT_BYTES_MAX, StateError};
use std::fmt;
use std::io::{BufRead, BufReader, Read};

/// Reads the lines of one state object: an iterator that ends with the object or with its first error.
pub struct StateReader<'a> {
    header: Header,
    content: Content<'a>,
    line: Vec<u8>,
    number: u64,
    content_bytes: u64,
    ended: bool,
}

type Content<'a> = BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>;

impl<'a> StateReader<'a> {
    /// Checks an object against what the ledger says of it, and reads its header.
    pub fn open(object: &StateObject, bytes: &'a [u8]) -> Result<StateReader<'a>, StateError> {
        let found = bytes.len() as u64;
        if found != object.bytes {
            return Err(StateError::Length {
                expected: object.bytes,
                found,
            });
        }
        if found > OBJECT_BYTES_MAX {
            return Err(StateError::TooLong {
                what: "the object",
                limit: OBJECT_BYTES_MAX,
            });
        }
        let found = crc32c::crc32c(bytes);
        if found != object.crc32c {
            return Err(StateError::Checksum {
                expected: object.crc32c,
                found,
            });
        }
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(StateError::Codec)?;
        let mut reader = StateReader {
            header: Header {
                version: 0,
                backup_id: String::new(),
                cluster_id: String::new(),
                kind: String::new(),
                run: String::new(),
                seq: 0,
                full: false,
                program: String::new(),
            },
            content: BufReader::new(decoder),
            line: Vec::new(),
            number: 0,
            content_bytes: 0,
            ended: false,
        };
        if !reader.read_line()? {
            return Err(reader.unusable("there is no header".to_owned()));
        }
        let header = Header::decode(&reader.line).map_err(|reason| reader.unusable(reason))?;
        reader.header = header.map_err(StateError::Version)?;
        let expected = (object.kind.to_string(), object.full);
        if (&reader.header.kind, reader.header.full) != (&expected.0, expected.1) {
            let show = |kind: &str, full: bool| format!("{} of {kind}", if full { "all" } else { "changes" });
            return Err(StateError::Elsewhere {
                expected: show(&expected.0, expected.1),
                found: show(&reader.header.kind, reader.header.full),
            });
        }
        Ok(reader)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next line into `self.line`, without its end; false at the end of the content.
    fn read_line(&mut self) -> Result<bool, StateError> {
        self.line.clear();
        let cap = LINE_BYTES_MAX as u64 + 1;
        let mut limited = (&mut self.content).take(cap);
        let read = limited
            .read_until(b'\n', &mut self.line)
            .map_err(StateError::Codec)?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.content_bytes += read as u64;
        if self.content_bytes > CONTENT_BYTES_MAX {
            return Err(StateError::TooLong {
                what: "the content",
                limit: CONTENT_BYTES_MAX,
            });
        }
        if self.line.pop() == Some(b'\n') {
            return Ok(true);
        }
        if read as u64 == cap {
            return Err(StateError::TooLong {
                what: "a line",
                limit: LINE_BYTES_MAX as u64,
            });
        }
        Err(self.unusable("it is cut short".to_owned()))
    }

    fn next_line(&mut self) -> Result<Option<Line>, StateError> {
        if !self.read_line()? {
            return Ok(None);
        }
        let line = Line::decode(&self.line).map_err(|reason| self.unusable(reason))?;
        Ok(Some(line))
    }

    fn unusable(&self, reason: String) -> StateError {
        StateError::Line {
            number: self.number,
            reason,
        }
    }
}

impl Iterator for StateReader<'_> {
    type Item = Result<Line, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_line().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl fmt::Debug for StateReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateReader")
            .field("header", &self.header)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
