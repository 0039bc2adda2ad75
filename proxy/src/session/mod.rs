//! One client connection and its one upstream connection.
//!
//! Both directions run in one task: [`requests`] from client to broker, [`responses`] back. They share what is in flight,
//! the state of authentication and a few marks. The task ends when both directions have: see [`drive`] for each cause.
//!
//! **What bounds the memory of a connection**: two read buffers (at most 16 KiB each, none while idle; up to 256 KiB while
//! the process lends it); requests and answers that have to be read whole (Produce where it is captured, mostly), counted
//! against the connection's and the process's budgets from before they are read until broker and disk, or the client, have
//! them ([`crate::budget`]); at most 16 KiB of answers waiting for the disk, or 32 KiB while it is lent; 1024 requests noted
//! as unanswered. Who holds any of it without going on is closed: [`watch`].

mod answers;
#[cfg(test)]
mod capture_tests;
mod ending;
mod head;
pub(crate) mod in_flight;
pub(crate) mod intake;
mod meter;
mod observer;
pub(crate) mod outbox;
mod requests;
mod responses;
mod responses_end;
pub(crate) mod sasl;
#[cfg(test)]
mod slow_disk_tests;
#[cfg(test)]
mod steady_tests;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use teeline_wire::apis;
use tokio::time::Instant;

use crate::budget::Budgets;
use crate::cluster::{Cluster, Footing, Live};
use crate::metrics::Closed;
use crate::observe::{Arrived, Visit, Visitor, subject};
use crate::stop::Stop;
use crate::stream::Stream;
use crate::upstream::Connected;
use ending::{End, Leave};
use in_flight::InFlight;
use requests::{Requests, RequestsEnd};
use responses::Responses;
use responses_end::ResponsesEnd;
use sasl::Authentication;
use watch::{Finding, Pulse};

/// What a peer sent that cannot be dealt with: closes this one connection.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) closed: Closed,
    pub(crate) text: String,
    /// Of which API it was, if that is known.
    pub(crate) api_key: Option<i16>,
}

impl Refused {
    pub(crate) fn new(closed: Closed, text: String) -> Refused {
        Refused {
            closed,
            text,
            api_key: None,
        }
    }

    /// What it was about.
    pub(crate) fn of(self, api_key: i16) -> Refused {
        Refused {
            api_key: Some(api_key),
            ..self
        }
    }
}

/// What the two directions of a connection share. Both run in one task: the atomics only satisfy the compiler.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    /// The configuration when it began.
    pub(crate) live: Arc<Live>,
    /// Ends it from outside.
    pub(crate) stop: Stop,
    pub(crate) connection_id: u64,
    /// For others to see.
    pub(crate) arrived: Arrived,
    /// The broker behind it; `None` where any may be.
    pub(crate) node_id: Option<i32>,
    pub(crate) in_flight: InFlight,
    pub(crate) authentication: Authentication,
    /// Captured batches without a settled outcome.
    pub(crate) unresolved: AtomicU64,
    /// The proxy is stopping: no further request is taken.
    pub(crate) draining: AtomicBool,
    /// The request loop waits for bytes, with nothing half forwarded.
    pub(crate) resting: AtomicBool,
    /// An outcome could not be recorded: only the end of the connection makes its batches known as unresolved.
    pub(crate) untracked: AtomicBool,
    /// An answer that belongs to a capture is being noted, or waits for the disk: it is not in flight any more, and the client
    /// does not have it.
    pub(crate) holding: AtomicBool,
    /// No more requests will come.
    pub(crate) ended: AtomicBool,
    /// What it may hold in memory.
    pub(crate) budgets: Budgets,
    /// For the watch to see.
    pub(crate) pulse: Pulse,
}

impl Shared {
    pub(crate) fn new(footing: Footing, arrived: Arrived) -> Shared {
        let Footing { cluster, live, stop } = footing;
        let node_id = arrived.visit.visitor.node_id;
        let budgets = cluster.budgets(&live, node_id);
        Shared {
            cluster,
            live,
            stop,
            connection_id: arrived.visit.id,
            arrived,
            node_id,
            in_flight: InFlight::default(),
            authentication: Authentication::default(),
            unresolved: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            untracked: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            budgets,
            pulse: Pulse::default(),
        }
    }

    /// Whether the brokers are still reached as this connection reached its own. After a reload that changed it, what its
    /// broker says of others is not where connections are to lead.
    pub(crate) fn is_current(&self) -> bool {
        Arc::ptr_eq(&self.live.upstream, &self.cluster.live.load().upstream)
    }

