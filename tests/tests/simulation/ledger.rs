//! The ledger against its promise: a commit that was reported stays for ever, a number has one holder, who is fenced
//! commits no more, and whoever reads sees of each chain its beginning, without a gap, and all that was reported before.
//!
//! Writers of a chain of their own, a chain with two processes (the old one did not die), auditors that share a chain, and
//! readers go on in an order drawn from the seed, one half request at a time. Each run is repeated with a client
//! dying at each of these steps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use futures_util::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use teeline_archive::ids::WriterId;
use teeline_archive::ledger::{Commit, Entry, LedgerState};
use teeline_archive::names;
use teeline_runtime::Store;
use teeline_segmenter::SegmenterError;
use teeline_segmenter::chain::{CommitFailure, Ledger};
use teeline_tests::simulation::number;

use crate::faulty_store::FaultyStore;

const BACKUP: &str = "daily";
/// Whose chain each client writes; 0 only reads.
const CLIENTS: [u64; 8] = [1, 2, 2, 7, 7, 7, 0, 0];
/// Half requests of one run.
const STEPS: usize = 500;
/// Runs of the short form that are repeated with a crash at each step.
const ROUNDS: u64 = 2;
const FAULTS_PER_MILLE: u32 = 60;

#[test]
fn what_a_commit_reported_stays_and_is_read_whoever_crashes_when() {
    let seed = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_SIMULATION_ROUNDS").unwrap_or(ROUNDS);
    println!(
        "seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_SIMULATION_ROUNDS to repeat or lengthen"
    );
    let (mut runs, mut commits, mut fences, mut reads) = (0, 0, 0, 0);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        for crash_at in std::iter::once(None).chain((0..STEPS).map(Some)) {
            let truth = run(&FaultyStore::new(seed, FAULTS_PER_MILLE), seed, crash_at)
                .unwrap_or_else(|why| panic!("seed {seed}, a client dies at step {crash_at:?}: {why}"));
            (runs, commits) = (runs + 1, commits + truth.reported.len());
            (fences, reads) = (fences + truth.fences, reads + truth.reads);
        }
    }
    println!("{runs} runs, {commits} commits, {fences} fences, {reads} reads (seed {seed})");
    assert!(commits > 0 && fences > 0 && reads > 0);
}

/// A test of the test: all of this rests on the condition of one request.
#[test]
fn the_model_objects_when_a_store_forgets_conditions() {
    let mut objections = (0..20).filter_map(|seed| {
        let faulty = FaultyStore::new(seed, FAULTS_PER_MILLE);
        faulty.forget_conditions();
        run(&faulty, seed, None).err()
    });
    println!("{}", objections.next().unwrap());
}

/// What is really so.
#[derive(Debug, Default)]
struct Truth {
    /// Every commit that anybody tried, by its nonce.
    prepared: BTreeMap<u128, (u64, u64, Bytes)>,
    /// Number of the chain, number of the commit: its nonce.
    reported: BTreeMap<(u64, u64), u128>,
    fences: usize,
    reads: usize,
    wrong: Option<String>,
}

type Shared = Rc<RefCell<Truth>>;
type Client = Pin<Box<dyn Future<Output = ()>>>;

fn run(faulty: &FaultyStore, seed: u64, crash_at: Option<usize>) -> Result<Truth, String> {
    let store = Store::from_object_store(Arc::new(faulty.clone()), "simulation://", false);
    let truth = Shared::default();
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let mut lives = 0;
    let mut begin = |chain: u64| -> Client {
        lives += 1;
        let (truth, store) = (truth.clone(), store.clone());
        match chain {
            0 => Box::pin(read(truth, store, seed ^ (lives << 32))),
            chain => Box::pin(write(truth, store, chain, seed ^ (lives << 32))),
        }
    };
    let mut clients: Vec<Client> = CLIENTS.into_iter().map(&mut begin).collect();
    let mut context = Context::from_waker(Waker::noop());
    for step in 0..STEPS {
        let which = random.random_range(0..clients.len());
        if crash_at == Some(step) {
            clients[which] = begin(CLIENTS[which]);
        } else if clients[which].as_mut().poll(&mut context).is_ready() {
            break;
        }
        if random.random_bool(0.05) {
            faulty.arrive();
        }
    }
    drop(clients);
    faulty.heal();
    let mut end: Client = Box::pin(look_at_the_end(truth.clone(), store.clone()));
    while end.as_mut().poll(&mut context).is_pending() {}
    drop(end);
    let truth = truth.take();
    match &truth.wrong {
        Some(wrong) => Err(wrong.clone()),
        None => Ok(truth),
    }
}

