//! Consumers that cost next to nothing: they ask for the same records again and again, and read what comes.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::Measured;

/// What each connection asks for.
#[derive(Debug, Clone)]
pub struct Question {
    /// The leader, or what stands before it.
    pub address: String,
    /// The topic, by name.
    pub topic: String,
    /// The first so many partitions, from the beginning.
    pub partitions: i32,
    /// Of each partition in one answer, as consumers set it.
    pub partition_bytes_max: i32,
}

/// Asks on so many connections until the time is over, one request at a time on each, as consumers do.
///
/// # Errors
/// When a connection fails, or an answer is not what was asked for.
pub async fn fetch(question: &Question, connections: usize, duration: Duration) -> io::Result<Measured> {
    let frame = frame(question)?;
    let mut sockets = Vec::with_capacity(connections);
    for _ in 0..connections {
        let socket = TcpStream::connect(&question.address).await?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for socket in sockets {
        running.spawn(ask(socket, frame.clone(), began + duration));
    }
    Measured::of_all(running, began).await
}

fn frame(question: &Question) -> io::Result<BytesMut> {
    let partitions = (0..question.partitions).map(|partition| {
        FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(0)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(question.partition_bytes_max)
    });
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_string(question.topic.clone())))
        .with_partitions(partitions.collect());
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(BYTES_MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(ApiKey::Fetch as i16);
    frame.put_i16(VERSION);
    frame.put_i32(CORRELATION_ID);
    frame.put_i16(CLIENT_ID.len() as i16);
    frame.put_slice(CLIENT_ID);
    // No tagged fields.
    frame.put_u8(0);
    request
        .encode(&mut frame, VERSION)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let length = i32::try_from(frame.len() - LENGTH_BYTES).map_err(io::Error::other)?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

async fn ask(mut socket: TcpStream, frame: BytesMut, end: Instant) -> io::Result<Measured> {
    let mut measured = Measured::default();
    let mut room = vec![0; READ_BYTES];
    while Instant::now() < end {
        let begun = Instant::now();
        socket.write_all(&frame).await?;
        let length = usize::try_from(socket.read_i32().await?).map_err(io::Error::other)?;
        let correlation_id = socket.read_i32().await?;
        if correlation_id != CORRELATION_ID || length < ANSWER_BYTES_MIN {
            let text = format!("an answer to {correlation_id} of {length} bytes: not what was asked for");
            return Err(io::Error::other(text));
        }
        let mut left = length - LENGTH_BYTES;
        while left > 0 {
            let most = left.min(room.len());
            match socket.read(&mut room[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        measured.bytes += length as u64;
        measured.latencies.push(begun.elapsed());
    }
    Ok(measured)
}

const VERSION: i16 = 12;
const CLIENT_ID: &[u8] = b"bench";
const CORRELATION_ID: i32 = 7;
const LENGTH_BYTES: usize = 4;
/// Less than this holds no batch.
const ANSWER_BYTES_MIN: usize = 4_096;
/// Of a whole answer, as consumers set it.
const BYTES_MAX: i32 = 50 << 20;
const READ_BYTES: usize = 256 * 1024;
