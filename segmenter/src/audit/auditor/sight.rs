//! What a round knows of each partition before it judges: its bounds, what is demanded, where the backup begins, and where
//! earlier leader epochs end.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use teeline_archive::ledger::PartitionState;
use teeline_config::StartAt;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Auditor, CONFIGS_INTERVAL, Demand, Memory, Round, Seen, partition_state};
use crate::audit::entries;
use crate::audit::judge;
use crate::audit::upstream::{EpochQuestion, LogPartition, Silence, Survey, ToldEnd};
use crate::partition::PartitionId;

impl Auditor {
    /// The partitions that can be judged, with what is demanded of them.
    pub(super) async fn sight(
        &mut self,
        survey: &Survey,
        demand: &Demand,
        asked_at: Instant,
        round: &mut Round,
    ) -> Vec<Seen> {
        let mut seen = Vec::new();
        for topic in &survey.topics {
            for found in &topic.partitions {
                let id = PartitionId {
                    incarnation: topic.incarnation,
                    partition: found.partition,
                };
                let bounds = match found.bounds {
                    Ok(bounds) => bounds,
                    Err(Silence::NotAsked) => continue,
                    Err(_) => {
                        round.unjudged = round.unjudged.saturating_add(1);
                        continue;
                    }
                };
                let aged = self.watermarks.see(id, bounds.high_watermark, asked_at);
                let demanded_to = match demand {
                    Demand::Aged => aged,
                    Demand::Now | Demand::NowBut(_) => bounds.high_watermark,
                    Demand::Until(ends) => ends.get(&id).copied().unwrap_or(0),
                };
                seen.push(Seen {
                    partition: LogPartition {
                        topic: Arc::clone(&topic.name),
                        id,
                    },
                    leader: found.leader,
                    bounds,
                    demanded_to: demanded_to.min(bounds.high_watermark),
                    start: 0,
                });
            }
        }
        self.find_starts(&mut seen, round).await;
        // Once everything was seen, what is new was created while we looked.
        self.has_history |= round.unjudged == 0;
        seen
    }

    /// Where the backup begins in each partition. Those without an answer are not judged now.
    async fn find_starts(&mut self, seen: &mut Vec<Seen>, round: &mut Round) {
        let mut by_time: BTreeMap<i64, Vec<(LogPartition, Option<i64>)>> = BTreeMap::new();
        for seen in seen.iter() {
            let last = partition_state(self.ledger.state(), &seen.partition)
                .and_then(PartitionState::audit)
                .map(|audit| audit.start_offset);
            let is_new_log = self.has_history && last.is_none();
            let memory = self.memory.entry(seen.partition.id).or_default();
            if memory.start.is_some() {
                continue;
            }
            let earlier = |start: i64| last.map_or(start, |last| last.min(start));
            match self.settings.start_of(&seen.partition.topic) {
                StartAt::Earliest => memory.start = Some(0),
                // What was created while we looked is all of it younger than our beginning.
                StartAt::Latest if is_new_log => memory.start = Some(0),
                StartAt::Latest => memory.start = Some(last.unwrap_or(seen.bounds.high_watermark)),
                StartAt::Offset(offset) => memory.start = Some(earlier(offset.max(0))),
                StartAt::Timestamp(timestamp) => {
                    let asked = by_time.entry(timestamp).or_default();
                    asked.push((seen.partition.clone(), last));
                }
            }
        }
        for (timestamp, asked) in by_time {
            let partitions: Vec<LogPartition> =
                asked.iter().map(|(partition, _)| partition.clone()).collect();
            let answers = self.upstream.offsets_at(&partitions, timestamp).await;
            for ((partition, last), answer) in asked.into_iter().zip(answers) {
                if let Some(memory) = self.memory.get_mut(&partition.id) {
                    memory.start = answer.map(|found| last.map_or(found, |last| last.min(found)));
                }
            }
        }
        seen.retain_mut(|seen| {
            let start = self
                .memory
                .get(&seen.partition.id)
                .and_then(|memory| memory.start);
            match start {
                Some(start) => seen.start = start,
                None => round.unjudged = round.unjudged.saturating_add(1),
            }
            start.is_some()
        });
    }

