//! The door of a listener: what a connection goes through before its first request is read.
//!
//! In order: the header of the PROXY protocol, where a load balancer stands in front; TLS, where the listener has it;
//! then it is known which broker the client wants. All of it happens in the connection's own task and within
//! `listen.handshake_timeout`, so that who says nothing holds up nobody else.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use teeline_config::{Listen, ListenTls, Network};
use teeline_wire::tls::{Failure, HandshakeError, TlsServer, UnusableFiles};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::intercept::DestinationError;
use crate::load_balancer::{self, HeaderError};
use crate::stream::Stream;
use crate::topology::{Entrance, Route, Topology};

/// What guards the listeners of a cluster.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) tls: Option<TlsServer>,
    load_balancers: Vec<Network>,
    patience: Duration,
}

/// A client that is through.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) stream: Stream,
    /// Who it is; behind a load balancer, whom that one names.
    pub(crate) peer: SocketAddr,
    pub(crate) route: Route,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLetIn {
    /// The header of the PROXY protocol.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// TLS.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Where it was going.
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

impl NotLetIn {
    /// Ports are probed, by load balancers above all: nothing is wrong then.
    pub(crate) fn is_probe(&self) -> bool {
        match self {
            NotLetIn::Header(error) => matches!(error, HeaderError::Closed),
            NotLetIn::Handshake(error) => error.failure == Failure::Closed,
            NotLetIn::Destination(_) => false,
        }
    }
}

impl Door {
    /// Reads the certificates, if there are any.
    pub(crate) async fn open(listen: &Listen) -> Result<Door, UnusableFiles> {
        let tls = match listen.tls.clone() {
            Some(settings) => Some(load(settings).await?),
            None => None,
        };
        Ok(Door {
            tls,
            load_balancers: listen.proxy_protocol_from.clone(),
            patience: listen.handshake_timeout,
        })
    }

    /// Takes a client through.
    pub(crate) async fn admit(
        &self,
        mut client: TcpStream,
        peer: SocketAddr,
        entrance: Entrance,
        topology: &Topology,
    ) -> Result<Visitor, NotLetIn> {
        let deadline = Instant::now() + self.patience;
        let entrance = match entrance {
            Entrance::ByDestination { port, .. } => {
                let destinations = &topology.destinations;
                let found = destinations.of(&client, peer, port, self.patience).await?;
                Entrance::Route(Route::Destination(found))
            }
            known => known,
        };
        let mut visitor = peer;
        if self.is_load_balancer(peer.ip()) {
            let header = load_balancer::read_header(&mut client);
            visitor = tokio::time::timeout_at(deadline, header)
                .await
                .map_err(|_elapsed| HeaderError::Timeout)??
                .unwrap_or(peer);
        }
        let choose = |name: Option<&str>| match entrance {
            Entrance::Route(route) => Some(route),
            Entrance::ByName | Entrance::ByDestination { .. } => topology.route_of(name?),
        };
        let Some(tls) = &self.tls else {
            let route = choose(None).ok_or_else(|| HandshakeError {
                failure: Failure::UnknownName,
                text: "the listener tells brokers apart by name, and has no TLS".to_owned(),
            })?;
            return Ok(Visitor {
                stream: Stream::Plain(client),
                peer: visitor,
                route,
            });
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let (stream, route) = tls.greet(client, choose, left).await?;
        Ok(Visitor {
            stream: Stream::secured(stream),
            peer: visitor,
            route,
        })
    }

    /// Whether the header of the PROXY protocol is awaited from there.
    pub(crate) fn is_load_balancer(&self, address: IpAddr) -> bool {
        self.load_balancers
            .iter()
            .any(|network| network.contains(address))
    }
}

async fn load(settings: ListenTls) -> Result<TlsServer, UnusableFiles> {
    let loading = tokio::task::spawn_blocking(move || TlsServer::load(&settings));
    match loading.await {
        Ok(loaded) => loaded,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// For tests, and for clusters without any of it.
impl Default for Door {
    fn default() -> Self {
        Door {
            tls: None,
            load_balancers: Vec::new(),
            patience: Listen::DEFAULT_HANDSHAKE_TIMEOUT,
        }
    }
}
