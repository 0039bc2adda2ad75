//! The byte stream to a broker.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use teeline_config::HostPort;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::TlsClient;
use super::{ClientConfig, ClientError};

/// A stream to a broker. Nothing beyond this module and the start of a connection needs to know the kinds.
#[derive(Debug)]
#[non_exhaustive]
pub enum Transport {
    /// TCP as it is.
    Plaintext(TcpStream),
    /// TLS over TCP. Boxed, because it is much larger.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Connects to `address`, with TLS if there is any.
    pub(super) async fn connect(
        address: &HostPort,
        config: &ClientConfig,
        tls: Option<&Arc<TlsClient>>,
    ) -> Result<Self, ClientError> {
        let limit = config.endpoint.connect_timeout;
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream = match tokio::time::timeout(limit, connecting).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                let text = format!("no connection within {} ms", limit.as_millis());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        };
        // Requests are written whole, so there is nothing for Nagle's algorithm to gather.
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|source| ClientError::Connect {
            address: address.to_string(),
            source: Arc::new(source),
        })?;
        match tls {
            None => Ok(Self::Plaintext(stream)),
            Some(tls) => {
                let stream = tls.secure(stream, address, limit).await?;
                Ok(Self::Tls(Box::new(stream)))
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plaintext(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plaintext(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
