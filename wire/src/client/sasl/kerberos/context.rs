//! Shows a ticket to a broker, which proves itself in turn, and wraps what is said after that (RFC 4121).

use super::crypto::{Encryption, Key};
use super::messages::{Proof, Refusal, Shown};
use super::{KerberosError, Moment, Ticket, der};

/// A ticket that was shown; the broker has not proven itself yet.
#[derive(Debug)]
pub(in crate::client::sasl) struct Offer {
    key: Key,
    subkey: Key,
    shown_at: Moment,
    sequence: u32,
    /// What the broker's own key may be for.
    permitted: Vec<Encryption>,
}

/// Both sides have proven themselves.
#[derive(Debug)]
pub(in crate::client::sasl) struct Context {
    key: Key,
    /// Whether the key is the broker's choice, which every message says.
    is_of_broker: bool,
    ours: u64,
    theirs: u64,
}

impl Offer {
    /// The offer, and the token for the broker.
    pub(super) fn of(ticket: &Ticket, permitted: &[Encryption]) -> Result<(Self, Vec<u8>), KerberosError> {
        let offer = Self {
            subkey: Key::random(ticket.key.encryption()),
            shown_at: Moment::now(),
            // Positive in whatever way it is read.
            sequence: rand::random::<u32>() >> 2,
            key: ticket.key.clone(),
            permitted: permitted.to_vec(),
        };
        // No binding to a channel; what the context is for.
        let mut checksum = 16u32.to_le_bytes().to_vec();
        checksum.extend_from_slice(&[0; 16]);
        checksum.extend_from_slice(&(MUTUAL | REPLAY | SEQUENCE | INTEGRITY).to_le_bytes());
        let shown = Shown {
            checksum: &(CHECKSUM_OF_GSS, checksum),
            subkey: Some(&offer.subkey),
            sequence: Some(offer.sequence),
            now: offer.shown_at,
        };
        let message = shown.to_service(ticket)?;
        let content = [MECHANISM, &TOKEN_OFFER, &message].concat();
        Ok((offer, der::application(0, &content)))
    }

    /// Checks the broker's proof.
    pub(in crate::client::sasl) fn accepted(self, token: &[u8]) -> Result<Context, KerberosError> {
        let malformed = KerberosError::Malformed("the broker's token");
        let Some((0x60, content, _)) = der::Der::new(token).any() else {
            return Err(malformed);
        };
        let rest = content.strip_prefix(MECHANISM).ok_or(malformed)?;
        if let Some(refusal) = rest.strip_prefix(&TOKEN_REFUSAL) {
            let refusal = Refusal::parse(refusal).ok_or(KerberosError::Malformed("the broker's refusal"))?;
            return Err(refusal.by("the broker"));
        }
        let proof = rest
            .strip_prefix(&TOKEN_PROOF)
            .ok_or(KerberosError::Malformed("the broker's token"))?;
        let proof = Proof::open(proof, &self.key)?;
        if proof.shown_at != (self.shown_at.seconds, i64::from(self.shown_at.micros)) {
            return Err(KerberosError::NotProven(
                "the broker proves itself by another authentication's answer",
            ));
        }
        let is_permitted = |key: &Key| self.permitted.contains(&key.encryption());
        if !proof.subkey.iter().all(is_permitted) {
            return Err(KerberosError::NotProven(
                "the broker chooses a key that permitted_enctypes of krb5.conf leaves out",
            ));
        }
        let is_of_broker = proof.subkey.is_some();
        Ok(Context {
            key: proof.subkey.unwrap_or(self.subkey),
            is_of_broker,
            ours: u64::from(self.sequence),
            theirs: proof.sequence,
        })
    }
}

impl Context {
    fn flags(&self) -> u8 {
        match self.is_of_broker {
            true => BY_BROKERS_KEY,
            false => 0,
        }
    }

    /// With a checksum, not encrypted.
    pub(in crate::client::sasl) fn wrap(&mut self, plain: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let header = header(self.flags(), 0, self.ours);
        let checksum = self.key.checksum(USAGE_OURS, &[plain, &header])?;
        // The header as it is sent tells how long the checksum is; it was made without.
        let mut token = self::header(self.flags(), checksum.len() as u16, self.ours).to_vec();
        token.extend_from_slice(plain);
        token.extend_from_slice(&checksum);
        self.ours = self.ours.wrapping_add(1);
        Ok(token)
    }

    /// What the broker has wrapped in the same way, in its turn.
    pub(in crate::client::sasl) fn unwrap(&mut self, token: &[u8]) -> Result<Vec<u8>, KerberosError> {
        let malformed = || KerberosError::Malformed("the broker's wrapped message");
        let (head, body) = token.split_first_chunk::<HEADER_BYTES>().ok_or_else(malformed)?;
        let [t0, t1, flags, filler, ec0, ec1, rotated0, rotated1, sequence @ ..] = *head;
        let expected = self.flags() | SENT_BY_BROKER;
        if [t0, t1] != TOKEN_WRAPPED || filler != 0xff || flags != expected {
            return Err(malformed());
        }
        let sequence = u64::from_be_bytes(sequence);
        let extra = usize::from(u16::from_be_bytes([ec0, ec1]));
        let mut body = body.to_vec();
        if !body.is_empty() {
            let rotated = usize::from(u16::from_be_bytes([rotated0, rotated1])) % body.len();
            body.rotate_left(rotated);
        }
        let split = body.len().checked_sub(extra).ok_or_else(malformed)?;
        let (plain, checksum) = body.split_at_checked(split).ok_or_else(malformed)?;
        let header = self::header(flags, 0, sequence);
        self.key.verify(USAGE_THEIRS, &[plain, &header], checksum)?;
        if sequence != self.theirs {
            return Err(KerberosError::NotProven(
                "the broker's messages are not in their order: one may be an old one",
            ));
        }
        self.theirs = self.theirs.wrapping_add(1);
        Ok(plain.to_vec())
    }
}

/// Without rotation.
fn header(flags: u8, extra: u16, sequence: u64) -> [u8; HEADER_BYTES] {
    let [t0, t1] = TOKEN_WRAPPED;
    let [e0, e1] = extra.to_be_bytes();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sequence.to_be_bytes();
    [t0, t1, flags, 0xff, e0, e1, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7]
}

/// Kerberos 5 as a mechanism: 1.2.840.113554.1.2.2.
const MECHANISM: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02];
const TOKEN_OFFER: [u8; 2] = [1, 0];
const TOKEN_PROOF: [u8; 2] = [2, 0];
const TOKEN_REFUSAL: [u8; 2] = [3, 0];
const TOKEN_WRAPPED: [u8; 2] = [5, 4];
const HEADER_BYTES: usize = 16;
const SENT_BY_BROKER: u8 = 1;
const BY_BROKERS_KEY: u8 = 4;
const CHECKSUM_OF_GSS: i64 = 0x8003;
const MUTUAL: u32 = 2;
const REPLAY: u32 = 4;
const SEQUENCE: u32 = 8;
const INTEGRITY: u32 = 32;
/// Of wrapped messages, encrypted or not.
const USAGE_THEIRS: u32 = 22;
const USAGE_OURS: u32 = 24;

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
