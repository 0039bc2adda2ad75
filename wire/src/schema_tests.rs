#![allow(clippy::indexing_slicing)]

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage, StrBytes};
use proptest::prelude::*;

use super::*;
use crate::specimens::{encode, response_body};

/// Checks a message in every version of its type that we have a layout for.
fn every_version<M>(api_key: i16, is_response: bool, fill: impl Fn(&mut M, i16))
where
    M: Encodable + Decodable + TheirMessage + Default + PartialEq + std::fmt::Debug,
{
    for version in M::VERSIONS.min..=M::VERSIONS.max {
        for filled in [false, true] {
            let mut message = M::default();
            if filled {
                fill(&mut message, version);
            }
            let body = encode(&message, version);
            let checked = precheck(api_key, version, is_response, &body);
            assert_eq!(checked, Ok(()), "key {api_key} version {version} filled {filled}");
            for length in 0..body.len() {
                let cut = precheck(api_key, version, is_response, &body[..length]);
                assert!(cut.is_err(), "key {api_key} version {version} cut at {length}");
            }
        }
        let newest = M::VERSIONS.max;
        assert!(
            Layout::find(table(is_response), api_key, newest).is_ok(),
            "key {api_key} version {newest}"
        );
    }
}

fn table(is_response: bool) -> &'static [Message] {
    if is_response {
        responses::RESPONSES
    } else {
        requests::REQUESTS
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn topic(value: &str) -> TopicName {
    TopicName(text(value))
}

#[test]
fn list_offsets_responses_pass() {
    use list_offsets_response::*;
    every_version(
        apis::LIST_OFFSETS,
        true,
        |message: &mut ListOffsetsResponse, version| {
            let mut partition = ListOffsetsPartitionResponse::default();
            (partition.partition_index, partition.offset) = (3, 44);
            if version >= 4 {
                partition.leader_epoch = 7;
            }
            let partitions = vec![partition.clone(), partition];
            message.topics = vec![
                ListOffsetsTopicResponse::default()
                    .with_name(topic("orders"))
                    .with_partitions(partitions),
            ];
        },
    );
}

#[test]
fn create_and_delete_topics_responses_pass() {
    use create_topics_response::*;
    use delete_topics_response::*;
    every_version(
        apis::CREATE_TOPICS,
        true,
        |message: &mut CreateTopicsResponse, version| {
            let mut result = CreatableTopicResult::default();
            (result.name, result.error_message) = (topic("orders"), Some(text("no")));
            if version >= 5 {
                result.topic_config_error_code = 29;
                let config = CreatableTopicConfigs::default()
                    .with_name(text("a"))
                    .with_value(Some(text("b")));
                result.configs = Some(vec![config]);
            }
            message.topics = vec![result];
        },
    );
    every_version(
        apis::DELETE_TOPICS,
        true,
        |message: &mut DeleteTopicsResponse, _| {
            message.responses = vec![DeletableTopicResult::default().with_name(Some(topic("orders")))];
        },
    );
}

#[test]
fn delete_records_and_leader_epoch_responses_pass() {
    use delete_records_response::*;
    use offset_for_leader_epoch_response::*;
    every_version(
        apis::DELETE_RECORDS,
        true,
        |message: &mut DeleteRecordsResponse, _| {
            let partitions = vec![DeleteRecordsPartitionResult::default(); 3];
            message.topics = vec![
                DeleteRecordsTopicResult::default()
                    .with_name(topic("orders"))
                    .with_partitions(partitions),
            ];
        },
    );
    every_version(
        apis::OFFSET_FOR_LEADER_EPOCH,
        true,
        |message: &mut OffsetForLeaderEpochResponse, _| {
            let partitions = vec![EpochEndOffset::default(); 3];
            message.topics = vec![
                OffsetForLeaderTopicResult::default()
                    .with_topic(topic("t"))
                    .with_partitions(partitions),
            ];
        },
    );
}

#[test]
fn configuration_responses_pass() {
    use describe_configs_response::*;
    use incremental_alter_configs_response::*;
    every_version(
        apis::DESCRIBE_CONFIGS,
        true,
        |message: &mut DescribeConfigsResponse, version| {
            let mut config = DescribeConfigsResourceResult::default();
            (config.name, config.value) = (text("cleanup.policy"), Some(text("compact")));
            if version >= 1 {
                let synonym = DescribeConfigsSynonym::default().with_name(text("log.cleanup.policy"));
                config.synonyms = vec![synonym.with_value(None)];
            }
            if version >= 3 {
                config.documentation = Some(text("what it does"));
            }
            let result = DescribeConfigsResult::default().with_resource_name(text("orders"));
            message.results = vec![result.with_configs(vec![config])];
        },
    );
    every_version(
        apis::INCREMENTAL_ALTER_CONFIGS,
        true,
        |message: &mut IncrementalAlterConfigsResponse, _| {
            let response = AlterConfigsResourceResponse::default().with_resource_name(text("orders"));
            message.responses = vec![response.with_error_message(Some(text("no")))];
        },
    );
}

#[test]
fn transaction_responses_pass() {
    use add_partitions_to_txn_response::*;
    every_version(
        apis::ADD_PARTITIONS_TO_TXN,
        true,
        |message: &mut AddPartitionsToTxnResponse, version| {
            let partitions = vec![AddPartitionsToTxnPartitionResult::default(); 2];
            let results = AddPartitionsToTxnTopicResult::default().with_name(topic("orders"));
            let results = vec![results.with_results_by_partition(partitions)];
            if version <= 3 {
                message.results_by_topic_v3_and_below = results;
            } else {
                let result = AddPartitionsToTxnResult::default().with_topic_results(results);
                message.results_by_transaction = vec![result];
            }
        },
    );
    every_version(
        apis::INIT_PRODUCER_ID,
        true,
        |message: &mut InitProducerIdResponse, _| {
            message.producer_id = ProducerId(9);
        },
    );
    every_version(
        apis::INIT_PRODUCER_ID,
        false,
        |message: &mut InitProducerIdRequest, _| {
            message.transactional_id = Some(TransactionalId(text("orders-1")));
        },
    );
    every_version(apis::END_TXN, true, |_: &mut EndTxnResponse, _| {});
    every_version(apis::END_TXN, false, |_: &mut EndTxnRequest, _| {});
}

#[test]
fn group_responses_pass() {
    use describe_share_group_offsets_response::*;
    use list_groups_response::*;
    use offset_fetch_response::*;
    every_version(
        apis::DESCRIBE_SHARE_GROUP_OFFSETS,
        true,
        |message: &mut DescribeShareGroupOffsetsResponse, _| {
            let partition = DescribeShareGroupOffsetsResponsePartition::default()
                .with_partition_index(3)
                .with_start_offset(44);
            let found = DescribeShareGroupOffsetsResponseTopic::default()
                .with_topic_name(topic("orders"))
                .with_partitions(vec![partition.clone(), partition]);
            let group =
                DescribeShareGroupOffsetsResponseGroup::default().with_group_id(GroupId(text("billing")));
            message.groups = vec![group.with_topics(vec![found])];
        },
    );
    every_version(
        apis::LIST_GROUPS,
        true,
        |message: &mut ListGroupsResponse, version| {
            let mut group = ListedGroup::default()
                .with_group_id(GroupId(text("billing")))
                .with_protocol_type(text("consumer"));
            if version >= 4 {
                group.group_state = text("Stable");
            }
            if version >= 5 {
                group.group_type = text("classic");
            }
            message.groups = vec![group.clone(), group];
        },
    );
    every_version(
        apis::OFFSET_FETCH,
        true,
        |message: &mut OffsetFetchResponse, version| {
            if version <= 7 {
                let mut partition = OffsetFetchResponsePartition::default()
                    .with_partition_index(3)
                    .with_committed_offset(44)
                    .with_metadata(Some(text("m")));
                if version >= 5 {
                    partition.committed_leader_epoch = 7;
                }
                let topic = OffsetFetchResponseTopic::default().with_name(topic("orders"));
                message.topics = vec![topic.with_partitions(vec![partition])];
                return;
            }
            let partition = OffsetFetchResponsePartitions::default()
                .with_partition_index(3)
                .with_committed_offset(44)
                .with_metadata(Some(text("m")));
            let mut found = OffsetFetchResponseTopics::default().with_partitions(vec![partition]);
            if version <= 9 {
                found.name = topic("orders");
            }
            let group = OffsetFetchResponseGroup::default().with_group_id(GroupId(text("billing")));
            message.groups = vec![group.with_topics(vec![found])];
        },
    );
}

#[test]
fn acl_quota_and_scram_responses_pass() {
    use describe_acls_response::*;
    use describe_client_quotas_response::*;
    use describe_user_scram_credentials_response::*;
    every_version(
        apis::DESCRIBE_ACLS,
        true,
        |message: &mut DescribeAclsResponse, _| {
            let acl = AclDescription::default()
                .with_principal(text("User:a"))
                .with_host(text("*"));
            let resource = DescribeAclsResource::default().with_resource_name(text("orders"));
            message.resources = vec![resource.with_acls(vec![acl.clone(), acl])];
        },
    );
    every_version(
        apis::DESCRIBE_CLIENT_QUOTAS,
        true,
        |message: &mut DescribeClientQuotasResponse, _| {
            let entity = EntityData::default()
                .with_entity_type(text("user"))
                .with_entity_name(None);
            let value = ValueData::default()
                .with_key(text("producer_byte_rate"))
                .with_value(1e6);
            let entry = EntryData::default().with_entity(vec![entity]);
            message.entries = Some(vec![entry.with_values(vec![value])]);
        },
    );
    every_version(
        apis::DESCRIBE_USER_SCRAM_CREDENTIALS,
        true,
        |message: &mut DescribeUserScramCredentialsResponse, _| {
            let info = CredentialInfo::default().with_mechanism(1).with_iterations(4096);
            let user = DescribeUserScramCredentialsResult::default().with_user(text("a"));
            message.results = vec![user.with_credential_infos(vec![info])];
        },
    );
}

#[test]
fn connection_messages_pass() {
    every_version(
        apis::SASL_HANDSHAKE,
        true,
        |message: &mut SaslHandshakeResponse, _| {
            message.mechanisms = vec![text("PLAIN"), text("SCRAM-SHA-512")];
        },
    );
    every_version(
        apis::SASL_HANDSHAKE,
        false,
        |message: &mut SaslHandshakeRequest, _| {
            message.mechanism = text("PLAIN");
        },
    );
    every_version(
        apis::SASL_AUTHENTICATE,
        true,
        |message: &mut SaslAuthenticateResponse, _| {
            message.auth_bytes = Bytes::from_static(b"challenge");
        },
    );
    every_version(
        apis::API_VERSIONS,
        false,
        |message: &mut ApiVersionsRequest, version| {
            if version >= 3 {
                message.client_software_name = text("teeline");
            }
        },
    );
    every_version(apis::METADATA, false, |message: &mut MetadataRequest, _| {
        let wanted = metadata_request::MetadataRequestTopic::default().with_name(Some(topic("orders")));
        message.topics = Some(vec![wanted]);
    });
}

proptest! {
    #[test]
    fn made_up_responses_of_every_version_pass(seed: u64) {
        let versions = [
            (apis::PRODUCE, 3..=13),
            (apis::FETCH, 4..=18),
            (apis::METADATA, 0..=13),
            (apis::FIND_COORDINATOR, 0..=6),
            (apis::DESCRIBE_CLUSTER, 0..=2),
            (apis::SHARE_FETCH, 1..=1),
            (apis::SHARE_ACKNOWLEDGE, 1..=1),
            (apis::API_VERSIONS, 0..=4),
        ];
        for (api_key, versions) in versions {
            for version in versions {
                let body = response_body(seed, api_key, version);
                prop_assert_eq!(precheck(api_key, version, true, &body), Ok(()));
            }
        }
    }

    /// What the check lets through must be safe to decode. It may still be no valid message.
    #[test]
    fn no_corruption_that_passes_makes_the_decoder_panic(
        seed: u64,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for version in 0_i16..=13 {
            let mut body = response_body(seed, apis::METADATA, version).to_vec();
            for (index, value) in &flips {
                let at = index.index(body.len());
                body[at] = *value;
            }
            if precheck(apis::METADATA, version, true, &body).is_ok() {
                let _ = MetadataResponse::decode(&mut Bytes::from(body), version);
            }
        }
    }
}

#[test]
fn the_frame_that_aborts_the_decoder_is_stopped() {
    // Metadata version 12: throttle time, then an array of four billion brokers.
    let body = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0];
    let refused = precheck(apis::METADATA, 12, true, &body).expect_err("hostile");
    assert!(matches!(refused, WireError::TooManyElements { .. }));
}

#[test]
fn a_message_without_a_layout_is_refused() {
    for (api_key, version, is_response) in [
        (999, 0, true),
        (apis::METADATA, 14, true),
        (apis::PRODUCE, 9, false),
    ] {
        let refused = precheck(api_key, version, is_response, &[0; 32]).expect_err("no layout");
        assert_eq!(refused.kind(), crate::ErrorKind::NotUnderstood);
    }
}

#[test]
fn a_tagged_field_whose_content_does_not_fill_it_is_refused() {
    // ApiVersions version 3: error, no keys, throttle time, one tagged field: tag 1, said to be nine
    // bytes long, but it is an int64.
    let body = [0, 0, 1, 0, 0, 0, 0, 1, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let refused = precheck(apis::API_VERSIONS, 3, true, &body).expect_err("inconsistent");
    assert_eq!(refused, WireError::BadTaggedField { at: 10, size: 9 });
}
