//! What the null broker says to each request that it knows.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, CreateTopicsRequest, CreateTopicsResponse, FetchRequest,
    FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, ProduceResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use teeline_wire::produce::{self, TopicRef};
use uuid::Uuid;

use super::{Broker, settings};

/// What becomes of a request.
pub(super) enum Answer {
    /// This body, at once.
    Body(Bytes),
    /// This body in another version than that of the request.
    OtherVersion(i16, Bytes),
    /// This body, when so much time has passed.
    After(Duration, Bytes),
    /// Nothing: the client expects none.
    None,
    /// It is not known here.
    Unknown,
}

/// Keys that are served, and the oldest and newest version of each. Topics go by name, so nothing by id only.
const SERVED: [(ApiKey, i16, i16); 11] = [
    (ApiKey::Produce, 3, 12),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 1, 12),
    (ApiKey::FindCoordinator, 1, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
];
const NODE_ID: BrokerId = BrokerId(1);
const UNSUPPORTED_VERSION: i16 = 35;
const LATEST: i64 = -1;

impl Broker {
    pub(super) fn answer_to(&self, api_key: i16, version: i16, mut body: Bytes) -> io::Result<Answer> {
        let served = SERVED
            .into_iter()
            .find(|(key, oldest, newest)| *key as i16 == api_key && (*oldest..=*newest).contains(&version));
        let Some((key, ..)) = served else {
            return match api_key == ApiKey::ApiVersions as i16 {
                true => Ok(Answer::OtherVersion(
                    0,
                    encoded(&versions(UNSUPPORTED_VERSION), 0)?,
                )),
                false => Ok(Answer::Unknown),
            };
        };
        let body = &mut body;
        let answer = match key {
            ApiKey::Produce => return self.produce(version, body),
            ApiKey::Fetch => return self.fetch(version, &decoded(body, version)?),
            ApiKey::ListOffsets => encoded(&self.list_offsets(decoded(body, version)?), version)?,
            ApiKey::Metadata => encoded(&self.metadata(decoded(body, version)?), version)?,
            ApiKey::FindCoordinator => encoded(&self.coordinator(&decoded(body, version)?), version)?,
            ApiKey::CreateTopics => encoded(&self.create_topics(decoded(body, version)?), version)?,
            ApiKey::InitProducerId => {
                let _: InitProducerIdRequest = decoded(body, version)?;
                let answer = InitProducerIdResponse::default()
                    .with_producer_id(ProducerId(1))
                    .with_producer_epoch(0);
                encoded(&answer, version)?
            }
            ApiKey::OffsetForLeaderEpoch => encoded(&self.epoch_ends(decoded(body, version)?), version)?,
            ApiKey::DescribeConfigs => encoded(&settings::none_of(decoded(body, version)?), version)?,
            ApiKey::IncrementalAlterConfigs => encoded(&settings::altered(decoded(body, version)?), version)?,
            _ => encoded(&versions(0), version)?,
        };
        Ok(Answer::Body(answer))
    }

    fn produce(&self, version: i16, body: &Bytes) -> io::Result<Answer> {
        let request = produce::parse_request(version, body).map_err(io::Error::other)?;
        let mut topics: Vec<TopicProduceResponse> = Vec::new();
        for entry in &request.entries {
            let base_offset = self.log.append(&entry.topic, entry.partition, &entry.records);
            let name = topic_name(entry.topic.name().unwrap_or_default());
            if topics.last().is_none_or(|topic| topic.name != name) {
                topics.push(TopicProduceResponse::default().with_name(name));
            }
            if let Some(topic) = topics.last_mut() {
                topic.partition_responses.push(
                    PartitionProduceResponse::default()
                        .with_index(entry.partition)
                        .with_base_offset(base_offset)
                        .with_log_append_time_ms(-1)
                        .with_log_start_offset(0),
                );
            }
        }
        if request.acks == 0 {
            return Ok(Answer::None);
        }
        encoded(&ProduceResponse::default().with_responses(topics), version).map(Answer::Body)
    }

