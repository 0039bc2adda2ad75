//! Keys of Kerberos: the profiles of AES with SHA-1 (RFC 3961, RFC 3962) and with SHA-2 (RFC 8009).

use std::fmt;

use aws_lc_rs::cipher::{
    AES_128, AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::{constant_time, hmac};

use super::KerberosError;

/// How a key encrypts, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Encryption {
    Aes128Sha1 = 17,
    Aes256Sha1 = 18,
    Aes128Sha256 = 19,
    Aes256Sha384 = 20,
}

impl Encryption {
    /// In the order in which they are asked for: by the length of their keys, the newer first.
    pub(super) const ALL: [Self; 4] = [
        Self::Aes256Sha384,
        Self::Aes256Sha1,
        Self::Aes128Sha256,
        Self::Aes128Sha1,
    ];

    pub(super) fn of_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.number() == number)
    }

    pub(super) fn number(self) -> i64 {
        self as i64
    }

    /// By the names of `krb5.conf`; `aes` and its like stand for several.
    pub(super) fn of_name(name: &str) -> Vec<Self> {
        match name.to_ascii_lowercase().as_str() {
            "aes128-cts-hmac-sha1-96" | "aes128-cts" | "aes128-sha1" => vec![Self::Aes128Sha1],
            "aes256-cts-hmac-sha1-96" | "aes256-cts" | "aes256-sha1" => vec![Self::Aes256Sha1],
            "aes128-cts-hmac-sha256-128" | "aes128-sha2" => vec![Self::Aes128Sha256],
            "aes256-cts-hmac-sha384-192" | "aes256-sha2" => vec![Self::Aes256Sha384],
            "aes" | "default" => Self::ALL.to_vec(),
            _ => Vec::new(),
        }
    }

    fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes128Sha256 => 16,
            Self::Aes256Sha1 | Self::Aes256Sha384 => 32,
        }
    }

    /// Of a checksum; also of the keys that make it, where they are not those that encrypt.
    fn checksum_bytes(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes256Sha1 => 12,
            Self::Aes128Sha256 => 16,
            Self::Aes256Sha384 => 24,
        }
    }

    /// The number of its checksum.
    pub(super) fn checksum_number(self) -> i64 {
        match self {
            Self::Aes128Sha1 => 15,
            Self::Aes256Sha1 => 16,
            Self::Aes128Sha256 => 19,
            Self::Aes256Sha384 => 20,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Aes128Sha1 | Self::Aes256Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Aes128Sha256 => hmac::HMAC_SHA256,
            Self::Aes256Sha384 => hmac::HMAC_SHA384,
        }
    }

    fn is_of_sha1(self) -> bool {
        matches!(self, Self::Aes128Sha1 | Self::Aes256Sha1)
    }
}

/// A key. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    encryption: Encryption,
    bytes: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.encryption)
    }
}

