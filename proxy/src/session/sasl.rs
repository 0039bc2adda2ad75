//! How far a connection's authentication has come. Nothing is captured before it has succeeded.
//!
//! The exchange itself is the broker's: tokens pass through unread and are never logged or stored. Only its shape is
//! followed: which mechanism, how many rounds, and whether the broker said yes.

use std::sync::atomic::{AtomicU8, Ordering};

use teeline_config::Sasl;

/// A SASL mechanism, as far as its number of rounds and the label of a metric go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    OauthBearer,
    AwsMskIam,
    ScramSha256,
    ScramSha512,
    Gssapi,
    /// What is not known here.
    Other,
}

impl Mechanism {
    const ALL: [Mechanism; 7] = [
        Mechanism::Plain,
        Mechanism::OauthBearer,
        Mechanism::AwsMskIam,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
        Mechanism::Gssapi,
        Mechanism::Other,
    ];

    /// Recognises a mechanism by its name.
    pub(crate) fn named(name: &str) -> Mechanism {
        Mechanism::ALL
            .into_iter()
            .find(|mechanism| mechanism.as_str() == name)
            .unwrap_or(Mechanism::Other)
    }

    /// The one that the proxy itself uses.
    pub(crate) fn of(sasl: &Sasl) -> Mechanism {
        match sasl {
            Sasl::Plain(_) => Mechanism::Plain,
            Sasl::ScramSha256(_) => Mechanism::ScramSha256,
            Sasl::ScramSha512(_) => Mechanism::ScramSha512,
            Sasl::OauthBearer(_) => Mechanism::OauthBearer,
            Sasl::Gssapi(_) => Mechanism::Gssapi,
        }
    }

    /// As it is called, or one word for all others.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::OauthBearer => "OAUTHBEARER",
            Mechanism::AwsMskIam => "AWS_MSK_IAM",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::Gssapi => "GSSAPI",
            Mechanism::Other => "other",
        }
    }

    /// How many tokens the client sends; none when that is not known beforehand.
    pub(crate) fn rounds(self) -> Option<u8> {
        match self {
            Mechanism::Plain | Mechanism::OauthBearer | Mechanism::AwsMskIam => Some(1),
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => Some(2),
            Mechanism::Gssapi | Mechanism::Other => None,
        }
    }

    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// Whether the broker lets a connection's batches in, as far as can be told before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Authenticated, or the broker serves clients without.
    Granted,
    /// No SASL so far, and it is not known yet whether the broker asks for it.
    Unknown,
    /// SASL was begun and has not succeeded.
    Denied,
}

/// The state of one connection. A later re-authentication does not take back what was achieved: a broker closes the
/// connection when it fails.
#[derive(Debug, Default)]
pub(crate) struct Authentication {
    state: AtomicU8,
    /// Rounds that have to succeed; `OPEN` when not known.
    rounds_left: AtomicU8,
    /// What the client asked for last; 0 for nothing.
    mechanism: AtomicU8,
}

impl Authentication {
    /// The client asked for a mechanism.
    pub(crate) fn began(&self, mechanism: Mechanism) {
        self.mechanism.store(mechanism.code(), Ordering::Relaxed);
        self.rounds_left
            .store(mechanism.rounds().unwrap_or(OPEN), Ordering::Relaxed);
        // Fails when authentication is done already: then it stays so.
        let _ = self
            .state
            .compare_exchange(NOT_ASKED, UNDER_WAY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What the client asked for, in a word of ours.
    pub(crate) fn mechanism(&self) -> Option<&'static str> {
        let code = self.mechanism.load(Ordering::Relaxed);
        Mechanism::ALL
            .into_iter()
            .find(|mechanism| mechanism.code() == code)
            .map(Mechanism::as_str)
    }

    /// The proxy has authenticated in the client's place.
    pub(crate) fn given(&self) {
        self.state.store(DONE, Ordering::Relaxed);
    }

    /// The broker accepted a token.
    pub(crate) fn round_succeeded(&self) {
        match self.rounds_left.load(Ordering::Relaxed) {
            // Done when the client goes on with something else: see `other_request`.
            OPEN => self.state.store(UNDER_WAY_ACCEPTED, Ordering::Relaxed),
            0 | 1 => self.state.store(DONE, Ordering::Relaxed),
            left => self.rounds_left.store(left.saturating_sub(1), Ordering::Relaxed),
        }
    }

    /// The client sends something that is neither SASL nor ApiVersions. A client of a mechanism with an open number of
    /// rounds does so only when its side is content.
    pub(crate) fn other_request(&self) {
        let _ = self
            .state
            .compare_exchange(UNDER_WAY_ACCEPTED, DONE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether batches may be captured; without any SASL so far that depends on whether the broker asks for it.
    pub(crate) fn access(&self, broker_is_open: bool) -> Access {
        match self.state.load(Ordering::Relaxed) {
            NOT_ASKED if !broker_is_open => Access::Unknown,
            NOT_ASKED | DONE => Access::Granted,
            _ => Access::Denied,
        }
    }

    /// True when this connection has shown no sign of SASL.
    pub(crate) fn not_asked(&self) -> bool {
        self.state.load(Ordering::Relaxed) == NOT_ASKED
    }
}

const NOT_ASKED: u8 = 0;
const UNDER_WAY: u8 = 1;
const UNDER_WAY_ACCEPTED: u8 = 2;
const DONE: u8 = 3;
const OPEN: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_captured_before_the_last_round_succeeded() {
        let state = Authentication::default();
        assert_eq!(state.access(true), Access::Granted);
        assert_eq!(state.access(false), Access::Unknown);
        state.began(Mechanism::named("SCRAM-SHA-512"));
        assert_eq!(state.access(true), Access::Denied);
        state.round_succeeded();
        state.other_request();
        assert_eq!(state.access(true), Access::Denied);
        state.round_succeeded();
        assert_eq!(state.access(false), Access::Granted);
        state.began(Mechanism::named("PLAIN"));
        assert_eq!(
            state.access(false),
            Access::Granted,
            "re-authentication takes nothing back"
        );
    }

    #[test]
    fn a_name_that_is_not_known_is_no_label() {
        let state = Authentication::default();
        assert_eq!(state.mechanism(), None);
        for (name, label) in [
            ("SCRAM-SHA-256", "SCRAM-SHA-256"),
            ("GET / HTTP/1.1", "other"),
            ("", "other"),
        ] {
            state.began(Mechanism::named(name));
            assert_eq!(state.mechanism(), Some(label));
        }
    }

    #[test]
    fn a_mechanism_with_open_rounds_is_done_when_the_client_goes_on() {
        let state = Authentication::default();
        state.began(Mechanism::named("GSSAPI"));
        state.other_request();
        assert_eq!(state.access(true), Access::Denied);
        state.round_succeeded();
        assert_eq!(state.access(true), Access::Denied);
        state.other_request();
        assert_eq!(state.access(true), Access::Granted);
    }
}
