//! The `teeline-segmenter` program.

use std::io::Write;
use std::process::ExitCode as ProcessExitCode;

use clap::Parser;
use teeline_runtime::exit::{ExitCode, report_error};
use teeline_runtime::logging;
use teeline_segmenter::backup::{self, BackupArgs};
use teeline_segmenter::cli::{self, CheckArgs, Cli, Command, RunArgs};
use teeline_segmenter::process;

fn main() -> ProcessExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Backup(args) => back_up(&args),
        Command::Check(args) => check(&args),
        Command::Completions { shell } => print(&cli::completions(shell)),
        Command::Man => match cli::manual() {
            Ok(page) => print(&page),
            Err(error) => failed(&error, ExitCode::Failed),
        },
    }
    .into()
}

fn run(args: &RunArgs) -> ExitCode {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(errors) => return failed(&errors, ExitCode::Usage),
    };
    if let Err(error) = logging::init(&plan.config.log) {
        return failed(&error, ExitCode::Usage);
    }
    match process::run(args, plan) {
        Ok(ended) => match report(args, &ended) {
            ExitCode::Done => ended.code,
            code => code,
        },
        Err(error) => failed(&error, ExitCode::Failed),
    }
}

fn back_up(args: &BackupArgs) -> ExitCode {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(errors) => return failed(&errors, ExitCode::Usage),
    };
    if let Err(error) = logging::init(&plan.config.log) {
        return failed(&error, ExitCode::Usage);
    }
    match backup::process::run(args, plan) {
        Ok(code) => code,
        Err(error) => failed(&error, ExitCode::Failed),
    }
}

fn report(args: &RunArgs, ended: &process::Ended) -> ExitCode {
    let mut text = String::new();
    for (name, report) in &ended.reports {
        match args.json {
            true => text.push_str(&cli::to_json(name, report).to_string()),
            false => text.push_str(&cli::describe(name, report)),
        }
        text.push('\n');
    }
    print(text.as_bytes())
}

fn check(args: &CheckArgs) -> ExitCode {
    match args.check() {
        (true, text) => print(format!("{text}\n").as_bytes()),
        (false, text) if args.json => {
            print(format!("{text}\n").as_bytes());
            ExitCode::Usage
        }
        (false, text) => {
            eprintln!("error: {text}");
            ExitCode::Usage
        }
    }
}

fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::Done,
        Err(error) => failed(&error, ExitCode::Failed),
    }
}

fn failed(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    report_error(error);
    code
}
