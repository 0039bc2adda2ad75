//! Starting: who the buffer is, whether the store can keep a ledger, and where both stand.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use teeline_archive::buffer::BufferIdentity;
use teeline_archive::ids::SessionId;
use teeline_archive::names;
use teeline_runtime::{Backoff, Clock, ComponentHealth, Health, Probe, Shutdown, Store, StoreError};
use tokio::task::JoinSet;

use super::ledger_job::LedgerJobs;
use super::{Phase, Pipeline};
use crate::buffer::{BufferError, Directory, Reader, ReaderOptions, adopt};
use crate::chain::Ledger;
use crate::close::CloseLimits;
use crate::engine::{Engine, EngineSettings};
use crate::error::SegmenterError;
use crate::metrics;
use crate::options::Options;
use crate::patience::PatienceLimits;
use crate::source::{KafkaSource, Source};
use crate::writer::SegmentSink;

/// Prepares a segmenter. `None` when it was told to stop, or when there is nothing to drain.
pub(crate) async fn start(
    options: Options,
    source: Option<Arc<dyn Source>>,
    clock: Arc<dyn Clock>,
    health: &Health,
    shutdown: Shutdown,
) -> Result<Option<Pipeline>, SegmenterError> {
    metrics::register();
    let buffer_health = health.component(format!("segmenter/{}/buffer", options.name));
    let archive_health = health.component(format!("segmenter/{}/archive", options.name));
    names::check_backup_id(&options.backup_id).map_err(|error| SegmenterError::Usage(error.to_string()))?;
    let directory = Directory::new(&options.buffer_dir);
    let adopted = match options.until_drained || options.source_lost {
        true => adopt_if_orphaned(&directory).await?,
        false => None,
    };
    let reader_options = ReaderOptions {
        adopted: adopted.is_some(),
        ..ReaderOptions::default()
    };
    let reader = Reader::open(directory, reader_options);
    let Some(identity) = identity(&reader, &options, &buffer_health, &shutdown).await? else {
        return Ok(None);
    };
    let Some(ledger) = open_ledger(&options, &identity, &archive_health, &shutdown).await? else {
        return Ok(None);
    };
    let archived = reader.archived()?;
    let has_source = !options.source_lost && (source.is_some() || options.upstream.is_some());
    let source = source.or_else(|| {
        let config = options.upstream.clone()?;
        Some(Arc::new(KafkaSource::new(config)) as Arc<dyn Source>)
    });
    let settings = EngineSettings {
        backup_id: options.backup_id.clone(),
        writer: identity.writer,
        close: CloseLimits {
            bytes_max: options.settings.segment_max_bytes,
            age_max_ms: i64::try_from(options.settings.segment_max_interval_ms).unwrap_or(i64::MAX),
            small_bytes: options.settings.segment_max_bytes / SMALL_PART,
            positions_max: POSITIONS_MAX,
            memory_bytes_max: MEMORY_BYTES_MAX,
        },
        patience: PatienceLimits {
            small_bytes: options.settings.segment_max_bytes / SMALL_PART,
            per_minute: options.settings.small_segments_per_minute,
            age_max_ms: i64::try_from(options.settings.small_segment_max_interval_ms).unwrap_or(i64::MAX),
            waiting_bytes_max: options.buffer_max_bytes / WAITING_PART,
            gust_ms: i64::try_from(options.settings.segment_max_interval_ms / GUSTS).unwrap_or(i64::MAX),
        },
        hole_grace_ms: i64::try_from(options.settings.hole_grace_ms).unwrap_or(i64::MAX),
        topics: options.topics.clone(),
        has_source,
        has_auditor: options.audited,
    };
    let refresh_interval_ms = (settings.hole_grace_ms / 2).max(REFRESH_MS_MIN);
    let engine = Engine::new(settings, ledger.state(), archived);
    let sink = sink(&options, &identity, &ledger, Arc::clone(&clock));
    archive_health.ready();
    buffer_health.ready();
    tracing::info!(cluster = %options.name, backup_id = %options.backup_id, writer = %identity.writer,
        archive = options.store.address(), buffer = %options.buffer_dir.display(), ?archived, "segmenter started");
    Ok(Some(Pipeline {
        ledger: LedgerJobs::new(
            ledger,
            archive_health.clone(),
            options.settings.manifest_interval_ms,
            refresh_interval_ms,
        ),
        files: reader.files(),
        reader,
        adopted,
        engine,
        sink,
        source: source.filter(|_| has_source),
        archive_health,
        buffer_health,
        uploads: JoinSet::new(),
        fetches: JoinSet::new(),
        surveys: JoinSet::new(),
        phase: Phase::Following,
        published: archived,
        publish_not_before_ms: i64::MIN,
        polled_ms: i64::MIN,
        options,
        clock,
        shutdown,
    }))
}

