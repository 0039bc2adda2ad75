//! The byte stream to a client or a broker: TCP as it is, or TLS over it.
//!
//! Both directions of a connection run in one task, so the halves of a TLS stream share it under a lock that nobody ever
//! waits for; the halves of a TCP stream need none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_rustls::TlsStream;

use crate::session::intake::Source;

/// A stream to one peer.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over TCP. Boxed, because it is much larger.
    Tls(Box<Secured>),
}

/// TLS, and what is known about what can be read.
#[derive(Debug)]
pub(crate) struct Secured(Mutex<State>);

#[derive(Debug)]
struct State {
    stream: TlsStream<TcpStream>,
    /// The last read found something: more may be decrypted already, without anything more on the socket.
    may_have_more: bool,
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::Plain(stream)
    }
}

impl<S: Into<TlsStream<TcpStream>>> From<S> for Secured {
    fn from(stream: S) -> Self {
        Secured(Mutex::new(State {
            stream: stream.into(),
            // What came together with the end of the greeting is in there, too.
            may_have_more: true,
        }))
    }
}

impl Stream {
    /// A stream whose greeting is over.
    pub(crate) fn secured(stream: impl Into<TlsStream<TcpStream>>) -> Stream {
        Stream::Tls(Box::new(Secured::from(stream)))
    }

    /// What the peer has shown that it is.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        let Stream::Tls(secured) = self else { return None };
        let state = secured.lock();
        let (_, session) = state.stream.get_ref();
        let shown = session.peer_certificates()?.first()?;
        Some(shown.to_vec())
    }

    /// Both directions.
    pub(crate) fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Stream::Plain(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Stream::Tls(secured) => (Reader::Tls(secured), Writer::Tls(secured)),
        }
    }

    /// Says goodbye where the protocol has a word for it: without, a peer may take the end for an attack.
    pub(crate) async fn close(mut self) {
        if let (_, Writer::Tls(secured)) = self.split() {
            let goodbye = async { Writer::Tls(secured).shutdown().await };
            // Whoever does not read does not care.
            let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
        }
    }
}

impl Stream {
    /// Closes a connection whose client did nothing wrong. What it asked meanwhile and nobody read would have the kernel
    /// reset the connection, and take back answers that are still on their way: so it is waited for the client's end.
    pub(crate) async fn see_off(mut self) {
        let goodbye = async {
            let (mut reader, mut writer) = self.split();
            let mut unread = vec![0; 4096];
            if writer.shutdown().await.is_ok() {
                while reader.read(&mut unread).await.is_ok_and(|read| read > 0) {}
            }
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }

    /// Closes at once a connection that never got beyond its greeting, through no fault of its client. That is nearest to a
    /// broker that is gone, and clients try again; from an orderly end instead of a first answer some conclude that they
    /// are sent away for good, for want of TLS or SASL.
    pub(crate) fn reset(self) {
        // A socket that takes no options is closed already.
        let _ = match self {
            Stream::Plain(stream) => stream.set_zero_linger(),
            Stream::Tls(secured) => secured.lock().stream.get_ref().0.set_zero_linger(),
        };
    }
}

impl Secured {
    fn lock(&self) -> MutexGuard<'_, State> {
        // One task uses both halves, so nobody can have panicked while holding it and then be waited for.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that is read.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    Plain(ReadHalf<'a>),
    Tls(&'a Secured),
}

/// The side that is written.
#[derive(Debug)]
pub(crate) enum Writer<'a> {
    Plain(WriteHalf<'a>),
    Tls(&'a Secured),
}

impl Source for Reader<'_> {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Reader::Plain(half) => half.as_ref().poll_read_ready(context),
            Reader::Tls(secured) => {
                let state = secured.lock();
                let (socket, session) = state.stream.get_ref();
                if state.may_have_more || !session.wants_read() {
                    return Poll::Ready(Ok(()));
                }
                socket.poll_read_ready(context)
            }
        }
    }
}

impl AsyncRead for Reader<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let secured = match self.get_mut() {
            Reader::Plain(half) => return Pin::new(half).poll_read(context, buffer),
            Reader::Tls(secured) => *secured,
        };
        let mut state = secured.lock();
        let read = Pin::new(&mut state.stream).poll_read(context, buffer);
        state.may_have_more = read.is_ready();
        match read {
            // A frame says how long it is, so an end without goodbye hides nothing.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => read,
        }
    }
}

impl AsyncWrite for Writer<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_write(context, bytes),
            Writer::Tls(secured) => Pin::new(&mut secured.lock().stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_write_vectored(context, slices),
            Writer::Tls(secured) => Pin::new(&mut secured.lock().stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_flush(context),
            Writer::Tls(secured) => Pin::new(&mut secured.lock().stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Writer::Plain(half) => Pin::new(half).poll_shutdown(context),
            Writer::Tls(secured) => Pin::new(&mut secured.lock().stream).poll_shutdown(context),
        }
    }
}

const GOODBYE_MAX: std::time::Duration = std::time::Duration::from_secs(1);
