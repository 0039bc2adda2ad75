//! One backup, from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use teeline_archive::names;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Clock, ComponentHealth, Shutdown, Store, StoreErrorKind};
use teeline_wire::client::ClientConfig;
use tokio::time::Instant;

use super::args::Job;
use super::backlog::Rules;
use super::display::{Display, Shown};
use super::error::{BackupError, Names};
use super::lookout::Lookout;
use super::patience::{Next, OUTAGE_MAX, Patience, Went};
use super::report::{BackupReport, Outcome};
use super::rounds::Rounds;
use super::state::{State, soon};
use super::sum::Sum;
use super::tended::Tended;
use crate::audit::upstream::Silence;
use crate::audit::{Auditor, Demand, KafkaUpstream, Round, Settings, Upstream};
use crate::fetcher::{Fetch, KafkaLog, Limits, Progress, RecordBudget, Throttle};

/// What a backup works with.
pub struct Surroundings {
    /// Where the archive is.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is shown what.
    pub display: Display,
    /// Tells whether it works.
    pub health: ComponentHealth,
    /// Stops it.
    pub shutdown: Shutdown,
}

/// Makes a backup.
///
/// # Errors
/// What keeps it from beginning, or from going on. What single partitions lack is in the report.
pub async fn run(job: &Job, around: &Surroundings) -> Result<BackupReport, BackupError> {
    let begun = Instant::now();
    prepare_store(job, &around.store).await?;
    let upstream = Arc::new(KafkaUpstream::new(ClientConfig::from(&job.source)));
    let clients = connect(job).await?;
    let lookout = lookout_of(job, &upstream, clients.first());
    let stop = around.shutdown.child();
    let progress = Arc::new(Progress::default());
    let budget = job
        .backup
        .max_messages
        .map(|records| Arc::new(RecordBudget::new(records)));
    let mut auditor = open(job, around, &upstream).await?;
    let first = first_look(&mut auditor, job, &around.shutdown).await?;
    let fetch = Fetch {
        log: Arc::new(KafkaLog::new(clients)),
        sink: auditor.sink(),
        limits: limits(job, budget),
        progress: Arc::clone(&progress),
        shutdown: stop.clone(),
    };
    let lease = Tended::take(job, &around.store, stop).await?;
    let shown = Shown::begin(&around.display, &job.backup_id, progress);
    tracing::info!(backup_id = %job.backup_id, cluster_id = %first.cluster_id, partitions = first.partitions.len(),
        continuous = job.backup.continuous, archive = around.store.address(), "backup started");
    around.health.ready();
    let cluster_id = first.cluster_id.clone();
    let mut rounds = Rounds {
        state: state_of(job, around, &cluster_id, &auditor),
        sum: Sum::beginning_with(&first, job.backup.continuous),
        cluster_id,
        job,
        around,
        upstream,
        auditor,
        fetch,
        lease: &lease,
        shown,
        lookout,
        demand: demand(job, &first),
        patience: Patience::new(job.backup.continuous, Instant::now()),
        reopened: 0,
    };
    let mut ended = rounds.run().await;
    if let Ok(Outcome::Cut) = ended {
        ended = rounds.note_cut().await;
    }
    if ended.is_ok() {
        let looked = rounds.last_look().await;
        ended = ended.and_then(|outcome| looked.map(|()| outcome));
    }
    soon(&around.shutdown, rounds.auditor.write_manifest(true)).await;
    let report = rounds.report(begun);
    drop(rounds);
    lease.release().await;
    ended.map(|outcome| BackupReport {
        outcome: outcome.with_trouble(!report.troubles.is_empty()),
        max_messages_reached: outcome == Outcome::Cut,
        ..report
    })
}

async fn prepare_store(job: &Job, store: &Store) -> Result<(), BackupError> {
    let usage = |error: teeline_archive::names::NameError| crate::SegmenterError::Usage(error.to_string());
    names::check_backup_id(&job.backup_id).map_err(usage)?;
    let key = names::probe_key(&job.backup_id, rand::random()).map_err(usage)?;
    match store.probe_conditional_put(&key).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == StoreErrorKind::Unsupported => {
            Err(BackupError::UnsuitableStore(error.to_string()))
        }
        Err(error) => Err(BackupError::Archive(error)),
    }
}

/// Two connections to each broker read while one would wait for the other's response.
const CLIENTS: usize = 2;

async fn connect(job: &Job) -> Result<Vec<teeline_wire::client::Cluster>, BackupError> {
    let mut config = ClientConfig::from(&job.source);
    // A round is repeated anyway: one partition without a leader must not hold a place for long.
    config.retry.deadline = config.retry.deadline.min(CALL_DEADLINE);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS.min(job.backup.max_concurrent_partitions) {
        let client = teeline_wire::client::Cluster::connect(config.clone()).await;
        clients.push(client.map_err(BackupError::Source)?);
    }
    Ok(clients)
}