impl Key {
    /// None if the length is another.
    pub(super) fn new(encryption: Encryption, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == encryption.key_bytes()).then(|| Self {
            encryption,
            bytes: bytes.to_vec(),
        })
    }

    pub(super) fn random(encryption: Encryption) -> Self {
        let random: [u8; 32] = rand::random();
        let bytes = random.into_iter().take(encryption.key_bytes()).collect();
        Self { encryption, bytes }
    }

    pub(super) fn encryption(&self) -> Encryption {
        self.encryption
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Encrypts for one use.
    pub(super) fn encrypt(&self, usage: u32, plain: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let confounder: [u8; BLOCK] = rand::random();
        self.encrypt_with(usage, &confounder, plain)
    }

    fn encrypt_with(&self, usage: u32, confounder: &[u8], plain: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let text = [confounder, plain].concat();
        let mut bytes = encrypt_blocks(&self.derived(usage, ENCRYPTING)?, &text)?;
        let tag = match self.encryption.is_of_sha1() {
            true => self.tag(usage, INTEGRITY, &[&text])?,
            false => self.tag(usage, INTEGRITY, &[&[0; BLOCK], &bytes])?,
        };
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    /// What was encrypted for that use, with this key; anything else is refused.
    pub(super) fn decrypt(&self, usage: u32, bytes: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let split = bytes.len().checked_sub(self.encryption.checksum_bytes());
        let (bytes, tag) = split
            .and_then(|split| bytes.split_at_checked(split))
            .ok_or(NOT_FOR_US)?;
        let decrypted = || decrypt_blocks(&self.derived(usage, ENCRYPTING)?, bytes);
        let (expected, text) = match self.encryption.is_of_sha1() {
            true => {
                let text = decrypted()?;
                (self.tag(usage, INTEGRITY, &[&text])?, Some(text))
            }
            false => (self.tag(usage, INTEGRITY, &[&[0; BLOCK], bytes])?, None),
        };
        constant_time::verify_slices_are_equal(&expected, tag).map_err(|_| NOT_FOR_US)?;
        let text = match text {
            Some(text) => text,
            None => decrypted()?,
        };
        text.get(BLOCK..).map(<[u8]>::to_vec).ok_or(NOT_FOR_US)
    }

    pub(super) fn checksum(&self, usage: u32, pieces: &[&[u8]]) -> Result<Vec<u8>, KerberosError> {
        self.tag(usage, CHECKSUM, pieces)
    }

    pub(super) fn verify(&self, usage: u32, pieces: &[&[u8]], checksum: &[u8]) -> Result<(), KerberosError> {
        let expected = self.checksum(usage, pieces)?;
        constant_time::verify_slices_are_equal(&expected, checksum).map_err(|_| NOT_FOR_US)
    }

    fn tag(&self, usage: u32, purpose: u8, pieces: &[&[u8]]) -> Result<Vec<u8>, KerberosError> {
        let key = hmac::Key::new(self.encryption.hmac(), &self.derived(usage, purpose)?);
        let mut context = hmac::Context::with_key(&key);
        for piece in pieces {
            context.update(piece);
        }
        let tag = context.sign();
        let kept = tag.as_ref().iter().take(self.encryption.checksum_bytes());
        Ok(kept.copied().collect())
    }

    /// The key for one use and one purpose.
    fn derived(&self, usage: u32, purpose: u8) -> Result<Vec<u8>, KerberosError> {
        let label = [usage.to_be_bytes().as_slice(), &[purpose]].concat();
        if self.encryption.is_of_sha1() {
            return self.derived_by_folding(&label);
        }
        let count = match purpose {
            ENCRYPTING => self.encryption.key_bytes(),
            _ => self.encryption.checksum_bytes(),
        };
        let bits = (count as u32).saturating_mul(8).to_be_bytes();
        let key = hmac::Key::new(self.encryption.hmac(), &self.bytes);
        let mut context = hmac::Context::with_key(&key);
        for piece in [&[0, 0, 0, 1], label.as_slice(), &[0], &bits] {
            context.update(piece);
        }
        Ok(context.sign().as_ref().iter().take(count).copied().collect())
    }

    /// RFC 3961, 5.1: the label, made as long as a block, is encrypted again and again.
    fn derived_by_folding(&self, label: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let cipher = encrypting(&self.bytes)?;
        let mut block = n_fold(label, BLOCK);
        let mut key = Vec::new();
        while key.len() < self.encryption.key_bytes() {
            cipher.encrypt(&mut block).map_err(|_| NOT_FOR_US)?;
            key.extend_from_slice(&block);
        }
        Ok(key)
    }
}

fn unbound(key: &[u8]) -> Result<UnboundCipherKey, KerberosError> {
    let algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    UnboundCipherKey::new(algorithm, key).map_err(|_| NOT_FOR_US)
}

fn encrypting(key: &[u8]) -> Result<EncryptingKey, KerberosError> {
    EncryptingKey::ecb(unbound(key)?).map_err(|_| NOT_FOR_US)
}

fn xor(block: &mut [u8], other: &[u8]) {
    for (byte, other) in block.iter_mut().zip(other) {
        *byte ^= other;
    }
}

/// CBC from zeros, where the last two blocks change places so that nothing is padded (RFC 3962, 5).
fn encrypt_blocks(key: &[u8], plain: &[u8]) -> Result<Vec<u8>, KerberosError> {
    let cipher = encrypting(key)?;
    let mut blocks: Vec<[u8; BLOCK]> = Vec::new();
    for piece in plain.chunks(BLOCK) {
        let mut block = blocks.last().copied().unwrap_or_default();
        xor(&mut block, piece);
        cipher.encrypt(&mut block).map_err(|_| NOT_FOR_US)?;
        blocks.push(block);
    }
    let count = blocks.len();
    if count >= 2 {
        blocks.swap(count - 2, count - 1);
    }
    let mut bytes = blocks.concat();
    bytes.truncate(plain.len());
    Ok(bytes)
}

fn decrypt_blocks(key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, KerberosError> {
    let cipher = DecryptingKey::ecb(unbound(key)?).map_err(|_| NOT_FOR_US)?;
    let decrypt = |block: &[u8]| -> Result<[u8; BLOCK], KerberosError> {
        let mut block = <[u8; BLOCK]>::try_from(block).map_err(|_| NOT_FOR_US)?;
        cipher
            .decrypt(&mut block, DecryptionContext::None)
            .map_err(|_| NOT_FOR_US)?;
        Ok(block)
    };
    let pieces: Vec<&[u8]> = bytes.chunks(BLOCK).collect();
    let (head, swapped, rest) = match pieces.as_slice() {
        [] => return Err(NOT_FOR_US),
        [only] => return decrypt(only).map(|block| block.to_vec()),
        [head @ .., swapped, rest] => (head, swapped, rest),
    };
    let mut plain = Vec::with_capacity(bytes.len());
    let mut previous = [0; BLOCK];
    for piece in head {
        let mut block = decrypt(piece)?;
        xor(&mut block, &previous);
        plain.extend_from_slice(&block);
        previous = (*piece).try_into().map_err(|_| NOT_FOR_US)?;
    }
    // The last block's own bytes stand in for those that were cut from the one before.
    let mut last = decrypt(swapped)?;
    let mut before = last;
    for (byte, known) in before.iter_mut().zip(*rest) {
        *byte = *known;
    }
    xor(&mut last, rest);
    let mut block = decrypt(&before)?;
    xor(&mut block, &previous);
    plain.extend_from_slice(&block);
    plain.extend(last.iter().take(rest.len()));
    Ok(plain)
}

/// RFC 3961, 5.1: copies of `input`, each turned by 13 bits more, are added up in pieces of `size` bytes.
fn n_fold(input: &[u8], size: usize) -> Vec<u8> {
    let bits = input.len() * 8;
    let bit = |index: usize| {
        let byte = input.get(index / 8).copied().unwrap_or_default();
        (byte >> (7 - index % 8)) & 1
    };
    let mut sum = vec![0u8; size];
    let mut carry = 0u32;
    for index in (0..least_common_multiple(input.len(), size)).rev() {
        let turned = 13 * (index / input.len()) % bits;
        let first = (index % input.len()) * 8 + bits - turned;
        let byte = (0..8).fold(0u8, |byte, next| (byte << 1) | bit((first + next) % bits));
        if let Some(place) = sum.get_mut(index % size) {
            carry += u32::from(byte) + u32::from(*place);
            *place = carry as u8;
            carry >>= 8;
        }
    }
    for place in sum.iter_mut().rev() {
        carry += u32::from(*place);
        *place = carry as u8;
        carry >>= 8;
    }
    sum
}

fn least_common_multiple(one: usize, other: usize) -> usize {
    let (mut divisor, mut rest) = (one, other);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    one / divisor.max(1) * other
}

const BLOCK: usize = 16;
const CHECKSUM: u8 = 0x99;
const ENCRYPTING: u8 = 0xaa;
const INTEGRITY: u8 = 0x55;
const NOT_FOR_US: KerberosError =
    KerberosError::NotProven("a message was not made with the key that both sides should have");

#[cfg(test)]
#[path = "crypto_tests.rs"]
mod tests;
