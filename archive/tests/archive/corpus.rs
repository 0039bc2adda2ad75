//! Replays the committed fuzz corpus, and the golden files with seeded damage, through the fuzz targets' functions.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

use crate::golden::golden;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target, &[&str]); 7] = [
    ("buffer_frame", targets::buffer_frame, &[]),
    ("buffer_file", targets::buffer_file, &["00000000000000000001.wal"]),
    (
        "buffer_state",
        targets::buffer_state,
        &["buffer.id", "session", "positions", "archived"],
    ),
    ("segment_footer", targets::segment_footer, &["segment.log.idx"]),
    (
        "segment_object",
        targets::segment_object,
        &["segment.zst", "segment.lz4"],
    ),
    (
        "ledger_commit",
        targets::ledger_commit,
        &["00000000000000000001.commit", "audit.commit"],
    ),
    ("names", targets::names, &[]),
];

#[test]
fn the_committed_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target, _) in TARGETS {
        let directory = corpus.join(name);
        let mut replayed = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            target(&std::fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "{} is empty", directory.display());
    }
}

#[test]
fn seeded_damage_of_the_golden_files_is_survived() {
    let seed = std::env::var("TEELINE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_260_101);
    let mut random = StdRng::seed_from_u64(seed);
    for (name, target, files) in TARGETS {
        for file in files {
            let whole = golden(file);
            target(&whole);
            for round in 0..400 {
                let mut bad = whole.to_vec();
                for _ in 0..random.random_range(1..4) {
                    let at = random.random_range(0..bad.len());
                    match random.random_range(0..4) {
                        0 => bad.truncate(at.max(1)),
                        1 => bad.insert(at, random.random()),
                        _ => bad[at] = random.random(),
                    }
                }
                let result = std::panic::catch_unwind(|| target(&bad));
                assert!(result.is_ok(), "{name} on {file}: seed {seed}, round {round}");
            }
        }
    }
}
