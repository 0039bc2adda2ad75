//! Listening ports that no other test of this machine uses at the same time.
//!
//! They stay below 32768, where the kernel starts to take ports for outgoing connections: a listener up there can
//! find its port taken by somebody's client. A block is reserved by a file lock, which the kernel drops with the
//! process, however it ends.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{env, process};

const DEFAULT_RANGE: Range<u16> = 20_000..31_900;
const BLOCK_PORTS: u16 = 20;
/// Between the other blocks and where outgoing connections begin.
const WIDE_RANGE: Range<u16> = 31_900..32_768;
const WIDE_PORTS: u16 = 108;

/// Twenty consecutive ports that are ours until this is dropped.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    _lock: File,
}

impl PortBlock {
    /// Reserves a block whose ports all are free now.
    pub fn reserve() -> Self {
        Self::reserve_in(&configured_range(), BLOCK_PORTS)
    }

    /// The same for a proxy that is started with flags: it listens at the hundred ports after its own at once, which
    /// would be those of other tests.
    pub fn reserve_wide() -> Self {
        Self::reserve_in(&WIDE_RANGE, WIDE_PORTS)
    }

    fn reserve_in(range: &Range<u16>, size: u16) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let directory = env::temp_dir().join("teeline-ports");
        fs::create_dir_all(&directory).expect("create the directory of port locks");
        let blocks = (range.end - range.start) / size;
        // Start somewhere else in every process, so that a port just given back is not taken at once.
        let offset = u16::try_from(process::id() % u32::from(blocks)).expect("smaller than a u16");
        for _ in 0..blocks {
            let index = (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % blocks;
            let first = range.start + index * size;
            let lock = File::create(directory.join(format!("{first}.lock"))).expect("create a port lock");
            match lock.try_lock() {
                Ok(()) if (first..first + size).all(is_free) => return Self { first, _lock: lock },
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("lock a port block: {error}"),
            }
        }
        panic!("no free block of ports in {range:?}: set TEELINE_TEST_PORTS=first-end to use another range");
    }

    /// The port at `index`, up to nineteen.
    pub fn port(&self, index: u16) -> u16 {
        assert!(index < BLOCK_PORTS, "a block has {BLOCK_PORTS} ports");
        self.first + index
    }

    /// `127.0.0.1:port`.
    pub fn address(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.port(index))
    }

    /// A text with this block's addresses and ports where it says `{address N}` and `{port N}`.
    pub fn fill_in(&self, text: &str) -> String {
        (0..BLOCK_PORTS).fold(text.to_owned(), |text, index| {
            text.replace(&format!("{{address {index}}}"), &self.address(index))
                .replace(&format!("{{port {index}}}"), &self.port(index).to_string())
        })
    }
}

fn configured_range() -> Range<u16> {
    let Ok(text) = env::var("TEELINE_TEST_PORTS") else {
        return DEFAULT_RANGE;
    };
    let (first, end) = text.split_once('-').expect("TEELINE_TEST_PORTS is first-end");
    first.parse().expect("first port is a number")..end.parse().expect("end port is a number")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_share_a_port() {
        let (one, two) = (PortBlock::reserve(), PortBlock::reserve());
        assert!(one.port(0).abs_diff(two.port(0)) >= BLOCK_PORTS);
        assert!(two.port(BLOCK_PORTS - 1) < 32_768);
    }
}
