//! What the proxy's fuzz targets do: whole sessions, and the header of a load balancer.
//!
//! A session is played over real sockets and a real write-ahead buffer, between a client and a broker that do what a
//! [`script`] of any bytes tells them: captured frames as they were, damaged, cut, out of turn, pieces of anything.
//! [`judge`] then looks at what came out on either side. A plain test replays seeds for a moment; `proxy/fuzz` gives
//! the same functions to a fuzzer that watches which branches are taken.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub
)]

#[path = "../../../wire/fuzz/src/damage.rs"]
pub mod damage;
#[path = "../../../wire/fuzz/src/frames.rs"]
mod frames;
mod judge;
mod play;
mod script;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use play::Theatre;

/// A target: any bytes in, no panic.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: [(&str, Target); 2] = [("session", session), ("load_balancer", load_balancer)];

thread_local! {
    static RUNTIME: Runtime = runtime();
    static THEATRE: RefCell<Option<Theatre>> = const { RefCell::new(None) };
}

/// A fuzzer's `main` is not Rust's, which has the signal ignored that ends whoever writes to a closed socket.
fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Whoever listens once has the signal handled for as long as the process runs.
    drop(runtime.block_on(async { signal(SignalKind::pipe()) }).unwrap());
    runtime
}

/// A script for a client and a broker.
pub fn session(data: &[u8]) {
    RUNTIME.with(|runtime| {
        THEATRE.with_borrow_mut(|slot| {
            runtime.block_on(async {
                if slot.as_ref().is_none_or(Theatre::is_worn) {
                    if let Some(old) = slot.take() {
                        old.close().await;
                    }
                    *slot = Some(Theatre::open().await);
                }
                if let Some(theatre) = slot {
                    theatre.play(data).await;
                }
            });
        });
    });
}

/// How many answers reached clients since this thread's first session, or since the last time the stage was struck.
#[cfg(test)]
fn answers() -> u64 {
    THEATRE.with_borrow(|theatre| theatre.as_ref().map_or(0, |theatre| theatre.answers))
}

/// What a load balancer sends first. Nothing beyond the header may be taken.
pub fn load_balancer(data: &[u8]) {
    RUNTIME.with(|runtime| {
        let mut rest = data;
        let header = runtime.block_on(crate::load_balancer::read_header(&mut rest));
        let taken = &data[..data.len() - rest.len()];
        if header.is_ok() {
            // The same header alone says the same, and any byte less is not enough.
            let alone = runtime.block_on(crate::load_balancer::read_header(&mut &taken[..]));
            assert_eq!(alone.ok(), header.ok());
            let short = &taken[..taken.len().saturating_sub(1)];
            assert!(
                runtime
                    .block_on(crate::load_balancer::read_header(&mut &short[..]))
                    .is_err()
            );
        }
    });
}
