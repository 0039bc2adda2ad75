//! An archive in a directory against its promise: what a commit lists is there and whole after the power failed at any
//! operation on files, and the next process goes on where the ledger ends.
//!
//! The life is the store as the programs open it: objects in one piece and in parts, then a commit that lists them. The
//! names of the objects stand in the commit's entries in the place of segments, which nothing here looks into.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use teeline_archive::ids::WriterId;
use teeline_archive::ledger::Entry;
use teeline_config::Storage;
use teeline_runtime::Store;
use teeline_segmenter::chain::Ledger;
use teeline_tests::faultfs;
use teeline_tests::power_loss::Fate;
use teeline_tests::simulation::{CrashedDisk, Life, OwnLife, number, work_directory};

const BACKUP: &str = "daily";
const WRITER: WriterId = WriterId(1);
/// Lives of the short form, one after the other on what the earlier one left.
const LIVES: u64 = 2;
const COMMITS: u64 = 5;
/// Images of which some is kept, per operation.
const TORN_IMAGES: u64 = 2;

fn store(disk: &Path) -> Result<Store, String> {
    let storage = Storage::filesystem(disk.join("archive"));
    Store::open(&storage).map_err(|error| format!("the archive does not open: {error}"))
}

fn key(life: u64, number: u64) -> String {
    format!("{BACKUP}/objects/{}/{life:020}-{number}", number % 2)
}

fn content(life: u64, number: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(life ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = vec![0; random.random_range(1..20_000)];
    random.fill_bytes(&mut bytes);
    bytes.into()
}

#[test]
#[ignore = "one life of the simulation, which starts it"]
fn life() {
    let Some(life) = OwnLife::begin() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(live(life));
}

async fn live(mut life: OwnLife) {
    let mut random = StdRng::seed_from_u64(life.seed);
    let store = store(&life.disk()).unwrap();
    let mut ledger = Ledger::load(store.clone(), BACKUP, WRITER).await.unwrap();
    for number in 0..COMMITS {
        let (key, bytes) = (key(life.seed, number), content(life.seed, number));
        if random.random_bool(0.5) {
            store.put(&key, bytes).await.unwrap();
        } else {
            let mut upload = store.upload(&key);
            for part in bytes.chunks(7_000) {
                upload.write(Bytes::copy_from_slice(part)).await.unwrap();
            }
            upload.finish().await.unwrap();
        }
        let entries = vec![Entry::SourceBrokers(vec![key])];
        let commit = ledger.prepare("cluster", entries, random.random(), 1);
        ledger.commit(&commit).await.unwrap();
        life.note(&format!("{} {} {number}", commit.seq, life.seed));
        if random.random_bool(0.3) {
            ledger.write_manifest(2).await.unwrap();
        }
    }
}

/// What was reported as committed: sequence of the commit, and the object that it lists.
type Reported = BTreeMap<u64, (u64, u64)>;

fn note(reported: &mut Reported, text: &str) {
    let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
    reported.insert(numbers[0], (numbers[1], numbers[2]));
}

async fn check(disk: &Path, reported: &Reported) -> Result<(), String> {
    let store = store(disk)?;
    let loaded = Ledger::load(store.clone(), BACKUP, WRITER).await;
    let mut ledger = loaded.map_err(|error| format!("the ledger does not load: {error}"))?;
    let last = ledger.state().next_seq(WRITER) - 1;
    if let Some((seq, _)) = reported.last_key_value().filter(|(seq, _)| **seq > last) {
        return Err(format!(
            "commit {seq} was reported, and the ledger ends with {last}"
        ));
    }
    for (seq, (life, number)) in reported {
        let key = key(*life, *number);
        let found = store.get(&key).await;
        let found = found.map_err(|error| format!("{key} of commit {seq}: {error}"))?;
        if found != content(*life, *number) {
            return Err(format!("{key} of commit {seq} has other bytes"));
        }
    }
    let commit = ledger.prepare("cluster", Vec::new(), 1, 1);
    let committed = ledger.commit(&commit).await;
    committed.map_err(|error| format!("the ledger does not go on: {error}"))
}

#[test]
fn what_a_commit_in_a_directory_lists_survives_a_crash_before_any_operation() {
    let seed = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_SIMULATION_ROUNDS").unwrap_or(1);
    println!(
        "seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_SIMULATION_ROUNDS to repeat or lengthen"
    );
    let mut random = StdRng::seed_from_u64(seed);
    let work = work_directory("simulation-archive");
    let library = faultfs::build(work.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (image, begin) = (work.join("image"), work.join("begin"));
    let mut images = 0;
    for round in 0..rounds {
        let mut reported = Reported::new();
        for generation in 0..LIVES {
            let directory = work.subdirectory(&format!("life-{round}-{generation}"));
            if generation > 0 {
                std::fs::rename(&begin, Life::disk_in(&directory)).unwrap();
            }
            let life = Life::record(&library, &directory, "archive::life", random.random());
            let chosen = random.random_range(0..life.steps.len());
            let mut next: Option<Reported> = None;
            let crash = |reported: &mut Reported, step: usize, disk: &CrashedDisk<'_>| {
                for n in 0..2 + TORN_IMAGES {
                    let fate = match n {
                        0 => Fate::Lost,
                        1 => Fate::Kept,
                        _ => Fate::Some(random.random()),
                    };
                    disk.write_image(&image, fate);
                    images += 1;
                    runtime
                        .block_on(check(&image, reported))
                        .map_err(|why| format!("{fate:?}: {why}"))?;
                    if next.is_none() && step >= chosen {
                        disk.write_image(&begin, fate);
                        next = Some(reported.clone());
                    }
                }
                Ok(())
            };
            let checked = life.crash_everywhere(&mut reported, note, crash);
            checked.unwrap_or_else(|why| panic!("round {round}, life {generation}: {why}"));
            reported = next.unwrap();
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
    println!("{images} images read (seed {seed})");
}
