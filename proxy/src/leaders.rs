//! Who leads which partition, and since which epoch, as the cluster last told.
//!
//! An answer to a Produce request names no leader epoch. What the proxy notes beside it is the epoch that a Metadata
//! answer gave to the very broker that answered; if another broker is the leader by then, nothing. The segmenter takes it
//! for the batch's epoch only when the catalogs from before the send and from after the answer agree. So neither a
//! leader that does not know yet that it was replaced, nor a Metadata answer of a broker that is behind, lends a batch an
//! epoch that is not its own.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use teeline_wire::produce::TopicRef;
use uuid::Uuid;

/// One partition's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) partition: i32,
    pub(crate) node_id: i32,
    pub(crate) epoch: i32,
}

/// The leaders of the captured topics.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    topics: RwLock<HashMap<TopicRef, Known>>,
}

/// What is known of one topic, under its name and under its id.
#[derive(Debug, Clone)]
struct Known {
    id: Uuid,
    /// In order of partitions.
    leaders: Arc<[Leader]>,
}

impl Leaders {
    /// Takes over what the cluster told of a topic. Epochs only grow: what an earlier answer said with a higher one stays.
    pub(crate) fn learn(&self, name: &Arc<str>, id: Uuid, leaders: impl Iterator<Item = Leader>) {
        let mut leaders: Vec<Leader> = leaders.collect();
        leaders.sort_unstable_by_key(|leader| leader.partition);
        let by_name = TopicRef::Name(Arc::clone(name));
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let before = topics.get(&by_name).filter(|known| known.id == id);
        if let Some(before) = before {
            for leader in &mut leaders {
                let known = find(&before.leaders, leader.partition);
                *leader = known
                    .filter(|known| known.epoch > leader.epoch)
                    .unwrap_or(*leader);
            }
            if *before.leaders == *leaders {
                return;
            }
        }
        if topics.len() >= TOPICS_MAX && before.is_none() {
            return;
        }
        let known = Known {
            id,
            leaders: leaders.into(),
        };
        if !id.is_nil() {
            topics.insert(TopicRef::Id(id), known.clone());
        }
        topics.insert(by_name, known);
    }

    /// The epoch of a partition's leader, if that is this node; -1 otherwise.
    pub(crate) fn epoch_of(&self, topic: &TopicRef, partition: i32, node_id: Option<i32>) -> i32 {
        let Some(node_id) = node_id else { return UNKNOWN };
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics
            .get(topic)
            .and_then(|known| find(&known.leaders, partition))
            .filter(|leader| leader.node_id == node_id)
            .map_or(UNKNOWN, |leader| leader.epoch)
    }
}

fn find(leaders: &[Leader], partition: i32) -> Option<Leader> {
    // Partitions are mostly numbered without gaps.
    let direct = usize::try_from(partition).ok().and_then(|at| leaders.get(at));
    if let Some(leader) = direct.filter(|leader| leader.partition == partition) {
        return Some(*leader);
    }
    let at = leaders
        .binary_search_by_key(&partition, |leader| leader.partition)
        .ok()?;
    leaders.get(at).copied()
}

const UNKNOWN: i32 = -1;
/// Names and ids; more than clusters have.
const TOPICS_MAX: usize = 400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(partition: i32, node_id: i32, epoch: i32) -> Leader {
        Leader {
            partition,
            node_id,
            epoch,
        }
    }

    #[test]
    fn only_the_leader_itself_has_the_epoch() {
        let (leaders, name, id) = (Leaders::default(), Arc::from("orders"), Uuid::from_u128(7));
        leaders.learn(&name, id, [leader(1, 2, 9), leader(0, 1, 4)].into_iter());
        for topic in [TopicRef::Name(Arc::clone(&name)), TopicRef::Id(id)] {
            assert_eq!(leaders.epoch_of(&topic, 0, Some(1)), 4);
            assert_eq!(leaders.epoch_of(&topic, 1, Some(2)), 9);
            assert_eq!(
                leaders.epoch_of(&topic, 1, Some(1)),
                -1,
                "another broker leads it"
            );
            assert_eq!(
                leaders.epoch_of(&topic, 0, None),
                -1,
                "it is not known who answered"
            );
            assert_eq!(leaders.epoch_of(&topic, 2, Some(1)), -1);
        }
    }

    #[test]
    fn an_answer_of_a_broker_that_is_behind_changes_nothing() {
        let (leaders, name, id) = (Leaders::default(), Arc::from("orders"), Uuid::from_u128(7));
        let topic = TopicRef::Name(Arc::clone(&name));
        leaders.learn(&name, id, [leader(0, 1, 4)].into_iter());
        leaders.learn(&name, id, [leader(0, 2, 3)].into_iter());
        assert_eq!(leaders.epoch_of(&topic, 0, Some(1)), 4);
        // Another topic of that name begins anew.
        leaders.learn(&name, Uuid::from_u128(8), [leader(0, 2, 0)].into_iter());
        assert_eq!(leaders.epoch_of(&topic, 0, Some(2)), 0);
        assert_eq!(leaders.epoch_of(&TopicRef::Id(id), 0, Some(1)), 4);
    }
}
