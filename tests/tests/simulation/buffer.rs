//! The write-ahead buffer against its promise: what was reported synced is read after any crash, in order and unchanged,
//! nothing is invented, no position is used twice, and what is missing in between is named.
//!
//! A life works on a recorded disk. For each of its operations the disk is computed as it may be if the power failed
//! just before: with everything unsynced lost, with all of it there, and with some of it, torn and reordered. Each of
//! these is read, written on, and read again. From some of them a next life begins, and crashes at each of its own
//! operations, those of its recovery included.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use teeline_archive::buffer::Frame;
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_proxy::buffer::{SyncMode, Writer, WriterSettings};
use teeline_segmenter::buffer::{Directory, Event};
use teeline_tests::faultfs;
use teeline_tests::power_loss::{Fate, Op};
use teeline_tests::simulation::{CrashedDisk, Life, Step, number, work_directory};
use teeline_tests::workdir::WorkDir;

use crate::buffer_life::{Note, content, read_all};
use crate::raw_scan;

/// First lives of the short form; each is followed by generations of further ones.
const ROUNDS: u64 = 1;
/// Lives that begin where an earlier one crashed, one after the other.
const GENERATIONS: usize = 2;
/// Images per operation of which some is kept.
const TORN_IMAGES: u64 = 1;

#[test]
fn what_was_reported_synced_survives_a_crash_before_any_operation() {
    let seed = number("TEELINE_SEED").unwrap_or_else(rand::random);
    let rounds = number("TEELINE_SIMULATION_ROUNDS").unwrap_or(ROUNDS);
    println!(
        "seed {seed}, {rounds} rounds; set TEELINE_SEED and TEELINE_SIMULATION_ROUNDS to repeat or lengthen"
    );
    let mut world = World::new(seed);
    for round in 0..rounds {
        world.round(round, seed.wrapping_add(round));
    }
    println!(
        "{} lives, {} operations, {} images read (seed {seed})",
        world.lives, world.operations, world.images
    );
    assert!(world.images > 0);
}

/// A test of the test: with one kind of operation taken out of the record, as if the program did not do it, the model
/// must object.
#[test]
fn the_model_objects_when_any_sync_is_left_out() {
    type LeftOut = fn(&Op, &BTreeSet<u64>) -> bool;
    let left_out: [(&str, LeftOut); 3] = [
        (
            "syncs of data",
            |op, data| matches!(op, Op::Sync { inode } if data.contains(inode)),
        ),
        ("syncs of directories", |op, _| matches!(op, Op::SyncDir { .. })),
        (
            "syncs of what is renamed",
            |op, data| matches!(op, Op::Sync { inode } if !data.contains(inode)),
        ),
    ];
    let mut world = World::new(1);
    for (what, is_left_out) in left_out {
        let directory = world.work.subdirectory(&what.replace(' ', "-"));
        let mut life = world.live(&directory, 7);
        let data = data_files(&life);
        life.steps
            .retain(|step| !matches!(step, Step::Op(op) if is_left_out(op, &data)));
        let checked = world.check(life, Known::default(), 7);
        let objection = checked
            .err()
            .unwrap_or_else(|| panic!("without {what} nothing is missed"));
        println!("without {what}: {objection:.300}");
    }
}

/// Which files hold frames.
fn data_files(life: &Life) -> BTreeSet<u64> {
    let created = life.steps.iter().filter_map(|step| match step {
        Step::Op(Op::Create { inode, path }) if path.extension().is_some_and(|kind| kind == "wal") => {
            Some(*inode)
        }
        _ => None,
    });
    created.collect()
}

struct World {
    work: WorkDir,
    library: PathBuf,
    runtime: tokio::runtime::Runtime,
    random: StdRng,
    lives: u64,
    operations: usize,
    images: u64,
}

/// What is known of a buffer at one moment.
#[derive(Debug, Clone, Default)]
struct Known {
    /// What was ever written where; of a running life also what comes later.
    frames: BTreeMap<BufferPosition, Frame>,
    /// What has to be there.
    durable: BTreeSet<BufferPosition>,
    /// Up to here it may be gone.
    archived: Option<BufferPosition>,
    /// The highest session that anybody has seen.
    session: u64,
    /// Nothing can be torn: the disk was never at fault, and no life began with a torn one.
    is_sound: bool,
    /// The disk was at fault: there may be files that are not trusted, and what was not synced there may go with them.
    was_at_fault: bool,
}

/// A frame that was read.
type Read = (BufferPosition, Frame);

/// Where a life may begin.
type Begin = (PathBuf, Known);

