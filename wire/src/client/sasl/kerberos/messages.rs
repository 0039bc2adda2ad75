//! Messages between client, KDC and service (RFC 4120, 5).

use super::crypto::{Encryption, Key};
use super::der::{self, Der};
use super::{KerberosError, Moment, Principal, Ticket};

/// What a message is encrypted for (RFC 4120, 7.5.1).
pub(super) mod usage {
    pub(in super::super) const TIMESTAMP: u32 = 1;
    pub(in super::super) const AS_REPLY: u32 = 3;
    pub(super) const TGS_CHECKSUM: u32 = 6;
    pub(super) const TGS_AUTHENTICATOR: u32 = 7;
    pub(in super::super) const TGS_REPLY: u32 = 8;
    pub(super) const AUTHENTICATOR: u32 = 11;
    pub(super) const AP_REPLY: u32 = 12;
}

/// What is asked of a KDC.
pub(super) struct Request<'a> {
    /// Who asks; left out where a ticket says so.
    pub(super) client: Option<&'a Principal>,
    pub(super) server: &'a Principal,
    /// The realm that is asked.
    pub(super) realm: &'a str,
    pub(super) encryptions: &'a [Encryption],
    pub(super) options: u32,
    pub(super) till: u64,
    pub(super) nonce: u32,
}

impl Request<'_> {
    fn body(&self) -> Vec<u8> {
        let numbers = self
            .encryptions
            .iter()
            .map(|encryption| der::integer(encryption.number()));
        let numbers: Vec<_> = numbers.collect();
        let mut parts = vec![der::field(0, &der::flags(self.options))];
        parts.extend(
            self.client
                .map(|client| der::field(1, &name(client, NAME_OF_USER))),
        );
        parts.extend([
            der::field(2, &der::text(self.realm)),
            der::field(3, &name(self.server, name_type(self.server))),
            der::field(5, &der::time(self.till)),
            der::field(7, &der::integer(i64::from(self.nonce))),
            der::field(8, &der::sequence(&numbers)),
        ]);
        der::sequence(&parts)
    }

    /// For a first ticket; `proof` shows that we have the key.
    pub(super) fn for_first(&self, proof: Option<Vec<u8>>) -> Vec<u8> {
        let proof = proof.map(|proof| preparation(PROOF_BY_TIMESTAMP, &proof));
        self.message(10, proof)
    }

    /// For a further ticket, by one that grants it.
    pub(super) fn for_further(&self, by: &Ticket, now: Moment) -> Result<Vec<u8>, KerberosError> {
        let checksum = by.key.checksum(usage::TGS_CHECKSUM, &[&self.body()])?;
        let checksum = (by.key.encryption().checksum_number(), checksum);
        let shown = Shown {
            checksum: &checksum,
            subkey: None,
            sequence: None,
            now,
        };
        let by = shown.by(by, 0, usage::TGS_AUTHENTICATOR)?;
        Ok(self.message(12, Some(preparation(PROOF_BY_TICKET, &by))))
    }

    fn message(&self, kind: u8, proof: Option<Vec<u8>>) -> Vec<u8> {
        let mut parts = vec![
            der::field(1, &der::integer(VERSION)),
            der::field(2, &der::integer(i64::from(kind))),
        ];
        parts.extend(proof.map(|proof| der::field(3, &der::sequence(&[proof]))));
        parts.push(der::field(4, &self.body()));
        der::application(kind, &der::sequence(&parts))
    }
}

fn preparation(kind: i64, value: &[u8]) -> Vec<u8> {
    der::sequence(&[
        der::field(1, &der::integer(kind)),
        der::field(2, &der::octets(value)),
    ])
}

/// The proof that we have `key`, now.
pub(super) fn timestamp(key: &Key, now: Moment) -> Result<Vec<u8>, KerberosError> {
    let plain = der::sequence(&[
        der::field(0, &der::time(now.seconds)),
        der::field(1, &der::integer(i64::from(now.micros))),
    ]);
    encrypted(key, usage::TIMESTAMP, &plain)
}

/// How a ticket is shown to whom it is for.
pub(super) struct Shown<'a> {
    pub(super) checksum: &'a (i64, Vec<u8>),
    pub(super) subkey: Option<&'a Key>,
    pub(super) sequence: Option<u32>,
    pub(super) now: Moment,
}

