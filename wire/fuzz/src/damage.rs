//! Damage by a seed: the same seed does the same everywhere, so that what it finds can be found again.

#![allow(clippy::indexing_slicing)]

/// Numbers that look like chance (xorshift64*). Good enough to choose where to hurt.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Of a seed.
    pub fn of(seed: u64) -> Self {
        // Zero would stay zero; and near seeds shall not begin alike.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// Below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }

    /// Any bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

/// Hurts `bytes` in one to four places, in the ways that parsers have been caught by.
pub fn damage(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        damage_once(bytes, chance);
        bytes.truncate(BYTES_MAX);
    }
}

fn damage_once(bytes: &mut Vec<u8>, chance: &mut Chance) {
    if bytes.is_empty() {
        *bytes = chance.bytes(8);
        return;
    }
    let at = chance.below(bytes.len());
    match chance.below(10) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][chance.below(6)],
        2 => bytes[at] = bytes[at].wrapping_add([1, 0xff][chance.below(2)]),
        // Claims: lengths, counts, null markers, of every width.
        3 => overwrite(bytes, at, CLAIMS[chance.below(CLAIMS.len())]),
        4 => {
            let near_length = (bytes.len() + chance.below(5)).saturating_sub(2) as u32;
            overwrite(bytes, at, &near_length.to_be_bytes());
        }
        5 => bytes.truncate(at),
        6 => {
            let end = at + 1 + chance.below((bytes.len() - at).min(16));
            bytes.drain(at..end.min(bytes.len()));
        }
        7 => {
            let end = (at + 1 + chance.below(16)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        8 => {
            let count = 1 + chance.below(8);
            let new = chance.bytes(count);
            bytes.splice(at..at, new);
        }
        _ => {
            let other = chance.below(bytes.len());
            bytes.swap(at, other);
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (to, from) in bytes[at..].iter_mut().zip(with) {
        *to = *from;
    }
}

const BYTES_MAX: usize = 64 * 1024;
const CLAIMS: [&[u8]; 10] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0],
    &[0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x80, 0x80, 0x80, 0x80, 0x00],
    &[0x80, 0x01],
];
