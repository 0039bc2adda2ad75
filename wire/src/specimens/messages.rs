//! The messages, built with kafka-protocol.

use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::share_fetch_response::{AcquiredRecords, ShareFetchableTopicResponse};
use kafka_protocol::messages::*;
use kafka_protocol::messages::{
    describe_cluster_response, fetch_response, produce_response, share_acknowledge_response,
    share_fetch_response,
};
use kafka_protocol::protocol::StrBytes;

use super::Source;

pub(crate) fn produce_request(source: &mut Source) -> ProduceRequest {
    let mut request = ProduceRequest::default();
    request.transactional_id = source.nullable_text().map(TransactionalId);
    request.acks = source.below(3) as i16 - 1;
    request.timeout_ms = source.int();
    request.topic_data = source.many(5, |source| {
        let mut topic = TopicProduceData::default();
        match source.from(13) {
            true => topic.topic_id = source.uuid(),
            false => topic.name = source.topic_name(),
        }
        topic.partition_data = source.many(6, |source| {
            let mut partition = PartitionProduceData::default();
            partition.index = source.int();
            partition.records = source.chance().then(|| source.bytes());
            partition.unknown_tagged_fields = source.tags();
            partition
        });
        topic.unknown_tagged_fields = source.tags();
        topic
    });
    request.unknown_tagged_fields = source.tags();
    request
}

pub(crate) fn produce_response(source: &mut Source) -> ProduceResponse {
    let mut response = ProduceResponse::default();
    response.throttle_time_ms = source.int();
    response.responses = source.many(4, |source| {
        let mut topic = TopicProduceResponse::default();
        match source.from(13) {
            true => topic.topic_id = source.uuid(),
            false => topic.name = source.topic_name(),
        }
        topic.partition_responses = source.many(5, produce_partition);
        topic.unknown_tagged_fields = source.tags();
        topic
    });
    if source.from(10) {
        response.node_endpoints = source.many(4, |source| {
            let mut node = produce_response::NodeEndpoint::default();
            (node.node_id, node.host, node.port) = (BrokerId(source.int()), source.host(), source.port());
            node.rack = source.nullable_text();
            node.unknown_tagged_fields = source.tags();
            node
        });
    }
    response.unknown_tagged_fields = source.tags();
    response
}

fn produce_partition(source: &mut Source) -> PartitionProduceResponse {
    let mut partition = PartitionProduceResponse::default();
    partition.index = source.int();
    partition.error_code = source.short();
    partition.base_offset = source.long();
    partition.log_append_time_ms = source.long();
    if source.from(5) {
        partition.log_start_offset = source.long();
    }
    if source.from(8) {
        partition.record_errors = source.many(3, |source| {
            let mut error = BatchIndexAndErrorMessage::default();
            error.batch_index = source.int();
            error.batch_index_error_message = source.nullable_text();
            error.unknown_tagged_fields = source.tags();
            error
        });
        partition.error_message = source.nullable_text();
    }
    if source.from(10) && source.chance() {
        partition.current_leader.leader_id = BrokerId(source.int());
        partition.current_leader.leader_epoch = source.int();
        partition.current_leader.unknown_tagged_fields = source.tags();
    }
    partition.unknown_tagged_fields = source.tags();
    partition
}

pub(crate) fn fetch_response(source: &mut Source) -> FetchResponse {
    let mut response = FetchResponse::default();
    response.throttle_time_ms = source.int();
    if source.from(7) {
        (response.error_code, response.session_id) = (source.short(), source.int());
    }
    response.responses = source.many(4, |source| {
        let mut topic = FetchableTopicResponse::default();
        match source.from(13) {
            true => topic.topic_id = source.uuid(),
            false => topic.topic = source.topic_name(),
        }
        topic.partitions = source.many(5, fetch_partition);
        topic.unknown_tagged_fields = source.tags();
        topic
    });
    if source.from(16) {
        response.node_endpoints = source.many(4, |source| {
            let mut node = fetch_response::NodeEndpoint::default();
            (node.node_id, node.host, node.port) = (BrokerId(source.int()), source.host(), source.port());
            node.rack = source.nullable_text();
            node.unknown_tagged_fields = source.tags();
            node
        });
    }
    response.unknown_tagged_fields = source.tags();
    response
}

