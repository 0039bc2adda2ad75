//! From what the configuration names to a ticket for a broker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use teeline_config::{Kerberos, KerberosIdentity};

use super::cache::Cache;
use super::configuration::Realms;
use super::context::Offer;
use super::crypto::{Encryption, Key};
use super::flight::Patience;
use super::messages::{self, Answer, Refusal, Request, usage};
use super::{KerberosError, Moment, Principal, Ticket, kdc, keytab, unusable};

/// A ticket for one authentication, or for several at once.
#[derive(Debug, Clone)]
pub(in crate::client::sasl) struct Found {
    ticket: Ticket,
    place: Kept,
    /// What the broker's key may be for.
    permitted: Vec<Encryption>,
}

impl Found {
    /// Shows it to the broker: the offer, and its token.
    pub(in crate::client::sasl) fn offer(&self) -> Result<(Offer, Vec<u8>), KerberosError> {
        Offer::of(&self.ticket, &self.permitted)
    }

    /// The broker has accepted it: keeps it for the next time.
    pub(in crate::client::sasl) fn keep(&self) {
        self.place.put(self.ticket.clone());
    }

    /// The broker has not accepted it.
    pub(in crate::client::sasl) fn forget(&self) {
        self.place.forget(&self.ticket);
    }
}

/// A ticket for the broker at `host`: one that is kept, or a new one.
pub(super) fn ticket(kerberos: &Kerberos, host: &str, patience: &Patience) -> Result<Found, KerberosError> {
    patience.left().ok_or(KerberosError::Late)?;
    // Principals of hosts are written in lower case; the dot that may end a name is not part of them.
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let now = Moment::now();
    let realms = Realms::read(&kerberos.configuration)?;
    let mut asking = Asking {
        encryptions: realms.encryptions(),
        realms,
        now,
        patience,
    };
    let identity = Identity::of(kerberos, &asking)?;
    let place = Kept {
        kerberos: kerberos.clone(),
        client: identity.client().clone(),
        host,
    };
    let found = |ticket: Ticket, permitted: &[Encryption]| Found {
        ticket,
        place: place.clone(),
        permitted: permitted.to_vec(),
    };
    let is_permitted = |ticket: &Ticket, asking: &Asking<'_>| asking.permitted(ticket).is_ok();
    if let Some(ticket) = place.get(now).filter(|ticket| is_permitted(ticket, &asking)) {
        return Ok(found(ticket, &asking.encryptions));
    }
    let service = Principal {
        realm: String::new(),
        parts: vec![kerberos.service_name.clone(), place.host.clone()],
    };
    let granting = match identity {
        Identity::Keytab { client, path } => match place
            .granting()
            .get(now)
            .filter(|ticket| is_permitted(ticket, &asking))
        {
            Some(ticket) => ticket,
            None => asking.first(&client, path)?,
        },
        Identity::Cache { path, cache } => {
            let is_for_it = |ticket: &&Ticket| ticket.server.parts == service.parts;
            let usable = |ticket: &&Ticket| ticket.is_usable(now) && is_permitted(ticket, &asking);
            let mut usable = cache.tickets.iter().filter(usable);
            if let Some(ticket) = usable.clone().find(is_for_it) {
                return Ok(found(ticket.clone(), &asking.encryptions));
            }
            let realm = cache.owner.realm.as_str();
            let granting = usable.find(|ticket| ticket.server == Principal::granting(realm, realm));
            granting.cloned().ok_or_else(|| no_ticket(path, &cache.owner))?
        }
    };
    let ticket = asking.further(&granting, &service)?;
    if matches!(kerberos.identity, KerberosIdentity::Keytab { .. }) {
        place.granting().put(granting);
    }
    Ok(found(ticket, &asking.encryptions))
}

fn no_ticket(path: &Path, owner: &Principal) -> KerberosError {
    let reason =
        format!("has no ticket of {owner} that is valid and for AES as permitted (hint: klist -e; kinit)");
    unusable(path, reason)
}

