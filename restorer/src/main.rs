//! `teeline-restorer`: lists, describes, verifies and restores Teeline archives.

use clap::Parser;
use teeline_restorer::app;
use teeline_restorer::cli::Cli;

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return teeline_runtime::ExitCode::Failed.into();
        }
    };
    runtime.block_on(app::run(cli)).into()
}
