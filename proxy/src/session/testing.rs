//! A session between a client and a broker that a test plays, on loopback sockets, over a real write-ahead buffer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, RequestHeader, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use teeline_archive::buffer::{FILE_HEADER_BYTES, Frame, decode_frame};
use teeline_config::cluster::{Capture as CaptureSettings, Listen, VirtualCluster};
use teeline_config::process::Process as ProcessSettings;
use teeline_config::{Addressing, ConnectionAge, HostPort, KafkaEndpoint, Limits, Ports, Sasl, Security};
use teeline_runtime::clock::ManualClock;
use teeline_wire::apis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::budget::ProcessBudget;
use crate::buffer::{SyncMode, Writer, WriterSettings};
use crate::capture::Capture;
use crate::cluster::{Cluster, Footing, Live, Process};
use crate::door::Door;
use crate::metrics::ClusterMetrics;
use crate::observe::{Arrived, Observatory, Visit, Visitor};
use crate::places::Places;
use crate::sockets::Change;
use crate::stop::Stop;
use crate::topics::Topics;
use crate::topology::Topology;
use crate::upstream::{Connected, Upstream};

/// The broker that the test plays.
pub(crate) const NODE_ID: i32 = 3;

/// What a test may choose.
pub(crate) struct Choices {
    pub(crate) capture: CaptureSettings,
    pub(crate) idle_timeout: Duration,
    pub(crate) connection_age: Option<ConnectionAge>,
    pub(crate) buffer_bytes_max: u64,
    /// The budget of the process, and of the connection.
    pub(crate) in_flight_bytes: usize,
    pub(crate) sync: SyncMode,
    /// The broker is known to serve clients without SASL.
    pub(crate) open: bool,
    /// How long the broker lets the session live.
    pub(crate) lifetime: Option<Duration>,
    /// The proxy has authenticated to the broker itself.
    pub(crate) sasl: Option<Sasl>,
}

impl Default for Choices {
    fn default() -> Self {
        Choices {
            capture: CaptureSettings::default(),
            idle_timeout: Duration::ZERO,
            connection_age: None,
            buffer_bytes_max: 1 << 30,
            in_flight_bytes: 1 << 26,
            sync: SyncMode::OnAppend,
            open: true,
            lifetime: None,
            sasl: None,
        }
    }
}

/// A session under test. The test is the client and the broker.
pub(crate) struct Stage {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) client: Peer,
    pub(crate) broker: Peer,
    pub(crate) session: JoinHandle<()>,
    _bound: tokio::sync::mpsc::Receiver<Change>,
    dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Stage {
        Stage::with(Choices::default()).await
    }

    pub(crate) async fn with(choices: Choices) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(ClusterMetrics::new("test"));
        let settings = WriterSettings {
            dir: dir.path().to_owned(),
            max_bytes: choices.buffer_bytes_max,
            file_bytes: 1 << 20,
            mode: choices.sync,
            pending_bytes_max: 1 << 24,
        };
        let (writer, _) = Writer::open(settings, || 1).unwrap();
        let listen = Listen {
            address: HostPort::new(own_address(), 0),
            addressing: Addressing::Ports(Ports {
                node_port_count: 5,
                ..Ports::after(9091)
            }),
            idle_timeout: choices.idle_timeout,
            connection_age: choices.connection_age,
            ..Listen::default()
        };
        let (topology, bound) = Topology::open("test", &listen).unwrap();
        let topics = Arc::new(Topics::new(choices.capture.topics()));
        let clock = Arc::new(ManualClock::at(1_000));
        let capture = Capture::new(
            "test",
            &choices.capture,
            writer,
            topics,
            Arc::clone(&metrics),
            clock,
        );
        let captures = choices.capture.enabled;
        let virtual_cluster = VirtualCluster {
            name: "test".to_owned(),
            backup_id: "test".to_owned(),
            upstream: KafkaEndpoint {
                security: Security {
                    tls: None,
                    sasl: choices.sasl,
                },
                ..KafkaEndpoint::plaintext(Vec::new())
            },
            capture_credentials: None,
            listen,
            capture: choices.capture,
            limits: Limits {
                connection_in_flight_bytes: choices.in_flight_bytes as u64,
                ..Limits::default()
            },
        };
        let process = Process {
            budget: ProcessBudget::new(choices.in_flight_bytes),
            places: Places::new(100),
            observatory: Observatory::new(teeline_config::AccessLog::Off),
            stop: Stop::default(),
        };
        let upstream = Arc::new(Upstream::new(&virtual_cluster.upstream));
        let door = Arc::new(Door::default());
        let live = Live::new(&virtual_cluster, &ProcessSettings::default(), door, upstream);
        let cluster = Arc::new(Cluster::new(
            &virtual_cluster,
            live,
            topology,
            captures.then_some(capture),
            metrics,
            &process,
        ));
        if choices.open {
            cluster.live.load().upstream.openness.seen_open();
        }
        let (client, broker, session) = join(&cluster, choices.lifetime).await;
        Stage {
            cluster,
            client,
            broker,
            session,
            _bound: bound,
            dir,
        }
    }

    pub(crate) fn capture(&self) -> &Capture {
        self.cluster.capture.as_ref().unwrap()
    }

    /// Ends everything and returns what the buffer holds.
    pub(crate) async fn frames(self) -> Vec<Frame> {
        drop((self.client, self.broker));
        self.session.await.unwrap();
        self.cluster
            .capture
            .as_ref()
            .unwrap()
            .writer()
            .close()
            .await
            .unwrap();
        let mut frames = Vec::new();
        let mut files: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|extension| extension == "wal"))
        {
            let bytes = Bytes::from(std::fs::read(file).unwrap());
            let mut at = FILE_HEADER_BYTES;
            while let Ok(decoded) = decode_frame(&bytes, at) {
                frames.push(decoded.frame);
                at = decoded.next;
            }
        }
        frames
    }
}

