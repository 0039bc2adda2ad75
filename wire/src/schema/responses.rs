//! Layouts of responses: those that carry broker addresses, and those that the cluster client decodes.
//!
//! Fields stand in the order of Kafka's message definitions (up to 4.4.0), which is the order on the
//! wire; numbers are the versions in which they appear.

use super::{Field, Kind, Message, Role, array, blob, byte, int16, int32, int64, nested, text, uuid};
use crate::apis;

pub(super) const RESPONSES: &[Message] = &[
    Message {
        api_key: apis::PRODUCE,
        newest: 13,
        fields: PRODUCE,
    },
    Message {
        api_key: apis::FETCH,
        newest: 18,
        fields: FETCH,
    },
    Message {
        api_key: apis::LIST_OFFSETS,
        newest: 11,
        fields: LIST_OFFSETS,
    },
    Message {
        api_key: apis::METADATA,
        newest: 13,
        fields: METADATA,
    },
    Message {
        api_key: apis::OFFSET_FETCH,
        newest: 10,
        fields: OFFSET_FETCH,
    },
    Message {
        api_key: apis::FIND_COORDINATOR,
        newest: 6,
        fields: FIND_COORDINATOR,
    },
    Message {
        api_key: apis::LIST_GROUPS,
        newest: 5,
        fields: LIST_GROUPS,
    },
    Message {
        api_key: apis::SASL_HANDSHAKE,
        newest: 1,
        fields: SASL_HANDSHAKE,
    },
    Message {
        api_key: apis::API_VERSIONS,
        newest: 5,
        fields: API_VERSIONS,
    },
    Message {
        api_key: apis::CREATE_TOPICS,
        newest: 7,
        fields: CREATE_TOPICS,
    },
    Message {
        api_key: apis::DELETE_TOPICS,
        newest: 6,
        fields: DELETE_TOPICS,
    },
    Message {
        api_key: apis::DELETE_RECORDS,
        newest: 2,
        fields: DELETE_RECORDS,
    },
    Message {
        api_key: apis::INIT_PRODUCER_ID,
        newest: 6,
        fields: INIT_PRODUCER_ID,
    },
    Message {
        api_key: apis::OFFSET_FOR_LEADER_EPOCH,
        newest: 4,
        fields: OFFSET_FOR_LEADER_EPOCH,
    },
    Message {
        api_key: apis::ADD_PARTITIONS_TO_TXN,
        newest: 5,
        fields: ADD_PARTITIONS_TO_TXN,
    },
    Message {
        api_key: apis::END_TXN,
        newest: 5,
        fields: END_TXN,
    },
    Message {
        api_key: apis::DESCRIBE_ACLS,
        newest: 3,
        fields: DESCRIBE_ACLS,
    },
    Message {
        api_key: apis::DESCRIBE_CONFIGS,
        newest: 4,
        fields: DESCRIBE_CONFIGS,
    },
    Message {
        api_key: apis::SASL_AUTHENTICATE,
        newest: 2,
        fields: SASL_AUTHENTICATE,
    },
    Message {
        api_key: apis::INCREMENTAL_ALTER_CONFIGS,
        newest: 1,
        fields: INCREMENTAL_ALTER_CONFIGS,
    },
    Message {
        api_key: apis::DESCRIBE_CLIENT_QUOTAS,
        newest: 1,
        fields: DESCRIBE_CLIENT_QUOTAS,
    },
    Message {
        api_key: apis::DESCRIBE_USER_SCRAM_CREDENTIALS,
        newest: 0,
        fields: DESCRIBE_USER_SCRAM_CREDENTIALS,
    },
    Message {
        api_key: apis::DESCRIBE_CLUSTER,
        newest: 2,
        fields: DESCRIBE_CLUSTER,
    },
    Message {
        api_key: apis::DESCRIBE_SHARE_GROUP_OFFSETS,
        newest: 0,
        fields: DESCRIBE_SHARE_GROUP_OFFSETS,
    },
    Message {
        api_key: apis::SHARE_FETCH,
        newest: 2,
        fields: SHARE_FETCH,
    },
    Message {
        api_key: apis::SHARE_ACKNOWLEDGE,
        newest: 2,
        fields: SHARE_ACKNOWLEDGE,
    },
];