impl Shown<'_> {
    /// To a service, which has to prove itself in turn.
    pub(super) fn to_service(&self, ticket: &Ticket) -> Result<Vec<u8>, KerberosError> {
        self.by(ticket, MUTUAL_REQUIRED, usage::AUTHENTICATOR)
    }

    fn by(&self, ticket: &Ticket, options: u32, usage: u32) -> Result<Vec<u8>, KerberosError> {
        let (kind, checksum) = self.checksum;
        let checksum = der::sequence(&[
            der::field(0, &der::integer(*kind)),
            der::field(1, &der::octets(checksum)),
        ]);
        let mut parts = vec![
            der::field(0, &der::integer(VERSION)),
            der::field(1, &der::text(&ticket.client.realm)),
            der::field(2, &name(&ticket.client, NAME_OF_USER)),
            der::field(3, &checksum),
            der::field(4, &der::integer(i64::from(self.now.micros))),
            der::field(5, &der::time(self.now.seconds)),
        ];
        parts.extend(self.subkey.map(|key| {
            let number = der::integer(key.encryption().number());
            let key = der::sequence(&[der::field(0, &number), der::field(1, &der::octets(key.bytes()))]);
            der::field(6, &key)
        }));
        parts.extend(
            self.sequence
                .map(|number| der::field(7, &der::integer(i64::from(number)))),
        );
        let authenticator = der::application(2, &der::sequence(&parts));
        let parts = [
            der::field(0, &der::integer(VERSION)),
            der::field(1, &der::integer(14)),
            der::field(2, &der::flags(options)),
            der::field(3, &ticket.bytes),
            der::field(4, &encrypted(&ticket.key, usage, &authenticator)?),
        ];
        Ok(der::application(14, &der::sequence(&parts)))
    }
}

fn encrypted(key: &Key, usage: u32, plain: &[u8]) -> Result<Vec<u8>, KerberosError> {
    Ok(der::sequence(&[
        der::field(0, &der::integer(key.encryption().number())),
        der::field(2, &der::octets(&key.encrypt(usage, plain)?)),
    ]))
}

fn name(principal: &Principal, kind: i64) -> Vec<u8> {
    let parts: Vec<_> = principal.parts.iter().map(|part| der::text(part)).collect();
    der::sequence(&[
        der::field(0, &der::integer(kind)),
        der::field(1, &der::sequence(&parts)),
    ])
}

fn name_type(server: &Principal) -> i64 {
    match server.grants() {
        Some(_) => NAME_OF_INSTANCE,
        None => NAME_OF_HOST,
    }
}

/// What a KDC answers.
pub(super) enum Answer {
    /// A ticket, still sealed.
    Reply(Reply),
    Refusal(Refusal),
}

/// A ticket whose key is encrypted for us.
pub(super) struct Reply {
    client: Principal,
    ticket: Vec<u8>,
    sealed: Sealed,
}

/// What the KDC says instead.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) code: i64,
    text: String,
    /// How it wants us to prove that we have the key: the encryptions of the keys it has, in its order.
    pub(super) encryptions: Vec<Encryption>,
}

struct Sealed {
    encryption: i64,
    bytes: Vec<u8>,
}

impl Answer {
    /// `kind` is that of the reply: 11 to a first request, 13 to a further one.
    pub(super) fn parse(kind: u8, bytes: &[u8]) -> Result<Self, KerberosError> {
        if let Some(refusal) = Refusal::parse(bytes) {
            return Ok(Self::Refusal(refusal));
        }
        let malformed = KerberosError::Malformed("the KDC's answer");
        Reply::parse(kind, bytes).map(Self::Reply).ok_or(malformed)
    }
}

impl Reply {
    fn parse(kind: u8, bytes: &[u8]) -> Option<Self> {
        let mut fields = Der::new(bytes).application(kind)?.sequence()?;
        fields.field(0)?;
        fields.field(1)?;
        fields.optional(2)?;
        let realm = fields.field(3)?.text()?;
        let parts = read_name(fields.field(4)?)?;
        let (_, _, ticket) = fields.field(5)?.any()?;
        Some(Self {
            client: Principal { realm, parts },
            ticket: ticket.to_vec(),
            sealed: Sealed::parse(fields.field(6)?)?,
        })
    }

