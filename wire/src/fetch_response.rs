//! Broker addresses in responses that stream through.
//!
//! Fetch (from version 16) and ShareFetch responses may end with the addresses of new leaders, hints
//! that spare clients a Metadata request. Such a response can be many megabytes of records, which are
//! not to be held in memory, and its length has been announced before its end is seen. So the hints are
//! made unreadable in place: a tagged field gets the number of no known field, an array becomes empty
//! and its elements turn into a tagged field of no known number; their content is zeroed. Clients then
//! ask for Metadata, as they did before there were hints.
//!
//! The scanner jumps over records and sees every other byte once. A response it does not understand is
//! an error at the byte where that shows; what went before has been passed on by then, the rest must
//! not be, and the connection has to be closed.

use crate::WireError;
use crate::rewrite::carries_addresses;
use crate::schema::{Field, Kind, Layout, Role};

/// Walks a response as it streams through. Feed it every byte after the correlation id, in order, and
/// pass each chunk on only after it was scanned.
#[derive(Debug)]
pub struct TailScanner {
    version: i16,
    /// Bytes not yet seen.
    remaining: usize,
    /// Bytes seen.
    at: usize,
    /// What is being read, outermost first; as deep as the layout.
    stack: Vec<Level>,
    pending: Pending,
    neutralised: bool,
}

impl TailScanner {
    /// A scanner for the `remaining` bytes that follow the correlation id of a response. None when
    /// responses of this key and version carry no addresses at their end.
    ///
    /// Errs for a version newer than understood, and for keys whose addresses are not mere hints.
    pub fn after_correlation_id(
        api_key: i16,
        version: i16,
        remaining: usize,
    ) -> Result<Option<TailScanner>, WireError> {
        if !carries_addresses(api_key, version) {
            return Ok(None);
        }
        let layout = Layout::of_response(api_key, version)?;
        let has_hints = layout.fields.iter().any(|field| field.role == Role::NodeHints);
        if !has_hints || !layout.flexible {
            return Err(WireError::UnknownLayout {
                api_key,
                api_version: version,
            });
        }
        let mut stack = Vec::with_capacity(STACK_LEVELS);
        stack.push(Level::Fields {
            fields: layout.fields,
            next: 0,
        });
        // The tagged fields of the response header come before the body.
        let pending = Pending::number(Number::TagCount { fields: &[] });
        Ok(Some(TailScanner {
            version,
            remaining,
            at: 0,
            stack,
            pending,
            neutralised: false,
        }))
    }

    /// Takes the next bytes, changing them in place where they must be.
    pub fn scan(&mut self, mut chunk: &mut [u8]) -> Result<(), WireError> {
        if chunk.len() > self.remaining {
            let at = self.at.saturating_add(self.remaining);
            return Err(WireError::TrailingBytes {
                at,
                count: chunk.len().saturating_sub(self.remaining),
            });
        }
        loop {
            match self.pending {
                Pending::Nothing => {
                    if !self.next_step()? {
                        return self.expect_end();
                    }
                }
                Pending::Skip { left: 0, .. } => self.pending = Pending::Nothing,
                Pending::Skip { left, blank } => {
                    let taken = self.advance(&mut chunk, left);
                    if taken.is_empty() {
                        return Ok(());
                    }
                    if blank {
                        taken.fill(0);
                    }
                    self.pending = Pending::Skip {
                        left: left.saturating_sub(taken.len()),
                        blank,
                    };
                }
                Pending::Number { what, value, index } => match self.advance(&mut chunk, 1) {
                    [byte] => self.number_byte(byte, what, value, index)?,
                    _ => return Ok(()),
                },
                Pending::Overlay { prefix, payload } => match self.advance(&mut chunk, 1) {
                    [byte] => self.pending = prefix.onto(byte, payload),
                    _ => return Ok(()),
                },
            }
        }
    }

    /// Errs unless the whole response has been seen. True when addresses were made unreadable.
    pub fn finish(self) -> Result<bool, WireError> {
        if self.remaining == 0 && self.stack.is_empty() && self.pending.needs_nothing() {
            return Ok(self.neutralised);
        }
        Err(WireError::Truncated {
            at: self.at,
            needed: self.remaining.max(1),
            remaining: 0,
        })
    }

    fn expect_end(&self) -> Result<(), WireError> {
        match self.remaining {
            0 => Ok(()),
            count => Err(WireError::TrailingBytes { at: self.at, count }),
        }
    }

