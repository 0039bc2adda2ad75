//! The way to a partition's leader, by the cluster client.

use std::future::ready;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use teeline_runtime::Backoff;
use teeline_runtime::exit::error_chain;
use teeline_wire::batch::ReplayBatch;
use teeline_wire::client::{
    ClientError, Cluster, ErrorCode, Leader, PartitionBatch, ProduceFailure, ProduceOptions, TopicPartition,
};

use crate::delivery::{Acknowledgement, Answer, Fault, FaultKind, Route};

/// Finds the leader, sends, and finds it again after a fault.
#[derive(Debug)]
pub struct LeaderRoute {
    cluster: Cluster,
    partition: TopicPartition,
    leader: Option<Leader>,
    backoff: Backoff,
}

/// The first pause after a fault; leaders usually move faster than that.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Refused because of its timestamps. (The client has no name for it.)
const INVALID_TIMESTAMP: ErrorCode = ErrorCode(32);
/// A broker's state of a producer is gone or fenced.
const LOST_STATE: [ErrorCode; 2] = [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::UNKNOWN_PRODUCER_ID];

impl LeaderRoute {
    /// A route; nothing is asked yet.
    pub fn new(cluster: Cluster, partition: TopicPartition) -> Self {
        Self {
            cluster,
            partition,
            leader: None,
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
        }
    }

    async fn start(&mut self, batch: ReplayBatch) -> Result<Answer, Fault> {
        let leader = match self.leader {
            Some(leader) => leader,
            None => self
                .cluster
                .leader_for(&self.partition)
                .await
                .map_err(|error| fault_of(&error))?,
        };
        self.leader = Some(leader);
        let batch = PartitionBatch::replay(self.partition.clone(), batch);
        let pending = self
            .cluster
            .send_produce(leader, &[batch], &ProduceOptions::default())
            .await;
        let pending = pending.map_err(|error| fault_of(&error))?;
        Ok(async move {
            let outcomes = pending.wait().await.map_err(|error| fault_of(&error))?;
            let outcome = outcomes.into_iter().next().ok_or_else(|| Fault {
                kind: FaultKind::Retriable,
                reason: "the answer names no partition".to_owned(),
            })?;
            match outcome.result {
                Ok(produced) => Ok(Acknowledgement {
                    base_offset: produced.base_offset,
                    log_append_time_ms: produced.log_append_time_ms,
                }),
                Err(failure) => refusal(&failure),
            }
        }
        .boxed())
    }
}

impl Route for LeaderRoute {
    fn send(&mut self, batch: ReplayBatch) -> BoxFuture<'_, Answer> {
        let started = self.start(batch);
        started
            .map(|started| started.unwrap_or_else(|fault| ready(Err(fault)).boxed()))
            .boxed()
    }

    fn recover(&mut self, fault: &Fault, attempt: u32) -> BoxFuture<'_, ()> {
        if attempt == 0 {
            self.backoff.reset();
            tracing::warn!(
                topic = %self.partition.topic, partition = self.partition.partition, reason = %fault,
                "the target did not take a batch, trying again"
            );
        }
        self.leader = None;
        self.cluster.forget_leader(&self.partition);
        async move {
            self.backoff.wait().await;
        }
        .boxed()
    }
}

fn refusal(failure: &ProduceFailure) -> Result<Acknowledgement, Fault> {
    let code = failure.code;
    let kind = match code {
        // The broker had it already, and no longer knows where.
        ErrorCode::DUPLICATE_SEQUENCE_NUMBER => {
            return Ok(Acknowledgement {
                base_offset: -1,
                log_append_time_ms: -1,
            });
        }
        ErrorCode::MESSAGE_TOO_LARGE | INVALID_TIMESTAMP => FaultKind::Settling,
        // Behind a batch that was refused for a passing reason, the next ones are out of order: send them all again.
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER => FaultKind::Settling,
        code if LOST_STATE.contains(&code) => FaultKind::Fatal,
        code if code.is_retriable() => FaultKind::Retriable,
        _ => FaultKind::Fatal,
    };
    Err(Fault {
        kind,
        reason: failure.to_string(),
    })
}

fn fault_of(error: &ClientError) -> Fault {
    let kind = if error.is_retriable() {
        FaultKind::Retriable
    } else {
        FaultKind::Fatal
    };
    Fault {
        kind,
        reason: error_chain(error),
    }
}