impl World {
    fn new(seed: u64) -> World {
        let work = work_directory("simulation");
        World {
            library: faultfs::build(work.path()),
            work,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            random: StdRng::seed_from_u64(seed),
            lives: 0,
            operations: 0,
            images: 0,
        }
    }

    fn round(&mut self, round: u64, seed: u64) {
        let mut known = Known {
            is_sound: true,
            ..Known::default()
        };
        let mut begin: Option<PathBuf> = None;
        for generation in 0..=GENERATIONS {
            let life_seed = seed.wrapping_mul(31).wrapping_add(generation as u64);
            let directory = self.work.subdirectory(&format!("round-{round}-{generation}"));
            if let Some(begin) = begin.take() {
                std::fs::rename(begin, Life::disk_in(&directory)).unwrap();
            }
            let life = self.live(&directory, life_seed);
            let checked = self.check(life, known, life_seed);
            let begins = checked.unwrap_or_else(|why| {
                panic!(
                    "round {round}, generation {generation} in {}: {why}",
                    directory.display()
                )
            });
            let Some((disk, next)) = begins else { return };
            (begin, known) = (Some(disk), next);
            std::fs::remove_dir_all(directory).unwrap();
        }
        if let Some(begin) = begin {
            std::fs::remove_dir_all(begin).unwrap();
        }
    }

    fn live(&mut self, directory: &Path, seed: u64) -> Life {
        let life = Life::record(&self.library, directory, "buffer_life::life", seed);
        self.lives += 1;
        self.operations += life.operations();
        life
    }

    /// Looks at all that a crash may leave of a life; one of these is kept for a next life to begin with.
    fn check(&mut self, life: Life, mut known: Known, life_seed: u64) -> Result<Option<Begin>, String> {
        for step in &life.steps {
            if let Step::Note(text) = step
                && let Note::Appended(session, first, count, id) = Note::parse(text)
            {
                for n in 0..count {
                    known
                        .frames
                        .insert(at(session, first + n), content(life_seed, id + n));
                }
            }
        }
        let chosen = self.random.random_range(0..life.operations().max(1));
        let (mut seen, mut begin) = (0, None);
        life.crash_everywhere(&mut known, Known::note, |known, _, disk| {
            for n in 0..2 + TORN_IMAGES {
                let fate = match n {
                    0 => Fate::Lost,
                    1 => Fate::Kept,
                    _ => Fate::Some(self.random.random()),
                };
                let keep = seen == chosen && n == 1 + TORN_IMAGES;
                let found = self.check_image(known, disk, fate, keep);
                let found = found.map_err(|why| format!("{fate:?}: {why}"))?;
                if keep {
                    begin = found;
                }
            }
            seen += 1;
            Ok(())
        })?;
        Ok(begin)
    }

    fn check_image(
        &mut self,
        known: &Known,
        disk: &CrashedDisk<'_>,
        fate: Fate,
        keep: bool,
    ) -> Result<Option<Begin>, String> {
        self.images += 1;
        let image = self.work.join("image");
        disk.write_image(&image, fate);
        let directory = Directory::new(image.join("buffer"));
        let events = self.runtime.block_on(read_all(&directory))?;
        let is_sound = known.is_sound && !matches!(fate, Fate::Some(_));
        let read = known.compare(&events, is_sound)?;
        raw_scan::nothing_is_passed_silently(&image.join("buffer"), &events)?;
        let mut begin = None;
        if keep {
            let kept = self.work.join("begin");
            let _ = std::fs::remove_dir_all(&kept);
            disk.write_image(&kept, fate);
            let mut next = known.clone();
            next.is_sound = false;
            next.durable = read
                .iter()
                .map(|(position, _)| *position)
                .filter(|position| known.stays(*position))
                .collect();
            // Sessions that were begun after the crash were never begun, and their numbers are free.
            next.frames
                .retain(|position, _| position.session.0 <= known.session);
            next.frames.extend(read.clone());
            begin = Some((kept, next));
        }
        let writer = self.runtime.block_on(go_on(&directory, known))?;
        let events = self.runtime.block_on(read_all(&directory))?;
        known.compare_again(&read, &frames(&events), writer)?;
        Ok(begin)
    }
}

