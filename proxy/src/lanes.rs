//! The threads that sessions run on. Each lane is a thread with a runtime of its own, and a session stays on one lane from its
//! first byte to its last.
//!
//! A runtime that shares its tasks out among threads wakes another thread whenever one has found something to do; at the
//! pace of a broker there is nothing left for it to take, and the waking costs as much as passing a request on
//! (docs/adr/0010). A session costs its lane little at a time, so that counting them is enough to spread them.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// All lanes of the process. The threads end when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    lanes: Arc<[Lane]>,
    /// Dropped with the last clone.
    _open: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    sessions: Arc<AtomicUsize>,
}

/// How many lanes there are where so many are configured: one for each core where nothing is.
pub(crate) fn count(configured: Option<usize>) -> usize {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    configured.unwrap_or_else(cores).max(1)
}

/// What a lane's runtime keeps open for itself.
pub(crate) const OPEN_FILES_PER_LANE: usize = 4;

impl Lanes {
    /// Starts so many threads.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be started.
    pub(crate) fn start(count: usize) -> io::Result<Lanes> {
        let (open, ends) = watch::channel(());
        let blocking = (BLOCKING_THREADS_MAX / count.max(1)).max(BLOCKING_THREADS_MIN);
        let lanes: io::Result<Arc<[Lane]>> = (0..count)
            .map(|number| Lane::start(number, blocking, ends.clone()))
            .collect();
        Ok(Lanes {
            lanes: lanes?,
            _open: Arc::new(open),
        })
    }

    /// For the sessions of one listener, which are spread by themselves.
    pub(crate) fn spread(&self) -> Spread {
        Spread {
            lanes: self.clone(),
            sessions: self.lanes.iter().map(|_| Arc::default()).collect(),
        }
    }
}

/// Spreads the sessions of one listener over the lanes. Clients connect in patterns (to any broker first, then to each of them),
/// so what matters is that those that lead to the same broker do not meet on one lane, however the others fall.
#[derive(Debug)]
pub(crate) struct Spread {
    lanes: Lanes,
    /// Sessions of this listener, by lane.
    sessions: Vec<Arc<AtomicUsize>>,
}

impl Spread {
    /// Runs a session with its client on the lane that has the fewest of this listener, of those the one with the fewest of
    /// all, and of those any. The task belongs to `sessions`, which may be waited for anywhere.
    ///
    /// # Errors
    /// When the stream cannot be taken off the runtime that accepted it.
    pub(crate) fn run<S, F>(
        &self,
        sessions: &mut JoinSet<()>,
        client: TcpStream,
        session: S,
    ) -> io::Result<()>
    where
        S: FnOnce(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Some((lane, here)) = self.quietest() else {
            return Err(io::Error::other("there is no thread for sessions"));
        };
        let client = client.into_std()?;
        let places = [Place::take(here), Place::take(&lane.sessions)];
        let task = async move {
            let _places = places;
            match TcpStream::from_std(client) {
                Ok(client) => session(client).await,
                Err(error) => tracing::warn!("a connection is lost, it cannot be watched: {error}"),
            }
        };
        sessions.spawn_on(task, &lane.handle);
        Ok(())
    }

    fn quietest(&self) -> Option<(&Lane, &Arc<AtomicUsize>)> {
        // Not in turn: who connects twice each time would always find the same lane with the second.
        let first = RandomState::new().hash_one(()) as usize % self.sessions.len().max(1);
        let all = self.lanes.lanes.iter().zip(&self.sessions);
        let from_first = all.clone().skip(first).chain(all.take(first));
        from_first.min_by_key(|(lane, here)| {
            let of_all = lane.sessions.load(Ordering::Relaxed);
            (here.load(Ordering::Relaxed), of_all)
        })
    }
}

impl Lane {
    fn start(number: usize, blocking: usize, mut ends: watch::Receiver<()>) -> io::Result<Lane> {
        let mut builder = Builder::new_current_thread();
        let builder = builder.enable_io().enable_time();
        let runtime: Runtime = builder.max_blocking_threads(blocking).build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name(format!("session-{number}"))
            .spawn(move || {
                // Nothing is ever sent: it ends with an error when the sender is dropped.
                while runtime.block_on(ends.changed()).is_ok() {}
                // A resolver may still block.
                runtime.shutdown_background();
            })?;
        Ok(Lane {
            handle,
            sessions: Arc::default(),
        })
    }
}

/// A session is counted from when it is given to a lane until it has ended, however it ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(sessions: &Arc<AtomicUsize>) -> Place {
        sessions.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(sessions))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What waits for a resolver or a file, all lanes together: as many as one runtime has.
