//! Who is there and what goes on: the open connections of the process, traces of requests, and the access log.
//!
//! Everything in here is asked for by a person, on the admin port or in the configuration. While nobody asks, a connection
//! pays one relaxed load per wake-up: whether the wishes have changed since it looked.

mod access;
mod orders;
mod routes;
mod subject;
mod traced;
mod visits;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use teeline_config::AccessLog;

use crate::quiet::Quiet;

pub(crate) use access::{Farewell, TurnedAway};
pub(crate) use orders::{Filter, Order};
pub(crate) use routes::routes;
pub(crate) use subject::subject;
pub(crate) use traced::{Ending, Line, Traced};
pub(crate) use visits::{Arrived, Visit, Visitor, add, shown};

/// What can be seen of a process and its connections. One for all clusters.
#[derive(Debug)]
pub(crate) struct Observatory {
    visits: Mutex<BTreeMap<u64, Arc<Visit>>>,
    orders: Mutex<Vec<Arc<Order>>>,
    /// Counts changes of what is wished for.
    generation: AtomicU32,
    access: AtomicU8,
    next_connection: AtomicU64,
    next_order: AtomicU64,
    /// Lines of the access log about those who were turned away.
    refusals: Quiet,
}

/// What a connection is to tell about its requests.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// Orders that may concern it.
    pub(crate) orders: Vec<Arc<Order>>,
    /// Every request stands in the access log.
    pub(crate) access: bool,
}

impl Observatory {
    /// Nobody is there.
    pub(crate) fn new(access: AccessLog) -> Arc<Observatory> {
        Arc::new(Observatory {
            visits: Mutex::default(),
            orders: Mutex::default(),
            generation: AtomicU32::new(1),
            access: AtomicU8::new(code(access)),
            next_connection: AtomicU64::new(1),
            next_order: AtomicU64::new(1),
            refusals: Quiet::default(),
        })
    }

    /// A number for a connection, unique within the process.
    pub(crate) fn next_connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Changes with every change of [`Observatory::wishes`].
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// A connection begins. It is open until what is returned is dropped.
    pub(crate) fn arrives(self: &Arc<Self>, visit: Visit) -> Arrived {
        let visit = Arc::new(visit);
        self.visits().insert(visit.id, Arc::clone(&visit));
        Arrived {
            visit,
            observatory: Arc::clone(self),
        }
    }

    /// Open connections in order of their numbers: at most so many of those wanted, and how many those are.
    pub(crate) fn open(&self, most: usize, wanted: impl Fn(&Visit) -> bool) -> (Vec<Arc<Visit>>, usize) {
        let visits = self.visits();
        let wanted = visits.values().filter(|visit| wanted(visit));
        let mut count = 0_usize;
        let mut shown = Vec::new();
        for visit in wanted {
            count = count.saturating_add(1);
            if shown.len() < most {
                shown.push(Arc::clone(visit));
            }
        }
        (shown, count)
    }

    /// What a connection is to tell.
    pub(crate) fn wishes(&self, visit: &Visit) -> Wishes {
        let orders = self.orders();
        let orders = orders.iter().filter(|order| order.filter.concerns(visit));
        Wishes {
            orders: orders.cloned().collect(),
            access: self.access() == AccessLog::Requests,
        }
    }

    /// How much the access log tells.
    pub(crate) fn access(&self) -> AccessLog {
        match self.access.load(Ordering::Relaxed) {
            0 => AccessLog::Off,
            1 => AccessLog::Connections,
            _ => AccessLog::Requests,
        }
    }

    /// Changes that, for open connections as well.
    pub(crate) fn set_access(&self, access: AccessLog) {
        let former = self.access.swap(code(access), Ordering::Relaxed);
        if former != code(access) {
            self.changed();
            tracing::info!(access_log = access.as_str(), "access log switched");
        }
    }

    /// Begins a trace; none when there are too many.
    pub(crate) fn order(&self, filter: Filter, requests: u64, seconds: u64) -> Option<Arc<Order>> {
        let mut orders = self.orders();
        orders.retain(|order| !order.is_over());
        if orders.len() >= ORDERS_MAX {
            return None;
        }
        let id = self.next_order.fetch_add(1, Ordering::Relaxed);
        let order = Arc::new(Order::new(id, filter, requests, seconds));
        orders.push(Arc::clone(&order));
        drop(orders);
        self.changed();
        Some(order)
    }

    /// Ends traces: those wanted. Says how many there were.
    pub(crate) fn end_orders(&self, wanted: impl Fn(&Order) -> bool) -> usize {
        let mut orders = self.orders();
        let before = orders.len();
        orders.retain(|order| !wanted(order));
        let ended = before.saturating_sub(orders.len());
        drop(orders);
        if ended > 0 {
            self.changed();
        }
        ended
    }

    /// Traces that go on.
    pub(crate) fn standing_orders(&self) -> Vec<Arc<Order>> {
        self.end_orders(Order::is_over);
        self.orders().clone()
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn visits(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Visit>>> {
        // A map of shared values: nothing can be half-changed.
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Arc<Order>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn code(access: AccessLog) -> u8 {
    match access {
        AccessLog::Off => 0,
        AccessLog::Connections => 1,
        AccessLog::Requests => 2,
    }
}

/// A few people who look for different things at the same time.
const ORDERS_MAX: usize = 16;

#[cfg(test)]
#[path = "observe/tests.rs"]
mod tests;
