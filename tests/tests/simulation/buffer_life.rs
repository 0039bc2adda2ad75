//! One life of a write-ahead buffer: random appends, faults of the disk, archived positions, and an end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use teeline_archive::buffer::{ConnectionLost, Frame, Intent, Outcome, TopicRef};
use teeline_archive::ids::{BufferPosition, Lsn, SessionId};
use teeline_proxy::buffer::{AppendError, Appended, SyncMode, Writer, WriterSettings};
use teeline_segmenter::buffer::{Directory, Event, Reader, ReaderOptions, adopt};
use teeline_tests::simulation::OwnLife;

/// What a life notes; one word, then numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// A session was begun.
    Session(u64),
    /// Frames got these numbers: session, first LSN, count, number of the first frame's content.
    Appended(u64, u64, u64, u64),
    /// Up to here all is durable.
    Synced(u64, u64),
    /// Up to here all may be deleted.
    Archived(u64, u64),
    /// A closing frame may follow.
    Closing,
    /// The disk fails from here on.
    Fault,
}

impl Note {
    fn text(self) -> String {
        match self {
            Note::Session(session) => format!("session {session}"),
            Note::Appended(session, first, count, id) => format!("appended {session} {first} {count} {id}"),
            Note::Synced(session, lsn) => format!("synced {session} {lsn}"),
            Note::Archived(session, lsn) => format!("archived {session} {lsn}"),
            Note::Closing => "closing".to_owned(),
            Note::Fault => "fault".to_owned(),
        }
    }

    pub(crate) fn parse(text: &str) -> Note {
        let mut words = text.split(' ');
        let kind = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        match (kind, numbers.as_slice()) {
            ("session", [session]) => Note::Session(*session),
            ("appended", [session, first, count, id]) => Note::Appended(*session, *first, *count, *id),
            ("synced", [session, lsn]) => Note::Synced(*session, *lsn),
            ("archived", [session, lsn]) => Note::Archived(*session, *lsn),
            ("closing", []) => Note::Closing,
            ("fault", []) => Note::Fault,
            _ => panic!("no note: {text}"),
        }
    }
}

