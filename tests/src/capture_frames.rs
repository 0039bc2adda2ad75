//! Stands between real clients and a real broker, and keeps a few frames of every kind: the corpus that parsers are
//! fuzzed with (`wire/testdata/frames`) is made from them.
//!
//! Nothing is changed on the way. Of each kind (direction, API key, version, size to a power of two) the first frames
//! of different clients are kept, small ones only; whatever may carry a secret, or names this machine, is not kept at all.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Which way a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From a client to the broker.
    Request,
    /// From the broker to a client.
    Response,
}

/// A frame without its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which way it went.
    pub direction: Direction,
    /// The API; a response has that of its request.
    pub api_key: i16,
    /// Its version.
    pub api_version: i16,
    /// Which client's it is.
    pub client: String,
    /// Header and body.
    pub content: Vec<u8>,
}

/// Accepts clients, and passes what they send to a broker and back. Dropping it stops accepting.
#[derive(Debug)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
    stopping: Arc<AtomicBool>,
    address: String,
}

/// Direction, key, version, and the size's logarithm.
type Kind = (Direction, i16, i16, u32);

#[derive(Debug, Default)]
struct Kept {
    client: String,
    frames: BTreeMap<Kind, Vec<Frame>>,
}

impl Recorder {
    /// Listens at `address` and connects to `broker` for each client.
    pub fn start(address: &str, broker: &str) -> Self {
        let listener = TcpListener::bind(address).expect("bind the recorder's port");
        let recorder = Self {
            kept: Arc::default(),
            stopping: Arc::default(),
            address: address.to_owned(),
        };
        let (kept, stopping, broker) = (
            recorder.kept.clone(),
            recorder.stopping.clone(),
            broker.to_owned(),
        );
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let (kept, broker) = (kept.clone(), broker.clone());
                // A connection that fails is the client's to report.
                thread::spawn(move || between(client, &broker, &kept));
            }
        });
        recorder
    }

    /// Who connects from now on.
    pub fn next_client(&self, name: &str) {
        self.kept.lock().expect("nobody panicked").client = name.to_owned();
    }

    /// What was kept so far, in order of its kind.
    pub fn frames(&self) -> Vec<Frame> {
        let kept = self.kept.lock().expect("nobody panicked");
        kept.frames.values().flatten().cloned().collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Kept {
    fn take(&mut self, direction: Direction, api_key: i16, api_version: i16, content: &[u8]) {
        if content.len() > FRAME_BYTES_MAX || SECRETIVE.contains(&api_key) || names_this_machine(content) {
            return;
        }
        let size = content.len().max(1).ilog2();
        let alike = self
            .frames
            .entry((direction, api_key, api_version, size))
            .or_default();
        if alike.len() < ALIKE_MAX && alike.iter().all(|frame| frame.client != self.client) {
            alike.push(Frame {
                direction,
                api_key,
                api_version,
                client: self.client.clone(),
                content: content.to_vec(),
            });
        }
    }
}

fn between(client: TcpStream, broker: &str, kept: &Arc<Mutex<Kept>>) {
    let asked: Arc<Mutex<VecDeque<Asked>>> = Arc::default();
    let Ok(upstream) = TcpStream::connect(broker) else {
        return;
    };
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    let (Ok(client_too), Ok(upstream_too)) = (client.try_clone(), upstream.try_clone()) else {
        return;
    };
    let (noted, kept_too) = (asked.clone(), kept.clone());
    let requests = thread::spawn(move || {
        pass(&client, &upstream, |frame| {
            if let Some(request) = Asked::of(frame) {
                keep(&kept_too, Direction::Request, &request, frame);
                noted.lock().expect("nobody panicked").push_back(request);
            }
        })
    });
    let _ = pass(&upstream_too, &client_too, |frame| {
        let Some(correlation_id) = frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes)) else {
            return;
        };
        // Some requests have no answer: what lies before the one that is answered was of these. Not under one lock with
        // what follows: the other direction takes both as well.
        let answered = {
            let mut asked = asked.lock().expect("nobody panicked");
            std::iter::from_fn(|| asked.pop_front()).find(|request| request.correlation_id == correlation_id)
        };
        if let Some(request) = answered {
            keep(kept, Direction::Response, &request, frame);
        }
    });
    let _ = requests.join();
}