const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// The auditor of this backup.
pub(super) async fn open(
    job: &Job,
    around: &Surroundings,
    upstream: &Arc<KafkaUpstream>,
) -> Result<Auditor, BackupError> {
    let now_ms = around.clock.now_ms();
    let settings = Settings {
        name: job.backup_id.clone(),
        backup_id: job.backup_id.clone(),
        topics: job.backup.filter(),
        start: job.backup.start.resolve(now_ms),
        start_by_topic: job
            .backup
            .start_by_topic
            .iter()
            .map(|(pattern, start)| (pattern.clone(), start.resolve(now_ms)))
            .collect(),
        grace: Duration::ZERO,
        // What a run has seen is written down at its end, whether anything was new or not.
        report_interval: match job.backup.continuous {
            true => teeline_config::Audit::DEFAULT_REPORT_INTERVAL,
            false => Duration::ZERO,
        },
        segments: job.segments.clone(),
    };
    let upstream = Arc::clone(upstream) as Arc<dyn Upstream>;
    let clock = Arc::clone(&around.clock);
    let mut auditor = Auditor::open(settings, around.store.clone(), upstream, clock).await?;
    // A run that has an end waits no longer for the store than for the source.
    let longest = (!job.backup.continuous).then_some(OUTAGE_MAX);
    auditor.limit_commits(longest, around.shutdown.clone());
    Ok(auditor)
}

fn limits(job: &Job, budget: Option<Arc<RecordBudget>>) -> Limits {
    Limits {
        jobs_at_once: job.backup.max_concurrent_partitions,
        fetch_bytes: i32::try_from(job.backup.fetch_max_bytes).unwrap_or(i32::MAX),
        segment_age_max: Duration::from_millis(job.segments.segment_max_interval_ms),
        throttle: job
            .backup
            .bytes_per_second
            .map(|rate| Arc::new(Throttle::new(rate))),
        budget,
    }
}

/// Looks until there is a whole answer, and refuses what cannot be meant. Nothing is written.
async fn first_look(auditor: &mut Auditor, job: &Job, shutdown: &Shutdown) -> Result<Round, BackupError> {
    let mut patience = Patience::new(false, Instant::now());
    loop {
        let round = match auditor.plan(&Demand::Now).await {
            Ok(round) => round,
            Err(error) if error.may_pass() => match patience.after(Went::Nowhere, Instant::now()) {
                Next::GiveUp => return Err(error.into()),
                Next::After(pause) => {
                    tracing::warn!(backup_id = %job.backup_id, error = %error_chain(&error), "trying again");
                    let waited = shutdown.run_until(tokio::time::sleep(pause)).await;
                    waited.ok_or(BackupError::Stopped)?;
                    continue;
                }
            },
            Err(error) => return Err(error.into()),
        };
        let named = |name: &str| {
            let mut names = job
                .backup
                .topics
                .include
                .iter()
                .filter_map(|pattern| pattern.exact_name());
            names.any(|wanted| wanted == name)
        };
        let missing = round
            .missing
            .iter()
            .filter(|(name, why)| *why == Silence::Gone && named(name));
        let missing: Vec<Arc<str>> = missing.map(|(name, _)| Arc::clone(name)).collect();
        if !missing.is_empty() {
            return Err(BackupError::MissingTopics(Names(missing)));
        }
        if round.unjudged > 0 {
            // Those without a leader just now belong to the end that is fixed here.
            if let Next::After(pause) = patience.after(Went::Refused, Instant::now()) {
                let waited = shutdown.run_until(tokio::time::sleep(pause)).await;
                waited.ok_or(BackupError::Stopped)?;
                continue;
            }
        }
        if round.partitions.is_empty() && round.missing.is_empty() && !job.backup.continuous {
            return Err(BackupError::NoTopics);
        }
        return Ok(round);
    }
}

/// The state of the cluster, if it is wanted.
pub(super) fn state_of(
    job: &Job,
    around: &Surroundings,
    cluster_id: &str,
    auditor: &Auditor,
) -> Option<State> {
    let wanted = job.backup.include_metadata;
    let continuous = job.backup.continuous;
    wanted.then(|| {
        State::new(
            &around.store,
            &job.backup_id,
            cluster_id,
            auditor.ledger(),
            continuous,
        )
    })
}

fn lookout_of(
    job: &Job,
    upstream: &Arc<KafkaUpstream>,
    client: Option<&teeline_wire::client::Cluster>,
) -> Option<Lookout> {
    let rules = Rules {
        interval: job.backup.interval,
        segment_bytes: job.segments.segment_max_bytes,
        survey_interval: teeline_config::Audit::DEFAULT_REPORT_INTERVAL.max(job.backup.interval),
    };
    let client = client.filter(|_| job.backup.continuous)?;
    let topics = job.backup.filter();
    Some(Lookout::new(
        &job.backup_id,
        topics,
        rules,
        Arc::clone(upstream),
        client.clone(),
    ))
}

/// A run that ends does so where the logs ended at the first look.
fn demand(job: &Job, first: &Round) -> Demand {
    if job.backup.continuous {
        return Demand::Now;
    }
    let ends = first
        .partitions
        .iter()
        .map(|(id, partition)| (*id, partition.demanded_to));
    Demand::Until(ends.collect())
}
