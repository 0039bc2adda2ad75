//! What was asked on a connection and not yet answered. A broker answers one connection's requests in order, so this
//! is a queue; each answer must carry the correlation id at its head.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use teeline_archive::ids::{BufferPosition, Lsn};
use teeline_wire::apis;
use teeline_wire::end_txn::EndTxnRequest;
use teeline_wire::produce::TopicRef;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::observe::Traced;

/// A request whose answer is awaited.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) api_key: i16,
    pub(crate) api_version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) expect: Expect,
    /// What is noted of it, if somebody wants to see it.
    pub(crate) trace: Option<Box<Traced>>,
}

impl Request {
    /// Its answer is here, or begins to be.
    pub(crate) fn answering(&mut self) {
        if let Some(traced) = &mut self.trace {
            traced.answering.get_or_insert_with(std::time::Instant::now);
        }
    }
}

/// What to do with the answer.
#[derive(Debug)]
pub(crate) enum Expect {
    /// Pass it on unread.
    Pass,
    /// Put the proxy's addresses in the place of the brokers'.
    Addresses,
    /// The same for Metadata, which also tells topic names and ids.
    Metadata {
        /// What the write-ahead buffer had given out when the cluster was asked.
        asked_after: Option<BufferPosition>,
    },
    /// Narrow the versions it offers.
    ApiVersions,
    /// Note what became of each batch.
    Produce(Box<Captured>),
    /// Note the transaction's end if it succeeded.
    EndTxn(Box<EndTxnRequest>),
    /// See whether the mechanism is accepted.
    SaslHandshake,
    /// See whether authentication is done.
    SaslAuthenticate,
    /// A token without Kafka header, of the old SASL exchange.
    SaslToken,
    /// The proxy's own answer, a whole frame: the request was not forwarded.
    Local(Bytes),
}

/// The batches of one Produce request that went into the write-ahead buffer; empty when none did.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) intents: Vec<CapturedBatch>,
    /// The last intent: the answer is held until it is durable.
    pub(crate) position: Option<BufferPosition>,
    pub(crate) sent_at: Instant,
}

/// One batch in the write-ahead buffer.
#[derive(Debug)]
pub(crate) struct CapturedBatch {
    pub(crate) topic: TopicRef,
    pub(crate) partition: i32,
    pub(crate) lsn: Lsn,
}

impl Captured {
    /// Of a request from which nothing was captured.
    pub(crate) fn none() -> Captured {
        Captured {
            intents: Vec::new(),
            position: None,
            sent_at: Instant::now(),
        }
    }

    /// Finds the intent that an outcome is about. Answers mostly keep the order of requests: `hint`, the place after
    /// the last one found, is tried first.
    pub(crate) fn find(&self, topic: &TopicRef, partition: i32, hint: &mut usize) -> Option<Lsn> {
        let matches = |batch: &&CapturedBatch| batch.partition == partition && batch.topic == *topic;
        if let Some(batch) = self.intents.get(*hint).filter(matches) {
            *hint = hint.saturating_add(1);
            return Some(batch.lsn);
        }
        let at = self.intents.iter().position(|batch| matches(&batch))?;
        *hint = at.saturating_add(1);
        self.intents.get(at).map(|batch| batch.lsn)
    }
}

/// The queue, shared by the two directions of a connection.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    state: Mutex<State>,
    /// The responses' side waits here for answers of our own, the requests' side for room.
    pub(crate) answered: Notify,
    pub(crate) asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    /// How many of them matter to capture.
    captured: usize,
}

impl InFlight {
    /// Adds a request behind the others. Before it is forwarded, or its answer might come first.
    pub(crate) fn push(&self, request: Request) {
        let local = matches!(request.expect, Expect::Local(_));
        let mut state = self.lock();
        state.captured = state
            .captured
            .saturating_add(usize::from(matters(&request.expect)));
        state.requests.push_back(request);
        drop(state);
        if local {
            self.asked.notify_one();
        }
    }

