//! A load generator that costs next to nothing: requests are encoded once, and only their correlation ids change.
//!
//! Ordinary clients spend many times what a proxy does, so on a small machine they are the ones that are measured. What
//! this one leaves out (batching, compression, retries) is work that no proxy sees.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};
use teeline_wire::header;
use teeline_wire::produce;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What one connection sends.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The leader, or what stands before it.
    pub address: String,
    /// The topic, by name.
    pub topic: String,
    /// What every request holds: for each of these partitions, this batch.
    pub batches: Vec<(i32, Bytes)>,
}

/// How it is sent.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as answers come, with so many requests unanswered on each connection.
    Closed {
        /// Requests in flight.
        in_flight: usize,
    },
    /// At fixed times, whether answers come or not. Latency counts from the time that a request was due, so that a
    /// stall is seen by all that had to wait for it.
    Open {
        /// Between two requests of one connection.
        every: Duration,
    },
}

/// What was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// Bytes of record batches that were acknowledged.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of each request, sorted.
    pub latencies: Vec<Duration>,
}

impl Measured {
    /// Megabytes (10^6) of record batches a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }

    /// The latency that this part (0 to 1) of the requests stayed within; zero of nothing.
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Sends on all connections at once until the time is over, and waits for the last answers.
///
/// # Errors
/// When a connection fails, or an answer is not a success.
pub async fn produce(streams: Vec<Stream>, pace: Pace, duration: Duration) -> io::Result<Measured> {
    let mut connections = Vec::with_capacity(streams.len());
    for stream in streams {
        let socket = TcpStream::connect(&stream.address).await?;
        socket.set_nodelay(true)?;
        connections.push((socket, Template::of(&stream)?));
    }
    let began = Instant::now();
    let end = began + duration;
    let mut running = JoinSet::new();
    for (socket, template) in connections {
        running.spawn(run(socket, template, pace, end));
    }
    let mut all = Measured::default();
    while let Some(ended) = running.join_next().await {
        let one = ended.map_err(io::Error::other)??;
        all.bytes += one.bytes;
        all.latencies.extend(one.latencies);
    }
    all.elapsed = began.elapsed();
    all.latencies.sort_unstable();
    Ok(all)
}

/// A request whose correlation id is still to be put in.
struct Template {
    frame: BytesMut,
    record_bytes: u64,
}

impl Template {
    fn of(stream: &Stream) -> io::Result<Template> {
        let partitions = stream.batches.iter().map(|(partition, batch)| {
            PartitionProduceData::default()
                .with_index(*partition)
                .with_records(Some(batch.clone()))
        });
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(stream.topic.clone())))
            .with_partition_data(partitions.collect());
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        frame.put_i16(ApiKey::Produce as i16);
        frame.put_i16(VERSION);
        frame.put_i32(0);
        frame.put_i16(CLIENT_ID.len() as i16);
        frame.put_slice(CLIENT_ID);
        // No tagged fields.
        frame.put_u8(0);
        request
            .encode(&mut frame, VERSION)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let length = i32::try_from(frame.len() - LENGTH_BYTES).map_err(io::Error::other)?;
        put_i32(&mut frame, 0, length);
        let record_bytes = stream.batches.iter().map(|(_, batch)| batch.len() as u64).sum();
        Ok(Template { frame, record_bytes })
    }

    fn numbered(&mut self, correlation_id: i32) -> &[u8] {
        put_i32(&mut self.frame, CORRELATION_ID_AT, correlation_id);
        &self.frame
    }
}

fn put_i32(frame: &mut [u8], at: usize, value: i32) {
    if let Some(place) = frame.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

async fn run(socket: TcpStream, template: Template, pace: Pace, end: Instant) -> io::Result<Measured> {
    let record_bytes = template.record_bytes;
    let (reader, writer) = socket.into_split();
    let room = Arc::new(Semaphore::new(match pace {
        Pace::Closed { in_flight } => in_flight,
        Pace::Open { .. } => UNANSWERED_MAX,
    }));
    let (due, awaited) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send(writer, template, pace, end, due, Arc::clone(&room)));
    let mut measured = receive(reader, awaited, &room).await?;
    // The sender's half is open until here: an end of it would be taken for the end of the client.
    drop(sending.await.map_err(io::Error::other)??);
    measured.bytes = measured.latencies.len() as u64 * record_bytes;
    Ok(measured)
}

async fn send(
    mut writer: OwnedWriteHalf,
    mut template: Template,
    pace: Pace,
    end: Instant,
    due: mpsc::UnboundedSender<Instant>,
    room: Arc<Semaphore>,
) -> io::Result<OwnedWriteHalf> {
    let mut next = Instant::now();
    for correlation_id in 0.. {
        let scheduled = match pace {
            Pace::Closed { .. } => None,
            Pace::Open { every } => {
                tokio::time::sleep_until(next).await;
                let scheduled = next;
                next += every;
                Some(scheduled)
            }
        };
        room.acquire().await.map_err(io::Error::other)?.forget();
        let at = scheduled.unwrap_or_else(Instant::now);
        if at >= end || due.send(at).is_err() {
            break;
        }
        writer.write_all(template.numbered(correlation_id)).await?;
    }
    Ok(writer)
}

async fn receive(
    mut reader: OwnedReadHalf,
    mut awaited: mpsc::UnboundedReceiver<Instant>,
    room: &Semaphore,
) -> io::Result<Measured> {
    let mut measured = Measured::default();
    let mut intake = BytesMut::new();
    let mut correlation_id = 0;
    while let Some(due) = awaited.recv().await {
        let answer = tokio::time::timeout(PATIENCE, frame(&mut reader, &mut intake)).await;
        check(
            &answer.map_err(|_| io::Error::other("no answer in time"))??,
            correlation_id,
        )?;
        measured.latencies.push(due.elapsed());
        room.add_permits(1);
        correlation_id += 1;
    }
    Ok(measured)
}

async fn frame(reader: &mut OwnedReadHalf, intake: &mut BytesMut) -> io::Result<Bytes> {
    loop {
        if let Some(prefix) = intake.first_chunk::<LENGTH_BYTES>() {
            let length = usize::try_from(i32::from_be_bytes(*prefix)).map_err(io::Error::other)?;
            if intake.len() >= LENGTH_BYTES + length {
                intake.advance(LENGTH_BYTES);
                return Ok(intake.split_to(length).freeze());
            }
        }
        intake.reserve(READ_BYTES);
        if reader.read_buf(intake).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn check(answer: &Bytes, correlation_id: i32) -> io::Result<()> {
    let (got, body_at) =
        header::parse_response_header(ApiKey::Produce as i16, VERSION, answer).map_err(io::Error::other)?;
    if got != correlation_id {
        return Err(io::Error::other(format!(
            "an answer to {got}, not to {correlation_id}"
        )));
    }
    let outcomes = produce::parse_response(VERSION, &answer.slice(body_at..)).map_err(io::Error::other)?;
    match outcomes.iter().find(|outcome| outcome.error_code != 0) {
        Some(outcome) => Err(io::Error::other(format!(
            "partition {}: error {}",
            outcome.partition, outcome.error_code
        ))),
        None => Ok(()),
    }
}

/// Topics by name, and flexible: what every broker since 2.4 and every proxy here understands.
const VERSION: i16 = 9;
const CLIENT_ID: &[u8] = b"bench";
const LENGTH_BYTES: usize = 4;
const CORRELATION_ID_AT: usize = 8;
const READ_BYTES: usize = 16 * 1024;
/// Of a sender that does not wait for answers: beyond this nobody would call it steady any more.
const UNANSWERED_MAX: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);
