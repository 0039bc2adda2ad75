//! Memory that a virtual machine hands out for the first time.
//!
//! Its host gives a machine memory page by page, as each is first written to, and the machine is charged for it: here 4 CPU
//! seconds a gigabyte instead of 0.4. Whoever writes much, as a buffer on disk does through the page cache, would be measured
//! by how old the machine is.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

/// Writes to most of the memory that is free, once, and gives it back.
pub fn touch_free_memory() {
    let begun = Instant::now();
    let pieces = available_bytes() / 4 * 3 / PIECE_BYTES;
    // All of them at once: what is given back is what comes next.
    let held: Vec<Vec<u8>> = (0..pieces).map(|_| black_box(vec![1; PIECE_BYTES])).collect();
    eprintln!(
        "{} GiB of memory written to in {:.0} s, so that none of it is new to this machine",
        held.len(),
        begun.elapsed().as_secs_f64()
    );
}

/// What the kernel could give to programs without swapping; none where it does not say.
fn available_bytes() -> usize {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}

const PIECE_BYTES: usize = 1 << 30;
