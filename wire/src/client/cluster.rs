//! A cluster: its brokers, connections to them, and what is known of its topics.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use teeline_config::HostPort;
use uuid::Uuid;

use super::fetch::Followers;
use super::metadata::{self, ClusterMetadata, TopicMetadata, TopicSelection, TopicsById};
use super::routing::Retry;
use super::tls::TlsClient;
use super::{ClientConfig, ClientError, Connection, ErrorCode, Leader, TopicKey, TopicPartition};

/// A client of one cluster; clones share connections and metadata.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

/// Requests of one kind share a connection per broker. A broker serves a connection's requests strictly one
/// after the other, so a Fetch that waits for data must not stand before a question about offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Short questions.
    Control,
    /// Fetch.
    Fetch,
    /// Produce.
    Produce,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    tls: Option<Arc<TlsClient>>,
    cache: Mutex<Cache>,
    /// Filled slots may hold connections that have ended; they are replaced when next asked for.
    slots: Mutex<HashMap<(Peer, Lane), Arc<Slot>>>,
    /// Where the search for any broker starts; moves on after failures.
    preferred: AtomicUsize,
    /// Who answers fetches nearby.
    followers: Followers,
    /// One metadata request at a time: callers that wait here usually find what they need afterwards.
    refreshing: tokio::sync::Mutex<()>,
}

/// Whom a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Peer {
    /// A broker by its node id.
    Node(i32),
    /// A bootstrap address, whoever answers there.
    Bootstrap(HostPort),
}

/// The lock makes callers wait for one attempt to connect instead of each making their own.
type Slot = tokio::sync::Mutex<Option<Connection>>;

#[derive(Debug, Default)]
struct Cache {
    cluster_id: Option<String>,
    controller_id: Option<i32>,
    brokers: HashMap<i32, HostPort>,
    topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
}

