//! Preparing a cluster: producer ids, topics, configurations.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreateTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::cluster::Lane;
use super::{ClientError, Cluster, Connection, ErrorCode};
use crate::apis;

/// An idempotent producer's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerIdentity {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Number of partitions; -1 for the cluster's default.
    pub partitions: i32,
    /// Replicas of each; -1 for the cluster's default.
    pub replication_factor: i16,
    /// Settings other than the cluster's defaults.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Name.
    pub name: String,
    /// Id; nil if the broker does not tell.
    pub id: Uuid,
}

/// Whose configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic's.
    Topic(Arc<str>),
    /// A broker's.
    Broker(i32),
}

impl ConfigResource {
    fn kind(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) => 4,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(name) => name.to_string(),
            Self::Broker(node_id) => node_id.to_string(),
        }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(node_id) => write!(f, "broker {node_id}"),
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Name.
    pub name: String,
    /// Value; `None` if null or not shown.
    pub value: Option<String>,
    /// Whether it is set on the resource itself, not inherited from a default.
    pub is_own: bool,
    /// Whether the broker hides its value.
    pub is_sensitive: bool,
    /// Whether it cannot be altered.
    pub is_read_only: bool,
}

/// What to do to one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Set it to this value.
    Set(String),
    /// Remove it, so that the default applies again.
    Delete,
}