/// Positions of open segments, and as many again under way and in doubt: about 200 bytes each.
const POSITIONS_MAX: usize = 131_072;
/// Fetched batches in open segments, and as much again under way.
const MEMORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A segment is small below this part of its largest size: half a MiB by default.
const SMALL_PART: u64 = 256;
/// Small segments close at most so often within the age of a segment: every ten seconds by default.
const GUSTS: u64 = 6;
/// Small segments may keep this part of the buffer from being released.
const WAITING_PART: u64 = 4;
const REFRESH_MS_MIN: i64 = 1_000;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
const IDENTITY_POLL: Duration = Duration::from_millis(100);

async fn adopt_if_orphaned(directory: &Directory) -> Result<Option<crate::buffer::Adopted>, SegmenterError> {
    if !directory.path().exists() {
        return Ok(None);
    }
    let directory = directory.clone();
    let adopted = tokio::task::spawn_blocking(move || adopt(&directory)).await;
    match adopted {
        Ok(Ok(adopted)) => Ok(Some(adopted)),
        // A writer lives: its buffer is followed until it ends.
        Ok(Err(BufferError::Locked(teeline_runtime::lock::LockError::Held { .. }))) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(SegmenterError::Stopped {
            part: "blocking pool",
        }),
    }
}

/// Waits for the buffer's first writer.
async fn identity(
    reader: &Reader,
    options: &Options,
    health: &ComponentHealth,
    shutdown: &Shutdown,
) -> Result<Option<BufferIdentity>, SegmenterError> {
    loop {
        if let Some(identity) = reader.identity()? {
            return Ok(Some(identity));
        }
        if options.until_drained || options.source_lost || shutdown.is_triggered() {
            return Ok(None);
        }
        health.not_ready("the buffer has no writer yet");
        tokio::select! {
            () = shutdown.triggered() => {}
            () = tokio::time::sleep(IDENTITY_POLL) => {}
        }
    }
}

/// Checks the store and reads the ledger, waiting for the store as long as it takes.
async fn open_ledger(
    options: &Options,
    identity: &BufferIdentity,
    health: &ComponentHealth,
    shutdown: &Shutdown,
) -> Result<Option<Ledger>, SegmenterError> {
    let probe = || async {
        let nonce = rand::random();
        let key = names::probe_key(&options.backup_id, nonce)
            .map_err(|error| SegmenterError::Usage(error.to_string()))?;
        Ok(options.store.probe_conditional_put(&key).await?)
    };
    match patiently(probe, health, shutdown).await? {
        None => return Ok(None),
        Some(Probe::SingleWriterDeclared) => {
            tracing::info!(cluster = %options.name, "single_writer is declared: conditional puts are not checked");
        }
        Some(Probe::Honoured) => {}
    }
    let store: &Store = &options.store;
    let load = || Ledger::load(store.clone(), &options.backup_id, identity.writer);
    patiently(load, health, shutdown).await
}

/// Repeats what the store may still answer; `None` when told to stop.
async fn patiently<T, F: Future<Output = Result<T, SegmenterError>>>(
    attempt: impl Fn() -> F,
    health: &ComponentHealth,
    shutdown: &Shutdown,
) -> Result<Option<T>, SegmenterError> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(Some(value)),
            Err(SegmenterError::Store(error)) => suitable(error)?,
            Err(error) => return Err(error),
        };
        tracing::warn!(%error, "the archive does not answer; trying again");
        health.not_ready(error.to_string());
        if shutdown.run_until(backoff.wait()).await.is_none() {
            return Ok(None);
        }
    }
}

/// Gives back what may pass.
fn suitable(error: StoreError) -> Result<StoreError, SegmenterError> {
    use teeline_runtime::StoreErrorKind::{Refused, Unavailable, Unsupported};
    match error.kind() {
        Unsupported => Err(SegmenterError::UnsuitableStore {
            reason: error.to_string(),
        }),
        // Credentials are put right while we wait, by a person or by rotation; capture goes on meanwhile.
        Unavailable | Refused => Ok(error),
        _ => Err(error.into()),
    }
}

fn sink(
    options: &Options,
    identity: &BufferIdentity,
    ledger: &Ledger,
    clock: Arc<dyn Clock>,
) -> Arc<SegmentSink> {
    let state = ledger.state();
    let used = state
        .chain(identity.writer)
        .map(|chain| chain.counters.values().copied().max().unwrap_or(0));
    // A random start keeps this run's names apart from those of a run that died before its commit: an upload of that
    // run which is still under way must not meet a name of ours.
    let start = used
        .unwrap_or(0)
        .saturating_add(rand::rng().random_range(1..COUNTER_LEAP));
    let sink = SegmentSink::new(
        options.store.clone(),
        &options.backup_id,
        identity.writer,
        &options.settings,
        clock,
        start,
    );
    sink.set_session(SessionId(0));
    Arc::new(sink)
}

/// Restarts take at most this many numbers each of the 32 bits there are.
const COUNTER_LEAP: u32 = 50_000;
