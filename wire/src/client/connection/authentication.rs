//! Saying who we are, at the start of a connection and again before its session ends (KIP-43, KIP-152, KIP-368).
//!
//! While an authentication is under way a broker takes nothing else on the connection. So it has the connection to
//! itself: other requests wait at a gate, those sent before are answered before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;
use teeline_config::Sasl;

use super::{BrokerVersions, ClientError, ErrorCode, Shared};
use crate::client::sasl::{Exchange, KerberosError, SaslError};

/// Version 0 of the handshake is followed by tokens without frames, which no broker since 1.0 needs.
const HANDSHAKE_VERSIONS: std::ops::RangeInclusive<i16> = 1..=1;
const AUTHENTICATE_VERSIONS: std::ops::RangeInclusive<i16> = 0..=2;
/// More than any mechanism has.
const ROUNDS_MAX: usize = 8;
/// As Kafka's own clients: early enough to be in time, and not all connections at the same moment.
const REPEAT_AT: std::ops::RangeInclusive<f64> = 0.85..=0.95;
const REPEAT_AFTER_MIN: Duration = Duration::from_secs(1);
const STOPPING: &str = "the process is stopping";
/// Of what a broker says for a refusal.
const REASON_CHARS_MAX: usize = 1_000;

/// What an authentication needs besides the connection.
#[derive(Debug, Clone)]
pub(super) struct Authentication {
    pub(super) sasl: Sasl,
    pub(super) versions: Arc<BrokerVersions>,
    /// How long each answer may take.
    pub(super) timeout: Duration,
}

impl Authentication {
    /// Authenticates; says how long the session lasts, if that is limited.
    pub(super) async fn run(&self, shared: &Arc<Shared>) -> Result<Option<Duration>, ClientError> {
        self.handshake(shared).await?;
        let begun = Exchange::begin(&self.sasl, &shared.address.host, Instant::now() + self.timeout);
        let mut exchange = begun.await.map_err(|error| self.failed(shared, error))?;
        let mut message = exchange.first();
        for _ in 0..ROUNDS_MAX {
            let (answer, lifetime) = self.authenticate(shared, message).await?;
            // Computes for a while.
            let step = tokio::task::spawn_blocking(move || {
                let next = exchange.next(&answer)?;
                Ok((exchange, next))
            });
            let (same, next) = self.done(shared, step.await)?;
            exchange = same;
            match next {
                Some(next) => message = next,
                None => return Ok(lifetime),
            }
        }
        Err(self.refused(shared, "it does not come to an end"))
    }

    /// Authenticates again and again, in time before each session ends.
    pub(super) async fn keep(self, shared: Arc<Shared>, first: Duration) {
        let mut lifetime = first;
        loop {
            let pause = lifetime.mul_f64(rand::rng().random_range(REPEAT_AT));
            // Brokers refuse to be asked again within a second; one that demands it must not keep us busy with nothing else.
            let pause = pause.max(REPEAT_AFTER_MIN);
            tokio::time::sleep(pause).await;
            let alone = shared.gate.write().await;
            match self.run(&shared).await {
                Ok(Some(next)) => lifetime = next,
                Ok(None) => return,
                Err(error) => {
                    drop(alone);
                    shared.close(error);
                    return;
                }
            }
        }
    }

    async fn handshake(&self, shared: &Arc<Shared>) -> Result<(), ClientError> {
        let mechanism = self.sasl.mechanism();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let version = self.version::<SaslHandshakeRequest>(shared, &HANDSHAKE_VERSIONS)?;
        let answer = shared.call(version, &request, self.timeout).await?;
        match ErrorCode(answer.error_code) {
            ErrorCode::NONE => Ok(()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.to_string()).collect();
                let reason = format!("it offers {} instead", offered.join(", "));
                Err(self.refused(shared, &reason))
            }
            ErrorCode::ILLEGAL_SASL_STATE => {
                let reason = "the listener takes no SASL (hint: security_protocol PLAINTEXT or SSL)";
                Err(self.refused(shared, reason))
            }
            code => Err(self.refused(shared, &code.to_string())),
        }
    }

    async fn authenticate(
        &self,
        shared: &Arc<Shared>,
        message: Vec<u8>,
    ) -> Result<(Bytes, Option<Duration>), ClientError> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let version = self.version::<SaslAuthenticateRequest>(shared, &AUTHENTICATE_VERSIONS)?;
        let answer = shared.call(version, &request, self.timeout).await?;
        let code = ErrorCode(answer.error_code);
        if !code.is_ok() {
            let reason = match answer.error_message {
                Some(message) if !message.is_empty() => message.chars().take(REASON_CHARS_MAX).collect(),
                _ => code.to_string(),
            };
            return Err(self.refused(shared, &reason));
        }
        let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
        let lifetime = (lifetime > 0).then(|| Duration::from_millis(lifetime));
        Ok((answer.auth_bytes, lifetime))
    }

    fn version<R: kafka_protocol::protocol::Request>(
        &self,
        shared: &Shared,
        ours: &std::ops::RangeInclusive<i16>,
    ) -> Result<i16, ClientError> {
        self.versions.choose(&shared.address, R::KEY, ours)
    }

    /// The outcome of a step on another thread.
    fn done<T>(
        &self,
        shared: &Shared,
        outcome: Result<Result<T, SaslError>, tokio::task::JoinError>,
    ) -> Result<T, ClientError> {
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failed(shared, error)),
            Err(_cancelled) => Err(shared.failed(STOPPING)),
        }
    }

    /// Whose fault it is, and whether it may pass.
    fn failed(&self, shared: &Shared, error: SaslError) -> ClientError {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let reason = format!("{error}{}", source.unwrap_or_default());
        match error {
            SaslError::Kerberos(KerberosError::Unreachable { realm, source }) => ClientError::Connect {
                address: format!("{} (no KDC of {realm} answers)", shared.address),
                source,
            },
            SaslError::Kerberos(KerberosError::Late) => shared.failed(&reason),
            SaslError::Stopping => shared.failed(STOPPING),
            SaslError::File { .. }
            | SaslError::EmptyFile(_)
            | SaslError::Kerberos(
                KerberosError::File { .. } | KerberosError::Unusable { .. } | KerberosError::NotDescribed(_),
            ) => ClientError::Security { what: "SASL", reason },
            _ => self.refused(shared, &reason),
        }
    }

    fn refused(&self, shared: &Shared, reason: &str) -> ClientError {
        ClientError::Authentication {
            address: shared.address.to_string(),
            mechanism: self.sasl.mechanism(),
            reason: reason.to_owned(),
        }
    }
}
