//! Files for tests.
#![allow(clippy::unwrap_used)]

/// One realm, `R`, with its KDC on this machine.
pub(super) fn krb5_conf(port: u16, permitted: &str) -> String {
    format!(
        "[libdefaults]\n default_realm = R\n permitted_enctypes = {permitted}\n\
         [realms]\n R = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
    )
}

/// Keys of a principal of `R`, with the numbers of their encryptions.
pub(super) fn keytab_of(name: &str, keys: &[(u16, &[u8])]) -> Vec<u8> {
    let mut content = vec![5, 2];
    for (encryption, key) in keys {
        let mut entry = vec![0, 1, 0, 1, b'R'];
        entry.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend_from_slice(name.as_bytes());
        entry.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 1]);
        entry.extend_from_slice(&encryption.to_be_bytes());
        entry.extend_from_slice(&u16::try_from(key.len()).unwrap().to_be_bytes());
        entry.extend_from_slice(key);
        content.extend_from_slice(&u32::try_from(entry.len()).unwrap().to_be_bytes());
        content.extend_from_slice(&entry);
    }
    content
}
