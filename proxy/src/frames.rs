//! The frames of a request and its answer.

use bytes::Bytes;
use teeline_archive::buffer::{Frame, Intent, Outcome, TopicRef};
use teeline_archive::ids::Lsn;
use teeline_wire::produce::{ProduceEntry, ProduceOutcome, ProduceRequest};
use tokio::time::Instant;

use crate::buffer::Appended;
use crate::session::in_flight::{Captured, CapturedBatch};

/// The one batch that a broker takes from an entry: what follows it is trimmed, and its own length says where it ends.
/// None when that cannot be.
pub(crate) fn first_batch(records: &Bytes) -> Option<Bytes> {
    let length = records
        .get(BATCH_LENGTH_AT..BATCH_LENGTH_AT + 4)?
        .first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length))
        .ok()?
        .checked_add(BATCH_LENGTH_AT + 4)?;
    let is_whole = (BATCH_BYTES_MIN..=records.len()).contains(&length);
    is_whole.then(|| records.slice(..length))
}

/// A batch on its way to the broker.
pub(crate) fn intent(
    request: &ProduceRequest,
    connection_id: u64,
    sent_at_ms: i64,
    (entry, batch): &(&ProduceEntry, Bytes),
) -> Frame {
    Frame::Intent(Intent {
        connection_id,
        acks: request.acks,
        sent_at_ms,
        topic: TopicRef {
            name: entry.topic.name().map(str::to_owned),
            id: entry.topic.id(),
        },
        partition: entry.partition,
        transactional_id: request.transactional_id.clone(),
        records: batch.clone(),
    })
}

/// What is awaited after the intents of these batches were appended.
pub(crate) fn captured(batches: &[(&ProduceEntry, Bytes)], appended: Appended) -> Captured {
    let mut lsn = appended.first;
    let mut intents = Vec::with_capacity(batches.len());
    for (entry, _) in batches {
        intents.push(CapturedBatch {
            topic: entry.topic.clone(),
            partition: entry.partition,
            lsn,
        });
        lsn = lsn.next();
    }
    debug_assert_eq!(
        intents.last().map(|batch| batch.lsn),
        Some(appended.last),
        "lsns are dense"
    );
    Captured {
        intents,
        position: Some(appended.end()),
        sent_at: Instant::now(),
    }
}

/// What became of a batch. `leader_epoch` is what Metadata last said of the broker that answered: a response names an
/// epoch only beside an error, and then it is the new leader's.
pub(crate) fn outcome_frame(
    intent: Lsn,
    received_at_ms: i64,
    outcome: &ProduceOutcome,
    leader_epoch: i32,
) -> Frame {
    Frame::Outcome(Outcome {
        intent,
        received_at_ms,
        error_code: outcome.error_code,
        base_offset: outcome.base_offset,
        log_append_time_ms: outcome.log_append_time_ms,
        log_start_offset: outcome.log_start_offset,
        leader_epoch,
    })
}

/// An error with a base offset means: appended by the leader, and what became of it is open (errors 6, 7 and 20).
pub(crate) fn is_settled(outcome: &ProduceOutcome) -> bool {
    outcome.error_code == 0 || outcome.base_offset < 0
}

/// Where a batch says how many bytes follow its length field.
const BATCH_LENGTH_AT: usize = 8;
/// A batch header without records.
const BATCH_BYTES_MIN: usize = 61;
