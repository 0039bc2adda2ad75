//! SCRAM, the client's side (RFC 5802, RFC 7677), as Kafka speaks it.
//!
//! Three things are Kafka's own: the password is used as its UTF-8 bytes, without SASLprep; there is no channel
//! binding; fewer than 4096 iterations are refused, as by Kafka's own clients. The broker must prove that it knows the
//! password's keys, otherwise it may be anybody.
//!
//! Rejected: the crates rsasl (prepares passwords by SASLprep), scram and its fork (bring ring beside the library that
//! TLS uses anyway) and sasl (has no SHA-512).

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use teeline_config::Secret;

use super::SaslError;

/// The digest that the mechanism is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256,
    Sha512,
}

/// One authentication, from one message to the next.
pub(in crate::client) struct Scram {
    digest: Digest,
    password: Secret,
    nonce: String,
    /// `n=…,r=…`, part of what is proven.
    client_first: String,
    /// What the broker must prove, once we have proven our side.
    expected: Option<hmac::Tag>,
}

impl Scram {
    pub(super) fn new(digest: Digest, username: &str, password: Secret) -> Self {
        let random: [u8; 24] = rand::random();
        Self::with_nonce(digest, username, password, URL_SAFE_NO_PAD.encode(random))
    }

    fn with_nonce(digest: Digest, username: &str, password: Secret, nonce: String) -> Self {
        // The two characters that have a meaning in messages.
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            digest,
            password,
            client_first: format!("n={username},r={nonce}"),
            nonce,
            expected: None,
        }
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.client_first).into_bytes()
    }

    /// The answer to a message of the broker; none once the broker has proven itself.
    pub(super) fn next(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
        let message = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        match self.expected.take() {
            None => self.prove(message).map(Some),
            Some(expected) => check(message, &expected).map(|()| None),
        }
    }

    fn prove(&mut self, server_first: &str) -> Result<Vec<u8>, SaslError> {
        let challenge = Challenge::parse(server_first)?;
        let is_longer = challenge.nonce.len() > self.nonce.len();
        if !is_longer || !challenge.nonce.starts_with(&self.nonce) {
            return Err(SaslError::WrongNonce);
        }
        let iterations = challenge.iterations.get();
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(SaslError::Iterations(iterations));
        }
        let (pbkdf2, hmac, digest) = self.digest.algorithms();
        let mut salted = vec![0; hmac.digest_algorithm().output_len()];
        let password = self.password.expose().as_bytes();
        pbkdf2::derive(
            pbkdf2,
            challenge.iterations,
            &challenge.salt,
            password,
            &mut salted,
        );
        let salted = hmac::Key::new(hmac, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let server_key = hmac::sign(&salted, b"Server Key");
        let stored_key = digest::digest(digest, client_key.as_ref());
        let client_final = format!("c={},r={}", STANDARD.encode(HEADER), challenge.nonce);
        let proven = format!("{},{server_first},{client_final}", self.client_first);
        let signature = hmac::sign(&hmac::Key::new(hmac, stored_key.as_ref()), proven.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = hmac::Key::new(hmac, server_key.as_ref());
        self.expected = Some(hmac::sign(&server_key, proven.as_bytes()));
        Ok(format!("{client_final},p={}", STANDARD.encode(proof)).into_bytes())
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scram").field(&self.digest).finish()
    }
}

impl Digest {
    fn algorithms(self) -> (pbkdf2::Algorithm, hmac::Algorithm, &'static digest::Algorithm) {
        match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512),
        }
    }
}

/// What the broker sends first.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> Challenge<'a> {
    fn parse(message: &'a str) -> Result<Self, SaslError> {
        // A mandatory extension, or an error, would stand where the nonce does.
        let mut parts = message.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name));
        let challenge = (part("r="), part("s="), part("i="));
        let (Some(nonce), Some(salt), Some(iterations)) = challenge else {
            return Err(match message.strip_prefix("e=") {
                Some(reason) => SaslError::Refused(reason.to_owned()),
                None => MALFORMED,
            });
        };
        Ok(Self {
            nonce,
            salt: STANDARD.decode(salt).map_err(|_| MALFORMED)?,
            iterations: iterations.parse().map_err(|_| MALFORMED)?,
        })
    }
}

