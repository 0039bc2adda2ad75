//! Hostile bytes: the committed corpus, and what every parser allocates for claims it cannot trust.
//!
//! This is one test binary with a counting allocator, and its tests take turns, so that what is counted
//! is what the parser under test asked for.

#![allow(unsafe_code, reason = "a global allocator can be written in no other way")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "../fuzz/src/lib.rs"]
#[allow(missing_docs, unreachable_pub)]
mod fuzz;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fuzz::damage::{Chance, damage};
use fuzz::frames::{self, Frame};
use fuzz::targets;
use teeline_wire::{apis, header, rewrite, schema};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TURN: Mutex<()> = Mutex::new(());

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a parser may hold at most: a decoded element can be a hundred times as large as on the wire,
/// a claim must not count at all.
const BYTES_PER_BYTE: usize = 400;

fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

fn assert_bounded(name: &str, data: &[u8], target: targets::Target) {
    let peak = peak_of(|| target(data));
    let limit = targets::bytes_base(name) + data.len() * BYTES_PER_BYTE;
    assert!(
        peak <= limit,
        "{name}: {peak} bytes for an input of {} bytes",
        data.len()
    );
}

/// Target, file and content.
fn committed() -> Vec<(&'static str, PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for (name, _) in targets::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let files =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let before = all.len();
        for file in files {
            let path = file.unwrap().path();
            all.push((name, path.clone(), std::fs::read(path).unwrap()));
        }
        assert!(all.len() > before, "{}: no corpus", folder.display());
    }
    all
}

#[test]
fn every_target_has_a_program_and_a_place_on_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../docs/FUZZING.md")).unwrap();
    for (name, _) in targets::ALL {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/FUZZING.md does not tell of {name}"
        );
        let program = root.join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(program.exists(), "{}", program.display());
    }
}

#[test]
fn the_committed_corpus_still_holds() {
    let _turn = TURN.lock().unwrap();
    for (name, path, data) in committed() {
        let held = std::panic::catch_unwind(|| assert_bounded(name, &data, target(name)));
        assert!(held.is_ok(), "{}", path.display());
    }
}

/// The targets that a captured frame is an input of, and that input.
fn inputs(frame: &Frame) -> Vec<(&'static str, Vec<u8>)> {
    let (key, version) = (frame.api_key as u8, frame.api_version as u8);
    let with = |prefix: &[u8], body: &[u8]| [prefix, body].concat();
    if frame.is_request {
        let request = header::RequestHeader::parse(&frame.content).unwrap();
        let body = &frame.content[request.header_len..];
        let mut inputs = vec![
            ("request_header", frame.content.clone()),
            ("requests", with(&[key, version], body)),
        ];
        match request.api_key {
            apis::PRODUCE => inputs.push(("produce_request", with(&[version], body))),
            apis::END_TXN => inputs.push(("end_txn", with(&[version], body))),
            _ => {}
        }
        return inputs;
    }
    let (_, at) = header::parse_response_header(frame.api_key, frame.api_version, &frame.content).unwrap();
    let body = &frame.content[at..];
    let mut inputs = vec![
        ("precheck", with(&[key, version], body)),
        ("rewrite", with(&[key, version], body)),
        ("tail_scanner", with(&[key, version, 5], body)),
    ];
    match frame.api_key {
        apis::PRODUCE => inputs.push(("produce_response", with(&[version], body))),
        apis::END_TXN => inputs.push(("end_txn", with(&[version], body))),
        apis::API_VERSIONS => inputs.push(("api_versions", with(&[version], body))),
        apis::METADATA => inputs.push(("metadata_head", with(&[version, body.len() as u8 / 2], body))),
        _ => {}
    }
    inputs
}

/// What real clients and brokers sent, and the batches of several clients with every codec.
fn captured() -> Vec<(&'static str, Vec<u8>)> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let frames = frames::read(&testdata.join("frames"));
    let mut all: Vec<_> = frames.iter().flat_map(inputs).collect();
    for file in std::fs::read_dir(testdata.join("batches")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let batches = std::fs::read(path).unwrap();
            all.push(("journal", batches.clone()));
            all.push(("batches", batches));
        }
    }
    all.extend(committed().into_iter().map(|(name, _, data)| (name, data)));
    // In the same order everywhere, so that a seed does the same everywhere.
    all.sort();
    all
}