/// The content of a frame follows from its life and its number there.
pub(crate) fn content(life: u64, id: u64) -> Frame {
    let mut random = StdRng::seed_from_u64(life ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    match random.random_range(0..8) {
        0 => Frame::Outcome(Outcome {
            intent: Lsn(random.random_range(1..1_000)),
            received_at_ms: 6,
            error_code: 0,
            base_offset: id as i64,
            log_append_time_ms: -1,
            log_start_offset: 0,
            leader_epoch: 3,
        }),
        1 => Frame::ConnectionLost(ConnectionLost {
            connection_id: id,
            at_ms: 7,
        }),
        size => {
            let bytes_max = [0, 0, 40, 400, 1_500, 6_000, 9_000, 20_000][size];
            let mut records = vec![0; random.random_range(0..=bytes_max)];
            random.fill_bytes(&mut records);
            Frame::Intent(Intent {
                connection_id: id,
                acks: -1,
                sent_at_ms: 5,
                topic: TopicRef::by_name("orders"),
                partition: 0,
                transactional_id: None,
                records: Bytes::from(records),
            })
        }
    }
}

/// Reads a buffer that nobody writes, to its end.
pub(crate) async fn read_all(directory: &Directory) -> Result<Vec<Event>, String> {
    let options = ReaderOptions {
        poll: Duration::from_micros(10),
        adopted: true,
    };
    let mut reader = Reader::open(directory.clone(), options);
    let mut events = Vec::new();
    loop {
        let event = reader.next().await;
        let event = event.map_err(|error| format!("the buffer does not read: {error}"))?;
        let is_end = matches!(event, Event::End { .. });
        events.push(event);
        if is_end {
            return Ok(events);
        }
    }
}

#[test]
#[ignore = "one life of the simulation, which starts it"]
fn life() {
    let Some(life) = OwnLife::begin() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(live(life));
}

async fn live(life: OwnLife) {
    let mut random = StdRng::seed_from_u64(life.seed);
    let directory = Directory::new(life.disk().join("buffer"));
    let found = read_all(&directory).await.unwrap();
    let positions = found.iter().filter_map(|event| match event {
        Event::Frame(read) => Some(read.position),
        _ => None,
    });
    let readable: Vec<BufferPosition> = positions.collect();
    if !readable.is_empty() && random.random_bool(0.15) {
        return drain(life, &directory, &readable);
    }
    let settings = WriterSettings {
        dir: directory.path().to_owned(),
        max_bytes: [60_000, 300_000][random.random_range(0..2)],
        file_bytes: [100, 3_000, 12_000, 60_000][random.random_range(0..4)],
        mode: [SyncMode::OnAppend, SyncMode::Every(Duration::from_millis(1))][random.random_range(0..2)],
        pending_bytes_max: 1 << 20,
    };
    // The model excuses much after a fault; in lives without one it excuses nothing.
    let has_faults = random.random_bool(0.65);
    let (writer, report) = Writer::open(settings, || 1_700_000_000_000).unwrap();
    let mut work = Work {
        life,
        random,
        directory,
        writer,
        session: report.session,
        next_id: 0,
        readable,
        archived: None,
        waits: 0,
        has_faults,
    };
    work.life.note(&Note::Session(report.session.0).text());
    work.run().await;
}

/// Everything is archived, and nobody is going to write.
fn drain(mut life: OwnLife, directory: &Directory, readable: &[BufferPosition]) {
    let adopted = adopt(directory).unwrap();
    let last = *readable.last().unwrap();
    life.note(&Note::Archived(last.session.0, last.lsn.0).text());
    directory.publish_archived(last).unwrap();
    adopted.delete_all(last).unwrap();
}

struct Work {
    life: OwnLife,
    random: StdRng,
    directory: Directory,
    writer: Writer,
    session: SessionId,
    next_id: u64,
    /// Durable positions, in order.
    readable: Vec<BufferPosition>,
    archived: Option<BufferPosition>,
    /// Waits for the writer to look around, which it does a few times a second.
    waits: u32,
    /// Whether the disk fails at times.
    has_faults: bool,
}

const STEPS: std::ops::Range<u32> = 12..30;
const WAITS_MAX: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(20);

impl Work {
    async fn run(mut self) {
        for _ in 0..self.random.random_range(STEPS) {
            match self.random.random_range(0..20) {
                0..10 => self.append().await,
                10..14 => self.append_at_once().await,
                14..16 => self.archive(false).await,
                16 if self.waits < WAITS_MAX => self.archive(true).await,
                17..19 if self.has_faults => self.fail_once().await,
                19 if self.has_faults && self.waits < WAITS_MAX => self.break_session().await,
                _ => {}
            }
        }
        if self.random.random_bool(0.5) {
            self.note(Note::Closing);
            self.writer.close().await.unwrap();
        }
    }

    fn note(&mut self, note: Note) {
        self.life.note(&note.text());
    }

    fn frames(&mut self) -> (u64, Vec<Frame>) {
        let id = self.next_id;
        self.next_id += self.random.random_range(1..=5);
        (
            id,
            (id..self.next_id).map(|id| content(self.life.seed, id)).collect(),
        )
    }

    /// One request, mostly awaited.
    async fn append(&mut self) {
        let (id, frames) = self.frames();
        match self.writer.append(frames).await {
            Ok(appended) => {
                self.appended(appended, id);
                if self.random.random_bool(0.8) {
                    let synced = self.writer.wait_synced(appended.end()).await.is_ok();
                    self.synced(appended, synced);
                }
            }
            Err(error) => self.refused(error).await,
        }
    }

    /// Several requests, which the writer may take together.
    async fn append_at_once(&mut self) {
        let mut tasks = Vec::new();
        for _ in 0..self.random.random_range(2..5) {
            let (id, frames) = self.frames();
            let writer = self.writer.clone();
            tasks.push(tokio::spawn(async move {
                let appended = writer.append(frames).await?;
                let synced = writer.wait_synced(appended.end()).await.is_ok();
                Ok::<_, AppendError>((id, appended, synced))
            }));
        }
        for task in tasks {
            match task.await.unwrap() {
                Ok((id, appended, synced)) => {
                    self.appended(appended, id);
                    self.synced(appended, synced);
                }
                Err(error) => self.refused(error).await,
            }
        }
    }

    fn appended(&mut self, appended: Appended, id: u64) {
        if appended.session != self.session {
            self.session = appended.session;
            self.note(Note::Session(appended.session.0));
        }
        let count = appended.last.0 - appended.first.0 + 1;
        self.note(Note::Appended(appended.session.0, appended.first.0, count, id));
    }

    fn synced(&mut self, appended: Appended, synced: bool) {
        if synced {
            self.note(Note::Synced(appended.session.0, appended.last.0));
            self.readable.push(appended.end());
            self.readable.sort_unstable();
        }
    }

    async fn archive(&mut self, wait: bool) {
        let open: Vec<BufferPosition> = self
            .readable
            .iter()
            .copied()
            .filter(|position| Some(*position) > self.archived)
            .collect();
        if open.is_empty() {
            return;
        }
        let position = open[self.random.random_range(0..open.len())];
        self.publish_archived(position);
        if wait {
            self.await_state("a look at what is archived", |state| {
                state.archived == Some(position)
            })
            .await;
        }
    }

    fn publish_archived(&mut self, position: BufferPosition) {
        // First: it is acted upon as soon as it is published.
        self.note(Note::Archived(position.session.0, position.lsn.0));
        self.archived = Some(position);
        while self.directory.publish_archived(position).is_err() {
            // The fault was meant for the writer; it struck us.
            self.life.heal();
        }
    }

    async fn refused(&mut self, error: AppendError) {
        match error {
            AppendError::Full => self.make_room().await,
            // A second fault came while the first one was being survived.
            AppendError::Broken => {
                self.await_state("a new session", |state| state.broken.is_none())
                    .await
            }
            error => panic!("{error}"),
        }
    }

    /// The buffer takes no more until something is archived: everything then, and of this session at least that all
    /// earlier ones are.
    async fn make_room(&mut self) {
        let last = self.readable.last().copied().unwrap_or_default();
        let position = last.max(self.writer.state().synced);
        if Some(position) > self.archived {
            self.publish_archived(position);
        }
        self.await_state("room", |state| !state.full).await;
    }

    /// One write, sync or creation of a file fails; nothing that was taken is lost by that.
    async fn fail_once(&mut self) {
        let fault = [
            "write 5 0 once",
            "sync 5 0 once",
            "sync 5 0 once",
            "create 5 0 once",
        ];
        let fault = fault[self.random.random_range(0..fault.len())];
        self.note(Note::Fault);
        self.life.fault(fault);
        self.append().await;
        self.append().await;
        self.life.heal();
    }

    /// Nothing can be written for a while.
    async fn break_session(&mut self) {
        self.note(Note::Fault);
        self.life.fault("sync 5 0");
        let (id, frames) = self.frames();
        match self.writer.append(frames).await {
            Ok(appended) => {
                self.appended(appended, id);
                let synced = self.writer.wait_synced(appended.end()).await.is_ok();
                self.synced(appended, synced);
            }
            Err(AppendError::Full | AppendError::Broken) => {}
            Err(error) => panic!("{error}"),
        }
        self.life.heal();
        self.await_state("a new session", |state| state.broken.is_none())
            .await;
    }

    async fn await_state(&mut self, what: &str, holds: impl Fn(&teeline_proxy::buffer::BufferState) -> bool) {
        self.waits += 1;
        let until = Instant::now() + DEADLINE;
        while !holds(&self.writer.state()) {
            assert!(
                Instant::now() < until,
                "waited for {what}: {:?}",
                self.writer.state()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
