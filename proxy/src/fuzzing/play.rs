//! A client and a broker that keep to their script, and a session between them.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use teeline_config::cluster::{Ack, Capture as CaptureSettings};
use teeline_wire::header::RequestHeader;
use teeline_wire::{apis, produce};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::judge::{self, Seen};
use super::script::{BrokerStep, ClientStep, Corpus, Cursor};
use crate::buffer::SyncMode;
use crate::session::testing::{Choices, Stage, join};

/// A cluster of the proxy, where one session after the other is played.
pub(super) struct Theatre {
    corpus: Corpus,
    stage: Stage,
    played: u32,
    /// Answers that clients got.
    pub(super) answers: u64,
}

impl Theatre {
    pub(super) async fn open() -> Theatre {
        let choices = Choices {
            capture: CaptureSettings {
                ack: Ack::Durable,
                ..CaptureSettings::default()
            },
            sync: SyncMode::Every(Duration::from_millis(1)),
            ..Choices::default()
        };
        Theatre {
            corpus: Corpus::read(),
            stage: Stage::with(choices).await,
            played: 0,
            answers: 0,
        }
    }

    /// The buffer fills, as nobody archives.
    pub(super) fn is_worn(&self) -> bool {
        self.played >= PLAYED_MAX
    }

    pub(super) async fn close(self) {
        self.stage.frames().await;
    }

    /// One connection from its begin to its end.
    pub(super) async fn play(&mut self, script: &[u8]) {
        self.played += 1;
        let (mut client_script, mut broker_script) = Cursor::of_both(script);
        let (client, broker, session) = join(&self.stage.cluster, None).await;
        let (from_proxy, to_proxy) = client.0.into_split();
        let (now, client_is) = watch::channel(Client::Asking);
        let asking = ask(&self.corpus, &mut client_script, to_proxy, &now);
        let listening = listen(from_proxy, now.subscribe());
        let serving = serve(&self.corpus, &mut broker_script, broker.0, client_is);
        let playing = async { tokio::join!(asking, listening, serving, session) };
        let (sent, received, served, ended) = tokio::time::timeout(PLAY_MAX, playing)
            .await
            .expect("every session comes to its end once both sides have");
        assert!(ended.is_ok(), "the session panicked");
        self.answers += judge::judge(
            &self.stage.cluster,
            &Seen {
                sent,
                received,
                forwarded: served.forwarded,
                answered: served.answered,
                misbehaved: served.misbehaved,
            },
        );
    }
}

/// Plays the client's asking side; says what it handed to its socket.
async fn ask(
    corpus: &Corpus,
    script: &mut Cursor<'_>,
    mut to_proxy: OwnedWriteHalf,
    now: &watch::Sender<Client>,
) -> Vec<u8> {
    let mut sent = Vec::new();
    for number in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        match corpus.client_step(script, number) {
            ClientStep::Send { bytes, piece } => {
                for piece in bytes.chunks(piece.max(1)) {
                    if to_proxy.write_all(piece).await.is_err() {
                        now.send_replace(Client::Ended);
                        return sent;
                    }
                    sent.extend_from_slice(piece);
                    tokio::task::yield_now().await;
                }
            }
            ClientStep::Wait => tokio::time::sleep(Duration::from_millis(1)).await,
            ClientStep::Ends => break,
            ClientStep::Leaves => {
                now.send_replace(Client::Left);
                return sent;
            }
        }
    }
    let _ = to_proxy.shutdown().await;
    now.send_replace(Client::Ended);
    sent
}

/// Reads until the proxy closes, or the client is gone.
async fn listen(mut from_proxy: OwnedReadHalf, mut client_is: watch::Receiver<Client>) -> Vec<u8> {
    let mut received = Vec::new();
    tokio::select! {
        // A reset is an end, too.
        _ = from_proxy.read_to_end(&mut received) => {}
        Ok(_) = client_is.wait_for(|now| *now == Client::Left) => {}
    }
    received
}

/// How far the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Asking,
    Ended,
    Left,
}

struct Served {
    forwarded: Vec<u8>,
    answered: Vec<Bytes>,
    misbehaved: bool,
}

/// Plays the broker: reads requests, and deals with each as the script says.
async fn serve(
    corpus: &Corpus,
    script: &mut Cursor<'_>,
    mut stream: TcpStream,
    client_is: watch::Receiver<Client>,
) -> Served {
    let mut served = Served {
        forwarded: Vec::new(),
        answered: Vec::new(),
        misbehaved: false,
    };
    let (mut buffer, mut tokens) = (BytesMut::new(), 0);
    loop {
        // When nothing more can come, a broker that waited for the rest of a request would hold up everybody.
        let asking = *client_is.borrow() == Client::Asking;
        match tokio::time::timeout(SILENCE_MAX, stream.read_buf(&mut buffer)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => break,
            Err(_elapsed) if !asking => break,
            Err(_elapsed) => continue,
        }
        while let Some(frame) = whole_frame(&mut buffer) {
            served.forwarded.extend_from_slice(&frame);
            let content = frame.slice(4..);
            let head = match tokens {
                0 => judge::head(&content),
                _ => None,
            };
            tokens = judge::tokens_after(tokens, &content);
            if head.is_some() && is_unanswered(&content) {
                continue;
            }
            match corpus.broker_step(script, head) {
                BrokerStep::Answer { bytes, piece } => {
                    served.answered.push(bytes.clone());
                    for piece in bytes.chunks(piece.max(1)) {
                        let _ = stream.write_all(piece).await;
                        tokio::task::yield_now().await;
                    }
                }
                BrokerStep::Misbehave { bytes } => {
                    served.misbehaved = true;
                    let _ = stream.write_all(&bytes).await;
                }
                BrokerStep::Leave => {
                    served.forwarded.extend_from_slice(&buffer);
                    // What was not read any more may have been anything.
                    served.misbehaved = true;
                    return served;
                }
            }
        }
    }
    served.forwarded.extend_from_slice(&buffer);
    served
}

fn whole_frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = i32::from_be_bytes(*buffer.first_chunk()?);
    let length = usize::try_from(length).expect("nothing but requests is forwarded") + 4;
    if buffer.len() < length {
        return None;
    }
    let frame = buffer.copy_to_bytes(length);
    Some(frame)
}

/// Brokers do not answer a Produce request with acks=0.
pub(super) fn is_unanswered(content: &Bytes) -> bool {
    let Ok(header) = RequestHeader::parse(content) else {
        return false;
    };
    if header.api_key != apis::PRODUCE {
        return false;
    }
    let request = produce::parse_request(header.api_version, &content.slice(header.header_len..));
    request.is_ok_and(|request| request.acks == 0)
}

const PLAYED_MAX: u32 = 2_000;
const STEPS_MAX: i32 = 64;
/// Longer than the proxy lingers for a client that is gone.
const PLAY_MAX: Duration = Duration::from_secs(45);
/// Short: it is most of what a session takes that ends in the middle of something.
const SILENCE_MAX: Duration = Duration::from_millis(3);
