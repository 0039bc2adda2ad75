//! The process of `teeline-segmenter backup`: admin port, signals, one backup per file, the exit code.

use std::io::Write;
use std::sync::Arc;

use teeline_runtime::admin::AdminServer;
use teeline_runtime::exit::{ExitCode, error_chain};
use teeline_runtime::metrics as registry;
use teeline_runtime::{Health, Shutdown, Store, SystemClock, signals, threads};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::args::{BackupArgs, Job, Plan};
use super::display::Display;
use super::error::BackupError;
use super::report::{BackupReport, Outcome};
use super::run::{self, Surroundings};
use crate::metrics;
use crate::process::ProcessError;

/// Makes every backup of the plan, some at a time, and prints their reports as they end.
///
/// # Errors
/// What keeps the process from starting. What ends a backup later is logged, and in the exit code.
pub fn run(args: &BackupArgs, plan: Plan) -> Result<ExitCode, ProcessError> {
    let count = plan.config.process.worker_threads;
    threads::run(count, "segmenter", serve(args, plan)).map_err(ProcessError::Runtime)?
}

async fn serve(args: &BackupArgs, plan: Plan) -> Result<ExitCode, ProcessError> {
    let health = Health::new();
    let handle = registry::install()?;
    metrics::register();
    let _admin = AdminServer::start(&plan.config.admin, health.clone(), handle, Vec::new())?;
    let shutdown = Shutdown::new();
    let _signals = signals::listen(shutdown.clone()).map_err(ProcessError::Signals)?;
    let display = Display::fitting(args.json);
    let places = Arc::new(Semaphore::new(plan.config.backup.max_concurrent_backups));
    let mut backups = JoinSet::new();
    for job in plan.jobs {
        let around = Surroundings {
            store: Store::open(&job.storage)?,
            clock: Arc::new(SystemClock),
            display: display.clone(),
            health: health.component(format!("backup/{}", job.backup_id)),
            shutdown: shutdown.clone(),
        };
        let places = Arc::clone(&places);
        backups.spawn(async move {
            let _place = places.acquire_owned().await;
            let ended = match around.shutdown.is_triggered() {
                true => Err(BackupError::Stopped),
                false => run::run(&job, &around).await,
            };
            if let Err(error) = &ended {
                around.health.failed(error_chain(error));
            }
            (job, ended)
        });
    }
    let deadline = async {
        shutdown.triggered().await;
        tokio::time::sleep(plan.config.process.drain_timeout).await;
    };
    tokio::pin!(deadline);
    let mut code = ExitCode::Done;
    loop {
        let ended = tokio::select! {
            // What is committed counts, and the rest is fetched again by the next run.
            () = &mut deadline => {
                tracing::warn!(left = backups.len(), "the drain deadline has passed");
                return Ok(code.worse(ExitCode::Incomplete));
            }
            ended = backups.join_next() => ended,
        };
        let own = match ended {
            None => return Ok(code),
            Some(Ok((job, ended))) => tell(args, &job, ended),
            Some(Err(_)) => {
                tracing::error!("a backup has panicked");
                ExitCode::Failed
            }
        };
        code = code.worse(own);
    }
}

/// Prints how a backup ended; its exit code.
fn tell(args: &BackupArgs, job: &Job, ended: Result<BackupReport, BackupError>) -> ExitCode {
    match ended {
        Ok(report) => {
            let text = match args.json {
                true => report.to_json().to_string(),
                false => report.describe(),
            };
            // Whoever closed the pipe does not want to know.
            let _ = writeln!(std::io::stdout(), "{text}");
            match report.outcome {
                Outcome::Complete | Outcome::Cut => ExitCode::Done,
                Outcome::Stopped if job.backup.continuous && report.troubles.is_empty() => ExitCode::Done,
                Outcome::Stopped | Outcome::Incomplete => ExitCode::Incomplete,
            }
        }
        Err(error) => {
            let reason = error_chain(&error);
            if args.json {
                let line =
                    serde_json::json!({ "type": "error", "backup_id": job.backup_id, "error": reason });
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            eprintln!("error: backup {}: {reason}", job.backup_id);
            error.exit_code()
        }
    }
}
