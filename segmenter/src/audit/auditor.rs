//! Rounds: what the ledger has, what the logs have, the verdicts, what follows from them.
//!
//! The order within a round matters. The ledger is read first and the logs are surveyed after it, so that a survey is
//! never older than a segment that it is compared with. What is committed is true by itself, entry by entry: a round may
//! end at any moment, and whatever it had not committed is found again by the next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use teeline_archive::ids::{SessionId, WriterId};
use teeline_archive::ledger::{AbsenceReason, Entry, LedgerState, PartitionState, Superseded};
use teeline_archive::segment::SegmentInfo;
use teeline_archive::{OffsetRange, OffsetSet};
use teeline_config::{Segmenter as SegmentSettings, StartAt, TopicFilter};
use teeline_runtime::{Backoff, Clock, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::ages::Watermarks;
use super::compare;
use super::entries::{self, Sighting};
use super::error::AuditError;
use super::judge::{self, Case, Doubt, Verdict};
use super::upstream::{
    Bounds, Configs, EpochAnswer, EpochQuestion, LogPartition, Silence, Survey, SurveyRequest, Upstream,
};
use crate::chain::{CommitFailure, Ledger};
use crate::fetcher::{self, Fetch, FetchJob, Found, JobReport};
use crate::metrics;
use crate::partition::PartitionId;
use crate::writer::SegmentSink;

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
    /// How old a high watermark must be to be demanded.
    pub grace: Duration,
    /// The longest time for which a partition that grows is not written down anew.
    pub report_interval: Duration,
    /// How segments are built.
    pub segments: SegmentSettings,
}

/// What of the logs is to be held.
#[derive(Debug, Clone)]
pub enum Demand {
    /// Everything below a high watermark that has the grace's age.
    Aged,
    /// Everything below the high watermark.
    Now,
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
    /// Partitions that could not be judged now.
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
    sink: Arc<SegmentSink>,
    watermarks: Watermarks,
    memory: HashMap<PartitionId, Memory>,
    topics: HashMap<Uuid, TopicMemory>,
    /// Doubts that a comparison could not decide, by segment and leader epoch.
    undecided: HashSet<(String, i32)>,
    /// The ledger had audits when we came: partitions that are new now were created since.
    has_history: bool,
    denied: BTreeSet<Arc<str>>,
    manifest_ms: i64,
    manifest_stale: bool,
}