// ---- structures of several messages ----

/// A broker with a rack, as in Metadata and in the hints of Produce, Fetch and the share APIs.
const NODE_ENDPOINT: &[Field] = &[
    int32(0).role(Role::NodeId),
    text(0).role(Role::Host),
    int32(0).role(Role::Port),
    text(0),
];

const LEADER_ID_AND_EPOCH: &[Field] = &[int32(0), int32(0)];

const INT32: Kind = Kind::Fixed(4);

// ---- responses that carry broker addresses ----

const PRODUCE: &[Field] = &[
    array(0, &Kind::Struct(PRODUCE_TOPIC)),
    int32(1), // throttle time
    array(10, &Kind::Struct(NODE_ENDPOINT))
        .tag(0)
        .role(Role::NodeHints),
];

const PRODUCE_TOPIC: &[Field] = &[
    text(0).until(12),
    uuid(13),
    array(0, &Kind::Struct(PRODUCE_PARTITION)),
];

const PRODUCE_PARTITION: &[Field] = &[
    int32(0),
    int16(0),                                      // error
    int64(0),                                      // base offset
    int64(2),                                      // log append time
    int64(5),                                      // log start offset
    array(8, &Kind::Struct(&[int32(8), text(8)])), // record errors
    text(8),
    nested(10, LEADER_ID_AND_EPOCH).tag(0),
];

const FETCH: &[Field] = &[
    int32(1), // throttle time
    int16(7), // error
    int32(7), // session
    array(0, &Kind::Struct(FETCH_TOPIC)),
    array(16, &Kind::Struct(NODE_ENDPOINT))
        .tag(0)
        .role(Role::NodeHints),
];

const FETCH_TOPIC: &[Field] = &[
    text(0).until(12),
    uuid(13),
    array(0, &Kind::Struct(FETCH_PARTITION)),
];

const FETCH_PARTITION: &[Field] = &[
    int32(0),
    int16(0),                                   // error
    int64(0),                                   // high watermark
    int64(4),                                   // last stable offset
    int64(5),                                   // log start offset
    nested(12, &[int32(12), int64(12)]).tag(0), // diverging epoch
    nested(12, LEADER_ID_AND_EPOCH).tag(1),
    nested(12, &[int64(0), int32(0)]).tag(2),       // snapshot id
    array(4, &Kind::Struct(&[int64(4), int64(4)])), // aborted transactions
    int32(11),                                      // preferred read replica
    blob(0),                                        // records
];

const METADATA: &[Field] = &[
    int32(3), // throttle time
    array(0, &Kind::Struct(METADATA_BROKER)),
    text(2),  // cluster id
    int32(1), // controller
    array(0, &Kind::Struct(METADATA_TOPIC)),
    int32(8).until(10), // authorized operations
    int16(13),          // error
];

const METADATA_BROKER: &[Field] = &[
    int32(0).role(Role::NodeId),
    text(0).role(Role::Host),
    int32(0).role(Role::Port),
    text(1),
];

const METADATA_TOPIC: &[Field] = &[
    int16(0), // error
    text(0),
    uuid(10),
    byte(1), // internal
    array(0, &Kind::Struct(METADATA_PARTITION)),
    int32(8), // authorized operations
];

const METADATA_PARTITION: &[Field] = &[
    int16(0), // error
    int32(0),
    int32(0),         // leader
    int32(7),         // leader epoch
    array(0, &INT32), // replicas
    array(0, &INT32), // in-sync replicas
    array(5, &INT32), // offline replicas
];

const FIND_COORDINATOR: &[Field] = &[
    int32(1),          // throttle time
    int16(0).until(3), // error
    text(1).until(3),
    int32(0).until(3).role(Role::NodeId),
    text(0).until(3).role(Role::Host),
    int32(0).until(3).role(Role::Port),
    array(4, &Kind::Struct(COORDINATOR)),
];

const COORDINATOR: &[Field] = &[
    text(4), // key
    int32(4).role(Role::NodeId),
    text(4).role(Role::Host),
    int32(4).role(Role::Port),
    int16(4), // error
    text(4),
];