/// Where a ticket is kept between authentications, once a broker has accepted it, and as long as it lasts. One that is
/// refused is not used again: the broker may have a new key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kept {
    kerberos: Kerberos,
    client: Principal,
    /// None but for the ticket that grants others.
    host: String,
}

/// Of all clients in the process: they are the same to a KDC.
static TICKETS: LazyLock<Mutex<HashMap<Kept, Ticket>>> = LazyLock::new(Mutex::default);

impl Kept {
    fn granting(&self) -> Self {
        Self {
            host: String::new(),
            ..self.clone()
        }
    }

    fn get(&self, now: Moment) -> Option<Ticket> {
        let tickets = TICKETS.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.get(self).filter(|ticket| ticket.is_usable(now)).cloned()
    }

    /// Unless another one has been kept meanwhile.
    fn forget(&self, ticket: &Ticket) {
        let mut tickets = TICKETS.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.get(self).is_some_and(|kept| kept.bytes == ticket.bytes) {
            tickets.remove(self);
        }
    }

    /// Keeps it for the next time.
    fn put(&self, ticket: Ticket) {
        let mut tickets = TICKETS.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() >= TICKETS_MAX {
            let now = Moment::now();
            tickets.retain(|_, ticket| ticket.is_usable(now));
        }
        if tickets.len() < TICKETS_MAX || tickets.contains_key(self) {
            tickets.insert(self.clone(), ticket);
        }
    }
}

/// Who we are, and by what.
enum Identity<'a> {
    Keytab { client: Principal, path: &'a Path },
    Cache { path: &'a Path, cache: Cache },
}

impl<'a> Identity<'a> {
    fn of(kerberos: &'a Kerberos, asking: &Asking<'_>) -> Result<Self, KerberosError> {
        Ok(match &kerberos.identity {
            KerberosIdentity::Keytab { principal, keytab } => Self::Keytab {
                client: Principal::parse(principal, asking.realms.default_realm())?,
                path: keytab,
            },
            KerberosIdentity::TicketCache(path) => Self::Cache {
                cache: Cache::read(path)?,
                path,
            },
        })
    }

    fn client(&self) -> &Principal {
        match self {
            Self::Keytab { client, .. } => client,
            Self::Cache { cache, .. } => &cache.owner,
        }
    }
}

/// Whom to ask, and what for.
struct Asking<'a> {
    realms: Realms,
    encryptions: Vec<Encryption>,
    now: Moment,
    patience: &'a Patience,
}

