//! A file of tickets that somebody else obtains, in the form of MIT Kerberos (versions 3 and 4).

use std::path::Path;

use super::crypto::{Encryption, Key};
use super::{Cursor, KerberosError, Principal, Ticket, read_file, unusable};

/// Whose tickets these are, and the tickets that we can use.
pub(super) struct Cache {
    pub(super) owner: Principal,
    pub(super) tickets: Vec<Ticket>,
}

impl Cache {
    pub(super) fn read(path: &Path) -> Result<Self, KerberosError> {
        let content = read_file(path)?;
        Self::parse(&content).ok_or_else(|| {
            unusable(
                path,
                "is not a file of tickets (hint: klist -c FILE: shows what one holds)",
            )
        })
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let mut rest = Cursor(content);
        let version = rest.u16()?;
        match version {
            VERSION_3 => {}
            VERSION_4 => {
                let header = rest.u16()?;
                rest.take(usize::from(header))?;
            }
            _ => return None,
        }
        let owner = principal(&mut rest)?;
        let mut tickets = Vec::new();
        while !rest.0.is_empty() {
            // Whoever renews them may be at it: an entry that is not whole is not there yet.
            let Some(entry) = ticket(&mut rest, version) else {
                break;
            };
            tickets.extend(entry);
        }
        Some(Self { owner, tickets })
    }
}

fn text(rest: &mut Cursor<'_>) -> Option<String> {
    let bytes = rest.counted()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn principal(rest: &mut Cursor<'_>) -> Option<Principal> {
    let _type_of_name = rest.u32()?;
    let count = rest.u32()?;
    let realm = text(rest)?;
    let mut parts = Vec::new();
    for _ in 0..count {
        parts.push(text(rest)?);
    }
    Some(Principal { realm, parts })
}

/// None inside if it is of a kind that we have no use for, such as a note of whoever keeps the file.
fn ticket(rest: &mut Cursor<'_>, version: u16) -> Option<Option<Ticket>> {
    let client = principal(rest)?;
    let server = principal(rest)?;
    let encryption = rest.u16()?;
    if version == VERSION_3 {
        rest.u16()?;
    }
    let key = rest.counted()?;
    let [_authenticated, _start, end, _renewable] = [rest.u32()?, rest.u32()?, rest.u32()?, rest.u32()?];
    let _is_by_session_key = rest.u8()?;
    let _flags = rest.u32()?;
    // Addresses, then authorization data: a kind and bytes each.
    for _list in 0..2 {
        for _ in 0..rest.u32()? {
            rest.u16()?;
            rest.counted()?;
        }
    }
    let bytes = rest.counted()?.to_vec();
    let _second = rest.counted()?;
    let key = Encryption::of_number(i64::from(encryption)).and_then(|encryption| Key::new(encryption, key));
    Some(key.map(|key| Ticket {
        client,
        server,
        key,
        bytes,
        end: u64::from(end),
    }))
}

const VERSION_3: u16 = 0x0503;
const VERSION_4: u16 = 0x0504;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    fn named(parts: &[&str]) -> Vec<u8> {
        let mut bytes = [1u32.to_be_bytes(), (parts.len() as u32).to_be_bytes()].concat();
        bytes.extend(counted(b"R"));
        parts
            .iter()
            .for_each(|part| bytes.extend(counted(part.as_bytes())));
        bytes
    }

    fn written(server: &[&str], encryption: u16, key: &[u8]) -> Vec<u8> {
        let mut bytes = [named(&["me"]), named(server)].concat();
        bytes.extend(encryption.to_be_bytes());
        bytes.extend(counted(key));
        for time in [1u32, 2, 77, 4] {
            bytes.extend(time.to_be_bytes());
        }
        bytes.extend([0; 5]);
        bytes.extend([&1u32.to_be_bytes()[..], &[0, 2], &counted(b"addr")].concat());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(counted(b"ticket"));
        bytes.extend(counted(b""));
        bytes
    }

    #[test]
    fn tickets_are_found_between_notes_and_as_far_as_they_are_whole() {
        let head = [&[5, 4, 0, 4, 9, 9, 9, 9][..], &named(&["me"])].concat();
        let whole = [
            head,
            written(&["krb5_ccache_conf_data", "note"], 0, b""),
            written(&["krbtgt", "R"], 18, &[7; 32]),
            written(&["kafka", "host"], 17, &[8; 16]),
        ]
        .concat();
        let cache = Cache::parse(&whole).unwrap();
        assert_eq!(cache.owner.to_string(), "me@R");
        let servers: Vec<_> = cache
            .tickets
            .iter()
            .map(|ticket| ticket.server.to_string())
            .collect();
        assert_eq!(servers, ["krbtgt/R@R", "kafka/host@R"]);
        assert!(
            cache
                .tickets
                .iter()
                .all(|ticket| ticket.end == 77 && ticket.bytes == b"ticket")
        );
        let torn = Cache::parse(whole.split_at(whole.len() - 3).0).unwrap();
        assert_eq!(torn.tickets.len(), 1);
        assert!(Cache::parse(b"\x05\x02").is_none());
    }

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            let _ = Cache::parse(&[&[5, 4, 0, 0], bytes.as_slice()].concat());
        }
    }
}