    /// Takes up to `count` bytes off the chunk.
    fn advance<'c>(&mut self, chunk: &mut &'c mut [u8], count: usize) -> &'c mut [u8] {
        let count = count.min(chunk.len());
        let (taken, rest) = std::mem::take(chunk).split_at_mut(count);
        *chunk = rest;
        self.at = self.at.saturating_add(taken.len());
        self.remaining = self.remaining.saturating_sub(taken.len());
        taken
    }

    /// Finds out what is to be read next. False when nothing is left to read.
    fn next_step(&mut self) -> Result<bool, WireError> {
        let Some(level) = self.stack.pop() else {
            return Ok(false);
        };
        match level {
            Level::Fields { fields, next } => match fields.get(next) {
                Some(field) => {
                    self.stack.push(Level::Fields {
                        fields,
                        next: next.saturating_add(1),
                    });
                    if field.tag.is_none() && field.is_in(self.version) {
                        self.begin(&field.kind, field.role)?;
                    }
                }
                None => self.pending = Pending::number(Number::TagCount { fields }),
            },
            Level::Elements { left: 0, .. } | Level::Tags { left: 0, .. } => {}
            Level::Elements { element, left } => {
                self.stack.push(Level::Elements {
                    element,
                    left: left.saturating_sub(1),
                });
                self.begin(element, Role::Plain)?;
            }
            Level::Tags { fields, left } => {
                self.stack.push(Level::Tags {
                    fields,
                    left: left.saturating_sub(1),
                });
                self.pending = Pending::number(Number::Tag { fields });
            }
        }
        Ok(true)
    }

    fn begin(&mut self, kind: &'static Kind, role: Role) -> Result<(), WireError> {
        match kind {
            Kind::Fixed(size) => self.skip(usize::from(*size), false)?,
            Kind::Text | Kind::Blob => self.pending = Pending::number(Number::Length),
            Kind::Array(element) => {
                let hints = role == Role::NodeHints;
                self.pending = Pending::number(Number::Count { element, hints });
            }
            Kind::Struct(fields) => self.stack.push(Level::Fields { fields, next: 0 }),
        }
        Ok(())
    }

    fn skip(&mut self, left: usize, blank: bool) -> Result<(), WireError> {
        if left > self.remaining {
            return Err(WireError::Truncated {
                at: self.at,
                needed: left,
                remaining: self.remaining,
            });
        }
        self.pending = Pending::Skip { left, blank };
        Ok(())
    }

    /// Takes one byte of an unsigned variable-length integer.
    fn number_byte(&mut self, byte: &mut u8, what: Number, value: u32, index: u32) -> Result<(), WireError> {
        if let Number::Count { hints: true, .. } = what
            && *byte > EMPTY_ARRAY
        {
            return self.overlay_hints(byte);
        }
        let bits = u32::from(*byte & 0x7f);
        if index == 4 && *byte > 0x0f {
            return Err(WireError::BadVarint {
                at: self.at.saturating_sub(5),
            });
        }
        let value = value | bits << (7 * index);
        if *byte & 0x80 != 0 {
            self.pending = Pending::Number {
                what,
                value,
                index: index.saturating_add(1),
            };
            return Ok(());
        }
        self.number(byte, what, value)
    }

    /// A number is complete; `last` is its last byte.
    fn number(&mut self, last: &mut u8, what: Number, value: u32) -> Result<(), WireError> {
        self.pending = Pending::Nothing;
        let size = value as usize;
        match what {
            Number::TagCount { fields } => self.stack.push(Level::Tags { fields, left: value }),
            Number::Tag { fields } => {
                let known = fields
                    .iter()
                    .find(|field| field.tag == Some(value) && field.is_in(self.version));
                let blank = known.is_some_and(|field| field.role == Role::NodeHints);
                if blank {
                    // Whatever the encoding of the tag, with this last byte it is a large number.
                    *last = NEUTRAL_TAG;
                    self.neutralised = true;
                }
                self.pending = Pending::number(Number::TagSize { blank });
            }
            Number::TagSize { blank } => self.skip(size, blank)?,
            // Lengths and counts are written plus one; zero is null.
            Number::Length => self.skip(size.saturating_sub(1), false)?,
            Number::Count { element, .. } => {
                if size.saturating_sub(1) > self.remaining {
                    let (at, remaining) = (self.at, self.remaining);
                    return Err(WireError::TooManyElements {
                        at,
                        count: u64::from(value),
                        remaining,
                    });
                }
                self.stack.push(Level::Elements {
                    element,
                    left: value.saturating_sub(1),
                });
            }
        }
        Ok(())
    }

    /// An array of hints begins with this byte, and is not empty. It is the last field but for tagged
    /// ones, so everything from here to the end becomes: an empty array, one tagged field of zeros.
    fn overlay_hints(&mut self, byte: &mut u8) -> Result<(), WireError> {
        let Some((prefix, payload)) = Prefix::filling(self.remaining.saturating_add(1)) else {
            return Err(WireError::Truncated {
                at: self.at,
                needed: 4,
                remaining: self.remaining,
            });
        };
        self.stack.clear();
        self.neutralised = true;
        self.pending = prefix.onto(byte, payload);
        Ok(())
    }
}

