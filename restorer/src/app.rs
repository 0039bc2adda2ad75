//! The program: one function per subcommand, each from arguments to an exit code.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use serde::Serialize;
use teeline_archive::ledger::StateKind;
use teeline_config::Config;
use teeline_runtime::exit::error_chain;
use teeline_runtime::{Clock as _, ExitCode, Shutdown, Store, SystemClock, logging, signals};

use crate::cli::{ArchiveArgs, BackupArgs, Cli, Command, CoverageArgs, RestoreArgs, SelectedArgs, StateArgs};
use crate::coverage::Clock;
use crate::error::{Damage, RestorerError};
use crate::ledger::{self, Summary};
use crate::progress::{Display, Phase, print, print_json};
use crate::restore::{self, Outcome};
use crate::tally::Live;
use crate::{coverage, describe, job, plan, report, state, verify};

/// Runs the program.
pub async fn run(cli: Cli) -> ExitCode {
    let archive = archive_args(&cli.command);
    let json = archive.is_some_and(|args| args.json);
    let result = match &cli.command {
        Command::Completions { shell } => Ok(completions(*shell)),
        Command::Man => Ok(man()),
        command => Box::pin(run_on_archive(command, archive)).await,
    };
    result.unwrap_or_else(|error| report_failure(&error, json))
}

async fn run_on_archive(command: &Command, archive: Option<&ArchiveArgs>) -> Result<ExitCode, RestorerError> {
    let config = archive.map(job::config).transpose()?.unwrap_or_default();
    logging::init(&config.log).map_err(|error| RestorerError::Usage(error_chain(&error)))?;
    let shutdown = Shutdown::new();
    let _signals = signals::listen(shutdown.clone()).map_err(RestorerError::Signals)?;
    match command {
        Command::List(args) => list(args, &config).await,
        Command::Describe(args) => describe(args, &config).await,
        Command::Coverage(args) => coverage(args, &config, &shutdown).await,
        Command::State(args) => cluster_state(args, &config).await,
        Command::Verify(args) => verify(args, &config, &shutdown).await,
        Command::Restore(args) => restore(args, config, &shutdown).await,
        Command::Completions { .. } | Command::Man => Ok(ExitCode::Done),
    }
}

fn archive_args(command: &Command) -> Option<&ArchiveArgs> {
    match command {
        Command::List(args) => Some(args),
        Command::Describe(args) => Some(&args.archive),
        Command::State(args) => Some(&args.backup.archive),
        Command::Coverage(args) => Some(&args.selected.backup.archive),
        Command::Verify(args) => Some(&args.backup.archive),
        Command::Restore(args) => Some(&args.archive),
        Command::Completions { .. } | Command::Man => None,
    }
}

/// A failure as a line of JSON, for scripts that read standard output only.
#[derive(Debug, Serialize)]
struct FailureLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
    exit_code: u8,
    damage: &'a [Damage],
}

fn report_failure(error: &RestorerError, json: bool) -> ExitCode {
    let code = error.exit_code();
    let message = error_chain(error);
    if json {
        let damage = match error {
            RestorerError::Damaged { damage } => damage.as_slice(),
            _ => &[],
        };
        print_json(&FailureLine {
            kind: "error",
            message: message.clone(),
            exit_code: code.code(),
            damage,
        });
    }
    eprintln!("error: {message}");
    code
}

async fn list(args: &ArchiveArgs, config: &Config) -> Result<ExitCode, RestorerError> {
    let store = Store::open_existing(&job::storage(args, config)?)?;
    let mut backups = Vec::new();
    for id in ledger::backup_ids(&store).await? {
        match ledger::load(&store, &id).await {
            Ok(backup) => backups.push(backup.summary()),
            Err(RestorerError::NoBackup { .. }) => {
                // A directory of something else beside the backups, unless there is what only a backup has.
                if ledger::has_traces(&store, &id).await? {
                    backups.push(Summary::unreadable(&id, "it has no ledger".to_owned()));
                }
            }
            // One backup that cannot be read does not hide the others.
            Err(error) => backups.push(Summary::unreadable(&id, error_chain(&error))),
        }
    }
    if args.json {
        print_json(&backups);
    } else if backups.is_empty() {
        print(&format!("{} holds no backup", store.address()));
    } else {
        print(&describe::render_list(&backups));
    }
    let whole = backups.iter().all(|backup| backup.damage.is_empty());
    Ok(if whole {
        ExitCode::Done
    } else {
        ExitCode::Incomplete
    })
}

async fn describe(args: &BackupArgs, config: &Config) -> Result<ExitCode, RestorerError> {
    let store = Store::open_existing(&job::storage(&args.archive, config)?)?;
    let backup = ledger::load(&store, &args.backup_id).await?;
    let description = describe::describe(&backup);
    if args.archive.json {
        print_json(&description);
    } else {
        print(&describe::render(&description));
    }
    Ok(if backup.damage.is_empty() {
        ExitCode::Done
    } else {
        ExitCode::Incomplete
    })
}

