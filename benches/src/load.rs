//! A load generator that costs next to nothing: batches are built once, and only what stands before them is written anew.
//!
//! Ordinary clients spend many times what a proxy does, so on a small machine they are the ones that are measured. What
//! this one leaves out (batching, compression, retries) is work that no proxy sees.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
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
    /// The partitions that it takes in turn.
    pub partitions: Vec<i32>,
    /// The batches that it takes in turn. Each connection begins elsewhere, so that what is alike lies far apart.
    pub batches: Arc<[Bytes]>,
    /// The batch that it begins with.
    pub first: usize,
    /// Batches of one request, each for another partition.
    pub batches_per_request: usize,
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
    /// Bytes of record batches that were acknowledged, or fetched.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Of each request, sorted.
    pub latencies: Vec<Duration>,
}

impl Measured {
    /// What all connections measured together, which began at the same time, once the last has ended.
    pub(crate) async fn of_all(
        mut running: JoinSet<io::Result<Measured>>,
        began: Instant,
    ) -> io::Result<Measured> {
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

/// Connects, sends one request on each connection, says that it begins, sends on all of them at once until the time is
/// over, and waits for the last answers.
///
/// # Errors
/// When a connection fails, or an answer is not a success.
pub async fn produce(
    streams: Vec<Stream>,
    pace: Pace,
    duration: Duration,
    begins: impl FnOnce(),
) -> io::Result<Measured> {
    let mut connections = Vec::with_capacity(streams.len());
    for stream in streams {
        connections.push(connect(stream).await?);
    }
    begins();
    let began = Instant::now();
    let end = began + duration;
    let count = connections.len();
    let mut running = JoinSet::new();
    for (index, (socket, requests)) in connections.into_iter().enumerate() {
        let start = match pace {
            Pace::Closed { .. } => began,
            // In turn, not all at the same moment.
            Pace::Open { every } => began + every.mul_f64(index as f64 / count as f64),
        };
        running.spawn(run(socket, requests, pace, start, end));
    }
    Measured::of_all(running, began).await
}

/// A connection that has had its first answer: what it takes to open one is not what is measured.
async fn connect(stream: Stream) -> io::Result<(TcpStream, Requests)> {
    let mut socket = TcpStream::connect(&stream.address).await?;
    socket.set_nodelay(true)?;
    let mut requests = Requests::of(stream);
    let correlation_id = requests.correlation_id;
    let (pieces, _) = requests.make();
    socket.write_all(&pieces.concat()).await?;
    let length = usize::try_from(socket.read_i32().await?).map_err(io::Error::other)?;
    let mut answer = BytesMut::zeroed(length);
    socket.read_exact(&mut answer).await?;
    check(&answer.freeze(), correlation_id)?;
    Ok((socket, requests))
}

/// The requests of a stream, one after the other.
#[derive(Debug)]
pub struct Requests {
    stream: Stream,
    taken: usize,
    correlation_id: i32,
}

impl Requests {
    /// From the first one on.
    pub fn of(stream: Stream) -> Requests {
        Requests {
            stream,
            taken: 0,
            correlation_id: 0,
        }
    }

    /// Makes the next one: the pieces of its frame in their order, and how many of its bytes are record batches.
    pub fn make(&mut self) -> (Vec<Bytes>, u64) {
        let stream = &self.stream;
        let count = stream.batches_per_request.clamp(1, stream.partitions.len());
        let mut pieces = Vec::with_capacity(2 * count + 1);
        let mut open = BytesMut::with_capacity(HEAD_BYTES);
        open.put_i32(0);
        open.put_i16(ApiKey::Produce as i16);
        open.put_i16(VERSION);
        open.put_i32(self.correlation_id);
        open.put_i16(CLIENT_ID.len() as i16);
        open.put_slice(CLIENT_ID);
        open.put_u8(NO_TAGS);
        // No transaction.
        open.put_u8(0);
        open.put_i16(ACKS_ALL);
        open.put_i32(TIMEOUT_MS);
        put_length(&mut open, 1);
        put_length(&mut open, stream.topic.len());
        open.put_slice(stream.topic.as_bytes());
        put_length(&mut open, count);
        let mut record_bytes = 0;
        for index in self.taken..self.taken + count {
            let batch = &stream.batches[(stream.first + index) % stream.batches.len()];
            open.put_i32(stream.partitions[index % stream.partitions.len()]);
            put_length(&mut open, batch.len());
            pieces.push(open.split().freeze());
            pieces.push(batch.clone());
            record_bytes += batch.len() as u64;
            open.put_u8(NO_TAGS);
        }
        // Of the topic, and of the request.
        open.put_slice(&[NO_TAGS, NO_TAGS]);
        pieces.push(open.freeze());
        number(&mut pieces);
        self.taken += count;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        (pieces, record_bytes)
    }
}

/// Writes the length of the frame into its first bytes.
fn number(pieces: &mut [Bytes]) {
    let length = pieces.iter().map(Bytes::len).sum::<usize>() - LENGTH_BYTES;
    let mut first = BytesMut::from(pieces[0].clone());
    first[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    pieces[0] = first.freeze();
}

/// The length of a compact string, array or byte field: one more than it is, seven bits a byte.
fn put_length(buffer: &mut BytesMut, length: usize) {
    let mut left = length + 1;
    while left >= 0x80 {
        buffer.put_u8((left & 0x7F) as u8 | 0x80);
        left >>= 7;
    }
    buffer.put_u8(left as u8);
}

async fn run(
    socket: TcpStream,
    requests: Requests,
    pace: Pace,
    start: Instant,
    end: Instant,
) -> io::Result<Measured> {
    let (reader, writer) = socket.into_split();
    let room = Arc::new(Semaphore::new(match pace {
        Pace::Closed { in_flight } => in_flight,
        Pace::Open { .. } => UNANSWERED_MAX,
    }));
    let (due, awaited) = mpsc::unbounded_channel();
    let first = requests.correlation_id;
    let sending = tokio::spawn(send(writer, requests, pace, (start, end), due, Arc::clone(&room)));
    let measured = receive(reader, awaited, &room, first).await?;
    // The sender's half is open until here: an end of it would be taken for the end of the client.
    drop(sending.await.map_err(io::Error::other)??);
    Ok(measured)
}

/// When a request was due, and how many bytes of record batches it holds.
type Due = (Instant, u64);

async fn send(
    mut writer: OwnedWriteHalf,
    mut requests: Requests,
    pace: Pace,
    (start, end): (Instant, Instant),
    due: mpsc::UnboundedSender<Due>,
    room: Arc<Semaphore>,
) -> io::Result<OwnedWriteHalf> {
    let mut next = start;
    loop {
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
        if at >= end {
            break;
        }
        let (pieces, record_bytes) = requests.make();
        if due.send((at, record_bytes)).is_err() {
            break;
        }
        write_all(&mut writer, &pieces).await?;
    }
    Ok(writer)
}

async fn write_all(writer: &mut OwnedWriteHalf, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match writer.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut left, written),
        }
    }
    Ok(())
}

