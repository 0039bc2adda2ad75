//! Which addresses a cluster's listeners have, by its configuration and the ids of its brokers.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use teeline_config::{Addressing, HostPort, Listen};

use super::{Entrance, Route};
use crate::sockets::{BindError, Wanted};

/// Why a cluster cannot listen as its configuration says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The address means nothing here.
    #[error("resolve {address}")]
    Resolve { address: HostPort, source: io::Error },
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// What of the configuration says where clients come in, and what they are told.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) listen: Listen,
    /// The address that all listeners bind.
    pub(super) ip: IpAddr,
}

/// The addressing has no room for a broker.
pub(super) struct NoPlace;

impl Plan {
    pub(super) fn of(listen: &Listen) -> Result<Plan, ListenError> {
        let failed = |source| ListenError::Resolve {
            address: listen.address.clone(),
            source,
        };
        let wanted = (listen.address.host.as_str(), listen.address.port);
        let none = || io::Error::new(io::ErrorKind::NotFound, "the listen address resolves to nothing");
        let mut addresses = wanted.to_socket_addrs().map_err(failed)?;
        let address = addresses.next().ok_or_else(none).map_err(failed)?;
        Ok(Plan {
            listen: listen.clone(),
            ip: address.ip(),
        })
    }

    /// The bootstrap listener and those of the brokers; of a large range only the first ones, unless they are needed.
    pub(super) fn wanted(&self, is_known: impl Fn(i32) -> bool) -> Vec<Wanted> {
        let bootstrap = Wanted {
            address: SocketAddr::new(self.ip, self.listen.address.port),
            entrance: match self.listen.addressing {
                Addressing::Ports(_) => Entrance::Route(Route::Bootstrap),
                Addressing::Names(_) => Entrance::ByName,
                Addressing::Intercept(how) => Entrance::ByDestination {
                    port: self.listen.address.port,
                    transparent: how.transparent,
                },
            },
            needed: true,
        };
        let ports = self.listen.addressing.ports();
        let nodes = ports.into_iter().flat_map(|ports| ports.all_nodes());
        let nodes = nodes.map(|(node_id, port)| Wanted {
            address: SocketAddr::new(self.ip, port),
            entrance: Entrance::Route(Route::Node(node_id)),
            needed: is_known(node_id),
        });
        let first = nodes
            .enumerate()
            .filter(|(index, wanted)| wanted.needed || *index < BOUND_EARLY_MAX)
            .map(|(_, wanted)| wanted);
        std::iter::once(bootstrap).chain(first).collect()
    }

    /// Where a broker's own listener is; none when one listener serves all.
    pub(super) fn listener_of(&self, node_id: i32) -> Result<Option<SocketAddr>, NoPlace> {
        match &self.listen.addressing {
            Addressing::Ports(ports) => {
                let port = ports.port_of(node_id).ok_or(NoPlace)?;
                Ok(Some(SocketAddr::new(self.ip, port)))
            }
            Addressing::Names(_) if node_id < 0 => Err(NoPlace),
            Addressing::Names(_) | Addressing::Intercept(_) => Ok(None),
        }
    }
}

/// Listeners that are bound before their brokers are known: each takes a descriptor, and clusters have fewer brokers.
const BOUND_EARLY_MAX: usize = 1024;
