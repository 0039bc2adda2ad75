//! Rounds: what the ledger has, what the logs have, the verdicts, what follows from them.
//!
//! The order within a round matters. The ledger is read first and the logs are surveyed after it, so that a survey is
//! never older than a segment that it is compared with. What is committed is true by itself, entry by entry: a round may
//! end at any moment, and whatever it had not committed is found again by the next.

mod sight;
mod verdicts;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::ledger::{Entry, LedgerState, PartitionState};
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_config::{Segmenter as SegmentSettings, StartAt, TopicFilter, TopicPattern};
use teeline_runtime::{Backoff, Clock, Shutdown, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::ages::Watermarks;
use super::entries::{self, Sighting};
use super::error::AuditError;
use super::judge::Verdict;
use super::upstream::{Bounds, Configs, EpochAnswer, LogPartition, Silence, Survey, SurveyRequest, Upstream};
use crate::chain::{CommitFailure, Ledger};
use crate::fetcher::{self, Fetch, FetchJob, Found, JobReport};
use crate::metrics;
use crate::partition::PartitionId;
use crate::writer::SegmentSink;
use waiting::Waiting;

/// What an auditor is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names it in logs and metrics.
    pub name: String,
    /// The backup.
    pub backup_id: String,
    /// Which topics.
    pub topics: TopicFilter,
    /// Where partitions begin.
    pub start: StartAt,
    /// Where those of some topics begin instead: the first pattern that matches counts.
    pub start_by_topic: Vec<(TopicPattern, StartAt)>,
    /// How old a high watermark must be to be demanded.
    pub grace: Duration,
    /// The longest time for which a partition that grows is not written down anew.
    pub report_interval: Duration,
    /// How segments are built.
    pub segments: SegmentSettings,
}

impl Settings {
    fn start_of(&self, topic: &str) -> StartAt {
        let own = self
            .start_by_topic
            .iter()
            .find(|(pattern, _)| pattern.matches(topic));
        own.map_or(self.start, |(_, start)| *start)
    }
}

/// What of the logs is to be held.
#[derive(Debug, Clone)]
pub enum Demand {
    /// Everything below a high watermark that has the grace's age.
    Aged,
    /// Everything below the high watermark.
    Now,
    /// The same, but for partitions that are known to be as they were in the last round: they are not looked at.
    NowBut(BTreeSet<PartitionId>),
    /// Everything below these offsets, as far as it is below the high watermark. Partitions that are not named: nothing.
    Until(BTreeMap<PartitionId, i64>),
}

/// What a round is to do.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// The cluster that answered.
    pub cluster_id: Arc<str>,
    /// What is to be fetched.
    pub jobs: Vec<FetchJob>,
    /// What is to be written down, whatever is fetched.
    pub entries: Vec<Entry>,
    /// All partitions that were judged.
    pub partitions: BTreeMap<PartitionId, PartitionReport>,
    /// Topics that exist and may not be looked at, and topics named in the filter that do not exist.
    pub missing: Vec<(Arc<str>, Silence)>,
    /// Partitions that could not be judged now, and topics of which not even the partitions are known now.
    pub unjudged: usize,
}

/// One partition as a round found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// Topic.
    pub topic: Arc<str>,
    /// Where the backup begins.
    pub start: i64,
    /// How far the log reaches.
    pub bounds: Bounds,
    /// Everything below this is demanded.
    pub demanded_to: i64,
    /// Offsets that are to be fetched.
    pub wanted: u64,
    /// Offsets of the log, from where the backup begins, that are neither held nor explained, young ones included.
    pub lag: u64,
    /// Offsets held.
    pub held: u64,
    /// Offsets held or explained.
    pub explained: OffsetSet,
    /// Offsets held of which it is still to be compared whether the log has the same records.
    pub awaiting: u64,
}

/// What became of a round.
#[derive(Debug, Default)]
pub struct RoundReport {
    /// What it was to do; its jobs and entries are gone.
    pub round: Round,
    /// What became of the fetches.
    pub jobs: Vec<JobReport>,
    /// Segments committed.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Offsets recorded as superseded.
    pub superseded: u64,
    /// Entries committed.
    pub entries: u64,
}

/// One auditor, for as long as it is not fenced.
pub struct Auditor {
    settings: Settings,
    store: Store,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    commits: CommitPatience,
    sink: Arc<SegmentSink>,
    watermarks: Watermarks,
    waiting: Waiting,
    memory: HashMap<PartitionId, Memory>,
    topics: HashMap<Uuid, TopicMemory>,
    /// The ledger had audits when we came: partitions that are new now were created since.
    has_history: bool,
    denied: BTreeSet<Arc<str>>,
}