    /// Takes the head, whatever it is.
    pub(crate) fn pop(&self) -> Option<Request> {
        let mut state = self.lock();
        let request = state.requests.pop_front()?;
        state.captured = state
            .captured
            .saturating_sub(usize::from(matters(&request.expect)));
        let had_no_room = state.requests.len().saturating_add(1) >= REQUESTS_MAX;
        if state.requests.is_empty() && state.requests.capacity() > REQUESTS_KEPT {
            // It was long once; most connections are idle afterwards.
            state.requests = VecDeque::new();
        }
        drop(state);
        if had_no_room {
            self.answered.notify_one();
        }
        Some(request)
    }

    /// Looks at the head.
    pub(crate) fn with_head<T>(&self, look: impl FnOnce(&Request) -> T) -> Option<T> {
        self.lock().requests.front().map(look)
    }

    /// Looks at the head of which the answer arrives.
    pub(crate) fn with_answered_head<T>(&self, look: impl FnOnce(&Request) -> T) -> Option<T> {
        self.lock().requests.front_mut().map(|request| {
            request.answering();
            look(request)
        })
    }

    /// What was noted is with the broker, except for the last request if there is more of it to come.
    pub(crate) fn forwarded(&self, now: std::time::Instant, more_to_come: bool) {
        let mut state = self.lock();
        for request in state.requests.iter_mut().rev().skip(usize::from(more_to_come)) {
            if let Some(traced) = &mut request.trace {
                traced.forwarded.get_or_insert(now);
            }
        }
    }

    /// True while another request may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().requests.len() < REQUESTS_MAX
    }

    /// Requests not yet answered.
    pub(crate) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// Whether the client waits for an answer that does not take its time by design.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.has_any(|api_key| !apis::polls_long(api_key) && !apis::waits_for_a_group(api_key))
    }

    /// Whether such a request is not yet answered.
    pub(crate) fn has_any(&self, wanted: impl Fn(i16) -> bool) -> bool {
        self.lock().requests.iter().any(|request| wanted(request.api_key))
    }

    /// Those that somebody wanted to see and that will not be answered.
    pub(crate) fn traced(&self) -> Vec<Request> {
        let mut state = self.lock();
        let left = std::mem::take(&mut state.requests);
        drop(state);
        left.into_iter()
            .filter(|request| request.trace.is_some())
            .collect()
    }

    /// Requests not yet answered whose answers matter to capture.
    pub(crate) fn captured(&self) -> usize {
        self.lock().captured
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Both fields change together under the lock and nothing in between can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn matters(expect: &Expect) -> bool {
    match expect {
        Expect::Produce(captured) => captured.position.is_some(),
        Expect::EndTxn(_) => true,
        _ => false,
    }
}

/// Far more than any client pipelines (5 by default), little memory if one tries.
const REQUESTS_MAX: usize = 1024;
/// Places that an empty queue keeps.
const REQUESTS_KEPT: usize = 32;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(expect: Expect) -> Request {
        Request {
            api_key: 0,
            api_version: 0,
            correlation_id: 0,
            expect,
            trace: None,
        }
    }

    #[test]
    fn what_matters_to_capture_is_counted() {
        let in_flight = InFlight::default();
        let position = Some(BufferPosition::default());
        let sent_at = Instant::now();
        in_flight.push(request(Expect::Pass));
        in_flight.push(request(Expect::Produce(Box::new(Captured {
            intents: Vec::new(),
            position,
            sent_at,
        }))));
        let position = None;
        in_flight.push(request(Expect::Produce(Box::new(Captured {
            intents: Vec::new(),
            position,
            sent_at,
        }))));
        assert_eq!((in_flight.len(), in_flight.captured()), (3, 1));
        in_flight.pop();
        in_flight.pop();
        assert_eq!((in_flight.len(), in_flight.captured()), (1, 0));
    }

    #[test]
    fn outcomes_find_their_intents_in_any_order() {
        let name = |number: u64| TopicRef::Name(format!("t{number}").into());
        let intents = (0..10)
            .map(|n| CapturedBatch {
                topic: name(n),
                partition: 0,
                lsn: Lsn(n),
            })
            .collect();
        let captured = Captured {
            intents,
            position: None,
            sent_at: Instant::now(),
        };
        let mut hint = 0;
        for number in [0, 1, 2, 9, 3, 4, 0, 9] {
            assert_eq!(captured.find(&name(number), 0, &mut hint), Some(Lsn(number)));
        }
        assert_eq!(captured.find(&name(0), 1, &mut hint), None);
    }
}