    pub(crate) fn settled(&self, batches: u64) {
        self.unresolved.fetch_sub(batches, Ordering::Relaxed);
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.in_flight.asked.notify_one();
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    footing: Footing,
    connection_id: u64,
    node_id: Option<i32>,
    peer: SocketAddr,
    mut client: Stream,
    upstream: Connected,
) {
    let cluster = Arc::clone(&footing.cluster);
    let visitor = Visitor {
        cluster: cluster.name.as_str().into(),
        peer,
        node_id,
        tls: matches!(client, Stream::Tls(_)),
        subject: client.certificate().and_then(|certificate| subject(&certificate)),
    };
    let visit = Visit::new(connection_id, visitor);
    let shared = Shared::new(footing, cluster.observatory.arrives(visit));
    let Connected {
        stream: mut upstream,
        lifetime,
        own: _own,
    } = upstream;
    if shared.live.upstream.speaks_for_clients() {
        shared.authentication.given();
    }
    let end = drive(&shared, &mut client, &mut upstream, lifetime).await;
    // Before anything else: what the broker has not answered by now, only its log can tell.
    let unresolved = shared.unresolved.load(Ordering::Relaxed);
    if let (true, Some(capture)) = (unresolved > 0, &cluster.capture) {
        capture.connection_lost(connection_id, unresolved).await;
    }
    let served = shared.arrived.visit.is_served();
    let leave = async {
        match end.leave(served) {
            Leave::Orderly => client.close().await,
            Leave::Patient => client.see_off().await,
            Leave::Reset => client.reset(),
        }
    };
    tokio::join!(upstream.close(), leave);
    ending::report(&shared, peer, &end, unresolved);
}

/// Runs both directions. Who stops first, and what is finished before:
///
/// * *The client hangs up, or sends what cannot be forwarded*: its side stops. The broker's side goes on until captured
///   requests are answered ([`LINGER`] at most), since the answers carry the offsets; others get [`LINGER_UNCAPTURED`].
/// * *The broker closes, or sends what must not be passed on*: both stop. Answers already received are let out first.
/// * *The proxy stops*: the client's side stops between two requests. Who waits for the answer to anything but a long poll gets
///   it, up to the deadline, when both stop; the others have as much time as if they had hung up.
/// * *The broker limits the session of a proxy that speaks for its clients*: as when the proxy stops, but this connection
///   alone, and in time.
/// * *The connection is as old as `listen.connection_max_age` allows*: the same, in a moment when nothing is in flight if
///   there is one, and else with more time for the answers, as nobody waits for the end of it.
/// * *Idle, or a frame that does not become complete*: both stop.
async fn drive(
    shared: &Shared,
    client: &mut Stream,
    upstream: &mut Stream,
    lifetime: Option<Duration>,
) -> End {
    let (mut client_read, mut client_write) = client.split();
    let (mut upstream_read, mut upstream_write) = upstream.split();
    let mut requests = Requests::new(shared);
    let mut responses = Responses::new(shared);
    let mut asking = pin!(requests.run(&mut client_read, &mut upstream_write));
    let mut answering = pin!(responses.run(&mut upstream_read, &mut client_write));
    let mut control = control(shared, lifetime);
    let mut asked: Option<(RequestsEnd, Instant)> = None;
    let mut deadline = Instant::now();
    let mut patience = LINGER_UNCAPTURED;
    let mut moved = 0;
    loop {
        tokio::select! {
            end = &mut answering => return match (end, asked) {
                (ResponsesEnd::Drained | ResponsesEnd::UpstreamClosed, Some((asked, _))) => End::Client(asked),
                // Whatever the broker did then, the client's mistake came first.
                (_, Some((asked @ RequestsEnd::Refused(_), _))) => End::Client(asked),
                (end, _) => End::Upstream(end),
            },
            end = &mut asking, if asked.is_none() => asked = Some((end, Instant::now())),
            Some(control) = control.next() => match control {
                Control::Cut => return End::Cut,
                Control::Close(finding) => return End::Closed(finding),
                drain @ (Control::Drain | Control::Aged) => {
                    // Whichever comes second: a process that stops has no time.
                    patience = match drain {
                        Control::Aged if !shared.stop.drain.is_triggered() => LINGER,
                        _ => LINGER_UNCAPTURED,
                    };
                    shared.draining.store(true, Ordering::Relaxed);
                    if asked.is_some() || !shared.resting.load(Ordering::Relaxed) {
                        continue;
                    }
                    asked = Some((RequestsEnd::Draining, Instant::now()));
                }
            },
            () = tokio::time::sleep_until(deadline), if asked.is_some() => match asked.take() {
                Some((end, since)) if shared.in_flight.captured() > 0 && since.elapsed() < LINGER => {
                    asked = Some((end, since));
                }
                // The client is there and waits: without this answer it may send the same again.
                Some((end @ RequestsEnd::Draining, since))
                    if (shared.in_flight.is_waited_for() || shared.holding.load(Ordering::Relaxed))
                        && (shared.stop.drain.is_triggered() || since.elapsed() < LINGER) =>
                {
                    asked = Some((end, since));
                }
                // A client that only ended its own side still reads, and what is being answered comes to its end.
                Some((end, since)) if shared.pulse.movement() != moved => asked = Some((end, since)),
                Some((end, _)) => return End::Client(end),
                None => {}
            },
        }
        if asked.is_some() && !shared.ended.load(Ordering::Relaxed) {
            // Nothing more is read of the client: what it does not send is not its fault.
            shared.pulse.client_ended();
            shared.end();
        }
        deadline = Instant::now() + patience;
        moved = shared.pulse.movement();
    }
}

/// What may happen to a connection from outside.
enum Control {
    /// Take no further requests.
    Drain,
    /// The same for this connection alone, and without haste.
    Aged,
    /// Stop at once.
    Cut,
    /// Nothing moves, or not as it should.
    Close(Finding),
}

/// Unlike branches of a `select!`, these are polled only when they are woken: requests do not pay for them.
fn control<'a>(
    shared: &'a Shared,
    lifetime: Option<Duration>,
) -> FuturesUnordered<Pin<Box<dyn Future<Output = Control> + Send + 'a>>> {
    let control = FuturesUnordered::<Pin<Box<dyn Future<Output = Control> + Send + 'a>>>::new();
    control.push(Box::pin(async {
        shared.stop.drain.triggered().await;
        Control::Drain
    }));
    if let Some(lifetime) = lifetime {
        let usable = lifetime.mul_f64(LIFETIME_USED).saturating_sub(LINGER_UNCAPTURED);
        // A session of seconds has hardly any time to lose.
        let usable = usable.max(lifetime / 2);
        control.push(Box::pin(async move {
            tokio::time::sleep(usable).await;
            Control::Drain
        }));
    }
    if let Some(age) = shared.live.connection_age {
        let age = age.of(shared.connection_id);
        control.push(Box::pin(async move {
            tokio::time::sleep(age).await;
            quiet_moment(shared).await;
            Control::Aged
        }));
    }
    control.push(Box::pin(async {
        shared.stop.cut.triggered().await;
        Control::Cut
    }));
    control.push(Box::pin(async { Control::Close(watch::watch(shared).await) }));
    control
}

