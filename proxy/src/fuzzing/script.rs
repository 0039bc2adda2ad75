//! Bytes as a script: what client and broker do, one after the other.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchResponse, TopicName};
use kafka_protocol::protocol::{Encodable, Message, StrBytes};
use teeline_wire::{apis, header};

use super::damage::{Chance, damage};
use super::frames::{self, Frame};

/// Reads decisions from a script; zeros when it is over.
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Half of the script each.
    pub(super) fn of_both(script: &'a [u8]) -> (Cursor<'a>, Cursor<'a>) {
        let (client, broker) = script.split_at(script.len() / 2);
        (Cursor(client), Cursor(broker))
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn index(&mut self, count: usize) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()])) % count.max(1)
    }

    fn chance(&mut self) -> Chance {
        Chance::of(self.index(usize::MAX) as u64)
    }
}

/// What the client does next.
#[derive(Debug)]
pub(super) enum ClientStep {
    /// Sends bytes in pieces of this size.
    Send { bytes: Vec<u8>, piece: usize },
    /// Lets the others go on.
    Wait,
    /// Sends no more, and reads on.
    Ends,
    /// Is gone.
    Leaves,
}

/// What the broker does with a request.
#[derive(Debug)]
pub(super) enum BrokerStep {
    /// Answers it: its own frame, as it should be.
    Answer { bytes: Bytes, piece: usize },
    /// Sends what a broker would not.
    Misbehave { bytes: Bytes },
    /// Closes.
    Leave,
}

/// What real clients and brokers sent.
#[derive(Debug)]
pub(super) struct Corpus {
    requests: Vec<Frame>,
    responses: BTreeMap<(i16, i16), Vec<Vec<u8>>>,
}

impl Corpus {
    pub(super) fn read() -> Corpus {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata/frames");
        let mut corpus = Corpus {
            requests: Vec::new(),
            responses: BTreeMap::new(),
        };
        for frame in frames::read(&directory) {
            if frame.is_request {
                corpus.requests.push(frame);
            } else {
                let of_kind = corpus.responses.entry((frame.api_key, frame.api_version));
                of_kind.or_default().push(frame.content);
            }
        }
        assert!(
            !corpus.requests.is_empty() && !corpus.responses.is_empty(),
            "the corpus is there"
        );
        corpus
    }

    pub(super) fn client_step(&self, script: &mut Cursor<'_>, number: i32) -> ClientStep {
        let bytes = match script.byte() {
            0..=149 => framed(&self.request(script, number)),
            150..=199 => {
                let mut content = self.request(script, number);
                damage(&mut content, &mut script.chance());
                framed(&content)
            }
            // The length lies.
            200..=209 => {
                let mut frame = framed(&self.request(script, number));
                damage(&mut frame, &mut script.chance());
                frame
            }
            210..=217 => {
                let count = usize::from(script.byte());
                script.chance().bytes(count)
            }
            218..=229 => sasl(script, number),
            230..=235 => framed(&unknown(script, number)),
            236..=239 => newer_api_versions(number),
            240..=247 => return ClientStep::Wait,
            248..=252 => return ClientStep::Ends,
            253.. => return ClientStep::Leaves,
        };
        let piece = piece(script);
        ClientStep::Send { bytes, piece }
    }

    fn request(&self, script: &mut Cursor<'_>, number: i32) -> Vec<u8> {
        let mut content = self.requests[script.index(self.requests.len())].content.clone();
        content[4..8].copy_from_slice(&number.to_be_bytes());
        content
    }

    /// What the broker does with a request with this head; `raw` when it has none.
    pub(super) fn broker_step(&self, script: &mut Cursor<'_>, head: Option<(i16, i16, i32)>) -> BrokerStep {
        let Some((api_key, api_version, correlation_id)) = head else {
            let bytes = Bytes::from(framed(&vec![7; usize::from(script.byte())]));
            return BrokerStep::Answer {
                bytes,
                piece: piece(script),
            };
        };
        let decision = script.byte();
        if decision >= 250 {
            return BrokerStep::Leave;
        }
        let mut content = match self.responses.get(&(api_key, api_version)) {
            _ if api_key == apis::FETCH
                && large_fetch_versions().contains(&api_version)
                && (190..=205).contains(&decision) =>
            {
                large_fetch(script, api_version)
            }
            Some(known) => known[script.index(known.len())].clone(),
            None => {
                let body = script.chance().bytes(12);
                header::response_frame(api_key, api_version, 0, &body).unwrap()[4..].to_vec()
            }
        };
        content[..4].copy_from_slice(&correlation_id.to_be_bytes());
        match decision {
            206..=229 => {
                // The correlation id stays: only then is the rest looked at.
                let mut rest = content.split_off(4);
                damage(&mut rest, &mut script.chance());
                content.extend(rest);
                // Still one answer in one frame; what is in it is another matter.
                BrokerStep::Answer {
                    bytes: framed(&content).into(),
                    piece: piece(script),
                }
            }
            230..=239 => {
                let mut frame = framed(&content);
                damage(&mut frame, &mut script.chance());
                BrokerStep::Misbehave { bytes: frame.into() }
            }
            240..=249 => BrokerStep::Misbehave {
                bytes: script.chance().bytes(20).into(),
            },
            _ => BrokerStep::Answer {
                bytes: framed(&content).into(),
                piece: piece(script),
            },
        }
    }
}

