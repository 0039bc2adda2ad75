//! API keys: what they are called, from which version they are flexible, and how far they are understood.
//!
//! Names and flexible versions are facts from Kafka's message definitions up to 4.4.0. A key that is
//! not in the table passes through unread.

/// Produce
pub const PRODUCE: i16 = 0;
/// Fetch
pub const FETCH: i16 = 1;
/// ListOffsets
pub const LIST_OFFSETS: i16 = 2;
/// Metadata
pub const METADATA: i16 = 3;
/// OffsetCommit
pub const OFFSET_COMMIT: i16 = 8;
/// OffsetFetch
pub const OFFSET_FETCH: i16 = 9;
/// FindCoordinator
pub const FIND_COORDINATOR: i16 = 10;
/// JoinGroup
pub const JOIN_GROUP: i16 = 11;
/// SyncGroup
pub const SYNC_GROUP: i16 = 14;
/// ListGroups
pub const LIST_GROUPS: i16 = 16;
/// SaslHandshake
pub const SASL_HANDSHAKE: i16 = 17;
/// ApiVersions
pub const API_VERSIONS: i16 = 18;
/// CreateTopics
pub const CREATE_TOPICS: i16 = 19;
/// DeleteTopics
pub const DELETE_TOPICS: i16 = 20;
/// DeleteRecords
pub const DELETE_RECORDS: i16 = 21;
/// InitProducerId
pub const INIT_PRODUCER_ID: i16 = 22;
/// OffsetForLeaderEpoch
pub const OFFSET_FOR_LEADER_EPOCH: i16 = 23;
/// AddPartitionsToTxn
pub const ADD_PARTITIONS_TO_TXN: i16 = 24;
/// AddOffsetsToTxn
pub const ADD_OFFSETS_TO_TXN: i16 = 25;
/// EndTxn
pub const END_TXN: i16 = 26;
/// WriteTxnMarkers
pub const WRITE_TXN_MARKERS: i16 = 27;
/// TxnOffsetCommit
pub const TXN_OFFSET_COMMIT: i16 = 28;
/// DescribeAcls
pub const DESCRIBE_ACLS: i16 = 29;
/// DescribeConfigs
pub const DESCRIBE_CONFIGS: i16 = 32;
/// SaslAuthenticate
pub const SASL_AUTHENTICATE: i16 = 36;
/// IncrementalAlterConfigs
pub const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// DescribeClientQuotas
pub const DESCRIBE_CLIENT_QUOTAS: i16 = 48;
/// DescribeUserScramCredentials
pub const DESCRIBE_USER_SCRAM_CREDENTIALS: i16 = 50;
/// DescribeCluster
pub const DESCRIBE_CLUSTER: i16 = 60;
/// ShareFetch
pub const SHARE_FETCH: i16 = 78;
/// ShareAcknowledge
pub const SHARE_ACKNOWLEDGE: i16 = 79;
/// DescribeShareGroupOffsets
pub const DESCRIBE_SHARE_GROUP_OFFSETS: i16 = 90;

/// The newest key in the table; newer ones pass through unread.
pub const NEWEST_KNOWN_KEY: i16 = 94;

/// What a key is called in metrics and logs: a fixed text, never anything a peer sent.
pub fn name(api_key: i16) -> &'static str {
    find(api_key).map_or("Unknown", |api| api.name)
}

/// Whether the key is in the table.
pub fn is_known(api_key: i16) -> bool {
    find(api_key).is_some()
}

/// Whether the answer may take as long as the request allows because there is nothing to tell yet.
pub const fn polls_long(api_key: i16) -> bool {
    matches!(api_key, FETCH | SHARE_FETCH)
}

/// Whether it belongs to the greeting of a connection: what is spoken there, and who speaks.
pub const fn greets(api_key: i16) -> bool {
    matches!(api_key, API_VERSIONS | SASL_HANDSHAKE | SASL_AUTHENTICATE)
}

/// Whether the answer waits for other members of a group.
pub const fn waits_for_a_group(api_key: i16) -> bool {
    matches!(api_key, JOIN_GROUP | SYNC_GROUP)
}

/// Whether a version uses the compact encodings and tagged fields. None for an unknown key.
pub fn is_flexible(api_key: i16, api_version: i16) -> Option<bool> {
    find(api_key).map(|api| api_version >= api.flexible_from)
}

