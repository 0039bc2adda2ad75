//! Between two rounds of a continuous backup: who has something new.
//!
//! All archived partitions are followed from where they are archived up to, by one long poll per broker that brings next to
//! nothing but offsets. So an idle cluster costs a small request per broker every few seconds, and a round is made for what
//! has grown ([`super::backlog`]). Topics that come and go are no news of a partition: they are listed once per interval.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use teeline_config::TopicFilter;
use teeline_runtime::exit::error_chain;
use teeline_wire::client::{
    ClientError, Cluster, ErrorCode, TopicPartition, WatchEvent, WatchOptions, WatchStats,
};
use teeline_wire::client::{FetchedPartition, LogWatch};
use tokio::time::Instant;

use super::backlog::{Backlog, Cause, Rules, Scope, Settled};
use crate::audit::kafka::wire_partition;
use crate::audit::upstream::{Bounds, LogPartition, Silence, SurveyRequest};
use crate::audit::{KafkaUpstream, RoundReport};
use crate::metrics;
use crate::partition::PartitionId;

/// Follows what is archived.
pub(super) struct Lookout {
    backup_id: String,
    topics: TopicFilter,
    interval: Duration,
    upstream: Arc<KafkaUpstream>,
    watch: LogWatch,
    backlog: Backlog,
    ids: HashMap<TopicPartition, PartitionId>,
    /// Topics that are missing, as the last round found them.
    missing: BTreeSet<(Arc<str>, bool)>,
    listed_at: Instant,
    /// So long topics that have gone are looked for in every round: they are believed gone only after a while.
    restless_until: Option<Instant>,
    told: WatchStats,
}

impl Lookout {
    /// Follows nothing yet.
    pub(super) fn new(
        backup_id: &str,
        topics: TopicFilter,
        rules: Rules,
        upstream: Arc<KafkaUpstream>,
        cluster: Cluster,
    ) -> Self {
        let now = Instant::now();
        let options = WatchOptions {
            max_wait: rules.interval.clamp(WAIT_MIN, WAIT_MAX),
            max_bytes: RESPONSE_BYTES,
            partition_bytes: 1,
            pace: (rules.interval / 10).clamp(PACE_MIN, PACE_MAX),
            ..WatchOptions::default()
        };
        Lookout {
            backup_id: backup_id.to_owned(),
            topics,
            interval: rules.interval,
            upstream,
            watch: LogWatch::new(cluster, options),
            backlog: Backlog::new(rules, now),
            ids: HashMap::new(),
            missing: BTreeSet::new(),
            listed_at: now,
            restless_until: None,
            told: WatchStats::default(),
        }
    }

    /// Takes in what a round that began then has archived, of everything or of a part.
    pub(super) fn settle(&mut self, report: &RoundReport, scope: &Scope, begun: Instant) {
        let now = Instant::now();
        let round = &report.round;
        let jobs: HashMap<PartitionId, _> = report.jobs.iter().map(|job| (job.id, job)).collect();
        for (id, found) in &round.partitions {
            let job = jobs.get(id);
            let settled = Settled {
                bounds: found.bounds,
                is_done: found.wanted == 0 || job.is_some_and(|job| job.ended.is_done()),
                offsets: job.map_or(0, |job| job.offsets),
                bytes: job.map_or(0, |job| job.bytes),
            };
            self.backlog.settle(*id, &settled, now);
            let partition = LogPartition {
                topic: Arc::clone(&found.topic),
                id: *id,
            };
            let partition = wire_partition(&round.cluster_id, &partition);
            self.watch.follow(partition.clone(), found.bounds.high_watermark);
            self.ids.insert(partition, *id);
        }
        if *scope == Scope::All {
            self.backlog.surveyed(begun);
            self.missing = missing(&round.missing);
        }
        let has_come = |id: &PartitionId| round.partitions.contains_key(id);
        if self.backlog.round_over(scope, has_come, round.unjudged == 0, now) {
            self.restless_until = Some(now + RESTLESS);
            let backlog = &self.backlog;
            self.ids.retain(|_, id| backlog.knows(id));
            self.watch.retain(|partition| self.ids.contains_key(partition));
        }
        if self.restless_until.is_some_and(|until| now < until) {
            self.backlog.unclear(now);
        }
    }

