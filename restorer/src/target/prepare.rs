//! Preparing the target's topics, and putting them right again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientError, ConfigEntry, ConfigOperation, ConfigResource, ErrorCode, NewTopic, OffsetAt, TopicSelection,
};

use super::settings::{self, Held, Settings, TIMESTAMP_LIMIT_OLD, TIMESTAMP_LIMITS};
use super::{Found, FoundTopic, Target, replication_factor};
use crate::error::RestorerError;
use crate::plan::{Plan, TopicPlan};

/// What has to be put back, topic by topic. Filled before a topic is touched, so that it is complete at any moment.
#[derive(Debug, Default)]
pub struct HeldOff {
    topics: BTreeMap<String, Settings>,
    /// What could not be taken over, for the report.
    pub notes: Vec<String>,
}

/// Offsets of a topic's partitions before the restore.
pub type EndOffsets = BTreeMap<String, Vec<i64>>;

/// What all topics of a restore have in common.
#[derive(Debug)]
struct Circumstances {
    brokers: usize,
    batch_bytes: u64,
    limits: Vec<&'static str>,
}

/// Brokers learn of changed settings from the controller; each answers for itself.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(15);
const SETTINGS_PAUSE: Duration = Duration::from_millis(50);
/// A setting, or its value, is not known to the target.
const INVALID_CONFIG: ErrorCode = ErrorCode(40);
/// A policy of the target forbids it.
const POLICY_VIOLATION: ErrorCode = ErrorCode(44);

impl Target {
    /// Creates and alters topics until all are ready for old batches of at most `batch_bytes`; tells their end offsets.
    pub async fn prepare(
        &self,
        plan: &Plan,
        found: &Found,
        batch_bytes: u64,
        held: &mut HeldOff,
    ) -> Result<EndOffsets, RestorerError> {
        let limits = self.timestamp_limits().await;
        let circumstances = Circumstances {
            brokers: found.brokers,
            batch_bytes,
            limits,
        };
        for topic in &plan.topics {
            match found.topics.get(&topic.target) {
                // Nothing will be written to it, so nothing is changed about it.
                Some(_) if topic.is_empty() => {}
                Some(existing) => {
                    self.hold_off(&topic.target, existing, &circumstances, held)
                        .await?
                }
                None => self.create(topic, &circumstances, held).await?,
            }
        }
        let mut ends = EndOffsets::new();
        for topic in &plan.topics {
            let existing = found
                .topics
                .get(&topic.target)
                .map(|existing| existing.partition_count);
            let partitions = existing.unwrap_or(topic.partition_count);
            ends.insert(
                topic.target.clone(),
                self.offsets(&topic.target, partitions, OffsetAt::Latest).await?,
            );
        }
        Ok(ends)
    }

