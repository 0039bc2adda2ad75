//! Against the vectors of the RFCs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use aws_lc_rs::pbkdf2;
use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn folding_as_in_rfc_3961_appendix_a1() {
    assert_eq!(n_fold(b"012345", 8), hex("be072631276b1955"));
    assert_eq!(n_fold(b"password", 7), hex("78a07b6caf85fa"));
    assert_eq!(
        n_fold(b"Q", 21),
        hex("518a54a2 15a8452a 518a54a2 15a8452a 518a54a2 15")
    );
    assert_eq!(
        n_fold(b"kerberos", 16),
        hex("6b657262 65726f73 7b9b5b2b 93132b93")
    );
    assert_eq!(
        n_fold(b"kerberos", 21),
        hex("8372c236 344e5f15 50cd0747 e15d62ca 7a5a3bce a4")
    );
}

#[test]
fn blocks_as_in_rfc_3962_appendix_b() {
    let key = b"chicken teriyaki";
    let text = b"I would like the General Gau's Chicken, please, and wonton soup.";
    let vectors = [
        (17, "c6353568f2bf8cb4d8a580362da7ff7f 97"),
        (
            31,
            "fc00783e0efdb2c1d445d4c8eff7ed22 97687268d6ecccc0c07b25e25ecfe5",
        ),
        (
            32,
            "39312523a78662d5be7fcbcc98ebf5a8 97687268d6ecccc0c07b25e25ecfe584",
        ),
        (
            47,
            "97687268d6ecccc0c07b25e25ecfe584 b3fffd940c16a18c1b5549d2f838029e 39312523a78662d5be7fcbcc98ebf5",
        ),
        (
            64,
            "97687268d6ecccc0c07b25e25ecfe584 39312523a78662d5be7fcbcc98ebf5a8
             4807efe836ee89a526730dbc2f7bc840 9dad8bbb96c4cdc03bc103e1a194bbd8",
        ),
    ];
    for (length, expected) in vectors {
        let encrypted = encrypt_blocks(key, &text[..length]).unwrap();
        assert_eq!(encrypted, hex(expected), "{length}");
        assert_eq!(decrypt_blocks(key, &encrypted).unwrap(), &text[..length]);
    }
}

#[test]
fn keys_of_passwords_as_in_rfc_3962_appendix_b() {
    // Nothing here has passwords; but this is how the derivation of keys is shown to be right.
    let from = |encryption: Encryption, iterations: u32| {
        let mut bytes = vec![0; encryption.key_bytes()];
        let iterations = iterations.try_into().unwrap();
        let salt = b"ATHENA.MIT.EDUraeburn";
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA1,
            iterations,
            salt,
            b"password",
            &mut bytes,
        );
        let key = Key::new(encryption, &bytes).unwrap();
        key.derived_by_folding(b"kerberos").unwrap()
    };
    assert_eq!(
        from(Encryption::Aes128Sha1, 1),
        hex("42263c6e89f4fc28b8df68ee09799f15")
    );
    assert_eq!(
        from(Encryption::Aes256Sha1, 1200),
        hex("55a6ac740ad17b4846941051e1e8b0a7 548d93b0ab30a8bc3ff16280382b8c2a")
    );
}

#[test]
fn keys_and_checksums_as_in_rfc_8009_appendix_a() {
    let short = Key::new(Encryption::Aes128Sha256, &hex("3705D96080C17728A0E800EAB6E0D23C")).unwrap();
    assert_eq!(
        short.derived(2, CHECKSUM).unwrap(),
        hex("B31A018A48F54776F403E9A396325DC3")
    );
    assert_eq!(
        short.derived(2, ENCRYPTING).unwrap(),
        hex("9B197DD1E8C5609D6E67C3E37C62C72E")
    );
    assert_eq!(
        short.derived(2, INTEGRITY).unwrap(),
        hex("9FDA0E56AB2D85E1569A688696C26A6C")
    );
    let message: Vec<u8> = (0..0x15).collect();
    let checksum = hex("D78367186643D67B411CBA9139FC1DEE");
    short.verify(2, &[&message], &checksum).unwrap();
    let long = hex("6D404D37FAF79F9DF0D33568D3206698 00EB4836472EA8A026D16B7182460C52");
    let long = Key::new(Encryption::Aes256Sha384, &long).unwrap();
    assert_eq!(
        long.derived(2, CHECKSUM).unwrap(),
        hex("EF5718BE86CC84963D8BBB5031E9F5C4 BA41F28FAF69E73D")
    );
    assert_eq!(
        long.derived(2, ENCRYPTING).unwrap(),
        hex("56AB22BEE63D82D7BC5227F6773F8EA7 A5EB1C825160C38312980C442E5C7E49")
    );
    assert_eq!(
        long.derived(2, INTEGRITY).unwrap(),
        hex("69B16514E3CD8E56B82010D5C73012B6 22C4D00FFC23ED1F")
    );
}

fn any_key() -> impl Strategy<Value = Key> {
    let encryption = prop::sample::select(Encryption::ALL.to_vec());
    (encryption, any::<[u8; 32]>()).prop_map(|(encryption, bytes)| Key {
        bytes: bytes[..encryption.key_bytes()].to_vec(),
        encryption,
    })
}

proptest! {
    #[test]
    fn what_is_encrypted_is_decrypted_for_the_same_use_and_unchanged_only(
        key in any_key(), plain: Vec<u8>, usage in 1..30u32, at: prop::sample::Index, bit in 0..8u32,
    ) {
        let encrypted = key.encrypt(usage, &plain).unwrap();
        prop_assert_eq!(key.decrypt(usage, &encrypted).unwrap(), plain.clone());
        prop_assert!(key.decrypt(usage + 1, &encrypted).is_err());
        let mut changed = encrypted.clone();
        changed[at.index(encrypted.len())] ^= 1 << bit;
        prop_assert!(key.decrypt(usage, &changed).is_err());
        let checksum = key.checksum(usage, &[&plain]).unwrap();
        key.verify(usage, &[&plain], &checksum).unwrap();
        prop_assert!(key.verify(usage + 1, &[&plain], &checksum).is_err());
    }

    #[test]
    fn anything_is_decrypted_without_harm(key in any_key(), bytes: Vec<u8>) {
        prop_assert!(key.decrypt(3, &bytes).is_err());
    }
}

#[test]
fn a_key_is_never_shown() {
    let key = Key::random(Encryption::Aes256Sha1);
    assert_eq!(format!("{key:?}"), "Key(Aes256Sha1)");
    assert!(Key::new(Encryption::Aes256Sha1, &[0; 16]).is_none());
}