impl Asking<'_> {
    /// Whether the configuration lets its key be used.
    fn permitted(&self, ticket: &Ticket) -> Result<(), KerberosError> {
        match self.encryptions.contains(&ticket.key.encryption()) {
            true => Ok(()),
            false => Err(KerberosError::NotProven(
                "the KDC gives a key that permitted_enctypes of krb5.conf leaves out",
            )),
        }
    }

    /// The ticket that grants others, by a key of our own.
    fn first(&mut self, client: &Principal, path: &Path) -> Result<Ticket, KerberosError> {
        let mut keys = keytab::keys(path, client)?;
        keys.retain(|key| self.encryptions.contains(&key.encryption()));
        let key_of = |encryption: Encryption| keys.iter().find(|key| key.encryption() == encryption);
        let own: Vec<_> = self
            .encryptions
            .iter()
            .copied()
            .filter(|known| key_of(*known).is_some())
            .collect();
        let Some(preferred) = own.first().and_then(|first| key_of(*first)) else {
            return Err(unusable(
                path,
                "has only keys that permitted_enctypes of krb5.conf leaves out",
            ));
        };
        let server = Principal::granting(&client.realm, &client.realm);
        let mut request = self.request(&server, &client.realm, 0);
        request.client = Some(client);
        request.encryptions = &own;
        let answer = self.ask(&client.realm, AS_REPLY, &request.for_first(None))?;
        let reply = match answer {
            // A KDC that wants no proof; the answer is of use to the owner of the key only.
            Answer::Reply(reply) => reply,
            Answer::Refusal(refusal) if refusal.code == messages::PROOF_REQUIRED => {
                let key = refusal.encryptions.iter().find_map(|wanted| key_of(*wanted));
                let proof = messages::timestamp(key.unwrap_or(preferred), Moment::now())?;
                request.nonce = nonce();
                match self.ask(&client.realm, AS_REPLY, &request.for_first(Some(proof)))? {
                    Answer::Reply(reply) => reply,
                    Answer::Refusal(refusal) => return Err(refused(&refusal, &client.realm)),
                }
            }
            Answer::Refusal(refusal) => return Err(refused(&refusal, &client.realm)),
        };
        let key: &Key =
            Encryption::of_number(reply.encryption())
                .and_then(key_of)
                .ok_or(KerberosError::NotProven(
                    "the KDC encrypts by a key that was not offered",
                ))?;
        let ticket = reply.open(client, key, usage::AS_REPLY, request.nonce)?;
        self.permitted(&ticket)?;
        match ticket.server == server {
            true => Ok(ticket),
            false => Err(KerberosError::NotProven(
                "the KDC gives a ticket for another service",
            )),
        }
    }

    /// A ticket for the service, through as many realms as it takes.
    fn further(&self, granting: &Ticket, service: &Principal) -> Result<Ticket, KerberosError> {
        let host = service.parts.last().map(String::as_str).unwrap_or_default();
        let mapped = self.realms.realm_of(host);
        let mut granting = granting.clone();
        for _ in 0..REALMS_MAX {
            let here = granting.server.grants().unwrap_or_default().to_owned();
            let wanted = match mapped {
                Some(realm) if realm != here => Principal::granting(realm, &here),
                _ => service.clone(),
            };
            let ticket = self.granted(&granting, &wanted, &here)?;
            if ticket.server.parts == service.parts {
                return Ok(ticket);
            }
            // A referral: on to the realm that it grants tickets of.
            match ticket.server.grants() {
                Some(next) if next != here => granting = ticket,
                _ => {
                    return Err(KerberosError::NotProven(
                        "the KDC gives a ticket for another service",
                    ));
                }
            }
        }
        Err(KerberosError::NotProven(
            "KDCs refer from realm to realm without an end",
        ))
    }

    fn granted(&self, granting: &Ticket, wanted: &Principal, realm: &str) -> Result<Ticket, KerberosError> {
        let request = self.request(wanted, realm, CANONICALIZE);
        let message = request.for_further(granting, Moment::now())?;
        match self.ask(realm, TGS_REPLY, &message)? {
            Answer::Reply(reply) => {
                let ticket = reply.open(&granting.client, &granting.key, usage::TGS_REPLY, request.nonce)?;
                self.permitted(&ticket)?;
                Ok(ticket)
            }
            Answer::Refusal(refusal) => {
                let who = format!("the KDC of {realm}, asked for {}", wanted.parts.join("/"));
                Err(refusal.by(who))
            }
        }
    }

    fn request<'a>(&'a self, server: &'a Principal, realm: &'a str, options: u32) -> Request<'a> {
        Request {
            client: None,
            server,
            realm,
            encryptions: &self.encryptions,
            options,
            till: self.now.seconds.saturating_add(LIFETIME_SECONDS),
            nonce: nonce(),
        }
    }

    fn ask(&self, realm: &str, kind: u8, message: &[u8]) -> Result<Answer, KerberosError> {
        Answer::parse(kind, &kdc::ask(&self.realms, realm, message, self.patience)?)
    }
}

fn refused(refusal: &Refusal, realm: &str) -> KerberosError {
    refusal.by(format!("the KDC of {realm}"))
}

/// Positive in whatever way it is read.
fn nonce() -> u32 {
    rand::random::<u32>() >> 1
}

const AS_REPLY: u8 = 11;
const TGS_REPLY: u8 = 13;
/// Referrals are welcome.
const CANONICALIZE: u32 = 0x0001_0000;
/// KDCs give less where they are told to.
const LIFETIME_SECONDS: u64 = 24 * 3600;
const REALMS_MAX: usize = 8;
const TICKETS_MAX: usize = 4096;

#[cfg(test)]
#[path = "tickets_tests.rs"]
mod tests;
