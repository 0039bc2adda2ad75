//! A Kafka client of bare sockets, for what no proper client would do: to stop in the middle, to ask and not to read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::wait::seconds;

/// Longer than anything here takes that goes on at all.
const PATIENCE: Duration = seconds(30);

/// One connection.
#[derive(Debug)]
pub struct RawClient(pub TcpStream);

impl RawClient {
    /// Connects, patiently.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Asks for the versions of all APIs, which every broker answers to everybody.
    pub fn ask(&mut self) -> io::Result<Vec<u8>> {
        self.send(&request(18, 0, &[]))?;
        self.receive()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// The next answer, without its length.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; self.length()?];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// The length of the next answer; the answer itself is left to be read.
    pub fn length(&mut self) -> io::Result<usize> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)
    }

    /// Reads so many bytes and throws them away.
    pub fn pass_over(&mut self, bytes: usize) -> io::Result<()> {
        let mut left = bytes as u64;
        let mut piece = vec![0; 256 * 1024];
        while left > 0 {
            let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            match self.0.read(&mut piece[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read as u64,
            }
        }
        Ok(())
    }

    /// Waits for the end of the connection; whatever comes before it is thrown away.
    pub fn wait_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection was not closed: {error}"),
        }
    }
}

/// Bytes with their length before them.
pub fn frame(body: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(body.len()).expect("a frame is small").to_be_bytes()[..],
        body,
    ]
    .concat()
}

/// A request with header version 1 and no client id.
pub fn request(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let head = [
        &key.to_be_bytes()[..],
        &version.to_be_bytes(),
        &7_i32.to_be_bytes(),
        &(-1_i16).to_be_bytes(),
    ]
    .concat();
    frame(&[&head[..], body].concat())
}

/// A Fetch request (version 4) for partition 0 of a topic from its beginning, up to `bytes_max`.
pub fn fetch(topic: &str, bytes_max: i32) -> Vec<u8> {
    let body = [
        &(-1_i32).to_be_bytes()[..],
        &500_i32.to_be_bytes(),
        &1_i32.to_be_bytes(),
        &bytes_max.to_be_bytes(),
        &[0],
        &topic_head(topic),
        &0_i32.to_be_bytes(),
        &0_i64.to_be_bytes(),
        &bytes_max.to_be_bytes(),
    ]
    .concat();
    request(1, 4, &body)
}

/// A Produce request (version 3) with so many bytes for partition 0 of a topic. They are no batch.
pub fn produce(topic: &str, bytes: usize) -> Vec<u8> {
    produce_batch(topic, &vec![0; bytes])
}

/// The same with acks=0: no answer follows.
pub fn produce_unanswered(topic: &str, bytes: usize) -> Vec<u8> {
    produce_with(0, topic, &vec![0; bytes])
}

/// The same with a record batch.
pub fn produce_batch(topic: &str, batch: &[u8]) -> Vec<u8> {
    produce_with(1, topic, batch)
}

fn produce_with(acks: i16, topic: &str, batch: &[u8]) -> Vec<u8> {
    let body = [
        &(-1_i16).to_be_bytes()[..],
        &acks.to_be_bytes(),
        &30_000_i32.to_be_bytes(),
        &topic_head(topic),
        &0_i32.to_be_bytes(),
        &u32::try_from(batch.len())
            .expect("a frame is small")
            .to_be_bytes(),
        batch,
    ]
    .concat();
    request(0, 3, &body)
}

/// A Produce request (version 13) with a record batch for partition 0 of the topic with this id.
pub fn produce_by_id(id: [u8; 16], batch: &[u8]) -> Vec<u8> {
    // Compact arrays and strings carry their length plus one, and structures end with their tagged fields.
    let length = u32::try_from(batch.len()).expect("a frame is small") + 1;
    let body = [
        // The header's tagged fields, then no transactional id.
        &[0, 0][..],
        &1_i16.to_be_bytes(),
        &30_000_i32.to_be_bytes(),
        &[2],
        &id,
        &[2],
        &0_i32.to_be_bytes(),
        &varint(length),
        batch,
        &[0, 0, 0],
    ]
    .concat();
    request(0, 13, &body)
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// An array of one topic with an array of one partition.
fn topic_head(topic: &str) -> Vec<u8> {
    [
        &1_i32.to_be_bytes()[..],
        &u16::try_from(topic.len()).expect("a name is short").to_be_bytes(),
        topic.as_bytes(),
        &1_i32.to_be_bytes(),
    ]
    .concat()
}

/// Lets this process open as many files as it may at all; how many that is.
pub fn raise_open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raise a limit up to what is allowed");
    limit.maximum.unwrap_or(u64::MAX)
}