/// What is remembered of a partition between rounds.
#[derive(Default)]
struct Memory {
    leader_epoch: i32,
    ends: BTreeMap<i32, EpochAnswer>,
    start: Option<i64>,
    last: Option<(Fingerprint, Verdict)>,
    /// Batches that the source cannot give whole: not asked for again before that moment.
    unreadable: Option<(Instant, OffsetSet)>,
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
            settings,
            store,
            upstream,
            clock,
            ledger,
            sink: Arc::new(sink),
            memory: HashMap::new(),
            topics: HashMap::new(),
            undecided: HashSet::new(),
            has_history,
            denied: BTreeSet::new(),
            manifest_ms: 0,
            manifest_stale: false,
        })
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
        let request = SurveyRequest {
            topics: &self.settings.topics,
            known: &known,
        };
        // A watermark is at least as old as the question for it.
        let asked_at = Instant::now();
        let survey = self.upstream.survey(request).await?;
        self.check_cluster(&survey)?;
        let now_ms = self.clock.now_ms();
        let mut round = Round {
            cluster_id: Arc::clone(&survey.cluster_id),
            missing: survey.missing.clone(),
            ..Round::default()
        };
        let seen = self.sight(&survey, demand, asked_at, &mut round).await;
        self.learn_ends(&seen).await;
        self.learn_configs(&survey, asked_at).await;
        for seen in &seen {
            self.judge(seen, now_ms, &mut round).await;
        }
        self.write_topics(&survey, now_ms, &mut round);
        self.write_unseen(&survey, asked_at, now_ms, &mut round);
        self.forget(&survey);
        Ok(round)
    }

    /// Writes entries to the ledger, waiting for the store as long as it takes.
    ///
    /// # Errors
    /// When we are fenced, or the ledger cannot be written at all.
    pub async fn commit(&mut self, cluster_id: &str, entries: Vec<Entry>) -> Result<(), AuditError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let part: Vec<Entry> = entries.by_ref().take(ENTRIES_AT_ONCE).collect();
            let commit = self
                .ledger
                .prepare(cluster_id, part, rand::random(), self.clock.now_ms());
            let began = Instant::now();
            let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
            loop {
                match self.ledger.commit(&commit).await {
                    Ok(()) => break,
                    Err(CommitFailure::Fatal(error)) => return Err(error.into()),
                    Err(CommitFailure::Store(error)) => {
                        metrics::commit_failed();
                        tracing::warn!(backup_id = %self.settings.backup_id, seq = commit.seq, %error,
                            "an audit could not be committed; trying again");
                        backoff.wait().await;
                    }
                }
            }
            metrics::committed(began.elapsed().as_secs_f64());
            self.manifest_stale = true;
        }
        Ok(())
    }

    /// Writes the view for people, if it is not up to date and `at_once` or its interval allows it.
    pub async fn write_manifest(&mut self, at_once: bool) {
        let now_ms = self.clock.now_ms();
        let interval_ms = i64::try_from(self.settings.segments.manifest_interval_ms).unwrap_or(i64::MAX);
        let is_due = at_once || now_ms.saturating_sub(self.manifest_ms) >= interval_ms;
        if !self.manifest_stale || !is_due {
            return;
        }
        self.manifest_ms = now_ms;
        match self.ledger.write_manifest(now_ms).await {
            Ok(()) => {
                self.manifest_stale = false;
                metrics::manifest_written();
            }
            Err(error) => {
                let reason = teeline_runtime::exit::error_chain(&error);
                tracing::warn!(error = %reason, "manifest.json could not be written; trying again later");
            }
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

    /// The partitions that can be judged, with what is demanded of them.
    async fn sight(
        &mut self,
        survey: &Survey,
        demand: &Demand,
        asked_at: Instant,
        round: &mut Round,
    ) -> Vec<Seen> {
        let mut seen = Vec::new();
        for topic in &survey.topics {
            for found in &topic.partitions {
                let id = PartitionId {
                    incarnation: topic.incarnation,
                    partition: found.partition,
                };
                let Ok(bounds) = found.bounds else {
                    round.unjudged = round.unjudged.saturating_add(1);
                    continue;
                };
                let aged = self.watermarks.see(id, bounds.high_watermark, asked_at);
                let demanded_to = match demand {
                    Demand::Aged => aged,
                    Demand::Now => bounds.high_watermark,
                    Demand::Until(ends) => ends.get(&id).copied().unwrap_or(0),
                };
                seen.push(Seen {
                    partition: LogPartition {
                        topic: Arc::clone(&topic.name),
                        id,
                    },
                    bounds,
                    demanded_to: demanded_to.min(bounds.high_watermark),
                    start: 0,
                });
            }
        }
        self.find_starts(&mut seen, round).await;
        // From now on, what is new was created while we looked.
        self.has_history = true;
        seen
    }

    /// Where the backup begins in each partition. Those without an answer are not judged now.
    async fn find_starts(&mut self, seen: &mut Vec<Seen>, round: &mut Round) {
        let mut by_time = Vec::new();
        for seen in seen.iter() {
            let last = partition_state(self.ledger.state(), &seen.partition)
                .and_then(PartitionState::audit)
                .map(|audit| audit.start_offset);
            let is_new_log = self.has_history && last.is_none();
            let memory = self.memory.entry(seen.partition.id).or_default();
            if memory.start.is_some() {
                continue;
            }
            let earlier = |start: i64| last.map_or(start, |last| last.min(start));
            match self.settings.start {
                StartAt::Earliest => memory.start = Some(0),
                // What was created while we looked is all of it younger than our beginning.
                StartAt::Latest if is_new_log => memory.start = Some(0),
                StartAt::Latest => memory.start = Some(last.unwrap_or(seen.bounds.high_watermark)),
                StartAt::Offset(offset) => memory.start = Some(earlier(offset.max(0))),
                StartAt::Timestamp(_) => by_time.push((seen.partition.clone(), last)),
            }
        }
        if let (StartAt::Timestamp(timestamp), false) = (self.settings.start, by_time.is_empty()) {
            let partitions: Vec<LogPartition> =
                by_time.iter().map(|(partition, _)| partition.clone()).collect();
            let answers = self.upstream.offsets_at(&partitions, timestamp).await;
            for ((partition, last), answer) in by_time.into_iter().zip(answers) {
                let Some(memory) = self.memory.get_mut(&partition.id) else {
                    continue;
                };
                memory.start = answer.map(|found| last.map_or(found, |last| last.min(found)));
            }
        }
        seen.retain_mut(|seen| {
            match self
                .memory
                .get(&seen.partition.id)
                .and_then(|memory| memory.start)
            {
                Some(start) => {
                    seen.start = start;
                    true
                }
                None => {
                    round.unjudged = round.unjudged.saturating_add(1);
                    false
                }
            }
        });
    }

    /// Asks where the leader epochs in question end. Under one leader the answers stay the same.
    async fn learn_ends(&mut self, seen: &[Seen]) {
        let mut questions = Vec::new();
        for seen in seen {
            let memory = self.memory.entry(seen.partition.id).or_default();
            if memory.leader_epoch != seen.bounds.leader_epoch {
                memory.leader_epoch = seen.bounds.leader_epoch;
                memory.ends.clear();
            }
            let Some(state) = partition_state(self.ledger.state(), &seen.partition) else {
                continue;
            };
            questions.extend(
                judge::epochs_in_question(state, seen.bounds.leader_epoch)
                    .into_iter()
                    .filter(|epoch| !memory.ends.contains_key(epoch))
                    .map(|leader_epoch| EpochQuestion {
                        partition: seen.partition.clone(),
                        leader_epoch,
                    }),
            );
        }
        if questions.is_empty() {
            return;
        }
        let answers = self.upstream.epoch_ends(&questions).await;
        for (question, answer) in questions.into_iter().zip(answers) {
            if let (Some(memory), Some(answer)) = (self.memory.get_mut(&question.partition.id), answer) {
                memory.ends.insert(question.leader_epoch, answer);
            }
        }
    }

    /// Asks for the settings of topics that were not asked for yet.
    async fn learn_configs(&mut self, survey: &Survey, now: Instant) {
        let mut names = Vec::new();
        for topic in &survey.topics {
            let memory = self.topics.entry(topic.incarnation).or_default();
            let is_due = memory
                .asked_at
                .is_none_or(|at| now.duration_since(at) >= CONFIGS_INTERVAL);
            if is_due {
                memory.asked_at = Some(now);
                names.push(Arc::clone(&topic.name));
            }
        }
        if names.is_empty() {
            return;
        }
        let mut found = self.upstream.topic_configs(&names).await;
        for topic in &survey.topics {
            if let (Some(memory), Some(configs)) =
                (self.topics.get_mut(&topic.incarnation), found.remove(&topic.name))
            {
                memory.configs = Some(configs);
            }
        }
    }

    fn cleanup_policy(&self, incarnation: Uuid) -> &str {
        self.topics
            .get(&incarnation)
            .and_then(|topic| topic.configs.as_ref())
            .map_or("", entries::cleanup_policy)
    }

    async fn judge(&mut self, seen: &Seen, now_ms: i64, round: &mut Round) {
        let id = seen.partition.id;
        let state = partition_state(self.ledger.state(), &seen.partition);
        let fingerprint = fingerprint(seen, state);
        let no_ends = BTreeMap::new();
        let memory = self.memory.get(&id);
        let last = memory.and_then(|memory| memory.last.as_ref());
        let verdict = match last.filter(|(of, _)| *of == fingerprint) {
            Some((_, verdict)) => verdict.clone(),
            None => {
                let case = Case {
                    partition: &seen.partition,
                    state,
                    bounds: seen.bounds,
                    ends: memory.map_or(&no_ends, |memory| &memory.ends),
                    start: seen.start,
                    demanded_to: seen.demanded_to,
                    cleanup_policy: self.cleanup_policy(id.incarnation),
                    now_ms,
                };
                match judge::judge(&case) {
                    Some(verdict) => verdict,
                    None => {
                        round.unjudged = round.unjudged.saturating_add(1);
                        return;
                    }
                }
            }
        };
        let compared = self.compare(seen, &verdict, now_ms).await;
        round.entries.extend(compared.into_iter().map(Entry::Superseded));
        round
            .entries
            .extend(verdict.superseded.iter().cloned().map(Entry::Superseded));
        round
            .entries
            .extend(verdict.absences.iter().cloned().map(Entry::Absent));
        self.write_audit(seen, now_ms, round);
        let wanted = self.readable(id, &verdict.wanted);
        let window = OffsetRange::new(
            seen.start.max(seen.bounds.log_start),
            seen.bounds.high_watermark.saturating_sub(1),
        );
        let span = |ranges: &[OffsetRange]| {
            ranges
                .iter()
                .fold(0u64, |sum, range| sum.saturating_add(range.span()))
        };
        let lag = window.map_or(0, |window| span(&verdict.explained.holes(window)));
        round.partitions.insert(
            id,
            PartitionReport {
                topic: Arc::clone(&seen.partition.topic),
                start: seen.start,
                bounds: seen.bounds,
                demanded_to: seen.demanded_to,
                wanted: span(&wanted),
                lag,
                held: verdict.held.span(),
            },
        );
        if !wanted.is_empty() {
            round.jobs.push(FetchJob {
                id,
                topic: Arc::clone(&seen.partition.topic),
                cluster_id: Arc::clone(&round.cluster_id),
                leader: id.partition,
                is_compacted: self.cleanup_policy(id.incarnation).contains("compact"),
                ranges: wanted,
            });
        }
        self.memory.entry(id).or_default().last = Some((fingerprint, verdict));
    }

    /// Settles doubts by comparing contents; what the store does not give now is compared in a later round.
    async fn compare(&mut self, seen: &Seen, verdict: &Verdict, now_ms: i64) -> Vec<Superseded> {
        let mut found = Vec::new();
        for doubt in verdict.doubts.iter().take(DOUBTS_AT_ONCE) {
            let key = (doubt.segment.key.clone(), seen.bounds.leader_epoch);
            if self.undecided.contains(&key) {
                continue;
            }
            let Some(state) = partition_state(self.ledger.state(), &seen.partition) else {
                continue;
            };
            let doubtful: HashSet<&str> = verdict
                .doubts
                .iter()
                .map(|doubt| doubt.segment.key.as_str())
                .collect();
            let is_sure = |segment: &SegmentInfo| {
                segment.leader_epoch_last >= 0 && !doubtful.contains(segment.key.as_str())
            };
            match compare::compare(&self.store, state, doubt, is_sure).await {
                Ok(comparison) => {
                    if comparison.same.is_empty() && comparison.different.is_empty() {
                        self.undecided.insert(key);
                    }
                    for (ranges, same) in [(&comparison.same, true), (&comparison.different, false)] {
                        found.extend(
                            ranges
                                .ranges()
                                .iter()
                                .map(|range| by_contents(seen, doubt, *range, same, now_ms)),
                        );
                    }
                }
                Err(error) => {
                    let reason = teeline_runtime::exit::error_chain(&error);
                    tracing::warn!(topic = %seen.partition.topic, partition = seen.partition.id.partition,
                        segment = %doubt.segment.key, error = %reason,
                        "a captured segment could not be compared with the log");
                    if !matches!(error, compare::CompareError::Store(_)) {
                        self.undecided.insert(key);
                    }
                }
            }
        }
        found
    }

    fn write_audit(&self, seen: &Seen, now_ms: i64, round: &mut Round) {
        let no_ends = BTreeMap::new();
        let sighting = Sighting {
            partition: &seen.partition,
            bounds: seen.bounds,
            start: seen.start,
            ends: self
                .memory
                .get(&seen.partition.id)
                .map_or(&no_ends, |memory| &memory.ends),
            now_ms,
        };
        let state = partition_state(self.ledger.state(), &seen.partition);
        let report_after_ms = i64::try_from(self.settings.report_interval.as_millis()).unwrap_or(i64::MAX);
        let audit =
            entries::partition_audit(&sighting, state.and_then(PartitionState::audit), report_after_ms);
        round.entries.extend(audit.map(Entry::Audit));
    }

    fn write_topics(&self, survey: &Survey, now_ms: i64, round: &mut Round) {
        let state = self.ledger.state();
        for topic in &survey.topics {
            let known = state.topic(&topic.name, topic.incarnation);
            let configs = self
                .topics
                .get(&topic.incarnation)
                .and_then(|topic| topic.configs.as_ref());
            let snapshot = entries::topic_snapshot(topic, known, configs, now_ms);
            round.entries.extend(snapshot.map(Entry::Topic));
        }
        let mut brokers = state.source_brokers().to_vec();
        brokers.sort();
        // Fewer of the same are brokers that are down for a while.
        if survey.brokers.iter().any(|broker| !brokers.contains(broker)) {
            round.entries.push(Entry::SourceBrokers(survey.brokers.clone()));
        }
    }

    /// Explains the holes of partitions that cannot be looked at: deleted with their topic, or not ours to read.
    fn write_unseen(&mut self, survey: &Survey, now: Instant, now_ms: i64, round: &mut Round) {
        let denied: BTreeSet<Arc<str>> = survey
            .missing
            .iter()
            .filter(|(_, silence)| *silence == Silence::NotAllowed)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in denied.difference(&self.denied) {
            tracing::warn!(topic = %name, backup_id = %self.settings.backup_id,
                "the topic may not be described or read by the auditor's principal: its completeness cannot be shown \
                 (hint: grant DESCRIBE and READ)");
        }
        self.denied = denied;
        let there: HashSet<Uuid> = survey.topics.iter().map(|topic| topic.incarnation).collect();
        let unclear = |name: &str| {
            survey
                .missing
                .iter()
                .any(|(missing, silence)| **missing == *name && *silence == Silence::NotNow)
        };
        for (key, incarnation) in self.ledger.state().topics() {
            if !self.settings.topics.matches(&key.name)
                || there.contains(&key.incarnation)
                || unclear(&key.name)
            {
                continue;
            }
            let topic: Arc<str> = Arc::from(key.name.as_str());
            let reason = if self.denied.contains(&topic) {
                AbsenceReason::NotAuditable
            } else {
                let memory = self.topics.entry(key.incarnation).or_default();
                let since = *memory.gone_since.get_or_insert(now);
                if now.duration_since(since) < GONE_AFTER {
                    continue;
                }
                AbsenceReason::Deleted
            };
            for (number, state) in incarnation.partitions() {
                let id = PartitionId {
                    incarnation: key.incarnation,
                    partition: number,
                };
                let partition = LogPartition {
                    topic: Arc::clone(&topic),
                    id,
                };
                let unseen = entries::unseen(&partition, state, reason, now_ms);
                round.entries.extend(unseen.into_iter().map(Entry::Absent));
            }
        }
        for topic in &survey.topics {
            if let Some(memory) = self.topics.get_mut(&topic.incarnation) {
                memory.gone_since = None;
            }
        }
    }

    fn forget(&mut self, survey: &Survey) {
        let there: HashSet<Uuid> = survey.topics.iter().map(|topic| topic.incarnation).collect();
        self.watermarks.retain(|id| there.contains(&id.incarnation));
        self.memory.retain(|id, _| there.contains(&id.incarnation));
    }

    /// What is wanted, without batches that the source could not give whole a while ago.
    fn readable(&self, id: PartitionId, wanted: &[OffsetRange]) -> Vec<OffsetRange> {
        let aside = self.memory.get(&id).and_then(|memory| memory.unreadable.as_ref());
        match aside.filter(|(until, _)| Instant::now() < *until) {
            Some((_, set)) => wanted.iter().flat_map(|range| set.holes(*range)).collect(),
            None => wanted.to_vec(),
        }
    }

    fn note_unreadable(&mut self, jobs: &[JobReport]) {
        for job in jobs.iter().filter(|job| !job.unreadable.is_empty()) {
            let ranges = job.unreadable.iter().map(|(range, _)| *range).collect();
            let memory = self.memory.entry(job.id).or_default();
            memory.unreadable = Some((Instant::now() + UNREADABLE_FOR, ranges));
        }
    }
}

fn by_contents(seen: &Seen, doubt: &Doubt, range: OffsetRange, same: bool, now_ms: i64) -> Superseded {
    Superseded {
        topic: seen.partition.topic.to_string(),
        incarnation: seen.partition.id.incarnation,
        partition: seen.partition.id.partition,
        segment: doubt.segment.key.clone(),
        first_offset: range.first,
        last_offset: range.last,
        leader_epoch: doubt.segment.leader_epoch_last,
        end_offset: -1,
        at_ms: now_ms,
        same,
    }
}

fn fingerprint(seen: &Seen, state: Option<&PartitionState>) -> Fingerprint {
    Fingerprint {
        bounds: seen.bounds,
        demanded_to: seen.demanded_to,
        start: seen.start,
        segments: state.map_or(0, |state| state.segments().len()),
        absences: state.map_or(0, |state| state.absences().len()),
        superseded: state.map_or(0, |state| {
            state
                .superseded()
                .len()
                .saturating_add(state.superseded_copies().len())
        }),
        audited_ms: state
            .and_then(PartitionState::audit)
            .map_or(-1, |audit| audit.at_ms),
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
/// Comparisons of one partition in one round: each reads a segment.
const DOUBTS_AT_ONCE: usize = 16;
const CONFIGS_INTERVAL: Duration = Duration::from_secs(600);
/// How long a topic must be missing to be believed gone: metadata of brokers differ for moments.
const GONE_AFTER: Duration = Duration::from_secs(60);
const UNREADABLE_FOR: Duration = Duration::from_secs(600);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
