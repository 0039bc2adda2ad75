//! The header of the PROXY protocol, by which a load balancer says for whom it connects.
//!
//! Version 2 is binary, version 1 is a line of text; see HAProxy's `doc/proxy-protocol.txt`. Exactly the header is
//! read and not a byte more: what follows is the client's. Lengths are checked before anything is read, and nothing is
//! kept but the client's address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Why a header was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The connection ended before, as when it is only a probe.
    #[error("the load balancer closed the connection")]
    Closed,
    /// It takes too long.
    #[error("no PROXY protocol header in time (hint: listen.proxy_protocol.from names who has to send one)")]
    Timeout,
    /// What came is no header.
    #[error("no PROXY protocol header (hint: listen.proxy_protocol.from names who has to send one)")]
    Missing,
    /// It is one that cannot be read.
    #[error("malformed PROXY protocol header: {0}")]
    Malformed(&'static str),
    /// The connection failed.
    #[error("read the PROXY protocol header: {0}")]
    Io(io::Error),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => HeaderError::Closed,
            _ => HeaderError::Io(error),
        }
    }
}

/// Reads the header; none when the load balancer speaks for itself, or does not say for whom.
pub(crate) async fn read_header<R: AsyncRead + Unpin>(
    stream: &mut R,
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return binary(stream).await;
    }
    if start.starts_with(LINE_START) {
        return line(stream, &start).await;
    }
    Err(HeaderError::Missing)
}

async fn binary<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, HeaderError> {
    let [command, family, high, low] = read_array(stream).await?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BINARY_BYTES_MAX {
        return Err(HeaderError::Malformed("it is too long"));
    }
    let mut rest = [0; BINARY_BYTES_MAX];
    let rest: &mut [u8] = rest.get_mut(..length).unwrap_or_default();
    stream.read_exact(rest).await?;
    match command {
        // A connection of its own, to see whether we are there.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(HeaderError::Malformed("neither PROXY nor LOCAL of version 2")),
    }
    // Source address, destination address, source port, destination port; then whatever else it has to say.
    let address = match family {
        0x11 => source::<4>(rest).map(|(ip, port)| SocketAddr::from((Ipv4Addr::from(ip), port))),
        0x21 => source::<16>(rest).map(|(ip, port)| SocketAddr::from((Ipv6Addr::from(ip), port))),
        // Unspecified, a local socket, or datagrams: nothing to know.
        _ => return Ok(None),
    };
    address
        .map(Some)
        .ok_or(HeaderError::Malformed("it is too short for its addresses"))
}

fn source<const N: usize>(rest: &[u8]) -> Option<([u8; N], u16)> {
    let ip = rest.first_chunk::<N>()?;
    let ports = rest.get(N.checked_mul(2)?..)?;
    // The other port has to be there, too.
    let port = ports.first_chunk::<4>().map(|[high, low, _, _]| [*high, *low])?;
    Some((*ip, u16::from_be_bytes(port)))
}

async fn line<R: AsyncRead + Unpin>(stream: &mut R, start: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let mut line = start.to_vec();
    // Byte by byte: what follows the line is not ours. It is short, and load balancers mostly speak version 2.
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES_MAX {
            return Err(HeaderError::Malformed("the line does not end"));
        }
        let [byte] = read_array(stream).await?;
        line.push(byte);
    }
    let text = line.strip_suffix(b"\r\n").unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| HeaderError::Malformed("not text"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().unwrap_or_default();
    let (from, _to, port) = (word(), word(), word());
    let ip: Option<IpAddr> = match family {
        "TCP4" => from.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => from.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(HeaderError::Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    };
    ip.zip(port.parse::<u16>().ok())
        .map(|(ip, port)| Some(SocketAddr::new(ip, port)))
        .ok_or(HeaderError::Malformed("no address and port of a client"))
}

async fn read_array<R: AsyncRead + Unpin, const N: usize>(stream: &mut R) -> Result<[u8; N], HeaderError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const LINE_START: &[u8] = b"PROXY ";
/// The longest line that the specification allows.
const LINE_BYTES_MAX: usize = 107;
/// Far more than what load balancers add about themselves; the addresses are at most 216 bytes.
const BINARY_BYTES_MAX: usize = 2048;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is said, and what is left for the client.
    fn read(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let mut stream = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let header = runtime.block_on(read_header(&mut stream));
        (header, stream.to_vec())
    }

    fn binary_header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn both_versions_name_the_client_and_leave_the_rest_alone() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0xd4, 0x31, 0x23, 0x84];
        let mut with_more = four.to_vec();
        with_more.extend([0x04, 0, 1, 9]);
        let six: Vec<u8> = [Ipv6Addr::LOCALHOST.octets(), Ipv6Addr::UNSPECIFIED.octets()]
            .concat()
            .into_iter()
            .chain([0xd4, 0x31, 0x23, 0x84])
            .collect();
        for (header, expected) in [
            (binary_header(0x21, 0x11, &four), Some("192.0.2.7:54321")),
            (binary_header(0x21, 0x11, &with_more), Some("192.0.2.7:54321")),
            (binary_header(0x21, 0x21, &six), Some("[::1]:54321")),
            (binary_header(0x20, 0x00, &[]), None),
            (binary_header(0x21, 0x31, &[0; 216]), None),
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 54321 9092\r\n".to_vec(),
                Some("192.0.2.7:54321"),
            ),
            (b"PROXY TCP6 ::1 ::2 54321 9092\r\n".to_vec(), Some("[::1]:54321")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
        ] {
            let mut bytes = header.clone();
            bytes.extend(b"\0\0\0\x12request");
            let (address, rest) = read(&bytes);
            assert_eq!(address.unwrap(), expected.map(|text| text.parse().unwrap()));
            assert_eq!(rest, b"\0\0\0\x12request");
            for length in 0..header.len() {
                assert!(
                    matches!(read(&header[..length]).0, Err(HeaderError::Closed)),
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_header_is_not_taken_for_one() {
        assert!(matches!(read(&[0; 64]).0, Err(HeaderError::Missing)));
        assert!(matches!(read(b"GET / HTTP/1.1\r\n").0, Err(HeaderError::Missing)));
        let malformed = |bytes: &[u8]| assert!(matches!(read(bytes).0, Err(HeaderError::Malformed(_))));
        malformed(&binary_header(0x21, 0x11, &[0; 11]));
        malformed(&binary_header(0x21, 0x21, &[0; 35]));
        malformed(&binary_header(0x31, 0x11, &[0; 12]));
        malformed(&binary_header(0x21, 0x11, &[0; BINARY_BYTES_MAX + 1]));
        malformed(b"PROXY TCP4 ::1 ::1 1 2\r\n");
        malformed(b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 9092\r\n");
        malformed(b"PROXY UDP4 192.0.2.7 10.0.0.1 1 9092\r\n");
        malformed(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat());
        malformed(b"PROXY \xff\xff\xff\xff\xff\xff\xff\r\n");
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), which in 0..3) {
            let mut sent = match which {
                0 => SIGNATURE.to_vec(),
                1 => LINE_START.to_vec(),
                _ => Vec::new(),
            };
            sent.extend(bytes);
            let _ = read(&sent);
        }
    }
}