async fn receive(
    mut reader: OwnedReadHalf,
    mut awaited: mpsc::UnboundedReceiver<Due>,
    room: &Semaphore,
    mut correlation_id: i32,
) -> io::Result<Measured> {
    let mut measured = Measured::default();
    let mut intake = BytesMut::new();
    while let Some((due, record_bytes)) = awaited.recv().await {
        let answer = tokio::time::timeout(PATIENCE, frame(&mut reader, &mut intake)).await;
        check(
            &answer.map_err(|_| io::Error::other("no answer in time"))??,
            correlation_id,
        )?;
        measured.latencies.push(due.elapsed());
        measured.bytes += record_bytes;
        room.add_permits(1);
        correlation_id = correlation_id.wrapping_add(1);
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

/// Whether a frame without its length answers the request with this correlation id, and all of it was taken.
///
/// # Errors
/// When not.
pub fn check(answer: &Bytes, correlation_id: i32) -> io::Result<()> {
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
const NO_TAGS: u8 = 0;
const ACKS_ALL: i16 = -1;
const TIMEOUT_MS: i32 = 30_000;
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 128;
const READ_BYTES: usize = 16 * 1024;
/// Of a sender that does not wait for answers: beyond this nobody would call it steady any more.
const UNANSWERED_MAX: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use teeline_wire::header::RequestHeader;

    #[test]
    fn requests_are_what_a_broker_reads_and_take_partitions_and_batches_in_turn() {
        let batches = ["one", "two", "three"].map(|text| {
            let batch = teeline_wire::records::BatchBuilder::single(0, None, Some(text.as_bytes()));
            batch.expect("a batch").bytes().clone()
        });
        let mut requests = Requests::of(Stream {
            address: String::new(),
            topic: "lean".to_owned(),
            partitions: vec![4, 7, 9],
            batches: Arc::from(batches.clone()),
            first: 1,
            batches_per_request: 2,
        });
        for (correlation_id, expected) in [(0, [(4, 1), (7, 2)]), (1, [(9, 0), (4, 1)])] {
            let (pieces, record_bytes) = requests.make();
            let frame = Bytes::from(pieces.concat());
            let (length, frame) = (frame.slice(..LENGTH_BYTES), frame.slice(LENGTH_BYTES..));
            assert_eq!(&length[..], (frame.len() as u32).to_be_bytes());
            let head = RequestHeader::parse(&frame).expect("a header");
            assert_eq!(head.correlation_id, correlation_id);
            let request =
                produce::parse_request(head.api_version, &frame.slice(head.header_len..)).expect("a request");
            let found: Vec<(i32, Bytes)> = request
                .entries
                .iter()
                .map(|entry| (entry.partition, entry.records.clone()))
                .collect();
            let expected = expected.map(|(partition, index)| (partition, batches[index].clone()));
            assert_eq!(found, expected);
            let sum: usize = expected.iter().map(|(_, batch)| batch.len()).sum();
            assert_eq!((record_bytes, request.acks), (sum as u64, -1));
        }
    }
}
