//! A socket that one acceptor listens on, and that can refuse for a while.
//!
//! Behind a listener of one broker's own, clients are to see what that broker's port shows: when it refuses, so does the
//! listener. Many of them tell a connection refused, after which they ask where the leader is now, from one that opens and
//! ends, after which they try again or give up.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::sockets::BACKLOG;
use crate::tcp::bound_received;
use crate::topology::Topology;

/// An acceptor's own hold of a socket. While it refuses the port stays taken.
pub(crate) struct Listening {
    /// Keeps the socket known as open, and gives it to whoever accepts next.
    socket: Arc<std::net::TcpListener>,
    /// Its registration with the runtime. Once it has refused that is good for nothing any more.
    accepting: Option<TcpListener>,
    /// What the kernel keeps of what comes in at most.
    socket_buffer_bytes: u32,
    /// What it waits for while it refuses.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Listening {
    /// Whoever had it before, and whether or not it refused then. Needs the runtime's context.
    pub(crate) fn on(socket: Arc<std::net::TcpListener>, socket_buffer_bytes: u32) -> io::Result<Listening> {
        bound_received(&SockRef::from(&*socket), socket_buffer_bytes)?;
        let mut listening = Listening {
            socket,
            accepting: None,
            socket_buffer_bytes,
            until: None,
        };
        listening.resume()?;
        Ok(listening)
    }

    /// The next connection. Nothing is lost when it is not waited for to the end.
    pub(crate) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Some(until) = &mut self.until {
            until.await;
            self.until = None;
        }
        loop {
            match &self.accepting {
                None => self.resume()?,
                Some(listener) => match listener.accept().await {
                    // Whoever had the socket before let it refuse in the very last moment.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.accepting = None,
                    accepted => return accepted,
                },
            }
        }
    }

    /// A reload may have changed it since: for the one just accepted, and those to come.
    pub(crate) fn bound_by(&mut self, socket_buffer_bytes: u32, accepted: &TcpStream) {
        if socket_buffer_bytes == self.socket_buffer_bytes {
            return;
        }
        self.socket_buffer_bytes = socket_buffer_bytes;
        for socket in [SockRef::from(&*self.socket), SockRef::from(accepted)] {
            if let Err(error) = bound_received(&socket, socket_buffer_bytes) {
                tracing::debug!("a socket keeps its former bound: {error}");
            }
        }
    }

    pub(crate) fn refuses(&self) -> bool {
        self.until.is_some()
    }

    /// From here on connections are refused, and those that wait to be accepted are reset.
    pub(crate) fn refuse(&mut self, until: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        // Linux takes a socket out of listening by this, and keeps its address; elsewhere it is an error.
        let socket = SockRef::from(&*self.socket);
        socket.shutdown(Shutdown::Read)?;
        // While it does not listen, others that reuse addresses could have the port if it let them.
        socket.set_reuse_address(false)?;
        self.accepting = None;
        self.until = Some(Box::pin(until));
        Ok(())
    }

    fn resume(&mut self) -> io::Result<()> {
        let socket = SockRef::from(&*self.socket);
        // The connections that were accepted from it before have the same address.
        socket.set_reuse_address(true)?;
        // Where it listens already this changes nothing.
        socket.listen(BACKLOG)?;
        self.accepting = Some(TcpListener::from_std(self.socket.try_clone()?)?);
        Ok(())
    }
}

/// Waits until a broker takes connections, wherever it is by then. A broker that is not known takes none.
pub(crate) async fn broker_is_back(node_id: i32, topology: &Topology) {
    let began = Instant::now();
    loop {
        let pause = match began.elapsed() < SOON {
            true => PROBE_EVERY,
            false => PROBE_LATER_EVERY,
        };
        tokio::time::sleep(pause).await;
        if let Some(address) = topology.upstream_of(node_id) {
            let probe = TcpStream::connect((address.host.as_str(), address.port));
            if let Ok(Ok(_)) = tokio::time::timeout(PROBE_MAX, probe).await {
                return;
            }
        }
    }
}

/// Clients wait about as long before they try again.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// A restart is over by then.
const SOON: Duration = Duration::from_secs(120);
/// Of a broker that is away for long.
const PROBE_LATER_EVERY: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(5);

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::ErrorKind;

    use futures_util::FutureExt;

    use super::*;
    use crate::session::testing::own_address;

    /// On a port that was asked for: one that the kernel has chosen it takes back.
    fn socket() -> Arc<std::net::TcpListener> {
        let socket = std::net::TcpListener::bind((own_address(), 9091)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Arc::new(socket)
    }

    async fn refused(address: SocketAddr) -> bool {
        let error = TcpStream::connect(address).await.err();
        error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    }

    #[tokio::test]
    async fn it_refuses_keeps_its_port_and_accepts_again() {
        let socket = socket();
        let address = socket.local_addr().unwrap();
        let mut listening = Listening::on(socket, 1 << 20).unwrap();
        let mut open = Vec::new();
        for _ in 0..3 {
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listening.accept());
            let (client, (accepted, peer)) = (client.unwrap(), accepted.unwrap());
            assert_eq!(peer, client.local_addr().unwrap());
            open.push((client, accepted));
            let (back, until) = tokio::sync::oneshot::channel::<()>();
            listening.refuse(async { until.await.unwrap() }).unwrap();
            // Asked and not waited for, as an acceptor does that has other things to do.
            assert!(listening.accept().now_or_never().is_none() && listening.refuses());
            assert!(refused(address).await);
            let taken = std::net::TcpListener::bind(address).unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            back.send(()).unwrap();
            assert!(listening.accept().now_or_never().is_none() && !listening.refuses());
        }
    }

    #[tokio::test]
    async fn whoever_accepts_next_finds_it_listening() {
        let socket = socket();
        let address = socket.local_addr().unwrap();
        let mut first = Listening::on(Arc::clone(&socket), 1 << 20).unwrap();
        first.refuse(std::future::pending()).unwrap();
        let mut second = Listening::on(socket, 1 << 20).unwrap();
        // The former acceptor may be late with it.
        first.refuse(std::future::pending()).unwrap();
        drop(first);
        // It notices by the way, and listens again.
        let noticed = tokio::time::timeout(Duration::from_millis(200), second.accept()).await;
        assert!(noticed.is_err());
        let (client, accepted) = tokio::join!(TcpStream::connect(address), second.accept());
        assert!(client.is_ok() && accepted.is_ok());
        drop(second);
        assert!(refused(address).await);
    }
}
