//! The auditor of a process: waits for the lease, goes round while it holds it, and gives way.
//!
//! Stopping: when told to, a round is abandoned where it is. What it has uploaded and not committed is part of nothing,
//! and the next round finds it missing again. How far the logs reached is written down, and the lease is released, both
//! with little patience: a drain must not wait for us, and a lease that cannot be released runs out.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use teeline_archive::ledger::Entry;
use teeline_config::{Audit as AuditSettings, Segmenter as SegmentSettings, TopicFilter};
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Backoff, Clock, ComponentHealth, Shutdown, Store};
use teeline_wire::client::{ClientConfig, Cluster};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::auditor::{Auditor, Demand, RoundReport, Settings};
use super::coverage::Coverage;
use super::error::AuditError;
use super::kafka::KafkaUpstream;
use super::lease::{Lease, Standing};
use super::upstream::Upstream;
use crate::fetcher::{Ended, Fetch, KafkaLog, Limits, Progress, Throttle};
use crate::metrics;
use crate::state::{self, Recorder};
use crate::upkeep::plan::Rules;
use crate::upkeep::{self, UpkeepReport};

/// What the auditor of a process is told.
#[derive(Debug, Clone)]
pub struct Job {
    /// The virtual cluster it serves; names it in logs and metrics.
    pub name: String,
    /// The backup.
    pub backup_id: String,
    /// Where the archive is.
    pub store: Store,
    /// The cluster.
    pub upstream: ClientConfig,
    /// Which topics.
    pub topics: TopicFilter,
    /// How segments are built.
    pub segments: SegmentSettings,
    /// How it audits.
    pub settings: AuditSettings,
}

/// Audits whenever it holds the lease, until told to stop.
pub async fn run(job: Job, clock: Arc<dyn Clock>, health: ComponentHealth, stop: Shutdown) {
    // Trouble of the auditor must not take a proxy out of service: it shows in metrics and in the log.
    health.ready();
    let Some(_only) = OnlyOne::of(&job) else {
        tracing::info!(cluster = %job.name, backup_id = %job.backup_id,
            "this process has an auditor of the backup already");
        return;
    };
    let lease = Lease::new(job.store.clone(), &job.backup_id, PROGRAM, job.settings.lease_ttl);
    let mut lease = match lease {
        Ok(lease) => lease,
        Err(error) => return health.failed(error_chain(&error)),
    };
    metrics::audit_active(&job.name, false);
    let mut troubles = Troubles::default();
    while !stop.is_triggered() {
        match stop.run_until(lease.tend(Instant::now())).await {
            None => break,
            Some(Ok(Standing::Theirs)) => troubles.over(),
            Some(Ok(Standing::Mine)) => {
                troubles.over();
                if let Some(reason) = hold(&job, &clock, &mut lease, &stop).await {
                    health.failed(reason);
                    break;
                }
            }
            Some(Err(error)) => troubles.note(&job, "the auditor's lease cannot be read", &error),
        }
        if stop.run_until(tokio::time::sleep(lease.pace())).await.is_none() {
            break;
        }
    }
    metrics::audit_active(&job.name, false);
    match tokio::time::timeout(RELEASE_PATIENCE, lease.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::info!(cluster = %job.name, %error, "the auditor's lease runs out by itself")
        }
        Err(_) => tracing::info!(cluster = %job.name, "the auditor's lease runs out by itself"),
    }
}

/// Audits as long as the lease is ours. Gives a reason when auditing can never succeed.
async fn hold(job: &Job, clock: &Arc<dyn Clock>, lease: &mut Lease, stop: &Shutdown) -> Option<String> {
    tracing::info!(cluster = %job.name, backup_id = %job.backup_id, "auditing");
    metrics::audit_active(&job.name, true);
    let ended = tokio::select! {
        () = keep(lease) => {
            tracing::info!(cluster = %job.name, "another process audits now");
            None
        }
        ended = audit(job, clock, stop) => match ended {
            Ok(()) => None,
            Err(AuditError::Fenced { seq, .. }) => {
                lease.forfeit();
                tracing::info!(cluster = %job.name, seq, "another process has committed an audit; giving way");
                None
            }
            Err(error) => Some(error_chain(&error)),
        }
    };
    metrics::audit_active(&job.name, false);
    ended
}

/// Gives signs of life until the lease is lost.
async fn keep(lease: &mut Lease) {
    loop {
        tokio::time::sleep(lease.pace()).await;
        // A store that does not answer keeps nobody from auditing: others see no sign of us, and take over.
        if let Ok(Standing::Theirs) = lease.tend(Instant::now()).await {
            return;
        }
    }
}

