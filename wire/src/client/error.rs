//! What can go wrong between the client and a cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::ProduceFailure;
use crate::WireError;
use crate::frame::FrameError;

/// A Kafka error code, 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    /// No error.
    pub const NONE: Self = Self(0);
    /// The offset is below the log's start or above its end.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// A batch failed its checksum or size on the broker.
    pub const CORRUPT_MESSAGE: Self = Self(2);
    /// No such topic or partition, or not yet, or not ours to see.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// An election is going on.
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    /// The leader moved. With a base offset the batch was appended before it did.
    pub const NOT_LEADER_OR_FOLLOWER: Self = Self(6);
    /// The broker gave up waiting. With a base offset the batch was appended.
    pub const REQUEST_TIMED_OUT: Self = Self(7);
    /// The batch is larger than `max.message.bytes`.
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    /// The coordinator is still reading what it has to know of its groups.
    pub const COORDINATOR_LOAD_IN_PROGRESS: Self = Self(14);
    /// Too few in-sync replicas; the batch was not appended.
    pub const NOT_ENOUGH_REPLICAS: Self = Self(19);
    /// Too few in-sync replicas, noticed after the batch was appended.
    pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: Self = Self(20);
    /// Access to the topic is denied.
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    /// Access to the group is denied.
    pub const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    /// Access to the cluster operation is denied.
    pub const CLUSTER_AUTHORIZATION_FAILED: Self = Self(31);
    /// The listener does not offer the SASL mechanism.
    pub const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);
    /// The listener takes no SASL, or not now.
    pub const ILLEGAL_SASL_STATE: Self = Self(34);
    /// The broker does not speak the version asked for.
    pub const UNSUPPORTED_VERSION: Self = Self(35);
    /// The topic exists.
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    /// The broker asked is not the controller.
    pub const NOT_CONTROLLER: Self = Self(41);
    /// A sequence is not the next one.
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: Self = Self(45);
    /// The batch is a duplicate of an older one.
    pub const DUPLICATE_SEQUENCE_NUMBER: Self = Self(46);
    /// The producer's epoch is not the latest.
    pub const INVALID_PRODUCER_EPOCH: Self = Self(47);
    /// The cluster has no authorizer, and so no ACLs.
    pub const SECURITY_DISABLED: Self = Self(54);
    /// The broker has no state of the producer id.
    pub const UNKNOWN_PRODUCER_ID: Self = Self(59);
    /// There is no such group.
    pub const GROUP_ID_NOT_FOUND: Self = Self(69);
    /// The broker has no such fetch session (any more).
    pub const FETCH_SESSION_ID_NOT_FOUND: Self = Self(70);
    /// The request is not the next one of its fetch session.
    pub const INVALID_FETCH_SESSION_EPOCH: Self = Self(71);
    /// The leader epoch asked with is older than the broker's.
    pub const FENCED_LEADER_EPOCH: Self = Self(74);
    /// The leader epoch asked with is newer than the broker's.
    pub const UNKNOWN_LEADER_EPOCH: Self = Self(75);
    /// A record was refused; on compacted topics one without key.
    pub const INVALID_RECORD: Self = Self(87);
    /// No topic has this id (any more, or yet).
    pub const UNKNOWN_TOPIC_ID: Self = Self(100);
    /// A fetch session has topics by name and by id.
    pub const FETCH_SESSION_TOPIC_ID_ERROR: Self = Self(106);

    /// Whether it is no error.
    pub fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// Kafka's name of the error, as brokers log it.
    pub fn name(self) -> String {
        match ResponseError::try_from_code(self.0) {
            None => "NONE".to_owned(),
            Some(ResponseError::Unknown(code)) => format!("ERROR_{code}"),
            Some(error) => screaming(&format!("{error:?}")),
        }
    }

    /// Whether Kafka says that trying again may help.
    pub fn is_retriable(self) -> bool {
        ResponseError::try_from_code(self.0).is_some_and(|error| error.is_retriable())
    }

    /// Whether it says that the cluster does not know the topic.
    pub fn is_unknown_topic(self) -> bool {
        matches!(self, Self::UNKNOWN_TOPIC_OR_PARTITION | Self::UNKNOWN_TOPIC_ID)
    }

    /// Whether it says that we lack a right.
    pub fn is_denial(self) -> bool {
        matches!(
            self,
            Self::TOPIC_AUTHORIZATION_FAILED
                | Self::GROUP_AUTHORIZATION_FAILED
                | Self::CLUSTER_AUTHORIZATION_FAILED
        )
    }

    /// An error unless it is none.
    pub(super) fn check(
        self,
        subject: impl FnOnce() -> String,
        message: Option<&str>,
    ) -> Result<(), ClientError> {
        if self.is_ok() {
            return Ok(());
        }
        Err(ClientError::Broker {
            subject: subject(),
            code: self,
            message: message.map(str::to_owned),
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn screaming(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection came about.
    #[error("connect to broker {address}")]
    Connect {
        /// The broker.
        address: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// TLS failed for a reason that does not pass: the broker is not the one that was meant, or does not want us.
    #[error("TLS with broker {address}: {reason}")]
    Tls {
        /// The broker.
        address: String,
        /// Why, in words, with a hint.
        reason: String,
    },
    /// What the configuration says about security cannot be used.
    #[error("set up {what}: {reason}")]
    Security {
        /// TLS or SASL.
        what: &'static str,
        /// Why, in words, with a hint.
        reason: String,
    },
    /// The broker did not take us for who we said we are, or is not who it should be.
    #[error("authenticate to broker {address} by {mechanism}: {reason}")]
    Authentication {
        /// The broker.
        address: String,
        /// The SASL mechanism.
        mechanism: &'static str,
        /// Why, in words; the broker's own if it had any.
        reason: String,
    },
    /// No answer in time. The connection is given up, as later answers queue behind this one.
    #[error("broker {address} did not answer {what} within {} ms", after.as_millis())]
    Timeout {
        /// The broker.
        address: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection ended while a request was on its way: whether the broker acted on it is not known.
    #[error("connection to broker {address} was lost: {reason}")]
    ConnectionLost {
        /// The broker.
        address: String,
        /// Why, in words.
        reason: String,
    },
    /// What came is not a Kafka frame, or is larger than we accept.
    #[error("read from broker {address}")]
    Frame {
        /// The broker.
        address: String,
        /// Why.
        #[source]
        source: Arc<FrameError>,
    },
    /// A response could not be read.
    #[error("{what} response of broker {address} is malformed")]
    Malformed {
        /// The broker.
        address: String,
        /// Which response.
        what: &'static str,
        /// Why.
        #[source]
        source: WireError,
    },
    /// A response was refused by the kafka-protocol crate, or lacks what it must have.
    #[error("{what} response of broker {address} is unusable: {reason}")]
    Unusable {
        /// The broker.
        address: String,
        /// Which response.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Our own request could not be encoded.
    #[error("encode {what} request: {reason}")]
    Encode {
        /// Which request.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The broker and this client have no version of an API in common.
    #[error(
        "broker {address} speaks {what} versions {broker}, teeline {ours} (hint: Kafka 2.8 and later are supported)"
    )]
    UnsupportedVersion {
        /// The broker.
        address: String,
        /// Which API.
        what: &'static str,
        /// What the broker offers.
        broker: String,
        /// What we speak.
        ours: String,
    },
    /// The broker answered with an error.
    #[error("{subject}: {code}{}", message.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Broker {
        /// What was asked, of what.
        subject: String,
        /// Its error code.
        code: ErrorCode,
        /// Its words, if it had any.
        message: Option<String>,
    },
    /// A batch was not acknowledged.
    #[error("produce to {partition}")]
    Produce {
        /// Where to.
        partition: String,
        /// The broker's answer, which also tells whether the batch may stand in the log nevertheless.
        #[source]
        failure: ProduceFailure,
    },
    /// The partition has no leader just now.
    #[error("partition {partition} of topic {topic} has no leader")]
    NoLeader {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
    },
    /// The topic of this name has another id than the one asked for: it was deleted and created again.
    #[error("topic {topic} has id {found}, not {expected}: it was deleted and created again")]
    TopicRecreated {
        /// Name.
        topic: String,
        /// Id asked for.
        expected: Uuid,
        /// Id that it has.
        found: Uuid,
    },
    /// No broker could be reached.
    #[error("no broker of {bootstrap} can be reached")]
    NoBroker {
        /// The bootstrap addresses.
        bootstrap: String,
        /// The last attempt's failure.
        #[source]
        source: Option<Box<ClientError>>,
    },
    /// Retrying did not help before the deadline.
    #[error("gave up after {attempts} attempts in {} ms", elapsed.as_millis())]
    GaveUp {
        /// Attempts made.
        attempts: u32,
        /// Time spent.
        elapsed: Duration,
        /// The last failure.
        #[source]
        source: Box<ClientError>,
    },
}

impl ClientError {
    /// Whether the same call may succeed later. For Produce without a producer id a lost connection is
    /// retriable too, at the price of duplicates: that decision is the caller's.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::ConnectionLost { .. }
            | Self::NoLeader { .. }
            | Self::NoBroker { .. }
            | Self::GaveUp { .. } => true,
            Self::Frame { source, .. } => {
                matches!(**source, FrameError::Io(_) | FrameError::Truncated { .. })
            }
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Produce { failure, .. } => failure.code.is_retriable(),
            Self::Tls { .. }
            | Self::Security { .. }
            | Self::Authentication { .. }
            | Self::Malformed { .. }
            | Self::Unusable { .. }
            | Self::Encode { .. }
            | Self::UnsupportedVersion { .. }
            | Self::TopicRecreated { .. } => false,
        }
    }

    /// Whether this broker and we do not trust each other; another one may be set up rightly.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Tls { .. } | Self::Authentication { .. })
    }

    /// The broker's error code, also through [`ClientError::GaveUp`].
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::Produce { failure, .. } => Some(failure.code),
            Self::GaveUp { source, .. } => source.code(),
            _ => None,
        }
    }
}
