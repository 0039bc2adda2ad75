//! Places for connections: of the whole process, of one virtual cluster, of one client address.
//!
//! A place is taken before anything is done for a client, and given back when its connection is over, whatever ends it.
//! The process has as many places as its limit of open files allows, less a reserve: each connection takes two sockets, and
//! clients must never take the descriptors that the write-ahead buffer, the archive and the admin port need.
//!
//! Addresses are counted only where `listen.max_connections_per_address` asks for it, and forgotten with their last
//! connection, so that their number is bounded by that of connections. An IPv6 client has a whole network to choose
//! addresses from: its first 64 bits count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use teeline_config::Listen;

use crate::cluster::to_usize;
use crate::metrics::Refusal;

/// A number of places, which may change while they are taken.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    most: AtomicUsize,
}

impl Places {
    /// So many at most.
    pub(crate) fn new(most: usize) -> Arc<Places> {
        Arc::new(Places {
            taken: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
        })
    }

    /// Changes how many there are. Who is in stays.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn take(self: &Arc<Places>) -> Option<OnePlace> {
        let most = self.most.load(Ordering::Relaxed);
        let next = |taken: usize| taken.checked_add(1).filter(|taken| *taken <= most);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok()?;
        Some(OnePlace(Arc::clone(self)))
    }
}

/// How many connections a process may have that may open so many files, or as many as it likes, and has so many listeners.
pub(crate) fn most_for_open_files(limit: Option<u64>, listeners: usize) -> usize {
    limit.map_or(usize::MAX, |limit| {
        let limit = to_usize(limit);
        let reserve = OPEN_FILES_RESERVE.saturating_add(listeners).min(limit / 2);
        limit.saturating_sub(reserve) / OPEN_FILES_PER_CONNECTION
    })
}

#[derive(Debug)]
struct OnePlace(Arc<Places>);

impl Drop for OnePlace {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who may come to a virtual cluster.
#[derive(Debug)]
pub(crate) struct Guests {
    process: Arc<Places>,
    cluster: Arc<Places>,
    /// At most so many of one address; 0 for any number.
    of_one_most: AtomicUsize,
    of_one: Mutex<HashMap<IpAddr, usize>>,
}

/// A client's place; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _process: OnePlace,
    _cluster: OnePlace,
    address: Option<CountedAddress>,
}

#[derive(Debug)]
struct CountedAddress {
    guests: Arc<Guests>,
    address: IpAddr,
}

impl Guests {
    /// So many at once of the process's places, and of one address.
    pub(crate) fn new(process: Arc<Places>, listen: &Listen) -> Arc<Guests> {
        let guests = Guests {
            process,
            cluster: Places::new(0),
            of_one_most: AtomicUsize::new(0),
            of_one: Mutex::default(),
        };
        guests.set_most(listen);
        Arc::new(guests)
    }

    /// Changes the numbers. Who is in stays.
    pub(crate) fn set_most(&self, listen: &Listen) {
        self.cluster.set_most(listen.max_connections as usize);
        let of_one = listen.max_connections_per_address as usize;
        self.of_one_most.store(of_one, Ordering::Relaxed);
    }

    /// A place for somebody whose address is not known yet.
    pub(crate) fn enter(&self) -> Result<Place, Refusal> {
        let cluster = self.cluster.take().ok_or(Refusal::Limit)?;
        let process = self.process.take().ok_or(Refusal::ProcessLimit)?;
        Ok(Place {
            _process: process,
            _cluster: cluster,
            address: None,
        })
    }

    /// Counts the holder of a place under the address it turned out to have.
    pub(crate) fn count(self: &Arc<Guests>, place: &mut Place, address: IpAddr) -> Result<(), Refusal> {
        let most = self.of_one_most.load(Ordering::Relaxed);
        if most == 0 {
            return Ok(());
        }
        let address = network_of(address);
        // One that was counted before makes room first.
        place.address = None;
        let mut of_one = self.lock();
        let count = of_one.entry(address).or_insert(0);
        if *count >= most {
            return Err(Refusal::AddressLimit);
        }
        *count = count.saturating_add(1);
        drop(of_one);
        let guests = Arc::clone(self);
        place.address = Some(CountedAddress { guests, address });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Every change is a single step, so a poisoned lock still guards a sound map.
        self.of_one.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CountedAddress {
    fn drop(&mut self) {
        let mut of_one = self.guests.lock();
        if let Some(count) = of_one.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_one.remove(&self.address);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            std::net::Ipv6Addr::from_bits(network).into()
        }
    }
}

/// To the client, and to the broker.
const OPEN_FILES_PER_CONNECTION: usize = 2;
/// Files of the buffer and of segments, connections of the segmenter and the poller, the admin port and the logs, with
/// room to spare.
const OPEN_FILES_RESERVE: usize = 400;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn listen(max_connections: u32, max_connections_per_address: u32) -> Listen {
        Listen {
            max_connections,
            max_connections_per_address,
            ..Listen::default()
        }
    }

    #[test]
    fn places_are_taken_up_to_the_limit_and_given_back() {
        let guests = Guests::new(Places::new(3), &listen(2, 0));
        let (one, two) = (guests.enter().unwrap(), guests.enter().unwrap());
        assert_eq!(guests.enter().unwrap_err(), Refusal::Limit);
        drop(one);
        let three = guests.enter().unwrap();
        guests.set_most(&listen(10, 0));
        let four = guests.enter().unwrap();
        assert_eq!(guests.enter().unwrap_err(), Refusal::ProcessLimit);
        guests.set_most(&listen(1, 0));
        drop((two, three));
        assert_eq!(guests.enter().unwrap_err(), Refusal::Limit, "who is in counts");
        drop(four);
        assert!(guests.enter().is_ok());
        assert_eq!(guests.process.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_cannot_take_all_places_and_leaves_no_trace() {
        let guests = Guests::new(Places::new(100), &listen(100, 2));
        let enter = |from: &str| {
            let mut place = guests.enter().unwrap();
            guests.count(&mut place, address(from)).map(|()| place)
        };
        let held: Vec<Place> = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "192.0.2.2",
            "2001:db8::1",
            "2001:db8::2:1",
        ]
        .map(|from| enter(from).unwrap())
        .into();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Refusal::AddressLimit);
        assert_eq!(enter("2001:db8::3").unwrap_err(), Refusal::AddressLimit);
        assert!(enter("2001:db8:0:1::3").is_ok());
        assert_eq!(guests.cluster.taken.load(Ordering::Relaxed), held.len());
        drop(held);
        assert!(guests.lock().is_empty());
    }

    #[test]
    fn a_balancers_client_is_counted_in_the_place_of_the_balancer() {
        let guests = Guests::new(Places::new(100), &listen(100, 1));
        let mut place = guests.enter().unwrap();
        guests.count(&mut place, address("10.0.0.1")).unwrap();
        guests.count(&mut place, address("192.0.2.1")).unwrap();
        let mut other = guests.enter().unwrap();
        guests.count(&mut other, address("10.0.0.1")).unwrap();
        assert!(guests.count(&mut other, address("192.0.2.1")).is_err());
    }

    #[test]
    fn clients_never_take_the_last_descriptors() {
        assert_eq!(most_for_open_files(Some(20_000), 100), 9_750);
        assert_eq!(most_for_open_files(Some(100), 100), 25);
        assert_eq!(most_for_open_files(None, 100), usize::MAX);
    }
}