/// Passes frames from one side to the other until one of them ends, and shows each.
fn pass(mut from: &TcpStream, mut to: &TcpStream, mut show: impl FnMut(&[u8])) -> io::Result<()> {
    let result = (|| {
        loop {
            let mut length = [0; 4];
            from.read_exact(&mut length)?;
            let bytes = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
            let mut frame = vec![0; bytes];
            from.read_exact(&mut frame)?;
            // Before it is passed on: its answer must not come first.
            show(&frame);
            to.write_all(&[&length, frame.as_slice()].concat())?;
        }
    })();
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    result
}

fn keep(kept: &Mutex<Kept>, direction: Direction, of: &Asked, frame: &[u8]) {
    let mut kept = kept.lock().expect("nobody panicked");
    kept.take(direction, of.api_key, of.api_version, frame);
}

struct Asked {
    api_key: i16,
    api_version: i16,
    correlation_id: i32,
}

impl Asked {
    fn of(frame: &[u8]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = *frame.first_chunk()?;
        Some(Self {
            api_key: i16::from_be_bytes([a, b]),
            api_version: i16::from_be_bytes([c, d]),
            correlation_id: i32::from_be_bytes([e, f, g, h]),
        })
    }
}

fn names_this_machine(content: &[u8]) -> bool {
    let texts = [
        std::env::var("HOME").ok(),
        std::fs::read_to_string("/proc/sys/kernel/hostname").ok(),
        std::env::current_dir()
            .ok()
            .and_then(|path| path.to_str().map(str::to_owned)),
    ];
    texts
        .iter()
        .flatten()
        .map(|text| text.trim().as_bytes())
        .any(|text| {
            // Shorter ones are in every other frame by chance.
            text.len() >= 5 && content.windows(text.len()).any(|window| window == text)
        })
}

/// Larger ones teach a fuzzer nothing new.
const FRAME_BYTES_MAX: usize = 3_000;
/// Frames of one kind, each of another client.
const ALIKE_MAX: usize = 2;
/// SaslAuthenticate, delegation tokens, and changes of SCRAM credentials.
const SECRETIVE: [i16; 6] = [36, 38, 39, 40, 41, 51];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_large_frames_are_not_kept_and_the_rest_once_a_client() {
        let mut kept = Kept::default();
        for client in ["a", "a", "b", "c"] {
            kept.client = client.to_owned();
            kept.take(Direction::Request, 3, 12, &[0; 40]);
            kept.take(Direction::Request, 36, 2, &[0; 40]);
            kept.take(Direction::Response, 3, 12, &vec![0; FRAME_BYTES_MAX + 1]);
        }
        let clients: Vec<&str> = kept
            .frames
            .values()
            .flatten()
            .map(|frame| frame.client.as_str())
            .collect();
        assert_eq!(clients, ["a", "b"]);
    }

    #[test]
    fn frames_pass_unchanged_and_answers_find_their_requests() {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = broker.local_addr().unwrap().to_string();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = free.local_addr().unwrap().to_string();
        drop(free);
        let recorder = Recorder::start(&own, &address);
        recorder.next_client("test");
        let mut client = TcpStream::connect(&own).unwrap();
        let (mut served, _) = broker.accept().unwrap();
        let request = [0, 0, 0, 8, 0, 18, 0, 3, 0, 0, 0, 7];
        client.write_all(&request).unwrap();
        let mut got = [0; 12];
        served.read_exact(&mut got).unwrap();
        assert_eq!(got, request);
        let response = [0, 0, 0, 6, 0, 0, 0, 7, 0, 0];
        served.write_all(&response).unwrap();
        let mut got = [0; 10];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, response);
        let frames = recorder.frames();
        assert_eq!(frames.len(), 2);
        assert!(
            frames
                .iter()
                .all(|frame| (frame.api_key, frame.api_version) == (18, 3))
        );
        assert_eq!(frames[1].content, response[4..]);
    }
}
