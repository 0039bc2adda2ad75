//! Replays: the seeds that were worth keeping, and new ones for a moment.

use std::path::Path;
use std::time::{Duration, Instant};

use super::damage::{Chance, damage};
use super::{ALL, session};

/// Seconds for each target; `cargo xtask soak` gives more.
fn time() -> Duration {
    let seconds = std::env::var("TEELINE_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

fn seed() -> u64 {
    let seed = std::env::var("TEELINE_FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    seed.unwrap_or(1)
}

#[test]
fn the_committed_corpus_still_holds() {
    for (name, target) in ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut entries: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        assert!(!entries.is_empty(), "{} is empty", folder.display());
        for path in entries {
            let held = std::panic::catch_unwind(|| target(&std::fs::read(&path).unwrap()));
            assert!(held.is_ok(), "{}", path.display());
        }
    }
}

#[test]
fn whatever_client_and_broker_send_a_session_keeps_its_promises() {
    let (end, first) = (Instant::now() + time(), seed());
    let mut played = 0;
    while Instant::now() < end {
        let seed = first + played;
        let mut chance = Chance::of(seed);
        let length = 4 + chance.below(400);
        let script = chance.bytes(length);
        let held = std::panic::catch_unwind(|| session(&script));
        assert!(held.is_ok(), "TEELINE_FUZZ_SEED={seed}");
        played += 1;
    }
    println!("{played} sessions, seeds from {first}");
    assert!(played > 20, "only {played} sessions");
}

#[test]
fn whatever_a_load_balancer_sends_only_its_header_is_taken() {
    let headers: [&[u8]; 3] = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xd4\x31\x23\x84rest",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 9092\r\nrest",
        b"PROXY TCP6 ::1 ::2 54321 9092\r\nrest",
    ];
    let mut chance = Chance::of(seed());
    for round in 0..20_000 {
        let mut bytes = headers[round % headers.len()].to_vec();
        damage(&mut bytes, &mut chance);
        super::load_balancer(&bytes);
    }
}
