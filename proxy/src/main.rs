//! The `teeline-proxy` program.

use std::io::Write;
use std::process::ExitCode as ProcessExitCode;

use clap::Parser;
use teeline_proxy::cli::{self, CheckArgs, Cli, Command, RunArgs};
use teeline_proxy::process::Proxy;
use teeline_runtime::exit::{ExitCode, report_error};
use teeline_runtime::logging;

fn main() -> ProcessExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(&args),
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
    let config = match args.load() {
        Ok(config) => config,
        Err(errors) => return failed(&errors, ExitCode::Usage),
    };
    if let Err(error) = logging::init(&config.log) {
        return failed(&error, ExitCode::Usage);
    }
    let mut proxy = Proxy::new(config);
    if args.config.is_some() {
        let args = args.clone();
        proxy = proxy.reloading(move || args.load());
    }
    match proxy.run() {
        Ok(code) => code,
        Err(error) => failed(&error, ExitCode::Failed),
    }
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
