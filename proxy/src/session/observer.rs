//! The two ends of a connection note times for traces and the access log, of those requests that somebody wants to see.

use std::collections::VecDeque;
use std::time::Instant;

use teeline_wire::frame::LENGTH_BYTES;
use teeline_wire::header::REQUEST_HEADER_BYTES_MIN;

use super::in_flight::{InFlight, Request};
use crate::observe::{Arrived, Ending, Line, Traced, Wishes, shown};

/// The start of a request, as far as a line about it needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topic {
    pub(super) api_key: i16,
    pub(super) api_version: i16,
    pub(super) correlation_id: i32,
}

impl Topic {
    fn of(request: &Request) -> Topic {
        Topic {
            api_key: request.api_key,
            api_version: request.api_version,
            correlation_id: request.correlation_id,
        }
    }
}

/// The side of the requests.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    arrived: &'a Arrived,
    generation: u32,
    wishes: Wishes,
    on: bool,
    introduced: bool,
    /// When the last read returned, while somebody wants to know.
    received: Option<Instant>,
    /// Something was noted that is not yet with the broker.
    noted: bool,
    unanswered: Vec<(Topic, Box<Traced>)>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(arrived: &'a Arrived) -> Asking<'a> {
        Asking {
            arrived,
            // Before the first: the first wake-up looks.
            generation: 0,
            wishes: Wishes::default(),
            on: false,
            introduced: false,
            received: None,
            noted: false,
            unanswered: Vec::new(),
        }
    }

    /// A read has returned.
    pub(super) fn woke(&mut self) {
        let generation = self.arrived.observatory.generation();
        if generation != self.generation {
            self.generation = generation;
            self.wishes = self.arrived.observatory.wishes(&self.arrived.visit);
            self.on = self.wishes.access || !self.wishes.orders.is_empty();
        }
        if self.on {
            self.received = Some(Instant::now());
        }
    }

    /// A request of so many bytes begins, of which this much has arrived. What is to be noted of it, if anything.
    pub(super) fn begins(&mut self, bytes: usize, arrived: &[u8]) -> Option<Box<Traced>> {
        if !self.introduced {
            self.introduced = true;
            if let Some(client_id) = client_id(arrived) {
                self.arrived.visit.introduce(shown(client_id));
            }
        }
        if !self.on {
            return None;
        }
        let received = self.received?;
        let client_id = client_id(arrived).map(shown);
        let (mut trace, mut over) = (false, false);
        for order in &self.wishes.orders {
            if order.filter.wants(client_id.as_deref()) {
                let taken = order.take(received);
                trace |= taken;
                over |= !taken;
            }
        }
        if over {
            self.arrived.observatory.standing_orders();
        }
        let access = self.wishes.access;
        if !trace && !access {
            return None;
        }
        self.noted = true;
        Some(Box::new(Traced {
            client_id,
            request_bytes: bytes,
            received,
            forwarded: None,
            answering: None,
            trace,
            access,
        }))
    }

    /// A request that will have no answer.
    pub(super) fn unanswered(&mut self, topic: Topic, traced: Option<Box<Traced>>) {
        if let Some(traced) = traced {
            self.unanswered.push((topic, traced));
        }
    }

    /// Everything that was read is with the broker; of the last request there may be more to come.
    pub(super) fn forwarded(&mut self, in_flight: &InFlight, more_to_come: bool) {
        if !self.noted {
            return;
        }
        let now = Instant::now();
        in_flight.forwarded(now, more_to_come);
        self.noted = more_to_come;
        for (topic, mut traced) in self.unanswered.drain(..) {
            traced.forwarded = Some(now);
            write(self.arrived, topic, &traced, Ending::Unanswered);
        }
    }
}

/// What was never forwarded has no other end.
impl Drop for Asking<'_> {
    fn drop(&mut self) {
        for (topic, traced) in self.unanswered.drain(..) {
            write(self.arrived, topic, &traced, Ending::Lost);
        }
    }
}

