//! What can go wrong, and how it is mended.

use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{APART, Chaos, PARTITIONS, TOPICS, TROUBLED};
use crate::faultfs;
use crate::leaders;
use crate::wait::{seconds, wait_until};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to a proxy, which is started again at once.
    KillProxy,
    /// SIGKILL to the segmenter that is a process of its own.
    KillSegmenter,
    /// SIGKILL to a broker.
    KillBroker,
    /// Other brokers lead two partitions.
    MoveLeaders,
    /// The store is gone.
    StopStore,
    /// The disk below a proxy's buffer fails, is full, or is slow.
    TroubleDisk,
}

/// What stays broken for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Segmenter,
    Broker(i32),
    Store,
    Disk,
}

/// At once, or while something is on its way: kills come so long after the last progress.
const DELAY_MAX: Duration = Duration::from_millis(300);

impl Fault {
    const ALL: [Self; 6] = [
        Self::KillProxy,
        Self::KillSegmenter,
        Self::KillBroker,
        Self::MoveLeaders,
        Self::StopStore,
        Self::TroubleDisk,
    ];

    /// Every kind once.
    pub(super) fn shuffled(rng: &mut StdRng) -> Vec<Self> {
        let mut all = Self::ALL.to_vec();
        all.shuffle(rng);
        all
    }
}

impl Chaos {
    /// Lets a fault happen; says what it was.
    pub(super) fn strike(&mut self, fault: Fault) -> String {
        self.wait_a_random_moment();
        match fault {
            Fault::KillProxy => {
                let victim = self.rng.random_range(0..self.fleet.0.len());
                if victim == TROUBLED {
                    // On a disk that fails none starts; it ends at once, and here nobody would start it again.
                    self.mend_all_of(|broken| matches!(broken, Broken::Disk));
                }
                self.fleet.0[victim].kill();
                self.fleet.0[victim].launch();
                format!("killed proxy {}", victim + 1)
            }
            Fault::KillSegmenter => {
                self.fleet.0[APART].kill_segmenter();
                self.stays_broken(Broken::Segmenter);
                "killed the segmenter of proxy 2".to_owned()
            }
            Fault::KillBroker => {
                self.await_all_brokers();
                self.wait_a_random_moment();
                let ids = self.kafka.node_ids();
                let victim = ids[self.rng.random_range(0..ids.len())];
                self.kafka.kill_node(victim);
                self.stays_broken(Broken::Broker(victim));
                format!("killed broker {victim}")
            }
            Fault::MoveLeaders => {
                self.await_all_brokers();
                let moves: Vec<String> = (0..2).map(|_| self.move_a_leader()).collect();
                format!("moved {}", moves.join(", "))
            }
            Fault::StopStore => {
                self.s3.kill();
                self.stays_broken(Broken::Store);
                "stopped the store".to_owned()
            }
            Fault::TroubleDisk => {
                let troubles = [
                    faultfs::Fault::Error,
                    faultfs::Fault::Full,
                    faultfs::Fault::Slow(1_000),
                ];
                let trouble = troubles[self.rng.random_range(0..troubles.len())];
                self.disk.inject(trouble);
                self.stays_broken(Broken::Disk);
                format!("trouble of proxy {} with its disk: {trouble:?}", TROUBLED + 1)
            }
        }
    }

    /// What is broken lasts while one or two more faults strike.
    fn stays_broken(&mut self, what: Broken) {
        let faults = self.rng.random_range(1..=2);
        self.broken.push((what, faults));
    }

    pub(super) fn mend_what_is_due(&mut self) {
        for (_, left) in &mut self.broken {
            *left -= 1;
        }
        let (due, rest) = self.broken.drain(..).partition(|(_, left)| *left == 0);
        self.broken = rest;
        self.mend(due);
    }

    pub(super) fn mend_everything(&mut self) {
        let all = std::mem::take(&mut self.broken);
        self.mend(all);
    }

    fn mend(&mut self, due: Vec<(Broken, u32)>) {
        for (what, _) in due {
            match what {
                Broken::Segmenter => self.fleet.0[APART].launch_segmenter(),
                // It takes its time to come back, and nobody waits for it.
                Broken::Broker(id) => self.kafka.launch_node(id),
                Broken::Store => self.s3.start_again(),
                Broken::Disk => self.disk.heal(),
            }
        }
    }

    fn mend_all_of(&mut self, kind: impl Fn(&Broken) -> bool) {
        let (due, rest) = self.broken.drain(..).partition(|(what, _)| kind(what));
        self.broken = rest;
        self.mend(due);
    }

    /// With three replicas, two of which must be in sync, one broker may be away.
    fn await_all_brokers(&mut self) {
        self.mend_all_of(|broken| matches!(broken, Broken::Broker(_)));
        leaders::await_in_sync(&self.java, &self.kafka.bootstrap(), &TOPICS);
    }

    fn move_a_leader(&mut self) -> String {
        let topic = TOPICS[self.rng.random_range(0..TOPICS.len())];
        let partition = self.rng.random_range(0..PARTITIONS);
        let bootstrap = self.kafka.bootstrap();
        let now = leaders::described(&self.java, &bootstrap, topic, partition);
        let others: Vec<i64> = now
            .replicas
            .iter()
            .copied()
            .filter(|id| *id != now.leader)
            .collect();
        let first = others[self.rng.random_range(0..others.len())];
        leaders::move_leader(&self.java, &bootstrap, topic, partition, first);
        format!("{topic}/{partition} from broker {} to {first}", now.leader)
    }

    fn wait_a_random_moment(&mut self) {
        let at = Instant::now() + self.rng.random_range(Duration::ZERO..DELAY_MAX);
        wait_until("the moment of a fault", seconds(5), || Instant::now() >= at);
    }
}
