//! Records as tests know them: what was sent, and what a producer was told about it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// A header: any bytes as its name, a value or null.
pub type Header = (Vec<u8>, Option<Vec<u8>>);

/// One record to send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The partition it goes to.
    pub partition: i32,
    /// Epoch milliseconds; without it the client takes the time of sending.
    pub timestamp: Option<i64>,
    /// The key, or null.
    pub key: Option<Vec<u8>>,
    /// The value, or null: a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order, repeated names kept.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record with a key and a value.
    pub fn new(partition: i32, key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            partition,
            key: Some(key.into()),
            value: Some(value.into()),
            ..Self::default()
        }
    }

    /// The same at a given time.
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// The same with one more header.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: Option<&[u8]>) -> Self {
        self.headers
            .push((name.as_ref().to_vec(), value.map(<[u8]>::to_vec)));
        self
    }

    /// The digest that every client program computes of key, value and headers.
    pub fn digest(&self) -> u64 {
        let start = field(
            field(0xcbf2_9ce4_8422_2325, self.key.as_deref()),
            self.value.as_deref(),
        );
        self.headers.iter().fold(start, |hash, (name, value)| {
            field(field(hash, Some(name)), value.as_deref())
        })
    }

    pub(crate) fn json(&self) -> Value {
        let encode = |bytes: &Vec<u8>| BASE64.encode(bytes);
        let headers: Vec<Value> = self
            .headers
            .iter()
            .map(|(name, value)| json!([encode(name), value.as_ref().map(encode)]))
            .collect();
        json!({"p": self.partition, "t": self.timestamp, "k": self.key.as_ref().map(encode),
            "v": self.value.as_ref().map(encode), "h": headers})
    }
}

/// FNV-1a over the length (-1 for null) and the bytes.
fn field(hash: u64, bytes: Option<&[u8]>) -> u64 {
    let length = bytes.map_or(-1, |bytes| {
        i32::try_from(bytes.len()).expect("a record is smaller than 2 GiB")
    });
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = length.to_le_bytes().iter().fold(hash, step);
    bytes.unwrap_or_default().iter().fold(hash, step)
}

/// What the broker told a producer about one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The partition it is in.
    pub partition: i32,
    /// Its offset; -1 with acks=0.
    pub offset: i64,
    /// Its timestamp as the client knows it.
    pub timestamp: i64,
}

impl Ack {
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let Some(row) = value.as_array() else {
            return Err(value.as_str().unwrap_or("no reason given").to_owned());
        };
        let number = |index: usize| row[index].as_i64().expect("a number in an acknowledgement");
        Ok(Self {
            partition: i32::try_from(number(0)).expect("a partition"),
            offset: number(1),
            timestamp: number(2),
        })
    }
}

/// What became of a record of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The producer was told that it is written, and committed if it was in a transaction.
    Acknowledged,
    /// Its transaction was aborted by the producer.
    Aborted,
    /// The producer was told nothing: it may be there or not.
    Unknown,
}

/// One line of a load's log.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// What became of it.
    pub fate: Fate,
    /// Where it was written, as far as told.
    pub ack: Ack,
    /// Its number within the load.
    pub sequence: u64,
    /// The digest of its content.
    pub digest: u64,
}

/// Reads the log of a load.
pub fn read_load_log(path: &Path) -> Vec<Sent> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    text.lines().map(parse_sent).collect()
}

fn parse_sent(line: &str) -> Sent {
    let fields: Vec<&str> = line.split(' ').collect();
    let number = |index: usize| {
        fields[index]
            .parse::<i64>()
            .unwrap_or_else(|_| panic!("a number in {line:?}"))
    };
    Sent {
        fate: match fields[0] {
            "A" => Fate::Acknowledged,
            "X" => Fate::Aborted,
            _ => Fate::Unknown,
        },
        ack: Ack {
            partition: i32::try_from(number(1)).expect("a partition"),
            offset: number(2),
            timestamp: number(3),
        },
        sequence: u64::try_from(number(4)).expect("a sequence number"),
        digest: u64::from_str_radix(fields[5], 16).expect("a digest"),
    }
}