/// Opens a buffer after a crash, and appends.
async fn go_on(directory: &Directory, known: &Known) -> Result<BufferPosition, String> {
    let settings = WriterSettings {
        dir: directory.path().to_owned(),
        max_bytes: u64::MAX,
        file_bytes: 100_000,
        mode: SyncMode::OnAppend,
        pending_bytes_max: 1 << 20,
    };
    let opened = Writer::open(settings, || 1_700_000_000_001);
    let (writer, report) = opened.map_err(|error| format!("the buffer does not open again: {error}"))?;
    if report.session.0 <= known.session {
        return Err(format!(
            "session {} was used before; the last was {}",
            report.session, known.session
        ));
    }
    let appended = writer
        .append(vec![content(0, 0)])
        .await
        .map_err(|error| error.to_string())?;
    let synced = tokio::time::timeout(Duration::from_secs(20), writer.wait_synced(appended.end())).await;
    synced
        .map_err(|_| "never synced".to_owned())?
        .map_err(|error| error.to_string())?;
    writer.close().await.map_err(|error| error.to_string())?;
    Ok(appended.end())
}

fn at(session: u64, lsn: u64) -> BufferPosition {
    BufferPosition {
        session: SessionId(session),
        lsn: Lsn(lsn),
    }
}

fn frames(events: &[Event]) -> Vec<(BufferPosition, Frame)> {
    let read = events.iter().filter_map(|event| match event {
        Event::Frame(read) => Some((read.position, read.frame.clone())),
        _ => None,
    });
    read.collect()
}

impl Known {
    fn note(&mut self, text: &str) {
        match Note::parse(text) {
            Note::Session(session) => self.session = self.session.max(session),
            Note::Appended(..) | Note::Closing => {}
            Note::Synced(session, lsn) => {
                let up_to = self.frames.range(at(session, 1)..=at(session, lsn));
                self.durable.extend(up_to.map(|(position, _)| *position));
            }
            Note::Archived(session, lsn) => self.archived = self.archived.max(Some(at(session, lsn))),
            Note::Fault => (self.is_sound, self.was_at_fault) = (false, true),
        }
    }

    /// Whether what was read once has to be there for ever.
    fn stays(&self, position: BufferPosition) -> bool {
        Some(position) > self.archived && (!self.was_at_fault || self.durable.contains(&position))
    }

    /// A session after the crash added one frame, and released at most what is archived.
    fn compare_again(&self, before: &[Read], after: &[Read], added: BufferPosition) -> Result<(), String> {
        let kept = |read: &&Read| self.stays(read.0);
        let mut rest = after.iter().filter(|read| kept(read) || read.0 == added);
        for read in before.iter().filter(kept) {
            let again = rest.next();
            if again != Some(read) {
                return Err(format!(
                    "a session was begun after the crash, and in the place of {} is read {:?}",
                    read.0,
                    again.map(|again| again.0)
                ));
            }
        }
        match rest.next() {
            Some((position, _)) if *position == added => Ok(()),
            other => Err(format!(
                "{added} was synced after the crash, and in its place is read {:.200?}",
                other
            )),
        }
    }

    /// Compares what is read with what is known.
    fn compare(&self, events: &[Event], is_sound: bool) -> Result<Vec<(BufferPosition, Frame)>, String> {
        let (mut last, mut is_damaged) = (at(0, 0), false);
        for event in events {
            let read = match event {
                Event::Frame(read) => read,
                Event::Damage(damage) if is_sound => return Err(format!("nothing was torn, but {damage:?}")),
                Event::Damage(_) => {
                    is_damaged = true;
                    continue;
                }
                _ => continue,
            };
            let position = read.position;
            if position <= last {
                return Err(format!("{position} is read after {last}"));
            }
            match self.frames.get(&position) {
                Some(written) if *written == read.frame => {}
                None if matches!(read.frame, Frame::SessionClosed { .. }) => {}
                other => {
                    return Err(format!(
                        "{position} reads {:.300?}, written was {other:.300?}",
                        read.frame
                    ));
                }
            }
            let expected = match (last.session == position.session, self.archived) {
                (true, _) => last.lsn.0 + 1,
                (false, Some(archived)) if archived.session > position.session => u64::MAX,
                (false, Some(archived)) if archived.session == position.session => archived.lsn.0 + 1,
                (false, _) => 1,
            };
            if position.lsn.0 > expected && !is_damaged {
                return Err(format!(
                    "what is missing before {position} is not named; last was {last}"
                ));
            }
            (last, is_damaged) = (position, false);
        }
        let read = frames(events);
        let found: BTreeSet<BufferPosition> = read.iter().map(|(position, _)| *position).collect();
        let lost =
            |position: &&BufferPosition| Some(**position) > self.archived && !found.contains(*position);
        match self.durable.iter().find(lost) {
            Some(lost) => Err(format!(
                "{lost} was durable and is lost; archived {:?}, read {} frames up to {last}: {:?}",
                self.archived,
                read.len(),
                events
                    .iter()
                    .filter(|event| !matches!(event, Event::Frame(_)))
                    .collect::<Vec<_>>()
            )),
            None => Ok(read),
        }
    }
}
