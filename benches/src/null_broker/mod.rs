//! A broker that costs next to nothing, so that what stands before it can be judged without Kafka's own cost.
//!
//! It acknowledges what is produced and forgets it, and serves the same prepared batch under every offset that is
//! fetched. Any topic that is named exists. It speaks just enough of the protocol for our own programs and for ordinary
//! clients: what it does not know it does not offer in ApiVersions, and closes the connection if it is asked all the same.
//!
//! It is no stand-in for Kafka in any test: nothing about correctness may be concluded from it.

mod answers;
mod log;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::header::{self, RequestHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

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
    /// What is served to those who fetch; without it, logs hold nothing that could be read.
    pub prepared: Option<Prepared>,
}

/// Serves until the process ends.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(settings: Settings) -> io::Result<()> {
    let log = Arc::new(Log::new(settings.prepared));
    let mut doors = JoinSet::new();
    for place in settings.places {
        let listener = TcpListener::bind(place.listen).await?;
        let broker = Arc::new(Broker {
            advertised: place.advertised,
            log: Arc::clone(&log),
            partitions: settings.partitions,
        });
        doors.spawn(accept(listener, broker));
    }
    match doors.join_next().await {
        Some(ended) => ended.map_err(io::Error::other)?,
        None => Err(io::Error::other("a broker without an address")),
    }
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

const READ_BYTES: usize = 256 * 1024;