impl Cluster {
    /// A fresh producer id for idempotent producing.
    pub async fn init_producer_id(&self) -> Result<ProducerIdentity, ClientError> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let request = &request;
        let timeout = self.config().endpoint.request_timeout;
        self.on_any(|connection| async move {
            let response = connection.call(0..=5, request, timeout).await?;
            ErrorCode(response.error_code).check(|| "get a producer id".to_owned(), None)?;
            Ok(ProducerIdentity {
                id: response.producer_id.0,
                epoch: response.producer_epoch,
            })
        })
        .await
    }

    /// Creates topics, or with `validate_only` only asks whether that would work. One answer per topic, in
    /// their order. After a lost connection the call is repeated, so that a topic created by the first attempt
    /// answers [`ErrorCode::TOPIC_ALREADY_EXISTS`].
    pub async fn create_topics(
        &self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<Result<CreatedTopic, ClientError>>, ClientError> {
        let patience = self.config().endpoint.request_timeout;
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(creatable).collect())
            .with_timeout_ms(i32::try_from(patience.as_millis()).unwrap_or(i32::MAX))
            .with_validate_only(validate_only);
        let request = &request;
        let response = self
            .on_controller(|connection| async move {
                // The broker uses up the whole time it is given, so we wait a little longer.
                let response = connection
                    .call(2..=7, request, patience + Duration::from_secs(5))
                    .await?;
                let not_controller = response
                    .topics
                    .iter()
                    .any(|topic| topic.error_code == ErrorCode::NOT_CONTROLLER.0);
                match not_controller {
                    true => ErrorCode::NOT_CONTROLLER
                        .check(|| "create topics".to_owned(), None)
                        .map(|()| response),
                    false => Ok(response),
                }
            })
            .await?;
        let mut found: HashMap<String, _> = response
            .topics
            .into_iter()
            .map(|topic| (topic.name.to_string(), topic))
            .collect();
        let answer = |topic: &NewTopic| {
            let answer = found
                .remove(&topic.name)
                .ok_or_else(|| self.unanswered(apis::CREATE_TOPICS))?;
            let subject = || format!("create topic {}", topic.name);
            ErrorCode(answer.error_code).check(subject, answer.error_message.as_deref())?;
            Ok(CreatedTopic {
                name: topic.name.clone(),
                id: answer.topic_id,
            })
        };
        Ok(topics.iter().map(answer).collect())
    }

    /// The configuration of several resources, in their order.
    pub async fn describe_configs(
        &self,
        resources: &[ConfigResource],
    ) -> Vec<Result<Vec<ConfigEntry>, ClientError>> {
        let (brokers, topics): (Vec<_>, Vec<_>) = resources
            .iter()
            .partition(|resource| matches!(resource, ConfigResource::Broker(_)));
        let mut found = HashMap::new();
        // Only a broker itself knows its configuration; topics' are known to all.
        let groups = brokers.into_iter().map(|broker| vec![broker]).chain([topics]);
        for group in groups.filter(|group| !group.is_empty()) {
            match self.describe_group(&group).await {
                Ok(answers) => found.extend(answers),
                Err(error) => {
                    found.extend(
                        group
                            .into_iter()
                            .map(|resource| (resource.clone(), Err(error.clone()))),
                    );
                }
            }
        }
        let answer = |resource: &ConfigResource| {
            found
                .get(resource)
                .cloned()
                .unwrap_or_else(|| Err(self.unanswered(apis::DESCRIBE_CONFIGS)))
        };
        resources.iter().map(answer).collect()
    }

    /// Changes some settings of a resource and leaves the others alone.
    pub async fn alter_configs(
        &self,
        resource: &ConfigResource,
        changes: &[(String, ConfigOperation)],
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|(name, operation)| {
            let (code, value) = match operation {
                ConfigOperation::Set(value) => (0, Some(StrBytes::from_string(value.clone()))),
                ConfigOperation::Delete => (1, None),
            };
            AlterableConfig::default()
                .with_name(StrBytes::from_string(name.clone()))
                .with_config_operation(code)
                .with_value(value)
        });
        let asked = AlterConfigsResource::default()
            .with_resource_type(resource.kind())
            .with_resource_name(StrBytes::from_string(resource.name()))
            .with_configs(configs.collect());
        let request = &IncrementalAlterConfigsRequest::default().with_resources(vec![asked]);
        let timeout = self.config().endpoint.request_timeout;
        self.on_resource(resource, |connection| async move {
            let response = connection.call(0..=1, request, timeout).await?;
            let answer = response
                .responses
                .into_iter()
                .next()
                .ok_or_else(|| unusable(&connection, apis::INCREMENTAL_ALTER_CONFIGS))?;
            let subject = || format!("alter the configuration of {resource}");
            ErrorCode(answer.error_code).check(subject, answer.error_message.as_deref())
        })
        .await
    }

    async fn describe_group(
        &self,
        group: &[&ConfigResource],
    ) -> Result<Vec<(ConfigResource, Result<Vec<ConfigEntry>, ClientError>)>, ClientError> {
        let asked = group.iter().map(|resource| {
            DescribeConfigsResource::default()
                .with_resource_type(resource.kind())
                .with_resource_name(StrBytes::from_string(resource.name()))
                .with_configuration_keys(None)
        });
        let request = &DescribeConfigsRequest::default().with_resources(asked.collect());
        let timeout = self.config().endpoint.request_timeout;
        let Some(&first) = group.first() else {
            return Ok(Vec::new());
        };
        let response = self
            .on_resource(first, |connection| async move {
                connection.call(1..=4, request, timeout).await
            })
            .await?;
        let mut answers = Vec::with_capacity(group.len());
        for result in response.results {
            let known = group.iter().find(|resource| {
                resource.kind() == result.resource_type && *resource.name() == *result.resource_name
            });
            let Some(&resource) = known else { continue };
            let subject = || format!("describe the configuration of {resource}");
            let checked = ErrorCode(result.error_code).check(subject, result.error_message.as_deref());
            let kind = resource.kind();
            let entries = |()| {
                result
                    .configs
                    .into_iter()
                    .map(|entry| convert(entry, kind))
                    .collect()
            };
            answers.push((resource.clone(), checked.map(entries)));
        }
        Ok(answers)
    }

    /// Asks whoever is in charge of a resource's configuration.
    async fn on_resource<T, F, Fut>(&self, resource: &ConfigResource, ask: F) -> Result<T, ClientError>
    where
        F: Fn(Connection) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        match resource {
            ConfigResource::Topic(_) => self.on_any(ask).await,
            ConfigResource::Broker(node_id) => ask(self.connection(*node_id, Lane::Control).await?).await,
        }
    }

    fn unanswered(&self, api_key: i16) -> ClientError {
        ClientError::Unusable {
            address: self.cluster_id().unwrap_or_default(),
            what: apis::name(api_key),
            reason: "something that was asked about is not in it".to_owned(),
        }
    }
}

fn unusable(connection: &Connection, api_key: i16) -> ClientError {
    ClientError::Unusable {
        address: connection.address().to_string(),
        what: apis::name(api_key),
        reason: "something that was asked about is not in it".to_owned(),
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let configs = topic.configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_value(Some(StrBytes::from_string(value.clone())))
    });
    CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.clone())))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication_factor)
        .with_configs(configs.collect())
}

fn convert(entry: DescribeConfigsResourceResult, resource_kind: i8) -> ConfigEntry {
    // Sources: 1 a topic's own, 2 a broker's own dynamic, 4 a broker's own static setting.
    let is_own = match resource_kind {
        2 => entry.config_source == 1,
        _ => matches!(entry.config_source, 2 | 4),
    };
    ConfigEntry {
        name: entry.name.to_string(),
        value: entry.value.map(|value| value.to_string()),
        is_own,
        is_sensitive: entry.is_sensitive,
        is_read_only: entry.read_only,
    }
}
