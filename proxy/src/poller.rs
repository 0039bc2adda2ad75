//! The proxy's own questions to the cluster: who are the brokers, what topics are there, how are they configured.
//!
//! A catalog is written when a topic is first seen, then every `catalog_poll_interval` for the topics that had traffic,
//! and a last time on stop: see [`crate::catalog`] for what it is good for. Without traffic only the brokers are asked
//! for, which also tells that they are there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use teeline_archive::buffer::{CatalogTopic, Frame, TopicConfig};
use teeline_archive::ids::BufferPosition;
use teeline_runtime::backoff::Backoff;
use teeline_runtime::clock::Clock;
use teeline_runtime::exit::error_chain;
use teeline_runtime::health::ComponentHealth;
use teeline_runtime::shutdown::Shutdown;
use teeline_wire::client::{
    ClientConfig, ClientError, Cluster as Client, ClusterMetadata, ConfigResource, RetryPolicy,
    TopicMetadata, TopicSelection,
};
use teeline_wire::produce::TopicRef;
use tokio::time::Instant;
use uuid::Uuid;

use crate::brokers::Brokers;
use crate::capture::Capture;
use crate::catalog;
use crate::cluster::{Cluster, Live};
use crate::terms::Terms;

/// Asks the cluster for as long as the proxy runs.
pub(crate) struct Poller {
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    health: ComponentHealth,
    /// How the cluster is asked, and by which configuration.
    client: Option<(Arc<Live>, Client)>,
    brokers: Brokers,
    /// What the catalogs of this session say already.
    known: HashMap<Arc<str>, Known>,
    last_full: Option<Instant>,
    /// Topics that are not captured, and of which something was, that no catalog has told of yet.
    left_out: HashMap<Uuid, CatalogTopic>,
    terms: Terms,
}

struct Known {
    id: Uuid,
    partitions: usize,
    configs: Option<Vec<(String, Option<String>)>>,
}

impl Poller {
    /// A poller that has asked nothing yet.
    pub(crate) fn new(cluster: Arc<Cluster>, clock: Arc<dyn Clock>, health: ComponentHealth) -> Poller {
        Poller {
            brokers: Brokers::new(Arc::clone(&cluster)),
            cluster,
            clock,
            health,
            client: None,
            known: HashMap::new(),
            last_full: None,
            left_out: HashMap::new(),
            terms: Terms::default(),
        }
    }

