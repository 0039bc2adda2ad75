//! The threads that sessions run on. Each lane is a thread with a runtime of its own, and a session stays on one lane from its
//! first byte to its last.
//!
//! A runtime that shares its tasks out among threads wakes another thread whenever one has found something to do; at the
//! pace of a broker there is nothing left for it to take, and the waking costs as much as passing a request on
//! (docs/adr/0010). A session costs its lane little at a time, so that counting them is enough to spread them.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// All lanes of the process. The threads end when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    lanes: Arc<[Lane]>,
    /// Looked at first for the next session, so that equal ones take turns.
    next: Arc<AtomicUsize>,
    /// Dropped with the last clone.
    _open: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
struct Lane {
    handle: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Lanes {
    /// Starts so many threads, or one for each core.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be started.
    pub(crate) fn start(count: Option<usize>) -> io::Result<Lanes> {
        let count = match count {
            Some(count) => count.max(1),
            None => thread::available_parallelism()?.get(),
        };
        let (open, ends) = watch::channel(());
        let lanes: io::Result<Arc<[Lane]>> = (0..count)
            .map(|number| Lane::start(number, ends.clone()))
            .collect();
        Ok(Lanes {
            lanes: lanes?,
            next: Arc::default(),
            _open: Arc::new(open),
        })
    }

    /// Runs a session with its client on the lane that has the fewest. The task belongs to `sessions`, which may be waited for
    /// anywhere.
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
        let Some(lane) = self.quietest() else {
            return Err(io::Error::other("there is no thread for sessions"));
        };
        let client = client.into_std()?;
        let place = Place::take(&lane.sessions);
        let task = async move {
            let _place = place;
            match TcpStream::from_std(client) {
                Ok(client) => session(client).await,
                Err(error) => tracing::warn!("a connection is lost, it cannot be watched: {error}"),
            }
        };
        sessions.spawn_on(task, &lane.handle);
        Ok(())
    }

    fn quietest(&self) -> Option<&Lane> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let (before, after) = self.lanes.split_at(first);
        let in_turn = after.iter().chain(before);
        in_turn.min_by_key(|lane| lane.sessions.load(Ordering::Relaxed))
    }
}

impl Lane {
    fn start(number: usize, mut ends: watch::Receiver<()>) -> io::Result<Lane> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
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
        let lanes = Lanes::start(Some(3)).unwrap();
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
            lanes.run(&mut sessions, far, session).unwrap();
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
            lanes.run(&mut sessions, far, |_| std::future::pending()).unwrap();
            clients.push(near);
        }
        assert_eq!(counts(&lanes), [3, 3, 3]);
    }

    #[tokio::test]
    async fn a_session_that_panics_or_is_aborted_gives_its_place_back() {
        let lanes = Lanes::start(Some(1)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sessions = JoinSet::new();
        let (_near, far) = pair(&listener).await;
        let panics = async |_| panic!("a session that panics");
        lanes.run(&mut sessions, far, panics).unwrap();
        assert!(sessions.join_next().await.unwrap().unwrap_err().is_panic());
        let (_near, far) = pair(&listener).await;
        lanes.run(&mut sessions, far, |_| std::future::pending()).unwrap();
        sessions.shutdown().await;
        assert_eq!(counts(&lanes), [0]);
    }

    #[tokio::test]
    async fn threads_end_with_the_last_clone() {
        let lanes = Lanes::start(Some(2)).unwrap();
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