    /// The key's encryption, by its number.
    pub(super) fn encryption(&self) -> i64 {
        self.sealed.encryption
    }

    /// Opens it. It must be for whom we said we are, and be the answer to what was asked just now.
    pub(super) fn open(
        self,
        client: &Principal,
        key: &Key,
        usage: u32,
        nonce: u32,
    ) -> Result<Ticket, KerberosError> {
        let plain = self.sealed.open(key, usage)?;
        let malformed = KerberosError::Malformed("the KDC's answer");
        let granted = Granted::parse(&plain).ok_or(malformed)?;
        if granted.nonce != i64::from(nonce) {
            return Err(KerberosError::NotProven(
                "the KDC answers what was not asked: it may be an old answer",
            ));
        }
        if self.client != *client {
            return Err(KerberosError::NotProven(
                "the KDC answers with somebody else's ticket",
            ));
        }
        Ok(Ticket {
            client: self.client,
            server: granted.server,
            key: granted.key,
            bytes: self.ticket,
            end: granted.end,
        })
    }
}

/// What goes with a ticket.
struct Granted {
    key: Key,
    nonce: i64,
    end: u64,
    server: Principal,
}

impl Granted {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut element = Der::new(bytes);
        // Some KDCs give both kinds the number of the other.
        let (tag, content, _) = element.any()?;
        if !matches!(tag, 0x79 | 0x7a) {
            return None;
        }
        let mut fields = Der::new(content).sequence()?;
        let key = read_key(fields.field(0)?)?;
        fields.field(1)?;
        let nonce = fields.field(2)?.integer()?;
        fields.optional(3)?;
        fields.field(4)?;
        fields.field(5)?;
        fields.optional(6)?;
        let end = fields.field(7)?.time()?;
        fields.optional(8)?;
        let realm = fields.field(9)?.text()?;
        let parts = read_name(fields.field(10)?)?;
        Some(Self {
            key,
            nonce,
            end,
            server: Principal { realm, parts },
        })
    }
}

impl Sealed {
    fn parse(mut der: Der<'_>) -> Option<Self> {
        let mut fields = der.sequence()?;
        let encryption = fields.field(0)?.integer()?;
        fields.optional(1)?;
        let bytes = fields.field(2)?.octets()?.to_vec();
        Some(Self { encryption, bytes })
    }

    fn open(&self, key: &Key, usage: u32) -> Result<Vec<u8>, KerberosError> {
        if self.encryption != key.encryption().number() {
            return Err(KerberosError::NotProven(
                "a message is encrypted in another way than its key says",
            ));
        }
        key.decrypt(usage, &self.bytes)
    }
}

/// How the service proves itself.
pub(super) struct Proof {
    pub(super) shown_at: (u64, i64),
    pub(super) subkey: Option<Key>,
    pub(super) sequence: u64,
}

impl Proof {
    pub(super) fn open(bytes: &[u8], key: &Key) -> Result<Self, KerberosError> {
        let malformed = || KerberosError::Malformed("the broker's proof");
        let sealed = || {
            let mut fields = Der::new(bytes).application(15)?.sequence()?;
            fields.field(0)?;
            fields.field(1)?;
            Sealed::parse(fields.field(2)?)
        };
        let plain = sealed().ok_or_else(malformed)?.open(key, usage::AP_REPLY)?;
        Self::parse(&plain).ok_or_else(malformed)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Der::new(bytes).application(27)?.sequence()?;
        let shown_at = (fields.field(0)?.time()?, fields.field(1)?.integer()?);
        let subkey = match fields.optional(2)? {
            Some(key) => Some(read_key(key)?),
            None => None,
        };
        let sequence = match fields.optional(3)? {
            // Unsigned, but written as if it were signed by some.
            Some(mut number) => u64::from(number.integer()? as u32),
            None => 0,
        };
        Some(Self {
            shown_at,
            subkey,
            sequence,
        })
    }
}