/// How long a commit waits for a store that does not take it.
#[derive(Debug, Clone, Default)]
struct CommitPatience {
    /// None waits for ever.
    longest: Option<Duration>,
    /// Nobody waits long for a process that is to stop.
    stop: Shutdown,
}

impl CommitPatience {
    /// Waits, and ends when the wait is over that began then.
    async fn is_over(&self, began: Instant) {
        let longest = async {
            match self.longest {
                Some(longest) => tokio::time::sleep_until(began + longest).await,
                None => std::future::pending().await,
            }
        };
        let stopping = async {
            self.stop.triggered().await;
            tokio::time::sleep(STOPPING_PATIENCE).await;
        };
        tokio::select! {
            () = longest => {}
            () = stopping => {}
        }
    }
}

/// What is remembered of a partition between rounds.
#[derive(Default)]
struct Memory {
    leader_epoch: i32,
    ends: BTreeMap<i32, EpochAnswer>,
    start: Option<i64>,
    topic: Option<Arc<str>>,
    last: Option<(Fingerprint, Verdict)>,
    /// When the survey was made on which that verdict was, or was found to hold still, in epoch milliseconds.
    judged_ms: i64,
    /// Doubts that a comparison under this leader could not decide: not compared again as long as nothing is added.
    undecided: HashSet<Undecided>,
    /// Batches that the source cannot give whole: not asked for again before that moment.
    unreadable: Option<(Instant, OffsetSet)>,
}

/// What was compared in vain.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Undecided {
    segment: String,
    ranges: Vec<OffsetRange>,
    compared_with: Vec<String>,
}

/// What a verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    bounds: Bounds,
    demanded_to: i64,
    start: i64,
    segments: usize,
    absences: usize,
    superseded: usize,
    audited_ms: i64,
}

/// What is remembered of a topic between rounds.
#[derive(Default)]
struct TopicMemory {
    configs: Option<Configs>,
    asked_at: Option<Instant>,
    gone_since: Option<Instant>,
}

/// What is known of a partition within a round.
struct Seen {
    partition: LogPartition,
    leader: i32,
    bounds: Bounds,
    demanded_to: i64,
    start: i64,
}

impl Auditor {
    /// Reads the ledger.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open(
        settings: Settings,
        store: Store,
        upstream: Arc<dyn Upstream>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuditError> {
        let ledger = Ledger::load(store.clone(), &settings.backup_id, WriterId::AUDITOR).await?;
        let sink = SegmentSink::new(
            store.clone(),
            &settings.backup_id,
            WriterId::AUDITOR,
            &settings.segments,
            Arc::clone(&clock),
            0,
        );
        // All auditors write under one name, so a random session keeps their segments apart.
        sink.set_session(SessionId(rand::rng().random_range(1..=u64::MAX / 2)));
        let has_history = partitions_of(ledger.state()).any(|(_, state)| state.audit().is_some());
        Ok(Auditor {
            watermarks: Watermarks::new(settings.grace),
            waiting: Waiting::new(
                settings.grace,
                Duration::from_millis(settings.segments.small_segment_max_interval_ms),
                settings.segments.small_segments_per_minute,
            ),
            settings,
            store,
            upstream,
            clock,
            ledger,
            commits: CommitPatience::default(),
            sink: Arc::new(sink),
            memory: HashMap::new(),
            topics: HashMap::new(),
            has_history,
            denied: BTreeSet::new(),
        })
    }

    /// Lets a commit fail when the store has not taken it for so long, or a moment after `stop`. Without it a commit waits
    /// for ever.
    pub fn limit_commits(&mut self, longest: Option<Duration>, stop: Shutdown) {
        self.commits = CommitPatience { longest, stop };
    }

    /// Where fetched segments go.
    pub fn sink(&self) -> Arc<SegmentSink> {
        Arc::clone(&self.sink)
    }

    /// What the ledger says, as last read.
    pub fn ledger(&self) -> &LedgerState {
        self.ledger.state()
    }

