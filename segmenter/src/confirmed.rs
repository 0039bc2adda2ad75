//! The batches of idempotent producers that were confirmed lately.
//!
//! A producer whose connection hangs sends its batch again on another one. When the first copy turns out to be
//! unresolved after the second was confirmed, it is known here and needs no settlement.

use std::collections::{HashSet, VecDeque};

use teeline_wire::batch::BatchHeader;
use uuid::Uuid;

type Key = (Uuid, i32, i64, i16, i32);

/// A bounded memory of confirmed batches.
#[derive(Debug, Default)]
pub struct ConfirmedBatches {
    known: HashSet<Key>,
    order: VecDeque<Key>,
}

impl ConfirmedBatches {
    /// Notes a confirmed batch.
    pub fn note(&mut self, incarnation: Uuid, partition: i32, header: &BatchHeader) {
        if !header.has_producer() {
            return;
        }
        let key = key(incarnation, partition, header);
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        if self.order.len() > BATCHES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether the batch was confirmed.
    pub fn contains(&self, incarnation: Uuid, partition: i32, header: &BatchHeader) -> bool {
        header.has_producer() && self.known.contains(&key(incarnation, partition, header))
    }
}

/// About 5 MiB. Forgetting only means that the log is asked.
const BATCHES_MAX: usize = 65_536;

fn key(incarnation: Uuid, partition: i32, header: &BatchHeader) -> Key {
    (
        incarnation,
        partition,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::batch_with;

    #[test]
    fn only_batches_with_a_producer_can_be_known_again() {
        let mut confirmed = ConfirmedBatches::default();
        let (plain, _) = batch_with(0, 1, |_| {});
        let (idempotent, _) = batch_with(0, 1, |header| {
            (header.producer_id, header.producer_epoch, header.base_sequence) = (9, 0, 4);
        });
        for header in [&plain, &idempotent] {
            confirmed.note(Uuid::nil(), 3, header);
        }
        assert!(!confirmed.contains(Uuid::nil(), 3, &plain));
        assert!(confirmed.contains(Uuid::nil(), 3, &idempotent));
        assert!(!confirmed.contains(Uuid::nil(), 4, &idempotent));
    }
}
