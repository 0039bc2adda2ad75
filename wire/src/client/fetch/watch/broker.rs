//! One broker of a watch: its connection, its session, and the next request.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::super::message::{self, Asked, Exchange, WireKey};
use super::super::session::{Place, Session};
use super::super::{FetchOptions, NO_RACK};
use crate::client::{ClientError, Connection, Leader, TopicPartition};

/// What is with one broker.
#[derive(Debug)]
pub(super) struct Broker {
    pub(super) session: Session,
    pub(super) connection: Option<Connection>,
    pub(super) is_busy: bool,
    pub(super) not_before: Instant,
    /// Who is meant by the names of the last request.
    pub(super) names: HashMap<WireKey, TopicPartition>,
}

impl Broker {
    /// Not connected yet.
    pub(super) fn new(now: Instant) -> Self {
        Broker {
            session: Session::default(),
            connection: None,
            is_busy: false,
            not_before: now,
            names: HashMap::new(),
        }
    }

    /// The next request, and whether it has the whole list.
    pub(super) fn ask(
        &mut self,
        connection: &Connection,
        partitions: &[(&TopicPartition, Leader, i64)],
        options: &FetchOptions,
        max_bytes: i32,
    ) -> Result<(message::Encoded, bool), ClientError> {
        let all_have_ids = partitions
            .iter()
            .all(|(partition, ..)| partition.topic.id.is_some());
        let version = message::choose_version(connection, all_have_ids)?;
        let by_id = version > message::NEWEST_BY_NAME;
        let mut wanted = BTreeMap::new();
        self.names.clear();
        for (partition, leader, offset) in partitions {
            let place = Place {
                leader_epoch: leader.epoch,
                offset: *offset,
                max_bytes,
            };
            let key = message::key_of(partition, by_id);
            wanted.insert(key.clone(), place);
            self.names.insert(key, (*partition).clone());
        }
        let step = self.session.next(version, &wanted);
        let asked: Vec<Asked<'_>> = step
            .asked
            .iter()
            .filter_map(|key| {
                let place = wanted.get(key)?;
                Some(Asked {
                    partition: self.names.get(key)?,
                    leader_epoch: place.leader_epoch,
                    offset: place.offset,
                    max_bytes: place.max_bytes,
                })
            })
            .collect();
        let exchange = Exchange {
            version,
            options,
            rack: NO_RACK,
            session: step.session,
            asked: &asked,
            forgotten: &step.forgotten,
        };
        Ok((exchange.encode()?, step.is_whole()))
    }
}