const BLOCKING_THREADS_MAX: usize = 512;
const BLOCKING_THREADS_MIN: usize = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    async fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn counts(lanes: &Lanes) -> Vec<usize> {
        let counts = lanes
            .lanes
            .iter()
            .map(|lane| lane.sessions.load(Ordering::Relaxed));
        counts.collect()
    }

    #[tokio::test]
    async fn sessions_are_spread_and_each_stays_on_its_thread() {
        let lanes = Lanes::start(3).unwrap();
        let spread = lanes.spread();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (told, mut names) = mpsc::unbounded_channel();
        let (mut sessions, mut clients) = (JoinSet::new(), Vec::new());
        for number in 0..9 {
            let (mut near, far) = pair(&listener).await;
            let told = told.clone();
            let session = async move |mut client: TcpStream| {
                let mut byte = [0];
                while client.read_exact(&mut byte).await.is_ok() {
                    told.send((number, thread::current().name().map(str::to_owned)))
                        .unwrap();
                }
            };
            spread.run(&mut sessions, far, session).unwrap();
            near.write_all(&[0]).await.unwrap();
            clients.push(near);
        }
        assert_eq!(counts(&lanes), [3, 3, 3]);
        for near in &mut clients {
            near.write_all(&[1, 2]).await.unwrap();
        }
        let mut threads: BTreeMap<i32, Vec<Option<String>>> = BTreeMap::new();
        for _ in 0..27 {
            let (number, name) = names.recv().await.unwrap();
            threads.entry(number).or_default().push(name);
        }
        for names in threads.values() {
            assert!(names[0].as_ref().unwrap().starts_with("session-"));
            assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        }
        // Those of one lane leave, and the next ones take their places.
        let leaving = threads.iter().filter(|(_, names)| names[0] == threads[&0][0]);
        let leaving: Vec<usize> = leaving.map(|(number, _)| *number as usize).collect();
        for number in leaving.into_iter().rev() {
            drop(clients.remove(number));
        }
        for _ in 0..3 {
            sessions.join_next().await.unwrap().unwrap();
        }
        for _ in 0..3 {
            let (near, far) = pair(&listener).await;
            spread
                .run(&mut sessions, far, |_| std::future::pending())
                .unwrap();
            clients.push(near);
        }
        assert_eq!(counts(&lanes), [3, 3, 3]);
    }

    #[tokio::test]
    async fn those_of_one_listener_are_spread_whatever_connects_in_between() {
        let lanes = Lanes::start(2).unwrap();
        let (bootstrap, node) = (lanes.spread(), lanes.spread());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut sessions, mut clients) = (JoinSet::new(), Vec::new());
        for _ in 0..8 {
            for spread in [&bootstrap, &node] {
                let (near, far) = pair(&listener).await;
                spread
                    .run(&mut sessions, far, |_| std::future::pending())
                    .unwrap();
                clients.push(near);
            }
        }
        for spread in [&bootstrap, &node] {
            let counts = spread.sessions.iter().map(|here| here.load(Ordering::Relaxed));
            assert_eq!(counts.collect::<Vec<_>>(), [4, 4]);
        }
        assert_eq!(counts(&lanes), [8, 8]);
    }

    #[tokio::test]
    async fn a_session_that_panics_or_is_aborted_gives_its_place_back() {
        let lanes = Lanes::start(1).unwrap();
        let spread = lanes.spread();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sessions = JoinSet::new();
        let (_near, far) = pair(&listener).await;
        let panics = async |_| panic!("a session that panics");
        spread.run(&mut sessions, far, panics).unwrap();
        assert!(sessions.join_next().await.unwrap().unwrap_err().is_panic());
        let (_near, far) = pair(&listener).await;
        spread
            .run(&mut sessions, far, |_| std::future::pending())
            .unwrap();
        sessions.shutdown().await;
        assert_eq!(counts(&lanes), [0]);
    }

    #[tokio::test]
    async fn threads_end_with_the_last_clone() {
        let lanes = Lanes::start(2).unwrap();
        let ends = lanes
            .lanes
            .iter()
            .map(|lane| lane.handle.spawn(std::future::pending::<()>()));
        let ends: Vec<_> = ends.collect();
        drop(lanes.clone());
        assert!(ends.iter().all(|end| !end.is_finished()));
        drop(lanes);
        for end in ends {
            let ended = tokio::time::timeout(Duration::from_secs(10), end).await.unwrap();
            assert!(ended.unwrap_err().is_cancelled());
        }
    }
}