    /// Which limits on timestamps the target knows, told by the brokers' own settings of the same purpose. Where these
    /// may not be read, a target of today is assumed.
    async fn timestamp_limits(&self) -> Vec<&'static str> {
        let metadata = self.cluster().metadata(TopicSelection::None).await.ok();
        let broker = metadata.and_then(|metadata| metadata.brokers.first().map(|broker| broker.node_id));
        let Some(broker) = broker else {
            return TIMESTAMP_LIMITS.to_vec();
        };
        let answer = self
            .cluster()
            .describe_configs(&[ConfigResource::Broker(broker)])
            .await
            .pop();
        let Some(Ok(entries)) = answer else {
            return TIMESTAMP_LIMITS.to_vec();
        };
        let known = |name: &&str| entries.iter().any(|entry| entry.name == format!("log.{name}"));
        TIMESTAMP_LIMITS
            .into_iter()
            .chain([TIMESTAMP_LIMIT_OLD])
            .filter(known)
            .collect()
    }

    async fn create(
        &self,
        topic: &TopicPlan,
        circumstances: &Circumstances,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let factor = replication_factor(topic.replication_factor, circumstances.brokers);
        let (original, _) =
            settings::fit_replicas(&topic.settings, if factor > 0 { factor } else { i16::MAX });
        let (original, notes) = settings::known_limits(&original, &circumstances.limits);
        held.notes.extend(
            notes
                .into_iter()
                .map(|note| format!("topic {}: {note}", topic.target)),
        );
        let all = settings::held_off(&original, circumstances.batch_bytes, &circumstances.limits);
        let needed = settings::only_needed(all.clone());
        // What the target does not know or allow must not stop a restore; what keeps records alive must be there from
        // the start.
        let none = Settings::new();
        let attempts = [(&original, &all), (&original, &needed), (&none, &needed)];
        let mut last = None;
        for (begin_with, held_settings) in attempts {
            let configs = settings::at_creation(begin_with, held_settings);
            let new = NewTopic {
                name: topic.target.clone(),
                partitions: topic.partition_count.max(1),
                replication_factor: factor,
                configs: configs.clone().into_iter().collect(),
            };
            // Noted first: an answer that is lost must not leave the topic with settings held off for ever.
            self.note(
                &topic.target,
                settings::put_back(&original, held_settings),
                true,
                held,
            );
            match self.create_one(new).await {
                Ok(()) if begin_with.is_empty() => {
                    return self.set_what_is_known(&topic.target, &original, held).await;
                }
                Ok(()) => return Ok(()),
                Err(error) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {
                    return self.take_over(topic, &configs, circumstances, held).await;
                }
                Err(error) if matches!(error.code(), Some(INVALID_CONFIG | POLICY_VIOLATION)) => {
                    last = Some(error);
                }
                Err(error) => return Err(creating(&topic.target)(error)),
            }
        }
        let error = last.map(creating(&topic.target));
        let never = || RestorerError::TargetState(format!("topic {} was not created", topic.target));
        Err(error.unwrap_or_else(never))
    }

    async fn create_one(&self, topic: NewTopic) -> Result<(), ClientError> {
        let answers = self.cluster().create_topics(&[topic], false).await?;
        answers
            .into_iter()
            .next()
            .map_or(Ok(()), |answer| answer.map(drop))
    }

    /// A topic that was not there a moment ago: ours, by an attempt whose answer was lost, or somebody else's. It
    /// serves if it is as empty and as wide as ours would be.
    async fn take_over(
        &self,
        topic: &TopicPlan,
        asked: &BTreeMap<String, String>,
        circumstances: &Circumstances,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let existing = self.inspect_named(&topic.target).await?;
        let name = &topic.target;
        if existing.records > 0 || existing.partition_count != topic.partition_count.max(1) {
            held.topics.remove(name);
            let text =
                format!("topic {name} came into being in the target meanwhile, and is not like the original");
            return Err(RestorerError::TargetState(text));
        }
        let ours = asked
            .iter()
            .all(|(name, value)| existing.settings.get(name) == Some(&Some(value.clone())));
        if ours {
            return Ok(());
        }
        held.notes.push(format!(
            "topic {name} came into being in the target meanwhile, and keeps its own settings"
        ));
        self.hold_off(name, &existing, circumstances, held).await
    }

    /// Sets the original settings one by one, leaving out what the target does not take.
    async fn set_what_is_known(
        &self,
        topic: &str,
        original: &Settings,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let known = self.known_settings(topic).await?;
        let held_names: BTreeSet<String> = held
            .topics
            .get(topic)
            .map(|back| back.keys().cloned().collect())
            .unwrap_or_default();
        for (name, value) in original.iter().filter(|(name, _)| !held_names.contains(*name)) {
            let Some(value) = value else { continue };
            if !known.contains(name) {
                held.notes.push(format!(
                    "topic {topic}: the target does not know the setting {name}={value}"
                ));
                continue;
            }
            let change = (name.clone(), ConfigOperation::Set(value.clone()));
            if let Err(error) = self.alter(topic, &[change]).await {
                let reason = error_chain(&error);
                held.notes.push(format!(
                    "topic {topic}: the target does not take {name}={value}: {reason}"
                ));
            }
        }
        Ok(())
    }

    /// Holds off the settings of a topic that exists.
    async fn hold_off(
        &self,
        topic: &str,
        existing: &FoundTopic,
        circumstances: &Circumstances,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let own = &existing.settings;
        let known = self.known_settings(topic).await?;
        let limits: Vec<_> = TIMESTAMP_LIMITS
            .into_iter()
            .chain([TIMESTAMP_LIMIT_OLD])
            .filter(|name| known.contains(*name))
            .collect();
        let mut all = settings::held_off(own, circumstances.batch_bytes, &limits);
        all.retain(|name, _| known.contains(*name));
        self.note(topic, settings::put_back(own, &all), false, held);
        let refused = match self.alter(topic, &changes_to(&all)).await {
            Ok(()) => return self.wait_for_settings(topic, &all).await,
            Err(error) => error,
        };
        let action = || format!("hold off settings of topic {topic} in the target");
        if !matches!(refused.code(), Some(INVALID_CONFIG | POLICY_VIOLATION)) {
            return Err(RestorerError::target(action())(refused));
        }
        let needed = settings::only_needed(all);
        self.note(topic, settings::put_back(own, &needed), false, held);
        self.alter(topic, &changes_to(&needed))
            .await
            .map_err(RestorerError::target(action()))?;
        self.wait_for_settings(topic, &needed).await
    }

    /// Keeps in mind what to put back, and says it: after a SIGKILL nobody else knows. Of a topic that is only being
    /// created nobody needs to be told: such a restore is done again.
    fn note(&self, topic: &str, back: Settings, is_new: bool, held: &mut HeldOff) {
        let command = settings::by_hand(topic, &back, self.bootstrap());
        if is_new {
            tracing::debug!(topic, command, "settings are held off");
        } else {
            tracing::info!(
                topic,
                command,
                "settings are held off; should this process be killed, put them back so"
            );
        }
        held.topics.insert(topic.to_owned(), back);
    }

    async fn known_settings(&self, topic: &str) -> Result<BTreeSet<String>, RestorerError> {
        let entries = self.awaited_settings(topic).await?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// All settings of a topic that exists. Brokers learn of a new topic one after the other: one that does not know it
    /// yet is asked again for a while.
    async fn awaited_settings(&self, topic: &str) -> Result<Vec<ConfigEntry>, RestorerError> {
        let deadline = tokio::time::Instant::now() + SETTINGS_PATIENCE;
        loop {
            let is_unknown = |error: &RestorerError| match error {
                RestorerError::Target { source, .. } => {
                    source.code().is_some_and(ErrorCode::is_unknown_topic)
                }
                _ => false,
            };
            match self.settings(topic).await {
                Err(error) if is_unknown(&error) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(SETTINGS_PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// Waits until a broker asked tells the new settings. Others may lag: refused batches are sent again for a while.
    async fn wait_for_settings(&self, topic: &str, wanted: &Held) -> Result<(), RestorerError> {
        let deadline = tokio::time::Instant::now() + SETTINGS_PATIENCE;
        loop {
            let entries = self.awaited_settings(topic).await?;
            let now: BTreeMap<&str, Option<&str>> = entries
                .iter()
                .map(|entry| (entry.name.as_str(), entry.value.as_deref()))
                .collect();
            let behind: Vec<_> = wanted
                .iter()
                .filter(|(name, value)| now.get(*name) != Some(&Some(value.as_str())))
                .collect();
            if behind.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let names: Vec<_> = behind.iter().map(|(name, _)| **name).collect();
                return Err(RestorerError::TargetState(format!(
                    "topic {topic} of the target does not take on the settings {}",
                    names.join(", ")
                )));
            }
            tokio::time::sleep(SETTINGS_PAUSE).await;
        }
    }

    /// Puts every setting back that was held off. Tells for each topic where it did not work why, and how to do it by
    /// hand.
    pub async fn put_back(&self, held: &HeldOff, keep_retention_off: bool) -> Vec<String> {
        let mut failures = Vec::new();
        let mut unreachable: Option<String> = None;
        for (topic, back) in &held.topics {
            let mut back = back.clone();
            if keep_retention_off {
                back.retain(|name, _| !name.starts_with("retention."));
            }
            let failed = match &unreachable {
                // Asking again for every topic would only take as long each time.
                Some(reason) => Some(NotPutBack {
                    reason: reason.clone(),
                    rest: back,
                    unreachable: true,
                }),
                None => self.put_back_one(topic, &back).await,
            };
            if let Some(failed) = failed {
                let by_hand = settings::by_hand(topic, &failed.rest, self.bootstrap());
                failures.push(format!("{topic}: {}; by hand: {by_hand}", failed.reason));
                unreachable = failed.unreachable.then_some(failed.reason);
            }
        }
        failures
    }

    async fn put_back_one(&self, topic: &str, back: &Settings) -> Option<NotPutBack> {
        let operation = |value: &Option<String>| match value {
            Some(value) => ConfigOperation::Set(value.clone()),
            None => ConfigOperation::Delete,
        };
        let changes: Vec<_> = back
            .iter()
            .map(|(name, value)| (name.clone(), operation(value)))
            .collect();
        match self.alter(topic, &changes).await {
            Ok(()) => return None,
            // It was never created, so there is nothing to put right.
            Err(error) if error.code().is_some_and(ErrorCode::is_unknown_topic) => return None,
            Err(error) if error.code().is_none() => {
                return Some(NotPutBack {
                    reason: error_chain(&error),
                    rest: back.clone(),
                    unreachable: true,
                });
            }
            Err(_) => {}
        }
        // One that is refused must not keep the others from being put back.
        let mut failed = NotPutBack {
            reason: String::new(),
            rest: Settings::new(),
            unreachable: false,
        };
        for (name, value) in back {
            if let Err(error) = self.alter(topic, &[(name.clone(), operation(value))]).await {
                failed.reason = error_chain(&error);
                failed.rest.insert(name.clone(), value.clone());
            }
        }
        (!failed.rest.is_empty()).then_some(failed)
    }

    async fn alter(&self, topic: &str, changes: &[(String, ConfigOperation)]) -> Result<(), ClientError> {
        self.cluster()
            .alter_configs(&ConfigResource::Topic(topic.into()), changes)
            .await
    }
}

/// Settings of a topic that could not be put back.
struct NotPutBack {
    reason: String,
    rest: Settings,
    /// Nobody answered, so others need not be tried.
    unreachable: bool,
}

fn changes_to(held: &Held) -> Vec<(String, ConfigOperation)> {
    held.iter()
        .map(|(name, value)| ((*name).to_owned(), ConfigOperation::Set(value.clone())))
        .collect()
}

fn creating(topic: &str) -> impl FnOnce(ClientError) -> RestorerError {
    RestorerError::target(format!("create topic {topic} in the target"))
}