/// The newest version understood of a key that must be understood, because it is captured or carries
/// addresses. None for every other key: those pass in any version.
pub const fn newest_understood(api_key: i16) -> Option<i16> {
    match api_key {
        PRODUCE => Some(13),
        FETCH => Some(18),
        METADATA => Some(13),
        FIND_COORDINATOR => Some(6),
        DESCRIBE_CLUSTER => Some(2),
        SHARE_FETCH => Some(2),
        SHARE_ACKNOWLEDGE => Some(2),
        _ => None,
    }
}

/// The keys for which [`newest_understood`] has an answer.
pub const UNDERSTOOD_KEYS: [i16; 7] = [
    PRODUCE,
    FETCH,
    METADATA,
    FIND_COORDINATOR,
    DESCRIBE_CLUSTER,
    SHARE_FETCH,
    SHARE_ACKNOWLEDGE,
];

#[derive(Debug, Clone, Copy)]
struct Api {
    name: &'static str,
    /// `NEVER` for a key without flexible versions.
    flexible_from: i16,
}

/// No version of the key is flexible.
const NEVER: i16 = i16::MAX;

fn find(api_key: i16) -> Option<&'static Api> {
    usize::try_from(api_key).ok().and_then(|index| APIS.get(index))
}

const fn api(name: &'static str, flexible_from: i16) -> Api {
    Api { name, flexible_from }
}