    /// Plans a round, fetches, and commits what is found as it comes.
    ///
    /// # Errors
    /// When the ledger, the store or the cluster cannot be used, see [`AuditError::may_pass`]. What single partitions
    /// lack is in the report.
    pub async fn round(&mut self, demand: &Demand, fetch: &Fetch) -> Result<RoundReport, AuditError> {
        let mut round = self.plan(demand).await?;
        let jobs = std::mem::take(&mut round.jobs);
        let mut pending = std::mem::take(&mut round.entries);
        let mut report = RoundReport::default();
        let (tell, mut hear) = mpsc::channel(FOUND_AT_ONCE);
        let running = fetcher::run(jobs, fetch, tell);
        tokio::pin!(running);
        let mut is_running = true;
        let mut commit_at = Instant::now() + COMMIT_INTERVAL;
        loop {
            tokio::select! {
                found = hear.recv() => match found {
                    Some(found) => pending.push(self.entry_of(found)),
                    None if !is_running => break,
                    // The last sender goes with the last job.
                    None => {
                        report.jobs = (&mut running).await;
                        break;
                    }
                },
                done = &mut running, if is_running => {
                    report.jobs = done;
                    is_running = false;
                }
                () = tokio::time::sleep_until(commit_at), if !pending.is_empty() => {
                    self.commit_counted(&round.cluster_id, &mut pending, &mut report).await?;
                    commit_at = Instant::now() + COMMIT_INTERVAL;
                }
            }
            if pending.len() >= ENTRIES_AT_ONCE {
                self.commit_counted(&round.cluster_id, &mut pending, &mut report)
                    .await?;
            }
        }
        self.commit_counted(&round.cluster_id, &mut pending, &mut report)
            .await?;
        self.note_unreadable(&report.jobs);
        report.round = round;
        Ok(report)
    }

    /// Reads what is new in the ledger, surveys the logs and judges every partition. Nothing is written.
    ///
    /// # Errors
    /// As [`Auditor::round`].
    pub async fn plan(&mut self, demand: &Demand) -> Result<Round, AuditError> {
        self.ledger.refresh().await?;
        let known: BTreeSet<Arc<str>> = self
            .ledger
            .state()
            .topics()
            .into_iter()
            .filter(|(key, _)| self.settings.topics.matches(&key.name))
            .map(|(key, _)| Arc::from(key.name.as_str()))
            .collect();
        let known: Vec<Arc<str>> = known.into_iter().collect();
        let none = BTreeSet::new();
        let request = SurveyRequest {
            topics: &self.settings.topics,
            known: &known,
            quiet: match demand {
                Demand::NowBut(quiet) => quiet,
                _ => &none,
            },
        };
        // A watermark is at least as old as the question for it.
        let asked_at = Instant::now();
        let survey = self.upstream.survey(request).await?;
        self.check_cluster(&survey)?;
        let now_ms = self.clock.now_ms();
        let mut round = Round {
            cluster_id: Arc::clone(&survey.cluster_id),
            missing: survey.missing.clone(),
            unjudged: survey
                .missing
                .iter()
                .filter(|(_, silence)| *silence == Silence::NotNow)
                .count(),
            ..Round::default()
        };
        let seen = self.sight(&survey, demand, asked_at, &mut round).await;
        self.learn_ends(&seen).await;
        self.learn_configs(&survey, asked_at).await;
        for seen in &seen {
            self.judge(seen, now_ms, &mut round).await;
        }
        self.leave_to_writers(demand, &seen, asked_at, now_ms, &mut round);
        self.write_topics(&survey, now_ms, &mut round);
        self.write_unseen(&survey, asked_at, now_ms, &mut round);
        self.forget(&survey);
        Ok(round)
    }

