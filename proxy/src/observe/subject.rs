//! Whom a client's certificate names: its subject, in the order in which Kafka writes principals.
//!
//! The certificate has been verified by then. What stands in it is its owner's all the same: every length is checked, and what is
//! shown is short and printable. No certificate is judged by this: it is for people who read a log.

use super::shown;

/// The subject of a certificate, as `CN=client-7,OU=tests,O=Teeline`; none if it is not found.
pub(crate) fn subject(certificate: &[u8]) -> Option<Box<str>> {
    let (certificate, _) = element(SEQUENCE, certificate)?;
    let (mut rest, _) = element(SEQUENCE, certificate)?;
    if let Some((_, after)) = element(VERSION, rest) {
        rest = after;
    }
    // Serial number, algorithm, issuer, validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        rest = element(tag, rest)?.1;
    }
    let (mut name, _) = element(SEQUENCE, rest)?;
    let mut parts = Vec::new();
    while !name.is_empty() && parts.len() < PARTS_MAX {
        let (set, after) = element(SET, name)?;
        let (attribute, _) = element(SEQUENCE, set)?;
        let (kind, value) = element(OBJECT_IDENTIFIER, attribute)?;
        let (_, value, _) = any_element(value)?;
        parts.push(format!("{}={}", short(kind), shown(value).replace(',', "\\,")));
        name = after;
    }
    parts.reverse();
    Some(parts.join(",").into_boxed_str())
}

/// The content of an element of this kind, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// An element in DER: a tag, a length in one to four bytes, that many bytes; and what follows.
fn any_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let number = length
                .iter()
                .fold(0, |number, byte| number << 8 | usize::from(*byte));
            (number, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn short(kind: &[u8]) -> &'static str {
    match kind {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25] => "DC",
        _ => "other",
    }
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// A name has a handful of parts.
const PARTS_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `openssl req -x509 -subj "/C=DE/O=Teeline, Inc./OU=tests/CN=client-7"`.
    const CERTIFICATE: &[u8] = include_bytes!("../../testdata/client-7.der");

    #[test]
    fn the_subject_is_shown_as_kafka_writes_principals() {
        let shown = subject(CERTIFICATE).unwrap();
        assert_eq!(&*shown, r"CN=client-7,OU=tests,O=Teeline\, Inc.,C=DE");
    }

    #[test]
    fn what_is_cut_anywhere_before_the_end_is_no_certificate() {
        for length in 0..CERTIFICATE.len() {
            assert_eq!(subject(&CERTIFICATE[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_write_much(at in 0..CERTIFICATE.len(), byte in any::<u8>(), rest in any::<Vec<u8>>()) {
            let mut damaged = CERTIFICATE.to_vec();
            damaged[at] = byte;
            damaged.extend(rest);
            let shown = subject(&damaged).unwrap_or_default();
            prop_assert!(shown.len() < 16 * 1024 && !shown.contains('\n'));
        }
    }
}
