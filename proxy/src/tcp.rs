//! What the sockets of sessions have in common: no delay, a peer that vanished is noticed, and the kernel's part of the
//! memory is bounded.
//!
//! Left to itself the kernel grows the buffers of a connection to several megabytes in each direction, which a peer that
//! has stopped reading keeps filled: a few hundred of them use up what it has for all connections of the host, or of the
//! control group, and then drops packets of any. Brokers have always bounded theirs (`socket.send.buffer.bytes`,
//! `socket.receive.buffer.bytes`: 100 KiB).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, ToSocketAddrs};

/// Connects to the first address that takes the connection, and tunes it. The receive buffer is bounded before: what a
/// window can grow to is settled with the first packet.
///
/// # Errors
/// That of the last address, or when there is none.
pub(crate) async fn connect(
    to: impl ToSocketAddrs,
    unacknowledged_max: Duration,
    socket_buffer_bytes: u32,
) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(to).await? {
        match connect_to(address, socket_buffer_bytes).await {
            Ok(stream) => return tune(&stream, unacknowledged_max, socket_buffer_bytes).map(|()| stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn connect_to(address: SocketAddr, socket_buffer_bytes: u32) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    bound_received(&SockRef::from(&socket), socket_buffer_bytes)?;
    socket.connect(address).await
}

/// Bounds what the kernel keeps of what comes in; of a listener's socket, for connections that are accepted from then on.
/// `net.core.rmem_max` bounds it further.
pub(crate) fn bound_received(socket: &SockRef<'_>, socket_buffer_bytes: u32) -> io::Result<()> {
    socket.set_recv_buffer_size(usize::try_from(socket_buffer_bytes).unwrap_or(usize::MAX))
}

/// Small requests must not wait for each other's acknowledgements, and a peer that vanished must be noticed: by probes
/// while nothing is under way, by the age of what it has not acknowledged otherwise. The latter ends a connection, too,
/// whose peer is there and has not read a byte for as long: for clients it is `listen.idle_timeout`, as when nothing moves.
///
/// What is sent and not acknowledged is bounded by what the peer offers to take; what has not even been sent, here.
pub(crate) fn tune(
    stream: &TcpStream,
    unacknowledged_max: Duration,
    socket_buffer_bytes: u32,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    {
        // Zero leaves it to the kernel, whose own patience is a quarter of an hour. Elsewhere than on Linux it has to do.
        socket.set_tcp_user_timeout(Some(unacknowledged_max).filter(|max| !max.is_zero()))?;
        // Not every kernel that runs Linux programs has it, and nothing depends on it but memory.
        if let Err(error) = socket.set_tcp_notsent_lowat(socket_buffer_bytes) {
            tracing::debug!("what is not sent is bounded by the kernel alone: {error}");
        }
    }
    socket.set_tcp_keepalive(&keepalive)
}

/// Before the usual five minutes after which firewalls forget a connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BUFFER: u32 = 64 * 1024;
    const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn a_peer_that_vanished_is_noticed_whether_or_not_it_owes_anything() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap(), UNACKNOWLEDGED_MAX, BUFFER)
            .await
            .unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_nobody_reads_does_not_fill_the_kernels_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        bound_received(&SockRef::from(&listener), BUFFER).unwrap();
        let there = connect(listener.local_addr().unwrap(), UNACKNOWLEDGED_MAX, BUFFER)
            .await
            .unwrap();
        let (here, _) = listener.accept().await.unwrap();
        tune(&here, UNACKNOWLEDGED_MAX, BUFFER).unwrap();
        for (from, to) in [(&there, &here), (&here, &there)] {
            // The kernel counts its own overhead, too, for which it doubles what is asked.
            assert_eq!(SockRef::from(to).recv_buffer_size().unwrap(), 2 * BUFFER as usize);
            let mut taken = 0;
            while let Ok(writable) = tokio::time::timeout(Duration::from_millis(200), from.writable()).await {
                writable.unwrap();
                match from.try_write(&[0; 4096]) {
                    Ok(written) => taken += written,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            let (least, most) = (BUFFER as usize, 5 * BUFFER as usize);
            assert!((least..most).contains(&taken), "{taken} bytes");
        }
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried_and_the_last_error_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let closed = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            other.local_addr().unwrap()
        };
        let both = [closed, here];
        let stream = connect(&both[..], UNACKNOWLEDGED_MAX, BUFFER).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        let refused = connect(closed, UNACKNOWLEDGED_MAX, BUFFER).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