    /// Writes entries to the ledger, waiting for the store as long as it takes, or as [`Auditor::limit_commits`] allows.
    ///
    /// # Errors
    /// When we are fenced, the ledger cannot be written at all, or the store has not taken a commit for too long.
    pub async fn commit(&mut self, cluster_id: &str, entries: Vec<Entry>) -> Result<(), AuditError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let part: Vec<Entry> = entries.by_ref().take(ENTRIES_AT_ONCE).collect();
            let commit = self
                .ledger
                .prepare(cluster_id, part, rand::random(), self.clock.now_ms());
            let began = Instant::now();
            let patience = self.commits.clone();
            let over = patience.is_over(began);
            tokio::pin!(over);
            let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
            loop {
                // A store client may wait for a single answer longer than all of us should.
                let done = tokio::select! {
                    biased;
                    done = self.ledger.commit(&commit) => done,
                    () = &mut over => return Err(AuditError::Silent { seq: commit.seq }),
                };
                match done {
                    Ok(()) => break,
                    Err(CommitFailure::Fatal(error)) => return Err(error.into()),
                    Err(CommitFailure::Store(error)) => {
                        metrics::commit_failed();
                        tracing::warn!(backup_id = %self.settings.backup_id, seq = commit.seq, %error,
                            "an audit could not be committed; trying again");
                        tokio::select! {
                            biased;
                            () = &mut over => return Err(AuditError::Store(error)),
                            _ = backoff.wait() => {}
                        }
                    }
                }
            }
            metrics::committed(began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// How far the logs reached when they were last looked at, where the ledger does not say so yet.
    pub fn last_seen(&self) -> Vec<Entry> {
        let mut seen = Vec::new();
        for (id, memory) in &self.memory {
            let (Some((fingerprint, _)), Some(topic)) = (&memory.last, &memory.topic) else {
                continue;
            };
            let partition = LogPartition {
                topic: Arc::clone(topic),
                id: *id,
            };
            let sighting = Sighting {
                partition: &partition,
                bounds: fingerprint.bounds,
                start: fingerprint.start,
                ends: &memory.ends,
                now_ms: memory.judged_ms,
            };
            let last = partition_state(self.ledger.state(), &partition).and_then(PartitionState::audit);
            seen.extend(entries::partition_audit(&sighting, last, 0).map(Entry::Audit));
        }
        seen
    }

    /// Writes the view for people, if it is not up to date and `at_once` or its interval allows it.
    pub async fn write_manifest(&mut self, at_once: bool) {
        let now_ms = self.clock.now_ms();
        let is_due = match at_once {
            true => self.ledger.is_manifest_stale(),
            false => {
                let interval_ms = self.settings.segments.manifest_interval_ms;
                self.ledger.is_manifest_due(now_ms, interval_ms)
            }
        };
        if !is_due {
            return;
        }
        if let Err(error) = self.ledger.write_manifest(now_ms).await {
            let reason = teeline_runtime::exit::error_chain(&error);
            tracing::warn!(error = %reason, "manifest.json could not be written; trying again later");
        }
    }

    async fn commit_counted(
        &mut self,
        cluster_id: &str,
        pending: &mut Vec<Entry>,
        report: &mut RoundReport,
    ) -> Result<(), AuditError> {
        if pending.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(pending);
        report.entries = report.entries.saturating_add(entries.len() as u64);
        for entry in &entries {
            match entry {
                Entry::Segment(info) => {
                    report.segments = report.segments.saturating_add(1);
                    report.records = report.records.saturating_add(info.record_count);
                }
                Entry::Superseded(lost) if !lost.same => {
                    report.superseded = report.superseded.saturating_add(lost.range().span());
                }
                _ => {}
            }
        }
        let counted = metrics::AuditCounts::of(&entries);
        self.commit(cluster_id, entries).await?;
        counted.show();
        self.write_manifest(false).await;
        Ok(())
    }

    fn entry_of(&self, found: Found) -> Entry {
        match found {
            Found::Segment(info) => Entry::Segment(*info),
            Found::Absent(gone) => {
                let policy = self.cleanup_policy(gone.id.incarnation);
                Entry::Absent(entries::absence(&gone, policy, self.clock.now_ms()))
            }
        }
    }

    fn check_cluster(&self, survey: &Survey) -> Result<(), AuditError> {
        match self.ledger.state().cluster_id() {
            Some(bound_to) if !bound_to.is_empty() && *bound_to != *survey.cluster_id => {
                Err(AuditError::OtherCluster {
                    backup_id: self.settings.backup_id.clone(),
                    bound_to: bound_to.to_owned(),
                    found: survey.cluster_id.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}

fn partition_state<'a>(ledger: &'a LedgerState, partition: &LogPartition) -> Option<&'a PartitionState> {
    ledger.partition(&partition.topic, partition.id.incarnation, partition.id.partition)
}

fn partitions_of(ledger: &LedgerState) -> impl Iterator<Item = (i32, &PartitionState)> {
    ledger
        .topics()
        .into_iter()
        .flat_map(|(_, incarnation)| incarnation.partitions())
}

/// Fetched segments wait at most so long for their commit; so much is fetched again after a crash.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// Entries of one commit: far below what a commit may hold.
const ENTRIES_AT_ONCE: usize = 5_000;
const FOUND_AT_ONCE: usize = 64;
/// How long a commit waits for the store while the process stops.
const STOPPING_PATIENCE: Duration = Duration::from_secs(1);
/// Comparisons of one partition in one round: each reads a segment.
const DOUBTS_AT_ONCE: usize = 16;
const CONFIGS_INTERVAL: Duration = Duration::from_secs(600);
/// How long a topic must be missing to be believed gone: metadata of brokers differ for moments.
const GONE_AFTER: Duration = Duration::from_secs(60);
const UNREADABLE_FOR: Duration = Duration::from_secs(600);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
