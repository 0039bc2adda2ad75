//! DER, as far as Kerberos uses it: tags of one byte, definite lengths (X.690).
//!
//! Reading answers `None` to whatever is not as it should be; who asks knows what that means.

/// The elements of some bytes, one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: its tag, its content, and all of it.
    pub(super) fn any(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let whole = self.0;
        let (&tag, rest) = whole.split_first()?;
        // Tags of several bytes do not occur.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0u64, |length, &digit| (length << 8) | u64::from(digit));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let (element, _) = whole.split_at_checked(whole.len().checked_sub(rest.len())?)?;
        Some((tag, content, element))
    }

    /// The content of the next element, which must have this tag.
    fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.any()? {
            (found, content, _) if found == tag => Some(content),
            _ => None,
        }
    }

    /// The elements within the next one, which must have this tag.
    fn within(&mut self, tag: u8) -> Option<Self> {
        self.content(tag).map(Self)
    }

    pub(super) fn sequence(&mut self) -> Option<Self> {
        self.within(SEQUENCE)
    }

    /// An application's own type.
    pub(super) fn application(&mut self, number: u8) -> Option<Self> {
        self.within(APPLICATION | number)
    }

    /// A field with its number.
    pub(super) fn field(&mut self, number: u8) -> Option<Self> {
        self.within(FIELD | number)
    }

    /// The same if it is there.
    pub(super) fn optional(&mut self, number: u8) -> Option<Option<Self>> {
        match self.peek() == Some(FIELD | number) {
            true => self.field(number).map(Some),
            false => Some(None),
        }
    }

    pub(super) fn integer(&mut self) -> Option<i64> {
        let digits = self.content(INTEGER)?;
        let first = digits.first().filter(|_| digits.len() <= 8)?;
        let sign = if first & 0x80 == 0 { 0 } else { -1 };
        Some(
            digits
                .iter()
                .fold(sign, |number, &digit| (number << 8) | i64::from(digit)),
        )
    }

    pub(super) fn octets(&mut self) -> Option<&'a [u8]> {
        self.content(OCTETS)
    }

    /// Kerberos writes UTF-8 in what is called general strings.
    pub(super) fn text(&mut self) -> Option<String> {
        let text = self.content(TEXT)?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    }

    /// Seconds of Unix.
    pub(super) fn time(&mut self) -> Option<u64> {
        let text = self.content(TIME)?;
        let digits = text.strip_suffix(b"Z").filter(|digits| digits.len() == 14)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let number = |from: usize, to: usize| {
            std::str::from_utf8(digits.get(from..to)?)
                .ok()?
                .parse::<i64>()
                .ok()
        };
        let days = days_of(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
        let seconds = number(8, 10)? * 3600 + number(10, 12)? * 60 + number(12, 14)?;
        u64::try_from(days * 86_400 + seconds).ok()
    }
}

/// An element.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|&&digit| digit == 0).count();
    let digits = length.get(zeros..).unwrap_or_default();
    match digits {
        [] => bytes.push(0),
        [short @ ..=0x7f] => bytes.push(*short),
        _ => {
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend_from_slice(digits);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

pub(super) fn application(number: u8, content: &[u8]) -> Vec<u8> {
    element(APPLICATION | number, content)
}

pub(super) fn field(number: u8, content: &[u8]) -> Vec<u8> {
    element(FIELD | number, content)
}

pub(super) fn integer(number: i64) -> Vec<u8> {
    let digits = number.to_be_bytes();
    // As few as keep the sign.
    let spare = digits
        .windows(2)
        .take_while(|pair| match pair {
            [0, next] => next & 0x80 == 0,
            [0xff, next] => next & 0x80 != 0,
            _ => false,
        })
        .count();
    element(INTEGER, digits.get(spare..).unwrap_or_default())
}

pub(super) fn octets(bytes: &[u8]) -> Vec<u8> {
    element(OCTETS, bytes)
}

pub(super) fn text(text: &str) -> Vec<u8> {
    element(TEXT, text.as_bytes())
}

/// Flags, the first of which is the highest bit.
pub(super) fn flags(flags: u32) -> Vec<u8> {
    element(BITS, &[&[0], flags.to_be_bytes().as_slice()].concat())
}

/// Of seconds of Unix.
pub(super) fn time(seconds: u64) -> Vec<u8> {
    let (year, month, day) = date_of(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    element(TIME, text.as_bytes())
}

/// Days since 1970, by years that begin in March.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

fn date_of(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, day)
}

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const TIME: u8 = 0x18;
const TEXT: u8 = 0x1b;
const SEQUENCE: u8 = 0x30;
const APPLICATION: u8 = 0x60;
const FIELD: u8 = 0xa0;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(127), [2, 1, 127]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(-128), [2, 1, 128]);
        assert_eq!(integer(-135), [2, 2, 0xff, 0x79]);
        assert_eq!(flags(0x4000_0010), [3, 5, 0, 0x40, 0, 0, 0x10]);
        assert_eq!(octets(&[7; 200])[..3], [4, 0x81, 200]);
        assert_eq!(octets(&[7; 300])[..4], [4, 0x82, 1, 44]);
        assert_eq!(time(1_774_137_599), element(TIME, b"20260321235959Z"));
        assert_eq!(time(951_782_400), element(TIME, b"20000229000000Z"));
        assert_eq!(Der::new(b"\x18\x0f20261321000000Z").time(), None);
        assert_eq!(Der::new(&[2, 0x80]).integer(), None);
        assert_eq!(Der::new(&[2, 2, 1]).integer(), None);
        assert_eq!(Der::new(&[2, 0x84, 0xff, 0xff, 0xff, 0xff, 1]).integer(), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: i64, seconds in 0..253_402_300_799u64, bytes: Vec<u8>, text in ".*") {
            let parts = [integer(number), time(seconds), octets(&bytes), super::text(&text)];
            let whole = application(3, &field(5, &sequence(&parts)));
            let mut read = Der::new(&whole).application(3).unwrap().field(5).unwrap().sequence().unwrap();
            prop_assert_eq!(read.integer(), Some(number));
            prop_assert_eq!(read.time(), Some(seconds));
            prop_assert_eq!(read.octets(), Some(bytes.as_slice()));
            prop_assert_eq!(read.optional(7).unwrap().map(|_| ()), None);
            prop_assert_eq!(read.text(), Some(text));
            prop_assert!(read.is_empty());
        }

        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            let mut read = Der::new(&bytes);
            while read.any().is_some() {}
            let _ = (Der::new(&bytes).time(), Der::new(&bytes).integer(), Der::new(&bytes).text());
        }
    }
}
