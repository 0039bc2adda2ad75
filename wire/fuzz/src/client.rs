//! The whole cluster client against a broker that answers with captured frames, some of them damaged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use teeline_config::{HostPort, KafkaEndpoint};
use teeline_wire::client::{
    ClientConfig, Cluster, ConfigResource, EpochQuery, FetchOptions, FetchQuery, OffsetAt, OffsetQuery,
    RetryPolicy, TopicPartition, TopicSelection,
};
use teeline_wire::frame::{self, FrameLimits};
use teeline_wire::header::{self, RequestHeader};
use teeline_wire::{apis, rewrite};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::damage::{Chance, damage};
use super::frames;
use super::streams::RUNTIME;

/// Which calls are made, one after the other, and how each answer is hurt.
pub fn client(data: &[u8]) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let port = listener.local_addr().expect("it is bound").port();
            let mut script = Script { left: data };
            let calls: Vec<u8> = (0..4).map(|_| script.byte()).collect();
            let script = RefCell::new(script);
            tokio::select! {
                () = serve(&listener, port, &script) => {}
                () = call(port, &calls) => {}
            }
        })
    });
}

async fn call(port: u16, calls: &[u8]) {
    let endpoint = KafkaEndpoint {
        connect_timeout: PATIENCE,
        request_timeout: PATIENCE,
        ..KafkaEndpoint::plaintext(vec![HostPort::new("127.0.0.1", port)])
    };
    let mut config = ClientConfig::new(endpoint);
    config.retry = RetryPolicy::NONE;
    config.response_bytes_max = 1024 * 1024;
    let Ok(cluster) = Cluster::connect(config).await else {
        return;
    };
    for call in calls {
        one_call(&cluster, *call).await;
    }
}

async fn one_call(cluster: &Cluster, call: u8) {
    // As in the captured Metadata.
    let partition = || TopicPartition::new(TOPIC, 0);
    match call % 14 {
        0 => drop(cluster.metadata(TopicSelection::All).await),
        1 => drop(
            cluster
                .list_offsets(&[OffsetQuery {
                    partition: partition(),
                    at: OffsetAt::Latest,
                }])
                .await,
        ),
        2 => drop(cluster.fetch(&partition(), 0, &FetchOptions::default()).await),
        3 => drop(
            cluster
                .offsets_for_leader_epochs(&[EpochQuery {
                    partition: partition(),
                    leader_epoch: 0,
                }])
                .await,
        ),
        4 => drop(cluster.leader_terms(&[partition()], PATIENCE).await),
        5 => drop(cluster.list_groups().await),
        6 => drop(cluster.group_coordinators(&["group".to_owned()]).await),
        7 => drop(cluster.committed_offsets(&[("group".to_owned(), 1)]).await),
        8 => drop(
            cluster
                .describe_configs(&[ConfigResource::Topic(TOPIC.into()), ConfigResource::Broker(1)])
                .await,
        ),
        9 => drop(cluster.describe_acls().await),
        10 => drop(cluster.describe_client_quotas().await),
        11 => drop(cluster.describe_scram_users().await),
        12 => drop(cluster.init_producer_id().await),
        _ => {
            let query = FetchQuery {
                partition: partition(),
                offset: 0,
                max_bytes: 1_000_000,
            };
            drop(cluster.fetch_many(&[query], &FetchOptions::default()).await);
        }
    }
}

struct Script<'a> {
    left: &'a [u8],
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.left.split_first().unwrap_or((&0, &[]));
        self.left = rest;
        *first
    }
}

async fn serve(listener: &TcpListener, port: u16, script: &RefCell<Script<'_>>) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => open.push(answer(stream, port, script)),
            Some(()) = open.next() => {}
        }
    }
}

/// Answers until the script closes the connection.
async fn answer(mut stream: TcpStream, port: u16, script: &RefCell<Script<'_>>) {
    let limits = FrameLimits {
        max_bytes: 1024 * 1024,
    };
    while let Ok(Some(request)) = frame::read_frame(&mut stream, limits).await {
        let asked = RequestHeader::parse(&request).expect("our own request");
        let decision = script.borrow_mut().byte();
        if decision >= 252 {
            return;
        }
        let body = match known(asked.api_key, asked.api_version, decision) {
            Some(body) => ours(asked.api_key, asked.api_version, body, port),
            None => Bytes::from(Chance::of(u64::from(decision)).bytes(20)),
        };
        let mut body = body.to_vec();
        // The first two say who we are: without them nothing else is ever asked.
        let first = matches!(asked.api_key, apis::API_VERSIONS | apis::METADATA);
        if decision >= if first { 230 } else { 100 } {
            let mut script = script.borrow_mut();
            let seed = u64::from(script.byte()) << 8 | u64::from(script.byte());
            damage(&mut body, &mut Chance::of(seed));
        }
        let frame = header::response_frame(asked.api_key, asked.api_version, asked.correlation_id, &body);
        if stream.write_all(&frame.expect("it is small")).await.is_err() {
            return;
        }
    }
}

/// A captured body.
fn known(api_key: i16, api_version: i16, decision: u8) -> Option<Bytes> {
    static CORPUS: OnceLock<BTreeMap<(i16, i16), Vec<Bytes>>> = OnceLock::new();
    let corpus = CORPUS.get_or_init(|| {
        let mut corpus: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = FRAMES
            .iter()
            .map(|path| own.join(path))
            .find(|path| path.is_dir());
        for frame in frames::read(&directory.expect("the corpus is there")) {
            if frame.is_request {
                continue;
            }
            let (_, at) = header::parse_response_header(frame.api_key, frame.api_version, &frame.content)
                .expect("captured");
            let body = Bytes::copy_from_slice(&frame.content[at..]);
            corpus
                .entry((frame.api_key, frame.api_version))
                .or_default()
                .push(body);
        }
        corpus
    });
    let bodies = corpus.get(&(api_key, api_version))?;
    bodies.get(usize::from(decision) % bodies.len()).cloned()
}

/// With our own address in the place of every broker's.
fn ours(api_key: i16, api_version: i16, body: Bytes, port: u16) -> Bytes {
    let mut here = |_: i32, _: &str, _: i32| Some(("127.0.0.1".to_owned(), port));
    match rewrite::rewrite_response(api_key, api_version, body.clone(), &mut here) {
        Ok(rewritten) => rewritten.body,
        Err(_) => body,
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const TOPIC: &str = "matrix-common";
/// From `wire/` in its tests, and from `wire/fuzz/` in the fuzzer.
const FRAMES: [&str; 2] = ["testdata/frames", "../testdata/frames"];
