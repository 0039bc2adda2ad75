//! From the client to the broker.
//!
//! Frames are looked at only as far as needed. Where there is a capture, a Produce request is read whole (within the
//! budget), its batches go into the write-ahead buffer, and the very same bytes go to the broker. Everything else streams
//! through: its key, version and correlation id are noted so that the answer can be told, and its bytes are not looked at.
//! What was parsed in one wake-up is written in one go.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use teeline_wire::frame::{self, FrameError, FrameLimits, LENGTH_BYTES};
use teeline_wire::header::{self, REQUEST_HEADER_BYTES_MIN, RequestHeader};
use teeline_wire::produce::{self, ProduceRequest};
use teeline_wire::read::Reader;
use teeline_wire::{WireError, api_versions, apis, end_txn, rewrite};
use tokio::io::AsyncWrite;

pub(super) use super::head::RequestsEnd;
use super::head::{Head, Passage, malformed};
use super::in_flight::{Captured, Expect};
use super::intake::{Intake, READ_BYTES_FREE, REQUESTS_READ_BYTES_MAX, Source};
use super::meter::{Meter, note_wait};
use super::observer::Asking;
use super::outbox::Outbox;
use super::sasl::{Access, Mechanism};
use super::{Refused, Shared};
use crate::budget::Room;
use crate::capture::Verdict;
use crate::metrics::{Backpressure, Closed, Direction, record_wait};

/// The request loop of one connection.
pub(crate) struct Requests<'a> {
    shared: &'a Shared,
    intake: Intake,
    outbox: Outbox,
    meter: Meter<'a>,
    observer: Asking<'a>,
    /// Bytes of the current frame that still have to pass unread.
    streaming: usize,
    /// Room taken for the current frame, which is read whole: so it stays until it is there.
    room: Room,
    /// Tokens of the old SASL exchange that are still to come: they have no Kafka header.
    tokens: u8,
}