    /// Asks again and again, with back-off while nobody answers. At `stop` asks a last time, so that what was
    /// answered last can be attributed.
    pub(crate) async fn run(mut self, stop: Shutdown) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let Some(asked) = stop.run_until(self.round()).await else {
                break;
            };
            self.tell(&asked);
            let pause = match asked {
                Ok(()) => {
                    backoff.reset();
                    self.pause(&stop).await
                }
                Err(_) => stop.run_until(backoff.wait()).await.map(|_| ()),
            };
            if pause.is_none() {
                break;
            }
        }
        let last = async {
            let asked = self.round().await;
            self.terms.finish().await;
            asked
        };
        if let Ok(Err(error)) = tokio::time::timeout(LAST_ROUND_MAX, last).await {
            tracing::info!(
                cluster = self.cluster.name,
                "no last catalog: {}",
                error_chain(&error)
            );
        }
    }

    /// Waits for the next round; none when it is time to stop.
    async fn pause(&self, stop: &Shutdown) -> Option<()> {
        let first_seen = async {
            match &self.cluster.capture {
                Some(capture) => capture.topics.unknown.notified().await,
                None => std::future::pending().await,
            }
            // More topics follow the first, mostly.
            tokio::time::sleep(DEBOUNCE).await;
        };
        let interval = self.cluster.live.load().catalog_poll_interval;
        stop.run_until(async {
            tokio::select! {
                () = first_seen => {}
                () = self.cluster.trouble.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
        })
        .await
    }

    fn tell(&self, asked: &Result<(), ClientError>) {
        match asked {
            Ok(()) => {
                self.cluster.metrics.upstream_up.set(1.0);
                self.health.ready();
            }
            Err(error) => {
                self.cluster.metrics.upstream_up.set(0.0);
                self.cluster.metrics.catalog_failures.increment(1);
                // Only the cause: attempts and times would make each round a new state.
                self.health
                    .not_ready(format!("no broker answers: {}", root_cause(error)));
            }
        }
    }

    async fn round(&mut self) -> Result<(), ClientError> {
        if let Some(capture) = &self.cluster.capture {
            capture.write_lost().await;
        }
        let live = self.cluster.live.load_full();
        self.brokers.ask_as_sessions(&live).await;
        let known = self.client.take().filter(|(by, _)| Arc::ptr_eq(by, &live));
        let client = match known {
            Some((_, client)) => client,
            None => {
                let config = ClientConfig {
                    retry: RETRY,
                    ..ClientConfig::from(live.own_endpoint())
                };
                Client::connect(config).await?
            }
        };
        self.client = Some((Arc::clone(&live), client.clone()));
        let cluster = Arc::clone(&self.cluster);
        match &cluster.capture {
            Some(capture) => self.round_with_topics(&live, &client, capture).await,
            None => {
                let answer = client.metadata(TopicSelection::None).await?;
                self.brokers.learn(&live, &answer);
                Ok(())
            }
        }
    }

    async fn round_with_topics(
        &mut self,
        live: &Live,
        client: &Client,
        capture: &Capture,
    ) -> Result<(), ClientError> {
        let traffic = capture.topics.take_traffic();
        let names = self.names_of(capture, &traffic);
        let many = names.as_ref().is_some_and(|names| names.len() > NAMES_MAX);
        let full =
            many || names.is_none() || self.last_full.is_none_or(|last| last.elapsed() >= FULL_INTERVAL);
        let names = names.unwrap_or_default();
        let selection = match (full, names.is_empty()) {
            (true, _) => TopicSelection::All,
            (false, true) => TopicSelection::None,
            (false, false) => TopicSelection::Named(&names),
        };
        // Before the question: the answer is younger than everything that was given out until here.
        let asked_after = capture.writer().last_assigned();
        let answer = match client.metadata(selection).await {
            Ok(answer) => answer,
            Err(error) => {
                capture.topics.return_traffic(&traffic);
                return Err(error);
            }
        };
        self.brokers.learn(live, &answer);
        let busy: HashSet<Arc<str>> = match full {
            true => traffic
                .iter()
                .filter_map(|topic| name_in(topic, &answer))
                .collect(),
            false => names.into_iter().collect(),
        };
        if full {
            self.last_full = Some(Instant::now());
            capture.topics.replace(
                answer
                    .topics
                    .iter()
                    .filter(|t| t.error.is_ok())
                    .map(|t| (Arc::clone(&t.name), t.id)),
            );
        } else {
            capture.topics.learn(
                answer
                    .topics
                    .iter()
                    .filter(|t| t.error.is_ok())
                    .map(|t| (Arc::clone(&t.name), t.id)),
            );
        }
        self.note_left_out(capture, &traffic, &answer);
        let fresh = self
            .write_catalog(capture, &answer, asked_after, &busy, full)
            .await;
        let fresh: HashSet<Arc<str>> = fresh.into_iter().collect();
        let led = answer.topics.iter().filter(|topic| {
            (busy.contains(&topic.name) || fresh.contains(&topic.name)) && capture.topics.wanted(&topic.name)
        });
        self.terms
            .ask(&self.cluster, client, capture, &answer, led, &self.clock);
        let described = if full {
            self.known.keys().cloned().collect()
        } else {
            fresh.into_iter().collect()
        };
        self.write_configs(client, capture, described, asked_after).await;
        Ok(())
    }

    /// The names of what had traffic; none if some id is not known yet.
    fn names_of(&self, capture: &Capture, traffic: &[TopicRef]) -> Option<Vec<Arc<str>>> {
        let name = |topic: &TopicRef| match topic {
            TopicRef::Name(name) => Some(Arc::clone(name)),
            TopicRef::Id(id) => capture.topics.name_of(*id),
        };
        let mut names: Vec<Arc<str>> = traffic.iter().map(name).collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// What was captured by an id without a name is left out if the name says so.
    fn note_left_out(&mut self, capture: &Capture, traffic: &[TopicRef], answer: &ClusterMetadata) {
        let ids: HashSet<Uuid> = traffic.iter().filter_map(TopicRef::id).collect();
        let found = answer.topics.iter().filter(|topic| ids.contains(&topic.id));
        for topic in found.filter(|topic| topic.error.is_ok() && !capture.topics.wanted(&topic.name)) {
            self.left_out.insert(topic.id, catalog::left_out_topic(topic));
        }
    }

    /// Writes what is new, changed, gone, or had traffic; returns the topics whose configuration is to be read.
    async fn write_catalog(
        &mut self,
        capture: &Capture,
        answer: &ClusterMetadata,
        asked_after: BufferPosition,
        busy: &HashSet<Arc<str>>,
        full: bool,
    ) -> Vec<Arc<str>> {
        let mut topics = Vec::new();
        let mut fresh = Vec::new();
        for topic in answer
            .topics
            .iter()
            .filter(|topic| capture.topics.wanted(&topic.name))
        {
            let changed = self.is_changed(topic);
            if topic.error.is_ok() {
                let leaders = catalog::leaders(topic);
                capture.topics.leaders.learn(&topic.name, topic.id, leaders);
            }
            if changed && topic.error.is_ok() {
                fresh.push(Arc::clone(&topic.name));
            }
            if changed || busy.contains(&topic.name) {
                topics.push(catalog::catalog_topic(topic));
            }
        }
        if full {
            let listed: HashSet<&str> = answer.topics.iter().map(|topic| &*topic.name).collect();
            let gone: Vec<Arc<str>> = self
                .known
                .keys()
                .filter(|name| !listed.contains(&***name))
                .cloned()
                .collect();
            for name in gone {
                self.known.remove(&name);
                topics.push(catalog::gone_topic(&name));
            }
        }
        topics.extend(self.left_out.values().cloned());
        if topics.is_empty() {
            return fresh;
        }
        let cluster_id = answer.cluster_id.clone().unwrap_or_default();
        let written = catalog::append(
            &self.cluster,
            capture,
            self.clock.now_ms(),
            cluster_id,
            topics,
            asked_after,
        )
        .await;
        if written {
            self.left_out.clear();
        } else {
            // The next round must say it all again, to whichever session there is then.
            self.known.clear();
            self.last_full = None;
        }
        fresh
    }

    fn is_changed(&mut self, topic: &TopicMetadata) -> bool {
        if !topic.error.is_ok() {
            return self.known.remove(&topic.name).is_some();
        }
        let partitions = topic.partitions.len();
        match self.known.get_mut(&topic.name) {
            Some(known) if known.id == topic.id && known.partitions == partitions => false,
            _ => {
                let known = Known {
                    id: topic.id,
                    partitions,
                    configs: None,
                };
                self.known.insert(Arc::clone(&topic.name), known);
                true
            }
        }
    }

    async fn write_configs(
        &mut self,
        client: &Client,
        capture: &Capture,
        names: Vec<Arc<str>>,
        asked_after: BufferPosition,
    ) {
        for names in names.chunks(CONFIGS_PER_REQUEST) {
            let resources: Vec<_> = names
                .iter()
                .map(|name| ConfigResource::Topic(Arc::clone(name)))
                .collect();
            let answers = client.describe_configs(&resources).await;
            let at_ms = self.clock.now_ms();
            let mut frames = Vec::new();
            for (name, answer) in names.iter().zip(answers) {
                let (Some(known), Ok(entries)) = (self.known.get_mut(name), answer) else {
                    continue;
                };
                let configs = catalog::worth_keeping(entries);
                if known.configs.as_ref() != Some(&configs) {
                    let config = TopicConfig {
                        name: name.to_string(),
                        id: known.id,
                        at_ms,
                        configs: configs.clone(),
                    };
                    frames.push(Frame::TopicConfig(config));
                    known.configs = Some(configs);
                }
            }
            if !frames.is_empty()
                && let Err(reason) = capture.append_small(asked_after.session, frames).await
            {
                tracing::info!(
                    cluster = self.cluster.name,
                    ?reason,
                    "topic configurations were not written"
                );
                self.known.clear();
                self.last_full = None;
                return;
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn name_in(topic: &TopicRef, answer: &ClusterMetadata) -> Option<Arc<str>> {
    match topic {
        TopicRef::Name(name) => Some(Arc::clone(name)),
        TopicRef::Id(id) => answer
            .topics
            .iter()
            .find(|found| found.id == *id)
            .map(|found| Arc::clone(&found.name)),
    }
}

/// How often all topics are asked for: finds those that nobody uses through the proxy, and changed configurations.
const FULL_INTERVAL: Duration = Duration::from_secs(60);
/// Topics asked for by name; with more, asking for all costs less. Clients choose how many there are.
const NAMES_MAX: usize = 1000;
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Short, so that readiness tells of an outage soon; long enough for an election.
const RETRY: RetryPolicy = RetryPolicy {
    deadline: Duration::from_secs(3),
    unknown_topic_deadline: Duration::ZERO,
    backoff_first: Duration::from_millis(50),
    backoff_max: Duration::from_millis(500),
};
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Stopping does not wait longer for a cluster that does not answer.
const LAST_ROUND_MAX: Duration = Duration::from_secs(3);
/// Keeps the answer within a few hundred KiB.
const CONFIGS_PER_REQUEST: usize = 100;
