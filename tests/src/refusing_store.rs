//! A store that answers every request the same way: credentials that are refused, a server that is out of order.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::ports::PortBlock;

/// The store; its thread ends with the test process.
#[derive(Debug)]
pub struct RefusingStore {
    ports: PortBlock,
}

impl RefusingStore {
    /// Answers with this status, as `403 Forbidden`.
    pub fn with(status: &str) -> Self {
        let ports = PortBlock::reserve();
        let listener = TcpListener::bind(ports.address(0)).expect("listen as the refusing store");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // What was asked for does not matter; whoever does not wait for the answer does not get it.
                let mut request = [0; 4096];
                let _ = client.read(&mut request);
                let _ = client.write_all(answer.as_bytes());
            }
        });
        Self { ports }
    }

    /// `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.ports.address(0))
    }
}
