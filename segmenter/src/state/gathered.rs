//! What the log of the coordinators told and no object says yet: bounded, because what is committed again and again
//! within a second is kept once.

use std::collections::{BTreeMap, BTreeSet};

use teeline_archive::state::{GroupKey, GroupValue, ItemKey, ItemValue, OffsetKey, OffsetValue, What};
use teeline_wire::client::{GroupChange, GroupRecord};

/// Changes, in the order of the log for each item.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    changes: Vec<(i64, What)>,
    /// The last change of each item.
    last: BTreeMap<ItemKey, usize>,
    bytes: usize,
}

/// What may be gathered before it is written down.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// About what a change takes beside its texts, which are there three times.
const CHANGE_BYTES: usize = 400;

impl Gathered {
    /// Adds what the log tells next.
    pub(super) fn add(&mut self, change: GroupChange) {
        let mut time = change.timestamp;
        let (key, value) = match change.record {
            GroupRecord::Offset(key, value) => {
                let key = OffsetKey {
                    group: key.group,
                    topic: key.topic,
                    partition: key.partition,
                };
                let value = value.map(|value| OffsetValue {
                    offset: value.offset,
                    leader_epoch: value.leader_epoch,
                    metadata: value.metadata,
                    topic_id: value.topic_id.map(|id| id.to_string()),
                });
                (ItemKey::Offset(key), value.map(ItemValue::Offset))
            }
            GroupRecord::Group(group, value) => {
                let value = value.map(|value| GroupValue {
                    group_type: value.group_type.to_owned(),
                    protocol: value.protocol,
                });
                (ItemKey::Group(GroupKey { group }), value.map(ItemValue::Group))
            }
            GroupRecord::Other => return,
        };
        let what = match value {
            Some(value) => What::Set(key.clone(), value),
            None => What::Gone(key.clone()),
        };
        let before = self.last.get(&key).copied();
        if let Some((last, before)) = before.and_then(|at| self.changes.get_mut(at)) {
            // Of two coordinators one after the other the second may have the slower clock.
            time = time.max(*last);
            if second(*last) == second(time) {
                self.bytes = (self.bytes + bytes(&what)).saturating_sub(bytes(before));
                (*last, *before) = (time, what);
                return;
            }
        }
        self.bytes += bytes(&what);
        self.last.insert(key, self.changes.len());
        self.changes.push((time, what));
    }

    /// Whether it should be written down before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// The items that changed.
    pub(super) fn keys(&self) -> BTreeSet<ItemKey> {
        self.last.keys().cloned().collect()
    }

    /// Everything, in the order of time. Offsets whose topic's id the log did not tell get the one that `id_of` knows.
    pub(super) fn take(&mut self, id_of: impl Fn(&str) -> Option<String>) -> Vec<(i64, What)> {
        let mut changes = std::mem::take(self).changes;
        for (_, what) in &mut changes {
            if let What::Set(ItemKey::Offset(key), ItemValue::Offset(value)) = what
                && value.topic_id.is_none()
            {
                value.topic_id = id_of(&key.topic);
            }
        }
        changes.sort_by_key(|(time, _)| *time);
        changes
    }
}

fn second(time_ms: i64) -> i64 {
    time_ms.div_euclid(1_000)
}

fn bytes(what: &What) -> usize {
    let texts = match what {
        What::Set(ItemKey::Offset(key), ItemValue::Offset(value)) => {
            key.group.len() + key.topic.len() + value.metadata.len()
        }
        What::Set(ItemKey::Group(key), _) | What::Gone(ItemKey::Group(key)) => key.group.len(),
        What::Gone(ItemKey::Offset(key)) => key.group.len() + key.topic.len(),
        _ => 0,
    };
    CHANGE_BYTES + 3 * texts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use teeline_wire::client::{LoggedKey, LoggedOffset};

    use super::*;

    fn committed(timestamp: i64, group: &str, offset: i64) -> GroupChange {
        let key = LoggedKey {
            group: group.to_owned(),
            topic: "orders".to_owned(),
            partition: 0,
        };
        let value = LoggedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            topic_id: None,
        };
        GroupChange {
            timestamp,
            record: GroupRecord::Offset(key, Some(value)),
        }
    }

    fn offsets(gathered: &mut Gathered) -> Vec<(i64, i64)> {
        let changes = gathered.take(|topic| Some(topic.to_owned()));
        changes
            .into_iter()
            .map(|(time, what)| match what {
                What::Set(_, ItemValue::Offset(value)) => {
                    assert_eq!(value.topic_id.as_deref(), Some("orders"));
                    (time, value.offset)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn of_many_commits_within_a_second_the_last_is_kept() {
        let mut gathered = Gathered::default();
        for at in 0..2_500 {
            gathered.add(committed(at, "g", at));
            gathered.add(committed(at, "h", -at));
        }
        assert_eq!(gathered.keys().len(), 2);
        let expected = [
            (999, 999),
            (999, -999),
            (1_999, 1_999),
            (1_999, -1_999),
            (2_499, 2_499),
            (2_499, -2_499),
        ];
        assert_eq!(offsets(&mut gathered), expected);
        assert_eq!(gathered.bytes, 0);
        assert!(offsets(&mut gathered).is_empty());
    }

    #[test]
    fn a_later_record_stays_the_later_one_whatever_the_clocks_say() {
        let mut gathered = Gathered::default();
        gathered.add(committed(5_000, "g", 1));
        gathered.add(committed(1_000, "g", 2));
        gathered.add(committed(7_000, "g", 3));
        assert_eq!(offsets(&mut gathered), [(5_000, 2), (7_000, 3)]);
    }

    #[test]
    fn it_says_when_it_is_full() {
        let mut gathered = Gathered::default();
        let metadata = "m".repeat(1_000);
        let mut at = 0;
        while !gathered.is_full() {
            let mut change = committed(at * 1_000, "g", at);
            if let GroupRecord::Offset(_, Some(value)) = &mut change.record {
                value.metadata.clone_from(&metadata);
            }
            gathered.add(change);
            at += 1;
        }
        assert!((2_000..10_000).contains(&at), "{at}");
    }

    #[test]
    fn a_change_that_replaces_another_is_counted_by_its_own_size() {
        let mut gathered = Gathered::default();
        let with = |size: usize| {
            let mut change = committed(5, "g", 1);
            if let GroupRecord::Offset(_, Some(value)) = &mut change.record {
                value.metadata = "m".repeat(size);
            }
            change
        };
        gathered.add(with(0));
        let small = gathered.bytes;
        gathered.add(with(10_000));
        assert_eq!(gathered.bytes, small + 30_000);
        gathered.add(with(10));
        assert_eq!(gathered.bytes, small + 30);
    }
}