    /// Waits until a round is due. May be dropped anywhere.
    pub(super) async fn wait(&mut self) -> (Cause, Scope) {
        loop {
            let now = Instant::now();
            if let Some(due) = self.backlog.due(now) {
                return due;
            }
            if now >= self.listed_at + self.interval {
                match self.list().await {
                    Ok(false) => {}
                    Ok(true) => return (Cause::Topics, Scope::All),
                    // A round says what is wrong.
                    Err(error) => {
                        tracing::debug!(backup_id = %self.backup_id, error = %error_chain(&error),
                            "topics cannot be listed now");
                        return (Cause::Unclear, Scope::All);
                    }
                }
                continue;
            }
            let wake = self.backlog.due_at(now).min(self.listed_at + self.interval);
            tokio::select! {
                events = self.watch.poll() => {
                    for event in events {
                        self.take(event);
                    }
                    self.backlog.heard();
                    self.count();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Whether topics or partitions have come or gone since the last round.
    async fn list(&mut self) -> Result<bool, ClientError> {
        let request = SurveyRequest {
            topics: &self.topics,
            known: &[],
            quiet: &BTreeSet::new(),
        };
        let listed = self.upstream.list(request).await;
        // One that fails is not tried again at once either: the round that it leads to lists them as well.
        self.listed_at = Instant::now();
        let listed = listed?;
        let there: BTreeSet<PartitionId> = listed
            .topics
            .iter()
            .flat_map(|topic| {
                topic.partitions.iter().map(|partition| PartitionId {
                    incarnation: topic.incarnation,
                    partition: partition.partition,
                })
            })
            .collect();
        let known = self.backlog.ids();
        // What is denied is told by every list, what is gone only by a list of names.
        let denied = missing(&listed.missing);
        let is_new_denial = denied.difference(&self.missing).any(|(_, is_denied)| *is_denied);
        if known.difference(&there).next().is_some() {
            self.restless_until = Some(self.listed_at + RESTLESS);
        }
        Ok(known != there || is_new_denial)
    }

    fn take(&mut self, event: WatchEvent) {
        let now = Instant::now();
        match event {
            WatchEvent::News { partition, fetched } => self.news(partition, &fetched, now),
            WatchEvent::Troubled { partition, error } | WatchEvent::Ended { partition, error } => {
                tracing::debug!(backup_id = %self.backup_id, %partition, error = %error_chain(&error),
                    "a partition cannot be followed now; the next round looks at it");
                let is_about_offset = error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE);
                match self.ids.get(&partition) {
                    Some(id) => self.backlog.lost(*id, now),
                    None if is_about_offset => {}
                    None => self.backlog.unclear(now),
                }
            }
        }
    }

    fn news(&mut self, partition: TopicPartition, fetched: &FetchedPartition, now: Instant) {
        let Some(id) = self.ids.get(&partition) else {
            return self.watch.unfollow(&partition);
        };
        let bounds = Bounds {
            log_start: fetched.log_start_offset,
            high_watermark: fetched.high_watermark,
            leader_epoch: fetched.leader_epoch,
        };
        self.backlog.news(*id, bounds, now);
        // Only what comes behind it is news.
        self.watch.follow(partition, fetched.high_watermark);
    }

    fn count(&mut self) {
        let stats = self.watch.stats();
        metrics::watched(&self.told, &stats);
        self.told = stats;
    }
}

fn missing(found: &[(Arc<str>, Silence)]) -> BTreeSet<(Arc<str>, bool)> {
    found
        .iter()
        .map(|(topic, silence)| (Arc::clone(topic), *silence == Silence::NotAllowed))
        .collect()
}

/// The longest poll: a partition that is added to those of a broker waits so long for the request before it.
const WAIT_MAX: Duration = Duration::from_secs(10);
const WAIT_MIN: Duration = Duration::from_millis(500);
/// On a busy cluster every request would be answered at once.
const PACE_MIN: Duration = Duration::from_millis(50);
const PACE_MAX: Duration = Duration::from_secs(1);
/// Of each answer all but the first batch is offsets.
const RESPONSE_BYTES: i32 = 64 * 1024;
/// Twice as long as the auditor takes to believe that a topic is gone.
const RESTLESS: Duration = Duration::from_secs(120);
