//! The way to a KDC: one message there, one back, over TCP (RFC 4120, 7.2.2).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::KerberosError;
use super::configuration::Realms;
use super::flight::Patience;

/// Asks the KDCs of a realm in their order, until one answers or nobody waits for it any longer.
pub(super) fn ask(
    realms: &Realms,
    realm: &str,
    message: &[u8],
    patience: &Patience,
) -> Result<Vec<u8>, KerberosError> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    'kdcs: for (host, port) in realms.kdcs(realm)? {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("KDC {host}:{port}: {error}"));
        if patience.left().is_none() {
            break;
        }
        let addresses = match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                last = failed(error);
                continue;
            }
        };
        for address in addresses.take(ADDRESSES_MAX) {
            let Some(left) = patience.left() else {
                break 'kdcs;
            };
            match ask_at(address, message, left, patience) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = failed(error),
            }
        }
    }
    Err(KerberosError::Unreachable {
        realm: realm.to_owned(),
        source: Arc::new(last),
    })
}

fn ask_at(address: SocketAddr, message: &[u8], left: Duration, patience: &Patience) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    let mut stream = TcpStream::connect_timeout(&address, left.min(CONNECT_WITHIN))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left.min(ANSWER_WITHIN)))?;
    let size = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&size.to_be_bytes(), message].concat())?;
    let mut size = [0; 4];
    read(&mut stream, &mut size, deadline, patience)?;
    let size = u32::from_be_bytes(size);
    if size > ANSWER_BYTES_MAX {
        let text = format!("announces an answer of {size} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut answer = vec![0; size as usize];
    read(&mut stream, &mut answer, deadline, patience)?;
    Ok(answer)
}

/// Fills `buffer`, however slowly it comes, before the deadline and as long as somebody waits.
fn read(
    stream: &mut TcpStream,
    mut buffer: &mut [u8],
    deadline: Instant,
    patience: &Patience,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.min(patience.left().unwrap_or_default());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left.min(LOOK_EVERY)))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = buffer.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // How Linux says that a timeout has passed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Whether somebody still waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of one name.
const ADDRESSES_MAX: usize = 4;
/// Tickets of Active Directory carry lists of groups; 64 KiB is what it allows.
const ANSWER_BYTES_MAX: u32 = 1024 * 1024;