fn fetch_partition(source: &mut Source) -> fetch_response::PartitionData {
    let mut partition = fetch_response::PartitionData::default();
    partition.partition_index = source.int();
    partition.error_code = source.short();
    partition.high_watermark = source.long();
    partition.last_stable_offset = source.long();
    if source.from(5) {
        partition.log_start_offset = source.long();
    }
    if source.from(11) {
        partition.preferred_read_replica = BrokerId(source.int());
    }
    if source.from(12) && source.chance() {
        partition.diverging_epoch.epoch = source.int();
        partition.current_leader.leader_epoch = source.int();
        partition.current_leader.unknown_tagged_fields = source.tags();
        partition.snapshot_id.end_offset = source.long();
    }
    partition.aborted_transactions = source.chance().then(|| {
        source.many(3, |source| {
            let mut aborted = AbortedTransaction::default();
            (aborted.producer_id, aborted.first_offset) = (ProducerId(source.long()), source.long());
            aborted.unknown_tagged_fields = source.tags();
            aborted
        })
    });
    partition.records = source.chance().then(|| source.bytes());
    partition.unknown_tagged_fields = source.tags();
    partition
}

pub(crate) fn metadata_response(source: &mut Source) -> MetadataResponse {
    let mut response = MetadataResponse::default();
    if source.from(3) {
        response.throttle_time_ms = source.int();
    }
    response.brokers = source.many(5, |source| {
        let mut broker = MetadataResponseBroker::default();
        (broker.node_id, broker.host, broker.port) = (BrokerId(source.int()), source.host(), source.port());
        if source.from(1) {
            broker.rack = source.nullable_text();
        }
        broker.unknown_tagged_fields = source.tags();
        broker
    });
    if source.from(2) {
        response.cluster_id = source.nullable_text();
    }
    if source.from(1) {
        response.controller_id = BrokerId(source.int());
    }
    response.topics = source.many(4, metadata_topic);
    if source.from(13) {
        response.error_code = source.short();
    }
    response.unknown_tagged_fields = source.tags();
    response
}

fn metadata_topic(source: &mut Source) -> MetadataResponseTopic {
    let mut topic = MetadataResponseTopic::default();
    topic.error_code = source.short();
    topic.name = Some(source.topic_name());
    if source.from(12) && source.chance() {
        topic.name = None;
    }
    if source.from(10) {
        topic.topic_id = source.uuid();
    }
    topic.partitions = source.many(4, |source| {
        let mut partition = MetadataResponsePartition::default();
        (partition.error_code, partition.partition_index) = (source.short(), source.int());
        partition.leader_id = BrokerId(source.int());
        if source.from(7) {
            partition.leader_epoch = source.int();
        }
        partition.replica_nodes = source.many(4, |source| BrokerId(source.int()));
        partition.isr_nodes = source.many(4, |source| BrokerId(source.int()));
        if source.from(5) {
            partition.offline_replicas = source.many(4, |source| BrokerId(source.int()));
        }
        partition.unknown_tagged_fields = source.tags();
        partition
    });
    topic.unknown_tagged_fields = source.tags();
    topic
}

pub(crate) fn find_coordinator_response(source: &mut Source) -> FindCoordinatorResponse {
    let mut response = FindCoordinatorResponse::default();
    if source.from(1) {
        response.throttle_time_ms = source.int();
    }
    let missing = source.below(3) == 0;
    if source.from(4) {
        response.coordinators = source.many(4, |source| {
            let mut coordinator = Coordinator::default();
            coordinator.key = source.text();
            coordinator.node_id = BrokerId(source.int().saturating_abs());
            (coordinator.host, coordinator.port) = (source.host(), source.port());
            if source.below(3) == 0 {
                coordinator.node_id = BrokerId(-1);
                (coordinator.host, coordinator.port) = (StrBytes::default(), -1);
            }
            coordinator.error_message = source.nullable_text();
            coordinator.unknown_tagged_fields = source.tags();
            coordinator
        });
    } else if missing {
        (response.node_id, response.port, response.error_code) = (BrokerId(-1), -1, 15);
    } else {
        response.node_id = BrokerId(source.int().saturating_abs());
        (response.host, response.port) = (source.host(), source.port());
        if source.from(1) {
            response.error_message = source.nullable_text();
        }
    }
    response.unknown_tagged_fields = source.tags();
    response
}