/// Goes round until told to stop, or until there is no going on.
async fn audit(job: &Job, clock: &Arc<dyn Clock>, stop: &Shutdown) -> Result<(), AuditError> {
    let upstream = Arc::new(KafkaUpstream::new(job.upstream.clone()));
    let Some(cluster) = stop.run_until(connect(job, &upstream)).await else {
        return Ok(());
    };
    let Some(opened) = stop.run_until(open(job, &upstream, clock)).await else {
        return Ok(());
    };
    let mut auditor = opened?;
    let (tell, mut hear) = mpsc::channel(1);
    let mut recorder = job.settings.state.then(|| {
        Recorder::new(
            job.store.clone(),
            &job.backup_id,
            &cluster.cluster_id().unwrap_or_default(),
            auditor.ledger(),
            state::Settings {
                flush_interval: job.settings.state_flush_interval,
                offsets: job.settings.state_offsets,
                ..state::Settings::default()
            },
        )
    });
    let recording = record(job, clock, cluster.clone(), recorder.as_mut(), tell);
    let ended = tokio::select! {
        () = stop.triggered() => None,
        ended = go_round(job, clock, &mut auditor, &cluster, &mut hear) => Some(ended),
        never = recording => match never {},
    };
    if let Some(ended) = ended {
        return ended.map(|never| match never {});
    }
    // How far the logs reached, and what consumers committed since, is worth a last word: a reader of the archive alone
    // has no other.
    let last_word = async {
        let mut entries = auditor.last_seen();
        entries.extend(hear.try_recv().unwrap_or_default());
        if let Some(recorder) = &mut recorder {
            recorder.catch_up(&cluster).await;
            entries.extend(recorder.flush(clock.now_ms(), true).await.unwrap_or_default());
        }
        let cluster_id = cluster.cluster_id().unwrap_or_default();
        auditor.commit(&cluster_id, entries).await
    };
    let _ = tokio::time::timeout(LAST_WORD_PATIENCE, last_word).await;
    Ok(())
}

/// The client of the cluster, waited for as long as it takes.
async fn connect(job: &Job, upstream: &KafkaUpstream) -> Cluster {
    let mut troubles = Troubles::default();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        match upstream.cluster().await {
            Ok(cluster) => return cluster,
            Err(error) => troubles.note(job, "the cluster does not answer the auditor", &error),
        }
        backoff.wait().await;
    }
}

/// The auditor with the ledger read, waited for as long as the store may still answer.
async fn open(
    job: &Job,
    upstream: &Arc<KafkaUpstream>,
    clock: &Arc<dyn Clock>,
) -> Result<Auditor, AuditError> {
    let settings = Settings {
        name: job.name.clone(),
        backup_id: job.backup_id.clone(),
        topics: job.topics.clone(),
        start: job.settings.start,
        start_by_topic: Vec::new(),
        grace: job.settings.grace,
        report_interval: job.settings.report_interval,
        segments: job.segments.clone(),
    };
    let mut troubles = Troubles::default();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let upstream = Arc::clone(upstream) as Arc<dyn Upstream>;
        match Auditor::open(settings.clone(), job.store.clone(), upstream, Arc::clone(clock)).await {
            Err(error) if error.may_pass() => {
                troubles.note(job, "the archive does not answer the auditor", &error);
                backoff.wait().await;
            }
            opened => return opened,
        }
    }
}

async fn go_round(
    job: &Job,
    clock: &Arc<dyn Clock>,
    auditor: &mut Auditor,
    cluster: &Cluster,
    states: &mut mpsc::Receiver<Vec<Entry>>,
) -> Result<Infallible, AuditError> {
    let fetch = Fetch {
        log: Arc::new(KafkaLog::new(vec![cluster.clone()])),
        sink: auditor.sink(),
        limits: Limits {
            jobs_at_once: job.settings.partitions_at_once,
            fetch_bytes: i32::try_from(job.settings.fetch_max_bytes).unwrap_or(i32::MAX),
            throttle: job
                .settings
                .bytes_per_second
                .map(|rate| Arc::new(Throttle::new(rate))),
            ..Limits::default()
        },
        progress: Arc::new(Progress::default()),
        // Rounds are abandoned by dropping them.
        shutdown: Shutdown::new(),
    };
    let mut troubles = Troubles::default();
    let mut coverage = Coverage::new(&job.name, job.settings.coverage_series);
    let mut upkeep_at = Instant::now() + job.settings.compact_interval;
    loop {
        match auditor.round(&Demand::Aged, &fetch).await {
            Ok(report) => {
                troubles.over();
                finished(job, &report, clock.now_ms());
                coverage.show(auditor.ledger(), &report.round);
                metrics::audit_round(&job.name, true);
                if job.settings.compact && Instant::now() >= upkeep_at {
                    let more = keep_up(job, auditor, clock.now_ms()).await?;
                    let pause = if more {
                        Duration::ZERO
                    } else {
                        job.settings.compact_interval
                    };
                    upkeep_at = Instant::now() + pause;
                }
            }
            Err(error) if error.may_pass() => {
                metrics::audit_round(&job.name, false);
                troubles.note(job, "a round of the auditor failed", &error);
            }
            Err(error) => return Err(error),
        }
        auditor.write_manifest(false).await;
        let pause = tokio::time::sleep(job.settings.interval);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(entries) = states.recv() => {
                    auditor.commit(&cluster.cluster_id().unwrap_or_default(), entries).await?;
                }
            }
        }
    }
}

