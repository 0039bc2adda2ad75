//! Replays: the seeds that were worth keeping, and new ones for a moment.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use super::damage::{Chance, damage};
use super::judge::{Seen, judge};
use super::script::framed as frame;
use super::{ALL, session};
use crate::session::testing::Stage;

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
    assert!(
        played > 20 && super::answers() > 20,
        "only {played} sessions, {} answers",
        super::answers()
    );
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

/// A judge that lets everything pass would prove nothing.
#[tokio::test]
async fn the_judge_sees_what_must_not_be() {
    let stage = Stage::set().await;
    let asked = [
        frame(&[0, 2, 0, 1, 0, 0, 0, 1, 255, 255, 9]),
        frame(&[0, 2, 0, 1, 0, 0, 0, 2, 255, 255, 9]),
    ];
    let answered = [frame(&[0, 0, 0, 1, 5]), frame(&[0, 0, 0, 2, 6])];
    let right = || Seen {
        sent: asked.concat(),
        received: answered.concat(),
        forwarded: asked.concat(),
        answered: answered.iter().cloned().map(Into::into).collect(),
        misbehaved: false,
    };
    let is_fine =
        |seen: &Seen| std::panic::catch_unwind(AssertUnwindSafe(|| judge(&stage.cluster, seen))).is_ok();
    assert!(is_fine(&right()));
    type Bend<'a> = (&'a str, &'a dyn Fn(&mut Seen));
    let bent: [Bend<'_>; 6] = [
        ("a byte of a request", &|seen| {
            *seen.forwarded.last_mut().unwrap() ^= 1
        }),
        ("a request that is left out", &|seen| {
            drop(seen.forwarded.drain(..asked[0].len()))
        }),
        ("a request that nobody sent", &|seen| {
            seen.forwarded.extend_from_slice(&asked[0])
        }),
        ("a byte of an answer", &|seen| {
            *seen.received.last_mut().unwrap() ^= 1
        }),
        ("an answer that is left out", &|seen| {
            drop(seen.received.drain(..answered[0].len()))
        }),
        ("an answer twice", &|seen| {
            seen.received.extend_from_slice(&answered[1])
        }),
    ];
    for (what, bend) in bent {
        let mut seen = right();
        bend(&mut seen);
        assert!(!is_fine(&seen), "{what}");
    }
    // Metadata, version 1, with one broker under its own address.
    let mut own = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 6];
    own.extend_from_slice(b"broker\0\0\x23\x84\xff\xff\0\0\0\x01\0\0\0\0");
    let asked = frame(&[0, 3, 0, 1, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255]);
    let seen = Seen {
        sent: asked.clone(),
        received: frame(&own),
        forwarded: asked,
        answered: vec![frame(&own).into()],
        misbehaved: false,
    };
    assert!(!is_fine(&seen), "a broker's own address");
    stage.frames().await;
}