/// By key, dense from 0. Keys 4 to 7 left Kafka with 4.0.
#[rustfmt::skip]
const APIS: [Api; 95] = [
    /*  0 */ api("Produce", 9),
    /*  1 */ api("Fetch", 12),
    /*  2 */ api("ListOffsets", 6),
    /*  3 */ api("Metadata", 9),
    /*  4 */ api("LeaderAndIsr", 4),
    /*  5 */ api("StopReplica", 2),
    /*  6 */ api("UpdateMetadata", 6),
    /*  7 */ api("ControlledShutdown", 3),
    /*  8 */ api("OffsetCommit", 8),
    /*  9 */ api("OffsetFetch", 6),
    /* 10 */ api("FindCoordinator", 3),
    /* 11 */ api("JoinGroup", 6),
    /* 12 */ api("Heartbeat", 4),
    /* 13 */ api("LeaveGroup", 4),
    /* 14 */ api("SyncGroup", 4),
    /* 15 */ api("DescribeGroups", 5),
    /* 16 */ api("ListGroups", 3),
    /* 17 */ api("SaslHandshake", NEVER),
    /* 18 */ api("ApiVersions", 3),
    /* 19 */ api("CreateTopics", 5),
    /* 20 */ api("DeleteTopics", 4),
    /* 21 */ api("DeleteRecords", 2),
    /* 22 */ api("InitProducerId", 2),
    /* 23 */ api("OffsetForLeaderEpoch", 4),
    /* 24 */ api("AddPartitionsToTxn", 3),
    /* 25 */ api("AddOffsetsToTxn", 3),
    /* 26 */ api("EndTxn", 3),
    /* 27 */ api("WriteTxnMarkers", 1),
    /* 28 */ api("TxnOffsetCommit", 3),
    /* 29 */ api("DescribeAcls", 2),
    /* 30 */ api("CreateAcls", 2),
    /* 31 */ api("DeleteAcls", 2),
    /* 32 */ api("DescribeConfigs", 4),
    /* 33 */ api("AlterConfigs", 2),
    /* 34 */ api("AlterReplicaLogDirs", 2),
    /* 35 */ api("DescribeLogDirs", 2),
    /* 36 */ api("SaslAuthenticate", 2),
    /* 37 */ api("CreatePartitions", 2),
    /* 38 */ api("CreateDelegationToken", 2),
    /* 39 */ api("RenewDelegationToken", 2),
    /* 40 */ api("ExpireDelegationToken", 2),
    /* 41 */ api("DescribeDelegationToken", 2),
    /* 42 */ api("DeleteGroups", 2),
    /* 43 */ api("ElectLeaders", 2),
    /* 44 */ api("IncrementalAlterConfigs", 1),
    /* 45 */ api("AlterPartitionReassignments", 0),
    /* 46 */ api("ListPartitionReassignments", 0),
    /* 47 */ api("OffsetDelete", NEVER),
    /* 48 */ api("DescribeClientQuotas", 1),
    /* 49 */ api("AlterClientQuotas", 1),
    /* 50 */ api("DescribeUserScramCredentials", 0),
    /* 51 */ api("AlterUserScramCredentials", 0),
    /* 52 */ api("Vote", 0),
    /* 53 */ api("BeginQuorumEpoch", 1),
    /* 54 */ api("EndQuorumEpoch", 1),
    /* 55 */ api("DescribeQuorum", 0),
    /* 56 */ api("AlterPartition", 0),
    /* 57 */ api("UpdateFeatures", 0),
    /* 58 */ api("Envelope", 0),
    /* 59 */ api("FetchSnapshot", 0),
    /* 60 */ api("DescribeCluster", 0),
    /* 61 */ api("DescribeProducers", 0),
    /* 62 */ api("BrokerRegistration", 0),
    /* 63 */ api("BrokerHeartbeat", 0),
    /* 64 */ api("UnregisterBroker", 0),
    /* 65 */ api("DescribeTransactions", 0),
    /* 66 */ api("ListTransactions", 0),
    /* 67 */ api("AllocateProducerIds", 0),
    /* 68 */ api("ConsumerGroupHeartbeat", 0),
    /* 69 */ api("ConsumerGroupDescribe", 0),
    /* 70 */ api("ControllerRegistration", 0),
    /* 71 */ api("GetTelemetrySubscriptions", 0),
    /* 72 */ api("PushTelemetry", 0),
    /* 73 */ api("AssignReplicasToDirs", 0),
    /* 74 */ api("ListConfigResources", 0),
    /* 75 */ api("DescribeTopicPartitions", 0),
    /* 76 */ api("ShareGroupHeartbeat", 0),
    /* 77 */ api("ShareGroupDescribe", 0),
    /* 78 */ api("ShareFetch", 0),
    /* 79 */ api("ShareAcknowledge", 0),
    /* 80 */ api("AddRaftVoter", 0),
    /* 81 */ api("RemoveRaftVoter", 0),
    /* 82 */ api("UpdateRaftVoter", 0),
    /* 83 */ api("InitializeShareGroupState", 0),
    /* 84 */ api("ReadShareGroupState", 0),
    /* 85 */ api("WriteShareGroupState", 0),
    /* 86 */ api("DeleteShareGroupState", 0),
    /* 87 */ api("ReadShareGroupStateSummary", 0),
    /* 88 */ api("StreamsGroupHeartbeat", 0),
    /* 89 */ api("StreamsGroupDescribe", 0),
    /* 90 */ api("DescribeShareGroupOffsets", 0),
    /* 91 */ api("AlterShareGroupOffsets", 0),
    /* 92 */ api("DeleteShareGroupOffsets", 0),
    /* 93 */ api("StreamsGroupTopologyDescriptionUpdate", 0),
    /* 94 */ api("UnregisterController", 0),
];

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;

    #[test]
    fn flexible_versions_agree_with_kafka_protocol() {
        for api_key in 0..=NEWEST_KNOWN_KEY {
            let Ok(known) = ApiKey::try_from(api_key) else {
                continue;
            };
            let valid = known.valid_versions();
            for version in valid.min..=valid.max {
                let flexible = known.request_header_version(version) >= 2;
                assert_eq!(
                    is_flexible(api_key, version),
                    Some(flexible),
                    "key {api_key} version {version}"
                );
            }
        }
    }

    #[test]
    fn names_agree_with_kafka_protocol() {
        for api_key in 0..=NEWEST_KNOWN_KEY {
            let Ok(known) = ApiKey::try_from(api_key) else {
                continue;
            };
            assert_eq!(format!("{known:?}"), name(api_key), "key {api_key}");
        }
    }

    #[test]
    fn an_unknown_key_has_a_fixed_name_and_no_layout() {
        for api_key in [-1, NEWEST_KNOWN_KEY + 1, i16::MIN, i16::MAX] {
            assert_eq!(name(api_key), "Unknown");
            assert_eq!(is_flexible(api_key, 0), None);
            assert!(!is_known(api_key));
        }
    }

    #[test]
    fn every_key_that_must_be_understood_is_listed() {
        for api_key in 0..=NEWEST_KNOWN_KEY {
            assert_eq!(
                newest_understood(api_key).is_some(),
                UNDERSTOOD_KEYS.contains(&api_key)
            );
        }
    }
}
