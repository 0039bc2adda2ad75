//! The cluster that is restored into: what it has, what has to be prepared, and putting it right again.

pub mod prepare;
pub mod route;
pub mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use teeline_config::KafkaEndpoint;
use teeline_wire::client::{
    ClientConfig, Cluster, ConfigResource, ErrorCode, OffsetAt, OffsetQuery, TopicKey, TopicMetadata,
    TopicPartition, TopicSelection,
};

use crate::error::RestorerError;
use crate::plan::{Plan, PlanView, TargetView, TopicView};
use settings::Settings;

/// The target cluster.
#[derive(Debug, Clone)]
pub struct Target {
    cluster: Cluster,
    bootstrap: String,
}

/// What the target has of the topics of a plan, by their names there.
#[derive(Debug)]
pub struct Found {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// Brokers that are alive.
    pub brokers: usize,
    /// Topics that exist.
    pub topics: BTreeMap<String, FoundTopic>,
}

/// A topic that exists in the target.
#[derive(Debug)]
pub struct FoundTopic {
    /// Partitions.
    pub partition_count: i32,
    /// Replicas of each.
    pub replication_factor: i16,
    /// Settings of its own.
    pub settings: Settings,
    /// Records it holds, by its offsets.
    pub records: u64,
}

/// What the user allowed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Permissions {
    /// Restore into the cluster that the backup came from.
    pub source: bool,
    /// Restore into topics that hold records.
    pub nonempty: bool,
    /// Create topics that do not exist.
    pub create: bool,
}

impl Target {
    /// Connects.
    pub async fn connect(endpoint: &KafkaEndpoint) -> Result<Self, RestorerError> {
        let bootstrap: Vec<String> = endpoint
            .bootstrap_servers
            .iter()
            .map(ToString::to_string)
            .collect();
        let bootstrap = bootstrap.join(",");
        let mut config = ClientConfig::from(endpoint);
        let failed = || RestorerError::target(format!("connect to the target {bootstrap}"));
        // A wrong address should be told soon; later, brokers that are away for a moment are waited for.
        config.retry.deadline = CONNECT_DEADLINE;
        Cluster::connect(config.clone()).await.map_err(failed())?;
        config.retry.deadline = CALL_DEADLINE;
        let cluster = Cluster::connect(config).await.map_err(failed())?;
        Ok(Self { cluster, bootstrap })
    }

    /// The client.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where it is.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Looks at everything that a plan concerns, and changes nothing.
    pub async fn inspect(&self, plan: &Plan) -> Result<Found, RestorerError> {
        let names: Vec<Arc<str>> = plan
            .topics
            .iter()
            .map(|topic| Arc::from(topic.target.as_str()))
            .collect();
        let metadata = self.cluster.metadata(TopicSelection::Named(&names)).await;
        let metadata = metadata.map_err(RestorerError::target("read the target's metadata"))?;
        let mut topics = BTreeMap::new();
        for topic in &metadata.topics {
            if topic.error.is_unknown_topic() {
                continue;
            }
            if !topic.error.is_ok() && topic.error != ErrorCode::LEADER_NOT_AVAILABLE {
                let text = format!(
                    "topic {} of the target cannot be used: {}",
                    topic.name, topic.error
                );
                return Err(RestorerError::TargetState(text));
            }
            topics.insert(topic.name.to_string(), self.inspect_topic(topic).await?);
        }
        Ok(Found {
            cluster_id: metadata.cluster_id,
            brokers: metadata.brokers.len(),
            topics,
        })
    }

    /// Looks at one topic that exists.
    pub(crate) async fn inspect_named(&self, name: &str) -> Result<FoundTopic, RestorerError> {
        let metadata = self
            .cluster
            .metadata(TopicSelection::Named(&[Arc::from(name)]))
            .await;
        let metadata = metadata.map_err(RestorerError::target("read the target's metadata"))?;
        match metadata.topics.first() {
            Some(topic) if topic.error.is_ok() => self.inspect_topic(topic).await,
            _ => Err(RestorerError::TargetState(format!(
                "topic {name} of the target cannot be read"
            ))),
        }
    }

    async fn inspect_topic(&self, topic: &TopicMetadata) -> Result<FoundTopic, RestorerError> {
        let partition_count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let starts = self
            .offsets(&topic.name, partition_count, OffsetAt::Earliest)
            .await?;
        let ends = self
            .offsets(&topic.name, partition_count, OffsetAt::Latest)
            .await?;
        let held = starts
            .iter()
            .zip(&ends)
            .map(|(start, end)| end.saturating_sub(*start).max(0).unsigned_abs());
        Ok(FoundTopic {
            partition_count,
            replication_factor: topic.replication_factor(),
            settings: self.own_settings(&topic.name).await?,
            records: held.sum(),
        })
    }

