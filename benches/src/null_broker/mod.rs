//! A broker that costs next to nothing, so that what stands before it can be judged without Kafka's own cost.
//!
//! It acknowledges what is produced and forgets it, and serves prepared batches in turn under every offset that is
//! fetched. Any topic that is named exists. It speaks just enough of the protocol for our own programs and for ordinary
//! clients: what it does not know it does not offer in ApiVersions, and closes the connection if it is asked all the same.
//!
//! It is no stand-in for Kafka in any test: nothing about correctness may be concluded from it.

mod answers;
mod log;
mod settings;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;
use teeline_wire::codec::Compression;
use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::header::{self, RequestHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::contenders;

use answers::Answer;
pub use log::{Log, Prepared};

/// Where the broker is reached, and what it says of that.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it tells those who come in here: the address of whatever stands before it.
    pub advertised: SocketAddr,
}

/// What the broker is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is reached.
    pub places: Vec<Place>,
    /// Partitions of every topic.
    pub partitions: i32,
    /// Topics that are told to whoever asks for all; others exist once they are named.
    pub topics: Vec<String>,
    /// What is served to those who fetch; without it, logs hold nothing that could be read.
    pub prepared: Option<Prepared>,
}

/// The same, as it is said on the command line.
#[derive(Debug, Clone, Args)]
pub struct NullBrokerArguments {
    /// Partitions of every topic.
    #[arg(long, default_value_t = 6)]
    pub partitions: i32,
    /// A topic that is listed; may be repeated. Others exist once they are named.
    #[arg(long = "topic")]
    pub topics: Vec<String>,
    /// Serve so many records of 1 KiB in every partition.
    #[arg(long, default_value_t = 0)]
    pub serve_records: i64,
    /// As producers compress them: none, gzip, snappy, lz4 or zstd.
    #[arg(long, default_value = "none", value_parser = compression)]
    pub serve_codec: Compression,
    /// Bytes of each batch before compression.
    #[arg(long, default_value_t = 65_536)]
    pub serve_batch_bytes: usize,
    /// Where it listens, and what it says there.
    #[arg(value_name = "LISTEN=ADVERTISED", required = true)]
    pub places: Vec<String>,
}

/// Parses the name of a codec.
///
/// # Errors
/// When there is none of that name.
pub fn compression(name: &str) -> Result<Compression, String> {
    let mut all = Compression::ALL.into_iter();
    all.find(|codec| codec.name() == name)
        .ok_or_else(|| format!("{name} is no codec"))
}

/// Serves as the command line says, until the process is killed.
///
/// # Panics
/// When it cannot, or when it ends.
pub fn run(arguments: &NullBrokerArguments) {
    let places = arguments.places.iter().map(|text| {
        let (listen, advertised) = contenders::place(text).unwrap_or_else(|error| panic!("{error}"));
        Place { listen, advertised }
    });
    let prepared = || {
        let (codec, bytes) = (arguments.serve_codec, arguments.serve_batch_bytes);
        Prepared::events(codec, bytes, arguments.serve_records)
    };
    let settings = Settings {
        places: places.collect(),
        partitions: arguments.partitions,
        topics: arguments.topics.clone(),
        prepared: (arguments.serve_records > 0).then(prepared),
    };
    // One thread: the other core belongs to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(serve(settings));
    panic!("the null broker ended: {ended:?}");
}

/// Serves until the process ends.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(settings: Settings) -> io::Result<()> {
    let log = Arc::new(Log::new(settings.prepared));
    let mut doors = JoinSet::new();
    for place in settings.places {
        let listener = listen(place.listen)?;
        let broker = Arc::new(Broker {
            advertised: place.advertised,
            log: Arc::clone(&log),
            partitions: settings.partitions,
            topics: settings.topics.clone(),
        });
        doors.spawn(accept(listener, broker));
    }
    match doors.join_next().await {
        Some(ended) => ended.map_err(io::Error::other)?,
        None => Err(io::Error::other("a broker without an address")),
    }
}

/// With room for hundreds that come at once, who would wait for seconds otherwise, and be measured while they wait.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, broker: Arc<Broker>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            if let Err(error) = broker.attend(stream).await {
                eprintln!("null broker: {error}");
            }
        });
    }
}

/// The broker as it is seen from one address; its node id is 1.
struct Broker {
    advertised: SocketAddr,
    log: Arc<Log>,
    partitions: i32,
    topics: Vec<String>,
}

impl Broker {
    async fn attend(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut intake = BytesMut::new();
        let mut outbox = BytesMut::new();
        loop {
            while let Some(frame) = take_frame(&mut intake)? {
                if !self.answer(&frame, &mut outbox).await? {
                    return Ok(());
                }
            }
            if !outbox.is_empty() {
                stream.write_all(&outbox).await?;
                outbox.clear();
            }
            intake.reserve(READ_BYTES);
            if stream.read_buf(&mut intake).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Appends the answer. False where there is none to give.
    async fn answer(&self, frame: &Bytes, outbox: &mut BytesMut) -> io::Result<bool> {
        let head = RequestHeader::parse(frame).map_err(io::Error::other)?;
        let body = frame.slice(head.header_len..);
        let (version, answer) = match self.answer_to(head.api_key, head.api_version, body)? {
            Answer::Body(body) => (head.api_version, body),
            // The one answer that is given in a version that was not asked for.
            Answer::OtherVersion(version, body) => (version, body),
            Answer::After(pause, body) => {
                tokio::time::sleep(pause).await;
                (head.api_version, body)
            }
            Answer::None => return Ok(true),
            Answer::Unknown => {
                eprintln!(
                    "null broker: key {} version {} is not served",
                    head.api_key, head.api_version
                );
                return Ok(false);
            }
        };
        let answer = header::response_frame(head.api_key, version, head.correlation_id, &answer)
            .map_err(io::Error::other)?;
        outbox.extend_from_slice(&answer);
        Ok(true)
    }
}

fn take_frame(intake: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(prefix) = intake.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*prefix)).map_err(io::Error::other)?;
    if intake.len() < LENGTH_BYTES + length {
        intake.reserve(LENGTH_BYTES + length - intake.len());
        return Ok(None);
    }
    intake.advance(LENGTH_BYTES);
    Ok(Some(intake.split_to(length).freeze()))
}

const BACKLOG: u32 = 4_096;
const READ_BYTES: usize = 256 * 1024;