fn target(wanted: &str) -> targets::Target {
    let (_, target) = targets::ALL
        .into_iter()
        .find(|(name, _)| *name == wanted)
        .unwrap();
    target
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn what_real_clients_and_brokers_sent_is_understood() {
    let _turn = TURN.lock().unwrap();
    let frames = frames::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/frames"));
    assert!(frames.len() > 300, "{}", frames.len());
    for frame in &frames {
        for (name, data) in inputs(frame) {
            assert_bounded(name, &data, target(name));
        }
        let name = apis::name(frame.api_key);
        let version = frame.api_version;
        if frame.is_request || apis::newest_understood(frame.api_key).is_none() {
            continue;
        }
        let (_, at) = header::parse_response_header(frame.api_key, version, &frame.content).unwrap();
        let body = Bytes::copy_from_slice(&frame.content[at..]);
        assert_eq!(
            schema::precheck(frame.api_key, version, true, &body),
            Ok(()),
            "{name} {version}"
        );
        let mut proxied = |_: i32, host: &str, _: i32| {
            assert_eq!(host, "127.0.0.1", "{name} {version}");
            Some(("proxy".to_owned(), 1))
        };
        rewrite::rewrite_response(frame.api_key, version, body, &mut proxied).unwrap();
    }
}

/// Seeded, so that what fails can be repeated; `cargo xtask soak` gives it other seeds and more time.
#[test]
fn damaged_frames_hurt_nobody() {
    let _turn = TURN.lock().unwrap();
    let inputs = captured();
    let end = Instant::now() + Duration::from_secs(number("TEELINE_FUZZ_SECONDS", 3));
    let first = number("TEELINE_FUZZ_SEED", 1);
    let mut seed = first;
    while Instant::now() < end {
        let mut chance = Chance::of(seed);
        let (name, data) = &inputs[chance.below(inputs.len())];
        let mut data = data.clone();
        damage(&mut data, &mut chance);
        let held = std::panic::catch_unwind(|| assert_bounded(name, &data, target(name)));
        assert!(
            held.is_ok(),
            "{name}: TEELINE_FUZZ_SEED={seed}; the input: {data:02x?}"
        );
        seed += 1;
    }
    println!("{} inputs from {first} on", seed - first);
}

/// The client asks, and a broker that a script tells what to do answers with captured frames, damaged or not.
#[test]
fn whatever_a_broker_answers_the_client_comes_to_an_end() {
    let _turn = TURN.lock().unwrap();
    let end = Instant::now() + Duration::from_secs(number("TEELINE_FUZZ_SECONDS", 2));
    let first = number("TEELINE_FUZZ_SEED", 1);
    let mut seed = first;
    while Instant::now() < end {
        for name in ["client", "introduction"] {
            let script = Chance::of(seed).bytes(48);
            let held = std::panic::catch_unwind(|| assert_bounded(name, &script, target(name)));
            assert!(held.is_ok(), "{name}: TEELINE_FUZZ_SEED={seed}");
        }
        seed += 1;
    }
    println!("{} scripts from {first} on", seed - first);
}

#[test]
fn claims_without_bytes_allocate_nothing() {
    let _turn = TURN.lock().unwrap();
    let claims: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x77, 0x35, 0x94, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xfe, 0xff, 0xff, 0xff, 0x07],
        &[0x80, 0x80, 0x80, 0x08],
        &[0x7f, 0xff],
    ];
    // The others are slow, and hold as much before they look.
    let quick = targets::ALL
        .into_iter()
        .filter(|(name, _)| targets::bytes_base(name) < 1024 * 1024);
    for (name, target) in quick {
        for api_key in 0..=100_u8 {
            for version in 0..=19_u8 {
                for claim in claims {
                    // The claim at every place near the start, among zeros.
                    for at in 0..24 {
                        let mut data = vec![api_key, version];
                        data.resize(2 + at, 0);
                        data.extend_from_slice(claim);
                        data.resize(data.len() + 16, 0);
                        assert_bounded(name, &data, target);
                    }
                }
            }
        }
    }
}

#[test]
fn a_frame_is_held_as_it_arrives_not_as_it_is_announced() {
    let _turn = TURN.lock().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let sent = vec![7_u8; 100_000];
    let peak = peak_of(|| {
        let mut stream = sent.as_slice();
        let read = runtime.block_on(teeline_wire::frame::read_body(&mut stream, 1 << 30));
        assert!(read.is_err());
    });
    assert!(peak < 1_000_000, "{peak} bytes for 100 000 that arrived");
}