const DESCRIBE_CLUSTER: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    byte(1).role(Role::EndpointType),
    text(0),  // cluster id
    int32(0), // controller
    array(0, &Kind::Struct(DESCRIBE_CLUSTER_BROKER)),
    int32(0), // authorized operations
];

const DESCRIBE_CLUSTER_BROKER: &[Field] = &[
    int32(0).role(Role::NodeId),
    text(0).role(Role::Host),
    int32(0).role(Role::Port),
    text(0), // rack
    byte(2), // fenced
];

const SHARE_FETCH: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    int32(1), // acquisition lock timeout
    array(
        0,
        &Kind::Struct(&[uuid(0), array(0, &Kind::Struct(SHARE_FETCH_PARTITION))]),
    ),
    array(0, &Kind::Struct(NODE_ENDPOINT)).role(Role::NodeHints),
];

const SHARE_FETCH_PARTITION: &[Field] = &[
    int32(0),
    int16(0), // error
    text(0),
    int16(0), // error of the acknowledgement
    text(0),
    nested(0, LEADER_ID_AND_EPOCH),
    blob(0),                                                  // records
    array(0, &Kind::Struct(&[int64(0), int64(0), int16(0)])), // acquired records
];

const SHARE_ACKNOWLEDGE: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    int32(2), // acquisition lock timeout
    array(
        0,
        &Kind::Struct(&[uuid(0), array(0, &Kind::Struct(SHARE_ACKNOWLEDGE_PARTITION))]),
    ),
    array(0, &Kind::Struct(NODE_ENDPOINT)).role(Role::NodeHints),
];

const SHARE_ACKNOWLEDGE_PARTITION: &[Field] = &[
    int32(0),
    int16(0), // error
    text(0),
    nested(0, LEADER_ID_AND_EPOCH),
];

// ---- responses that the cluster client decodes ----

const API_VERSIONS: &[Field] = &[
    int16(0), // error
    array(0, &Kind::Struct(&[int16(0), int16(0), int16(0)])),
    int32(1),                                                       // throttle time
    array(3, &Kind::Struct(&[text(3), int16(3), int16(3)])).tag(0), // supported features
    int64(3).tag(1),                                                // epoch of the finalized features
    array(3, &Kind::Struct(&[text(3), int16(3), int16(3)])).tag(2), // finalized features
    byte(3).tag(3),                                                 // ready for migration
];

const LIST_OFFSETS: &[Field] = &[
    int32(2),
    array(
        0,
        &Kind::Struct(&[text(0), array(0, &Kind::Struct(LIST_OFFSETS_PARTITION))]),
    ),
];

const LIST_OFFSETS_PARTITION: &[Field] = &[
    int32(0),
    int16(0),                           // error
    array(0, &Kind::Fixed(8)).until(0), // old style offsets
    int64(1),                           // timestamp
    int64(1),                           // offset
    int32(4),                           // leader epoch
];

const SASL_HANDSHAKE: &[Field] = &[int16(0), array(0, &Kind::Text)];

const SASL_AUTHENTICATE: &[Field] = &[int16(0), text(0), blob(0), int64(1)];

const CREATE_TOPICS: &[Field] = &[int32(2), array(0, &Kind::Struct(CREATED_TOPIC))];

const CREATED_TOPIC: &[Field] = &[
    text(0),
    uuid(7),
    int16(0), // error
    text(1),
    int16(5).tag(0), // error of the configuration
    int32(5),        // partitions
    int16(5),        // replication factor
    array(5, &Kind::Struct(&[text(5), text(5), byte(5), byte(5), byte(5)])),
];

const DELETE_TOPICS: &[Field] = &[
    int32(1),
    array(0, &Kind::Struct(&[text(0), uuid(6), int16(0), text(5)])),
];

const DELETE_RECORDS: &[Field] = &[
    int32(0),
    array(
        0,
        &Kind::Struct(&[text(0), array(0, &Kind::Struct(&[int32(0), int64(0), int16(0)]))]),
    ),
];

