//! The first signal asks for a graceful stop, the second ends the process at once. Needs processes to be killed:
//! the test starts itself once more, as the one that waits for signals.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use teeline_runtime::{Shutdown, signals};

const ROLE: &str = "TEELINE_TEST_SIGNALS_ROLE";

/// Not a test by itself: what the other processes run.
#[test]
fn waits_for_signals() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let _signals = signals::listen(shutdown.clone()).unwrap();
        eprintln!("listening");
        shutdown.triggered().await;
        eprintln!("triggered");
        if role == "never finishes" {
            std::future::pending::<()>().await;
        }
    });
}

struct Waiting {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Waiting {
    fn start(role: &str) -> Self {
        // The test harness prints on standard output; the role's own lines come with it, merged by the shell.
        let command = format!(
            "exec {} --exact waits_for_signals --nocapture 2>&1",
            std::env::current_exe().unwrap().display()
        );
        let child = Command::new("sh")
            .args(["-c", &command])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self { child, lines };
        this.wait_for("listening");
        this
    }

    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "ended before it said {text:?}"
            );
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn the_first_signal_lets_the_process_finish() {
    for name in ["TERM", "INT"] {
        let mut waiting = Waiting::start("finishes");
        waiting.signal(name);
        waiting.wait_for("triggered");
        assert!(waiting.child.wait().unwrap().success(), "{name}");
    }
}

#[test]
fn the_second_signal_ends_the_process_at_once_with_the_code_of_a_failure() {
    let mut waiting = Waiting::start("never finishes");
    waiting.signal("TERM");
    waiting.wait_for("triggered");
    waiting.signal("INT");
    assert_eq!(waiting.child.wait().unwrap().code(), Some(1));
}
