//! What `cargo xtask` starts once everything is built: fetching components, and the demonstration.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for a developer's terminal; it stops at the first thing that is not as it should be"
)]

mod demo;
mod display;
mod load;
mod matrix;
mod report;

use std::process::ExitCode;

use teeline_tests::components;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("\n{}", panic.payload_as_str().unwrap_or("failed"))
    }));
    match arguments.as_slice() {
        ["setup"] => {
            components::java_client_class_path();
            components::versitygw();
            components::go_client();
            components::kdc_class_path();
            matrix::fetch_sample();
            ExitCode::SUCCESS
        }
        ["setup-kafka"] => {
            components::java_client_class_path();
            ExitCode::SUCCESS
        }
        ["matrix", flags @ ..] => match matrix::run(flags) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(reason) => {
                eprintln!("{reason}");
                ExitCode::from(2)
            }
        },
        ["demo", flags @ ..] => demo::run(flags.contains(&"--keep")),
        _ => {
            eprintln!(
                "usage: teeline-lab setup | setup-kafka | demo [--keep] | matrix [FLAGS]   (better: cargo xtask …)"
            );
            ExitCode::from(2)
        }
    }
}
