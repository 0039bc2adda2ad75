//! Layouts of the requests that are decoded with kafka-protocol.

use super::{Field, Kind, Message, array, byte, int16, int32, int64, text, uuid};
use crate::apis;

pub(super) const REQUESTS: &[Message] = &[
    Message {
        api_key: apis::METADATA,
        newest: 13,
        fields: METADATA,
    },
    Message {
        api_key: apis::SASL_HANDSHAKE,
        newest: 1,
        fields: &[text(0)],
    },
    Message {
        api_key: apis::API_VERSIONS,
        newest: 5,
        fields: API_VERSIONS,
    },
    Message {
        api_key: apis::INIT_PRODUCER_ID,
        newest: 6,
        fields: INIT_PRODUCER_ID,
    },
    Message {
        api_key: apis::END_TXN,
        newest: 5,
        fields: END_TXN,
    },
];

const METADATA: &[Field] = &[
    array(0, &Kind::Struct(&[uuid(10), text(0)])),
    byte(4),           // allow automatic creation
    byte(8).until(10), // include the cluster's authorized operations
    byte(8),           // include the topics' authorized operations
];

const API_VERSIONS: &[Field] = &[
    text(3),  // client software
    text(3),  // its version
    text(5),  // cluster id
    int32(5), // node id
];

const INIT_PRODUCER_ID: &[Field] = &[
    text(0),  // transactional id
    int32(0), // transaction timeout
    int64(3), // producer id
    int16(3), // producer epoch
    byte(6),  // two-phase commit
    byte(6),  // keep the prepared transaction
];

const END_TXN: &[Field] = &[text(0), int64(0), int16(0), byte(0)];