    /// One offset of every partition of a topic, waiting until all have leaders.
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: i32,
        at: OffsetAt,
    ) -> Result<Vec<i64>, RestorerError> {
        let key = TopicKey::named(topic);
        let queries: Vec<OffsetQuery> = (0..partitions)
            .map(|partition| OffsetQuery {
                partition: TopicPartition::new(key.clone(), partition),
                at,
            })
            .collect();
        let answers = self.cluster.list_offsets(&queries).await;
        let action = format!("read offsets of topic {topic} in the target");
        let offsets = answers
            .into_iter()
            .map(|answer| answer.map(|listed| listed.offset));
        offsets
            .collect::<Result<_, _>>()
            .map_err(RestorerError::target(action))
    }

    /// Settings that a topic has of its own, defaults left out.
    async fn own_settings(&self, topic: &str) -> Result<Settings, RestorerError> {
        let entries = self.settings(topic).await?;
        let own = entries.into_iter().filter(|entry| entry.is_own);
        Ok(own.map(|entry| (entry.name, entry.value)).collect())
    }

    /// All settings of a topic, defaults included.
    pub(crate) async fn settings(
        &self,
        topic: &str,
    ) -> Result<Vec<teeline_wire::client::ConfigEntry>, RestorerError> {
        let resource = ConfigResource::Topic(topic.into());
        let answer = self.cluster.describe_configs(&[resource]).await.pop();
        let action = format!("read the settings of topic {topic} in the target");
        answer
            .unwrap_or_else(|| Ok(Vec::new()))
            .map_err(RestorerError::target(action))
    }
}

/// How long it may take until the target answers for the first time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long one call to the target may be repeated. A broker that was killed is missed after about ten seconds.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Fills in what the target has, and why it may not be restored into.
pub fn view(plan: &Plan, found: &Found, bootstrap: &str, allowed: Permissions) -> PlanView {
    let target = TargetView {
        bootstrap: bootstrap.to_owned(),
        cluster_id: found.cluster_id.clone(),
        brokers: found.brokers,
    };
    let mut view = PlanView::of(plan, target);
    match (&plan.source_cluster_id, &found.cluster_id) {
        (Some(source), Some(target)) if source == target && !allowed.source => view.refused.push(format!(
            "the target is cluster {target}, where the backup comes from; --allow-source allows it"
        )),
        (Some(_), Some(_)) => {}
        _ => view
            .warnings
            .push("whether the target is the cluster of the backup cannot be told".to_owned()),
    }
    let mut refused = Vec::new();
    for (topic, topic_view) in plan.topics.iter().zip(&mut view.topics) {
        match found.topics.get(&topic.target) {
            Some(existing) if topic.is_empty() => {
                topic_view.target_partitions = existing.partition_count;
                topic_view.target_replication_factor = existing.replication_factor;
                topic_view
                    .notes
                    .push("exists in the target and is left alone: there is nothing to restore".to_owned());
            }
            Some(existing) => {
                refused.extend(view_existing(topic, existing, topic_view, allowed));
            }
            None if allowed.create => view_new(topic, found.brokers, topic_view),
            None => refused.push(format!("topic {} does not exist in the target", topic.target)),
        }
    }
    view.refused.extend(refused);
    view
}

fn view_existing(
    topic: &crate::plan::TopicPlan,
    existing: &FoundTopic,
    view: &mut TopicView,
    allowed: Permissions,
) -> Vec<String> {
    let mut refused = Vec::new();
    view.target_partitions = existing.partition_count;
    view.target_replication_factor = existing.replication_factor;
    view.notes
        .push("exists in the target; its own settings are held off while restoring and put back".to_owned());
    if existing.records > 0 {
        let held = crate::figures::of(existing.records, "record");
        view.notes
            .push(format!("holds {held} already; what is restored is appended"));
        if !allowed.nonempty {
            refused.push(format!(
                "topic {} of the target is not empty ({held}); --allow-nonempty appends, --map restores under another name",
                topic.target
            ));
        }
    }
    if existing.partition_count < topic.partition_count {
        refused.push(format!(
            "topic {} has {} partitions in the target, {} are needed; add partitions or use --map",
            topic.target, existing.partition_count, topic.partition_count
        ));
    }
    refused
}

fn view_new(topic: &crate::plan::TopicPlan, brokers: usize, view: &mut TopicView) {
    let replication_factor = replication_factor(topic.replication_factor, brokers);
    view.create = true;
    view.target_replication_factor = replication_factor;
    let partitions = crate::figures::of(u64::from(topic.partition_count.unsigned_abs()), "partition");
    view.notes.push(format!(
        "will be created with {partitions} and the original settings"
    ));
    if let Some(original) = topic
        .replication_factor
        .filter(|original| *original > replication_factor)
    {
        view.notes.push(format!(
            "replication factor {original} lowered to {replication_factor}, the brokers that there are"
        ));
    }
    view.notes
        .extend(settings::fit_replicas(&topic.settings, replication_factor).1);
    if topic.settings.is_empty() {
        view.notes
            .push("the archive has no settings of it: the target's defaults apply".to_owned());
    }
}

/// The original factor, as far as there are brokers; the target's default if it is not known.
pub fn replication_factor(original: Option<i16>, brokers: usize) -> i16 {
    match original {
        Some(original) => original.min(i16::try_from(brokers).unwrap_or(i16::MAX)).max(1),
        None => -1,
    }
}