impl<'a> Requests<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Requests<'a> {
        Requests {
            shared,
            intake: Intake::new(shared.budgets.lender.clone(), REQUESTS_READ_BYTES_MAX),
            outbox: Outbox::default(),
            meter: Meter::new(shared, Direction::Request),
            observer: Asking::new(&shared.arrived),
            streaming: 0,
            room: Room::default(),
            tokens: 0,
        }
    }

    /// Forwards until there is a reason to stop.
    pub(crate) async fn run<R, W>(&mut self, client: &mut R, upstream: &mut W) -> RequestsEnd
    where
        R: Source,
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Err(end) = self.turn(client, upstream).await {
                // What precedes the reason was accepted, and its senders may be waiting.
                return match self.flush(upstream).await {
                    Ok(()) => end,
                    Err(failed) => failed,
                };
            }
        }
    }

    async fn turn<R, W>(&mut self, client: &mut R, upstream: &mut W) -> Result<(), RequestsEnd>
    where
        R: Source,
        W: AsyncWrite + Unpin,
    {
        while self.step(upstream).await? {}
        self.flush(upstream).await?;
        self.meter.flushed();
        let between_frames = self.streaming == 0;
        self.observer.forwarded(&self.shared.in_flight, !between_frames);
        if between_frames && self.shared.draining.load(Ordering::Relaxed) {
            return Err(RequestsEnd::Draining);
        }
        self.shared.resting.store(between_frames, Ordering::Relaxed);
        self.shared
            .pulse
            .awaits_client(!between_frames || self.intake.len() > 0);
        let read = self
            .intake
            .read(client)
            .await
            .map_err(RequestsEnd::ClientFailed)?;
        self.shared.resting.store(false, Ordering::Relaxed);
        if read == 0 {
            return Err(RequestsEnd::ClientClosed);
        }
        self.meter.woke();
        self.observer.woke();
        self.shared.pulse.client_sent(read);
        Ok(())
    }

    async fn flush<W: AsyncWrite + Unpin>(&mut self, upstream: &mut W) -> Result<(), RequestsEnd> {
        let mut waiting = None;
        let flushed = {
            let mut flush = pin!(self.outbox.flush(upstream));
            poll_fn(|context| note_wait(flush.as_mut().poll(context), &mut waiting)).await
        };
        if let Some(since) = waiting {
            self.meter.waited(Backpressure::Broker, since);
        }
        flushed.map_err(RequestsEnd::UpstreamFailed)
    }

    /// Deals with one frame, or with a part of one. False when more bytes are needed.
    async fn step<W: AsyncWrite + Unpin>(&mut self, upstream: &mut W) -> Result<bool, RequestsEnd> {
        if self.streaming > 0 {
            let chunk = self.intake.take(self.streaming).freeze();
            self.streaming = self.streaming.saturating_sub(chunk.len());
            self.meter.passes(chunk.len());
            self.outbox.push(chunk);
            if self.streaming > 0 {
                return Ok(false);
            }
            self.meter.ends();
            self.shared.pulse.whole_ended();
            return Ok(true);
        }
        if self.shared.draining.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let Some(length) = self.peek_length()? else {
            return Ok(false);
        };
        self.wait_for_turn(upstream).await?;
        if self.tokens > 0 {
            self.tokens = self.tokens.saturating_sub(1);
            let head = Head {
                api_key: apis::SASL_AUTHENTICATE,
                api_version: 0,
                correlation_id: 0,
            };
            self.pass(length, head, Expect::SaslToken);
            return Ok(true);
        }
        let Some(head) = self.peek_head(length)? else {
            return Ok(false);
        };
        match self.passage(head)? {
            Passage::Stream(expect) => {
                self.pass(length, head, expect);
                Ok(true)
            }
            Passage::Whole(bytes_max) if length > bytes_max => {
                let error = FrameError::TooLarge {
                    length,
                    max_bytes: bytes_max,
                };
                let text = format!("{} request: {error}", apis::name(head.api_key));
                Err(Refused::new(Closed::TooLarge, text).of(head.api_key).into())
            }
            Passage::Whole(_) => match self.take_whole(length, upstream).await? {
                Some(frame) => self.whole(head, frame, upstream).await.map(|()| true),
                None => Ok(false),
            },
        }
    }

    /// Lets the frame at the head of the intake pass, and notes what is awaited.
    fn pass(&mut self, length: usize, head: Head, expect: Expect) {
        let bytes = length.saturating_add(LENGTH_BYTES);
        let trace = match expect {
            // A token is a secret, and no header.
            Expect::SaslToken => self.observer.begins(bytes, &[]),
            _ => self.observer.begins(bytes, self.intake.bytes()),
        };
        if matches!(expect, Expect::Produce(_)) {
            // It may take as long as one that is read whole: who drains waits for its end.
            self.shared.pulse.whole_awaited(length, false);
        }
        self.meter.begins(head.api_key);
        self.shared.in_flight.push(head.expecting(expect, trace));
        self.streaming = bytes;
    }

    fn peek_length(&self) -> Result<Option<usize>, RequestsEnd> {
        let Some(prefix) = self.intake.bytes().first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let limits = FrameLimits {
            max_bytes: self.shared.live.request_bytes_max,
        };
        match frame::check_length(*prefix, limits) {
            Ok(length) => Ok(Some(length)),
            Err(error) => Err(match error {
                FrameError::TooLarge { .. } => {
                    let text = format!("{error} (hint: listen.max_request_bytes)");
                    Refused::new(Closed::TooLarge, text)
                }
                error @ FrameError::NotKafka(_) => Refused::new(Closed::NotKafka, error.to_string()),
                error => Refused::new(Closed::ClientMalformed, error.to_string()),
            }
            .into()),
        }
    }

    fn peek_head(&self, length: usize) -> Result<Option<Head>, RequestsEnd> {
        if length < REQUEST_HEADER_BYTES_MIN {
            let text = format!("a frame of {length} bytes is too short for a Kafka request");
            return Err(Refused::new(Closed::ClientMalformed, text).into());
        }
        let bytes = self
            .intake
            .bytes()
            .get(LENGTH_BYTES..LENGTH_BYTES + REQUEST_HEADER_BYTES_MIN);
        let Some(mut reader) = bytes.map(Reader::new) else {
            return Ok(None);
        };
        let head = (|| {
            Ok::<_, WireError>(Head {
                api_key: reader.i16()?,
                api_version: reader.i16()?,
                correlation_id: reader.i32()?,
            })
        })();
        head.map(Some).map_err(|error| malformed(None, &error))
    }

    fn passage(&self, head: Head) -> Result<Passage, RequestsEnd> {
        let Head {
            api_key, api_version, ..
        } = head;
        if api_key != apis::API_VERSIONS
            && api_key != apis::SASL_AUTHENTICATE
            && api_key != apis::SASL_HANDSHAKE
        {
            self.shared.authentication.other_request();
        }
        if apis::newest_understood(api_key).is_some_and(|newest| !(0..=newest).contains(&api_version)) {
            let name = apis::name(api_key);
            let text =
                format!("{name} version {api_version} is not understood, and was not offered in ApiVersions");
            return Err(Refused::new(Closed::NotUnderstood, text).of(api_key).into());
        }
        let capture = self.shared.cluster.capture.as_ref();
        Ok(match api_key {
            apis::PRODUCE
                if capture.is_none() && self.room.is_empty() && self.will_be_answered(api_version) =>
            {
                Passage::Stream(Expect::Produce(Box::new(Captured::none())))
            }
            apis::PRODUCE => Passage::Whole(self.shared.live.request_bytes_max),
            apis::END_TXN if capture.is_some() && (0..=end_txn::NEWEST_VERSION).contains(&api_version) => {
                Passage::Whole(SMALL_REQUEST_BYTES_MAX)
            }
            apis::SASL_HANDSHAKE => Passage::Whole(SMALL_REQUEST_BYTES_MAX),
            apis::SASL_AUTHENTICATE if self.shared.live.upstream.speaks_for_clients() => {
                let text = "SaslAuthenticate where the proxy authenticates for its clients";
                return Err(Refused::new(Closed::NotUnderstood, text.to_owned())
                    .of(api_key)
                    .into());
            }
            apis::SASL_AUTHENTICATE => Passage::Stream(Expect::SaslAuthenticate),
            apis::API_VERSIONS if api_version > api_versions::NEWEST_VERSION => {
                Passage::Whole(SMALL_REQUEST_BYTES_MAX)
            }
            apis::API_VERSIONS => Passage::Stream(Expect::ApiVersions),
            apis::METADATA => {
                let asked_after = capture.map(|capture| capture.writer().last_assigned());
                Passage::Stream(Expect::Metadata { asked_after })
            }
            _ if apis::newest_understood(api_key).is_some()
                && rewrite::carries_addresses(api_key, api_version)
                && !self.shared.live.intercepts =>
            {
                Passage::Stream(Expect::Addresses)
            }
            _ => Passage::Stream(Expect::Pass),
        })
    }

    /// Whether it is known already that the Produce request at the head of the intake has an answer.
    fn will_be_answered(&self, api_version: i16) -> bool {
        let arrived = self.intake.bytes();
        let looked_at = arrived.get(..READ_BYTES_FREE).unwrap_or(arrived);
        let frame = looked_at.get(LENGTH_BYTES..).unwrap_or_default();
        produce::parse_acks(api_version, frame).is_ok_and(|acks| acks != 0)
    }

    /// Waits while too many requests are unanswered.
    async fn wait_for_turn<W: AsyncWrite + Unpin>(&mut self, upstream: &mut W) -> Result<(), RequestsEnd> {
        while !self.shared.in_flight.has_room() {
            self.flush(upstream).await?;
            let since = Instant::now();
            self.shared.in_flight.answered.notified().await;
            self.meter.waited(Backpressure::Unanswered, since);
        }
        Ok(())
    }

    /// The whole frame with its length, once it is there. Room is taken before bytes are waited for, in step with what
    /// arrives: a length is only a claim.
    async fn take_whole<W: AsyncWrite + Unpin>(
        &mut self,
        length: usize,
        upstream: &mut W,
    ) -> Result<Option<Bytes>, RequestsEnd> {
        let bytes = length.saturating_add(LENGTH_BYTES);
        let arrived = self.intake.len();
        // Twice what is there, or one read more for somebody who has shown that much comes with each.
        let ahead = arrived.saturating_add(arrived.max(self.intake.read_bytes()));
        let wanted = bytes.min(ahead);
        let budget = &self.shared.budgets.requests;
        if !budget.try_grow(&mut self.room, wanted) {
            self.flush(upstream).await?;
            let waited = budget.grow(&mut self.room, wanted).await;
            record_wait(
                self.shared.cluster.metrics.pushed_back(Backpressure::Memory),
                waited,
            );
        }
        if arrived < bytes {
            self.intake.expect(wanted);
            self.shared.pulse.whole_awaited(length, true);
            return Ok(None);
        }
        self.shared.pulse.whole_ended();
        let room = std::mem::take(&mut self.room);
        Ok(Some(room.hold(self.intake.take_to_keep(bytes))))
    }

    async fn whole<W: AsyncWrite + Unpin>(
        &mut self,
        head: Head,
        frame: Bytes,
        upstream: &mut W,
    ) -> Result<(), RequestsEnd> {
        let api_key = Some(head.api_key);
        let content = frame.slice(LENGTH_BYTES..);
        let header = RequestHeader::parse(&content).map_err(|error| malformed(api_key, &error))?;
        let body = content.slice(header.header_len.min(content.len())..);
        match head.api_key {
            apis::PRODUCE => {
                let request =
                    produce::parse_request(head.api_version, &body).map_err(|e| malformed(api_key, &e))?;
                self.produce(head, frame, request, upstream).await
            }
            apis::END_TXN => {
                let request =
                    end_txn::parse_request(head.api_version, &body).map_err(|e| malformed(api_key, &e))?;
                self.forward(head, frame, Expect::EndTxn(Box::new(request)));
                Ok(())
            }
            apis::SASL_HANDSHAKE => self.handshake(head, frame, &body),
            // ApiVersions in a version that only a newer proxy can read the answer of: the protocol's own fallback.
            _ => {
                let body = api_versions::unsupported_version_response();
                self.answer(head, 0, &body)
            }
        }
    }

    async fn produce<W: AsyncWrite + Unpin>(
        &mut self,
        head: Head,
        frame: Bytes,
        request: ProduceRequest,
        upstream: &mut W,
    ) -> Result<(), RequestsEnd> {
        let shared = self.shared;
        let verdict = match &shared.cluster.capture {
            Some(capture) => {
                let openness = &shared.live.upstream.openness;
                let mut access = shared.authentication.access(openness.is_open());
                if access == Access::Unknown && capture.concerns(&request) {
                    self.flush(upstream).await?;
                    openness.wait_open(capture).await;
                    access = shared.authentication.access(openness.is_open());
                }
                let outbox = &mut self.outbox;
                let before_waiting =
                    async || outbox.flush(upstream).await.map_err(RequestsEnd::UpstreamFailed);
                capture
                    .request(&request, shared.connection_id, access, before_waiting)
                    .await?
            }
            None => Verdict::Forward(Captured::none()),
        };
        match verdict {
            Verdict::Forward(captured) => {
                shared
                    .unresolved
                    .fetch_add(captured.intents.len() as u64, Ordering::Relaxed);
                if request.acks == 0 {
                    let trace = self.observer.begins(frame.len(), &frame);
                    self.observer.unanswered(head.topic(), trace);
                    self.push_whole(head.api_key, frame);
                } else {
                    self.forward(head, frame, Expect::Produce(Box::new(captured)));
                }
                Ok(())
            }
            Verdict::Refuse => self.refuse_produce(head, &request),
        }
    }

    fn refuse_produce(&self, head: Head, request: &ProduceRequest) -> Result<(), RequestsEnd> {
        self.shared.cluster.metrics.refused_requests.increment(1);
        if request.acks == 0 {
            // Closing is how a broker tells such a producer, too.
            let text = "a produce request with acks=0 cannot be captured, and capture.on_failure is closed";
            return Err(Refused::new(Closed::NotCaptured, text.to_owned())
                .of(head.api_key)
                .into());
        }
        let body = produce::error_response(head.api_version, request, NOT_ENOUGH_REPLICAS)
            .map_err(|error| malformed(Some(head.api_key), &error))?;
        self.answer(head, head.api_version, &body)
    }

    fn handshake(&mut self, head: Head, frame: Bytes, body: &[u8]) -> Result<(), RequestsEnd> {
        let name = Reader::new(body)
            .string(false)
            .map_err(|error| malformed(Some(head.api_key), &error))?;
        let mechanism = Mechanism::named(name);
        if self.shared.live.upstream.speaks_for_clients() {
            // To the broker it would be the proxy that becomes somebody else.
            return self.answer(head, head.api_version, &NO_SASL_HERE);
        }
        self.shared.authentication.began(mechanism);
        if head.api_version == 0 {
            let Some(rounds) = mechanism.rounds() else {
                let text = "this SASL mechanism without SaslAuthenticate cannot be followed (hint: use a client that \
                            speaks SaslHandshake version 1, that is Kafka 1.0 or newer)";
                return Err(Refused::new(Closed::NotUnderstood, text.to_owned())
                    .of(head.api_key)
                    .into());
            };
            self.tokens = rounds;
        }
        self.forward(head, frame, Expect::SaslHandshake);
        Ok(())
    }

    fn forward(&mut self, head: Head, frame: Bytes, expect: Expect) {
        let trace = self.observer.begins(frame.len(), &frame);
        self.shared.in_flight.push(head.expecting(expect, trace));
        self.push_whole(head.api_key, frame);
    }

    fn push_whole(&mut self, api_key: i16, frame: Bytes) {
        self.meter.begins(api_key);
        self.meter.passes(frame.len());
        self.meter.ends();
        self.outbox.push(frame);
    }

    /// Answers in the broker's place; the request is not forwarded.
    fn answer(&self, head: Head, api_version: i16, body: &[u8]) -> Result<(), RequestsEnd> {
        let head = Head { api_version, ..head };
        let frame = header::response_frame(head.api_key, api_version, head.correlation_id, body)
            .map_err(|error| malformed(Some(head.api_key), &error))?;
        let mut room = Room::default();
        // As an answer of the broker's would. The client decides how large it is, and may not read it.
        if frame.len() > READ_BYTES_FREE && !self.shared.budgets.answers.try_grow(&mut room, frame.len()) {
            let text = "there is no room for an answer of the proxy's own (hint: process.in_flight_bytes)";
            return Err(Refused::new(Closed::TooLarge, text.to_owned()).into());
        }
        let request = head.expecting(Expect::Local(room.hold(frame)), None);
        self.shared.in_flight.push(request);
        Ok(())
    }
}

impl fmt::Debug for Requests<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Requests")
            .field("streaming", &self.streaming)
            .finish_non_exhaustive()
    }
}

/// A SaslHandshake response as brokers have it on listeners without SASL: ILLEGAL_SASL_STATE, and no mechanisms.
const NO_SASL_HERE: [u8; 6] = [0, 34, 0, 0, 0, 0];
/// Names and ids only: brokers accept strings up to 32 KiB.
const SMALL_REQUEST_BYTES_MAX: usize = 128 * 1024;
/// Retriable for every producer, and true: one more copy is missing, ours.
const NOT_ENOUGH_REPLICAS: i16 = 19;

#[cfg(test)]
#[path = "protocol_tests.rs"]
#[allow(clippy::unwrap_used)]
mod protocol_tests;