/// The side of the answers.
#[derive(Debug)]
pub(super) struct Answering<'a> {
    arrived: &'a Arrived,
    current: Option<Answer>,
    /// Whole, and not yet with the client.
    leaving: VecDeque<Answer>,
}

#[derive(Debug)]
struct Answer {
    topic: Topic,
    traced: Box<Traced>,
    bytes: usize,
    read: Instant,
    held: bool,
    /// How much has to leave until it has left.
    queued: usize,
}

impl<'a> Answering<'a> {
    pub(super) fn new(arrived: &'a Arrived) -> Answering<'a> {
        Answering {
            arrived,
            current: None,
            leaving: VecDeque::new(),
        }
    }

    /// An answer of so many bytes begins.
    pub(super) fn begins(&mut self, request: &mut Request, bytes: usize) {
        request.answering();
        let topic = Topic::of(request);
        self.current = request.trace.take().map(|traced| Answer {
            topic,
            read: traced.received,
            traced,
            bytes,
            held: false,
            queued: 0,
        });
    }

    /// It is whole, and leaves when so much has left.
    pub(super) fn ends(&mut self, queued: usize, held: bool) {
        if let Some(mut answer) = self.current.take() {
            answer.read = Instant::now();
            answer.held = held;
            answer.queued = queued;
            self.leaving.push_back(answer);
        }
    }

    /// So much has left.
    pub(super) fn flushed(&mut self, bytes: usize) {
        if self.leaving.is_empty() {
            return;
        }
        for answer in &mut self.leaving {
            answer.queued = answer.queued.saturating_sub(bytes);
        }
        while let Some(answer) = self.leaving.pop_front_if(|answer| answer.queued == 0) {
            let Answer {
                topic,
                traced,
                bytes,
                read,
                held,
                ..
            } = answer;
            write(
                self.arrived,
                topic,
                &traced,
                Ending::Answered { bytes, read, held },
            );
        }
    }

    /// The client is gone.
    pub(super) fn lost(&mut self) {
        let Answering { leaving, current, .. } = self;
        for answer in leaving.drain(..).chain(current.take()) {
            write(self.arrived, answer.topic, &answer.traced, Ending::Lost);
        }
    }
}

/// What did not come to its end is told, too.
impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.lost();
    }
}

/// Tells of the requests that are not answered when the connection ends: those may be the ones that are looked for.
pub(super) fn unanswered(arrived: &Arrived, in_flight: &InFlight) {
    for request in in_flight.traced() {
        if let Some(traced) = &request.trace {
            write(arrived, Topic::of(&request), traced, Ending::Lost);
        }
    }
}

fn write(arrived: &Arrived, topic: Topic, traced: &Traced, end: Ending) {
    let line = Line {
        visit: &arrived.visit,
        api_key: topic.api_key,
        api_version: topic.api_version,
        correlation_id: topic.correlation_id,
        traced,
        end,
    };
    line.write();
}

/// The client id of a request that begins with these bytes; none if it has none, or if it is not there yet.
fn client_id(frame: &[u8]) -> Option<&[u8]> {
    let rest = frame.get(LENGTH_BYTES + REQUEST_HEADER_BYTES_MIN..)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
    rest.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_read_where_it_is_whole_and_nowhere_else() {
        let frame = |length: i16, id: &[u8]| {
            let start = [0; LENGTH_BYTES + REQUEST_HEADER_BYTES_MIN];
            [start.as_slice(), &length.to_be_bytes(), id].concat()
        };
        assert_eq!(client_id(&frame(3, b"abcd")), Some(b"abc".as_slice()));
        assert_eq!(client_id(&frame(0, b"")), Some(b"".as_slice()));
        for (length, id) in [
            (-1, b"abc".as_slice()),
            (4, b"abc"),
            (i16::MIN, b""),
            (i16::MAX, b"x"),
        ] {
            assert_eq!(client_id(&frame(length, id)), None);
        }
        assert_eq!(client_id(b"short"), None);
    }
}