fn piece(script: &mut Cursor<'_>) -> usize {
    match script.byte() {
        small @ 1..=40 => usize::from(small),
        byte => usize::from(byte) * 300 + 100_000 * usize::from(byte == 0),
    }
}

pub(super) fn framed(content: &[u8]) -> Vec<u8> {
    let mut frame = (content.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(content);
    frame
}

/// A request header without a client id, of a version that is not flexible, and a body.
fn plain(api_key: i16, api_version: i16, number: i32, body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    content.put_i16(api_key);
    content.put_i16(api_version);
    content.put_i32(number);
    content.put_i16(-1);
    content.extend_from_slice(body);
    content
}

/// A handshake of either version and what follows it: secrets are not in the corpus.
fn sasl(script: &mut Cursor<'_>, number: i32) -> Vec<u8> {
    let names: [&[u8]; 5] = [b"PLAIN", b"SCRAM-SHA-512", b"OAUTHBEARER", b"GSSAPI", b"\xff\xfe"];
    let name = names[script.index(names.len())];
    let version = i16::from(script.byte() % 2);
    let mut body = (name.len() as i16).to_be_bytes().to_vec();
    body.extend_from_slice(name);
    let mut frames = framed(&plain(apis::SASL_HANDSHAKE, version, number, &body));
    let token = vec![b't'; usize::from(script.byte() % 40)];
    if version == 0 {
        frames.extend(framed(&token));
    } else {
        let mut body = (token.len() as i32).to_be_bytes().to_vec();
        body.extend_from_slice(&token);
        frames.extend(framed(&plain(
            apis::SASL_AUTHENTICATE,
            0,
            number.wrapping_add(1_000_000),
            &body,
        )));
    }
    frames
}

/// Keys that a newer Kafka may have, and negative ones.
fn unknown(script: &mut Cursor<'_>, number: i32) -> Vec<u8> {
    let api_key = [apis::NEWEST_KNOWN_KEY + 1, 900, -1, i16::MAX][script.index(4)];
    let mut chance = script.chance();
    let count = chance.below(3_000);
    plain(api_key, i16::from(script.byte()), number, &chance.bytes(count))
}

/// Answered by the proxy itself.
fn newer_api_versions(number: i32) -> Vec<u8> {
    framed(&plain(apis::API_VERSIONS, 99, number, b"\x00\x00"))
}

/// A damaged request may ask for any version.
fn large_fetch_versions() -> RangeInclusive<i16> {
    FetchResponse::VERSIONS.min..=FetchResponse::VERSIONS.max
}

/// So large that it streams, with leader hints behind the records where the version has them.
fn large_fetch(script: &mut Cursor<'_>, api_version: i16) -> Vec<u8> {
    let records = vec![script.byte(); 64_000 + 40 * usize::from(script.byte())];
    let partition = PartitionData::default()
        .with_records(Some(records.into()))
        .with_diverging_epoch(EpochEndOffset::default())
        .with_current_leader(
            LeaderIdAndEpoch::default().with_leader_id(BrokerId(if api_version >= 12 { 2 } else { -1 })),
        );
    let mut topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    if api_version < 13 {
        topic = topic.with_topic(TopicName(StrBytes::from_static_str("topic")));
    }
    let mut message = FetchResponse::default().with_responses(vec![topic]);
    if api_version >= 16 {
        let endpoint = NodeEndpoint::default()
            .with_node_id(BrokerId(2))
            .with_host(StrBytes::from_static_str("broker-2.internal"))
            .with_port(9092);
        message = message.with_node_endpoints(vec![endpoint]);
    }
    let mut body = BytesMut::new();
    message.encode(&mut body, api_version).unwrap();
    header::response_frame(apis::FETCH, api_version, 0, &body).unwrap()[4..].to_vec()
}