const INIT_PRODUCER_ID: &[Field] = &[
    int32(0),
    int16(0), // error
    int64(0), // producer id
    int16(0), // producer epoch
    int64(6), // producer id of the ongoing transaction
    int16(6),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    int32(2),
    array(
        0,
        &Kind::Struct(&[
            text(0),
            array(0, &Kind::Struct(&[int16(0), int32(0), int32(1), int64(0)])),
        ]),
    ),
];

const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    int32(0),
    int16(4), // error
    array(4, &Kind::Struct(&[text(4), array(4, &TXN_TOPIC)])),
    array(0, &TXN_TOPIC).until(3),
];

const TXN_TOPIC: Kind = Kind::Struct(&[text(0), array(0, &Kind::Struct(&[int32(0), int16(0)]))]);

const END_TXN: &[Field] = &[int32(0), int16(0), int64(5), int16(5)];

const DESCRIBE_CONFIGS: &[Field] = &[
    int32(0),
    array(
        0,
        &Kind::Struct(&[
            int16(0),
            text(0),
            byte(0),
            text(0),
            array(0, &Kind::Struct(DESCRIBED_CONFIG)),
        ]),
    ),
];

const DESCRIBED_CONFIG: &[Field] = &[
    text(0),
    text(0),
    byte(0),                                               // read only
    byte(0),                                               // version 0: is default; from version 1: source
    byte(0),                                               // sensitive
    array(1, &Kind::Struct(&[text(1), text(1), byte(1)])), // synonyms
    byte(3),                                               // type
    text(3),                                               // documentation
];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    int32(0),
    array(0, &Kind::Struct(&[int16(0), text(0), byte(0), text(0)])),
];

const LIST_GROUPS: &[Field] = &[
    int32(1), // throttle time
    int16(0), // error
    array(
        0,
        &Kind::Struct(&[
            text(0), // group
            text(0), // protocol type
            text(4), // state
            text(5), // type
        ]),
    ),
];

const OFFSET_FETCH: &[Field] = &[
    int32(3), // throttle time
    array(
        0,
        &Kind::Struct(&[text(0), array(0, &Kind::Struct(COMMITTED_OFFSET))]),
    )
    .until(7),
    int16(2).until(7), // error
    array(8, &Kind::Struct(OFFSET_FETCH_GROUP)),
];

const OFFSET_FETCH_GROUP: &[Field] = &[
    text(8),
    array(
        8,
        &Kind::Struct(&[
            text(8).until(9),
            uuid(10),
            array(8, &Kind::Struct(COMMITTED_OFFSET)),
        ]),
    ),
    int16(8), // error
];

const COMMITTED_OFFSET: &[Field] = &[
    int32(0),
    int64(0), // offset
    int32(5), // leader epoch
    text(0),  // metadata
    int16(0), // error
];

const DESCRIBE_SHARE_GROUP_OFFSETS: &[Field] = &[
    int32(0), // throttle time
    array(
        0,
        &Kind::Struct(&[
            text(0),
            array(
                0,
                &Kind::Struct(&[text(0), uuid(0), array(0, &Kind::Struct(SHARE_OFFSET))]),
            ),
            int16(0), // error
            text(0),
        ]),
    ),
];

const SHARE_OFFSET: &[Field] = &[
    int32(0),
    int64(0), // start offset
    int32(0), // leader epoch
    int16(0), // error
    text(0),
];

const DESCRIBE_ACLS: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    array(
        0,
        &Kind::Struct(&[
            byte(0), // resource type
            text(0),
            byte(1), // pattern type
            array(0, &Kind::Struct(&[text(0), text(0), byte(0), byte(0)])),
        ]),
    ),
];

const DESCRIBE_CLIENT_QUOTAS: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    array(
        0,
        &Kind::Struct(&[
            array(0, &Kind::Struct(&[text(0), text(0)])),  // entity
            array(0, &Kind::Struct(&[text(0), int64(0)])), // values
        ]),
    ),
];

const DESCRIBE_USER_SCRAM_CREDENTIALS: &[Field] = &[
    int32(0), // throttle time
    int16(0), // error
    text(0),
    array(
        0,
        &Kind::Struct(&[
            text(0), // user
            int16(0),
            text(0),
            array(0, &Kind::Struct(&[byte(0), int32(0)])), // mechanism, iterations
        ]),
    ),
];