    /// Asks where the leader epochs in question end. Under one leader the answers stay the same.
    pub(super) async fn learn_ends(&mut self, seen: &[Seen]) {
        let mut questions = Vec::new();
        for seen in seen {
            let memory = self.memory.entry(seen.partition.id).or_default();
            memory.is_led_under(seen.bounds.leader_epoch);
            let Some(state) = partition_state(self.ledger.state(), &seen.partition) else {
                continue;
            };
            questions.extend(
                judge::epochs_in_question(state, seen.bounds.leader_epoch)
                    .into_iter()
                    .filter(|epoch| !memory.ends.contains_key(epoch))
                    .map(|leader_epoch| EpochQuestion {
                        partition: seen.partition.clone(),
                        leader_epoch,
                    }),
            );
        }
        if questions.is_empty() {
            return;
        }
        let answers = self.upstream.epoch_ends(&questions).await;
        for (question, answer) in questions.into_iter().zip(answers) {
            // Without an answer the partition is judged in a later round.
            if let (Some(memory), Some(answer)) = (self.memory.get_mut(&question.partition.id), answer) {
                memory.learn_end(question.leader_epoch, answer);
            }
        }
    }

    /// Asks for the settings of topics that were not asked for yet.
    pub(super) async fn learn_configs(&mut self, survey: &Survey, now: Instant) {
        let mut names = Vec::new();
        for topic in &survey.topics {
            let memory = self.topics.entry(topic.incarnation).or_default();
            let is_due = memory
                .asked_at
                .is_none_or(|at| now.duration_since(at) >= CONFIGS_INTERVAL);
            if is_due {
                memory.asked_at = Some(now);
                names.push(Arc::clone(&topic.name));
            }
        }
        if names.is_empty() {
            return;
        }
        let mut found = self.upstream.topic_configs(&names).await;
        for topic in &survey.topics {
            if let (Some(memory), Some(configs)) =
                (self.topics.get_mut(&topic.incarnation), found.remove(&topic.name))
            {
                memory.configs = Some(configs);
            }
        }
    }

    pub(super) fn cleanup_policy(&self, incarnation: Uuid) -> &str {
        self.topics
            .get(&incarnation)
            .and_then(|topic| topic.configs.as_ref())
            .map_or("", entries::cleanup_policy)
    }

    pub(super) fn forget(&mut self, survey: &Survey) {
        let there: HashSet<Uuid> = survey.topics.iter().map(|topic| topic.incarnation).collect();
        self.watermarks.retain(|id| there.contains(&id.incarnation));
        self.waiting.retain(|id| there.contains(&id.incarnation));
        self.memory.retain(|id, _| there.contains(&id.incarnation));
    }
}

impl Memory {
    /// What an earlier leader said of its log says nothing about this one's.
    fn is_led_under(&mut self, epoch: i32) {
        if self.leader_epoch != epoch {
            self.leader_epoch = epoch;
            self.ends.clear();
            self.undecided.clear();
        }
    }

    /// Keeps an answer of the very leader that the survey found. One that came later may have another log: what it says
    /// would be held against the survey of its predecessor, and kept as the predecessor's.
    fn learn_end(&mut self, of_epoch: i32, told: ToldEnd) {
        if told.by_epoch == self.leader_epoch {
            self.ends.insert(of_epoch, told.answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::upstream::EpochAnswer;

    #[test]
    fn where_an_epoch_ends_is_kept_for_the_leader_that_said_so() {
        let told = |by_epoch, end_offset| ToldEnd {
            by_epoch,
            answer: EpochAnswer {
                leader_epoch: 3,
                end_offset,
            },
        };
        let mut memory = Memory::default();
        memory.is_led_under(5);
        memory.learn_end(3, told(6, 70));
        assert!(memory.ends.is_empty(), "elected after the survey");
        memory.learn_end(3, told(5, 90));
        memory.is_led_under(5);
        assert_eq!(memory.ends.len(), 1);
        memory.is_led_under(6);
        assert!(memory.ends.is_empty());
        // A cluster without epochs is the same everywhere.
        memory.is_led_under(-1);
        memory.learn_end(3, told(-1, 90));
        assert_eq!(memory.ends.len(), 1);
    }
}
