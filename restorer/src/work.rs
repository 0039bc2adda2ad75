//! Partitions at work, several at a time.
//!
//! Each worker has a connection of its own to every broker, since a broker serves one request of a connection at a time,
//! and takes partitions from a common list, the largest first. The first failure stops all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use teeline_runtime::Shutdown;
use teeline_wire::client::{Cluster, TopicPartition};
use tokio::task::JoinSet;

use crate::apart::OpenTransaction;
use crate::budget::Budget;
use crate::cursor::Source;
use crate::delivery::{Delivery, DeliveryError, Limits};
use crate::error::RestorerError;
use crate::plan::{Only, PartitionPlan, Plan};
use crate::report::Restored;
use crate::stream::{PartitionStream, Parts};
use crate::tally::{Live, Tally};
use crate::target::Target;
use crate::target::route::LeaderRoute;
use crate::window::Window;
use teeline_runtime::Store;

/// How to work.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Partitions at a time.
    pub parallel: u16,
    /// After how long without an acknowledgement a batch is given up.
    pub delivery_timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        // Four keep two brokers' request handlers busy; memory is about 12 MiB each.
        Self {
            parallel: 4,
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// Memory for blocks read ahead and being worked on, all partitions together.
const BLOCK_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Memory for batches on their way to the target, all partitions together, if no batch is larger than its share.
const UNDER_WAY_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Restores every partition of a plan. `shutdown` ends it with [`RestorerError::Interrupted`].
pub async fn restore_partitions(
    store: &Store,
    plan: &Plan,
    target: &Target,
    pace: Pace,
    live: &Arc<Live>,
    shutdown: &Shutdown,
) -> Result<Vec<Restored>, RestorerError> {
    let mut jobs: Vec<Job> = Vec::new();
    for (place, topic) in plan.topics.iter().enumerate() {
        for partition in topic.partitions.iter().filter(|partition| !partition.is_empty()) {
            jobs.push(Job {
                topic: place,
                target: topic.target.clone(),
                plan: partition.clone(),
            });
        }
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.plan.archive_bytes));
    let workers = usize::from(pace.parallel).min(jobs.len());
    let stop = shutdown.child();
    let shared = Arc::new(Shared {
        jobs: Mutex::new(jobs.into()),
        source: Source {
            store: store.clone(),
            budget: Budget::new(BLOCK_BYTES_MAX),
            live: Arc::clone(live),
        },
        window: plan.window,
        only: plan.only,
        limits: Limits {
            timeout: pace.delivery_timeout,
            bytes_under_way_max: UNDER_WAY_BYTES_MAX / workers.max(1),
        },
        target: target.clone(),
        stop: stop.clone(),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(work(Arc::clone(&shared)));
    }
    let mut restored = Vec::new();
    let mut failure: Option<RestorerError> = None;
    while let Some(ended) = tasks.join_next().await {
        let error = match ended {
            Ok(Ok(done)) => {
                restored.extend(done);
                continue;
            }
            Ok(Err(error)) => error,
            Err(error) => RestorerError::Task(error.to_string()),
        };
        stop.trigger();
        // Those stopped because of another's failure report an interruption: the failure is what counts.
        match &failure {
            None | Some(RestorerError::Interrupted) => failure = Some(error),
            Some(_) => {}
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(restored),
    }
}

#[derive(Debug)]
struct Job {
    topic: usize,
    target: String,
    plan: PartitionPlan,
}

#[derive(Debug)]
struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    source: Source,
    window: Window,
    only: Option<Only>,
    limits: Limits,
    target: Target,
    stop: Shutdown,
}

impl Shared {
    fn next_job(&self) -> Option<Job> {
        // The list is whole at any moment, so a panic elsewhere does not spoil it.
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

async fn work(shared: Arc<Shared>) -> Result<Vec<Restored>, RestorerError> {
    let result = work_on_all(&shared).await;
    if result.is_err() {
        shared.stop.trigger();
    }
    result
}

async fn work_on_all(shared: &Shared) -> Result<Vec<Restored>, RestorerError> {
    let connecting = Cluster::connect(shared.target.cluster().config().clone());
    let cluster = shared
        .stop
        .run_until(connecting)
        .await
        .ok_or(RestorerError::Interrupted)?;
    let cluster = cluster.map_err(RestorerError::target("connect to the target"))?;
    let mut restored = Vec::new();
    while let Some(job) = shared.next_job() {
        let (topic, partition) = (job.topic, job.plan.partition);
        let working = Box::pin(restore_partition(shared, &cluster, job));
        let (tally, open_transactions) = shared
            .stop
            .run_until(working)
            .await
            .ok_or(RestorerError::Interrupted)??;
        restored.push(Restored {
            topic,
            partition,
            tally,
            open_transactions,
        });
    }
    Ok(restored)
}

async fn restore_partition(
    shared: &Shared,
    cluster: &Cluster,
    job: Job,
) -> Result<(Tally, Vec<OpenTransaction>), RestorerError> {
    let Job { target, plan, .. } = job;
    let number = plan.partition;
    let parts = Parts::new(plan, shared.window, shared.only);
    let mut stream = PartitionStream::new(shared.source.clone(), parts);
    stream.prepare().await?;
    let producer = cluster.init_producer_id().await;
    let producer = producer.map_err(RestorerError::target("get a producer id from the target"))?;
    let route = LeaderRoute::new(cluster.clone(), TopicPartition::new(target.as_str(), number));
    let mut delivery = Delivery::new(route, producer.id, producer.epoch, shared.limits);
    let failed = |source: DeliveryError| RestorerError::Delivery {
        topic: target.clone(),
        partition: number,
        source,
    };
    let mut shown = delivery.delivered();
    while let Some(batch) = stream.next().await? {
        delivery.push(&batch).await.map_err(failed)?;
        let now = delivery.delivered();
        shared
            .source
            .live
            .produced(now.records - shown.records, now.bytes - shown.bytes);
        shown = now;
    }
    let delivered = delivery.flush().await.map_err(failed)?;
    shared
        .source
        .live
        .produced(delivered.records - shown.records, delivered.bytes - shown.bytes);
    tracing::debug!(
        topic = target,
        partition = number,
        records = delivered.records,
        "partition restored"
    );
    let tally = Tally {
        records: delivered.records,
        batches: delivered.batches,
        bytes: delivered.bytes,
        ..stream.left_out()
    };
    Ok((tally, stream.open_transactions()))
}
