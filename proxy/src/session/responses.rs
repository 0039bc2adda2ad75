//! From the broker to the client.
//!
//! Each answer belongs to the request at the head of [`InFlight`](super::in_flight::InFlight). Most pass unread, in chunks. Those that carry broker
//! addresses are rewritten, or scanned while they stream when they are large. Answers to captured requests are noted in
//! the write-ahead buffer and then held by a gate until their batches are durable; reading goes on meanwhile, so that
//! outcomes of later requests are not delayed. What is read whole takes room in the process's budget until the client has
//! it; what streams needs none, so an answer that has begun to pass always comes to its end. After the client is gone the
//! answers are still read: they carry offsets.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::time::Duration;

use teeline_archive::ids::BufferPosition;
use teeline_wire::fetch_response::TailScanner;
use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::header::CORRELATION_ID_BYTES;
use teeline_wire::{WireError, apis};
use tokio::io::AsyncWrite;

use super::answers::{self, refused};
use super::in_flight::{Expect, Request};
use super::intake::{ANSWERS_READ_BYTES_MAX, Intake, READ_BYTES_FREE, Source};
use super::meter::{Meter, note_wait};
use super::observer::Answering;
use super::outbox::Outbox;
use super::responses_end::ResponsesEnd;
use super::{Refused, Shared};
use crate::budget::{ConnectionBudget, Room};
use crate::metrics::{Backpressure, Closed, Direction, record_wait};

/// What becomes of the bytes that come next.
enum Body {
    /// The start of an answer is awaited.
    Between,
    /// So many bytes pass unread.
    Passing { left: usize },
    /// So many bytes pass under the eyes of a scanner.
    Scanning { left: usize, scanner: Box<TailScanner> },
}

struct Hold<'a> {
    position: BufferPosition,
    done: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

/// The response loop of one connection.
pub(crate) struct Responses<'a> {
    shared: &'a Shared,
    intake: Intake,
    outbox: Outbox,
    meter: Meter<'a>,
    observer: Answering<'a>,
    body: Body,
    /// Room taken for the current answer.
    room: Room,
    /// Room that has to be waited for before anything more of it is read.
    wanted: Option<usize>,
    /// An answer of our own waits for the outbox to be emptied.
    more: bool,
    hold: Option<Hold<'a>>,
    client_gone: bool,
}

