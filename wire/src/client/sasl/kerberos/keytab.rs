//! The file with the long-term keys of principals, in the form of MIT Kerberos (version 2).

use std::path::Path;

use super::crypto::{Encryption, Key};
use super::{Cursor, KerberosError, Principal, read_file, unusable};

/// The newest keys of `principal`: one per encryption that we speak.
pub(super) fn keys(path: &Path, principal: &Principal) -> Result<Vec<Key>, KerberosError> {
    let content = read_file(path)?;
    let entries = entries(&content)
        .ok_or_else(|| unusable(path, "is not a keytab (hint: klist -k shows what one holds)"))?;
    let own: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.principal == *principal)
        .collect();
    let keys: Vec<Key> = Encryption::ALL
        .into_iter()
        .filter_map(|encryption| {
            let of_it = own.iter().filter(|entry| entry.encryption == encryption.number());
            let newest = of_it.max_by_key(|entry| entry.version)?;
            Key::new(encryption, &newest.key)
        })
        .collect();
    match (keys.is_empty(), own.is_empty()) {
        (false, _) => Ok(keys),
        (true, true) => Err(unusable(
            path,
            format!("has no key of {principal} (hint: klist -k shows whose it has)"),
        )),
        (true, false) => Err(unusable(
            path,
            format!("has no key of {principal} for AES (hint: klist -ke; make new ones with ktadd)"),
        )),
    }
}

struct Entry {
    principal: Principal,
    version: u32,
    encryption: i64,
    key: Vec<u8>,
}

fn entries(content: &[u8]) -> Option<Vec<Entry>> {
    let mut rest = Cursor(content.strip_prefix(&[5, 2])?);
    let mut entries = Vec::new();
    // An end within a length, or a length of zero: nothing more was written.
    while let Some(size) = rest.u32().map(|size| size as i32).filter(|size| *size != 0) {
        let bytes = rest.take(usize::try_from(size.unsigned_abs()).ok()?)?;
        // A hole, where an entry was removed.
        if size > 0 {
            entries.extend(entry(bytes)?);
        }
    }
    Some(entries)
}

/// None inside if it is of a kind that we have no use for.
fn entry(bytes: &[u8]) -> Option<Option<Entry>> {
    let mut fields = Cursor(bytes);
    let mut count = fields.u16()?;
    let text = |fields: &mut Cursor<'_>| {
        let count = fields.u16()?;
        let bytes = fields.take(usize::from(count))?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let realm = text(&mut fields)?;
    let mut parts = Vec::new();
    while count > 0 {
        parts.push(text(&mut fields)?);
        count -= 1;
    }
    let _type_of_name = fields.u32()?;
    let _since = fields.u32()?;
    let short_version = fields.u8()?;
    let encryption = fields.u16()?;
    let size = fields.u16()?;
    let key = fields.take(usize::from(size))?.to_vec();
    // Versions that do not fit a byte follow, in newer files.
    let version = fields
        .u32()
        .filter(|version| *version != 0)
        .unwrap_or(u32::from(short_version));
    Some(Some(Entry {
        principal: Principal { realm, parts },
        version,
        encryption: i64::from(encryption),
        key,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(name: &str, version: u32, encryption: u16, key: &[u8]) -> Vec<u8> {
        let mut entry = vec![0, 1, 0, 1, b'R', 0, name.len() as u8];
        entry.extend_from_slice(name.as_bytes());
        entry.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, version as u8]);
        entry.extend_from_slice(&encryption.to_be_bytes());
        entry.extend_from_slice(&(key.len() as u16).to_be_bytes());
        entry.extend_from_slice(key);
        entry.extend_from_slice(&version.to_be_bytes());
        let mut whole = (entry.len() as u32).to_be_bytes().to_vec();
        whole.extend_from_slice(&entry);
        whole
    }

    #[test]
    fn the_newest_keys_of_the_principal_are_found_between_holes_and_others() {
        let directory = std::env::temp_dir().join(format!("teeline-keytab-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("keytab");
        let hole = [&(-5i32).to_be_bytes()[..], &[9; 5]].concat();
        let content = [
            vec![5, 2],
            written("me", 300, 18, &[3; 32]),
            hole,
            written("me", 2, 18, &[2; 32]),
            written("me", 300, 23, &[1; 16]),
            written("you", 400, 18, &[4; 32]),
            written("old", 1, 23, &[5; 16]),
        ];
        std::fs::write(&path, content.concat()).unwrap();
        let find = |name: &str| keys(&path, &Principal::parse(name, Some("R")).unwrap());
        let found = find("me").unwrap();
        assert_eq!(found, [Key::new(Encryption::Aes256Sha1, &[3; 32]).unwrap()]);
        assert!(
            find("none")
                .unwrap_err()
                .to_string()
                .contains("has no key of none@R (hint")
        );
        assert!(find("old").unwrap_err().to_string().contains("for AES"));
        std::fs::write(&path, "text").unwrap();
        assert!(find("me").unwrap_err().to_string().contains("is not a keytab"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            let _ = entries(&[&[5, 2], bytes.as_slice()].concat());
        }
    }
}