/// Joins small segments. True when there is more to do at once.
async fn keep_up(job: &Job, auditor: &mut Auditor, now_ms: i64) -> Result<bool, AuditError> {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let rules = Rules::new(
        job.segments.segment_max_bytes,
        millis(job.settings.compact_min_age),
        millis(job.settings.keep_replaced),
    );
    let report = upkeep::round(auditor, &job.store, &rules, now_ms).await?;
    if report != UpkeepReport::default() {
        tracing::info!(cluster = %job.name, replaced = report.replaced, joined = report.joined,
            removed = report.removed, "small segments were joined");
    }
    Ok(report.more)
}

/// Shows what a round found.
fn finished(job: &Job, report: &RoundReport, now_ms: i64) {
    metrics::show_audit(&job.name, &metrics::AuditGauges::of(report), now_ms);
    for ended in &report.jobs {
        if let Ended::Failed(error) = &ended.ended {
            metrics::fetch_failed();
            tracing::info!(topic = %ended.topic, partition = ended.id.partition, error = %error_chain(error),
                "a fetch of the auditor ended early; the next round goes on from there");
        }
    }
    if report.segments > 0 || report.superseded > 0 {
        tracing::info!(cluster = %job.name, segments = report.segments, records = report.records,
            superseded = report.superseded, "the auditor filled holes");
    }
}

/// Records the state of the cluster, and hands over what is to be committed. Without a recorder it rests.
async fn record(
    job: &Job,
    clock: &Arc<dyn Clock>,
    cluster: Cluster,
    recorder: Option<&mut Recorder>,
    tell: mpsc::Sender<Vec<Entry>>,
) -> Infallible {
    let Some(recorder) = recorder else {
        return std::future::pending().await;
    };
    let mut troubles = Troubles::default();
    loop {
        match recorder.poll(&cluster, clock.now_ms()).await {
            Ok(_) => troubles.over(),
            Err(error) => troubles.note(job, "the state of the cluster cannot be recorded", &error),
        }
        match recorder.flush(clock.now_ms(), false).await {
            Ok(entries) if entries.is_empty() => {}
            Ok(entries) => {
                // Nobody listens any more only when the audit has ended.
                if tell.send(entries).await.is_err() {
                    return std::future::pending().await;
                }
            }
            Err(error) => troubles.note(job, "the state of the cluster cannot be stored", &error),
        }
        tokio::time::sleep(job.settings.state_interval).await;
    }
}

/// Trouble that passes is told once it has lasted, and then now and then.
#[derive(Debug, Default)]
struct Troubles {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Troubles {
    fn over(&mut self) {
        *self = Troubles::default();
    }

    fn note(&mut self, job: &Job, what: &str, error: &(dyn std::error::Error + 'static)) {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let has_lasted = now.duration_since(since) >= TROUBLE_LASTS;
        let is_due = self
            .told
            .is_none_or(|told| now.duration_since(told) >= TROUBLE_EVERY);
        if has_lasted && is_due {
            self.told = Some(now);
            tracing::warn!(cluster = %job.name, error = %error_chain(error), "{what}; trying again");
        } else {
            tracing::debug!(cluster = %job.name, error = %error_chain(error), "{what}; trying again");
        }
    }
}

/// One auditor per backup and process: a process may serve the same backup by several listeners.
struct OnlyOne(String);

static AUDITED: Mutex<Option<HashSet<String>>> = Mutex::new(None);

impl OnlyOne {
    fn of(job: &Job) -> Option<OnlyOne> {
        let name = format!("{}/{}", job.store.address(), job.backup_id);
        let mut audited = AUDITED.lock().unwrap_or_else(PoisonError::into_inner);
        audited
            .get_or_insert_default()
            .insert(name.clone())
            .then_some(OnlyOne(name))
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        let mut audited = AUDITED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(audited) = audited.as_mut() {
            audited.remove(&self.0);
        }
    }
}

const PROGRAM: &str = concat!("teeline-segmenter ", env!("CARGO_PKG_VERSION"));
/// A drain must not wait for us.
const RELEASE_PATIENCE: Duration = Duration::from_millis(800);
const LAST_WORD_PATIENCE: Duration = Duration::from_millis(1_000);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A broker that restarts, or a store that is busy, is no news.
const TROUBLE_LASTS: Duration = Duration::from_secs(60);
const TROUBLE_EVERY: Duration = Duration::from_secs(300);
