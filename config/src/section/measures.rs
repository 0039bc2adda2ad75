//! Sizes and times: with units, or as plain numbers where the key says which unit is meant.

use std::time::Duration;

use super::Section;
use crate::units::{DURATION_HINT, SIZE_HINT, UnitError, parse_duration_ms, parse_size};

impl Section<'_> {
    /// A size: `stem_bytes` (a number of bytes, or with a unit) or `stem` (with a unit).
    pub(crate) fn size(
        &mut self,
        stem: &'static str,
        plain: &'static str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let bytes = self.with_unit(stem, plain, parse_size, SIZE_HINT)?;
        let key = if self.has(plain) { plain } else { stem };
        self.within(key, bytes, min, max, "bytes")
    }

    /// A duration in milliseconds: `stem_ms` (a number, or with a unit) or `stem` (with a unit).
    pub(crate) fn millis(
        &mut self,
        stem: &'static str,
        plain: &'static str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let millis = self.with_unit(stem, plain, parse_duration_ms, DURATION_HINT)?;
        let key = if self.has(plain) { plain } else { stem };
        self.within(key, millis, min, max, "ms")
    }

    /// As [`Section::millis`], as a [`Duration`].
    pub(crate) fn duration(
        &mut self,
        stem: &'static str,
        plain: &'static str,
        min: u64,
        max: u64,
    ) -> Option<Duration> {
        self.millis(stem, plain, min, max).map(Duration::from_millis)
    }

    fn with_unit(
        &mut self,
        stem: &'static str,
        plain: &'static str,
        parse: fn(&str) -> Result<u64, UnitError>,
        hint: &str,
    ) -> Option<u64> {
        if self.has(stem) && self.has(plain) {
            self.asked.extend([stem, plain]);
            self.problem(
                stem,
                format!("is given twice, also as {plain}"),
                "remove one of the two",
            );
            return None;
        }
        let (key, number_is_enough) = if self.mapping.contains_key(plain) {
            (plain, true)
        } else {
            (stem, false)
        };
        self.asked.push(if number_is_enough { stem } else { plain });
        self.parsed(
            key,
            |text| {
                if number_is_enough {
                    text.trim().parse().or_else(|_| parse(text))
                } else {
                    parse(text)
                }
            },
            hint,
        )
    }

    fn within(&self, key: &str, value: u64, min: u64, max: u64, unit: &str) -> Option<u64> {
        if (min..=max).contains(&value) {
            return Some(value);
        }
        let message = if value < min {
            "is too small"
        } else {
            "is too large"
        };
        self.problem(key, message, format!("it may be {min} to {max} {unit}"));
        None
    }
}