/// What a session begins with.
pub(crate) fn footing(cluster: &Arc<Cluster>) -> Footing {
    Footing {
        live: cluster.live.load_full(),
        stop: cluster.stop.clone(),
        cluster: Arc::clone(cluster),
    }
}

/// A connection that nobody sees.
pub(crate) fn arrived(cluster: &Cluster, connection_id: u64) -> Arrived {
    let visitor = Visitor {
        cluster: "test".into(),
        peer: ([127, 0, 0, 1], 1).into(),
        node_id: None,
        tls: false,
        subject: None,
    };
    cluster.observatory.arrives(Visit::new(connection_id, visitor))
}

/// One more connection of a cluster: its client, its broker, and the session between them.
pub(crate) async fn join(cluster: &Arc<Cluster>, lifetime: Option<Duration>) -> (Peer, Peer, JoinHandle<()>) {
    let (client, near_client) = pair().await;
    let (broker, near_broker) = pair().await;
    let peer = near_client.peer_addr().unwrap();
    let session = tokio::spawn(super::serve(
        footing(cluster),
        7,
        Some(NODE_ID),
        peer,
        near_client.into(),
        Connected {
            stream: near_broker.into(),
            lifetime,
            own: None,
        },
    ));
    (Peer(client), Peer(broker), session)
}

/// One end of a connection, speaking frames.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next whole frame, its length included.
    pub(crate) async fn receive(&mut self) -> Bytes {
        tokio::time::timeout(PATIENCE, async {
            let length = self.0.read_i32().await.unwrap();
            let mut frame = vec![0; length as usize + 4];
            frame[..4].copy_from_slice(&length.to_be_bytes());
            self.0.read_exact(&mut frame[4..]).await.unwrap();
            Bytes::from(frame)
        })
        .await
        .expect("a frame arrives in time")
    }

    /// What comes until the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection ends");
        rest
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(
        listener.accept(),
        TcpStream::connect(listener.local_addr().unwrap())
    );
    (far.unwrap(), near.unwrap().0)
}

/// All of 127/8 is loopback: with an address of their own, tests need not share ports.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let (high, low) = (process % 200 + 20, process / 200 % 250);
    format!(
        "127.{high}.{low}.{}",
        NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1
    )
}

/// A frame with a request header.
pub(crate) fn request(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let flexible = apis::is_flexible(api_key, version) == Some(true);
    RequestHeader::default()
        .with_request_api_key(api_key)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut frame, if flexible { 2 } else { 1 })
        .unwrap();
    frame.put_slice(body);
    finish(frame)
}

/// A frame with a response header.
pub(crate) fn response(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    teeline_wire::header::response_frame(api_key, version, correlation_id, body).unwrap()
}

fn finish(mut frame: BytesMut) -> Bytes {
    let length = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// A batch of one record, as far as a proxy looks.
pub(crate) fn batch(mark: u8) -> Bytes {
    let mut batch = vec![mark; 80];
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&68_i32.to_be_bytes());
    batch[16] = 2;
    Bytes::from(batch)
}

/// A Produce request by name.
pub(crate) fn produce(version: i16, correlation_id: i32, acks: i16, entries: &[(&str, i32, Bytes)]) -> Bytes {
    let topics = entries.iter().map(|(topic, partition, records)| {
        let data = PartitionProduceData::default()
            .with_index(*partition)
            .with_records(Some(records.clone()));
        TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string((*topic).to_owned())))
            .with_partition_data(vec![data])
    });
    let message = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(1000)
        .with_topic_data(topics.collect());
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    request(apis::PRODUCE, version, correlation_id, &body)
}

/// The answer to it: error code and base offset per entry.
pub(crate) fn produced(version: i16, correlation_id: i32, outcomes: &[(&str, i32, i16, i64)]) -> Bytes {
    let topics = outcomes
        .iter()
        .map(|(topic, partition, error_code, base_offset)| {
            let outcome = PartitionProduceResponse::default()
                .with_index(*partition)
                .with_error_code(*error_code)
                .with_base_offset(*base_offset);
            TopicProduceResponse::default()
                .with_name(TopicName(StrBytes::from_string((*topic).to_owned())))
                .with_partition_responses(vec![outcome])
        });
    let message = ProduceResponse::default().with_responses(topics.collect());
    let mut body = BytesMut::new();
    message.encode(&mut body, version).unwrap();
    response(apis::PRODUCE, version, correlation_id, &body)
}

/// The correlation id of a response frame, or of a request frame.
pub(crate) fn correlation_of(frame: &Bytes, is_request: bool) -> i32 {
    frame.slice(if is_request { 8 } else { 4 }..).get_i32()
}

pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