async fn coverage(
    args: &CoverageArgs,
    config: &Config,
    shutdown: &Shutdown,
) -> Result<ExitCode, RestorerError> {
    let CoverageArgs { selected, .. } = args;
    let source = job::source(args, config)?;
    let store = Store::open_existing(&job::storage(&selected.backup.archive, config)?)?;
    let backup = ledger::load(&store, &selected.backup.backup_id).await?;
    let topics = job::topics(&selected.topics);
    let live = match &source {
        None => None,
        Some(endpoint) => {
            let asking = coverage::live::ask(endpoint, &topics, &backup.state);
            let live = shutdown.run_until(asking).await;
            Some(live.ok_or(RestorerError::Interrupted)??)
        }
    };
    // What was archived while the cluster was asked is not missing.
    let backup = match &live {
        None => backup,
        Some(_) => ledger::load(&store, &selected.backup.backup_id).await?,
    };
    let clock = Clock::new(SystemClock.now_ms(), Duration::from_secs(args.grace));
    let coverage = coverage::coverage(&backup, &topics, clock, live.as_ref());
    if selected.backup.archive.json {
        print_json(&coverage);
    } else {
        print(&coverage::render(&coverage));
    }
    Ok(if coverage.is_whole() {
        ExitCode::Done
    } else {
        ExitCode::Incomplete
    })
}

async fn cluster_state(args: &StateArgs, config: &Config) -> Result<ExitCode, RestorerError> {
    let now_ms = SystemClock.now_ms();
    let at_ms = job::moment("--at", args.at.as_deref(), None, now_ms)?.unwrap_or(now_ms);
    let store = Store::open_existing(&job::storage(&args.backup.archive, config)?)?;
    let backup = ledger::load(&store, &args.backup.backup_id).await?;
    let kinds = match args.kinds.as_slice() {
        [] => &StateKind::ALL,
        kinds => kinds,
    };
    let found = state::state(&store, &backup, kinds, at_ms).await?;
    if args.backup.archive.json {
        print_json(&found);
    } else {
        print(&state::render(&found));
    }
    Ok(if found.is_whole() {
        ExitCode::Done
    } else {
        ExitCode::Incomplete
    })
}

async fn verify(
    args: &SelectedArgs,
    config: &Config,
    shutdown: &Shutdown,
) -> Result<ExitCode, RestorerError> {
    let json = args.backup.archive.json;
    let store = Store::open_existing(&job::storage(&args.backup.archive, config)?)?;
    let backup = ledger::load(&store, &args.backup.backup_id).await?;
    let topics = job::topics(&args.topics);
    let live = Arc::new(Live::default());
    let total = verify::bytes_to_read(&backup, &topics);
    let phase = Phase::begin(display(json, false), "verify", total, Arc::clone(&live));
    let verification = verify::verify(&store, &backup, &topics, &live, shutdown).await;
    drop(phase);
    let verification = verification?;
    if json {
        print_json(&verification);
    } else {
        print(&verify::render(&verification));
    }
    Ok(if verification.is_clean() {
        ExitCode::Done
    } else {
        ExitCode::Incomplete
    })
}

async fn restore(args: &RestoreArgs, config: Config, shutdown: &Shutdown) -> Result<ExitCode, RestorerError> {
    let json = args.archive.json;
    let now_ms = SystemClock.now_ms();
    let job = job::restore(args, config, now_ms)?;
    let show = |view: &plan::PlanView| {
        if json {
            print_json(view);
        } else {
            print(&plan::render(view));
        }
    };
    let outcome = Box::pin(restore::run(
        &job,
        now_ms,
        display(json, args.quiet),
        shutdown,
        show,
    ))
    .await?;
    match outcome {
        Outcome::Planned => {
            if !json {
                print("\ndry run: nothing was changed");
            }
            Ok(ExitCode::Done)
        }
        Outcome::Restored(report) => {
            if json {
                print_json(&report);
            } else {
                print(&format!("\n{}", report::render(&report)));
            }
            Ok(report.exit_code())
        }
    }
}

/// A bar is for eyes: only on a terminal.
fn display(json: bool, quiet: bool) -> Display {
    match (json, quiet) {
        (true, _) => Display::Json,
        (false, false) if std::io::stderr().is_terminal() => Display::Bar,
        _ => Display::Nothing,
    }
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        "teeline-restorer",
        &mut std::io::stdout(),
    );
    ExitCode::Done
}

fn man() -> ExitCode {
    match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
        Ok(()) => ExitCode::Done,
        Err(error) => {
            eprintln!("error: write the manual page: {error}");
            ExitCode::Failed
        }
    }
}