pub(crate) fn describe_cluster_response(source: &mut Source) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default();
    response.throttle_time_ms = source.int();
    response.error_message = source.nullable_text();
    response.cluster_id = source.text();
    response.controller_id = BrokerId(source.int());
    response.brokers = source.many(5, |source| {
        let mut broker = describe_cluster_response::DescribeClusterBroker::default();
        (broker.broker_id, broker.host, broker.port) = (BrokerId(source.int()), source.host(), source.port());
        broker.rack = source.nullable_text();
        if source.from(2) {
            broker.is_fenced = source.chance();
        }
        broker.unknown_tagged_fields = source.tags();
        broker
    });
    response.unknown_tagged_fields = source.tags();
    response
}

pub(crate) fn share_fetch_response(source: &mut Source) -> ShareFetchResponse {
    let mut response = ShareFetchResponse::default();
    response.error_message = source.nullable_text();
    response.acquisition_lock_timeout_ms = source.int();
    response.responses = source.many(4, |source| {
        let mut topic = ShareFetchableTopicResponse::default();
        topic.topic_id = source.uuid();
        topic.partitions = source.many(4, |source| {
            let mut partition = share_fetch_response::PartitionData::default();
            partition.partition_index = source.int();
            partition.acknowledge_error_message = source.nullable_text();
            partition.current_leader.leader_id = source.int();
            partition.current_leader.unknown_tagged_fields = source.tags();
            partition.records = source.chance().then(|| source.bytes());
            partition.acquired_records = source.many(3, |source| {
                let mut acquired = AcquiredRecords::default();
                acquired.first_offset = source.long();
                acquired.unknown_tagged_fields = source.tags();
                acquired
            });
            partition.unknown_tagged_fields = source.tags();
            partition
        });
        topic
    });
    response.node_endpoints = source.many(4, |source| {
        let mut node = share_fetch_response::NodeEndpoint::default();
        (node.node_id, node.host, node.port) = (BrokerId(source.int()), source.host(), source.port());
        node.rack = source.nullable_text();
        node.unknown_tagged_fields = source.tags();
        node
    });
    response.unknown_tagged_fields = source.tags();
    response
}

pub(crate) fn share_acknowledge_response(source: &mut Source) -> ShareAcknowledgeResponse {
    let mut response = ShareAcknowledgeResponse::default();
    response.error_message = source.nullable_text();
    response.responses = source.many(4, |source| {
        let mut topic = share_acknowledge_response::ShareAcknowledgeTopicResponse::default();
        topic.topic_id = source.uuid();
        topic.partitions = source.many(4, |source| {
            let mut partition = share_acknowledge_response::PartitionData::default();
            partition.error_message = source.nullable_text();
            partition.current_leader.leader_epoch = source.int();
            partition.unknown_tagged_fields = source.tags();
            partition
        });
        topic
    });
    response.node_endpoints = source.many(4, |source| {
        let mut node = share_acknowledge_response::NodeEndpoint::default();
        (node.node_id, node.host, node.port) = (BrokerId(source.int()), source.host(), source.port());
        node.unknown_tagged_fields = source.tags();
        node
    });
    response.unknown_tagged_fields = source.tags();
    response
}

pub(crate) fn api_versions_response(source: &mut Source) -> ApiVersionsResponse {
    let mut response = ApiVersionsResponse::default();
    response.api_keys = (0..100)
        .map(|api_key| {
            let mut api = ApiVersion::default();
            api.api_key = api_key;
            api.min_version = source.below(3) as i16;
            api.max_version = api.min_version + source.below(30) as i16;
            api.unknown_tagged_fields = source.tags();
            api
        })
        .collect();
    if source.from(1) {
        response.throttle_time_ms = source.int();
    }
    if source.from(3) {
        response.finalized_features_epoch = source.long();
        for name in ["metadata.version", "transaction.version", "kraft.version"] {
            let mut supported = SupportedFeatureKey::default();
            (supported.name, supported.max_version) = (StrBytes::from_static_str(name), 2);
            response.supported_features.push(supported);
            let mut finalized = FinalizedFeatureKey::default();
            (finalized.name, finalized.max_version_level) = (StrBytes::from_static_str(name), 2);
            finalized.min_version_level = source.below(3) as i16;
            finalized.unknown_tagged_fields = source.tags();
            response.finalized_features.push(finalized);
        }
    }
    response.unknown_tagged_fields = source.tags();
    response
}
