//! The threads that a program works on, from its start to its end.

use std::future::Future;
use std::io;
use std::time::Duration;

/// Works on so many threads, or one for each core, until the work is done. Whatever still blocks then (a store, a
/// resolver) gets [`STOP_MAX`] and does not keep the process: what it has not done must not count as done.
///
/// # Errors
/// When the threads cannot be started.
pub fn run<W: Future>(count: Option<usize>, name: &str, work: W) -> io::Result<W::Output> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if let Some(count) = count {
        threads.worker_threads(count);
    }
    let runtime = threads.enable_all().thread_name(name).build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(STOP_MAX);
    Ok(done)
}

/// How long blocking threads may outlive the work.
pub const STOP_MAX: Duration = Duration::from_secs(1);
