//! A KDC that prefers an encryption which `permitted_enctypes` leaves out.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::super::der::{self, Der};
use super::super::flight::Patience;
use super::super::testing::{keytab_of, krb5_conf};
use super::*;

const SHORT: [u8; 16] = [1; 16];
const LONG: [u8; 32] = [2; 32];

fn nonce_of(request: &[u8]) -> Option<i64> {
    let mut fields = Der::new(request).application(10)?.sequence()?;
    for number in 1..=3 {
        fields.optional(number)?;
    }
    let mut body = fields.field(4)?.sequence()?;
    for number in 0..=6 {
        body.optional(number)?;
    }
    body.field(7)?.integer()
}

fn name(parts: &[&str]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(|part| der::text(part)).collect();
    der::sequence(&[
        der::field(0, &der::integer(1)),
        der::field(1, &der::sequence(&parts)),
    ])
}

/// A ticket that grants others: its own key is `session`, and for us it is sealed by `seal`.
fn reply(nonce: i64, seal: &Key, session: &Key) -> Vec<u8> {
    let number = |key: &Key| der::field(0, &der::integer(key.encryption().number()));
    let key = der::sequence(&[number(session), der::field(1, &der::octets(session.bytes()))]);
    let granted = der::sequence(&[
        der::field(0, &key),
        der::field(1, &der::sequence(&[])),
        der::field(2, &der::integer(nonce)),
        der::field(4, &der::flags(0)),
        der::field(5, &der::time(Moment::now().seconds)),
        der::field(7, &der::time(Moment::now().seconds + 3600)),
        der::field(9, &der::text("R")),
        der::field(10, &name(&["krbtgt", "R"])),
    ]);
    let plain = der::application(25, &granted);
    let sealed = seal.encrypt(usage::AS_REPLY, &plain).unwrap();
    let message = der::sequence(&[
        der::field(0, &der::integer(5)),
        der::field(1, &der::integer(11)),
        der::field(3, &der::text("R")),
        der::field(4, &name(&["me"])),
        der::field(5, &der::application(1, &der::sequence(&[]))),
        der::field(
            6,
            &der::sequence(&[number(seal), der::field(2, &der::octets(&sealed))]),
        ),
    ]);
    der::application(11, &message)
}

/// What comes of a first request, where only AES with keys of 256 bits and SHA-1 is permitted and the keytab has more.
fn first(test: &str, seal: Key, session: Key) -> Result<Ticket, KerberosError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = std::env::temp_dir().join(format!("teeline-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (conf, path) = (directory.join("krb5.conf"), directory.join("keytab"));
    std::fs::write(&conf, krb5_conf(port, "aes256-cts-hmac-sha1-96")).unwrap();
    std::fs::write(&path, keytab_of("me", &[(17, &SHORT), (18, &LONG)])).unwrap();
    let kdc = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request).unwrap();
        let answer = reply(nonce_of(&request).unwrap(), &seal, &session);
        stream.write_all(&(answer.len() as u32).to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    let realms = Realms::read(&[conf]).unwrap();
    let (patience, _waiter) = Patience::new(Instant::now() + Duration::from_secs(20));
    let mut asking = Asking {
        encryptions: realms.encryptions(),
        realms,
        now: Moment::now(),
        patience: &patience,
    };
    let outcome = asking.first(&Principal::parse("me", Some("R")).unwrap(), &path);
    kdc.join().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    outcome
}

#[test]
fn only_permitted_encryptions_are_used_whatever_the_keytab_has() {
    let short = || Key::new(Encryption::Aes128Sha1, &SHORT).unwrap();
    let long = || Key::new(Encryption::Aes256Sha1, &LONG).unwrap();
    let ticket = first("permitted", long(), long()).unwrap();
    assert_eq!(ticket.key.encryption(), Encryption::Aes256Sha1);
    let error = first("sealed", short(), long()).unwrap_err();
    assert!(error.to_string().contains("was not offered"), "{error}");
    let error = first("session", long(), short()).unwrap_err();
    assert!(error.to_string().contains("permitted_enctypes"), "{error}");
}
