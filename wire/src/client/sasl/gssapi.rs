//! GSSAPI, the client's side: Kerberos in SASL (RFC 4752), without a security layer, as Kafka speaks it.
//!
//! Both sides prove themselves, then the broker says what protection it offers for what follows, and we choose none:
//! protection is TLS's. The name we want to act as is left out, so it is the principal's own.

use std::fmt;

use super::SaslError;
use super::kerberos::{Context, Found, Offer};

/// One authentication.
pub(in crate::client) struct Gssapi {
    found: Found,
    first: Vec<u8>,
    state: State,
    is_accepted: bool,
}

enum State {
    /// The ticket was shown.
    Offered(Offer),
    /// The broker has proven itself; it is to say what protection it offers.
    Agreed(Context),
    /// All is said; the broker has to agree to it.
    Chosen,
    Done,
}

impl Gssapi {
    /// With a ticket for the broker.
    pub(super) fn begin(found: Found) -> Result<Self, SaslError> {
        let (offer, first) = found.offer()?;
        Ok(Self {
            found,
            first,
            state: State::Offered(offer),
            is_accepted: false,
        })
    }

    pub(super) fn first(&self) -> Vec<u8> {
        self.first.clone()
    }

    /// The answer to a message of the broker; none once it agrees.
    pub(super) fn next(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, SaslError> {
        let (state, answer) = match std::mem::replace(&mut self.state, State::Done) {
            State::Offered(offer) => (State::Agreed(offer.accepted(message)?), Some(Vec::new())),
            State::Agreed(mut context) => {
                let offered = context.unwrap(message)?;
                let choice = choose(&offered)?;
                let answer = context.wrap(&choice)?;
                (State::Chosen, Some(answer))
            }
            State::Chosen => {
                // Accepted: good for the next time.
                self.found.keep();
                self.is_accepted = true;
                (State::Done, None)
            }
            State::Done => (State::Done, None),
        };
        self.state = state;
        Ok(answer)
    }
}

/// Which layers there are, one bit each, and the size of messages: we take none, and then the size has to be zero.
fn choose(offered: &[u8]) -> Result<[u8; 4], SaslError> {
    match offered {
        [layers, _, _, _] if layers & NO_LAYER != 0 => Ok([NO_LAYER, 0, 0, 0]),
        [_, _, _, _] => Err(SaslError::Refused(
            "the broker insists on a security layer of SASL; only TLS protects Teeline's connections"
                .to_owned(),
        )),
        _ => Err(SaslError::Malformed("offer of security layers")),
    }
}

impl Drop for Gssapi {
    fn drop(&mut self) {
        // Given up on the way: a ticket that was good may be bad now.
        if !self.is_accepted {
            self.found.forget();
        }
    }
}

impl fmt::Debug for Gssapi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gssapi")
    }
}

const NO_LAYER: u8 = 1;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_security_layer_is_chosen_where_it_is_offered() {
        assert_eq!(choose(&[7, 0, 255, 255]).unwrap(), [1, 0, 0, 0]);
        assert_eq!(choose(&[1, 0, 0, 0]).unwrap(), [1, 0, 0, 0]);
        let error = choose(&[6, 0, 255, 255]).unwrap_err();
        assert!(error.to_string().contains("insists"), "{error}");
        assert!(choose(&[1, 0, 0]).is_err());
    }
}