/// A tag that no message has. It takes one byte, and is the last byte of what it is put into.
const NEUTRAL_TAG: u8 = 0x7f;

/// The count of an empty array, and, as it happens, of one tagged field.
const EMPTY_ARRAY: u8 = 1;
const ONE_TAGGED_FIELD: u8 = 1;

/// Enough for the layouts there are.
const STACK_LEVELS: usize = 12;

/// A structure or array that is being read.
#[derive(Debug, Clone, Copy)]
enum Level {
    Fields { fields: &'static [Field], next: usize },
    Elements { element: &'static Kind, left: u32 },
    Tags { fields: &'static [Field], left: u32 },
}

/// What has begun and may end in a later chunk.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Nothing,
    Skip { left: usize, blank: bool },
    Number { what: Number, value: u32, index: u32 },
    Overlay { prefix: Prefix, payload: usize },
}

impl Pending {
    fn number(what: Number) -> Pending {
        Pending::Number {
            what,
            value: 0,
            index: 0,
        }
    }

    fn needs_nothing(self) -> bool {
        matches!(self, Pending::Nothing | Pending::Skip { left: 0, .. })
    }
}

/// What a number stands for.
#[derive(Debug, Clone, Copy)]
enum Number {
    Length,
    Count { element: &'static Kind, hints: bool },
    TagCount { fields: &'static [Field] },
    Tag { fields: &'static [Field] },
    TagSize { blank: bool },
}

/// The bytes that turn the rest of a message into an empty array and one unknown tagged field.
#[derive(Debug, Clone, Copy)]
struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    next: usize,
    len: usize,
}

/// Array count, tag count, tag, and a size of at most five bytes.
const PREFIX_BYTES_MAX: usize = 8;

impl Prefix {
    /// The prefix for a rest of `total` bytes, and how many bytes of content follow it.
    fn filling(total: usize) -> Option<(Prefix, usize)> {
        let mut bytes = [0; PREFIX_BYTES_MAX];
        let size_bytes = (1..=5_usize).find(|size_bytes| {
            let payload = total.checked_sub(3 + size_bytes);
            payload.is_some_and(|payload| payload >> (7 * size_bytes) == 0)
        })?;
        let payload = total.checked_sub(3 + size_bytes)?;
        let head = [EMPTY_ARRAY, ONE_TAGGED_FIELD, NEUTRAL_TAG];
        let size = (0..size_bytes).map(|index| {
            // A size may have to be one byte longer than its shortest form to come out even.
            let more = if index + 1 < size_bytes { 0x80 } else { 0 };
            (payload >> (7 * index)) as u8 & 0x7f | more
        });
        for (place, byte) in bytes.iter_mut().zip(head.into_iter().chain(size)) {
            *place = byte;
        }
        Some((
            Prefix {
                bytes,
                next: 0,
                len: 3 + size_bytes,
            },
            payload,
        ))
    }

    /// Puts the next byte of the prefix in the place of `byte`, and says what comes after it.
    fn onto(mut self, byte: &mut u8, payload: usize) -> Pending {
        if let Some(new) = self.bytes.get(self.next) {
            *byte = *new;
        }
        self.next = self.next.saturating_add(1);
        match self.next < self.len {
            true => Pending::Overlay {
                prefix: self,
                payload,
            },
            false => Pending::Skip {
                left: payload,
                blank: true,
            },
        }
    }
}

#[cfg(test)]
#[path = "fetch_response_tests.rs"]
mod tests;