/// Waits for a moment in which nothing is in flight. A client that always asks has none, and is not waited for; but one that
/// joins a group is, since a rebalance that it leaves begins again for all.
async fn quiet_moment(shared: &Shared) {
    let until = Instant::now() + QUIET_LOOK_EVERY * QUIET_LOOKS;
    while Instant::now() < until {
        if shared.in_flight.len() == 0 && shared.resting.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(QUIET_LOOK_EVERY).await;
    }
    for _ in 0..JOIN_LOOKS {
        if !shared.in_flight.has_any(apis::waits_for_a_group) {
            return;
        }
        tokio::time::sleep(JOIN_LOOK_EVERY).await;
    }
}

/// How long answers to captured requests are awaited after the client is gone: the producers' request timeout.
const LINGER: Duration = Duration::from_secs(30);
/// The same for answers that nobody needs once the client is gone; a half-closed client may still read them.
const LINGER_UNCAPTURED: Duration = Duration::from_secs(2);
/// Of a session that the broker limits: it ends in time for the client to go on elsewhere.
const LIFETIME_USED: f64 = 0.9;
/// A connection that became too old has two seconds for a moment without requests.
const QUIET_LOOKS: u32 = 100;
const QUIET_LOOK_EVERY: Duration = Duration::from_millis(20);
/// A rebalance takes as long as its slowest member: five minutes, by default, and nobody waits for an old connection to end.
const JOIN_LOOKS: u32 = 1200;
const JOIN_LOOK_EVERY: Duration = Duration::from_millis(250);
