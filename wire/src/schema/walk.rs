//! Following a layout through the bytes of a whole message.

use std::ops::Range;

use super::{Field, Kind, Layout, Role};
use crate::WireError;
use crate::read::Reader;

/// Told about the fields that have a role, in the order of the message.
pub(crate) trait Visitor {
    /// A field of fixed size.
    fn fixed(&mut self, _role: Role, _at: usize, _bytes: &[u8]) -> Result<(), WireError> {
        Ok(())
    }

    /// A string: where it stands with its length, and its content (None for null).
    fn text(
        &mut self,
        _role: Role,
        _span: Range<usize>,
        _content: Option<Range<usize>>,
    ) -> Result<(), WireError> {
        Ok(())
    }

    /// The content of a known tagged field begins; its size of `size` bytes stands at `size_span`.
    fn enter_tagged(&mut self, _size_span: Range<usize>, _size: usize) {}

    /// That content has ended.
    fn leave_tagged(&mut self) -> Result<(), WireError> {
        Ok(())
    }
}

/// Walks a whole body. Recursion is as deep as the layout's tables, whatever the bytes say.
pub(crate) fn walk(layout: &Layout, body: &[u8], visitor: &mut impl Visitor) -> Result<(), WireError> {
    let mut walker = Walker {
        layout,
        reader: Reader::new(body),
        visitor,
    };
    walker.fields(layout.fields)?;
    walker.reader.expect_end()
}

struct Walker<'a, V> {
    layout: &'a Layout,
    reader: Reader<'a>,
    visitor: &'a mut V,
}

impl<V: Visitor> Walker<'_, V> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), WireError> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.layout.version) {
                self.value(&field.kind, field.role)?;
            }
        }
        if self.layout.flexible {
            self.tagged_fields(fields)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: &'static Kind, role: Role) -> Result<(), WireError> {
        match kind {
            Kind::Fixed(size) => {
                let at = self.reader.position();
                let bytes = self.reader.take(usize::from(*size))?;
                if role != Role::Plain {
                    self.visitor.fixed(role, at, bytes)?;
                }
            }
            Kind::Text => {
                let start = self.reader.position();
                let content = self.reader.nullable_string_range(self.layout.flexible)?;
                if role != Role::Plain {
                    self.visitor.text(role, start..self.reader.position(), content)?;
                }
            }
            Kind::Blob => {
                self.reader.nullable_bytes_range(self.layout.flexible)?;
            }
            Kind::Array(element) => {
                let count = self.reader.nullable_array_count(self.layout.flexible, 1)?;
                for _ in 0..count.unwrap_or(0) {
                    self.value(element, Role::Plain)?;
                }
            }
            Kind::Struct(fields) => self.fields(fields)?,
        }
        Ok(())
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), WireError> {
        let count = self.reader.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.reader.unsigned_varint()?;
            let size_at = self.reader.position();
            let size = self.reader.unsigned_varint()? as usize;
            let version = self.layout.version;
            let known = fields
                .iter()
                .find(|field| field.tag == Some(tag) && field.is_in(version));
            match known {
                Some(field) => self.tagged_field(field, size_at, size)?,
                None => self.reader.skip(size)?,
            }
        }
        Ok(())
    }

    fn tagged_field(&mut self, field: &'static Field, size_at: usize, size: usize) -> Result<(), WireError> {
        let at = self.reader.position();
        self.visitor.enter_tagged(size_at..at, size);
        self.value(&field.kind, field.role)?;
        // Decoders differ in what they believe, size or content, when the two disagree. No encoder
        // writes such a thing, so it is refused.
        if self.reader.position() != at.saturating_add(size) {
            return Err(WireError::BadTaggedField { at, size });
        }
        self.visitor.leave_tagged()
    }
}
