//! Preparing the target's topics, and putting them right again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use teeline_runtime::exit::error_chain;
use teeline_wire::client::{ClientError, ConfigOperation, ConfigResource, ErrorCode, NewTopic, OffsetAt};

use super::settings::{self, Settings};
use super::{Found, Target, replication_factor};
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

/// Brokers learn of changed settings from the controller; each answers for itself.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(15);
const SETTINGS_PAUSE: Duration = Duration::from_millis(50);
/// A setting, or its value, is not known to the target.
const INVALID_CONFIG: ErrorCode = ErrorCode(40);
/// A policy of the target forbids it.
const POLICY_VIOLATION: ErrorCode = ErrorCode(44);

impl Target {
    /// Creates and alters topics until all are ready for old records; tells their end offsets.
    pub async fn prepare(
        &self,
        plan: &Plan,
        found: &Found,
        held: &mut HeldOff,
    ) -> Result<EndOffsets, RestorerError> {
        for topic in &plan.topics {
            match found.topics.get(&topic.target) {
                // Nothing will be written to it, so nothing is changed about it.
                Some(_) if topic.is_empty() => {}
                Some(existing) => self.hold_off(&topic.target, &existing.settings, held).await?,
                None => self.create(topic, found.brokers, held).await?,
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

    async fn create(
        &self,
        topic: &TopicPlan,
        brokers: usize,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let factor = replication_factor(topic.replication_factor, brokers);
        let (original, _) =
            settings::fit_replicas(&topic.settings, if factor > 0 { factor } else { i16::MAX });
        let modern = settings::held_off();
        let old = settings::for_old_brokers(modern.clone());
        // What the target does not know must not stop a restore; what holds records alive must be there from the start.
        let none = Settings::new();
        let attempts = [(&original, &modern), (&none, &modern), (&none, &old)];
        let mut last = None;
        for (begin_with, held_settings) in attempts {
            let new = NewTopic {
                name: topic.target.clone(),
                partitions: topic.partition_count.max(1),
                replication_factor: factor,
                configs: settings::at_creation(begin_with, held_settings)
                    .into_iter()
                    .collect(),
            };
            // Noted first: an answer that is lost must not leave the topic with settings held off for ever.
            held.topics
                .insert(topic.target.clone(), settings::put_back(&original, held_settings));
            match self.create_one(new).await {
                Ok(()) => {
                    if begin_with.is_empty() && !original.is_empty() {
                        self.set_what_is_known(&topic.target, &original, held).await?;
                    }
                    return Ok(());
                }
                Err(error) if matches!(error.code(), Some(INVALID_CONFIG | POLICY_VIOLATION)) => {
                    last = Some(error);
                }
                Err(error) => return Err(creating(&topic.target)(error)),
            }
        }
        let error = last.map(creating(&topic.target));
        Err(error
            .unwrap_or_else(|| RestorerError::TargetState(format!("topic {} was not created", topic.target))))
    }

    async fn create_one(&self, topic: NewTopic) -> Result<(), ClientError> {
        let answers = self.cluster().create_topics(&[topic], false).await?;
        match answers.into_iter().next() {
            // The call was repeated after a lost answer; that the topic was not there before, the plan has seen.
            Some(Err(error)) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => Ok(()),
            Some(answer) => answer.map(drop),
            None => Ok(()),
        }
    }

    /// Sets the original settings one by one, leaving out what the target does not take.
    async fn set_what_is_known(
        &self,
        topic: &str,
        original: &Settings,
        held: &mut HeldOff,
    ) -> Result<(), RestorerError> {
        let known: BTreeSet<String> = self
            .settings(topic)
            .await?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
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
    async fn hold_off(&self, topic: &str, own: &Settings, held: &mut HeldOff) -> Result<(), RestorerError> {
        let known: BTreeSet<String> = self
            .settings(topic)
            .await?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let mut held_settings = settings::held_off();
        if !known.contains("message.timestamp.after.max.ms") {
            held_settings = settings::for_old_brokers(held_settings);
        }
        held_settings.retain(|name, _| known.contains(*name));
        held.topics
            .insert(topic.to_owned(), settings::put_back(own, &held_settings));
        let changes: Vec<_> = held_settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), ConfigOperation::Set(value.clone())))
            .collect();
        let action = format!("hold off settings of topic {topic} in the target");
        self.alter(topic, &changes)
            .await
            .map_err(RestorerError::target(action))?;
        self.wait_for_settings(topic, &held_settings).await
    }

    /// Waits until a broker asked tells the new settings. Others may lag: refused batches are sent again for a while.
    async fn wait_for_settings(
        &self,
        topic: &str,
        wanted: &BTreeMap<&'static str, String>,
    ) -> Result<(), RestorerError> {
        let deadline = tokio::time::Instant::now() + SETTINGS_PATIENCE;
        loop {
            let entries = self.settings(topic).await?;
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

    /// Puts every setting back that was held off. Tells for each topic that it did not work for why, and how to do it
    /// by hand.
    pub async fn put_back(&self, held: &HeldOff, keep_retention_off: bool) -> Vec<String> {
        let mut failures = Vec::new();
        for (topic, back) in &held.topics {
            let mut back = back.clone();
            if keep_retention_off {
                back.retain(|name, _| !name.starts_with("retention."));
            }
            let failed = self.put_back_one(topic, &back).await;
            if let Some((reason, rest)) = failed {
                let by_hand = settings::by_hand(topic, &rest, self.bootstrap());
                failures.push(format!("{topic}: {reason}; by hand: {by_hand}"));
            }
        }
        failures
    }

    async fn put_back_one(&self, topic: &str, back: &Settings) -> Option<(String, Settings)> {
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
            Err(_) => {}
        }
        // One that is refused must not keep the others from being put back.
        let mut rest = Settings::new();
        let mut reason = String::new();
        for (name, value) in back {
            if let Err(error) = self.alter(topic, &[(name.clone(), operation(value))]).await {
                reason = error_chain(&error);
                rest.insert(name.clone(), value.clone());
                if error.code().is_none() {
                    // Nobody answers: the others would only wait as long in vain.
                    return Some((reason, back.clone()));
                }
            }
        }
        (!rest.is_empty()).then_some((reason, rest))
    }

    async fn alter(&self, topic: &str, changes: &[(String, ConfigOperation)]) -> Result<(), ClientError> {
        self.cluster()
            .alter_configs(&ConfigResource::Topic(topic.into()), changes)
            .await
    }
}

fn creating(topic: &str) -> impl FnOnce(ClientError) -> RestorerError {
    RestorerError::target(format!("create topic {topic} in the target"))
}