impl Refusal {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Der::new(bytes).application(30)?.sequence()?;
        fields.field(0)?;
        fields.field(1)?;
        for number in 2..=5 {
            fields.optional(number)?;
        }
        let code = fields.field(6)?.integer()?;
        for number in 7..=10 {
            fields.optional(number)?;
        }
        let text = fields
            .optional(11)?
            .and_then(|mut text| text.text())
            .unwrap_or_default();
        let data = fields.optional(12)?.and_then(|mut data| data.octets());
        Some(Self {
            code,
            text,
            encryptions: data.and_then(encryptions).unwrap_or_default(),
        })
    }

    /// In words.
    pub(super) fn reason(&self) -> String {
        let known = REFUSALS.iter().find(|(code, _)| *code == self.code);
        let mut reason = known.map_or("it says no", |(_, words)| *words).to_owned();
        reason.push_str(&format!(" (Kerberos error {}", self.code));
        let text: String = self
            .text
            .chars()
            .filter(|letter| !letter.is_control())
            .take(200)
            .collect();
        if !text.is_empty() {
            reason.push_str(&format!(", {text}"));
        }
        reason + ")"
    }

    pub(super) fn by(&self, who: impl Into<String>) -> KerberosError {
        KerberosError::Refused {
            by: who.into(),
            reason: self.reason(),
        }
    }
}

/// Those of the hints that come with a demand for proof (ETYPE-INFO2).
fn encryptions(data: &[u8]) -> Option<Vec<Encryption>> {
    let mut hints = Der::new(data).sequence()?;
    let mut found = Vec::new();
    while !hints.is_empty() {
        let mut hint = hints.sequence()?;
        let kind = hint.field(1)?.integer()?;
        let value = hint.field(2)?.octets()?;
        if kind == HINT_OF_ENCRYPTIONS {
            let mut entries = Der::new(value).sequence()?;
            while !entries.is_empty() {
                let number = entries.sequence()?.field(0)?.integer()?;
                found.extend(Encryption::of_number(number));
            }
        }
    }
    Some(found)
}

fn read_name(mut der: Der<'_>) -> Option<Vec<String>> {
    let mut fields = der.sequence()?;
    fields.field(0)?;
    let mut texts = fields.field(1)?.sequence()?;
    let mut parts = Vec::new();
    while !texts.is_empty() {
        parts.push(texts.text()?);
    }
    Some(parts)
}

fn read_key(mut der: Der<'_>) -> Option<Key> {
    let mut fields = der.sequence()?;
    let encryption = Encryption::of_number(fields.field(0)?.integer()?)?;
    Key::new(encryption, fields.field(1)?.octets()?)
}

/// Prove that you have the key.
pub(super) const PROOF_REQUIRED: i64 = 25;

const REFUSALS: [(i64, &str); 15] = [
    (6, "it does not know the client's principal"),
    (
        7,
        "it does not know the service's principal (hint: service_name, and the host that brokers advertise)",
    ),
    (14, "it has no key of an encryption that both sides speak"),
    (18, "the client's principal is locked"),
    (23, "the client's key has expired"),
    (
        24,
        "the key is not the principal's (hint: is the keytab the newest?)",
    ),
    (25, "it wants a proof of another kind"),
    (29, "it is out of service"),
    (31, "the ticket cannot be decrypted there"),
    (32, "the ticket has expired"),
    (33, "the ticket is not valid yet (hint: do the clocks agree?)"),
    (35, "the ticket is for another service"),
    (37, "the clocks differ by too much"),
    (
        41,
        "the ticket was made with another key than the service has (hint: is its keytab the newest?)",
    ),
    (68, "it is not the KDC of that realm"),
];

const VERSION: i64 = 5;
const NAME_OF_USER: i64 = 1;
const NAME_OF_INSTANCE: i64 = 2;
const NAME_OF_HOST: i64 = 3;
const PROOF_BY_TICKET: i64 = 1;
const PROOF_BY_TIMESTAMP: i64 = 2;
const HINT_OF_ENCRYPTIONS: i64 = 19;
const MUTUAL_REQUIRED: u32 = 0x2000_0000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn anything_is_read_without_harm(bytes: Vec<u8>) {
            for number in [11, 13, 15, 27, 30] {
                let whole = der::application(number, &der::sequence(std::slice::from_ref(&bytes)));
                let _ = (Answer::parse(11, &whole).is_ok(), Answer::parse(13, &whole).is_ok());
                let _ = (Proof::parse(&whole).is_some(), Granted::parse(&whole).is_some());
            }
            let _ = encryptions(&bytes);
        }
    }
}