impl<'a> Responses<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Responses<'a> {
        Responses {
            shared,
            intake: Intake::new(shared.budgets.lender.clone(), ANSWERS_READ_BYTES_MAX),
            outbox: Outbox::default(),
            meter: Meter::new(shared, Direction::Response),
            observer: Answering::new(&shared.arrived),
            body: Body::Between,
            room: Room::default(),
            wanted: None,
            more: false,
            hold: None,
            client_gone: false,
        }
    }

    /// Passes answers on until there is a reason to stop.
    pub(crate) async fn run<R, W>(&mut self, upstream: &mut R, client: &mut W) -> ResponsesEnd
    where
        R: Source,
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Err(end) = self.turn(upstream, client).await {
                // A client that does not read must not delay the news of what is unresolved.
                let _ = tokio::time::timeout(FINISH_MAX, self.finish(client)).await;
                return end;
            }
        }
    }

    async fn turn<R, W>(&mut self, upstream: &mut R, client: &mut W) -> Result<(), ResponsesEnd>
    where
        R: Source,
        W: AsyncWrite + Unpin,
    {
        while self.step().await? {}
        self.flush(client).await;
        self.meter.flushed();
        if self.is_drained() {
            return Err(ResponsesEnd::Drained);
        }
        if std::mem::take(&mut self.more) && self.outbox.len() < OUTBOX_BYTES_FREE {
            return Ok(());
        }
        self.arm_hold();
        let wanted = self.wanted.take();
        let may_read = wanted.is_none() && self.may_read();
        self.intake.still_held(!self.outbox.is_empty());
        tokio::select! {
            position = held(&mut self.hold) => self.release(position),
            waited = roomy(&self.shared.budgets.answers, &mut self.room, wanted) => {
                record_wait(self.shared.cluster.metrics.pushed_back(Backpressure::Memory), waited);
            }
            read = self.intake.read(upstream), if may_read => match read {
                Ok(0) => return Err(ResponsesEnd::UpstreamClosed),
                Ok(_) => {
                    self.meter.woke();
                    self.shared.pulse.broker_sent();
                }
                Err(error) => return Err(ResponsesEnd::UpstreamFailed(error)),
            },
            () = self.shared.in_flight.asked.notified() => {}
        }
        Ok(())
    }

    /// Little may wait for the disk unasked, more while it is lent.
    fn may_read(&mut self) -> bool {
        let queued = self.outbox.len();
        queued < OUTBOX_BYTES_FREE || queued < OUTBOX_BYTES_MAX && self.intake.borrow()
    }

    async fn flush<W: AsyncWrite + Unpin>(&mut self, client: &mut W) {
        if !self.client_gone {
            let mut waiting = None;
            let queued = self.outbox.len();
            let flushed = {
                let mut flush = pin!(self.outbox.flush(client));
                poll_fn(|context| note_wait(flush.as_mut().poll(context), &mut waiting)).await
            };
            self.client_gone = flushed.is_err();
            self.observer.flushed(queued.saturating_sub(self.outbox.len()));
            if let Some(since) = waiting {
                self.meter.waited(Backpressure::Client, since);
            }
        }
        if self.client_gone {
            self.outbox.clear();
            self.observer.lost();
            self.hold = None;
        }
    }

    /// Lets out what was answered before the end, as far as it is or becomes durable.
    async fn finish<W: AsyncWrite + Unpin>(&mut self, client: &mut W) {
        loop {
            self.flush(client).await;
            self.arm_hold();
            if self.hold.is_none() {
                return;
            }
            let position = held(&mut self.hold).await;
            self.release(position);
        }
    }

    fn arm_hold(&mut self) {
        if let (None, Some(gate), Some(capture)) =
            (&self.hold, self.outbox.gate(), &self.shared.cluster.capture)
        {
            self.hold = Some(Hold {
                position: gate.position,
                done: Box::pin(capture.hold(gate)),
            });
        }
        self.shared.holding.store(self.hold.is_some(), Ordering::Relaxed);
    }

    fn release(&mut self, position: BufferPosition) {
        self.hold = None;
        self.outbox.open_gates(|gate| gate.position <= position);
    }

    fn is_drained(&self) -> bool {
        if !self.shared.ended.load(Ordering::Relaxed) {
            return false;
        }
        let in_flight = &self.shared.in_flight;
        match self.client_gone {
            true => in_flight.captured() == 0,
            // What passes in pieces is no longer among what is in flight, and not over either.
            false => in_flight.len() == 0 && self.outbox.is_empty() && matches!(self.body, Body::Between),
        }
    }

    /// Deals with one answer, or with a part of one. False when more bytes are needed.
    async fn step(&mut self) -> Result<bool, ResponsesEnd> {
        if !matches!(self.body, Body::Between) {
            return self.stream();
        }
        match self
            .shared
            .in_flight
            .with_head(|head| matches!(head.expect, Expect::Local(_)))
        {
            Some(true) if self.outbox.len() >= OUTBOX_BYTES_FREE => {
                self.more = true;
                return Ok(false);
            }
            Some(true) => {
                if let Some(Request {
                    api_key,
                    expect: Expect::Local(frame),
                    ..
                }) = self.shared.in_flight.pop()
                {
                    self.meter.begins(api_key);
                    self.meter.passes(frame.len());
                    self.outbox.push(frame);
                }
                return Ok(true);
            }
            None if self.intake.len() > 0 => {
                let text = "the broker answered what was not asked".to_owned();
                return Err(Refused::new(Closed::UpstreamMalformed, text).into());
            }
            None => return Ok(false),
            Some(false) => {}
        }
        let Some(length) = self.peek_length()? else {
            return Ok(false);
        };
        if self
            .shared
            .in_flight
            .with_head(|head| matches!(head.expect, Expect::SaslToken))
            == Some(true)
        {
            if let Some(mut request) = self.shared.in_flight.pop() {
                self.observer
                    .begins(&mut request, length.saturating_add(LENGTH_BYTES));
            }
            self.shared.authentication.round_succeeded();
            self.meter.begins(apis::SASL_AUTHENTICATE);
            self.body = Body::Passing {
                left: length.saturating_add(LENGTH_BYTES),
            };
            return Ok(true);
        }
        if !self.peek_correlation(length)? {
            return Ok(false);
        }
        self.begin(length).await
    }

    fn peek_length(&self) -> Result<Option<usize>, ResponsesEnd> {
        let Some(prefix) = self.intake.bytes().first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        // Responses have no limit of their own: they stream. Those that are read whole are limited where they are.
        usize::try_from(i32::from_be_bytes(*prefix))
            .map(Some)
            .map_err(|_| {
                Refused::new(
                    Closed::UpstreamMalformed,
                    "a response with a negative length".to_owned(),
                )
                .into()
            })
    }

    /// False when the correlation id is not there yet.
    fn peek_correlation(&self, length: usize) -> Result<bool, ResponsesEnd> {
        let bytes = self
            .intake
            .bytes()
            .get(LENGTH_BYTES..LENGTH_BYTES + CORRELATION_ID_BYTES);
        if length < CORRELATION_ID_BYTES {
            let text = format!("a response of {length} bytes is too short");
            return Err(Refused::new(Closed::UpstreamMalformed, text).into());
        }
        let Some(got) = bytes
            .and_then(|bytes| bytes.first_chunk())
            .map(|bytes| i32::from_be_bytes(*bytes))
        else {
            return Ok(false);
        };
        let expected = self.shared.in_flight.with_head(|head| head.correlation_id);
        if expected == Some(got) {
            return Ok(true);
        }
        let text = format!("the broker answered out of order: correlation id {got}, expected {expected:?}");
        Err(Refused::new(Closed::UpstreamMalformed, text).into())
    }

    /// Begins the answer at the head of the intake.
    async fn begin(&mut self, length: usize) -> Result<bool, ResponsesEnd> {
        let frame_bytes = length.saturating_add(LENGTH_BYTES);
        let streams = self
            .shared
            .in_flight
            .with_answered_head(|head| match head.expect {
                Expect::Pass => true,
                Expect::Addresses => {
                    matches!(head.api_key, apis::FETCH | apis::SHARE_FETCH) && length > FETCH_WHOLE_BYTES_MAX
                }
                _ => false,
            });
        if streams == Some(true) {
            let Some(mut request) = self.shared.in_flight.pop() else {
                return Ok(false);
            };
            self.meter.begins(request.api_key);
            self.observer.begins(&mut request, frame_bytes);
            self.body = match request.expect {
                Expect::Addresses => self.scan(&request, length)?,
                _ => Body::Passing { left: frame_bytes },
            };
            return Ok(true);
        }
        if length > WHOLE_BYTES_MAX {
            let text = format!(
                "a response of {length} bytes that has to be read whole; the limit is {WHOLE_BYTES_MAX}"
            );
            return Err(Refused::new(Closed::TooLarge, text).into());
        }
        if !self.make_room(length) {
            return Ok(false);
        }
        if length > METADATA_WHOLE_BYTES_MAX && self.begin_metadata(length)? {
            return Ok(true);
        }
        if self.intake.len() < frame_bytes {
            return Ok(false);
        }
        let frame = self.intake.take(frame_bytes).freeze();
        let Some(mut request) = self.shared.in_flight.pop() else {
            return Ok(false);
        };
        self.meter.begins(request.api_key);
        self.observer.begins(&mut request, frame_bytes);
        let holding = &self.shared.holding;
        holding.store(true, Ordering::Relaxed);
        let (frame, gate) = answers::whole(self.shared, request, frame).await?;
        holding.store(gate.is_some() || self.hold.is_some(), Ordering::Relaxed);
        self.meter.passes(frame.len());
        self.meter.ends();
        let room = std::mem::take(&mut self.room);
        self.outbox.push_gated(room.hold(frame), gate);
        self.observer.ends(self.outbox.len(), gate.is_some());
        if self.shared.untracked.load(Ordering::Relaxed) {
            let text = "an outcome could not be recorded; the client connects again".to_owned();
            return Err(Refused::new(Closed::NotCaptured, text).into());
        }
        Ok(true)
    }

    /// Takes room for what has arrived of an answer that is read whole, and for the next read: in step with what arrives,
    /// not with what is announced. A broker is trusted more than a client, not blindly.
    fn make_room(&mut self, length: usize) -> bool {
        let frame_bytes = length.saturating_add(LENGTH_BYTES);
        let arrived = self.intake.len();
        let wanted = frame_bytes.min(arrived.saturating_add(arrived.max(self.intake.read_bytes())));
        if frame_bytes > WHOLE_BYTES_FREE && !self.shared.budgets.answers.try_grow(&mut self.room, wanted) {
            self.wanted = Some(wanted);
            return false;
        }
        self.intake.expect(wanted);
        true
    }

    /// Begins a Metadata answer that is too large to be held: its head is rewritten, the rest passes. False when it has
    /// to be read on first, or is none.
    fn begin_metadata(&mut self, length: usize) -> Result<bool, ResponsesEnd> {
        let is_metadata = |request: &Request| {
            matches!(request.expect, Expect::Metadata { .. }).then_some(request.api_version)
        };
        let Some(Some(version)) = self.shared.in_flight.with_head(is_metadata) else {
            return Ok(false);
        };
        let arrived = self.intake.bytes().get(LENGTH_BYTES..).unwrap_or_default();
        let head = answers::metadata_head(self.shared, version, length, arrived)?;
        let Some(head) = head else { return Ok(false) };
        if let Some(mut request) = self.shared.in_flight.pop() {
            self.observer
                .begins(&mut request, length.saturating_add(LENGTH_BYTES));
        }
        self.meter.begins(apis::METADATA);
        self.meter.passes(head.bytes.len());
        drop(self.intake.take(LENGTH_BYTES.saturating_add(head.replaced)));
        self.outbox.push(head.bytes);
        self.body = Body::Passing {
            left: length.saturating_sub(head.replaced),
        };
        Ok(true)
    }

    fn scan(&mut self, request: &Request, length: usize) -> Result<Body, ResponsesEnd> {
        let left = length.saturating_sub(CORRELATION_ID_BYTES);
        let scanner = TailScanner::after_correlation_id(request.api_key, request.api_version, left)
            .map_err(|error| refused(request, &error))?;
        let start = self.intake.take(LENGTH_BYTES + CORRELATION_ID_BYTES).freeze();
        self.meter.passes(start.len());
        self.outbox.push(start);
        Ok(match scanner {
            Some(scanner) => Body::Scanning {
                left,
                scanner: Box::new(scanner),
            },
            None => Body::Passing { left },
        })
    }

    fn stream(&mut self) -> Result<bool, ResponsesEnd> {
        let left = match &mut self.body {
            Body::Between => return Ok(true),
            Body::Passing { left } => {
                let chunk = self.intake.take(*left).freeze();
                *left = left.saturating_sub(chunk.len());
                self.meter.passes(chunk.len());
                self.outbox.push(chunk);
                *left
            }
            Body::Scanning { left, scanner } => {
                let mut chunk = self.intake.take(*left);
                scanner
                    .scan(&mut chunk)
                    .map_err(|error| unreadable(&self.meter, &error))?;
                *left = left.saturating_sub(chunk.len());
                self.meter.passes(chunk.len());
                self.outbox.push(chunk.freeze());
                *left
            }
        };
        if left > 0 {
            return Ok(false);
        }
        self.room = Room::default();
        if let Body::Scanning { scanner, .. } = std::mem::replace(&mut self.body, Body::Between) {
            scanner
                .finish()
                .map_err(|error| unreadable(&self.meter, &error))?;
        }
        self.meter.ends();
        self.observer.ends(self.outbox.len(), false);
        Ok(true)
    }
}

