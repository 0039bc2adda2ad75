//! What is known about topics: names and ids, which of them are captured, which had traffic since the last poll.
//!
//! Sessions mark traffic here; the poller reads the marks and asks the cluster. Entries come from requests, that is
//! from peers, so their number is bounded; a topic beyond the bound is still captured, only not remembered.
//!
//! A reload may change which topics are captured. What was captured by the former rules still needs catalogs until the
//! last of it is answered and attributed, so a topic that is left out from then on is looked up for a while longer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use teeline_config::pattern::TopicFilter;
use teeline_wire::produce::TopicRef;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::leaders::Leaders;

/// The topics of one virtual cluster.
#[derive(Debug)]
pub(crate) struct Topics {
    rules: ArcSwap<Rules>,
    /// By the reference that requests use.
    marks: RwLock<HashMap<TopicRef, Arc<Mark>>>,
    /// By id, as the cluster last told.
    names: RwLock<HashMap<Uuid, Arc<str>>>,
    /// Some topic had traffic since the last poll.
    traffic: AtomicBool,
    /// A topic that no poll has shown yet has traffic.
    pub(crate) unknown: Notify,
    /// Who leads their partitions.
    pub(crate) leaders: Leaders,
}

#[derive(Debug)]
struct Mark {
    captured: AtomicBool,
    traffic: AtomicBool,
}

impl Mark {
    fn captured(&self) -> bool {
        self.captured.load(Ordering::Relaxed)
    }
}

/// Which topics are captured, and which were until a moment ago.
#[derive(Debug)]
struct Rules {
    filter: TopicFilter,
    /// Until when catalogs are written for what these let in.
    former: Vec<(TopicFilter, Instant)>,
}

impl Rules {
    /// By id only as far as its name is known: a batch too many can be left out later, one too few cannot be brought back.
    fn captures(&self, topic: &TopicRef, names: &HashMap<Uuid, Arc<str>>) -> bool {
        match topic {
            TopicRef::Name(name) => self.filter.matches(name),
            TopicRef::Id(id) => names.get(id).is_none_or(|name| self.filter.matches(name)),
        }
    }
}

impl Topics {
    /// Nothing is known yet.
    pub(crate) fn new(filter: TopicFilter) -> Topics {
        let rules = Rules {
            filter,
            former: Vec::new(),
        };
        Topics {
            rules: ArcSwap::from_pointee(rules),
            marks: RwLock::default(),
            names: RwLock::default(),
            traffic: AtomicBool::new(false),
            unknown: Notify::new(),
            leaders: Leaders::default(),
        }
    }

    /// From here on these topics are captured. Every topic that is known is decided upon anew.
    pub(crate) fn follow(&self, filter: TopicFilter) {
        let now = Instant::now();
        // Under this lock, so that nobody decides by the former rules and remembers it afterwards.
        let marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        let current = self.rules.load_full();
        if current.filter == filter {
            return;
        }
        let mut former: Vec<_> = current
            .former
            .iter()
            .filter(|(_, until)| *until > now)
            .cloned()
            .collect();
        // Who reloads every second need not be followed for ever.
        former.truncate(FORMER_MAX - 1);
        former.insert(0, (current.filter.clone(), now + FORMER_FOR));
        let rules = Rules { filter, former };
        let names = read(&self.names);
        for (topic, mark) in marks.iter() {
            let captured = rules.captures(topic, &names);
            let before = mark.captured.swap(captured, Ordering::Relaxed);
            if before && !captured {
                // What it wrote last is attributed by one more catalog.
                self.mark(mark);
            }
        }
        self.rules.store(Arc::new(rules));
        self.unknown.notify_one();
    }

    /// Whether the topic's batches are captured; marks its traffic. An id whose name is not known yet is captured.
    pub(crate) fn captured(&self, topic: &TopicRef) -> bool {
        let known = read(&self.marks).get(topic).map(Arc::clone);
        let mark = known.unwrap_or_else(|| self.first_seen(topic));
        let captured = mark.captured();
        if captured {
            self.mark(&mark);
        }
        captured
    }

    fn first_seen(&self, topic: &TopicRef) -> Arc<Mark> {
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        let captured = self.rules.load().captures(topic, &read(&self.names));
        let mark = Arc::new(Mark {
            captured: AtomicBool::new(captured),
            traffic: AtomicBool::new(false),
        });
        if marks.len() < TOPICS_MAX {
            marks.insert(topic.clone(), Arc::clone(&mark));
        }
        drop(marks);
        if captured {
            self.unknown.notify_one();
        }
        mark
    }

    /// Whether catalogs are written for a topic of this name: it is captured, or was until a moment ago.
    pub(crate) fn wanted(&self, name: &str) -> bool {
        let rules = self.rules.load();
        rules.filter.matches(name)
            || rules
                .former
                .iter()
                .any(|(filter, until)| filter.matches(name) && Instant::now() < *until)
    }

