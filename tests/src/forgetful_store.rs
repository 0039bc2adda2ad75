//! A store that ignores conditional puts, as some S3 servers do: the negative case.
//!
//! It is a forwarder before a real server. A `PUT` with `If-None-Match` must not fail because an object is there,
//! and the header cannot be taken out, since requests are signed with it. So the forwarder takes away the object
//! itself first: the put succeeds and replaces what was there, which is just what an ignorant server does.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use crate::ports::PortBlock;
use crate::s3::S3;

const HEAD_LIMIT: usize = 64 * 1024;

/// The forwarder; its thread ends with the test process.
#[derive(Debug)]
pub struct ForgetfulStore {
    ports: PortBlock,
}

impl ForgetfulStore {
    /// Listens before `s3`.
    pub fn before(s3: &S3) -> Self {
        let ports = PortBlock::reserve();
        let listener = TcpListener::bind(ports.address(0)).expect("listen as the forgetful store");
        let upstream = s3.address();
        let data = s3
            .bucket_directory()
            .parent()
            .expect("the bucket lies in the data directory")
            .to_owned();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, data) = (upstream.clone(), data.clone());
                // A broken connection is the client's to notice and repeat.
                thread::spawn(move || forward(client, &upstream, &data));
            }
        });
        Self { ports }
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.ports.address(0))
    }
}

/// One request per connection: the answer's end is then the connection's end, and nothing else has to be parsed.
fn forward(mut client: TcpStream, upstream: &str, data: &Path) -> io::Result<()> {
    let (head, rest) = read_head(&mut client)?;
    if let Some(object) = conditional_put(&head, data) {
        // Not there is as good.
        let _ = fs::remove_file(object);
    }
    let mut server = TcpStream::connect(upstream)?;
    let head = head.trim_end_matches("\r\n");
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes())?;
    server.write_all(&rest)?;
    let (mut client_side, mut server_side) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut client_side, &mut server_side));
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = client.read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            return Ok((head, rest));
        }
        if count == 0 || bytes.len() > HEAD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn conditional_put(head: &str, data: &Path) -> Option<PathBuf> {
    let path = head.strip_prefix("PUT ")?.split([' ', '?']).next()?;
    let conditional = head
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("if-none-match:"));
    conditional.then(|| data.join(path.trim_start_matches('/')))
}