async fn held(hold: &mut Option<Hold<'_>>) -> BufferPosition {
    match hold {
        Some(hold) => {
            hold.done.as_mut().await;
            hold.position
        }
        None => std::future::pending().await,
    }
}

/// Waits for room, where room is wanted; says how long that took.
async fn roomy(budget: &ConnectionBudget, room: &mut Room, wanted: Option<usize>) -> Duration {
    match wanted {
        // On the heap: it is rare, and every connection would carry it.
        Some(bytes) => Box::pin(budget.grow(room, bytes)).await,
        None => std::future::pending().await,
    }
}

fn unreadable(meter: &Meter<'_>, error: &WireError) -> ResponsesEnd {
    Refused::new(Closed::UpstreamMalformed, format!("fetch response: {error}"))
        .of(meter.api_key())
        .into()
}

impl fmt::Debug for Responses<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Responses")
            .field("client_gone", &self.client_gone)
            .finish_non_exhaustive()
    }
}

/// Fetch responses up to this size keep their leader hints; larger ones, full of records, rarely have any.
const FETCH_WHOLE_BYTES_MAX: usize = 64 * 1024;
/// Metadata of a cluster with a million partitions.
const WHOLE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A larger answer needs room before it is read.
const WHOLE_BYTES_FREE: usize = READ_BYTES_FREE;
/// Larger ones with metadata are not held. The catalog learns from the poller then; where that may not ask, from the log.
const METADATA_WHOLE_BYTES_MAX: usize = 1024 * 1024;
/// What may wait for the disk without asking; beyond it the broker is not read from unless more is lent.
const OUTBOX_BYTES_FREE: usize = READ_BYTES_FREE;
/// What may wait with that.
const OUTBOX_BYTES_MAX: usize = ANSWERS_READ_BYTES_MAX;
/// How long the answers received before the end may take to become durable and reach the client.
const FINISH_MAX: Duration = Duration::from_secs(10);