    /// The name of an id, if the cluster has told it.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<Arc<str>> {
        read(&self.names).get(&id).cloned()
    }

    /// Whether the cluster has told this very pair.
    pub(crate) fn knows(&self, name: &str, id: Uuid) -> bool {
        self.name_of(id).is_some_and(|known| &*known == name)
    }

    /// Marks traffic again: an answer arrived, and attribution needs a catalog from after it.
    pub(crate) fn answered(&self, topic: &TopicRef) {
        let known = read(&self.marks).get(topic).map(Arc::clone);
        if let Some(mark) = known {
            self.mark(&mark);
        }
    }

    fn mark(&self, mark: &Mark) {
        if !mark.traffic.load(Ordering::Relaxed) {
            mark.traffic.store(true, Ordering::Release);
            self.traffic.store(true, Ordering::Release);
        }
    }

    /// Takes the marks: the topics that had traffic since the last call.
    pub(crate) fn take_traffic(&self) -> Vec<TopicRef> {
        if !self.traffic.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let marks = read(&self.marks);
        let marked = marks
            .iter()
            .filter(|(_, mark)| mark.traffic.swap(false, Ordering::AcqRel));
        marked.map(|(topic, _)| topic.clone()).collect()
    }

    /// Puts marks back: what was taken could not be dealt with.
    pub(crate) fn return_traffic(&self, topics: &[TopicRef]) {
        for topic in topics {
            self.answered(topic);
        }
    }

    /// Adds pairs that the cluster told of in passing.
    pub(crate) fn learn(&self, pairs: impl IntoIterator<Item = (Arc<str>, Uuid)>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        for (name, id) in pairs {
            if names.len() < TOPICS_MAX && !id.is_nil() {
                names.insert(id, name);
            }
        }
    }

    /// Takes over a whole answer of the cluster: forgets what no longer exists, and the decisions that were taken
    /// before a name was known.
    pub(crate) fn replace(&self, topics: impl IntoIterator<Item = (Arc<str>, Uuid)>) {
        let names: HashMap<Uuid, Arc<str>> = topics
            .into_iter()
            .map(|(name, id)| (id, name))
            .take(TOPICS_MAX)
            .collect();
        let existing: HashSet<&str> = names.values().map(|name| &**name).collect();
        let mut marks = self.marks.write().unwrap_or_else(PoisonError::into_inner);
        let filter = &self.rules.load().filter;
        marks.retain(|topic, mark| {
            let stands = match topic {
                TopicRef::Name(name) => existing.contains(&**name),
                TopicRef::Id(id) => names
                    .get(id)
                    .is_some_and(|name| filter.matches(name) == mark.captured()),
            };
            stands
                || mark.traffic.load(Ordering::Acquire)
                    && mark.captured()
                    && !misjudged(topic, &names, filter)
        });
        drop(marks);
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

/// A decision about an id, taken before its name was known, that the name contradicts.
fn misjudged(topic: &TopicRef, names: &HashMap<Uuid, Arc<str>>, filter: &TopicFilter) -> bool {
    topic
        .id()
        .and_then(|id| names.get(&id))
        .is_some_and(|name| !filter.matches(name))
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Writers insert or replace whole values, so a poisoned lock still guards a sound map.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// More topics than clusters have; at a hundred bytes each, what a hostile client can make us remember.
const TOPICS_MAX: usize = 200_000;

/// Longer than any answer is waited for, and then for the catalog after it.
const FORMER_FOR: Duration = Duration::from_secs(5 * 60);
const FORMER_MAX: usize = 16;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use teeline_config::pattern::TopicPattern;

    fn topics() -> Topics {
        Topics::new(TopicFilter::new(
            Vec::new(),
            vec![TopicPattern::parse("hidden*").unwrap()],
        ))
    }

    #[test]
    fn an_id_without_a_name_is_captured_until_its_name_says_otherwise() {
        let topics = topics();
        let id = Uuid::from_u128(7);
        assert!(topics.captured(&TopicRef::Id(id)));
        topics.replace([(Arc::from("hidden-1"), id)]);
        assert!(!topics.captured(&TopicRef::Id(id)));
    }

    #[test]
    fn traffic_is_marked_only_for_captured_topics() {
        let topics = topics();
        assert!(!topics.captured(&TopicRef::Name("hidden".into())));
        assert!(topics.take_traffic().is_empty());
        let seen = TopicRef::Name("seen".into());
        assert!(topics.captured(&seen));
        assert_eq!(topics.take_traffic(), std::slice::from_ref(&seen));
        assert!(topics.take_traffic().is_empty());
        topics.answered(&seen);
        assert_eq!(topics.take_traffic(), std::slice::from_ref(&seen));
        topics.return_traffic(std::slice::from_ref(&seen));
        topics.replace([(Arc::from("seen"), Uuid::from_u128(1))]);
        assert_eq!(topics.take_traffic(), [seen]);
    }

    #[test]
    fn a_topic_that_is_left_out_is_looked_up_once_more_and_one_that_is_taken_in_counts_at_once() {
        let topics = topics();
        let (seen, hidden) = (TopicRef::Name("seen".into()), TopicRef::Name("hidden-1".into()));
        let id = Uuid::from_u128(7);
        topics.learn([(Arc::from("seen"), id)]);
        assert!(topics.captured(&seen) && topics.captured(&TopicRef::Id(id)) && !topics.captured(&hidden));
        topics.take_traffic();
        let only = |name| TopicFilter::new(vec![TopicPattern::parse(name).unwrap()], Vec::new());
        topics.follow(only("hidden-1"));
        assert!(!topics.captured(&seen) && !topics.captured(&TopicRef::Id(id)) && topics.captured(&hidden));
        // What was captured before has to be attributed, and so have answers that come later.
        assert!(topics.take_traffic().contains(&seen) && topics.wanted("seen"));
        topics.answered(&seen);
        assert_eq!(topics.take_traffic(), std::slice::from_ref(&seen));
        topics.follow(only("seen"));
        assert!(topics.captured(&seen) && !topics.captured(&hidden));
    }
}