/// A process that writes one chain, and begins anew when it is fenced.
async fn write(truth: Shared, store: Store, chain: u64, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let Some(mut ledger) = load(&truth, &store, chain).await else {
            return;
        };
        loop {
            if random.random_bool(0.3) {
                match ledger.refresh().await {
                    Ok(_) => truth.borrow_mut().check(ledger.state()),
                    Err(SegmenterError::Store(_)) => {}
                    Err(SegmenterError::Fenced { .. }) => break,
                    Err(error) => return truth.borrow_mut().object(format!("refresh: {error}")),
                }
            }
            let brokers = vec![format!("broker-{}:9092", random.random::<u32>())];
            let commit = ledger.prepare("cluster", vec![Entry::SourceBrokers(brokers)], random.random(), 1);
            truth.borrow_mut().prepared(&commit);
            match commit_until_answered(&mut ledger, &commit).await {
                Ok(()) => truth.borrow_mut().reported(&commit),
                Err(SegmenterError::Fenced { .. }) => {
                    truth.borrow_mut().fences += 1;
                    break;
                }
                Err(error) => return truth.borrow_mut().object(format!("commit: {error}")),
            }
        }
    }
}

async fn commit_until_answered(ledger: &mut Ledger, commit: &Commit) -> Result<(), SegmenterError> {
    loop {
        match ledger.commit(commit).await {
            Ok(()) => return Ok(()),
            Err(CommitFailure::Store(_)) => {}
            Err(CommitFailure::Fatal(error)) => return Err(error),
        }
    }
}

async fn read(truth: Shared, store: Store, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let Some(mut ledger) = load(&truth, &store, u64::MAX).await else {
            return;
        };
        for _ in 0..random.random_range(0..4) {
            match ledger.refresh().await {
                Ok(_) => truth.borrow_mut().check(ledger.state()),
                Err(SegmenterError::Store(_)) => {}
                Err(error) => return truth.borrow_mut().object(format!("refresh: {error}")),
            }
        }
    }
}

/// Reads all chains; `None` when that went wrong.
async fn load(truth: &Shared, store: &Store, chain: u64) -> Option<Ledger> {
    loop {
        let before: Vec<(u64, u64)> = truth.borrow().reported.keys().copied().collect();
        match Ledger::load(store.clone(), BACKUP, WriterId(chain)).await {
            Ok(ledger) => {
                let mut truth = truth.borrow_mut();
                truth.check(ledger.state());
                for (chain, seq) in before {
                    if ledger.state().next_seq(WriterId(chain)) <= seq {
                        truth.object(format!(
                            "commit {seq} of chain {chain} was reported and is not read"
                        ));
                        return None;
                    }
                }
                return Some(ledger);
            }
            Err(SegmenterError::Store(_)) => {}
            Err(error) => {
                truth.borrow_mut().object(format!("load: {error}"));
                return None;
            }
        }
    }
}

async fn look_at_the_end(truth: Shared, store: Store) {
    if load(&truth, &store, u64::MAX).await.is_none() {
        return;
    }
    let prefix = names::ledger_prefix(BACKUP).unwrap();
    let objects: Vec<_> = store.list(&prefix).try_collect().await.unwrap();
    for object in objects {
        let bytes = store.get(&object.key).await.unwrap();
        let commit = Commit::decode(&bytes).unwrap();
        let mut truth = truth.borrow_mut();
        let found = (commit.writer.0, commit.seq, bytes);
        if truth.prepared.get(&commit.nonce) != Some(&found) {
            truth.object(format!("{} is not what anybody wrote", object.key));
        }
        let key = (commit.writer.0, commit.seq);
        if truth
            .reported
            .get(&key)
            .is_some_and(|nonce| *nonce != commit.nonce)
        {
            truth.object(format!("{} is not what was reported", object.key));
        }
    }
}

impl Truth {
    fn object(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn prepared(&mut self, commit: &Commit) {
        let what = (commit.writer.0, commit.seq, commit.encode().unwrap());
        self.prepared.insert(commit.nonce, what);
    }

    fn reported(&mut self, commit: &Commit) {
        let key = (commit.writer.0, commit.seq);
        if self.reported.insert(key, commit.nonce).is_some() {
            self.object(format!("commit {} of chain {} was reported to two", key.1, key.0));
        }
    }

    /// A state is one that the chains had: its last commits are those that were written under their numbers.
    fn check(&mut self, state: &LedgerState) {
        self.reads += 1;
        for (chain, read) in state.chains() {
            let key = (chain.0, read.last_seq);
            let prepared = self
                .prepared
                .get(&read.last_nonce)
                .map(|(chain, seq, _)| (*chain, *seq));
            let reported = self.reported.get(&key);
            if prepared != Some(key) || reported.is_some_and(|nonce| *nonce != read.last_nonce) {
                self.object(format!(
                    "commit {} of chain {chain} reads as another one",
                    read.last_seq
                ));
            }
        }
    }
}