fn check(server_final: &str, expected: &hmac::Tag) -> Result<(), SaslError> {
    if let Some(reason) = server_final.strip_prefix("e=") {
        return Err(SaslError::Refused(reason.to_owned()));
    }
    let first = server_final.split(',').next().unwrap_or_default();
    let proof = first.strip_prefix("v=").ok_or(MALFORMED)?;
    let proof = STANDARD.decode(proof).map_err(|_| MALFORMED)?;
    constant_time::verify_slices_are_equal(&proof, expected.as_ref()).map_err(|_| SaslError::NotProven)
}

/// No channel binding, and no other identity.
const HEADER: &str = "n,,";
const ITERATIONS_MIN: u32 = 4096;
/// Kafka's brokers take 16,384 at most; a million costs about half a second, and more would be an attack.
const ITERATIONS_MAX: u32 = 1_000_000;
const MALFORMED: SaslError = SaslError::Malformed("SCRAM message");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scram(digest: Digest, nonce: &str) -> Scram {
        Scram::with_nonce(digest, "user", Secret::new("pencil"), nonce.to_owned())
    }

    fn text(bytes: Option<Vec<u8>>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_spoken_word_for_word() {
        let mut client = scram(Digest::Sha256, "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(client.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let answer = client
            .next(b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert_eq!(
            text(answer.unwrap()),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let done = client.next(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(done.unwrap(), None);
    }

    const SERVER_FIRST: &[u8] = b"r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    /// The expected values come from Python's hashlib and hmac.
    #[test]
    fn sha_512_is_spoken_as_another_implementation_does() {
        let mut client = scram(Digest::Sha512, "abc");
        assert_eq!(
            text(client.next(SERVER_FIRST).unwrap()),
            "c=biws,r=abcdef,p=UY2ALsLl/+vMdZEZMpDLb2rUbiIqo0XW7lqmnZH3R1PKCEF8YQ9Cph7iuGBNzNmzqPnaovmROjuofK0EtzVMsg=="
        );
        client
            .next(
                b"v=Cre+mRH7MUKHK9Nqtry3Q18JyB82tmhVOUzLUUHEHozEu9KHSxVxIZbU4QcLhPfZTXktHZho2cZ2ixiHZGeP9A==",
            )
            .unwrap();
    }

    #[test]
    fn a_broker_that_does_not_know_the_password_is_not_believed() {
        let mut client = scram(Digest::Sha256, "abc");
        client.next(SERVER_FIRST).unwrap();
        let proof = STANDARD.encode([0; 32]);
        let error = client.next(format!("v={proof}").as_bytes()).unwrap_err();
        assert!(matches!(error, SaslError::NotProven), "{error}");
        let mut client = scram(Digest::Sha256, "abc");
        client.next(SERVER_FIRST).unwrap();
        let error = client.next(b"e=invalid-proof").unwrap_err();
        assert_eq!(error.to_string(), "invalid-proof");
    }

    #[test]
    fn challenges_that_weaken_the_proof_are_refused() {
        let refused = |message: &[u8]| scram(Digest::Sha256, "abc").next(message).unwrap_err();
        assert!(matches!(refused(b"r=abc,s=AA==,i=4096"), SaslError::WrongNonce));
        assert!(matches!(
            refused(b"r=xyz123,s=AA==,i=4096"),
            SaslError::WrongNonce
        ));
        assert!(matches!(
            refused(b"r=abcd,s=AA==,i=4095"),
            SaslError::Iterations(4095)
        ));
        assert!(matches!(
            refused(b"r=abcd,s=AA==,i=2000000000"),
            SaslError::Iterations(_)
        ));
        for malformed in [
            b"".as_slice(),
            b"m=x,r=abcd,s=AA==,i=4096",
            b"r=abcd,s=%,i=4096",
            b"\xff",
        ] {
            assert!(matches!(refused(malformed), SaslError::Malformed(_)));
        }
    }

    #[test]
    fn names_are_escaped_and_nonces_differ() {
        let named = Scram::new(Digest::Sha256, "a=b,c", Secret::new("p"));
        let first = String::from_utf8(named.first()).unwrap();
        assert!(first.starts_with("n,,n=a=3Db=2Cc,r="), "{first}");
        let other = Scram::new(Digest::Sha256, "a", Secret::new("p"));
        assert_ne!(named.nonce, other.nonce);
        assert!(!format!("{named:?}").contains('p'));
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(first in "\\PC*", last in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut client = scram(Digest::Sha256, "abc");
            let _ = client.next(first.as_bytes());
            let _ = client.next(&last);
            client.expected = Some(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"k"), b"x"));
            prop_assert!(client.next(&last).is_err());
        }
    }
}
