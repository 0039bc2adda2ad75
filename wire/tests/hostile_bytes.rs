//! Hostile bytes: the committed corpus, and what every parser allocates for claims it cannot trust.
//!
//! This is one test binary with a counting allocator, and its tests take turns, so that what is counted
//! is what the parser under test asked for.

#![allow(unsafe_code, reason = "a global allocator can be written in no other way")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "../fuzz/src/targets.rs"]
#[allow(missing_docs, unreachable_pub)]
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

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
const BYTES_BASE: usize = 256 * 1024;
const BYTES_PER_BYTE: usize = 400;

fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

fn assert_bounded(name: &str, data: &[u8], target: targets::Target) {
    let peak = peak_of(|| target(data));
    let limit = BYTES_BASE + data.len() * BYTES_PER_BYTE;
    assert!(
        peak <= limit,
        "{name}: {peak} bytes for an input of {} bytes",
        data.len()
    );
}

#[test]
fn the_committed_corpus_still_holds() {
    let _turn = TURN.lock().unwrap();
    for (name, target) in targets::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let mut replayed = 0;
        for file in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let data = std::fs::read(file.unwrap().path()).unwrap();
            assert_bounded(name, &data, target);
            replayed += 1;
        }
        assert!(replayed > 0, "{}: no corpus", folder.display());
    }
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
    for (name, target) in targets::ALL {
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