    fn fetch(&self, version: i16, request: &FetchRequest) -> io::Result<Answer> {
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut is_empty = true;
        for topic in &request.topics {
            let name = TopicRef::Name(topic.topic.0.as_str().into());
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let wanted = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
                // At least one batch an answer, as a broker has it; then as far as there is room.
                let records = match is_empty || left > 0 {
                    true => self.log.read(partition.fetch_offset, wanted.min(left)),
                    false => Bytes::new(),
                };
                left = left.saturating_sub(records.len());
                is_empty &= records.is_empty();
                let end = self.log.end(&name, partition.partition);
                partitions.push(
                    PartitionData::default()
                        .with_partition_index(partition.partition)
                        .with_high_watermark(end)
                        .with_last_stable_offset(end)
                        .with_log_start_offset(0)
                        .with_preferred_read_replica(BrokerId(-1))
                        .with_records(Some(records)),
                );
            }
            topics.push(
                FetchableTopicResponse::default()
                    .with_topic(topic.topic.clone())
                    .with_partitions(partitions),
            );
        }
        let body = encoded(&FetchResponse::default().with_responses(topics), version)?;
        let pause = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        Ok(if is_empty {
            Answer::After(pause, body)
        } else {
            Answer::Body(body)
        })
    }

    fn list_offsets(&self, request: ListOffsetsRequest) -> ListOffsetsResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let name = TopicRef::Name(topic.name.0.as_str().into());
            let partitions = topic.partitions.iter().map(|partition| {
                let offset = match partition.timestamp {
                    LATEST => self.log.end(&name, partition.partition_index),
                    _ => 0,
                };
                ListOffsetsPartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_timestamp(-1)
                    .with_offset(offset)
                    .with_leader_epoch(0)
            });
            ListOffsetsTopicResponse::default()
                .with_partitions(partitions.collect())
                .with_name(topic.name)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    }

    fn metadata(&self, request: MetadataRequest) -> MetadataResponse {
        let named = match request.topics {
            Some(named) => named.into_iter().filter_map(|topic| topic.name).collect(),
            None => self.listed(),
        };
        let topics = named.into_iter().map(|name| {
            let partitions = (0..self.partitions).map(|index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(NODE_ID)
                    .with_leader_epoch(0)
                    .with_replica_nodes(vec![NODE_ID])
                    .with_isr_nodes(vec![NODE_ID])
            });
            MetadataResponseTopic::default()
                .with_partitions(partitions.collect())
                .with_topic_id(topic_id(&name))
                .with_name(Some(name))
        });
        let (host, port) = self.host_and_port();
        let broker = MetadataResponseBroker::default()
            .with_node_id(NODE_ID)
            .with_host(host)
            .with_port(port);
        MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_cluster_id(Some(StrBytes::from_static_str("null")))
            .with_controller_id(NODE_ID)
            .with_topics(topics.collect())
    }

    /// The topics of whoever asks for all.
    fn listed(&self) -> Vec<TopicName> {
        self.topics.iter().map(|name| topic_name(name)).collect()
    }

    fn coordinator(&self, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
        let (host, port) = self.host_and_port();
        let coordinators = request.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(NODE_ID)
                .with_host(host.clone())
                .with_port(port)
        });
        FindCoordinatorResponse::default()
            .with_coordinators(coordinators.collect())
            .with_node_id(NODE_ID)
            .with_host(host.clone())
            .with_port(port)
    }

    fn create_topics(&self, request: CreateTopicsRequest) -> CreateTopicsResponse {
        let topics = request.topics.into_iter().map(|topic| {
            CreatableTopicResult::default()
                .with_topic_id(topic_id(&topic.name))
                .with_num_partitions(self.partitions)
                .with_replication_factor(1)
                .with_name(topic.name)
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    }

    fn epoch_ends(&self, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
        let topics = request.topics.into_iter().map(|topic| {
            let name = TopicRef::Name(topic.topic.0.as_str().into());
            let partitions = topic.partitions.iter().map(|partition| {
                EpochEndOffset::default()
                    .with_partition(partition.partition)
                    .with_leader_epoch(0)
                    .with_end_offset(self.log.end(&name, partition.partition))
            });
            OffsetForLeaderTopicResult::default()
                .with_partitions(partitions.collect())
                .with_topic(topic.topic)
        });
        OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
    }

    fn host_and_port(&self) -> (StrBytes, i32) {
        let host = StrBytes::from_string(self.advertised.ip().to_string());
        (host, i32::from(self.advertised.port()))
    }
}

fn versions(error_code: i16) -> ApiVersionsResponse {
    let keys = SERVED.into_iter().map(|(key, oldest, newest)| {
        ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(oldest)
            .with_max_version(newest)
    });
    ApiVersionsResponse::default()
        .with_error_code(error_code)
        .with_api_keys(keys.collect())
}

/// The same for the same name, whenever it is asked for.
fn topic_id(name: &TopicName) -> Uuid {
    let mut bytes = [0x5A_u8; 16];
    for (index, byte) in name.0.as_bytes().iter().enumerate() {
        if let Some(place) = bytes.get_mut(index % 16) {
            *place = place.rotate_left(3) ^ byte;
        }
    }
    Uuid::from_bytes(bytes)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn decoded<M: Decodable>(body: &mut Bytes, version: i16) -> io::Result<M> {
    M::decode(body, version).map_err(|error| io::Error::other(error.to_string()))
}

fn encoded<M: Encodable>(message: &M, version: i16) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    message
        .encode(&mut body, version)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(body.freeze())
}