impl Cluster {
    /// Connects to the first bootstrap address that answers, and learns the cluster's brokers.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let cluster = Self {
            inner: Arc::new(Inner {
                tls: config
                    .endpoint
                    .security
                    .tls
                    .clone()
                    .map(|tls| Arc::new(TlsClient::new(tls))),
                config,
                cache: Mutex::default(),
                slots: Mutex::default(),
                preferred: AtomicUsize::new(0),
                followers: Followers::default(),
                refreshing: tokio::sync::Mutex::default(),
            }),
        };
        cluster.metadata(TopicSelection::None).await?;
        Ok(cluster)
    }

    /// The settings.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// The cluster's id, as last heard.
    pub fn cluster_id(&self) -> Option<String> {
        self.cache().cluster_id.clone()
    }

    /// Asks for metadata, and remembers it. Topics that do not exist are in the answer with their error, and
    /// are not created by asking.
    pub async fn metadata(&self, selection: TopicSelection<'_>) -> Result<ClusterMetadata, ClientError> {
        let timeout = self.config().endpoint.request_timeout;
        let answer =
            self.on_any(|connection| async move { metadata::ask(&connection, selection, timeout).await });
        let answer = answer.await?;
        self.learn(&answer, selection);
        Ok(answer)
    }

    /// Asks for topics of which only the ids are known. Old brokers cannot tell: an error.
    pub async fn topics_by_id(&self, ids: &BTreeSet<Uuid>) -> Result<TopicsById, ClientError> {
        let timeout = self.config().endpoint.request_timeout;
        self.on_any(|connection| async move { metadata::ask_by_id(&connection, ids, timeout).await })
            .await
    }

    /// The leader of a partition, waiting for one to be elected if there is none.
    pub async fn leader_for(&self, partition: &TopicPartition) -> Result<Leader, ClientError> {
        let mut retry = Retry::start(self.config().retry);
        loop {
            let leader = self
                .leaders_now(&[partition])
                .await
                .pop()
                .expect("one question has one answer");
            match leader {
                Ok(leader) => return Ok(leader),
                Err(error) => {
                    self.forget_leader(partition);
                    retry.after(error).await?;
                }
            }
        }
    }

    /// Forgets who leads a partition, so that the next call asks. For callers that learnt by themselves, from a
    /// failed Produce, that the leader moved.
    pub fn forget_leader(&self, partition: &TopicPartition) {
        self.cache().topics.remove(&partition.topic.name);
    }

    /// The leaders as far as they can be known now, with at most one metadata request.
    pub(super) async fn leaders_now(
        &self,
        partitions: &[&TopicPartition],
    ) -> Vec<Result<Leader, ClientError>> {
        if self.unknown_topics(partitions).is_empty() {
            return partitions
                .iter()
                .map(|partition| self.cached_leader(partition))
                .collect();
        }
        let refreshed = {
            let _one_at_a_time = self.inner.refreshing.lock().await;
            let unknown = self.unknown_topics(partitions);
            match unknown.is_empty() {
                true => Ok(()),
                false => self.metadata_once(TopicSelection::Named(&unknown)).await,
            }
        };
        let answer = |partition: &&TopicPartition| match &refreshed {
            Err(error) if !self.cache().topics.contains_key(&partition.topic.name) => Err(error.clone()),
            _ => self.cached_leader(partition),
        };
        partitions.iter().map(answer).collect()
    }

    /// The connection to a broker, opened if need be.
    pub(super) async fn connection(&self, node_id: i32, lane: Lane) -> Result<Connection, ClientError> {
        let address = self.address_of(node_id)?;
        self.open(Peer::Node(node_id), &address, lane).await
    }

    /// A connection that nobody shares, for requests that wait long.
    pub(super) async fn own_connection(&self, node_id: i32) -> Result<Connection, ClientError> {
        let address = self.address_of(node_id)?;
        Connection::open_with(&address, self.config(), self.inner.tls.as_ref()).await
    }

    fn address_of(&self, node_id: i32) -> Result<HostPort, ClientError> {
        let address = self.cache().brokers.get(&node_id).cloned();
        // A leader that Metadata does not list is not alive; asking again may tell another.
        address.ok_or_else(|| ClientError::ConnectionLost {
            address: format!("node {node_id}"),
            reason: "the cluster does not list it".to_owned(),
        })
    }

    /// A connection to whichever broker can be had; known brokers first, then the bootstrap addresses.
    pub(super) async fn any_connection(&self) -> Result<Connection, ClientError> {
        let mut known: Vec<_> = {
            let cache = self.cache();
            let brokers = cache.brokers.iter();
            brokers
                .map(|(&node_id, address)| (Peer::Node(node_id), address.clone()))
                .collect()
        };
        known.sort_by(|left, right| left.1.cmp(&right.1));
        if !known.is_empty() {
            let start = self.inner.preferred.load(Ordering::Relaxed) % known.len();
            known.rotate_left(start);
        }
        let bootstrap = self.config().endpoint.bootstrap_servers.iter();
        let bootstrap = bootstrap.map(|address| (Peer::Bootstrap(address.clone()), address.clone()));
        let (mut last, mut refused) = (None, None);
        for (peer, address) in known.into_iter().chain(bootstrap) {
            match self.open(peer, &address, Lane::Control).await {
                Ok(connection) => return Ok(connection),
                // One broker with a wrong certificate must not keep us from the others.
                Err(error) if error.is_refusal() => refused = Some(error),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => last = Some(Box::new(error)),
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        let bootstrap: Vec<_> = self
            .config()
            .endpoint
            .bootstrap_servers
            .iter()
            .map(HostPort::to_string)
            .collect();
        Err(ClientError::NoBroker {
            bootstrap: bootstrap.join(", "),
            source: last,
        })
    }

    pub(super) fn followers(&self) -> &Followers {
        &self.inner.followers
    }

    pub(super) fn prefer_another_broker(&self) {
        self.inner.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to the controller; asks who that is if it is not known.
    pub(super) async fn controller_connection(&self) -> Result<Connection, ClientError> {
        let known = self.cache().controller_id;
        if known.is_none() {
            self.metadata_once(TopicSelection::None).await?;
        }
        let controller_id = self.cache().controller_id;
        match controller_id {
            Some(node_id) => self.connection(node_id, Lane::Control).await,
            None => Err(ClientError::Broker {
                subject: "find the controller".to_owned(),
                code: ErrorCode::LEADER_NOT_AVAILABLE,
                message: None,
            }),
        }
    }

    pub(super) fn forget_controller(&self) {
        self.cache().controller_id = None;
    }

    async fn metadata_once(&self, selection: TopicSelection<'_>) -> Result<(), ClientError> {
        let connection = self.any_connection().await?;
        let timeout = self.config().endpoint.request_timeout;
        match metadata::ask(&connection, selection, timeout).await {
            Ok(answer) => {
                self.learn(&answer, selection);
                Ok(())
            }
            Err(error) => {
                self.prefer_another_broker();
                Err(error)
            }
        }
    }

    async fn open(&self, peer: Peer, address: &HostPort, lane: Lane) -> Result<Connection, ClientError> {
        let slot = Arc::clone(self.slots().entry((peer, lane)).or_default());
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.is_closed()
            && connection.address() == address
        {
            return Ok(connection.clone());
        }
        *slot = None;
        let connection = Connection::open_with(address, self.config(), self.inner.tls.as_ref()).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    fn learn(&self, answer: &ClusterMetadata, selection: TopicSelection<'_>) {
        let brokers: HashMap<_, _> = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, broker.address.clone()))
            .collect();
        let gone = |peer: &Peer| matches!(peer, Peer::Node(node_id) if !brokers.contains_key(node_id));
        self.slots().retain(|(peer, _), _| !gone(peer));
        let mut cache = self.cache();
        cache.cluster_id.clone_from(&answer.cluster_id);
        cache.controller_id = (answer.controller_id >= 0).then_some(answer.controller_id);
        cache.brokers = brokers;
        if selection == TopicSelection::All {
            cache.topics.clear();
        }
        for topic in &answer.topics {
            cache
                .topics
                .insert(Arc::clone(&topic.name), Arc::new(topic.clone()));
        }
    }

    /// Topics that the cache does not know, or knows under another id: the topic may have been created again
    /// since the cache was filled.
    fn unknown_topics(&self, partitions: &[&TopicPartition]) -> Vec<Arc<str>> {
        let cache = self.cache();
        let is_known = |topic: &TopicKey| {
            cache
                .topics
                .get(&topic.name)
                .is_some_and(|known| topic.id.is_none_or(|id| known.may_have_id(id)))
        };
        let unknown = partitions
            .iter()
            .map(|partition| &partition.topic)
            .filter(|topic| !is_known(topic));
        let names: HashSet<_> = unknown.map(|topic| &topic.name).collect();
        names.into_iter().cloned().collect()
    }

    fn cached_leader(&self, partition: &TopicPartition) -> Result<Leader, ClientError> {
        let no_leader = || ClientError::NoLeader {
            topic: partition.topic.name.to_string(),
            partition: partition.partition,
        };
        let topic = self.cache().topics.get(&partition.topic.name).cloned();
        let topic = topic.ok_or_else(no_leader)?;
        let subject = || format!("find the leader of {partition}");
        topic.error.check(subject, None)?;
        if let Some(expected) = partition.topic.id
            && !topic.may_have_id(expected)
        {
            let name = partition.topic.name.to_string();
            return Err(ClientError::TopicRecreated {
                topic: name,
                expected,
                found: topic.id,
            });
        }
        let found = topic
            .partitions
            .iter()
            .find(|known| known.partition == partition.partition);
        let Some(found) = found else {
            return Err(ClientError::Broker {
                subject: subject(),
                code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                message: Some(format!("the topic has {} partitions", topic.partitions.len())),
            });
        };
        if found.leader_id < 0 {
            return Err(no_leader());
        }
        Ok(Leader {
            node_id: found.leader_id,
            epoch: found.leader_epoch,
        })
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing inside the lock can leave half a change behind.
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<(Peer, Lane), Arc<Slot>>> {
        self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
