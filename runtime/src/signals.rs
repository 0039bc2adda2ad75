//! Signals: the first SIGTERM or SIGINT asks for a graceful stop, the second ends the process at once; SIGHUP asks for the
//! configuration to be read again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::exit::ExitCode;
use crate::shutdown::Shutdown;

/// The task that listens; it ends with the process, or when dropped.
#[derive(Debug)]
pub struct SignalTask(JoinHandle<()>);

impl Drop for SignalTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens for SIGTERM and SIGINT. The first triggers `shutdown`; the second exits at once with
/// [`ExitCode::Failed`], which is safe because everything durable is so before it is acknowledged.
pub fn listen(shutdown: Shutdown) -> io::Result<SignalTask> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(SignalTask(tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        shutdown.trigger();
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::error!(signal = name, "second signal: exit at once, without finishing");
        std::process::exit(i32::from(ExitCode::Failed.code()));
    })))
}

/// SIGHUP, again and again. From its making on, the signal no longer ends the process.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Listens for SIGHUP.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one; several that come together are one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
